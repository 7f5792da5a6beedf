"""Shared by the figures of the site: their width, image grids, and the sample images."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from d2v.core.plots.style import drawing
from d2v.vision.builtin import FASHION_MNIST_CLASSES, fashion_mnist

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 3.7  # inches; text of 8 points is about 11 pixels high on a phone
CLASSES = ("T-shirt/top", "Dress", "Coat", "Sandal", "Bag", "Ankle boot")  # easy to distinguish

Drawn = tuple["Figure", str]  # with its alt text


@cache
def chosen() -> list[int]:
    """Positions of the first images of these classes in the split `test`."""
    labels = fashion_mnist("test")[1]
    return [int((labels == FASHION_MNIST_CLASSES.index(name)).nonzero()[0]) for name in CLASSES]


@cache
def sample_images() -> Tensor:
    """Images `b 1 28 28`, 0 to 1."""
    return fashion_mnist("test")[0][chosen()] / 255


def image_grid(rows: Mapping[str, Sequence[Tensor]], columns: Sequence[str] = ()) -> "Figure":
    """Rows of images `c h w`, with their names on the left; NaN pixels are transparent."""
    with drawing():
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        count = max(map(len, rows.values()))
        cell = (WIDTH - 0.75) / count
        layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
        figure = Figure(figsize=(WIDTH, cell * len(rows) + 0.35 * bool(columns)), layout=layout)
        cells = figure.subplots(len(rows), count, squeeze=False)
        for line, (name, images) in zip(cells, rows.items(), strict=True):
            for one, image in zip(line, images, strict=True):
                show(one, image)
            line[0].set_ylabel(name, rotation=0, ha="right", va="center", labelpad=6)
        for one, title in zip(cells[0], columns, strict=False):
            one.set_title(title, fontsize=8, loc="center")
    return figure


def show(axes: Any, image: Tensor) -> None:
    """Draw an image `c h w` without axes."""
    colour = image.expand(3, -1, -1).movedim(0, 2)
    there = ~colour.isnan().any(-1, keepdim=True)
    axes.imshow(torch.cat([colour.nan_to_num(), there.float()], -1).numpy(), interpolation="none")
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
