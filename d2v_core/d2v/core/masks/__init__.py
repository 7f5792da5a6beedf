"""Masks, seeded random draws, and one masker per module."""

from d2v.core.masks.blocks import InverseBlockMasker
from d2v.core.masks.channels import ChannelMasker
from d2v.core.masks.draw import Draw
from d2v.core.masks.mask import Mask
from d2v.core.masks.masker import Masker
from d2v.core.masks.random_positions import RandomMasker
from d2v.core.masks.rectangles import BlockMasker
from d2v.core.masks.spans import SpanMasker, cover_spans

__all__ = [
    "BlockMasker",
    "ChannelMasker",
    "Draw",
    "InverseBlockMasker",
    "Mask",
    "Masker",
    "RandomMasker",
    "SpanMasker",
    "cover_spans",
]
