"""Forms that are chosen by measurement: equal to the plain ones, switched by name, and absent where they cannot be."""

from typing import Any

import pytest
import torch

from d2v.audio.extractor import ConvExtractor
from d2v.audio.positions import ConvPositions
from d2v.core.nn import ConvDecoder
from d2v.core.nn.forms import TwoForms
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
