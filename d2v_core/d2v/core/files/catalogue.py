"""Published models by name, as the modalities' packages list them: what they are, and where they are downloaded."""

import re
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Literal

import attrs
from attrs import field, frozen

from d2v.core.files.structure import from_plain
from d2v.core.modality import modalities
from d2v.core.registry import PluginError, UnknownNameError
from d2v.core.suggestions import nearest

_FILE, _TABLE = "catalogue.toml", "models"


def _check_name(model: "PublishedModel", attribute: "attrs.Attribute[str]", value: str) -> None:
    # The name is a path below the cache folder.
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)+", value):
        raise ValueError(f"{value!r} is not a name of the form OWNER/NAME")


def _check_address(model: "PublishedModel", attribute: "attrs.Attribute[str]", value: str) -> None:
    if not value.startswith(("http://", "https://")) or value.endswith("/"):
        raise ValueError(f"{value!r} is not an address that starts with http:// or https:// and ends with a name")


@frozen(kw_only=True)
class PublishedModel:
    """A model that others publish.

    Args:
        name: by which it is loaded, `OWNER/NAME`.
        modality: of its input.
        size: of the network, in the publication's words.
        data: that it was pretrained on.
        fine_tuning: data or task that it was fine-tuned for; none = it is only pretrained.
        licence: of its weights.
        address: of the file; of a Hugging Face model the address below which its files are.
        form: file = one checkpoint file; hugging-face = the files of a Hugging Face model.
        pretrained: name of the model that it was fine-tuned from, for a file that lacks the configuration of its
            encoder.

    Raises:
        ValueError: if the name or the address has another form.

    >>> published_models()["data2vec2/base_libri"].licence
    'MIT'
    """

    name: str = field(validator=_check_name)
    modality: str
    size: str
    data: str
    fine_tuning: str = "none"
    licence: str
    address: str = field(validator=_check_address)
    form: Literal["file", "hugging-face"] = "file"
    pretrained: str | None = None


def published_models() -> Mapping[str, PublishedModel]:
    """All published models by name, in the order of the modalities and of their files.

    A modality whose package cannot be imported is left out.

    Raises:
        PluginError: if the file of a modality is broken, or two of them have a model of the same name.

    >>> [name for name in published_models() if name.startswith("facebook/data2vec-text")]
    ['facebook/data2vec-text-base']
    """
    broken = modalities.broken()
    found: dict[str, PublishedModel] = {}
    for modality in modalities.names():
        package = None if modality in broken else modalities.load(modality).catalogue
        for model in () if package is None else _read(modality, package):
            if model.name in found:
                owners = f"{found[model.name].modality} and {modality}"
                raise PluginError(f"the published model {model.name!r} is listed by {owners}: rename one of them")
            found[model.name] = model
    return found


def published_model(name: str) -> PublishedModel:
    """The published model of this name.

    Raises:
        UnknownNameError: if there is none; with the nearest name.
        PluginError: as `published_models`.

    >>> published_model("data2vec2/base-libri")
    Traceback (most recent call last):
    d2v.core.registry.UnknownNameError: no published model is called 'data2vec2/base-libri' (`d2v models` lists them);
    did you mean 'data2vec2/base_libri'?
    """
    known = published_models()
    if name not in known:
        hint = nearest(name, known)
        raise UnknownNameError(f"no published model is called {name!r} (`d2v models` lists them){hint}")
    return known[name]


def _read(modality: str, package: str) -> list[PublishedModel]:
    try:
        values: dict[str, Any] = tomllib.loads(files(package).joinpath(_FILE).read_text(encoding="utf-8"))
        return [from_plain({"modality": modality, **model}, PublishedModel) for model in values[_TABLE]]
    except (OSError, ImportError, ValueError, KeyError, TypeError) as error:  # ValueError: not UTF-8, TOML or a model
        reason = f"it has no [[{_TABLE}]]" if isinstance(error, KeyError) else str(error)
        raise PluginError(f"{_FILE} of {package} (modality {modality!r}) cannot be read: {reason}") from error
