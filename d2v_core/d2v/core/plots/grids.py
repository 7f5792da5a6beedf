"""Image grids: one column for each sample, one row for each view of it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from d2v.core.plots.arrays import hide, pca_colours, stretched
from d2v.core.plots.style import drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CELL = 0.9  # inches of an image with its gap
_LETTER = 0.065  # inches of a letter of a row's name
_FINE = 128  # maximum side of a drawn image in pixels
_GAP = 14  # the gap is this fraction of an image: one in _GAP


def mask_grid(images: Tensor, hidden: Tensor) -> "Figure":
    """Images, and below each its masked views.

    Args:
        images: `b c h w` with one or three channels, 0 to 1.
        hidden: Bool `b m gh gw`, True = the student does not see this patch.

    Raises:
        ValueError: if a shape does not fit.
        MissingExtraError: if the extra `plot` is not installed.

    >>> mask_grid(torch.rand(3, 1, 28, 28), torch.rand(3, 2, 4, 4) < 0.6)  # doctest: +SKIP
    <Figure size 336x270 with 1 Axes>
    >>> mask_grid(torch.rand(3, 1, 28, 28), torch.rand(3, 4, 4) < 0.6)
    Traceback (most recent call last):
    ValueError: hidden must be Bool b m gh gw with b=3 as images, not torch.bool (3, 4, 4)
    """
    _check_images(images)
    if hidden.dim() != 4 or hidden.dtype != torch.bool or len(hidden) != len(images):
        raise ValueError(
            f"hidden must be Bool b m gh gw with b={len(images)} as images, not {hidden.dtype} {tuple(hidden.shape)}"
        )
    rows = {"image": images}
    for place, view in enumerate(hidden.unbind(1), 1):
        name = f"view {place}" if hidden.shape[1] > 1 else "masked"
        rows[name] = torch.stack([hide(image, patches) for image, patches in zip(images, view, strict=True)])
    return _grid(rows)


def pca_grid(images: Tensor, features: Tensor | Mapping[str, Tensor]) -> "Figure":
    """Images, and below each the first three principal components of its patch features as red, green and blue.

    The components are fitted on all patches of a row of the grid; colours of different rows are not comparable.

    Args:
        images: `b c h w` with one or three channels, 0 to 1.
        features: `b gh gw d`, or several of them by the names of their rows.

    Raises:
        ValueError: if a shape does not fit.
        MissingExtraError: if the extra `plot` is not installed.

    >>> pca_grid(torch.rand(3, 1, 28, 28), torch.randn(3, 4, 4, 8))  # doctest: +SKIP
    <Figure size 336x180 with 1 Axes>
    >>> pca_grid(torch.rand(3, 1, 28, 28), torch.randn(3, 16, 8))
    Traceback (most recent call last):
    ValueError: features must be b gh gw d with b=3 as images, not (3, 16, 8)
    """
    _check_images(images)
    named = {"features": features} if isinstance(features, Tensor) else features
    rows = {"image": images}
    for name, one in named.items():
        if one.dim() != 4 or len(one) != len(images):
            raise ValueError(f"{name} must be b gh gw d with b={len(images)} as images, not {tuple(one.shape)}")
        rows[name] = pca_colours(one).movedim(3, 1)
    return _grid(rows)


def _check_images(images: Tensor) -> None:
    if images.dim() != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise ValueError(f"images must be b c h w with one or three channels, not {tuple(images.shape)}")


def _grid(rows: Mapping[str, Tensor]) -> "Figure":
    """All images as one, transparent between them; the images of the first row determine the size."""
    first = next(iter(rows.values()))
    b, _, h, w = first.shape
    if max(h, w) > _FINE:
        h, w = (max(1, round(side * _FINE / max(h, w))) for side in (h, w))
    gap = max(1, max(h, w) // _GAP)
    # The last channel is opaque where there is an image.
    canvas = torch.zeros(4, len(rows) * (h + gap) - gap, b * (w + gap) - gap)
    for row, images in enumerate(rows.values()):
        for column, image in enumerate(images):
            top, left = row * (h + gap), column * (w + gap)
            canvas[:3, top : top + h, left : left + w] = _sized(image.detach().cpu().float(), (h, w))
            canvas[3, top : top + h, left : left + w] = 1
    return _figure(canvas, {name: row * (h + gap) + (h - 1) / 2 for row, name in enumerate(rows)}, w + gap)


def _sized(image: Tensor, size: tuple[int, int]) -> Tensor:
    smaller = image.shape[1] > size[0] or image.shape[2] > size[1]
    return interpolate(image[None], size, mode="area")[0] if smaller else stretched(image, size)


def _figure(canvas: Tensor, names: Mapping[str, float], step: int) -> "Figure":
    """A figure of a canvas `4 h w`: a cell is `step` pixels wide; names of rows are at their heights in pixels."""
    _, h, w = canvas.shape
    inches = _CELL / step
    margin = 0.1 + _LETTER * max(map(len, names))
    width, height = margin + w * inches, h * inches
    with drawing():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((margin / width, 0.0, 1 - margin / width, 1.0))
        axes.imshow(canvas.clamp(0, 1).movedim(0, 2).numpy(), interpolation="none", aspect="auto")
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)
        axes.set_xticks([])
        axes.set_yticks(list(names.values()), list(names))
        axes.tick_params(length=0)
        figure.draw_without_rendering()
    return figure
