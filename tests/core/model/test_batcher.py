"""Gathering without expanding equals expanding first."""

import pytest
import torch
from building import random_mask
from torch import nn

from d2v.core.masks import Mask
from d2v.core.model import Encoded, MaskedHead, MultimaskBatcher, VisibleDecoder

B, M, T, D, HIDDEN = 3, 4, 7, 5, 4
rows_of = pytest.mark.parametrize("rows", [1, B, B * M], ids=["one row", "b rows", "all rows"])


def expanded(x):
    return x.repeat_interleave(B * M // x.shape[0], 0)


@rows_of
@pytest.mark.parametrize("shape", [(D,), (), (2, 3)])
def test_gathers_what_the_expanded_batch_has(rows, shape):
    mask, x = random_mask(B, M, T, HIDDEN), torch.randn(rows, T, *shape)
    batcher, whole = MultimaskBatcher(mask), expanded(x)
    visible = batcher.visible(x)
    assert visible.shape == (B * M, T - HIDDEN, *shape)
    assert torch.equal(visible, whole[~mask.hidden].view(B * M, T - HIDDEN, *shape))
    assert torch.equal(batcher.hidden(x), whole[mask.hidden])


@rows_of
def test_gradients_equal_those_of_the_expanded_batch(rows):
    mask, x = random_mask(B, M, T, HIDDEN), torch.randn(rows, T, D, dtype=torch.float64, requires_grad=True)
    batcher = MultimaskBatcher(mask)
    a, b = torch.randn(B * M, T - HIDDEN, D).double(), torch.randn(B * M * HIDDEN, D).double()
    ours = (batcher.visible(x) * a).sum() + (batcher.hidden(x) * b).sum()
    whole = expanded(x)
    plain = (whole[~mask.hidden] * a.flatten(0, 1)).sum() + (whole[mask.hidden] * b).sum()
    torch.testing.assert_close(torch.autograd.grad(ours, x), torch.autograd.grad(plain, x))


@rows_of
def test_scatter_puts_back_what_was_taken(rows):
    mask, x = random_mask(B, M, T, HIDDEN), torch.randn(rows, T, D)
    batcher = MultimaskBatcher(mask)
    back = batcher.scatter(batcher.visible(x))
    assert torch.equal(back, expanded(x).masked_fill(mask.hidden[..., None], 0))
    assert torch.equal(batcher.visible(back), batcher.visible(x))


def test_noise_lies_at_hidden_places_only():
    mask = random_mask(40, M, 50, 30)
    batcher, x = MultimaskBatcher(mask), torch.randn(40 * M, 20, D)
    back = batcher.scatter(x, noise_std=0.01)
    assert torch.equal(batcher.visible(back), x)
    noise = batcher.hidden(back)
    assert noise.std().item() == pytest.approx(0.01, rel=0.02)
    assert abs(noise.mean().item()) < 4 * 0.01 / noise.numel() ** 0.5
    assert not torch.equal(noise, batcher.hidden(batcher.scatter(x, noise_std=0.01)))


def test_scatter_passes_gradients_to_visible_tokens():
    batcher, x = MultimaskBatcher(random_mask(B, M, T, HIDDEN)), torch.randn(B * M, T - HIDDEN, D, requires_grad=True)
    weight = torch.randn(B * M, T, D)
    (batcher.scatter(x, noise_std=1.0) * weight).sum().backward()
    assert torch.equal(x.grad, batcher.visible(weight))


def test_what_does_not_fit():
    batcher = MultimaskBatcher(random_mask(B, M, T, HIDDEN))
    for shape in ((5, T, D), (B, T + 1, D)):
        with pytest.raises(ValueError, match=rf"\({shape[0]}, {shape[1]}\).*\(12, 7\)"):
            batcher.visible(torch.zeros(shape))
    hidden = torch.tensor([[True, True, False], [True, False, False]])
    with pytest.raises(ValueError, match=r"1 to 2 .*equal"):
        MultimaskBatcher(Mask(hidden=hidden)).visible(torch.zeros(2, 3, D))
    with pytest.raises(ValueError, match="row 1 "):
        MultimaskBatcher(Mask(hidden=torch.tensor([[True, False], [True, True]]))).visible(torch.zeros(2, 2, D))


def test_predictors_see_places_in_the_order_of_the_index():
    mask, t = random_mask(B, M, T, HIDDEN), torch.randn(B * M, T, D)

    class Reads(nn.Module):
        def forward(self, x, grid, index=None):
            return (x + t).flatten(0, 1)[index]

    extra = torch.randn(B * M, 2, D)
    visible = torch.cat([extra, torch.zeros(B * M, T - HIDDEN, D)], 1)
    encoded = Encoded(x=visible, padding=None, num_prefix_tokens=2, grid=(T,))
    assert torch.equal(VisibleDecoder(Reads(), noise_std=0.0)(encoded, mask), t[mask.hidden])
    kept = Encoded(x=torch.cat([extra, t], 1), padding=None, num_prefix_tokens=2, grid=(T,))
    assert torch.equal(MaskedHead(D, num_layers=0)(kept, mask), t[mask.hidden])


@pytest.mark.parametrize(("num_layers", "widths"), [(0, []), (1, [5, 5]), (2, [5, 15, 5]), (3, [5, 15, 15, 5])])
def test_masked_head_layers(num_layers, widths):
    head = MaskedHead(D, num_layers=num_layers, ratio=3.0)
    linears = [layer for layer in head.layers if isinstance(layer, nn.Linear)]
    assert [linear.out_features for linear in linears] == widths[1:]
    assert [linear.in_features for linear in linears] == widths[:-1]
    assert sum(isinstance(layer, nn.GELU) for layer in head.layers) == max(num_layers - 1, 0)


def test_decoder_dropout_acts_in_training_only():
    mask = random_mask(B, M, T, HIDDEN)
    encoded = Encoded(x=torch.randn(B * M, T - HIDDEN, D), padding=None, num_prefix_tokens=0, grid=(T,))

    class Sees(nn.Module):
        def forward(self, x, grid, index=None):
            return x

    predictor = VisibleDecoder(Sees(), noise_std=0.0, dropout=0.5)
    assert not torch.equal(predictor(encoded, mask), predictor(encoded, mask))
    predictor.eval()
    assert torch.equal(predictor(encoded, mask), MultimaskBatcher(mask).scatter(encoded.x))
