"""The encoder computes what is wanted and no more."""

import pytest
import torch
from building import calls_of, padding_of, randomise
from torch import nn

from d2v.core.nn import LayerFeatures, TransformerBlock, TransformerEncoder

DIM, HEADS, DEPTH = 8, 2, 4


def make(**options):
    blocks = [TransformerBlock(DIM, num_heads=HEADS) for _ in range(DEPTH)]
    return randomise(TransformerEncoder(blocks, **options))


def parts(encoder):
    named = {str(i): block for i, block in enumerate(encoder.blocks)}
    return named | {name: part for name in ("norm_in", "norm_out") if (part := getattr(encoder, name)) is not None}


def by_hand(encoder, x, bias=lambda layer: None, padding=None):
    """Block outputs and branches of every layer."""
    results = []
    x = x if encoder.norm_in is None else encoder.norm_in(x)
    for i, block in enumerate(encoder.blocks):
        x, branch = block(x, bias(i), padding)
        results.append((x, branch))
    return (x if encoder.norm_out is None else encoder.norm_out(x)), results


@pytest.mark.parametrize("norm_in", [False, True])
@pytest.mark.parametrize("norm_out", [False, True])
@pytest.mark.parametrize("biased", ["none", "shared", "by layer"])
@pytest.mark.parametrize("padded", [False, True])
def test_equals_its_parts(norm_in, norm_out, biased, padded):
    encoder = make(norm_in=nn.LayerNorm(DIM) if norm_in else None, norm_out=nn.LayerNorm(DIM) if norm_out else None)
    x, padding = torch.randn(3, 5, DIM), padding_of([5, 4, 2], 5) if padded else None
    tables = torch.randn(DEPTH, 1, HEADS, 5, 5)
    one = tables[0]
    bias = {"none": None, "shared": lambda layer: one, "by layer": lambda layer: tables[layer]}[biased]
    y = encoder(x, padding=padding, bias=bias)
    assert y.shape == x.shape
    torch.testing.assert_close(y, by_hand(encoder, x, bias or (lambda layer: None), padding)[0])


@pytest.mark.parametrize("kind", ["ffn", "block"])
@pytest.mark.parametrize("wants", [(0, 2), (1,), (), (0, 1, 2, 3)])
def test_a_sink_gets_what_it_wants_in_order(kind, wants):
    encoder = make(norm_out=nn.LayerNorm(DIM))
    x = torch.randn(3, 5, DIM)
    seen = []

    class Sink(LayerFeatures):
        def __call__(self, layer, result, num_prefix_tokens):
            seen.append((layer, num_prefix_tokens))
            super().__call__(layer, result, num_prefix_tokens)

    sink = Sink(wants, kind=kind)
    y = encoder(x, num_prefix_tokens=2, sink=sink)
    expected, results = by_hand(encoder, x)
    assert seen == [(layer, 2) for layer in wants]
    for layer in wants:
        torch.testing.assert_close(sink.results[layer], results[layer][kind == "ffn"])
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize(
    ("wants", "output", "ran"),
    [
        ((1, 2), False, ["norm_in", "0", "1", "2"]),
        ((3,), False, ["norm_in", "0", "1", "2", "3"]),
        ((), False, ["norm_in"]),
        ((1,), True, ["norm_in", "0", "1", "2", "3", "norm_out"]),
    ],
)
def test_what_nobody_wants_does_not_run(wants, output, ran):
    encoder = make(norm_in=nn.LayerNorm(DIM), norm_out=nn.LayerNorm(DIM))
    with calls_of(parts(encoder)) as calls:
        encoder(torch.randn(2, 5, DIM), sink=LayerFeatures(wants, output=output))
    assert calls == ran


def test_layer_drop_skips_whole_blocks_in_training_and_never_in_eval():
    encoder = make(layer_drop=0.99)
    x = torch.randn(2, 5, DIM)
    with calls_of(parts(encoder)) as calls:
        for _ in range(50):
            encoder(x)
    assert len(calls) < 20  # of 200; 2 are expected
    with calls_of(parts(encoder.eval())) as calls:
        encoder(x)
    assert calls == ["0", "1", "2", "3"]


def test_a_dropped_layer_leaves_the_stream_and_the_sink_alone():
    encoder = make(layer_drop=0.5)
    sink, x = LayerFeatures(range(DEPTH), kind="block"), torch.randn(2, 5, DIM)
    with calls_of(parts(encoder)) as calls:
        y = encoder(x, sink=sink)
    assert sorted(sink.results) == [int(name) for name in calls]
    for name in calls:
        x, _ = encoder.blocks[int(name)](x)
    torch.testing.assert_close(y, x)


def test_the_bias_is_asked_by_layer():
    encoder, asked = make(), []
    encoder(torch.randn(2, 5, DIM), bias=lambda layer: asked.append(layer))
    assert asked == [0, 1, 2, 3]


def test_dropout_follows_the_norm_in_front_and_acts_in_training_only():
    encoder = TransformerEncoder(norm_in=nn.LayerNorm(DIM), dropout=0.5)
    x = torch.randn(40, 5, DIM)
    y = encoder(x)
    kept = y != 0
    torch.testing.assert_close(y[kept], 2 * encoder.norm_in(x)[kept])
    assert 0.4 < kept.float().mean() < 0.6
    torch.testing.assert_close(encoder.eval()(x), encoder.norm_in(x))


def test_refusals():
    with pytest.raises(ValueError, match=r"layer_drop.*1.0"):
        make(layer_drop=1.0)
    with pytest.raises(ValueError, match=r"layer 4 .*4 blocks"):
        make()(torch.randn(2, 5, DIM), sink=LayerFeatures([0, 4]))
    with pytest.raises(ValueError, match="padding has shape"):
        make()(torch.randn(2, 5, DIM), padding=torch.zeros(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="attention bias has shape"):
        make()(torch.randn(2, 5, DIM), bias=lambda layer: torch.zeros(1, HEADS, 5, 4))


@pytest.mark.parametrize(("rate", "expected"), [(0.3, [0.0, 0.1, 0.2, 0.3]), ((0.3, 0.0), [0.3, 0.2, 0.1, 0.0])])
def test_a_stack_has_equal_blocks_but_for_drop_path(rate, expected):
    encoder = TransformerEncoder.stack(DIM, DEPTH, HEADS, drop_path_rate=rate, mlp_ratio=2.0, norm="pre")
    assert [block.drop_path_rate for block in encoder.blocks] == pytest.approx(expected)
    assert {block.norm for block in encoder.blocks} == {"pre"}
    assert {block.mlp[0].out_features for block in encoder.blocks} == {2 * DIM}


def test_a_stack_hands_on_what_is_around_its_blocks():
    norm_in, norm_out = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
    encoder = TransformerEncoder.stack(
        DIM, DEPTH, HEADS, norm_in=norm_in, norm_out=norm_out, input_dropout=0.2, layer_drop=0.1, dropout=0.3
    )
    assert (encoder.norm_in, encoder.norm_out) == (norm_in, norm_out)
    assert (encoder.dropout.p, encoder.layer_drop, encoder.blocks[0].dropout.p) == (0.2, 0.1, 0.3)


def test_refusals_of_a_stack():
    with pytest.raises(ValueError, match=r"depth.*-1"):
        TransformerEncoder.stack(DIM, -1, HEADS)
    with pytest.raises(TypeError, match="mlp_ration"):
        TransformerEncoder.stack(DIM, DEPTH, HEADS, mlp_ration=2.0)
