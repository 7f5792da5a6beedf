"""Forms of inference: equal to the plain ones, only inside `inferring`, and never of weights that were replaced."""

import copy
import gc
import pickle
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from building import padding_of
from torch import Tensor, nn

from d2v.audio.extractor import ConvExtractor
from d2v.core.nn import Alibi, Attention, LayerFeatures, TransformerEncoder, linear
from d2v.core.nn.forms import forms_taken, measured_ratio, other_forms
from d2v.core.nn.inference import PackedWeights, inferring, packed_weights
from d2v.core.nn.linear import Linear
from d2v.core.nn.packing import PackedRows

FORMS = ("onednn-linear", "row-attention", "channels-last-extractor", "channels-last-positions")
LAYERS = [(8, 10, 5), (8, 3, 2), (8, 2, 2)]
needs_onednn = pytest.mark.skipif(not linear.has_onednn_linear(), reason="this torch lacks the operators")


def both(compute: Callable[[], Tensor], packed: PackedWeights | None = None) -> tuple[Tensor, Tensor]:
    """Result of the plain forms and of those of inference."""
    with torch.no_grad():
        plain = compute()
    with inferring(packed or PackedWeights(), FORMS):
        return plain, compute()


@pytest.mark.parametrize("shape", [(3, 5, 12), (4, 12), (12,), (0, 12)])
@pytest.mark.parametrize("bias", [True, False])
def test_packed_linear_layers(shape: tuple[int, ...], bias: bool) -> None:
    layer, x = Linear(12, 20, bias=bias), torch.randn(shape)
    for compute in (lambda: layer(x), lambda: layer.with_gelu(x)):
        plain, other = both(compute)
        torch.testing.assert_close(other, plain, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("native", [True, False])
def test_packed_linear_layers_in_half_precision(native: bool) -> None:
    layer, x = Linear(64, 64), torch.randn(5, 64)
    exact = layer(x)
    if native:
        layer, x = layer.bfloat16(), x.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not native):
        plain, other = both(lambda: layer(x))
    assert plain.dtype == other.dtype == torch.bfloat16
    assert (other - exact).norm() < 1.5 * (plain - exact).norm()


@needs_onednn
def test_weights_are_packed_once_and_again_after_a_change() -> None:
    layer, x, packed = Linear(8, 8), torch.randn(3, 8), PackedWeights()
    with inferring(packed, FORMS):
        layer(x)
        layer(x)
    assert len(packed._known) == 1

    def trained() -> None:
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, foreach=True)
        layer(x).sum().backward()
        optimizer.step()

    changes: list[Callable[[], object]] = [
        lambda: layer.load_state_dict(Linear(8, 8).state_dict()),
        lambda: layer.load_state_dict(Linear(8, 8).state_dict(), assign=True),
        lambda: nn.init.normal_(layer.weight),
        lambda: layer.weight.data.mul_(2),
        lambda: setattr(layer, "weight", nn.Parameter(torch.randn(8, 8))),
        trained,
    ]
    for change in changes:
        before, _ = both(lambda: layer(x), packed)
        change()
        plain, other = both(lambda: layer(x), packed)
        assert not torch.allclose(plain, before)
        torch.testing.assert_close(other, plain, atol=2e-6, rtol=2e-6)


@needs_onednn
def test_packed_weights_are_forgotten_with_their_layer_and_are_in_no_copy() -> None:
    layer, packed = Linear(8, 8), PackedWeights()
    with inferring(packed, FORMS):
        layer(torch.randn(3, 8))
    assert len(packed._known) == 1
    assert not copy.deepcopy(packed)._known
    assert not pickle.loads(pickle.dumps(packed))._known
    assert layer.state_dict().keys() == Linear(8, 8).state_dict().keys()
    assert vars(layer).keys() == vars(Linear(8, 8)).keys()
    del layer
    gc.collect()
    assert not packed._known


def test_nothing_is_packed_where_it_must_not_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "packed_linear", lambda *_: pytest.fail("asked"))
    monkeypatch.setattr(PackedRows, "pack", lambda *_: pytest.fail("asked"))
    layer, x = Linear(8, 8), torch.randn(3, 8)
    encoder = TransformerEncoder.stack(8, depth=1, num_heads=2).eval()
    padding = padding_of([2, 4, 3], 4)
    layer(x)
    encoder(torch.randn(3, 4, 8), padding=padding)
    with inferring(PackedWeights(), FORMS):
        with torch.enable_grad():
            layer(x).sum().backward()
            encoder(torch.randn(3, 4, 8), padding=padding)
        torch.compile(layer, fullgraph=True, backend="eager")(x)
        layer.double()(x.double())
    with inferring(PackedWeights()):  # without the form
        Linear(8, 8)(x)
        encoder(torch.randn(3, 4, 8), padding=padding.flip(1))  # at the start
    assert packed_weights() is None


