"""Patches, their positions and their raw pixels, against loops."""

import math
import re
from types import SimpleNamespace

import attrs
import pytest
import torch
from building import random_mask, randomise

from d2v.core.model import AlibiConfig, Backbone, Batch, BlockConfig, TransformerConfig
from d2v.vision import ImageAdapterConfig, LearnedPositions, PatchEmbedding, RelativeBias, SinCosPositions
from d2v.vision.patches import normalised_pixels

DIM, HEADS = 8, 2
ENCODER = TransformerConfig(block=BlockConfig(embed_dim=DIM, num_heads=HEADS), depth=2)
IMAGE = ImageAdapterConfig(image_size=(8, 12), patch_size=4, context=None)


def backbone(**options):
    adapter = attrs.evolve(IMAGE, **options).build(ENCODER)
    return randomise(Backbone({"vision": adapter}, ENCODER.build()), std=0.2)


@pytest.mark.parametrize(("embed_dim", "grid"), [(8, (2, 3)), (16, (5, 5)), (4, (1, 7))])
def test_sines_and_cosines(embed_dim, grid):
    table = SinCosPositions(embed_dim, grid)(torch.zeros(1, 1, embed_dim), None)
    quarter = embed_dim // 4
    frequencies = [10000 ** (-i / quarter) for i in range(quarter)]

    def f(p):
        return [math.sin(p * w) for w in frequencies] + [math.cos(p * w) for w in frequencies]

    expected = [f(column) + f(row) for row in range(grid[0]) for column in range(grid[1])]
    torch.testing.assert_close(table, torch.tensor(expected)[None])
    assert not table.requires_grad


