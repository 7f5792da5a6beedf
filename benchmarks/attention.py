"""Time of attention on a CPU, forward and backward: torch's kernel and the library's implementations, alternating.

With dropout, and without it for short sequences. Compare the ratio of the medians; on a busy machine, where threads
wait for each other, the ratio of the fastest calls is more reliable. Example:
`python benchmarks/attention.py --threads 2`.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from d2v.core.nn.kernels import attend, attention_by_products

Attend = Callable[[Tensor], Tensor]
Shape = tuple[int, int, int, int]
DROPPED: Shape = (16, 12, 266, 64)
DROPOUT, BUDGET = 0.1, 1.0
# Rows x heads x tokens x width: the shapes of vision/small (views, whole images), then longer, then wider.
SHORT: list[Shape] = [
    *((64, 4, 8, 24), (8, 4, 17, 24), (64, 4, 17, 24), (512, 4, 17, 24), (64, 4, 32, 24), (16, 4, 64, 24)),
    *((8, 4, 128, 24), (8, 4, 256, 24), (32, 12, 8, 64), (32, 12, 32, 64), (8, 12, 128, 64), (2, 12, 256, 64)),
]


def fused(qkv: Tensor) -> Tensor:
    """PyTorch's attention."""
    return F.scaled_dot_product_attention(*qkv)


def products(qkv: Tensor) -> Tensor:
    """The library's attention for short sequences."""
    return attention_by_products(qkv, None)


def fused_with_dropout(qkv: Tensor) -> Tensor:
    """PyTorch's attention with dropout."""
    q, k, v = qkv
    return F.scaled_dot_product_attention(q, k, v, dropout_p=DROPOUT)


def lean_with_dropout(qkv: Tensor) -> Tensor:
    """The library's attention with dropout."""
    return attend(qkv, None, DROPOUT)


def seconds(attend: Attend, shape: Shape, dtype: torch.dtype, grad: bool) -> float:
    """Seconds of a forward pass, and a backward pass if `grad`, from packed projections as in a block."""
    rows, heads, length, width = shape
    packed = torch.randn(rows, length, 3, heads, width, dtype=dtype, requires_grad=grad)
    start = time.perf_counter()
    y = attend(packed.permute(2, 0, 3, 1, 4)).transpose(1, 2).flatten(2)
    if grad:
        y.backward(y.detach())
    return time.perf_counter() - start


def compare(
    reference: Attend, library: Attend, shape: Shape, dtype: torch.dtype = torch.float32, grad: bool = True
) -> None:
    """Measure both in alternation and print."""
    times: list[tuple[float, float]] = []
    end = time.perf_counter() + BUDGET
    while len(times) < 10 or time.perf_counter() < end:
        times.append((seconds(reference, shape, dtype, grad), seconds(library, shape, dtype, grad)))
    columns = [sorted(column[1:]) for column in zip(*times, strict=True)]
    first, second = map(statistics.median, columns)
    quick = columns[0][len(times) // 20] / columns[1][len(times) // 20]
    name = f"{' x '.join(map(str, shape))} {str(dtype)[6:]}{'' if grad else ', forward only'}"
    ratios = f"ratio {first / second:.2f}, at the 5th percentiles {quick:.2f}"
    print(f"{name}: torch {1e3 * first:.3f} ms, library {1e3 * second:.3f} ms, {ratios}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    torch.set_num_threads(parser.parse_args().threads)
    print(f"{torch.get_num_threads()} threads; with dropout {DROPOUT}:")
    compare(fused_with_dropout, lean_with_dropout, DROPPED)
    print("without dropout, by matrix products:")
    for dtype in (torch.float32, torch.bfloat16):
        for shape in SHORT:
            for grad in (True, False):
                compare(fused, products, shape, dtype, grad)


if __name__ == "__main__":
    main()
