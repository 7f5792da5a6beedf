"""Declaration of a modality, and lookup of the installed ones.

No modality is named here: the built-in modalities are declared like third-party ones, by an entry point of the group
`d2v.modalities`.
"""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from typing import Any, Protocol

from attrs import field, frozen
from torch import Tensor

from d2v.core.data import DataConfig
from d2v.core.foreign import Converter, ExportForm
from d2v.core.model import AdapterConfig, Batch, Local
from d2v.core.probes import Features
from d2v.core.registry import MissingExtraError, Registry
from d2v.core.task import Task

__all__ = ["DataCommand", "InputForm", "Modality", "Quickstart", "find_quickstart", "modalities"]


@frozen(kw_only=True)
class DataCommand:
    """A command of a modality, as a subcommand of `d2v data`.

    Args:
        summary: one line for listings.
        add_arguments: function that adds its arguments to a parser.
        run: function that runs the command.
    """

    summary: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], None]


@frozen(kw_only=True)
class InputForm:
    """How other programs pass the raw input of a modality to an encoder.

    Args:
        name: of the tensor, as in the transformers package, such as "pixel_values".
        example: function from an adapter's configuration to a small example of `Batch.source`, `b ...` with b = 2, from
            which the encoder is traced.
        lengths: function from an adapter's configuration to the shortest and the longest input of one sample; None = no
            limit. Such input comes with a tensor `attention_mask`, `b raw`, 1 = valid, 0 = padding. None = all samples
            have the same shape.
    """

    name: str
    example: Callable[[Any], Tensor]
    lengths: Callable[[Any], tuple[int, int | None]] | None = None


class Quickstart(Protocol):
    """Function that `d2v quickstart` runs. The options and the help of the command are taken from its signature.

    >>> find_quickstart("vision")("out", steps=0)
    Traceback (most recent call last):
    ValueError: 'steps' must be >= 1: 0
    """

    def __call__(
        self,
        out: str | os.PathLike[str],
        *,
        minutes: float | None = None,
        steps: int | None = None,
        seed: int = 0,
        device: str = "auto",
        progress: bool = True,
    ) -> Mapping[str, Any]:
        """Show in five minutes what data2vec learns.

        Pretrains a small model without labels on samples that are part of the package. Its features are compared with
        the raw input and the untrained network by simple classifiers. Fine-tuning on few labels is compared with the
        same network trained from scratch. An HTML page shows the results. No network connection is needed.

        Args:
            out: folder to create, with `report.html`, the numbers in `report.json`, and the run in `run`.
            minutes: total time in minutes, above 0; None = 5, unless `steps` is given.
            steps: number of pretraining updates instead of `minutes`, at least 1; the same number and seed reproduce
                the run.
            seed: seed of all random numbers, at least 0.
            device: auto = the first available of cuda, mps and cpu.
            progress: whether to show the progress on standard error.

        Returns:
            Contents of `report.json`. `verdict` is one sentence with the result, which the command prints.

        Raises:
            FileExistsError: if `out` exists.
            OSError: if `out` cannot be created.
            MissingExtraError: if packages of an extra are missing.
            ConfigError: if the device is not available.
            ValueError: if a number is out of range, both `minutes` and `steps` are given, or the time is too short.
        """
        ...


