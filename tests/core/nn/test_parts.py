"""How weights start, gradients that are scaled, and the sink that keeps features."""

import math

import pytest
import torch
from torch import nn

from d2v.core.model import BlockConfig, TransformerConfig
from d2v.core.nn import LayerFeatures, TransformerBlock, initialise
from d2v.core.nn.gradients import scale_gradient
from d2v.core.nn.initialisation import scale_branches

TRUNCATED_STD = 0.02 * math.sqrt(1 - 2 * math.exp(-0.5) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(0.5)))


@pytest.mark.parametrize(
    ("scheme", "std", "largest"),
    [("normal", 0.02, None), ("xavier", math.sqrt(2 / 900), math.sqrt(6 / 900)), ("scaled", TRUNCATED_STD, 0.02)],
)
def test_schemes(scheme, std, largest):
    net = nn.Sequential(nn.Linear(600, 300), nn.LayerNorm(300), nn.Embedding(400, 300, padding_idx=1))
    initialise(net, scheme)
    linear, norm, table = net
    assert linear.weight.std().item() == pytest.approx(std, rel=0.01)
    assert linear.weight.mean().abs().item() < 4 * std / math.sqrt(linear.weight.numel())
    if largest is not None:
        assert largest * 0.99 < linear.weight.abs().max().item() <= largest * 1.000001
    assert not linear.bias.any()
    assert torch.equal(norm.weight, torch.ones(300))
    assert not table.weight[1].any()
    assert table.weight[2:].std().item() == pytest.approx(0.02, rel=0.02)


def test_blocks_start_normal_and_configurations_decide():
    assert TransformerBlock(64, num_heads=4).attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    block = BlockConfig(embed_dim=64, num_heads=4)
    encoder = TransformerConfig(block=block, depth=3, init="scaled").build()
    for i, built in enumerate(encoder.blocks):
        for linear in built.last_linears:
            expected = TRUNCATED_STD / math.sqrt(2 * (i + 1))
            assert linear.weight.std().item() == pytest.approx(expected, rel=0.05)
        assert built.attn.qkv.weight.std().item() == pytest.approx(TRUNCATED_STD, rel=0.05)
    xavier = TransformerConfig(block=block, depth=1, init="xavier").build().blocks[0].mlp[0].weight
    assert xavier.std().item() == pytest.approx(math.sqrt(2 / (64 + 256)), rel=0.05)


def test_scale_branches():
    linears = [[nn.Linear(3, 3), nn.Linear(3, 3)] for _ in range(3)]
    before = [[linear.weight.clone() for linear in pair] for pair in linears]
    scale_branches(linears)
    for i, (pair, old) in enumerate(zip(linears, before, strict=True)):
        for linear, weight in zip(pair, old, strict=True):
            torch.testing.assert_close(linear.weight.data, weight.data / math.sqrt(2 * (i + 1)))


def test_an_unknown_scheme():
    with pytest.raises(ValueError, match="scheme='orthogonal'"):
        initialise(nn.Linear(2, 2), "orthogonal")


@pytest.mark.parametrize("factor", [0.0, 0.1, 1.0, 2.0])
def test_scaled_gradients(factor):
    x = torch.randn(4, requires_grad=True)
    weight = torch.randn(4)
    y = scale_gradient(x, factor)
    assert torch.equal(y, x)
    if factor:
        (y * weight).sum().backward()
        torch.testing.assert_close(x.grad, factor * weight)
    else:
        assert not y.requires_grad


def test_features_keep_what_they_are_given():
    sink, x = LayerFeatures([1], kind="block", output=False), torch.randn(2, 4, 3)
    sink(1, x, 1)
    assert sink.results[1] is x
    assert (sink.kind, sink.output, sink.wants) == ("block", False, frozenset({1}))
