"""Images as arrays."""

import io

import pytest
import torch

from d2v.core.plots import hide, pca_colours, png


def test_nothing_shows_of_hidden_patches_and_visible_ones_do_not_change() -> None:
    image = torch.rand(3, 8, 12)
    hidden = torch.tensor([[True, False, False], [False, False, True]])
    shown = hide(image, hidden)
    visible = ~hidden.repeat_interleave(4, 0).repeat_interleave(4, 1)
    assert torch.equal(shown[:, visible], image[:, visible])
    assert shown.shape == (3, 8, 12)
    assert torch.equal(shown[:, ~visible], shown[:, ~visible][:, :1].expand(-1, int((~visible).sum())))
    assert torch.equal(shown, hide(image.where(visible, torch.rand(3, 8, 12)), hidden))


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_the_cover_is_seen_on_any_grey(level: float) -> None:
    shown = hide(torch.full((1, 4, 4), level), torch.ones(2, 2, dtype=torch.bool))
    assert shown.shape == (3, 4, 4)
    assert (shown.amax(0) - shown.amin(0)).min() > 0.15, "grey stays grey"


def test_patches_that_do_not_divide_the_picture() -> None:
    shown = hide(torch.ones(1, 7, 7), torch.tensor([[True, False], [False, False]]))
    assert 9 <= int((shown[0] < 1).sum()) <= 16


@pytest.mark.parametrize(
    ("image", "hidden"),
    [
        ((4, 4), torch.ones(2, 2, dtype=torch.bool)),
        ((2, 4, 4), torch.ones(2, 2, dtype=torch.bool)),
        ((1, 4, 4), torch.ones(4, dtype=torch.bool)),
        ((1, 4, 4), torch.ones(2, 2)),
    ],
)
def test_hide_refuses_other_shapes(image: tuple[int, ...], hidden: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="image must be 1 h w or 3 h w"):
        hide(torch.ones(*image), hidden)


def test_colours_are_the_first_three_components() -> None:
    """Rows with known components: colours are their scores, up to scale."""
    scores = torch.randn(500, 3, dtype=torch.float64) * torch.tensor([9.0, 3.0, 1.0])
    basis = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))[0][:3]
    colours = pca_colours((scores @ basis + 5).view(20, 25, 8))
    assert colours.shape == (20, 25, 3)
    assert (colours.amin((0, 1)) == 0).all()
    assert (colours.amax((0, 1)) == 1).all()
    inside = ((colours > 0) & (colours < 1)).all(-1).flatten()
    assert inside.sum() > 400
    for place in range(3):
        pair = torch.stack([colours.view(-1, 3)[inside, place].double(), scores[inside, place]])
        assert torch.corrcoef(pair)[0, 1].abs() > 0.97


def test_colours_do_not_hang_on_the_sign_or_one_odd_row() -> None:
    features = torch.randn(200, 6) * torch.tensor([5.0, 3, 2, 1, 1, 1])
    assert torch.equal(pca_colours(features), pca_colours(features.clone()))
    odd = features.clone()
    odd[0] *= 5
    assert pca_colours(odd)[1:].std(0).min() > 0.1


def test_features_without_variance_are_grey() -> None:
    assert (pca_colours(torch.ones(2, 3, 4, 5)) == 0.5).all()
    assert (pca_colours(torch.randn(1, 5)) == 0.5).all()


@pytest.mark.parametrize("features", [torch.tensor([[float("nan"), 1.0]]), torch.zeros(0, 4)])
def test_features_that_have_no_components(features: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="finite"):
        pca_colours(features)


@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 4, 5), (4, 5, 3), (3, 5, 3)])
def test_png_is_read_back(shape: tuple[int, ...]) -> None:
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    numpy = pytest.importorskip("numpy")
    picture = torch.randint(0, 256, shape)
    with image.open(io.BytesIO(png(picture / 255, scale=3))) as read:
        pixels = torch.from_numpy(numpy.array(read))
    expected = picture if shape[2] == 3 else picture.movedim(0, 2).squeeze(2)
    assert torch.equal(pixels[::3, ::3].long(), expected)
    assert torch.equal(pixels[2::3, 2::3], pixels[::3, ::3])


def test_png_cuts_off_and_refuses() -> None:
    pytest.importorskip("matplotlib")
    assert png(torch.tensor([[[-1.0, 2.0, float("nan")]]])) == png(torch.tensor([[[0.0, 1.0, 0.0]]]))
    with pytest.raises(ValueError, match=r"scale.*0"):
        png(torch.zeros(1, 2, 2), scale=0)
