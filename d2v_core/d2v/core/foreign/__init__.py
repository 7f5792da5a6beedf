"""Third-party models: read their configurations and tensors, and convert them to models of this package."""

from d2v.core.foreign.config import ForeignConfig
from d2v.core.foreign.converter import Converted, convert, convert_file, own_parts, whole_model
from d2v.core.foreign.formats import Converter, Exported, Exporter, ExportForm, Layout, Shapes, Unpacked
from d2v.core.foreign.rules import Constant, Join, Rename, Reshape, Rule, Split, both
from d2v.core.foreign.sources import is_hugging_face, read_contents
from d2v.core.foreign.stand_ins import StandIn
from d2v.core.foreign.stored import StoredTensor, tensors_below
from d2v.core.foreign.tables import KeyTable
from d2v.core.foreign.torch_files import ForeignFileError, load_tensors, read_file

__all__ = [
    "Constant",
    "Converted",
    "Converter",
    "ExportForm",
    "Exported",
    "Exporter",
    "ForeignConfig",
    "ForeignFileError",
    "Join",
    "KeyTable",
    "Layout",
    "Rename",
    "Reshape",
    "Rule",
    "Shapes",
    "Split",
    "StandIn",
    "StoredTensor",
    "Unpacked",
    "both",
    "convert",
    "convert_file",
    "is_hugging_face",
    "load_tensors",
    "own_parts",
    "read_contents",
    "read_file",
    "tensors_below",
    "whole_model",
]