def test_patches_are_linear_maps_of_their_pixels():
    front, images = PatchEmbedding(DIM, image_size=(8, 12), patch_size=(4, 4)), torch.randn(2, 3, 8, 12)
    local = front(Batch(source=images))
    assert local.grid == front.layout(Batch(source=images)).grid == (2, 3)
    assert local.padding is None
    for row in range(2):
        for column in range(3):
            patch = images[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            expected = patch.flatten(1) @ front.proj.weight.flatten(1).T + front.proj.bias
            torch.testing.assert_close(local.x[:, 3 * row + column], expected, atol=1e-5, rtol=1e-4)


def test_another_width_is_followed_by_a_linear_layer():
    front, images = PatchEmbedding(DIM, image_size=(8, 8), patch_size=(4, 4), width=6), torch.randn(2, 3, 8, 8)
    x = front.widen(front.proj(images).flatten(2).transpose(1, 2))
    torch.testing.assert_close(front(Batch(source=images)).x, x)
    assert PatchEmbedding(DIM, image_size=(8, 8), patch_size=(4, 4), width=DIM).widen is None


@pytest.mark.parametrize("patch", [(4, 4), (2, 4), (8, 3)])
def test_normalised_pixels(patch):
    images = torch.rand(2, 3, 8, 12)
    pixels = normalised_pixels(images, patch)
    height, width = 8 // patch[0], 12 // patch[1]
    assert pixels.shape == (2, height * width, 3 * patch[0] * patch[1])
    for t in range(height * width):
        row, column = t // width * patch[0], t % width * patch[1]
        values = [images[1, c, row + i, column + j] for i in range(patch[0]) for j in range(patch[1]) for c in range(3)]
        x = torch.stack(values)
        torch.testing.assert_close(pixels[1, t], (x - x.mean()) / (x.var() + 1e-6).sqrt(), atol=1e-5, rtol=1e-4)
    assert normalised_pixels(torch.ones(1, 3, 8, 12), patch).isfinite().all()


@pytest.mark.parametrize("positions", ["sincos", "learned"])
def test_visible_positions_are_rows_of_the_full_table(positions):
    model, batch = backbone(positions=positions, extra_tokens=0), Batch(source=torch.randn(2, 3, 8, 12))
    mask = random_mask(2, 3, 6, 4)
    full = model.tokens(batch).x.repeat_interleave(3, 0)
    tokens = model.tokens(batch, None, mask)
    torch.testing.assert_close(tokens.x.flatten(0, 1), full[~mask.hidden])
    assert torch.equal(tokens.position, mask.visible)


def test_the_class_token_has_positions_of_its_own_where_they_are_learned():
    model, batch = backbone(positions="learned"), Batch(source=torch.randn(2, 3, 8, 12))
    extra = model.adapter(None).extra_tokens
    assert torch.equal(model.tokens(batch).x[:, :1], (extra.tokens + extra.positions).expand(2, -1, -1))
    assert ImageAdapterConfig(image_size=8, patch_size=4).build(ENCODER).extra_tokens.positions is None


def placed(position, extra):
    return SimpleNamespace(position=position, grid=(2, 3), num_prefix_tokens=extra)


def by_loop(table, places, extra):
    height, width = 2, 3
    last = len(table) - 1
    n = extra + len(places)
    bias = torch.zeros(table.shape[1], n, n)
    for i in range(n):
        for j in range(n):
            if i < extra and j < extra:
                row = last
            elif i < extra:
                row = last - 2
            elif j < extra:
                row = last - 1
            else:
                a, b = places[i - extra], places[j - extra]
                down, right = a // width - b // width, a % width - b % width
                row = (down + height - 1) * (2 * width - 1) + right + width - 1
            bias[:, i, j] = table[row]
    return bias


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("kind", ["shared", "layer", "both"])
def test_relative_bias(extra, kind):
    shared, layers = kind in ("shared", "both"), 3 if kind in ("layer", "both") else 0
    module = randomise(RelativeBias((2, 3), HEADS, num_layers=layers, shared=shared), std=1)
    positions = torch.tensor([[0, 2, 3], [1, 4, 5]])
    for position in (None, positions):
        bias = module(placed(position, extra))
        for layer in range(3):
            tables = ([module.shared] if shared else []) + ([module.layers[layer]] if layers else [])
            found = bias(layer)
            for row, places in enumerate([list(range(6))] if position is None else position.tolist()):
                torch.testing.assert_close(found[row], sum(by_loop(table, places, extra) for table in tables))
    full = module(placed(None, extra))(0)
    keep = [*range(extra), *(extra + p for p in positions[1].tolist())]
    torch.testing.assert_close(module(placed(positions, extra))(0)[1], full[0][:, keep][:, :, keep])


def test_every_row_of_the_bias_table_is_used():
    module = RelativeBias((2, 3), HEADS)
    module(placed(None, 1))(0).sum().backward()
    assert (module.shared.grad > 0).all()
    assert module.shared.shape == (3 * 5 + 3, HEADS)


@pytest.mark.parametrize("options", [{"relative_bias": "both"}, {"alibi": AlibiConfig(distance="euclidean")}])
def test_a_bias_fits_visible_tokens_and_all_of_them(options):
    model, batch = backbone(**options), Batch(source=torch.randn(2, 3, 8, 12))
    assert model.encode(batch).x.shape == (2, 7, DIM)
    assert model.encode(batch, random_mask(2, 3, 6, 4)).x.shape == (6, 3, DIM)


def test_refusals():
    with pytest.raises(ValueError, match=r"\(5, 5\).*\(8, 12\)"):
        ImageAdapterConfig(image_size=(8, 12), patch_size=5).build(ENCODER)
    model = backbone()
    for shape in ((2, 3, 8, 8), (2, 1, 8, 12), (2, 3, 12, 8)):
        with pytest.raises(ValueError, match=rf"{re.escape(str(shape[1:]))}.*\(3, 8, 12\)"):
            model.encode(Batch(source=torch.zeros(shape)))
    with pytest.raises(ValueError, match=r"width .*6"):
        SinCosPositions(6, (2, 2))
    with pytest.raises(ValueError, match=r"bias .*\(2, 3\).*\(3, 2\)"):
        RelativeBias((2, 3), HEADS)(SimpleNamespace(position=None, grid=(3, 2), num_prefix_tokens=1))
    assert LearnedPositions(DIM, 6)(torch.zeros(1, 6, DIM), None).shape == (1, 6, DIM)
