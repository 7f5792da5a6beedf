"""Forms that are chosen by measurement: equal to the plain ones, switched by name, and absent where they cannot be."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from d2v.audio.extractor import ConvExtractor
from d2v.audio.positions import ConvPositions
from d2v.core.nn import ConvDecoder, TransformerBlock, forms
from d2v.core.nn.forms import TwoForms, forms_taken, measured_ratio, other_forms, take_forms, typical_shapes
from d2v.core.nn.linear import Linear
from d2v.core.nn.strided import fits_products, strided_products

LAYERS = [(8, 10, 5), (8, 3, 2), (8, 2, 2)]
PARTS: dict[str, Any] = {
    "linear": (lambda: Linear(12, 20), (2, 5, 12)),
    "linear without bias": (lambda: Linear(12, 20, bias=False), (7, 12)),
    "linear of one vector": (lambda: Linear(12, 20), (12,)),
    "decoder": (
        lambda: ConvDecoder(8, decoder_dim=8, num_layers=2, kernel_size=4, groups=2),
        (3, 11, 8),
    ),
    "positions": (lambda: ConvPositions(8, width=15, depth=3, groups=2), (3, 11, 8)),
    "even positions": (lambda: ConvPositions(8, width=12, depth=3, groups=2), (3, 11, 8)),
    "extractor": (lambda: ConvExtractor(LAYERS), (2, 1, 200)),
    "extractor with groups": (lambda: ConvExtractor(LAYERS, norm="group", bias=True), (2, 1, 200)),
    "extractor of bands": (lambda: ConvExtractor(LAYERS, in_channels=3), (2, 3, 200)),
}


def computed(part: TwoForms, x: torch.Tensor, *, other: bool) -> list[torch.Tensor]:
    """Output and gradients of a form."""
    part.takes_other_form = other
    x = x.clone().requires_grad_()
    more = {ConvDecoder: (x.shape[1:2],), ConvPositions: (None,)}.get(type(part), ())
    y = part(x, *more)
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    used = [x, *part.parameters()]
    return [y, *torch.autograd.grad((y * weight).sum(), used)]


@pytest.mark.parametrize("name", PARTS)
def test_both_forms_are_equal(name: str) -> None:
    make, shape = PARTS[name]
    part, x = make(), torch.randn(shape)
    assert part.offers_other_form() or "onednn" in part.other_form
    for plain, other in zip(computed(part, x, other=False), computed(part, x, other=True), strict=True):
        torch.testing.assert_close(other, plain, atol=2e-5, rtol=2e-5)
        assert other.stride() == plain.stride() or not name.startswith("linear")


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2), (7, 3), (2, 3), (4, 2)])
def test_strided_products_are_the_convolution(rows: int, kernel: int, stride: int) -> None:
    conv = nn.Conv1d(4, 6, kernel, stride=stride).double()
    x = torch.randn(rows, 23, 4, dtype=torch.float64, requires_grad=True)
    assert fits_products(conv)
    leaves = [x, *conv.parameters()]
    y, expected = strided_products(conv, x), conv(x.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(y, expected)
    weight = torch.randn_like(y)
    found = torch.autograd.grad(y, leaves, weight), torch.autograd.grad(expected, leaves, weight)
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_strided_products_in_half_precision_are_as_exact_as_the_convolution() -> None:
    conv = nn.Conv1d(64, 64, 3, stride=2)
    x = torch.randn(8, 101, 64)
    exact = conv(x.transpose(1, 2)).transpose(1, 2)
    weight = torch.randn_like(exact)
    (gradient,) = torch.autograd.grad(exact, [conv.weight], weight)
    errors = []
    for function in (lambda: strided_products(conv, x), lambda: conv(x.transpose(1, 2)).transpose(1, 2)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = function()
        assert y.dtype == torch.bfloat16
        (found,) = torch.autograd.grad(y, [conv.weight], weight.to(y.dtype))
        assert found.dtype == torch.float32
        errors.append([(y - exact).norm() / exact.norm(), (found - gradient).norm() / gradient.norm()])
    for ours, theirs in zip(*errors, strict=True):
        assert ours < 1.5 * theirs


def mixed() -> nn.Module:
    return nn.ModuleList([TransformerBlock(8, num_heads=2), ConvDecoder(8, decoder_dim=8, num_layers=2, kernel_size=3)])


def test_modules_are_switched_by_name_and_copies_stay_switched() -> None:
    model = mixed()
    assert forms_taken(model) == ()
    assert take_forms(model, ["channels-last-decoder"]) == []
    assert forms_taken(copy.deepcopy(model)) == ("channels-last-decoder",)
    assert set(other_forms(model)) >= {"channels-last-decoder"}
    assert take_forms(model, []) == []
    assert forms_taken(model) == ()


def test_an_unknown_form_is_refused_and_nothing_is_switched() -> None:
    model = mixed()
    with pytest.raises(ValueError, match=r"no form 'onednn'; it has channels-last-decoder, onednn-linear"):
        take_forms(model, ["onednn", "channels-last-decoder"])
    assert forms_taken(model) == ()


def test_a_torch_without_the_operator_has_the_plain_form(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = Linear(3, 2), torch.randn(4, 3)
    take_forms(layer, ["onednn-linear"])
    expected = layer(x)
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    torch.testing.assert_close(layer(x), expected)  # although it is switched
    assert other_forms(layer) == {}
    assert take_forms(layer, ["onednn-linear"]) == ["onednn-linear"]
    assert forms_taken(layer) == ()


@pytest.mark.parametrize("where", ["half precision", "double precision", "autocast", "compiled", "no rows"])
def test_onednn_is_only_asked_for_what_it_computes(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d2v.core.nn.linear.onednn_linear", lambda *_: pytest.fail("asked"))
    dtype = {"half precision": torch.bfloat16, "double precision": torch.float64}.get(where, torch.float32)
    layer, x = Linear(3, 2).to(dtype), torch.randn(0 if where == "no rows" else 4, 3, dtype=dtype)
    layer.takes_other_form = True
    if where == "compiled":
        torch.compile(layer, fullgraph=True, backend="eager")(x)
        return
    with torch.autocast("cpu", enabled=where == "autocast"):
        layer(x)


def test_measuring_leaves_the_model_and_the_random_numbers_as_they_are() -> None:
    decoder = ConvDecoder(8, decoder_dim=8, num_layers=2, kernel_size=3)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert 0 < measured_ratio([decoder]) < 100
    assert torch.equal(torch.rand(2), expected)
    assert not decoder.takes_other_form
    assert all(parameter.grad is None for parameter in decoder.parameters())


@pytest.mark.parametrize(("many", "expected"), [(9, "16x16 16"), (99, "2x2 2")])
def test_the_size_with_most_parameters_is_timed(many: int, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [*(Linear(4, 8) for _ in range(3)), Linear(16, 16), *(Linear(2, 2) for _ in range(many))]
    asked = []
    monkeypatch.setattr(forms, "_times", lambda part: asked.append(part.in_features) or {False: 4.0, True: 2.0})
    assert typical_shapes(layers) == expected
    assert measured_ratio(layers) == 0.5
    assert asked == [int(expected.partition("x")[0])]
