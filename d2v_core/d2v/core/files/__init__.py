"""Our own files: model folders, and configurations as plain values."""

from d2v.core.files.description import Description
from d2v.core.files.folder import Stored, load, open_model, save
from d2v.core.files.kinds import ConfigError, add_kind
from d2v.core.files.structure import from_plain, to_plain

__all__ = ["ConfigError", "Description", "Stored", "add_kind", "from_plain", "load", "open_model", "save", "to_plain"]
