"""Key tables: how the tensors of a foreign file lie in our modules, told once and used both ways.

A rule holds for weights, gradients and averaged weights alike, since all of its operations are linear. Rules know
nothing of files; a table is a list of them and is checked as a whole.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

import torch
from attrs import frozen
from torch import Tensor

from d2v.core.state_dict import complaint, misfits

Tensors = Mapping[str, Tensor]
Shape = tuple[int, ...]


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

    def our_shapes(self, shapes: list[Shape]) -> list[Shape]:
        """Shapes of our tensors out of those of foreign ones, in the order of `theirs`.

        Raises:
            ValueError: if foreign tensors of these shapes do not become ours.
        """
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

    def our_shapes(self, shapes: list[Shape]) -> list[Shape]:
        """The same."""
        return shapes

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

    def our_shapes(self, shapes: list[Shape]) -> list[Shape]:
        """As long as the parts together, which must be of one shape."""
        first, *rest = shapes
        if not first or any(shape != first for shape in rest):
            raise ValueError("are of different shapes")
        return [(first[0] * len(shapes), *first[1:])]

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

    def our_shapes(self, shapes: list[Shape]) -> list[Shape]:
        """Those of the parts."""
        (shape,) = shapes
        if len(shape) <= self.axis or shape[self.axis] != sum(self.sizes):
            raise ValueError(f"cannot be cut into {self.sizes}")
        return [(*shape[: self.axis], size, *shape[self.axis + 1 :]) for size in self.sizes]

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

    def our_shapes(self, shapes: list[Shape]) -> list[Shape]:
        """Ours, if there are as many numbers."""
        if math.prod(shapes[0]) != math.prod(self.ours_shape):
            raise ValueError(f"has not the numbers of {self.ours_shape}")
        return [self.ours_shape]

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

    def our_shapes(self, shapes: list[Shape]) -> list[Shape]:
        """None."""
        return []

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
            raise ValueError(complaint({"missing": missing, "unexpected": unexpected}))
        return dict(self._apply(tensors, forward=True))

    def to_theirs(self, tensors: Tensors) -> dict[str, Tensor]:
        """Our tensors under foreign names; rules none of whose tensors are there are left out.

        Raises:
            ValueError: if a tensor has no rule.
        """
        known = {name for rule in self.rules for name in rule.ours}
        unexpected = [name for name in tensors if name not in known]
        if unexpected:
            raise ValueError(complaint({"without a rule": unexpected}))
        return dict(self._apply(tensors, forward=False))

    def misfits(self, shapes: Mapping[str, Shape], expected: Mapping[str, Shape]) -> dict[str, list[str]]:
        """What would go wrong if foreign tensors became ours: names by what is wrong, all of them.

        Args:
            shapes: by foreign name.
            expected: ours; rules of others may lack their tensors.
        """
        wanted = [rule for rule in self.rules if any(name in expected for name in rule.ours)]
        missing = [name for rule in wanted for name in rule.theirs if name not in shapes]
        given: dict[str, Shape] = {}
        reshaped: list[str] = []
        for rule in self.rules:
            if all(name in shapes for name in rule.theirs):
                theirs = [shapes[name] for name in rule.theirs]
                try:
                    given |= zip(rule.ours, rule.our_shapes(theirs), strict=True)
                except ValueError as error:
                    reshaped.append(f"{', '.join(rule.theirs)} {', '.join(map(str, theirs))} {error}")
        ours = {name for rule in self.rules for name in rule.ours}
        return {
            "missing": missing + [name for name in expected if name not in ours],
            "unexpected": [name for name in shapes if name not in self.their_names]
            + [name for name in given if name not in expected],
            "of another shape": reshaped + misfits(expected, given)["of another shape"],
        }

    def _apply(self, tensors: Tensors, *, forward: bool) -> Iterator[tuple[str, Tensor]]:
        for rule in self.rules:
            source, target = (rule.theirs, rule.ours) if forward else (rule.ours, rule.theirs)
            present = [name in tensors for name in source]
            if not source or not any(present):
                continue
            if not all(present):
                absent = [name for name in source if name not in tensors]
                raise ValueError(complaint({"missing": absent}))
            run = rule.to_ours if forward else rule.to_theirs
            yield from zip(target, run([tensors[name] for name in source]), strict=False)


def both(theirs: str, ours: str) -> list[Rule]:
    """Rules of a weight and a bias."""
    return [Rename(f"{theirs}.{part}", f"{ours}.{part}") for part in ("weight", "bias")]
