"""Made-up texts for a first look at a model."""

import torch

from d2v.core.model import AdapterConfig, Batch
from d2v.text.config import TextAdapterConfig

_LENGTH = 64
_SPECIAL = 4  # ids of special tokens


def example_batch(adapter: AdapterConfig) -> Batch:
    """Two texts `2 t` of random tokens, always the same.

    >>> example_batch(TextAdapterConfig(vocabulary_size=100, max_length=16)).source.shape
    torch.Size([2, 16])
    """
    assert isinstance(adapter, TextAdapterConfig)
    shape = (2, min(_LENGTH, adapter.max_length))
    allowed = torch.tensor(
        [
            token
            for token in range(min(_SPECIAL, adapter.vocabulary_size - 1), adapter.vocabulary_size)
            if token not in (adapter.padding_id, adapter.mask_id)
        ]
    )
    random = torch.Generator().manual_seed(0)
    return Batch(source=allowed[torch.randint(len(allowed), shape, generator=random)])
