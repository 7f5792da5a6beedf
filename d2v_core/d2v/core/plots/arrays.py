"""Images as arrays, for pages with their own layout."""

import io

import torch
from attrs.validators import ge
from einops import rearrange, repeat
from torch import Tensor
from torch.nn.functional import interpolate

from d2v.core.plots.style import require_plotting
from d2v.core.validators import check

_COVER = (0.42, 0.53, 0.70)  # not grey: on a grey image, grey could be part of it
_CUT = 0.02  # fraction of the rows at either end: one outlier must not use up the range of colours


def hide(image: Tensor, hidden: Tensor) -> Tensor:
    """Cover the hidden patches of an image with one colour, since the student sees nothing of them.

    Args:
        image: `c h w` with one or three channels, 0 to 1.
        hidden: Bool `gh gw`, True = hidden.

    Returns:
        `3 h w`, since a grey cover could be part of a grey image.

    Raises:
        ValueError: if a shape does not fit, or `hidden` is not Bool.

    >>> hide(torch.ones(1, 2, 4), torch.tensor([[True, False]]))[0]
    tensor([[0.4200, 0.4200, 1.0000, 1.0000],
            [0.4200, 0.4200, 1.0000, 1.0000]])
    """
    if image.dim() != 3 or image.shape[0] not in (1, 3) or hidden.dim() != 2 or hidden.dtype != torch.bool:
        raise ValueError(
            f"image must be 1 h w or 3 h w and hidden Bool gh gw, not {tuple(image.shape)} and {hidden.dtype} "
            f"{tuple(hidden.shape)}"
        )
    _, h, w = image.shape
    patches = stretched(hidden[None].to(image), (h, w)).bool()
    return image.expand(3, h, w).where(~patches, torch.tensor(_COVER).to(image)[:, None, None])


def pca_colours(features: Tensor) -> Tensor:
    """Features as colours: red, green and blue are their first three principal components.

    The components are fitted on all rows of the call, so colours are comparable only within one call. Each is scaled so
    that all but 2 % of the rows at either end are between 0 and 1; a missing component is 0.5. Its sign makes the
    largest loading positive.

    Args:
        features: `... d`.

    Returns:
        `... 3`, float32 between 0 and 1, on the CPU.

    Raises:
        ValueError: if there are no rows, or a value is not finite.

    >>> pca_colours(torch.tensor([[0.0, 7], [1, 7], [2, 7]]))
    tensor([[0.0000, 0.5000, 0.5000],
            [0.5000, 0.5000, 0.5000],
            [1.0000, 0.5000, 0.5000]])
    """
    # Double precision, so that the components and their signs do not depend on rounding.
    rows = rearrange(features.detach().cpu().double(), "... d -> (...) d")
    if not rows.numel() or not rows.isfinite().all():
        raise ValueError(f"features of shape {tuple(features.shape)} must be finite, and at least one row")
    rows = rows - rows.mean(0)
    values, vectors = torch.linalg.eigh(rows.T @ rows)
    colours = torch.full((len(rows), 3), 0.5, dtype=torch.float64)
    for index in range(min(3, vectors.shape[1])):
        if values[-1 - index] <= 1e-10 * values[-1].clamp(min=1e-30):
            break
        axis = vectors[:, -1 - index]
        scores = rows @ (axis * axis[axis.abs().argmax()].sign())
        low, high = (scores.quantile(fraction) for fraction in (_CUT, 1 - _CUT))
        colours[:, index] = ((scores - low) / (high - low).clamp(min=1e-30)).clamp(0, 1)
    return colours.float().view(*features.shape[:-1], 3)


def png(image: Tensor, scale: int = 1) -> bytes:
    """An image as a PNG file.

    Args:
        image: `h w 3` or, if its last axis is not 3, `c h w` with one or three channels; 0 to 1, values outside are
            clipped.
        scale: size of a pixel in the file, in pixels.

    Raises:
        ValueError: if the shape does not fit, or `scale` is below 1.
        MissingExtraError: if the extra `plot` is not installed.

    >>> png(torch.zeros(1, 4, 4), scale=2)[:4]  # doctest: +SKIP
    b'\\x89PNG'
    >>> png(torch.zeros(4, 4))
    Traceback (most recent call last):
    ValueError: image must be h w 3, 1 h w or 3 h w, not (4, 4)
    """
    shape = tuple(image.shape)
    if len(shape) != 3 or not (shape[2] == 3 or shape[0] in (1, 3)):
        raise ValueError(f"image must be h w 3, 1 h w or 3 h w, not {shape}")
    check(ge(1), scale=scale)
    require_plotting()
    from PIL import Image

    image = image.detach().cpu().float()
    pixels = image if shape[2] == 3 else rearrange(image, "c h w -> h w c")
    pixels = repeat(pixels, "h w c -> (h down) (w across) c", down=scale, across=scale)
    values = (pixels.nan_to_num().clamp(0, 1) * 255).round().to(torch.uint8).squeeze(2).numpy()
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "png", optimize=True)
    return stream.getvalue()


def stretched(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize an image `c h w` without blending neighbours."""
    return interpolate(image[None], size, mode="nearest-exact")[0]


def plane(grid: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of a grid of positions: a sequence is one row.

    >>> plane((4, 6)), plane((9,))
    ((4, 6), (1, 9))
    """
    return (grid[0], grid[1]) if len(grid) == 2 else (1, grid[0])
