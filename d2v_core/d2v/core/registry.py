"""Registry of installed plug-ins.

Plug-ins are found through entry points. Listing imports nothing, loading imports one plug-in, and a broken plug-in does
not affect the others. The caller defines the type of the plug-ins.
"""

from configparser import Error as ConfigParserError
from functools import cached_property
from typing import Generic, TypeVar

import entrypoints  # type: ignore[import-untyped, unused-ignore]  # it has no types
from entrypoints import EntryPoint

from d2v.core.suggestions import nearest

__all__ = ["MissingExtraError", "PluginError", "Registry", "UnknownNameError"]

T = TypeVar("T")


class MissingExtraError(ImportError):
    """A package of an extra is missing; the message contains the pip command."""


class UnknownNameError(LookupError):
    """No plug-in with this name is declared; the message lists the known names."""


class PluginError(RuntimeError):
    """A plug-in cannot be used: its import fails, it has the wrong type, or its name is declared twice."""


class Registry(Generic[T]):
    """Plug-ins declared in one entry-point group, read once at first use.

    Args:
        group: entry-point group.
        kind: class that every plug-in of the group must be an instance of; `type` = plug-ins are classes.
        word: word for a plug-in in messages, such as "masker".

    >>> from d2v.core.modality import modalities
    >>> modalities.names()
    ['audio', 'text', 'vision']
    >>> modalities.load("vision").name
    'vision'
    >>> modalities.load("visoin")
    Traceback (most recent call last):
    d2v.core.registry.UnknownNameError: unknown modality 'visoin' (known: audio, text, vision); did you mean 'vision'?
    >>> Registry("d2v.odours", kind=type, word="odour").names()
    []
    """

    def __init__(self, group: str, *, kind: type[T], word: str) -> None:
        self.group = group
        self.kind = kind
        self.word = word
        self._loaded: dict[str, T] = {}

    @cached_property
    def _declared(self) -> dict[str, list[EntryPoint]]:
        # A distribution that is on sys.path twice (for example an editable install and a folder) is listed once.
        try:
            entries = entrypoints.get_group_all(self.group)
        except ConfigParserError as error:
            reason = " ".join(str(error).split())
            raise PluginError(f"the entry points of an installed distribution cannot be read: {reason}") from error
        declared: dict[str, list[EntryPoint]] = {}
        for entry in sorted(entries, key=lambda entry: (entry.name, _distribution(entry))):
            declared.setdefault(entry.name, []).append(entry)
        return declared

    def names(self) -> list[str]:
        """Return all declared names, sorted; imports nothing.

        Raises:
            PluginError: if the entry points of a distribution cannot be read.
        """
        return sorted(self._declared)

    def load(self, name: str) -> T:
        """Return the plug-in of this name, imported at first use.

        Raises:
            UnknownNameError: if the name is not declared; lists the known names and the nearest.
            PluginError: one line naming the distribution, if the plug-in cannot be imported, has the wrong type, or
                several distributions declare this name.
        """
        if name not in self._loaded:
            self._loaded[name] = self._import(self._find(name))
        return self._loaded[name]

    def refuse_broken(self, name: str) -> None:
        """Raise an error if a declared plug-in cannot be loaded; names that are not declared are ignored.

        Raises:
            PluginError: as `load`.
        """
        if name in self.names():
            self.load(name)

    def broken(self) -> dict[str, PluginError]:
        """Return the plug-ins that cannot be loaded, by name, with the error; imports all plug-ins."""
        errors: dict[str, PluginError] = {}
        for name in self.names():
            try:
                self.load(name)
            except PluginError as error:
                errors[name] = error
        return errors

    def _find(self, name: str) -> EntryPoint:
        entries = self._declared.get(name, [])
        if not entries:
            known = ", ".join(self.names()) or f"none: no installed distribution declares {self.group!r}"
            raise UnknownNameError(f"unknown {self.word} {name!r} (known: {known}){nearest(name, self.names())}")
        if len(entries) > 1:
            owners = " and ".join(f"{_distribution(entry)} ({_value(entry)})" for entry in entries)
            raise PluginError(f"{self.word} {name!r} is declared by {owners}: uninstall all but one")
        return entries[0]

    def _import(self, entry: EntryPoint) -> T:
        what = f"{self.word} {entry.name!r} of {_distribution(entry)}"
        try:
            plugin = entry.load()
        # The import of a third-party plug-in may raise anything, SystemExit included; it must not affect the others.
        except (Exception, SystemExit) as error:
            reason = " ".join(str(error).split())
            raise PluginError(f"{what} cannot be imported: {type(error).__name__}: {reason}") from error
        if not isinstance(plugin, self.kind):
            wanted = "a class" if self.kind is type else f"a {self.kind.__name__}"
            raise PluginError(f"{what} ({_value(entry)}) is a {type(plugin).__name__}, not {wanted}")
        return plugin


def _distribution(entry: EntryPoint) -> str:
    if entry.distro is None:
        return "an unknown distribution"
    # Taken from the folder's name, which has underscores instead of hyphens.
    return f"{entry.distro.name.replace('_', '-')} {entry.distro.version}"


def _value(entry: EntryPoint) -> str:
    return f"{entry.module_name}:{entry.object_name}" if entry.object_name else str(entry.module_name)
