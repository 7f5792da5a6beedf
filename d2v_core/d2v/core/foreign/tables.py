"""Key tables: how the tensors of a foreign file lie in our modules, told once and used both ways.

A rule holds for weights, gradients and averaged weights alike, since all of its operations are linear. Rules know
nothing of files; a table is a list of them and is checked as a whole.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

import torch
from attrs import frozen
from torch import Tensor

Tensors = Mapping[str, Tensor]


class Rule(Protocol):
    """Some foreign tensors and some of ours that hold the same numbers."""

    @property
    def theirs(self) -> tuple[str, ...]:
        """Foreign names."""
        ...

    @property
    def ours(self) -> tuple[str, ...]:
        """Our names."""
        ...

    def to_ours(self, tensors: list[Tensor]) -> list[Tensor]:
        """Foreign tensors, in the order of `theirs`, to ours."""
        ...

    def to_theirs(self, tensors: list[Tensor]) -> list[Tensor]:
        """Our tensors, in the order of `ours`, to foreign ones."""
        ...


@frozen
class Rename:
    """One tensor under another name.

    >>> Rename("norm.weight", "encoder.norm_out.weight").ours
    ('encoder.norm_out.weight',)
    """

    their_name: str
    our_name: str

    @property
    def theirs(self) -> tuple[str, ...]:
        """Foreign names."""
        return (self.their_name,)

    @property
    def ours(self) -> tuple[str, ...]:
        """Our names."""
        return (self.our_name,)

    def to_ours(self, tensors: list[Tensor]) -> list[Tensor]:
        """The tensor itself."""
        return tensors

    def to_theirs(self, tensors: list[Tensor]) -> list[Tensor]:
        """The tensor itself."""
        return tensors


@frozen
class Join:
    """Several foreign tensors of equal length, one after the other along the first axis of ours.

    >>> [t.tolist() for t in Join(("q", "k"), "qk").to_ours([torch.tensor([1]), torch.tensor([2])])]
    [[1, 2]]
    """

    theirs: tuple[str, ...]
    our_name: str

    @property
    def ours(self) -> tuple[str, ...]:
        """Our names."""
        return (self.our_name,)

    def to_ours(self, tensors: list[Tensor]) -> list[Tensor]:
        """Concatenate."""
        return [torch.cat(tensors)]

    def to_theirs(self, tensors: list[Tensor]) -> list[Tensor]:
        """Cut into equal parts."""
        return list(tensors[0].chunk(len(self.theirs)))


@frozen
class Split:
    """One foreign tensor that is cut along an axis into several of ours.

    >>> [t.tolist() for t in Split("all", ("first", "rest"), sizes=(1, 2), axis=0).to_ours([torch.arange(3)])]
    [[0], [1, 2]]
    """

    their_name: str
    ours: tuple[str, ...]
    sizes: tuple[int, ...]
    axis: int

    @property
    def theirs(self) -> tuple[str, ...]:
        """Foreign names."""
        return (self.their_name,)

    def to_ours(self, tensors: list[Tensor]) -> list[Tensor]:
        """Cut."""
        return list(torch.split(tensors[0], list(self.sizes), self.axis))

    def to_theirs(self, tensors: list[Tensor]) -> list[Tensor]:
        """Concatenate."""
        return [torch.cat(tensors, self.axis)]


@frozen
class Reshape:
    """The same numbers in another shape.

    >>> Reshape("scale", "bias.scale", (1, 1, 2), (2,)).to_ours([torch.ones(1, 1, 2)])
    [tensor([1., 1.])]
    """

    their_name: str
    our_name: str
    theirs_shape: tuple[int, ...]
    ours_shape: tuple[int, ...]

    @property
    def theirs(self) -> tuple[str, ...]:
        """Foreign names."""
        return (self.their_name,)

    @property
    def ours(self) -> tuple[str, ...]:
        """Our names."""
        return (self.our_name,)

    def to_ours(self, tensors: list[Tensor]) -> list[Tensor]:
        """View in our shape."""
        return [tensors[0].reshape(self.ours_shape)]

    def to_theirs(self, tensors: list[Tensor]) -> list[Tensor]:
        """View in the foreign shape."""
        return [tensors[0].reshape(self.theirs_shape)]


@frozen
class Constant:
    """A foreign tensor that carries nothing of ours, such as a format version or a computed index; read over.

    >>> Constant("version").ours
    ()
    """

    their_name: str

    @property
    def theirs(self) -> tuple[str, ...]:
        """Foreign names."""
        return (self.their_name,)

    @property
    def ours(self) -> tuple[str, ...]:
        """No names."""
        return ()

    def to_ours(self, tensors: list[Tensor]) -> list[Tensor]:
        """Nothing."""
        return []

    def to_theirs(self, tensors: list[Tensor]) -> list[Tensor]:
        """Nothing: whoever needs it makes it anew."""
        return []


class KeyTable:
    """Rules for all tensors of a layout.

    Args:
        rules: each name may appear once on each side.

    Raises:
        ValueError: if a name appears twice.

    >>> table = KeyTable([Rename("a", "x"), Constant("version")])
    >>> table.to_ours({"a": torch.zeros(1), "version": torch.ones(1)})
    {'x': tensor([0.])}
    >>> table.to_theirs({"x": torch.zeros(1)})
    {'a': tensor([0.])}
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self.their_names = frozenset(name for rule in self.rules for name in rule.theirs)
        for side in ([n for r in self.rules for n in r.theirs], [n for r in self.rules for n in r.ours]):
            double = sorted({name for name in side if side.count(name) > 1}) if len(set(side)) < len(side) else []
            if double:
                raise ValueError(f"the key table names {', '.join(double)} twice")

    def to_ours(self, tensors: Tensors, *, partial: bool = False) -> dict[str, Tensor]:
        """Foreign tensors under our names.

        Args:
            tensors: by foreign name.
            partial: allow rules none of whose tensors are there (gradients, teachers).

        Raises:
            ValueError: if tensors are missing or unexpected; all are named together.
        """
        missing = [] if partial else [n for r in self.rules for n in r.theirs if n not in tensors and r.ours]
        unexpected = [name for name in tensors if name not in self.their_names]
        if missing or unexpected:
            raise ValueError(_complaint("missing", missing) + _complaint("unexpected", unexpected))
        return dict(self._apply(tensors, forward=True))

    def to_theirs(self, tensors: Tensors) -> dict[str, Tensor]:
        """Our tensors under foreign names; rules none of whose tensors are there are left out.

        Raises:
            ValueError: if a tensor has no rule.
        """
        known = {name for rule in self.rules for name in rule.ours}
        unexpected = [name for name in tensors if name not in known]
        if unexpected:
            raise ValueError(_complaint("without a rule", unexpected))
        return dict(self._apply(tensors, forward=False))

    def _apply(self, tensors: Tensors, *, forward: bool) -> Iterator[tuple[str, Tensor]]:
        for rule in self.rules:
            source, target = (rule.theirs, rule.ours) if forward else (rule.ours, rule.theirs)
            present = [name in tensors for name in source]
            if not source or not any(present):
                continue
            if not all(present):
                absent = [name for name in source if name not in tensors]
                raise ValueError(_complaint("missing", absent))
            run = rule.to_ours if forward else rule.to_theirs
            yield from zip(target, run([tensors[name] for name in source]), strict=False)


def _complaint(what: str, names: list[str]) -> str:
    if not names:
        return ""
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return f"{len(names)} tensors {what}: {shown}. "
