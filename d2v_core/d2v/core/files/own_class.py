"""Folders of this package's own class of Hugging Face (`d2v.hugging_face`): reading and writing need no transformers.

Their `config.json` has the values of a model folder's under a key of its own, since the transformers package adds
fields beside it. The tensors of the encoder have a prefix.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from d2v.core.description import Description
from d2v.core.files.description import FORMAT, description_from_plain, description_to_plain
from d2v.core.files.kinds import ConfigError
from d2v.core.foreign.sources import CONFIG, read_json

MODEL_TYPE, CLASS = "d2v", "D2VModel"
KEY = "d2v"
"""Field of the configuration with the values of a model folder's `config.json`."""
PREFIX = "encoder."
"""Of the names of all tensors."""


def is_own_class(folder: Path) -> bool:
    """Whether a folder holds a model of the class."""
    try:
        values = read_json(folder / CONFIG)
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and values.get("model_type") == MODEL_TYPE


def own_config(description: Description) -> dict[str, Any]:
    """Values of the configuration of an encoder."""
    files = {"files": sorted(description.all_files())} if description.all_files() else {}
    return {
        "model_type": MODEL_TYPE,
        "architectures": [CLASS],
        KEY: {"format": FORMAT, **description_to_plain(description), **files},
    }


def encoder_description(values: Mapping[str, Any]) -> Description:
    """The description of the encoder from the values under the key, without its files.

    Raises:
        ConfigError: if a key is unknown, missing or of a wrong type, or a later version wrote them.
    """
    written = values.get("format")
    if not isinstance(written, int) or written > FORMAT:
        raise ConfigError(f"the encoder has format {written!r}; this version reads up to {FORMAT}: update d2v")
    try:
        return description_from_plain({name: one for name, one in values.items() if name not in ("format", "files")})
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"the configuration describes no encoder: {error}") from error
