"""Convert the model's input back to images for display."""

import torch
from torch import Tensor

from d2v.core.data import DataConfig
from d2v.core.model import Batch


def images_of(batch: Batch, data: DataConfig) -> Tensor:
    """Undo the normalisation of a batch.

    Args:
        batch: images `b c h w`, normalised as the data says.
        data: an `ImageDataConfig`.

    Returns:
        Images `b c h w` from 0 to 1.

    >>> from d2v.vision import ImageDataConfig
    >>> data = ImageDataConfig(path="digits", channels=1, mean=(0.5,), std=(0.5,))
    >>> images_of(Batch(source=torch.tensor([[[[-1.0, 0.0, 1.0]]]])), data)
    tensor([[[[0.0000, 0.5000, 1.0000]]]])
    """
    values = data.preparation()
    mean, std = (torch.tensor(values[name]).to(batch.source)[:, None, None] for name in ("mean", "std"))
    return (batch.source * std + mean).clamp(0, 1)
