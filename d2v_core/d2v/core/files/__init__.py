"""Our own files: model folders, and configurations as plain values."""

from d2v.core.files.folder import load, save
from d2v.core.files.structure import ConfigError, from_plain, to_plain

__all__ = ["ConfigError", "from_plain", "load", "save", "to_plain"]
