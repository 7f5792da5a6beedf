"""What a modality tells of itself, and the look-up of those that are installed.

Nothing here knows one by name: ours are declared exactly as a stranger's, by an entry point of the group
`d2v.modalities`.
"""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, Protocol

from attrs import field, frozen
from torch import Tensor

from d2v.core.data import DataConfig
from d2v.core.foreign import Converter
from d2v.core.model import AdapterConfig, Batch
from d2v.core.registry import MissingExtraError, Registry
from d2v.core.task import Task

__all__ = ["DataCommand", "Modality", "Quickstart", "find_quickstart", "modalities"]


@frozen(kw_only=True)
class DataCommand:
    """A command of a modality below `d2v data`.

    Args:
        summary: one line for listings.
        add_arguments: puts its arguments on a parser.
        run: does it.
    """

    summary: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], None]


class Quickstart(Protocol):
    """What `d2v quickstart` runs. The options of the command and its help are those of the call.

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
        """See in five minutes what data2vec learns.

        A small model is pretrained on samples that ship with the package, without labels. What it has learned is
        measured by simple classifiers, beside the raw input and the untrained network, and by fine-tuning on few
        labels, beside the same network from scratch. A page shows it. No network connection is needed.

        Args:
            out: folder to make, with `report.html`, the figures in `report.json`, and the run in `run`.
            minutes: for everything together, above 0; None = 5, unless `steps` is given.
            steps: updates of the pretraining in place of `minutes`, at least 1: the same number and seed give the same
                run again.
            seed: of all that is random, at least 0.
            device: auto = cuda, mps or cpu, the first that there is.
            progress: whether to show how far it is, on standard error.

        Returns:
            What `report.json` holds. `verdict` is one sentence with the result, which the command prints.

        Raises:
            FileExistsError: if `out` is there.
            OSError: if it cannot be made.
            MissingExtraError: if the packages of an extra are missing.
            ConfigError: if there is no such device.
            ValueError: if a number is out of its range, both `minutes` and `steps` are given, or the minutes are too
                few.
        """
        ...


@frozen(kw_only=True)
class Modality:
    """What a portion registers in the entry-point group `d2v.modalities`: a record, importable without its extra.

    Args:
        name: the same as its entry point's.
        description: one line for listings.
        extra: the requirement that brings the packages of `requires`, as pip takes it; needed only with `requires`.
        requires: import names of the packages that the modality uses beyond those of core.
        adapters: configuration classes of its adapters by kind, the usual one first; `build(encoder)` makes a
            `ModalityAdapter`. Files write the kind below the name, `audio/waveform`.
        data: configuration classes of its data by kind, likewise; `build(split, ...)` makes batches.
        recipes: package that holds its recipes, `NAME.yaml` each.
        converters: for other people's checkpoint files.
        tasks: configuration classes of what can be trained on top of a pretrained model, likewise.
        data_commands: by name, its commands below `d2v data`.
        quickstart: what `d2v quickstart` runs; None = there is none.
        images: from a batch and the data that it is of, what the samples look like, `b c h w` with one or three
            channels from 0 to 1, for masks and features drawn over them; None = they are no images.
        raw_name: title of results on the raw input.

    Raises:
        ValueError: if `requires` names packages and `extra` does not say how to get them.

    >>> odour = Modality(name="odour", description="smells", extra="d2v-odour[nose]", requires=("nose",))
    >>> odour.require_extra()
    Traceback (most recent call last):
    d2v.core.registry.MissingExtraError: odour needs nose, which is not installed: pip install 'd2v-odour[nose]'
    """

    name: str
    description: str
    extra: str | None = None
    requires: tuple[str, ...] = ()
    adapters: Mapping[str, type[AdapterConfig]] = field(factory=dict)
    data: Mapping[str, type[DataConfig]] = field(factory=dict)
    recipes: str | None = None
    converters: tuple[Converter, ...] = ()
    tasks: Mapping[str, type[Task]] = field(factory=dict)
    data_commands: Mapping[str, DataCommand] = field(factory=dict)
    quickstart: Quickstart | None = None
    images: Callable[[Batch, DataConfig], Tensor] | None = None
    raw_name: str = "raw input"

    def __attrs_post_init__(self) -> None:
        if self.requires and not self.extra:
            raise ValueError(f"modality {self.name!r} requires {', '.join(self.requires)} but names no extra for it")

    def require_extra(self) -> None:
        """Do nothing if all that `requires` names can be imported.

        Raises:
            MissingExtraError: one line with what is missing and the pip command that mends it.
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
    """The quickstart of a modality.

    Args:
        modality: its name; None = the first one with a quickstart, in the order of their names.

    Raises:
        UnknownNameError: if there is no such modality.
        PluginError: if a modality cannot be imported.
        ValueError: if it has no quickstart, or none has one.

    >>> find_quickstart("audio")
    Traceback (most recent call last):
    ValueError: audio has no quickstart; leave the modality out for the first one that has one
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
    raise ValueError(f"{modality} has no quickstart; leave the modality out for the first one that has one")
