"""The distance bias inside the kernel on a GPU: numbers of the full bias and of the reference, without the memory."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import check
import pytest
import torch
from building import padding_of
from compare import compare
from torch import Tensor

from d2v.core.nn import Alibi, DistanceBias, TransformerBlock, kernels
from d2v.core.nn.attention import attention_mask
from d2v.core.nn.flex import Drawn, distance_attention
from d2v.core.nn.lean import lean_attention

pytestmark = pytest.mark.gpu
FIXTURES = Path(__file__).parents[1] / "parity" / "data" / "v2"
HEADS, WIDTH = 12, 64

Attend = Callable[[Tensor, DistanceBias], Tensor]


@pytest.fixture(autouse=True)
def forget_compiled() -> None:
    torch.compiler.reset()


def parts(
    gpu: torch.device, rows: int, length: int, *, visible: bool, padded: bool, grid: tuple[int, ...] | None = None
) -> tuple[Alibi, DistanceBias]:
    """A bias of visible positions or of all, with padding in every row but the first, and in one nothing else."""
    alibi = Alibi(HEADS, distance="euclidean").to(gpu)
    alibi.scale.data = torch.linspace(-0.2, 1.5, HEADS, device=gpu)[None]
    grid = grid or ((2 * length,) if visible else (length,))
    rank = torch.rand(rows, 2 * length, device=gpu).argsort(1)[:, :length].sort(1).values
    tokens = SimpleNamespace(position=rank if visible else None, grid=grid, num_prefix_tokens=0)
    padding = padding_of([length, 0, *[max(1, length // row) for row in range(2, rows)]], length) if padded else None
    mask = attention_mask(torch.zeros(rows, length, 1), alibi(tokens)(0), None if padding is None else padding.to(gpu))
    assert isinstance(mask, DistanceBias)
    return alibi, mask


def results(attend: Attend, qkv: Tensor, alibi: Alibi, bias: DistanceBias) -> list[Tensor]:
    """Output, and gradients of the projections and of the scale."""
    y = attend(qkv, bias)
    weight = torch.linspace(-1, 1, y.numel(), device=y.device).view_as(y).to(y.dtype)
    grads = torch.autograd.grad((y * weight).sum(), [qkv, alibi.scale], retain_graph=True)
    return [one.float() for one in (y, *grads)]


def inside(qkv: Tensor, bias: DistanceBias) -> Tensor:
    return distance_attention(*qkv, bias)


def dropping(qkv: Tensor, bias: DistanceBias) -> Tensor:
    torch.manual_seed(3)
    q, k, v = qkv
    return distance_attention(q, k, v, bias, 0.25)


def dropping_outside(qkv: Tensor, bias: DistanceBias) -> Tensor:
    """The same draw, applied to weights of the full size."""
    q, k, v = qkv
    rows, heads, length, _ = q.shape
    torch.manual_seed(3)
    drawn = Drawn.draw(0.25, rows, heads, length, device=qkv.device)
    places = torch.meshgrid(*(torch.arange(n, device=qkv.device) for n in (rows, heads, length, length)), indexing="ij")
    return lean_attention(q, k, v, bias.table(), drawn.has(*places), 0.75)


def outside(qkv: Tensor, bias: DistanceBias) -> Tensor:
    return kernels.attend(qkv, bias.table(), 0.0)


def projections(gpu: torch.device, rows: int, length: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(3, rows, HEADS, length, WIDTH, device=gpu, dtype=dtype, requires_grad=True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("visible", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_outputs_and_gradients_are_those_of_the_full_bias(gpu: torch.device, visible: bool, padded: bool) -> None:
    for rows, length in ((4, 100), (5, 333), (3, 128)):  # one kernel for all lengths
        alibi, bias = parts(gpu, rows, length, visible=visible, padded=padded)
        qkv = projections(gpu, rows, length)
        ours, theirs = (results(attend, qkv, alibi, bias) for attend in (inside, outside))
        for one, other in zip(ours, theirs, strict=True):
            assert one.isfinite().all()
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("padded", [False, True])
def test_dropout(gpu: torch.device, padded: bool) -> None:
    for rows, length in ((4, 100), (5, 333), (3, 128)):
        alibi, bias = parts(gpu, rows, length, visible=True, padded=padded)
        qkv = projections(gpu, rows, length)
        ours, theirs = (results(attend, qkv, alibi, bias) for attend in (dropping, dropping_outside))
        for one, other in zip(ours, theirs, strict=True):
            assert one.isfinite().all()
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


@pytest.mark.filterwarnings("ignore")
def test_a_grid(gpu: torch.device) -> None:
    alibi, bias = parts(gpu, 3, 96, visible=True, padded=True, grid=(12, 16))
    qkv = projections(gpu, 3, 96)
    ours, theirs = (results(attend, qkv, alibi, bias) for attend in (inside, outside))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_at_least_as_exact_as_with_the_full_bias(gpu: torch.device, dtype: torch.dtype) -> None:
    alibi, bias = parts(gpu, 4, 400, visible=True, padded=True)
    qkv = projections(gpu, 4, 400)
    exact = results(outside, qkv, alibi, bias)
    half = qkv.detach().to(dtype).requires_grad_()
    ours, theirs = (results(attend, half, alibi, bias) for attend in (inside, outside))
    for one, other, expected in zip(ours, theirs, exact, strict=True):
        assert (one - expected).norm() < max(1.5 * (other - expected).norm(), 0.01 * expected.norm())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("folder", ["audio_base", "audio_base_padded"])
def test_the_reference(monkeypatch: pytest.MonkeyPatch, gpu: torch.device, folder: str) -> None:
    """All on the CPU but attention, so that other kernels of the GPU do not add their rounding."""
    used: list[int] = []

    def there(q: Tensor, k: Tensor, v: Tensor, bias: DistanceBias, dropout: float) -> Tensor:
        used.append(len(q))
        distances = dataclasses.replace(bias.distances, places=bias.distances.places.to(gpu))
        padding = None if bias.padding is None else bias.padding.to(gpu)
        moved = DistanceBias(distances=distances, slopes=bias.slopes.to(gpu), padding=padding)
        return distance_attention(q.to(gpu), k.to(gpu), v.to(gpu), moved, dropout).cpu()

    def form(q: Tensor, mask: object, dropout: float) -> str:
        return "distances" if isinstance(mask, DistanceBias) else "fused"

    monkeypatch.setattr(kernels, "distance_attention", there)
    monkeypatch.setattr(kernels, "attention_form", form)
    problems, largest = compare(*check.case(FIXTURES / folder), slack=5.0)
    assert not problems, largest
    assert used


@pytest.mark.filterwarnings("ignore")
def test_nothing_of_the_size_of_the_bias_is_made(gpu: torch.device) -> None:
    rows, length = 16, 1024  # projections are a fifth of the bias
    alibi, bias = parts(gpu, rows, length, visible=True, padded=False)
    qkv = projections(gpu, rows, length, torch.bfloat16)
    size, peaks = 2 * rows * HEADS * length**2, {}
    assert kernels.attention_form(qkv[0], bias, 0.0) == "distances"
    for name, attend in {"inside": inside, "dropping": dropping, "outside": outside}.items():
        for _ in range(2):  # the first call compiles
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            results(attend, qkv, alibi, bias)
            peaks[name] = torch.cuda.max_memory_allocated() - before
    assert max(peaks["inside"], peaks["dropping"]) < size < peaks["outside"]


@pytest.mark.filterwarnings("ignore")
def test_in_a_compiled_block(gpu: torch.device) -> None:
    rows, length = 48, 256
    block = TransformerBlock(HEADS * WIDTH, num_heads=HEADS).to(gpu)
    alibi, bias = parts(gpu, rows, length, visible=True, padded=True)
    x = torch.randn(rows, length, HEADS * WIDTH, device=gpu)
    weight, found = torch.randn_like(x), []
    for each in (torch.compile(block, fullgraph=True, dynamic=False), block):
        y = each(x, bias)[0]
        leaves = [alibi.scale, block.attn.qkv.weight]
        found.append([y, *torch.autograd.grad((y * weight).sum(), leaves, retain_graph=True)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))
