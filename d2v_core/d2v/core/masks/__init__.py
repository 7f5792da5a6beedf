"""Masks: the value, the seeded draws, and one masker a file."""

from d2v.core.masks.draw import Draw
from d2v.core.masks.mask import Mask

__all__ = ["Draw", "Mask"]
