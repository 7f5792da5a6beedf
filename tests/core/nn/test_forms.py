"""Forms that are chosen by measurement: equal to the plain ones, switched by name, and absent where they cannot be."""

from typing import Any

import pytest
import torch

from d2v.audio.extractor import ConvExtractor
from d2v.audio.positions import ConvPositions
from d2v.core.nn import ConvDecoder
from d2v.core.nn.forms import TwoForms
from d2v.core.nn.linear import Linear

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
