"""Time of a layer of the published image decoders on a GPU, forward and backward: channels last and channels first.

The library's features have their channels last, so the time of channels first includes the copy to that layout.

    python benchmarks/convolution.py
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS, SIDE, REPEATS = 1024, 14, 15
# Width, groups, kernel.
LAYERS = {"vision/photos": (384, 16, 3), "vision/base": (768, 16, 3), "vision/large": (1024, 16, 5)}


def seconds(convolve: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Median time of a forward and a backward pass."""
    times = []
    for _ in range(REPEATS):
        torch.cuda.synchronize() if x.is_cuda else None
        start = time.perf_counter()
        y = convolve(x.movedim(-1, 1)).movedim(1, -1)
        y.backward(torch.ones(y.shape, dtype=y.dtype, device=y.device))
        torch.cuda.synchronize() if x.is_cuda else None
        times.append(time.perf_counter() - start)
    return statistics.median(times[3:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=ROWS)
    args = parser.parse_args()
    print("| decoder of | channels of a group | precision | channels last, ms | channels first, ms |")
    print("|---|---|---|---|---|")
    for name, (width, groups, kernel) in LAYERS.items():
        for dtype in (torch.bfloat16, torch.float32):
            x = torch.randn(args.rows, SIDE, SIDE, width, device=args.device, dtype=dtype, requires_grad=True)
            weight = torch.randn(width, width // groups, kernel, kernel, device=args.device, dtype=dtype)
            weight.requires_grad_()

            def last(x: Tensor, w: Tensor = weight, k: int = kernel, g: int = groups) -> Tensor:
                return F.conv2d(x, w, padding=k // 2, groups=g)

            found = [1e3 * seconds(one, x) for one in (last, lambda x, last=last: last(x.contiguous()))]
            print(f"| {name} | {width // groups} | {str(dtype)[6:]} | {found[0]:.2f} | {found[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
