"""Key tables: how the tensors of a foreign file lie in our modules, told once and used both ways.

A rule holds for weights, gradients and averaged weights alike, since all of its operations are linear. Rules know
nothing of files; a table is a list of them and is checked as a whole.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

import torch
from attrs import frozen
from torch import Tensor

from d2v.core.state_dict import complaint, misfits

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

    def misfits(self, tensors: Tensors, expected: Tensors) -> dict[str, list[str]]:
        """What would go wrong if foreign tensors became ours: names by what is wrong, all of them.

        Args:
            tensors: by foreign name; those without memory (meta) will do.
            expected: ours, likewise.
        """
        known = self.their_names
        found: dict[str, list[str]] = {"missing": [], "unexpected": [n for n in tensors if n not in known]}
        reshaped: list[str] = []
        for rule in self.rules:
            absent = [name for name in rule.theirs if name not in tensors]
            if absent or not rule.ours:
                found["missing"] += absent if rule.ours else []
                continue
            try:
                given = dict(zip(rule.ours, _run(rule, [tensors[n] for n in rule.theirs], forward=True), strict=True))
            except ValueError as error:
                reshaped.append(str(error))
                continue
            reshaped += misfits({name: expected[name] for name in given if name in expected}, given)["of another shape"]
        known_ours = {name for rule in self.rules for name in rule.ours}
        found["missing"] += [name for name in expected if name not in known_ours]
        return found | {"of another shape": reshaped}

    def _apply(self, tensors: Tensors, *, forward: bool) -> Iterator[tuple[str, Tensor]]:
        for rule in self.rules:
            source, target = (rule.theirs, rule.ours) if forward else (rule.ours, rule.theirs)
            present = [name in tensors for name in source]
            if not source or not any(present):
                continue
            if not all(present):
                absent = [name for name in source if name not in tensors]
                raise ValueError(complaint({"missing": absent}))
            yield from zip(target, _run(rule, [tensors[name] for name in source], forward=forward), strict=False)


def both(theirs: str, ours: str) -> list[Rule]:
    """Rules of a weight and a bias."""
    return [Rename(f"{theirs}.{part}", f"{ours}.{part}") for part in ("weight", "bias")]


def _run(rule: Rule, tensors: list[Tensor], *, forward: bool) -> list[Tensor]:
    try:
        return rule.to_ours(tensors) if forward else rule.to_theirs(tensors)
    except RuntimeError as error:  # of PyTorch, about sizes
        names = rule.theirs if forward else rule.ours
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in zip(names, tensors, strict=True))
        raise ValueError(f"{shapes} cannot be put into our form") from error
