"""YAML 1.2 values in place of PyYAML's 1.1: 1e-3 is a number, and yes, no, on, off and 12:30 are text."""

import re
from typing import Any

import yaml

from d2v.core.files import ConfigError


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way; filled below


_NUMBERS = "-+.0123456789"
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|)$"), ["~", "n", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list(_NUMBERS))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$"),
    list(_NUMBERS),
)


def read_yaml(text: str, *, name: str, texts: bool = False) -> Any:
    """Parse a text to plain values; no tag in it can create an object.

    Args:
        text: YAML.
        name: name of the text, for messages.
        texts: whether to keep every value as text.

    Raises:
        ConfigError: if it is not YAML.

    >>> read_yaml("{lr: 1e-3, decay: off, warmup: 0.1, betas: [.9, 0.95]}", name="it")
    {'lr': 0.001, 'decay': 'off', 'warmup': 0.1, 'betas': [0.9, 0.95]}
    """
    try:
        return yaml.load(text, yaml.BaseLoader if texts else _Loader)  # both are safe
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is not YAML: {' '.join(str(error).split())}") from error


def yaml_scalar(value: Any) -> str:
    """One value on one line, which `read_yaml` reads back.

    >>> yaml_scalar(1e-8), yaml_scalar(None), yaml_scalar([0.9, 0.95]), yaml_scalar("true"), yaml_scalar("1e-3")
    ('1e-08', 'null', '[0.9, 0.95]', "'true'", '"1e-3"')
    """
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(yaml_scalar, value))}]"
    text = _dumped(value, default_flow_style=True, allow_unicode=True)
    # PyYAML quotes text that YAML 1.1 would misread. Quote text that only YAML 1.2 reads as a number here.
    return text if read_yaml(text, name=text) == value else _dumped(value, default_style='"')


def _dumped(value: Any, **style: Any) -> str:
    text: str = yaml.safe_dump(value, width=10**9, **style)
    return text.removesuffix("\n").removesuffix("\n...")
