"""Images of another size than the model was pretrained with: adapters are resized to them."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from d2v.core.data import DataError, Splits
from d2v.core.model import Backbone, Batch, BlockConfig, ModalityAdapter, TransformerConfig
from d2v.vision import ImageAdapterConfig, ImageDataConfig, RelativeBias, SinCosPositions

HELD_OUT = Splits(train="train", test="test", pretrain="train+test", whole="train+test")
ENCODER = TransformerConfig(block=BlockConfig(embed_dim=8, num_heads=2), depth=2)


def config(path: Path | str, **options: object) -> ImageDataConfig:
    return ImageDataConfig(**{"path": str(path), "size": 8, "num_workers": 0, **options})  # type: ignore[arg-type]


def adapter(**options: object) -> ModalityAdapter:
    return ImageAdapterConfig(image_size=8, patch_size=4, **options).build(ENCODER)  # type: ignore[arg-type]


def test_a_model_takes_a_size_twice_as_large() -> None:
    model = Backbone({"vision": adapter()}, ENCODER.build()).eval()
    config("digits", size=16).match(model.adapter(None))
    assert model.encode(Batch(source=torch.randn(2, 3, 16, 16))).x.shape == (2, 17, 8)
    fresh = Backbone({"vision": ImageAdapterConfig(image_size=16, patch_size=4).build(ENCODER)}, ENCODER.build()).eval()
    fresh.load_state_dict(model.state_dict())
    positions = ImageAdapterConfig(image_size=16, patch_size=4).build(ENCODER).positions
    assert torch.equal(model.adapter(None).positions(None, None), positions(None, None))  # type: ignore[arg-type, misc]
    x = Batch(source=torch.randn(2, 3, 16, 16))
    assert torch.equal(model.encode(x).x, fresh.encode(x).x)
    config("digits", size=8).match(model.adapter(None))
    assert model.encode(Batch(source=torch.randn(2, 3, 8, 8))).x.shape == (2, 5, 8)


def test_the_same_size_changes_nothing() -> None:
    same = adapter()
    same.positions.positions += 1  # type: ignore[union-attr, operator]
    before = same.positions.positions.clone()  # type: ignore[union-attr]
    config("digits").match(same)
    assert torch.equal(same.positions.positions, before)  # type: ignore[union-attr]


def test_rows_and_columns_stay_apart() -> None:
    wide = adapter()
    wide.resize((8, 16))  # type: ignore[operator]
    assert torch.equal(wide.positions(None, None), SinCosPositions(8, (2, 4)).positions)  # type: ignore[arg-type, misc]


def test_positions_keep_their_type() -> None:
    half = adapter().to(torch.bfloat16)
    half.resize((8, 16))  # type: ignore[operator]
    assert half.positions.positions.dtype == torch.bfloat16  # type: ignore[union-attr]
    assert half.positions.positions.shape == (1, 8, 8)  # type: ignore[union-attr]


def test_learned_positions_are_interpolated() -> None:
    one = adapter(positions="learned")
    image = torch.randn(1, 8, 2, 2)
    one.positions.positions.data = rearrange(image, "1 d h w -> 1 (h w) d")  # type: ignore[union-attr, operator]
    extra = one.extra_tokens.state_dict()  # type: ignore[union-attr]
    one.resize((12, 20))  # type: ignore[operator]
    expected = F.interpolate(image, (3, 5), mode="bicubic")
    found = one.positions.positions  # type: ignore[union-attr]
    assert torch.equal(found, rearrange(expected, "1 d h w -> 1 (h w) d"))  # type: ignore[arg-type]
    assert isinstance(found, torch.nn.Parameter)
    assert all(torch.equal(tensor, extra[name]) for name, tensor in one.extra_tokens.state_dict().items())  # type: ignore[union-attr]


@pytest.mark.parametrize(("shared", "num_layers"), [(True, 0), (False, 2), (True, 2)])
def test_a_relative_bias_is_interpolated(shared: bool, num_layers: int) -> None:
    bias = RelativeBias((2, 3), 4, num_layers=num_layers, shared=shared)
    tables = [table for table in (bias.shared, *bias.layers) if table is not None]
    for table in tables:
        torch.nn.init.normal_(table)
    before = [table.detach().clone() for table in tables]
    bias.fit((4, 5), before=(2, 3))
    after = [table for table in (bias.shared, *bias.layers) if table is not None]
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old[-3:], new[-3:]), "those of the class token have no place"
        image = rearrange(old[:-3], "(h w) n -> 1 n h w", h=3)
        expected = F.interpolate(image, (7, 9), mode="bicubic", align_corners=True)
        assert torch.equal(rearrange(expected, "1 n h w -> (h w) n"), new[:-3])
        centre_before, centre = old[:-3][7], new[:-3][31]
        torch.testing.assert_close(centre, centre_before)  # no offset
        torch.testing.assert_close(new[0], old[0])  # the largest one
    model = SimpleNamespace(position=None, grid=(4, 5), num_prefix_tokens=1)
    assert bias(model)(0).shape == (1, 4, 21, 21)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"positions": None}, {"positions": None, "extra_tokens": 0}])
def test_a_model_without_positions_takes_any_size(options: dict[str, object]) -> None:
    config("digits", size=16).match(adapter(**options))


@pytest.mark.parametrize(
    ("options", "size", "message"),
    [
        ({}, 10, "data.size=10 does not fit the model: 10x10 pixels are not a multiple of the patch, 4x4"),
        ({}, 2, "2x2 pixels are not a multiple of the patch"),
        ({"channels": 1}, 8, "data.channels=3, but the model takes 1; set data.channels=1"),
    ],
)
def test_a_model_that_does_not_fit(options: dict[str, object], size: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        config("digits", size=size).match(adapter(**options))


def test_a_model_of_something_else() -> None:
    with pytest.raises(DataError, match="ModalityAdapter"):
        config("digits").match(ModalityAdapter(torch.nn.Identity()))
