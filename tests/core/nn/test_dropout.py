"""Dropout: its rate and its gradients, alone and inside attention."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from d2v.core.nn import Attention, Dropout, lean
from d2v.core.nn.distances import DistanceBias, Distances
from d2v.core.nn.dropping import keep_mask, pack_bits, unpack_bits
from d2v.core.nn.lean import lean_attention

CPU = torch.device("cpu")


def general(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, kept: Tensor, fraction: float) -> Tensor:
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return (scores.softmax(-1) * kept / fraction) @ v


@pytest.mark.parametrize("mask", [None, "bool", (1, 1, 5, 5), (1, 3, 5, 5), (2, 3, 5, 5), (2, 1, 1, 5)])
@pytest.mark.parametrize("cached", [1, 1000], ids=["row by row", "together"])
def test_values_and_gradients_are_those_of_the_formula(
    monkeypatch: pytest.MonkeyPatch, mask: object, cached: int
) -> None:
    monkeypatch.setattr(lean, "_CACHED", cached)
    q, k, v = (torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    bias = None
    if mask == "bool":
        bias = torch.arange(5)[None, None, None] < torch.tensor([5, 3])[:, None, None, None]
    elif mask is not None:
        bias = torch.randn(mask, dtype=torch.float64, requires_grad=True)  # type: ignore[call-overload]
    kept, fraction = keep_mask((2, 3, 5, 5), 0.3, device=CPU)
    leaves = [q, k, v] + ([bias] if bias is not None and bias.requires_grad else [])
    weight = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    results = []
    for formulation in (lean_attention, general):
        out = formulation(q, k, v, bias, kept, fraction)
        results.append([out, *torch.autograd.grad((out * weight).sum(), leaves)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mask", ["none", "padding", "bias", "distances"])
def test_the_backward_pass_computes_the_same_weights(monkeypatch, mask: str, dtype: torch.dtype) -> None:
    seen: list[Tensor] = []

    def weights(*arguments):
        seen.append(compute(*arguments))
        return seen[-1].clone()  # they may be changed in place

    compute = lean._weights
    monkeypatch.setattr(lean, "_weights", weights)
    places, padding = torch.arange(5.0).expand(1, 2, 5), torch.arange(5) >= torch.tensor([5, 3])[:, None]
    distances = DistanceBias(distances=Distances(places=places), slopes=torch.rand(3, requires_grad=True))
    masks = {"none": None, "padding": ~padding[:, None, None], "bias": torch.randn(2, 3, 5, 5), "distances": distances}
    q, k, v = torch.randn(3, 2, 3, 5, 4, requires_grad=True).unbind()
    with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
        out = lean_attention(q, k, v, masks[mask], *keep_mask((2, 3, 5, 5), 0.3, device=CPU))
    out.float().square().sum().backward()
    assert len(seen) == 2
    assert torch.equal(*seen)


@given(st.lists(st.booleans(), max_size=70), st.sampled_from([1, 2, 3]))
def test_bits_are_unpacked_as_they_were(values: list[bool], rows: int) -> None:
    mask = torch.tensor(values * rows, dtype=torch.bool).view(rows, len(values))
    bits = pack_bits(mask)
    assert len(bits) == -(-mask.numel() // 8)
    assert torch.equal(unpack_bits(bits, mask.shape), mask)
    assert torch.equal(unpack_bits(pack_bits(mask.t()), mask.t().shape), mask.t())


@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.5, 0.95])
def test_the_fraction_that_is_kept(dropout: float) -> None:
    kept, fraction = keep_mask((1000, 1003), dropout, device=CPU)
    assert fraction == pytest.approx(1 - dropout, abs=1e-5)
    assert abs(kept.float().mean().item() - fraction) <= 5 * (fraction * (1 - fraction) / kept.numel()) ** 0.5
    # Four decisions come from one number: they must not depend on each other.
    quads = kept.flatten()[: kept.numel() // 4 * 4].view(-1, 4).float()
    if dropout > 0:
        assert torch.corrcoef(quads.T).fill_diagonal_(0).abs().max() < 0.02


def test_training_drops_weights_and_keeps_the_mean() -> None:
    attention = Attention(8, num_heads=2, dropout=0.5)
    x = torch.randn(1, 6, 8)
    drawn = torch.stack([attention(x) for _ in range(2000)])
    assert drawn.std(0).min() > 0
    torch.testing.assert_close(drawn.mean(0), attention.eval()(x), rtol=0, atol=0.05)


def test_the_seed_decides() -> None:
    attention, x = Attention(8, num_heads=2, dropout=0.5), torch.randn(1, 6, 8)
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(attention(x))
    assert torch.equal(*drawn)


def test_half_precision_gives_half_precision() -> None:
    attention, x = Attention(8, num_heads=2, dropout=0.5), torch.randn(1, 6, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = attention(x)
    out.float().sum().backward()
    assert out.dtype == torch.bfloat16
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_what_is_kept_is_scaled_and_gets_the_gradient() -> None:
    x = torch.randn(200, 50, requires_grad=True)
    out = Dropout(0.25)(x)
    out.sum().backward()
    kept = out != 0
    torch.testing.assert_close(out, torch.where(kept, x / 0.75, 0), rtol=1e-4, atol=0)
    assert x.grad is not None
    torch.testing.assert_close(x.grad, kept / 0.75, rtol=1e-4, atol=0)


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_a_probability_out_of_range(p: float) -> None:
    with pytest.raises(ValueError, match=f"dropout.*{p}"):
        Dropout(p)
