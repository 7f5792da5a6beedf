"""Targets computed from the teacher's layers, without storing the layers.

A `TargetAverager` is the sink of the teacher's encoder: it normalises and sums the wanted layer results as they arrive.
"""

from collections.abc import Callable, Iterable
from numbers import Integral
from typing import Literal

import torch.nn.functional as F
from attrs.validators import deep_iterable
from torch import Tensor

from d2v.core.nn.sinks import ResultKind
from d2v.core.validators import check, must, one_of

TargetNorm = Literal["batch", "instance", "group", "layer"]
_EPS = 1e-5


def _over(*axes: int) -> Callable[[Tensor], Tensor]:
    def norm(y: Tensor) -> Tensor:
        # Two passes: on a CPU, torch's variance takes several times as long as its mean.
        centred = y - y.mean(axes, keepdim=True)
        return centred * (centred.square().mean(axes, keepdim=True) + _EPS).rsqrt()

    return norm


_NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "batch": _over(0, 1),
    "instance": _over(1),
    "group": _over(1, 2),
    "layer": lambda y: F.layer_norm(y, y.shape[-1:], eps=_EPS),
}


class TargetAverager:
    """Mean of normalised layer results, normalised again (data2vec, section 3.3).

    y = norm_after(mean over layers of norm_each(result of the layer without extra tokens)), in float32. Norms have no
    weights and eps 1e-5. Statistics include padded positions, as in the published models.

    Args:
        layers: layers (from 0) to average.
        kind: "ffn" = feed-forward branch (2.0 and 1.0 speech and text), "block" = block output (1.0 images).
        each: norms of each layer result, in this order: "batch" (over b and t), "instance" (over t), "group" (over t
            and d), "layer" (over d). The published 2.0 models use "instance", large text "layer".
        after: norms of the mean, in this order; "layer" in the published image models.

    Raises:
        ValueError: if there is no layer, one appears twice or is negative, or a norm is unknown.

    >>> import torch
    >>> averager = TargetAverager([0, 2], each=["instance"], after=["layer"])
    >>> for layer in (0, 2):
    ...     averager(layer, torch.randn(2, 1 + 5, 8), num_prefix_tokens=1)
    >>> averager.finish().shape
    torch.Size([2, 5, 8])
    """

    output = False

    def __init__(
        self,
        layers: Iterable[int],
        *,
        kind: ResultKind = "ffn",
        each: Iterable[TargetNorm] = ("instance",),
        after: Iterable[TargetNorm] = (),
    ) -> None:
        self.layers = tuple(layers)
        self.kind: ResultKind = kind
        self.each = tuple(each)
        self.after = tuple(after)
        check(deep_iterable(must(lambda layer: isinstance(layer, Integral), "an integer")), layers=self.layers)
        if not self.layers or min(self.layers) < 0 or len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layers={list(self.layers)} must be different layers, counted from 0, at least one")
        self.layers = tuple(sorted(map(int, self.layers)))
        check(one_of(ResultKind), kind=kind)
        for name, norms in {"each": self.each, "after": self.after}.items():
            check(deep_iterable(one_of(TargetNorm)), **{name: norms})
        self.wants = frozenset(self.layers)
        self._sum: Tensor | None = None
        self._added: list[int] = []

    def __call__(self, layer: int, result: Tensor, num_prefix_tokens: int) -> None:
        """Add a layer result `b (e+t) d`.

        Raises:
            ValueError: if the layer is not wanted, or its shape does not fit.
            RuntimeError: if the layer was added before; the averager is cleared then.
        """
        if layer not in self.wants:
            raise ValueError(f"layer {layer} is not one of layers={list(self.layers)}")
        if layer in self._added:
            self.clear()
            raise RuntimeError(
                f"layer {layer} was added twice before finish(); after an aborted pass, call clear() first"
            )
        if result.dim() != 3 or result.shape[1] <= num_prefix_tokens:
            raise ValueError(
                f"the result of layer {layer} must be b (e+t) d with more than e={num_prefix_tokens} tokens, "
                f"not {tuple(result.shape)}"
            )
        y = result[:, num_prefix_tokens:].float()
        if self._sum is not None and y.shape != self._sum.shape:  # it would be broadcast
            before = tuple(self._sum.shape)
            self.clear()
            raise ValueError(f"the result of layer {layer} has shape {tuple(y.shape)}, those before it have {before}")
        for name in self.each:
            y = _NORMS[name](y)
        if self._sum is None:
            self._sum = y if self.each else y.clone()
        else:
            self._sum += y
        self._added.append(layer)

    def clear(self) -> None:
        """Remove all layer results, for example after an aborted pass."""
        self._sum, self._added = None, []

    def finish(self) -> Tensor:
        """Return the targets `b t d` in float32; the averager is empty afterwards.

        Raises:
            RuntimeError: if a wanted layer is missing.
        """
        total, missing = self._sum, [layer for layer in self.layers if layer not in self._added]
        self.clear()
        if total is None or missing:
            seen = f"only {len(self.layers) - len(missing)} of {len(self.layers)} wanted layers were added"
            raise RuntimeError(f"{seen}, not layers {missing}; run the encoder up to the last of them")
        y = total / len(self.layers)
        for name in self.after:
            y = _NORMS[name](y)
        return y
