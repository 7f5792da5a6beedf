"""The model card: what a model folder tells about its model, and what it does not know, as `README.md`.

Everything in it is from `config.json` beside it; nothing is guessed.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from d2v.core.version import __version__

CARD = "README.md"
_MOST, _LONGEST = 10, 80
_UNKNOWN = "unknown"


def model_card(tensors: Mapping[str, Tensor], description: Mapping[str, Any], use: Sequence[str] = ()) -> str:
    """The text of a card.

    Args:
        tensors: parameters and buffers of the model, by their names without wrappers.
        description: its description as plain values.
        use: lines of Python that load it from "FOLDER"; () = `load`.

    >>> import torch
    >>> text = model_card({"weight": torch.zeros(3, 2), "bias": torch.zeros(3)}, {"model": {"kind": "odour/nose"}})
    >>> [line for line in text.splitlines() if "parameters" in line]
    ['- parameters and buffers: 9']
    """
    model = _below(description, "model")
    student = _below(model, "student") or model
    sections = {
        "Architecture": _architecture(tensors, student),
        "Task": _task(description),
        "Training": _training(model, description),
        "Data": _data(description),
        "Metrics": ["`metrics.json`, if a run wrote this folder; else " + _UNKNOWN],
        "Licence": [_UNKNOWN + ": whoever passes the model on must state it"],
    }
    kind = "fine-tuned" if description.get("task") else "pretrained" if "student" in model else "encoder"
    inputs = ", ".join(_shown(name) for name in _below(student, "adapters")) or _UNKNOWN
    lines = ["---", "library_name: d2v", "tags: [data2vec]", "---", f"# data2vec model ({kind}), input: {inputs}"]
    for title, items in sections.items():
        lines += ["", f"## {title}", "", *(f"- {item}" for item in items)]
    call = "predict(items)" if description.get("task") else "features(items)"
    use = use or ("import d2v.core", "", 'model = d2v.core.load("FOLDER")', f"answers = model.{call}")
    lines += ["", "## Use", "", "FOLDER is the folder of this file.", "", "```python", *use, "```"]
    lines += ["", f"Written by d2v {__version__}. `config.json` has all settings."]
    return "\n".join(lines) + "\n"


def _architecture(tensors: Mapping[str, Tensor], student: Mapping[str, Any]) -> Iterator[str]:
    encoder = _below(student, "encoder")
    block = _below(encoder, "block")
    yield f"encoder: {_fields(encoder, 'kind', 'depth')}; block: {_fields(block, 'embed_dim', 'num_heads', 'norm')}"
    for name in _below(student, "adapters"):
        yield f"adapter of {_shown(name)}: {_fields(_below(student, 'adapters', name))}"
    counts: dict[str, int] = {}
    for name, one in tensors.items():
        part = name.partition(".")[0]
        counts[part] = counts.get(part, 0) + one.numel()
    parts = ", ".join(
        f"{part} {count:,}" for part, count in counts.items() if part in ("student", "teacher", "encoder")
    )
    yield f"parameters and buffers: {sum(counts.values()):,}{f' ({parts})' if 'student' in counts else ''}"


def _task(description: Mapping[str, Any]) -> Iterator[str]:
    task, labels = _below(description, "task"), _below(description, "labels")
    if not task:
        yield "none: features only"
        return
    yield f"task: {_fields(task)}"
    names = labels.get("names", labels.get("symbols", ()))
    shown = ", ".join(map(_shown, names[:_MOST])) + (f" and {len(names) - _MOST} more" if len(names) > _MOST else "")
    yield f"labels: {_shown(labels.get('kind', _UNKNOWN))}{f', {len(names)}: {shown}' if names else ''}"


def _training(model: Mapping[str, Any], description: Mapping[str, Any]) -> Iterator[str]:
    if "student" in model:
        yield f"targets: {_fields(_below(model, 'targets'))}"
        yield f"teacher's decay: {_fields(_below(model, 'teacher', 'schedule'))}"
        for name in _below(model, "maskers"):
            yield f"masks of {_shown(name)}: {_fields(_below(model, 'maskers', name))}"
    yield "recipe (updates, optimiser, batches): `recipe.yaml`, if a run wrote this folder; else " + _UNKNOWN
    seen = description.get("seen", ())
    if not seen:
        yield f"samples: {_UNKNOWN}"
    for one in seen:
        count = one.get("samples")
        yield (
            f"samples: {_UNKNOWN if count is None else format(count, ',')} of split {_shown(one.get('split'))} "
            f"({_shown(one.get('how'))}, {_shown(one.get('modality'))})"
        )


def _data(description: Mapping[str, Any]) -> Iterator[str]:
    yield f"name and origin of the data: {_UNKNOWN}"
    if not _below(description, "data"):
        yield f"preparation of the input: {_UNKNOWN}"
    for name in _below(description, "data"):
        yield f"preparation of {_shown(name)}: {_fields(_below(description, 'data', name))}"


def _below(values: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """A mapping in nested values; empty where plug-ins have something else, since a card must not stop a training."""
    for key in keys:
        found = values.get(key)
        values = found if isinstance(found, Mapping) else {}
    return values


def _fields(values: Mapping[str, Any], *names: str) -> str:
    """Simple values by name, or all. Paths are of the machine that made the model, so they stay in `config.json`."""
    shown = []
    for name in names or values:
        value = values.get(name)
        path = isinstance(value, str) and name != "kind" and any(mark in value for mark in "/\\")
        if isinstance(value, str | int | float) and not path:
            shown.append(f"{_shown(name)} {_shown(value)}")
    return ", ".join(shown) or _UNKNOWN


def _shown(value: Any) -> str:
    """A value as code: text of a file must not become markup."""
    text = " ".join(str(value).replace("`", "'").split())
    return f"`{text[:_LONGEST]}{'...' if len(text) > _LONGEST else ''}`"
