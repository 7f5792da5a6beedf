"""What random cases of every kind need: a folder's configuration to start from, and tensors for names and shapes."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


class Draw:
    """Two generators from one seed: settings, and tensors."""

    def __init__(self, seed: int) -> None:
        self.settings = random.Random(seed)
        self.numbers = torch.Generator().manual_seed(seed)

    def chance(self, fraction: float) -> bool:
        """True with a probability."""
        return self.settings.random() < fraction

    def one_of(self, *values: Any) -> Any:
        """One of the values."""
        return self.settings.choice(values)

    def normal(self, *shape: int) -> Tensor:
        """Normal numbers."""
        return torch.randn(*shape, generator=self.numbers)

    def tokens(self, high: int, *shape: int) -> Tensor:
        """Token ids that are no padding."""
        return torch.randint(4, high, shape, generator=self.numbers)

    def mask(self, rows: int, positions: int, masked: list[int], padding: Tensor | None = None) -> Tensor:
        """Rows with a number of masked positions each and something real to see in each."""
        real = torch.ones(rows, positions, dtype=torch.bool) if padding is None else ~padding.bool()
        mask = torch.zeros(rows, positions, dtype=torch.uint8)
        for row in range(rows):
            while not (real[row] & (mask[row] == 0)).any() or not mask[row].any():
                order = torch.randperm(positions, generator=self.numbers)
                mask[row] = 0
                mask[row, order[: masked[row]]] = 1
        return mask

    def padding(self, lengths: list[int], total: int) -> Tensor:
        """Padding on the right."""
        return (torch.arange(total)[None] >= torch.tensor(lengths)[:, None]).to(torch.uint8)

    def fill(self, shapes: Shapes) -> Tensors:
        """Tensors with visible biases, norm weights and scales; rows of padding tokens are zero."""
        return {name: self._tensor(name, shape) for name, shape in shapes.items()}

    def _tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        x = self.normal(*shape)
        if name.endswith("alibi_scale"):
            return 0.4 + 0.8 * x
        if "gamma_" in name:
            return 0.5 + 0.2 * x
        if "embed_tokens" in name or "embed_positions" in name:
            x = 0.5 * x
            x[1] = 0
            return x
        if len(shape) == 1:
            return 0.2 * x + (1.0 if name.endswith("weight") else 0.0)
        tokens = any(part in name for part in ("token", "_emb", "pos_embed", "position_bias"))
        if tokens and not name.endswith("conv.weight"):
            return 0.5 * x
        return x / torch.tensor(shape[1:]).prod().sqrt()


def base(folder: str) -> dict[str, Any]:
    """The configuration of a reference folder."""
    return json.loads((Path(__file__).parent / "data" / folder / "config.json").read_text())


def linear(name: str, out: int, into: int) -> Shapes:
    """A linear layer's tensors."""
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def norm(name: str, width: int) -> Shapes:
    """A norm's tensors."""
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def convolution(name: str, out: int, into: int, *kernel: int, bias: bool = True) -> Shapes:
    """A convolution's tensors; `into` is the number of channels of a group."""
    return {f"{name}.weight": (out, into, *kernel)} | ({f"{name}.bias": (out,)} if bias else {})


def prefixed(prefix: str, shapes: Mapping[str, Any]) -> dict[str, Any]:
    """The same under a prefix."""
    return {f"{prefix}{name}": value for name, value in shapes.items()}


def frames(samples: int, spec: list[tuple[int, int, int]]) -> int:
    """Frames of a number of samples."""
    for _, kernel, stride in spec:
        samples = (samples - kernel) // stride + 1
    return samples