@frozen(kw_only=True)
class Modality:
    """Record that a package registers in the entry-point group `d2v.modalities`, importable without its extra.

    Args:
        name: name of the modality, the same as that of its entry point.
        description: one line for listings.
        extra: pip requirement that installs the packages of `requires`; needed only with `requires`.
        requires: import names of the packages that the modality needs in addition to those of core.
        optional: import names of packages that some of its features need, by the pip requirement that installs them.
        adapters: configuration classes of its adapters by kind, the default first; `build(encoder)` returns a
            `ModalityAdapter`. Files write the kind after the name, `audio/waveform`.
        data: configuration classes of its data by kind, the default first; `build(split, ...)` returns batches.
        samples: kind of data that `probe` and `extract` read with a pretrained model, if it is not the kind of the
            training: text is pretrained on blocks, but features are of single texts. None = that of the training.
        recipes: package that contains its recipes, each as `NAME.yaml`.
        catalogue: package that contains `catalogue.toml`, its published models (`d2v.core.files.catalogue`).
        converters: converters for third-party checkpoint files.
        input: how other programs pass its raw input; None = its encoders are written as model folders only.
        exports: further forms in which `d2v convert` writes its models, by name.
        tasks: configuration classes of its fine-tuning tasks by kind, the default first.
        data_commands: its subcommands of `d2v data` by name.
        quickstart: function that `d2v quickstart` runs; None = no quickstart.
        images: function from a batch and its data configuration to images of the samples, `b c h w` with one or three
            channels from 0 to 1, to draw masks and features on; None = samples are not images.
        example: function from the configuration of one of its adapters to a batch of two made-up samples, always the
            same, on which `d2v doctor` measures features; None = it measures none.
        raw_name: title of results on the raw input.
        raw_features: function from the batches of each split and their data configuration to features of the raw input,
            a baseline for samples that are no fixed number of floats; what has to be fitted is fitted on the split
            `train`; None = there are none.
        raw_frames: function from a batch and its data configuration to features of the raw input at each position, a
            baseline for labels that are sequences; None = there are none.

    Raises:
        ValueError: if `requires` names packages and `extra` is missing.

    An example modality:

    >>> odour = Modality(name="odour", description="smells", extra="d2v-odour[nose]", requires=("nose",))
    >>> odour.require_extra()
    Traceback (most recent call last):
    d2v.core.registry.MissingExtraError: odour needs nose, which is not installed: pip install 'd2v-odour[nose]'
    """

    name: str
    description: str
    extra: str | None = None
    requires: tuple[str, ...] = ()
    optional: Mapping[str, tuple[str, ...]] = field(factory=dict)
    adapters: Mapping[str, type[AdapterConfig]] = field(factory=dict)
    data: Mapping[str, type[DataConfig]] = field(factory=dict)
    samples: str | None = None
    recipes: str | None = None
    catalogue: str | None = None
    converters: tuple[Converter, ...] = ()
    input: InputForm | None = None
    exports: Mapping[str, ExportForm] = field(factory=dict)
    tasks: Mapping[str, type[Task]] = field(factory=dict)
    data_commands: Mapping[str, DataCommand] = field(factory=dict)
    quickstart: Quickstart | None = None
    images: Callable[[Batch, DataConfig], Tensor] | None = None
    example: Callable[[AdapterConfig], Batch] | None = None
    raw_name: str = "raw input"
    raw_features: Callable[[Mapping[str, Iterable[Batch]], DataConfig], Mapping[str, Features]] | None = None
    raw_frames: Callable[[Batch, DataConfig], Local] | None = None

    def __attrs_post_init__(self) -> None:
        if self.requires and not self.extra:
            raise ValueError(f"modality {self.name!r} requires {', '.join(self.requires)} but names no extra for it")

    def require_extra(self) -> None:
        """Check that all packages of `requires` are installed.

        Raises:
            MissingExtraError: if packages are missing; one line that names them and the pip command to install them.
        """
        missing = [module for module in self.requires if find_spec(module) is None]
        if missing:
            verb = "is" if len(missing) == 1 else "are"
            raise MissingExtraError(
                f"{self.name} needs {', '.join(missing)}, which {verb} not installed: pip install '{self.extra}'",
                name=missing[0],
            )


modalities: Registry[Modality] = Registry("d2v.modalities", kind=Modality, word="modality")


def find_quickstart(modality: str | None = None) -> Quickstart:
    """Return the quickstart of a modality.

    Args:
        modality: name of the modality; None = the first one with a quickstart, in the order of their names.

    Raises:
        UnknownNameError: if there is no such modality.
        PluginError: if a modality cannot be imported.
        ValueError: if the modality has no quickstart, or no modality has one.

    >>> find_quickstart("audio")
    Traceback (most recent call last):
    ValueError: audio has no quickstart; omit the modality to run the first available quickstart
    """
    broken = modalities.broken() if modality is None else {}
    for one in modalities.names() if modality is None else [modality]:
        found = None if one in broken else modalities.load(one).quickstart
        if found is not None:
            return found
    if modality is None:
        for error in broken.values():
            raise error
        raise ValueError("no installed modality has a quickstart")
    raise ValueError(f"{modality} has no quickstart; omit the modality to run the first available quickstart")
