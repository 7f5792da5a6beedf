"""Other people's models: their configurations and tensors, and how they become ours."""

from d2v.core.foreign.config import ForeignConfig
from d2v.core.foreign.converter import Converted, Converter, Layout, Shapes, convert, own_parts
from d2v.core.foreign.tables import Constant, Join, KeyTable, Rename, Reshape, Rule, Split

__all__ = [
    "Constant",
    "Converted",
    "Converter",
    "ForeignConfig",
    "Join",
    "KeyTable",
    "Layout",
    "Rename",
    "Reshape",
    "Rule",
    "Shapes",
    "Split",
    "convert",
    "own_parts",
]
