"""The calls behind `d2v evaluate` and `d2v predict`."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

import attrs
import torch
from attrs import field, frozen
from attrs.validators import and_, ge, min_len, optional

from d2v.core.data import DataConfig, identity_of
from d2v.core.data.seen import said_of_seen
from d2v.core.files import ConfigError, Stored
from d2v.core.files.atomic import write_text
from d2v.core.finite import check_answers
from d2v.core.jobs.device import pick_device
from d2v.core.jobs.keywords import UseKeys
from d2v.core.jobs.models import match_input, settings_of
from d2v.core.jobs.opening import say_contents
from d2v.core.jobs.running import with_progress
from d2v.core.jobs.scoring import scored
from d2v.core.jobs.seen import part_to_report_on
from d2v.core.labels import Labels
from d2v.core.paths import PathText
from d2v.core.precision import AskedPrecision, autocast, decided
from d2v.core.recipes.keywords import with_keywords
from d2v.core.task import Evaluation, Task
from d2v.core.train.gradients import world
from d2v.core.validators import distinct


def _as_tuple(value: str | list[str] | tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Convert the typed value, one split or several, to a tuple."""
    names = (value,) if isinstance(value, str) else value
    if names is None:
        return None
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"split={value!r} must be the name of a split or a list of names")
    return tuple(names)


@frozen(kw_only=True)
class UseSettings:
    """Settings of `evaluate` and `predict`.

    Args:
        model: a run, a model folder or a published checkpoint file.
        data: samples; keys that are not set default to those of the training.
        split: split of the data, or several; None = the test split for evaluation, all files of a folder for
            predictions.
        task: the task of the fine-tuned model; options of its use may change, options built into the model may not.
        batch_size: samples in a batch.
        precision: of the forward pass: fp32, bf16, fp16 or auto = bf16 where the device computes in it natively.
        device: auto = cuda, mps or cpu, the first that is available.
        threads: CPU threads for computation; None = PyTorch's default.
        out: file to write: .json for an evaluation, .csv or .jsonl for predictions; null = none.
    """

    model: PathText
    data: DataConfig
    split: tuple[str, ...] | None = field(
        default=None, converter=_as_tuple, validator=optional(and_(min_len(1), distinct))
    )
    task: Task
    batch_size: int = field(default=64, validator=ge(1))
    precision: AskedPrecision = "fp32"
    device: str = "auto"
    threads: int | None = field(default=None, validator=optional(ge(1)))
    out: PathText | None = None


@frozen(kw_only=True)
class Evaluated:
    """Results of `evaluate`; for one split, metrics and tables have no prefix.

    Args:
        splits: evaluations by the names of the splits, in the requested order.
        notes: notes on the samples by split, for example that the model was trained on some of them.
    """

    splits: Mapping[str, Evaluation]
    notes: Mapping[str, tuple[str, ...]] = field(factory=dict)

    def metrics(self) -> dict[str, float]:
        """Metrics by name; with several splits `SPLIT.NAME`."""
        return {f"{before}{name}": value for before, one in self._named() for name, value in one.metrics().items()}

    def undefined(self) -> dict[str, str]:
        """Metrics without a value for these samples, with the reason; named as in `metrics`."""
        return {f"{before}{name}": why for before, one in self._named() for name, why in one.undefined().items()}

    def tables(self) -> str:
        """Tables that complement the metrics; with several splits, each below its name."""
        titles = len(self.splits) > 1
        parts = [f"{split}\n{one.tables()}" if titles else one.tables() for split, one in self.splits.items()]
        return "\n\n".join(parts)

    def text(self) -> str:
        """Readable text: metrics and tables, split by split."""
        parts = []
        for split, one in self.splits.items():
            lines = [f"{name:<12} {value:.4g}" for name, value in one.metrics().items()]
            lines += [f"{name:<12} undefined: {reason}" for name, reason in one.undefined().items()]
            title = [split] if len(self.splits) > 1 else []
            title += [f"note: {note}" for note in self.notes.get(split, ())]
            parts.append("\n".join([*title, *lines, one.tables()]))
        return "\n\n".join(parts)

    def to_plain(self) -> dict[str, Any]:
        """Plain values for JSON: `split` with its metrics, or the metrics of several below `splits`."""
        plain = {
            split: _plain(one) | ({"notes": list(self.notes[split])} if self.notes.get(split) else {})
            for split, one in self.splits.items()
        }
        if len(plain) > 1:
            return {"splits": plain}
        ((split, values),) = plain.items()
        return {"split": split, **values}

    def _named(self) -> list[tuple[str, Evaluation]]:
        titles = len(self.splits) > 1
        return [(f"{split}." if titles else "", one) for split, one in self.splits.items()]


def _plain(one: Evaluation) -> dict[str, Any]:
    reasons = dict(one.undefined())
    return {**one.metrics(), **({"undefined": reasons} if reasons else {})}


