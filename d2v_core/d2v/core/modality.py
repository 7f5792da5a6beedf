"""What a modality tells of itself, and the look-up of those that are installed.

Nothing here knows one by name: ours are declared exactly as a stranger's, by an entry point of the group
`d2v.modalities`.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from attrs import field, frozen
from torch import Tensor

from d2v.core.data import DataConfig
from d2v.core.foreign import Converter
from d2v.core.model import AdapterConfig, Batch
from d2v.core.registry import MissingExtraError, Registry
from d2v.core.task import Task

__all__ = ["Modality", "Quickstart", "Verb", "modalities"]


@frozen(kw_only=True)
class Verb:
    """A command of a modality below `d2v data`.

    Args:
        summary: one line for listings.
        add_arguments: puts its arguments on a parser.
        run: does it.
    """

    summary: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], None]


@frozen(kw_only=True)
class Quickstart:
    """What `d2v quickstart` shows of a modality.

    Args:
        recipe: of pretraining.
        finetune: recipe of a task on top.
        path: `data.path` of labelled samples that ship, with the splits train, val and test.
        few_labels: keys that make fine-tuning see 100 labels only, drawn by the seed.
        scratch: keys that suit fine-tuning from scratch better.
    """

    recipe: str
    finetune: str
    path: str
    few_labels: Mapping[str, Any] = field(factory=dict)
    scratch: Mapping[str, Any] = field(factory=dict)


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
        verbs: by name, its commands below `d2v data`.
        quickstart: what its quickstart runs; None = it has none.
        pictures: from a batch and the data that it is of, what the samples look like, `b c h w` with one or three
            channels from 0 to 1, for masks and features drawn over them; None = they are no pictures.

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
    verbs: Mapping[str, Verb] = field(factory=dict)
    quickstart: Quickstart | None = None
    pictures: Callable[[Batch, DataConfig], Tensor] | None = None

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
