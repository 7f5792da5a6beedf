"""A description as plain values, as stored in `config.json` of a model folder."""

from collections.abc import Mapping
from typing import Any

from d2v.core.data.seen import seen_files, seen_from_plain, seen_to_plain
from d2v.core.description import Description
from d2v.core.files.kinds import ConfigError
from d2v.core.files.structure import from_plain, to_plain
from d2v.core.labels import Labels
from d2v.core.model import Data2VecConfig, StudentConfig
from d2v.core.suggestions import nearest
from d2v.core.task import Task

FORMAT = 1
_KEYS = ("model", "data", "task", "labels", "seen")


def description_to_plain(description: Description) -> dict[str, Any]:
    """Plain values, for JSON, without empty ones and without the files, which are stored next to it."""
    values = {
        "model": to_plain(description.model),
        "data": {name: dict(one) for name, one in description.data.items()},
        "task": description.task and to_plain(description.task),
        "labels": description.labels and to_plain(description.labels),
        "seen": seen_to_plain(description.seen),
    }
    return {key: value for key, value in values.items() if value}


def description_from_plain(values: Mapping[str, Any], files: Mapping[str, bytes] | None = None) -> Description:
    """A description from plain values.

    Args:
        values: as from `description_to_plain`.
        files: files of the model, by name.

    Raises:
        ConfigError: if a key is unknown, missing or of a wrong type.
    """
    for key in values:
        if key not in _KEYS:
            raise ConfigError(f"unknown key {key!r}{nearest(key, _KEYS)}")
    task, labels, given = values.get("task"), values.get("labels"), dict(files or {})
    try:
        seen = seen_from_plain(values.get("seen", ()), given)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"seen: {error}") from error
    return Description(
        # Of the two, only an encoder has a kind.
        model=_student(values["model"]) if "kind" in values["model"] else from_plain(values["model"], Data2VecConfig),
        data=values.get("data", {}),
        task=None if task is None else from_plain(task, Task),  # type: ignore[type-abstract]  # one of its forms is made
        labels=None if labels is None else from_plain(labels, Labels),  # type: ignore[type-abstract]  # as above
        files={name: content for name, content in given.items() if name not in seen_files(seen)},
        seen=seen,
    )


def _student(values: Any) -> StudentConfig:
    made: StudentConfig = from_plain(values, StudentConfig)  # type: ignore[type-abstract]  # one of its forms is made
    return made
