"""Random numbers for samples. Each is a hash of (seed, epoch, id), so there is no state to save."""

from enum import IntEnum

import torch
from torch import Tensor

from d2v.core.masks import Draw
from d2v.core.masks.draw import one_number


class Purpose(IntEnum):
    """Purpose of a random number; draws for different purposes are independent. Masks use the small values."""

    ORDER = 100
    SAMPLE = 101
    REPLACEMENT = 102
    FEW = 103
    BATCHES = 104
    WINDOW = 105
    MIXTURE = 106
    HOLD_OUT = 107


def sample_seed(*, seed: int, epoch: int, id: int) -> int:
    """Return a number below 2^53 that seeds all randomness of one sample in one epoch.

    >>> sample_seed(seed=0, epoch=1, id=7) == sample_seed(seed=0, epoch=1, id=7)
    True
    """
    return drawn(Purpose.SAMPLE, seed=seed, epoch=epoch, id=id)


def few_of_each(labels: Tensor, count: int, *, seed: int) -> Tensor:
    """Draw the ids of `count` samples of each class, for training with few labels.

    With the same seed, a larger count includes the samples of a smaller one.

    Args:
        labels: Long `n`, by id; negative = unlabelled, never drawn.
        count: samples per class.
        seed: seed of the draw.

    Returns:
        Ids, Long, ascending.

    Raises:
        ValueError: if a class has fewer samples; names its number.

    >>> few_of_each(torch.tensor([0, 1, 0, 1, 1]), 2, seed=0).shape
    torch.Size([4])
    """
    numbers = Draw(seed=seed, update=0, ids=torch.arange(len(labels)), purpose=Purpose.FEW).bits(1, 1, stream=0)
    order = numbers[:, 0].argsort(stable=True)
    kept = []
    for label in torch.unique(labels[labels >= 0]).tolist():
        own = order[labels[order] == label]
        if len(own) < count:
            raise ValueError(f"class {label} has {len(own)} samples, fewer than {count}")
        kept.append(own[:count])
    return torch.cat(kept).sort().values if kept else labels.new_empty(0)


def drawn(purpose: Purpose, *, seed: int, epoch: int, id: int, attempt: int = 0) -> int:
    """Return a random number below 2^53."""
    return one_number(seed=seed, update=epoch, id=id, purpose=purpose, stream=attempt)
