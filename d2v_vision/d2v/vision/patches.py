"""Patch embedding, and the raw pixels of patches."""

import torch
from einops import rearrange
from torch import Tensor, nn

from d2v.core.model import Batch, Layout, Local
from d2v.core.nn.gradients import scale_gradient
from d2v.core.nn.linear import Linear


class PatchEmbedding(nn.Module):
    """Front end for images: a linear projection of each patch, implemented as a convolution.

    Args:
        embed_dim: d.
        image_size: (h, w) in pixels.
        patch_size: (h, w) in pixels, divides the image.
        channels: c.
        width: output width of the convolution, if it differs from d; a linear layer follows then.
        gradient_scale: factor of the gradient that reaches the convolution.

    Raises:
        ValueError: if the patch does not divide the image.

    >>> PatchEmbedding(16, image_size=(8, 8), patch_size=(4, 4))(Batch(source=torch.zeros(2, 3, 8, 8))).x.shape
    torch.Size([2, 4, 16])
    """

    def __init__(
        self,
        embed_dim: int,
        *,
        image_size: tuple[int, int],
        patch_size: tuple[int, int],
        channels: int = 3,
        width: int | None = None,
        gradient_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if any(size % patch for size, patch in zip(image_size, patch_size, strict=True)):
            raise ValueError(
                f"patches of {patch_size} pixels do not divide an image of {image_size}; change one of them"
            )
        self.image_size = image_size
        self.channels = channels
        self.gradient_scale = gradient_scale
        self.proj = nn.Conv2d(channels, width or embed_dim, patch_size, stride=patch_size)
        nn.init.xavier_uniform_(self.proj.weight.data.flatten(1))
        self.widen = Linear(width, embed_dim) if width is not None and width != embed_dim else None

    def forward(self, batch: Batch) -> Local:
        """Features of `b c h w` images.

        Raises:
            ValueError: if the images have another size or another number of channels.
        """
        layout = self.layout(batch)
        x = rearrange(self.proj(batch.source), "b d h w -> b (h w) d")
        x = x if self.widen is None else self.widen(x)
        return Local(x=scale_gradient(x, self.gradient_scale), padding=layout.padding, grid=layout.grid)

    def layout(self, batch: Batch) -> Layout:
        """Return the grid of patches of `b c h w` images.

        Raises:
            ValueError: if the images have another size or another number of channels.
        """
        expected = (self.channels, *self.image_size)
        if tuple(batch.source.shape[1:]) != expected:
            raise ValueError(
                f"images of shape {tuple(batch.source.shape[1:])}, but the model takes {expected}; resize them"
            )
        height, width = self.image_size
        rows, columns = self.proj.kernel_size
        return Layout(grid=(height // rows, width // columns))


def normalised_pixels(images: Tensor, patch_size: tuple[int, int]) -> Tensor:
    """Normalise the pixels of each patch to mean 0 and variance 1: the target of the reconstruction loss.

    Args:
        images: `b c h w`.
        patch_size: (h, w) in pixels.

    Returns:
        `b t p`, p ordered by row in the patch, column in the patch, channel; variances are unbiased, eps 1e-6.

    >>> normalised_pixels(torch.rand(2, 3, 8, 8), (4, 4)).shape
    torch.Size([2, 4, 48])
    """
    ph, pw = patch_size
    pixels = rearrange(images, "b c (gh ph) (gw pw) -> b (gh gw) (ph pw c)", ph=ph, pw=pw).float()
    variance, mean = torch.var_mean(pixels, dim=-1, keepdim=True)
    return (pixels - mean) / (variance + 1e-6).sqrt()
