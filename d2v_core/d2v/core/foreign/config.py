"""Read a third-party configuration: every field is used, ignored on purpose, or reported.

An unknown field gives a warning. A field that changes the computation in an unsupported way is refused by name.
"""

import warnings
from collections.abc import Mapping
from typing import Any

from d2v.core.suggestions import nearest


class ForeignConfig:
    """A mapping that remembers which fields were read.

    Args:
        values: the third-party configuration.
        name: of the configuration for messages, such as "modalities.audio".

    >>> config = ForeignConfig({"depth": 3, "quantize": False}, "model")
    >>> config.get("depth"), config.get("heads", 12)
    (3, 12)
    >>> config.refuse_unless("quantize", False)
    >>> config.finish()
    """

    def __init__(self, values: Mapping[str, Any], name: str) -> None:
        self.values = dict(values)
        self.name = name
        self._seen = {"_name"}  # the original toolkit's tag of a section

    def __contains__(self, field: str) -> bool:
        return field in self.values

    def get(self, field: str, *default: Any) -> Any:
        """The value of a field, or the default.

        Raises:
            ValueError: if the field is missing and has no default.
        """
        self._seen.add(field)
        if field in self.values:
            return self.values[field]
        if default:
            return default[0]
        raise ValueError(f"{self.name} lacks the field {field!r}{nearest(field, self.values)}")

    def count(self, field: str, *default: int, most: int = 1000) -> int:
        """A field that counts things that are built one by one: layers, heads.

        Args:
            field: name of the field.
            default: value if the field is missing.
            most: maximum; larger values are refused before anything is built.

        Raises:
            ValueError: if it is missing and has no default, or is not an integer from 0 to `most`.
        """
        value = self.get(field, *default)
        if type(value) is not int or not 0 <= value <= most:
            raise ValueError(f"{self.name}.{field}={value!r} must be an integer from 0 to {most}")
        return value

    def section(self, field: str) -> "ForeignConfig":
        """A nested configuration."""
        value = self.get(field)
        if not isinstance(value, Mapping):
            raise ValueError(f"{self.name}.{field} must be a mapping, not {value!r}")
        return ForeignConfig(value, f"{self.name}.{field}")

    def ignore(self, *fields: str) -> None:
        """Ignore fields that do not change the computation of a model."""
        self._seen.update(fields)

    def refuse_unless(self, field: str, *allowed: Any, why: str = "d2v does not have it") -> None:
        """Refuse a field whose value changes the computation in an unsupported way; a missing field is accepted.

        Raises:
            ValueError: naming the field and its value.
        """
        value = self.get(field, allowed[0])
        if value not in allowed:
            raise ValueError(f"{self.name}.{field}={value!r} cannot be converted: {why}")

    def finish(self) -> None:
        """Warn of fields that were not read."""
        unknown = sorted(str(field) for field in self.values if field not in self._seen)
        if unknown:
            warnings.warn(f"{self.name} has fields that d2v does not know: {', '.join(unknown)}", stacklevel=2)
