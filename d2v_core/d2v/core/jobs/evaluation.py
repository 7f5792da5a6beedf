"""`d2v evaluate` and `d2v predict` as one call each."""

import csv
import io
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import torch
from attrs import field, frozen, validators

from d2v.core.data import DataConfig
from d2v.core.files import ConfigError, Stored
from d2v.core.files.atomic import write_text
from d2v.core.jobs.device import pick_device
from d2v.core.jobs.models import match_input, settings_of, task_of
from d2v.core.jobs.running import shown
from d2v.core.task import Evaluation
from d2v.core.train.precision import autocast, native_precision


@frozen(kw_only=True)
class UseSettings:
    """How a fine-tuned model is used.

    Args:
        model: a run, a model folder or a published checkpoint file.
        data: samples; what is not given is as in training.
        split: part of the data; None = the one for figures, and all files of a folder for predictions.
        batch_size: samples in a batch.
        precision: of the forward pass: fp32, bf16, fp16 or auto = bf16 where the device computes in it by itself.
        device: auto = cuda, mps or cpu, the first that there is.
        out: file to write: .json for an evaluation, .csv or .jsonl for predictions; null = none.
    """

    model: str
    data: DataConfig
    split: str | None = None
    batch_size: int = field(default=64, validator=validators.ge(1))
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    device: str = "auto"
    out: str | None = None


@torch.no_grad()
def evaluate(overrides: Mapping[str, Any], *, progress: bool = True) -> Evaluation:
    """Measure a fine-tuned model on labelled data.

    Args:
        overrides: by dotted key, as on the command line (see `UseSettings`); `model` and `data.path` have to be given.
        progress: whether to show how far it is, on standard error.

    Raises:
        ConfigError: if a key is unknown, missing or of a wrong type, or the model is not fine-tuned.
        FileNotFoundError: if there is no such model.
        DataError: if the data cannot be used, has no labels, or other classes than the model.

    >>> result = evaluate({"model": "classifier", "data.path": "photos"})  # doctest: +SKIP
    >>> result.metrics()["accuracy"]  # doctest: +SKIP
    93.5
    >>> evaluate({"data.path": "photos"})
    Traceback (most recent call last):
    d2v.core.files.kinds.ConfigError: missing key 'model': give a run, a model folder or a checkpoint file
    """
    settings, stored = settings_of(UseSettings, overrides)
    check_ending(settings.out, ".json")
    task = task_of(stored)
    splits = settings.data.splits()
    split = settings.split or splits.test or splits.val or splits.train
    loader = settings.data.build(split, batch_size=settings.batch_size, classes=stored.description.classes)
    device = _prepare(settings, stored)
    batches = (batch.to(device) for batch in shown(loader, progress))
    with _autocast(settings, device):
        result = task.evaluate(stored.module, batches, classes=stored.description.classes)
    if settings.out is not None:
        content = {"model": settings.model, "data": settings.data.path, "split": split, **result.metrics()}
        write_text(Path(settings.out), json.dumps(content, indent=1) + "\n")
    return result


@torch.no_grad()
def predict(overrides: Mapping[str, Any], *, progress: bool = True) -> list[dict[str, Any]]:
    """What a fine-tuned model says of samples, one mapping each, in the order of the data.

    Args:
        overrides: by dotted key, as on the command line (see `UseSettings`); `model` and `data.path` have to be given.
        progress: whether to show how far it is, on standard error.

    Raises:
        ConfigError: if a key is unknown, missing or of a wrong type, or the model is not fine-tuned.
        FileNotFoundError: if there is no such model.
        DataError: if the data cannot be used.

    >>> for row in predict({"model": "classifier", "data.path": "photos"}):  # doctest: +SKIP
    ...     print(row["file"], row["class"], row["probability"])
    >>> predict({"data.path": "photos"})
    Traceback (most recent call last):
    d2v.core.files.kinds.ConfigError: missing key 'model': give a run, a model folder or a checkpoint file
    """
    settings, stored = settings_of(UseSettings, overrides)
    check_ending(settings.out, ".csv", ".jsonl")
    task = task_of(stored)
    loader = settings.data.build(settings.split, batch_size=settings.batch_size)
    device = _prepare(settings, stored)
    rows = []
    with _autocast(settings, device):
        for batch in shown(loader, progress):
            assert batch.ids is not None  # the loader gives them
            names = [loader.name(id) for id in batch.ids.tolist()]
            answers = task.predict(stored.module, batch.to(device), classes=stored.description.classes)
            rows += [{"file": name, **answer} for name, answer in zip(names, answers, strict=True)]
    if settings.out is not None:
        write_text(Path(settings.out), as_csv(rows) if settings.out.endswith(".csv") else as_json_lines(rows))
    return rows


def as_csv(rows: list[dict[str, Any]]) -> str:
    """Rows as a table with a header.

    >>> print(as_csv([{"file": "a.png", "class": "cat"}]), end="")
    file,class
    a.png,cat
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]) if rows else ["file"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def as_json_lines(rows: list[dict[str, Any]]) -> str:
    """Rows as one JSON object a line."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def _autocast(settings: UseSettings, device: torch.device) -> AbstractContextManager[object]:
    return autocast(native_precision(device) if settings.precision == "auto" else settings.precision, device)


def _prepare(settings: UseSettings, stored: Stored) -> torch.device:
    device = pick_device(settings.device)
    module = stored.module.to(device).eval()
    match_input(settings.data, module.get_submodule("encoder"), stored.description.modality)  # type: ignore[arg-type]  # it is kept there
    return device


def check_ending(out: str | None, *endings: str) -> None:
    """Refuse a name whose ending does not say what to write.

    Raises:
        ConfigError: that names the endings.
    """
    if out is not None and not out.endswith(endings):
        raise ConfigError(f"out={out!r} must end in {' or '.join(endings)}")
