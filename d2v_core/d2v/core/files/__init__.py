"""Files: foreign configurations and tensors, and how they become ours."""

from d2v.core.files.converter import Converted, Converter, Layout, Shapes, convert
from d2v.core.files.folder import load, save
from d2v.core.files.foreign import ForeignConfig
from d2v.core.files.structure import ConfigError, from_plain, to_plain
from d2v.core.files.tables import Constant, Join, KeyTable, Rename, Reshape, Rule, Split

__all__ = [
    "ConfigError",
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
    "from_plain",
    "load",
    "save",
    "to_plain",
]
