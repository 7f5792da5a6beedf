"""Files of this package: model folders, and configurations as plain values."""

from d2v.core.files.catalogue import PublishedModel, published_models
from d2v.core.files.description import description_from_plain, description_to_plain
from d2v.core.files.folder import Stored, open_model, save
from d2v.core.files.kinds import ConfigError, add_kind
from d2v.core.files.structure import from_plain, to_plain

__all__ = [
    "ConfigError",
    "PublishedModel",
    "Stored",
    "add_kind",
    "description_from_plain",
    "description_to_plain",
    "from_plain",
    "open_model",
    "published_models",
    "save",
    "to_plain",
]
