"""Kinds: the names in files of the classes that can fill a role.

A role is a type with several implementations: maskers, predictors, encoders, students, adapters, data sets, tasks,
labels. A kind is looked up in core's own table, among the registered modalities (`audio/waveform`) or among the entry
points that other packages declare for the role. A name in a file reaches nothing else, so no file can decide what is
imported.
"""

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from d2v.core.data import DataConfig
from d2v.core.labels import LABELS, Labels
from d2v.core.masks import BlockMasker, ChannelMasker, InverseBlockMasker, Masker, RandomMasker, SpanMasker
from d2v.core.modality import modalities
from d2v.core.model import (
    AdapterConfig,
    BackboneConfig,
    ConvDecoderConfig,
    EncoderConfig,
    MaskedHeadConfig,
    PredictorConfig,
    StudentConfig,
    TransformerConfig,
)
from d2v.core.registry import PluginError, Registry
from d2v.core.suggestions import nearest
from d2v.core.task import Task

__all__ = ["ConfigError", "Role", "add_kind", "add_role", "role_of"]


class ConfigError(ValueError):
    """A configuration cannot be read or written; the message names the key, the expected value and the nearest name."""


@frozen(kw_only=True)
class Role:
    """A type that several configuration classes can fill, distinguished by their kind.

    Args:
        name: of the role, for messages.
        own: core's classes by kind.
        part: field of the modalities' records that adds classes by kind, if there is one.
        plugins: entry points of other packages that add classes, if there are any.
        default: kind if a file names none.
    """

    name: str
    own: dict[str, type] = field(factory=dict)
    part: str | None = None
    plugins: Registry[type] | None = None
    default: str | None = None

    def names(self) -> list[str]:
        """All kinds, sorted; imports modalities, but no plug-ins."""
        plugins = self.plugins.names() if self.plugins else []
        return sorted({*self.own, *plugins, *self._of_modalities()})

    def find(self, kind: object) -> type:
        """The class of a kind; a modality's name alone means its first class.

        Raises:
            ConfigError: if the kind does not exist; lists the known ones.
            PluginError: if a plug-in or a modality cannot be imported, or two packages declare it.
        """
        if kind is None and self.default is not None:
            kind = self.default
        if isinstance(kind, str):
            plugin = self.plugins is not None and kind in self.plugins.names()
            if plugin and kind in self.own:
                raise PluginError(f"{self.name} {kind!r} is declared by a plug-in, but d2v has one of the same name")
            if plugin and self.plugins is not None:
                return self.plugins.load(kind)
            known = self.own | self._of_modalities(bare=True)
            if kind in known:
                return known[kind]
            if self.part is not None:
                modalities.refuse_broken(kind.partition("/")[0])
        names = self.names()
        hint = nearest(kind, names) if isinstance(kind, str) else ""
        raise ConfigError(f"kind {kind!r} is not one of {', '.join(names)}{hint}")

    def kind_of(self, config: type) -> str | None:
        """The kind of a class; None if it has none. Imports the plug-ins of this role."""
        known = self.own | self._of_modalities()
        if self.plugins is not None:
            known |= {
                name: self.plugins.load(name) for name in self.plugins.names() if name not in self.plugins.broken()
            }
        return next((name for name, one in known.items() if one is config), None)

    def _of_modalities(self, *, bare: bool = False) -> dict[str, type]:
        found: dict[str, type] = {}
        if self.part is None:
            return found
        for name in modalities.names():
            if name in modalities.broken():
                continue
            classes: Mapping[str, type] = getattr(modalities.load(name), self.part)
            found |= {f"{name}/{kind}": one for kind, one in classes.items()}
            if bare and classes:
                found[name] = next(iter(classes.values()))
        return found


def _plugins(group: str, word: str) -> Registry[type]:
    return Registry(f"d2v.{group}", kind=type, word=word)


_ROLES: dict[Any, Role] = {
    Masker: Role(
        name="masker",
        own={
            "inverse-blocks": InverseBlockMasker,
            "spans": SpanMasker,
            "random": RandomMasker,
            "blocks": BlockMasker,
            "channels": ChannelMasker,
        },
        plugins=_plugins("maskers", "masker"),
    ),
    PredictorConfig: Role(
        name="predictor",
        own={"conv-decoder": ConvDecoderConfig, "masked-head": MaskedHeadConfig},
        plugins=_plugins("predictors", "predictor"),
    ),
    EncoderConfig: Role(
        name="encoder",
        own={"transformer": TransformerConfig},
        plugins=_plugins("encoders", "encoder"),
        default="transformer",
    ),
    StudentConfig: Role(
        name="student", own={"backbone": BackboneConfig}, plugins=_plugins("students", "student"), default="backbone"
    ),
    AdapterConfig: Role(name="adapter", part="adapters"),
    DataConfig: Role(name="data", part="data"),
    Task: Role(name="task", part="tasks"),
    Labels: Role(name="labels", own=dict(LABELS)),
}


def roles() -> list[Role]:
    """All roles."""
    return list(_ROLES.values())


def role_of(declared: Any) -> Role | None:
    """The role of a type; None if the type is not a role."""
    return next((role for known, role in _ROLES.items() if known is declared), None)


def add_role(declared: type, table: Mapping[str, type], *, default: str | None = None) -> None:
    """Register a new role with its classes by kind; for packages above this one."""
    _ROLES[declared] = Role(name=declared.__name__, own=dict(table), default=default)


def add_kind(declared: type, kind: str, config: type) -> None:
    """Register a kind for a class in this process, without a package that declares it.

    Args:
        declared: the role: `Masker`, `PredictorConfig`, `EncoderConfig`, `StudentConfig`, `AdapterConfig`, ...
        kind: name of the class in files.
        config: the class; a frozen attrs class, so that its fields can be written.

    Raises:
        ValueError: if the type is not a role, or the kind belongs to another class.

    >>> @frozen(kw_only=True)
    ... class FirstHalf:
    ...     pass
    >>> add_kind(Masker, "first-half", FirstHalf)
    >>> role_of(Masker).find("first-half").__name__
    'FirstHalf'
    """
    role = role_of(declared)
    if role is None:
        raise ValueError(f"{declared.__name__} is not a role: its fields have only one kind")
    if kind in role.names() and role.find(kind) is not config:
        raise ValueError(f"{role.name} {kind!r} is {role.find(kind).__name__} already; choose another kind")
    role.own[kind] = config
