"""Rules: how a few tensors of a foreign file lie in our modules, told once and used both ways.

A rule holds for weights, gradients and averaged weights alike, since all of its operations are linear.
"""

import math
from typing import Protocol

import torch
from attrs import frozen
from torch import Tensor

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
class _OneToOne:
    """What rules of one foreign tensor and one of ours have in common."""

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


@frozen
class Rename(_OneToOne):
    """One tensor under another name.

    >>> Rename("norm.weight", "encoder.norm_out.weight").ours
    ('encoder.norm_out.weight',)
    """

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
class Reshape(_OneToOne):
    """The same numbers in another shape.

    >>> Reshape("scale", "bias.scale", (1, 1, 2), (2,)).to_ours([torch.ones(1, 1, 2)])
    [tensor([1., 1.])]
    """

    theirs_shape: tuple[int, ...]
    ours_shape: tuple[int, ...]

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


def both(theirs: str, ours: str) -> list[Rule]:
    """Rules of a weight and a bias."""
    return [Rename(f"{theirs}.{part}", f"{ours}.{part}") for part in ("weight", "bias")]
