"""Made-up images for a first look at a model."""

import torch
import torch.nn.functional as F

from d2v.core.model import AdapterConfig, Batch
from d2v.vision.config import ImageAdapterConfig


def example_batch(adapter: AdapterConfig) -> Batch:
    """Two images `2 c h w` of soft spots and some noise, always the same, scaled as normalised images are.

    >>> example_batch(ImageAdapterConfig(image_size=32, patch_size=8)).source.shape
    torch.Size([2, 3, 32, 32])
    """
    assert isinstance(adapter, ImageAdapterConfig)
    random = torch.Generator().manual_seed(0)
    spots = torch.randn(2, adapter.channels, 5, 5, generator=random)
    noise = torch.randn(2, adapter.channels, *adapter.image_size, generator=random)
    return Batch(source=F.interpolate(spots, adapter.image_size, mode="bilinear") + 0.1 * noise)
