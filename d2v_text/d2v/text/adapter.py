"""The adapter of text."""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from d2v.core.masks import Mask
from d2v.core.model import Batch, Local, ModalityAdapter
from d2v.core.model.adapter import repeat_rows


class MaskedTextAdapter(ModalityAdapter):
    """Text whose hidden tokens are replaced by the id of `<mask>` before they are embedded (1.0).

    Args:
        front: the token embedding.
        mask_id: id of the mask token.
        parts: the other parts of `ModalityAdapter`.
    """

    def __init__(self, front: nn.Module, *, mask_id: int, **parts: Any) -> None:
        super().__init__(front, **parts)
        self.mask_id = mask_id

    def corrupt(self, batch: Batch, local: Local, mask: Mask) -> Tensor:
        """Embed the masked ids, `(b m) t d`, and zero the hidden channels."""
        del local
        ids = torch.where(mask.hidden, self.mask_id, repeat_rows(batch.source, mask.hidden.shape[0]))
        padding = None if batch.padding is None else repeat_rows(batch.padding, ids.shape[0])
        x = self.front(dataclasses.replace(batch, source=ids, padding=padding)).x
        return x if mask.channels is None else x.masked_fill(mask.channels[:, None], 0)
