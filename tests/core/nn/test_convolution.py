"""The convolutional decoder against its layers written out."""

import pytest
import torch
import torch.nn.functional as F
from building import randomise

from d2v.core.nn import ConvDecoder

DIM = 8


def make(dims=1, **options):
    values = {"decoder_dim": 8, "num_layers": 3, "kernel_size": 3, "groups": 2} | options
    return randomise(ConvDecoder(DIM, dims=dims, **values), std=0.2)


def by_hand(decoder, x, grid):
    y = x.transpose(1, 2).reshape(x.shape[0], -1, *grid)
    for conv in decoder.convs:
        z = conv(y)
        z = z[..., : grid[0]] if len(grid) == 1 else z[..., : grid[0], : grid[1]]
        z = F.gelu(F.layer_norm(z.movedim(1, -1), (z.shape[1],))).movedim(-1, 1)
        y = z + y if decoder.residual and z.shape[1] == y.shape[1] else z
    return decoder.proj(y.flatten(2).transpose(1, 2))


@pytest.mark.parametrize("grid", [(7,), (3, 5), (1, 4)])
@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("decoder_dim", [8, 12])
def test_equals_its_layers(grid, kernel_size, residual, decoder_dim):
    decoder = make(len(grid), kernel_size=kernel_size, residual=residual, decoder_dim=decoder_dim)
    x = torch.randn(3, grid[0] * (grid[1] if len(grid) > 1 else 1), DIM)
    y = decoder(x, grid)
    assert y.shape == x.shape
    torch.testing.assert_close(y, by_hand(decoder, x, grid))


@pytest.mark.parametrize("grid", [(6,), (2, 3)])
@pytest.mark.parametrize("projection_layers", [1, 2, 3])
def test_an_index_projects_the_same_rows(grid, projection_layers):
    decoder, x = make(len(grid), projection_layers=projection_layers), torch.randn(4, 6, DIM)
    index = torch.tensor([0, 3, 7, 8, 23])
    rows = decoder(x, grid, index)
    assert rows.shape == (5, DIM)
    torch.testing.assert_close(rows, decoder(x, grid).flatten(0, 1)[index])
    assert decoder(x, grid, index[:0]).shape == (0, DIM)


def test_only_layers_of_equal_width_are_residual():
    x = torch.randn(2, 5, DIM)
    for width, residual in ((8, True), (12, False)):
        decoder = make(decoder_dim=width, num_layers=1, kernel_size=1)
        decoder.proj = torch.nn.Identity()
        for parameter in decoder.convs.parameters():
            parameter.data.zero_()  # then the layer's own part is zero, and the residual is all that is left
        y = decoder(x, (5,), torch.arange(10))
        assert torch.equal(y, x.flatten(0, 1)) if residual else torch.equal(y, torch.zeros(10, 12))


@pytest.mark.parametrize(
    ("layers", "ratio", "widths"), [(1, 2.0, [12, 8]), (2, 2.0, [12, 24, 8]), (3, 1.5, [12, 18, 18, 8])]
)
def test_projection_widths(layers, ratio, widths):
    decoder = make(decoder_dim=12, projection_layers=layers, projection_ratio=ratio)
    linears = [part for part in decoder.proj if isinstance(part, torch.nn.Linear)]
    assert [linears[0].in_features, *(linear.out_features for linear in linears)] == widths
    assert sum(isinstance(part, torch.nn.GELU) for part in decoder.proj) == layers - 1


def test_no_layers_is_the_projection():
    decoder, x = make(num_layers=0), torch.randn(2, 5, DIM)
    torch.testing.assert_close(decoder(x, (5,)), decoder.proj(x))


def test_refusals():
    with pytest.raises(ValueError, match="dims=3"):
        make(3)
    for options in ({"groups": 3}, {"decoder_dim": 9}):
        with pytest.raises(ValueError, match="embed_dim=8 and decoder_dim="):
            make(**options)
    for grid in ((6,), (1, 5), ()):
        with pytest.raises(ValueError, match="5 positions"):
            make()(torch.randn(2, 5, DIM), grid)
