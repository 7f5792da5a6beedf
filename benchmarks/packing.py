"""What leaving padding out of the linear layers would save on a CPU, and how much padding there is.

First: the share of padding in batches of recordings sorted by length, as d2v makes them, with durations like those of
read speech (two thirds about 14 s, the rest even from 2 to 16 s). Then: one block of the base model on four rows with
a distance bias, as it is and with its linear layers, norms and residuals on the packed tokens `n d` alone; attention is
unpacked. Both alternate; compare the ratio of the medians. Example: `python benchmarks/packing.py --rounds 5`.
"""

import argparse
import statistics
from types import SimpleNamespace

import torch
from einops import rearrange
from step import timed
from torch import Tensor

from d2v.core.data import BudgetPlan
from d2v.core.nn import Alibi, TransformerBlock
from d2v.core.nn.attention import AttentionBias, attention_mask
from d2v.core.nn.kernels import attend

_RATE, _MAX_TOKENS = 16_000, 3_200_000
_DIM, _HEADS = 768, 12
LENGTHS = {5: [400, 380, 370, 370], 10: [400, 360, 350, 330], 15: [400, 340, 320, 300], 50: [400, 150, 130, 120]}


def share_of_padding(samples: int) -> float:
    """Share of padding in all batches of an epoch."""
    generator = torch.Generator().manual_seed(0)
    usual = torch.randn(samples, generator=generator) * 1.2 + 14.3
    short = torch.rand(samples, generator=generator) * 14 + 2
    lengths = (torch.where(torch.rand(samples, generator=generator) < 2 / 3, usual, short) * _RATE).int()
    real = padded = 0
    for request in BudgetPlan(lengths=lengths, max_tokens=_MAX_TOKENS, multiple=8, drop_last=False).requests(0):
        own = lengths[list(request.ids)]
        real, padded = real + int(own.sum()), padded + int(own.max()) * len(own)
    return 1 - real / padded


def packed(block: TransformerBlock, x: Tensor, mask: AttentionBias | None, padding: Tensor) -> Tensor:
    """Output of a post-norm block without dropout, zeros at padding."""
    rows, length, width = x.shape
    index = (~padding).flatten().nonzero()[:, 0]
    x = x.flatten(0, 1)[index]
    qkv = block.attn.qkv(x)
    full = qkv.new_zeros(rows * length, 3 * width).index_copy(0, index, qkv)
    full = rearrange(full, "(r k) (three h w) -> three r h k w", r=rows, three=3, h=_HEADS)
    y = rearrange(attend(full, mask, 0.0), "r h k w -> (r k) (h w)")[index]
    a = block.norm1(x + block.attn.proj(y))
    y = block.norm2(a + block.mlp(a))
    return y.new_zeros(rows * length, width).index_copy(0, index, y).view(rows, length, width)


def compare(lengths: list[int], rounds: int, *, grad: bool) -> float:
    """Return the time of the block divided by that of the packed one."""
    rows, longest = len(lengths), max(lengths)
    block, alibi = TransformerBlock(_DIM, num_heads=_HEADS), Alibi(_HEADS)
    padding = torch.arange(longest) >= torch.tensor(lengths)[:, None]
    x = torch.randn(rows, longest, _DIM, requires_grad=grad)

    def run(pack: bool) -> Tensor:
        bias = alibi(SimpleNamespace(position=None, grid=(longest,), num_prefix_tokens=0))(0)
        mask = attention_mask(x, bias, padding)
        with torch.set_grad_enabled(grad):
            y = packed(block, x, mask, padding) if pack else block(x, mask)[0].masked_fill(padding[..., None], 0)
        if grad:
            y.sum().backward()
        return y.detach()

    torch.testing.assert_close(run(True), run(False))
    times = timed({"packed": lambda: run(True), "padded": lambda: run(False)}, rounds)
    return statistics.median(times["padded"]) / statistics.median(times["packed"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    for samples in (28_539, 2_763, 286, 48):
        print(f"{samples:,} recordings: {100 * share_of_padding(samples):.2f} % of padding", flush=True)
    for share, lengths in LENGTHS.items():
        trained, inferred = (compare(lengths, args.rounds, grad=grad) for grad in (True, False))
        print(
            f"{share} % of padding: padded / packed {trained:.2f} in training, {inferred:.2f} in inference", flush=True
        )


if __name__ == "__main__":
    main()
