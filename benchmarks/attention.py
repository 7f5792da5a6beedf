"""Attention with dropout, forward and backward: torch's kernel and ours in turn, on a processor."""

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from d2v.core.nn.dropout import keep_mask
from d2v.core.nn.lean_attention import dropped_attention

SHAPE, DROPOUT, ROUNDS = (16, 12, 266, 64), 0.1, 9


def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What torch offers."""
    return F.scaled_dot_product_attention(q, k, v, dropout_p=DROPOUT)


def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What the library does."""
    rows, heads, length, _ = SHAPE
    kept, share = keep_mask((rows, heads, length, length), DROPOUT, device=q.device)
    return dropped_attention(q, k, v, None, kept, share)


def seconds(attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> float:
    """One forward and backward pass."""
    rows, heads, length, width = SHAPE
    packed = torch.randn(rows, length, 3, heads, width, requires_grad=True)
    start = time.perf_counter()
    attend(*packed.permute(2, 0, 3, 1, 4)).sum().backward()
    return time.perf_counter() - start


def main() -> None:
    """Measure in turn and print."""
    times = [(seconds(theirs), seconds(ours)) for _ in range(ROUNDS)][1:]
    torch_, library = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"{' x '.join(map(str, SHAPE))}: torch {torch_:.3f} s, library {library:.3f} s, ratio {torch_ / library:.2f}")


if __name__ == "__main__":
    main()
