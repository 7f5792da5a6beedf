"""The call behind `d2v predict`, and its rows as text: CSV, JSON lines, and GLUE's submissions."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import torch

from d2v.core.files import ConfigError
from d2v.core.files.atomic import write_text
from d2v.core.finite import check_answers
from d2v.core.jobs.fine_tuned import UseSettings, check_ending, labels_of, opened, prepared
from d2v.core.jobs.kernels import InferenceKernels
from d2v.core.jobs.keywords import UseKeys
from d2v.core.jobs.opening import say_contents
from d2v.core.jobs.running import with_progress
from d2v.core.precision import autocast, decided
from d2v.core.recipes.keywords import with_keywords


@torch.no_grad()
def predict(
    overrides: Mapping[str, Any] | None = None, *, progress: bool = True, **keys: Unpack[UseKeys]
) -> list[dict[str, Any]]:
    """Predict each sample with a fine-tuned model, in the order of the data.

    Args:
        overrides: settings by dotted key, as on the command line (see `UseSettings`).
        progress: whether to show progress on standard error.
        keys: settings as keywords; `model` and `data` are required.

    Returns:
        A mapping for each sample: the file, and the fields that the task predicts.

    Raises:
        ConfigError: if a key is unknown, missing or of a wrong type, a task's option is built in, or the model is not
            fine-tuned.
        FileNotFoundError: if there is no model at `model`.
        DataError: if the data cannot be used.
        ValueError: if weights or predictions are not finite.

    >>> for row in predict(model="classifier", data="photos"):  # doctest: +SKIP
    ...     print(row["file"], row["class"], row["probability"])
    >>> predict(data="photos")
    Traceback (most recent call last):
    d2v.core.files.kinds.ConfigError: missing key 'model': give a run, a file or a name from `d2v models`
    """
    settings, stored = opened(with_keywords(UseSettings, overrides, keys))
    check_ending(settings.out, *_ENDINGS)
    if settings.out is not None and settings.out.endswith(".tsv") and len(settings.split or ()) > 1:
        raise ConfigError(f"out={settings.out!r} numbers the samples of one split; give one split")
    labels = labels_of(stored)
    say_contents(settings.data)
    loaders = [settings.data.build(split, batch_size=settings.batch_size) for split in settings.split or (None,)]
    device = prepared(settings, stored)
    rows: list[tuple[int, dict[str, Any]]] = []
    precision = decided(settings.precision, device)
    with InferenceKernels(settings.kernels).of(stored.module, precision), autocast(precision, device):
        for loader in loaders:
            found: list[tuple[int, dict[str, Any]]] = []
            for batch in with_progress(loader, progress):
                assert batch.ids is not None  # the loader gives them
                ids = batch.ids.tolist()
                names = [loader.name(id) for id in ids]
                answers = settings.task.predict(stored.module, batch.to(device), labels=labels)
                check_answers(answers, names)
                named = zip(ids, names, answers, strict=True)
                found += [(id, {"file": name, **answer}) for id, name, answer in named]
            # Batches may have samples of similar length, in another order than the data.
            rows += sorted(found, key=lambda one: one[0])
    if settings.out is not None:
        write_text(Path(settings.out), _ENDINGS[Path(settings.out).suffix](rows))
    return [row for _, row in rows]


def as_csv(rows: list[dict[str, Any]]) -> str:
    """Rows as a table with a header; lists and mappings are written as JSON.

    >>> print(as_csv([{"file": "a.png", "class": "cat"}]), end="")
    file,class
    a.png,cat
    >>> print(as_csv([{"file": "a.wav", "classes": ["speech"]}]), end="")
    file,classes
    a.wav,"[""speech""]"
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]) if rows else ["file"], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {key: json.dumps(value) if isinstance(value, list | dict) else value for key, value in row.items()}
        )
    return stream.getvalue()


def as_json_lines(rows: list[dict[str, Any]]) -> str:
    """Rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def as_submission(rows: Sequence[tuple[int, Mapping[str, Any]]]) -> str:
    """The number of each sample in its split and the first field that is predicted, as the server of GLUE takes them.

    >>> print(as_submission([(0, {"file": "test.tsv:2", "class": "entailment", "probability": 0.9})]), end="")
    index	prediction
    0	entailment
    """
    lines = [f"{id}\t{next(value for name, value in row.items() if name != 'file')}" for id, row in rows]
    return "".join(f"{line}\n" for line in ["index\tprediction", *lines])


def _without_numbers(
    write: Callable[[list[dict[str, Any]]], str],
) -> Callable[[Sequence[tuple[int, dict[str, Any]]]], str]:
    return lambda rows: write([row for _, row in rows])


_ENDINGS: Mapping[str, Callable[[Sequence[tuple[int, dict[str, Any]]]], str]] = {
    ".csv": _without_numbers(as_csv),
    ".jsonl": _without_numbers(as_json_lines),
    ".tsv": as_submission,
}