def test_a_torch_without_the_operators_takes_the_plain_form(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = Linear(3, 2), torch.randn(4, 3)
    expected = layer(x)
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    with inferring(PackedWeights(), FORMS):
        torch.testing.assert_close(layer(x), expected)
        assert other_forms(layer) == {}


@pytest.mark.parametrize("length", [1, 7, 40])
@pytest.mark.parametrize("bias", ["none", "shared", "of rows", "of keys", "distances"])
def test_attention_row_by_row(length: int, bias: str) -> None:
    attention, x = Attention(12, num_heads=3).eval(), torch.randn(2, length, 12)
    mask = {
        "none": None,
        "shared": torch.randn(1, 3, length, length),
        "of rows": torch.randn(2, 3, length, length),
        "of keys": torch.randn(1, 1, 1, length),
        "distances": Alibi(3)(placed(length))(0),
    }[bias]
    plain, other = both(lambda: attention(x, mask))
    torch.testing.assert_close(other, plain, atol=2e-6, rtol=2e-6)


def test_attention_row_by_row_in_half_precision_is_as_exact() -> None:
    attention, x = Attention(64, num_heads=2).eval(), torch.randn(2, 50, 64)
    bias = torch.randn(1, 2, 50, 50)
    with torch.no_grad():
        exact = attention(x, bias)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain, other = both(lambda: attention(x, bias))
    assert (other - exact).norm() < 1.5 * (plain - exact).norm()


def placed(length: int) -> SimpleNamespace:
    return SimpleNamespace(position=None, grid=(length,), num_prefix_tokens=0)


BIASES = {
    "none": lambda: None,
    "shared": lambda: torch.randn(1, 2, 9, 9),
    "of rows": lambda: torch.randn(4, 2, 9, 9),
    "of keys": lambda: torch.randn(1, 1, 1, 9),
    "distances": lambda: Alibi(2)(placed(9))(0),
}


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("kind", ["ffn", "block"])
def test_rows_without_their_padding(bias: str, norm: str, kind: str) -> None:
    encoder = TransformerEncoder.stack(
        8, depth=3, num_heads=2, norm=norm, norm_out=nn.LayerNorm(8), layer_scale=0.5
    ).eval()
    x, padding, made = torch.randn(4, 9, 8), padding_of([9, 1, 0, 6], 9), BIASES[bias]()
    sinks = []

    def compute() -> Tensor:
        sinks.append(LayerFeatures([0, 2], kind=kind))  # type: ignore[arg-type]  # one of its names
        out: Tensor = encoder(x, padding=padding, bias=lambda _: made, sink=sinks[-1])
        return out

    found = [both(compute)]
    found += [(sinks[0].results[layer], sinks[1].results[layer]) for layer in (0, 2)]
    for plain, other in found:
        torch.testing.assert_close(other[~padding], plain[~padding], atol=1e-5, rtol=1e-5)
        assert not other[padding].any()


def test_batches_without_rows() -> None:
    encoder, extractor = TransformerEncoder.stack(8, depth=1, num_heads=2).eval(), ConvExtractor(LAYERS)
    for compute in (
        lambda: encoder(torch.zeros(0, 4, 8), padding=torch.zeros(0, 4, dtype=torch.bool)),
        lambda: extractor(torch.zeros(0, 1, 100)),
    ):
        plain, other = both(compute)
        assert plain.shape == other.shape


def test_compiled_blocks_keep_their_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PackedRows, "pack", lambda *_: pytest.fail("asked"))
    encoder = TransformerEncoder.stack(8, depth=1, num_heads=2).eval()
    encoder.blocks[0].compile(backend="eager", fullgraph=True)
    x, padding = torch.randn(2, 4, 8), padding_of([4, 2], 4)
    plain, other = both(lambda: encoder(x, padding=padding))
    torch.testing.assert_close(other, plain)


def test_a_wrong_bias_is_refused_in_packed_rows_too() -> None:
    encoder = TransformerEncoder.stack(8, depth=1, num_heads=2).eval()
    x, padding = torch.randn(2, 4, 8), padding_of([4, 2], 4)
    with inferring(PackedWeights()):
        for bias in (torch.zeros(1, 2, 3, 3), torch.zeros(1, 3, 4, 4)):
            with pytest.raises(ValueError, match="attention bias"):
                encoder(x, padding=padding, bias=lambda _, bias=bias: bias)


@pytest.mark.parametrize("options", [{}, {"bias": True}, {"in_channels": 3}, {"norm": "group"}])
@pytest.mark.parametrize("frames", [1, 99, 101, 230])
def test_recordings_in_blocks(options: dict[str, object], frames: int) -> None:
    extractor = ConvExtractor(LAYERS, **options)  # type: ignore[arg-type]  # some of its arguments
    samples = (frames - 1) * extractor.stride + extractor.reach + 7
    x = torch.randn(2, int(options.get("in_channels", 1)), samples)  # type: ignore[call-overload]  # a number
    plain, other = both(lambda: extractor(x))
    assert plain.shape[1] == extractor.num_frames(samples)
    torch.testing.assert_close(other, plain, atol=2e-5, rtol=2e-5)
    lengths = [plain.shape[1], max(0, frames - 5)]
    plain, other = both(lambda: extractor(x, lengths))
    for one, two, length in zip(plain, other, lengths, strict=True):
        torch.testing.assert_close(two[:length], one[:length], atol=2e-5, rtol=2e-5)


def test_measuring_in_inference_is_of_the_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    attention, packed = Attention(16, num_heads=2), PackedWeights()
    monkeypatch.setattr(torch.autograd, "grad", lambda *_, **__: pytest.fail("asked"))
    with inferring(packed):
        assert set(other_forms(attention)) >= {"row-attention"}
        for parts in other_forms(attention).values():
            assert 0 < measured_ratio(parts) < 100
    assert forms_taken(attention) == ()
    assert "row-attention" not in other_forms(attention)
