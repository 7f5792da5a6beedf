"""What is installed: named plug-ins of other packages, our own modalities among them.

Plug-ins are found through entry points, which the standard library reads (the `entrypoints` package declares itself
maintenance-only and points there). Listing imports nothing, loading imports one plug-in, and a broken one leaves the
others working. Nothing here knows a modality: ours are declared exactly as a stranger's.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any, Generic, TypeVar

from attrs import field, frozen
from torch import Tensor

from d2v.core.data import DataConfig
from d2v.core.foreign import Converter
from d2v.core.model import AdapterConfig, Batch
from d2v.core.task import Task

__all__ = [
    "MissingExtraError",
    "Modality",
    "PluginError",
    "Quickstart",
    "Registry",
    "UnknownNameError",
    "Verb",
    "modalities",
]

T = TypeVar("T")


class MissingExtraError(ImportError):
    """A package is missing that an extra brings; the message holds the pip command."""


class UnknownNameError(LookupError):
    """No plug-in of this name is declared; the message lists those that are."""


class PluginError(RuntimeError):
    """A plug-in cannot be used: its import fails, it is of the wrong kind, or its name is declared twice."""


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
        adapter: configuration class of its adapter; `build(encoder)` makes a `ModalityAdapter`.
        data: configuration class of its data; `build(split, ...)` makes batches.
        recipes: package that holds its recipes, `NAME.yaml` each.
        converters: for other people's checkpoint files.
        tasks: by name, configuration classes of what can be trained on top of a pretrained model.
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
    adapter: type[AdapterConfig] | None = None
    data: type[DataConfig] | None = None
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


class Registry(Generic[T]):
    """The plug-ins declared in one entry-point group, read once, at first use.

    Args:
        group: the entry-point group.
        kind: the class that every plug-in of the group must be an instance of.

    >>> modalities.names()
    ['audio', 'text', 'vision']
    >>> modalities.load("vision").name
    'vision'
    >>> modalities.load("visoin")
    Traceback (most recent call last):
    d2v.core.registry.UnknownNameError: unknown modality 'visoin' (known: audio, text, vision), did you mean 'vision'?
    """

    def __init__(self, group: str, *, kind: type[T]) -> None:
        self.group = group
        self.kind = kind
        self._loaded: dict[str, T] = {}

    @cached_property
    def _declared(self) -> dict[str, list[EntryPoint]]:
        # A distribution that stands on sys.path twice (an editable install and a folder, say) is listed once: the
        # standard library goes by its name.
        declared: dict[str, list[EntryPoint]] = {}
        for entry in sorted(entry_points(group=self.group), key=lambda entry: (entry.name, _distribution(entry))):
            declared.setdefault(entry.name, []).append(entry)
        return declared

    def names(self) -> list[str]:
        """All declared names, sorted; imports nothing."""
        return sorted(self._declared)

    def load(self, name: str) -> T:
        """The plug-in of this name, imported at first use.

        Raises:
            UnknownNameError: if nobody declares it; lists the known names and the nearest.
            PluginError: one line naming the distribution, if the plug-in cannot be imported, is not of the group's
                kind, or two declare this name.
        """
        if name not in self._loaded:
            self._loaded[name] = self._import(self._find(name))
        return self._loaded[name]

    def broken(self) -> dict[str, PluginError]:
        """Every plug-in that cannot be loaded, by name, with the error that says why; imports all."""
        errors: dict[str, PluginError] = {}
        for name in self.names():
            try:
                self.load(name)
            except PluginError as error:
                errors[name] = error
        return errors

    @property
    def _word(self) -> str:
        return self.kind.__name__.lower()

    def _find(self, name: str) -> EntryPoint:
        entries = self._declared.get(name, [])
        if not entries:
            known = ", ".join(self.names()) or f"none: no installed distribution declares {self.group!r}"
            near = get_close_matches(name, self.names(), n=1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise UnknownNameError(f"unknown {self._word} {name!r} (known: {known}){hint}")
        if len(entries) > 1:
            owners = " and ".join(f"{_distribution(entry)} ({entry.value})" for entry in entries)
            raise PluginError(f"{self._word} {name!r} is declared by {owners}: uninstall all but one")
        return entries[0]

    def _import(self, entry: EntryPoint) -> T:
        what = f"{self._word} {entry.name!r} of {_distribution(entry)}"
        try:
            plugin = entry.load()
        # A stranger's import may raise anything, SystemExit included; none of it may take the others down.
        except (Exception, SystemExit) as error:
            reason = " ".join(str(error).split())
            raise PluginError(f"{what} cannot be imported: {type(error).__name__}: {reason}") from error
        if not isinstance(plugin, self.kind):
            raise PluginError(f"{what} ({entry.value}) is a {type(plugin).__name__}, not a {self.kind.__name__}")
        return plugin


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"


modalities: Registry[Modality] = Registry("d2v.modalities", kind=Modality)
