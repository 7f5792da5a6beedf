"""Rules: how a few tensors of a third-party file map to this package's modules, in both directions.

A rule is linear, so it applies to weights, gradients and averaged weights.
"""

import math
from typing import Protocol

import torch
from attrs import frozen
from torch import Tensor

Shape = tuple[int, ...]


class Rule(Protocol):
    """Some third-party tensors and the tensors of this package with the same values."""

    @property
    def theirs(self) -> tuple[str, ...]:
        """Third-party names."""
        ...

    @property
    def ours(self) -> tuple[str, ...]:
        """Names in this package."""
        ...

    def our_shapes(self, shapes: list[Shape]) -> list[Shape]:
        """Shapes of this package's tensors from those of the third-party tensors, in the order of `theirs`.

        Raises:
            ValueError: if third-party tensors of these shapes cannot be converted.
        """
        ...

    def to_ours(self, tensors: list[Tensor]) -> list[Tensor]:
        """Convert third-party tensors, in the order of `theirs`."""
        ...

    def to_theirs(self, tensors: list[Tensor]) -> list[Tensor]:
        """Convert this package's tensors, in the order of `ours`, to third-party ones."""
        ...


@frozen
class _OneToOne:
    """Common part of rules for one third-party tensor and one of this package."""

    their_name: str
    our_name: str

    @property
    def theirs(self) -> tuple[str, ...]:
        """Third-party names."""
        return (self.their_name,)

    @property
    def ours(self) -> tuple[str, ...]:
        """Names in this package."""
        return (self.our_name,)


@frozen
class Rename(_OneToOne):
    """One tensor under another name.

    >>> Rename("norm.weight", "encoder.norm_out.weight").ours
    ('encoder.norm_out.weight',)
    """

    def our_shapes(self, shapes: list[Shape]) -> list[Shape]:
        """The same shapes."""
        return shapes

    def to_ours(self, tensors: list[Tensor]) -> list[Tensor]:
        """The tensor itself."""
        return tensors

    def to_theirs(self, tensors: list[Tensor]) -> list[Tensor]:
        """The tensor itself."""
        return tensors


@frozen
class Join:
    """Several third-party tensors of equal length, concatenated along the first axis of this package's tensor.

    >>> [t.tolist() for t in Join(("q", "k"), "qk").to_ours([torch.tensor([1]), torch.tensor([2])])]
    [[1, 2]]
    """

    theirs: tuple[str, ...]
    our_name: str

    @property
    def ours(self) -> tuple[str, ...]:
        """Names in this package."""
        return (self.our_name,)

    def our_shapes(self, shapes: list[Shape]) -> list[Shape]:
        """The total length of the parts, which must have the same shape."""
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
    """One third-party tensor that is split along an axis into several of this package.

    >>> [t.tolist() for t in Split("all", ("first", "rest"), sizes=(1, 2), axis=0).to_ours([torch.arange(3)])]
    [[0], [1, 2]]
    """

    their_name: str
    ours: tuple[str, ...]
    sizes: tuple[int, ...]
    axis: int

    @property
    def theirs(self) -> tuple[str, ...]:
        """Third-party names."""
        return (self.their_name,)

    def our_shapes(self, shapes: list[Shape]) -> list[Shape]:
        """Shapes of the parts."""
        (shape,) = shapes
        if len(shape) <= self.axis or shape[self.axis] != sum(self.sizes):
            raise ValueError(f"cannot be split into {self.sizes}")
        return [(*shape[: self.axis], size, *shape[self.axis + 1 :]) for size in self.sizes]

    def to_ours(self, tensors: list[Tensor]) -> list[Tensor]:
        """Split."""
        return list(torch.split(tensors[0], list(self.sizes), self.axis))

    def to_theirs(self, tensors: list[Tensor]) -> list[Tensor]:
        """Concatenate."""
        return [torch.cat(tensors, self.axis)]


@frozen
class Reshape(_OneToOne):
    """The same values in another shape.

    >>> Reshape("scale", "bias.scale", (1, 1, 2), (2,)).to_ours([torch.ones(1, 1, 2)])
    [tensor([1., 1.])]
    """

    theirs_shape: tuple[int, ...]
    ours_shape: tuple[int, ...]

    def our_shapes(self, shapes: list[Shape]) -> list[Shape]:
        """The shape in this package, if the number of values is the same."""
        if math.prod(shapes[0]) != math.prod(self.ours_shape):
            raise ValueError(f"does not have the number of values of {self.ours_shape}")
        return [self.ours_shape]

    def to_ours(self, tensors: list[Tensor]) -> list[Tensor]:
        """Reshape to the shape in this package."""
        return [tensors[0].reshape(self.ours_shape)]

    def to_theirs(self, tensors: list[Tensor]) -> list[Tensor]:
        """Reshape to the third-party shape."""
        return [tensors[0].reshape(self.theirs_shape)]


@frozen
class Constant:
    """A third-party tensor without a counterpart, such as a format version or a computed index; it is ignored.

    >>> Constant("version").ours
    ()
    """

    their_name: str

    @property
    def theirs(self) -> tuple[str, ...]:
        """Third-party names."""
        return (self.their_name,)

    @property
    def ours(self) -> tuple[str, ...]:
        """No names."""
        return ()

    def our_shapes(self, shapes: list[Shape]) -> list[Shape]:
        """No shapes."""
        return []

    def to_ours(self, tensors: list[Tensor]) -> list[Tensor]:
        """No tensors."""
        return []

    def to_theirs(self, tensors: list[Tensor]) -> list[Tensor]:
        """No tensors: a third-party program computes them itself."""
        return []


def both(theirs: str, ours: str) -> list[Rule]:
    """Rules of a weight and a bias."""
    return [Rename(f"{theirs}.{part}", f"{ours}.{part}") for part in ("weight", "bias")]