def evaluate(
    overrides: Mapping[str, Any] | None = None, *, progress: bool = True, **keys: Unpack[UseKeys]
) -> Evaluated:
    """Evaluate a fine-tuned model on labelled data.

    Where `torch.distributed` is initialised, each process reads its share of every split, no sample is left out or
    counted twice, and all processes return the same result; the first one writes it.

    A note in the result says how many of the samples the model was trained on, compared by their names.

    Args:
        overrides: settings by dotted key, as on the command line (see `UseSettings`).
        progress: whether to show progress on standard error.
        keys: settings as keywords; `model` and `data` are required.

    Raises:
        ConfigError: if a key is unknown, missing or of a wrong type, a task's option is built in, or the model is not
            fine-tuned.
        FileNotFoundError: if there is no model at `model`.
        DataError: if the data cannot be used, or has other labels than the model.
        ValueError: if there is nothing to evaluate, or outputs of the model are not finite.

    >>> result = evaluate(model="classifier", data="photos")  # doctest: +SKIP
    >>> result.metrics()["accuracy"]  # doctest: +SKIP
    93.5
    >>> evaluate(data="photos")
    Traceback (most recent call last):
    d2v.core.files.kinds.ConfigError: missing key 'model': give a run, a model folder or a checkpoint file
    """
    settings, stored = _opened(with_keywords(UseSettings, overrides, keys))
    check_ending(settings.out, ".json")
    labels = _labels(stored)
    say_contents(settings.data)
    wanted, notes = settings.split, dict[str, list[str]]()
    if wanted is None:
        part, said = part_to_report_on(settings.data, settings.data.splits(), stored.description)
        wanted, notes = (part,), {part: said}
    rank, world_size = world()
    # Open all splits first, so that a missing one is reported before any work.
    loaders = {
        split: settings.data.build(
            split, batch_size=settings.batch_size, rank=rank, world_size=world_size, labels=labels
        )
        for split in wanted
    }
    for split, loader in loaders.items():
        if (identity := identity_of(loader)) is not None:
            notes[split] = [*notes.get(split, []), *said_of_seen(identity, split, stored.description.seen)]
    device = _prepare(settings, stored)
    with autocast(decided(settings.precision, device), device):
        found = {
            split: scored(
                settings.task,
                stored.module,
                with_progress(loader, progress and rank == 0),
                labels=labels,
                device=device,
            )
            for split, loader in loaders.items()
        }
    result = Evaluated(splits=found, notes={split: tuple(said) for split, said in notes.items()})
    if settings.out is not None and rank == 0:
        content = {"model": settings.model, "data": settings.data.path, **result.to_plain()}
        write_text(Path(settings.out), json.dumps(content, indent=1) + "\n")
    return result


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
    d2v.core.files.kinds.ConfigError: missing key 'model': give a run, a model folder or a checkpoint file
    """
    settings, stored = _opened(with_keywords(UseSettings, overrides, keys))
    check_ending(settings.out, ".csv", ".jsonl")
    labels = _labels(stored)
    say_contents(settings.data)
    loaders = [settings.data.build(split, batch_size=settings.batch_size) for split in settings.split or (None,)]
    device = _prepare(settings, stored)
    rows = []
    with autocast(decided(settings.precision, device), device):
        for loader in loaders:
            for batch in with_progress(loader, progress):
                assert batch.ids is not None  # the loader gives them
                names = [loader.name(id) for id in batch.ids.tolist()]
                answers = settings.task.predict(stored.module, batch.to(device), labels=labels)
                check_answers(answers, names)
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
    """Rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def _opened(overrides: Mapping[str, Any]) -> tuple[UseSettings, Stored]:
    settings, stored = settings_of(UseSettings, overrides)
    built = stored.description.task
    assert built is not None  # its values are part of the settings
    check_use(settings.task, built)
    return settings, stored


def _labels(stored: Stored) -> Labels:
    assert stored.description.labels is not None  # a task has them
    return stored.description.labels


def check_use(task: Task, built: Task) -> None:
    """Refuse options of a task that differ from those that the model was built and trained with.

    Args:
        task: with the requested options.
        built: with the options of the training.

    Raises:
        ConfigError: naming the keys.
    """
    if type(task) is not type(built):
        raise ConfigError("task.kind is the task that the model was fine-tuned for and cannot change; leave it out")
    free = task.use_options
    names = [one.name for one in attrs.fields(type(task)) if one.name not in free]  # type: ignore[arg-type]  # a task is one
    for name in names:
        if getattr(task, name) != getattr(built, name):
            allowed = ", ".join(f"task.{one}" for one in sorted(free)) or "no option of this task"
            raise ConfigError(
                f"task.{name}={getattr(task, name)!r}: the model was trained with {getattr(built, name)!r}, which "
                f"cannot be changed now; {allowed} can"
            )


def _prepare(settings: UseSettings, stored: Stored) -> torch.device:
    device = pick_device(settings.device)
    module = stored.module.to(device).eval()
    match_input(settings.data, module.get_submodule("encoder"), stored.description.modality)  # type: ignore[arg-type]  # it is kept there
    return device


def check_ending(out: str | None, *endings: str) -> None:
    """Refuse a file name whose ending does not determine the format.

    Raises:
        ConfigError: naming the allowed endings.
    """
    if out is not None and not out.endswith(endings):
        raise ConfigError(f"out={out!r} must end in {' or '.join(endings)}")
