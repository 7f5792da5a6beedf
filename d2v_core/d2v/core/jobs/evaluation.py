"""The call behind `d2v evaluate`."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Unpack

from attrs import field, frozen

from d2v.core.data import escaped, identity_of
from d2v.core.data.seen import said_of_seen
from d2v.core.files import Stored
from d2v.core.files.atomic import write_text
from d2v.core.jobs.fine_tuned import UseSettings, check_ending, labels_of, prepared
from d2v.core.jobs.kernels import InferenceKernels
from d2v.core.jobs.keywords import UseKeys
from d2v.core.jobs.opening import say_contents
from d2v.core.jobs.running import with_progress
from d2v.core.jobs.scoring import scored
from d2v.core.jobs.seen import part_to_report_on
from d2v.core.jobs.sweep import Sweep, Tried, opened_for_sweep, sweep_table
from d2v.core.model import Batch
from d2v.core.precision import autocast, decided
from d2v.core.recipes.keywords import with_keywords
from d2v.core.scores.scores import aligned
from d2v.core.task import Evaluation
from d2v.core.train.ranks import world


@frozen(kw_only=True)
class Evaluated:
    """Results of `evaluate`; for one split, metrics and tables have no prefix.

    Args:
        splits: evaluations by the names of the splits, in the requested order.
        notes: notes on the samples by split, for example that the model was trained on some of them.
        tried: combinations of the task's options that were compared on the first split; the evaluations are those of
            the best one.
    """

    splits: Mapping[str, Evaluation]
    notes: Mapping[str, tuple[str, ...]] = field(factory=dict)
    tried: tuple[Tried, ...] = ()

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
        """Readable text: metrics and tables, split by split; at the end tables of a sweep and of several splits."""
        parts = []
        for split, one in self.splits.items():
            shown = {name: f"{value:.4g}" for name, value in one.metrics().items()}
            shown |= {name: f"undefined: {reason}" for name, reason in one.undefined().items()}
            width = max(map(len, shown), default=0)
            lines = [f"{name:<{width}}  {value}" for name, value in shown.items()]
            title = [split] if len(self.splits) > 1 else []
            title += [f"note: {note}" for note in self.notes.get(split, ())]
            parts.append("\n".join([*title, *lines, one.tables()]))
        if self.tried:
            parts.append(f"compared on {next(iter(self.splits))}\n{sweep_table(self.tried)}")
        if len(self.splits) > 1:
            parts.append(self._summary())
        return "\n\n".join(parts)

    def _summary(self) -> str:
        """Metrics of all splits, one split a row."""
        names = list(dict.fromkeys(name for one in self.splits.values() for name in one.metrics()))
        rows = [["split", *names]]
        for split, one in self.splits.items():
            found = one.metrics()
            rows.append([split, *(f"{found[name]:.4g}" if name in found else "-" for name in names)])
        return "\n".join(aligned(rows, left=1))

    def to_plain(self) -> dict[str, Any]:
        """Plain values for JSON: `split` with its metrics, or the metrics of several below `splits`."""
        plain = {
            split: _plain(one) | ({"notes": list(self.notes[split])} if self.notes.get(split) else {})
            for split, one in self.splits.items()
        }
        tried = {"tried": [one.to_plain() for one in self.tried]} if self.tried else {}
        if len(plain) > 1:
            return {"splits": plain, **tried}
        ((split, values),) = plain.items()
        return {"split": split, **values, **tried}

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

    A number among the task's options may be a list of values, as in `task={"decoder": {"lm_weight": [1, 2, 3]}}`. All
    combinations are measured on the first split, with one pass of the model; the result is that of the best
    combination, and the other splits are measured with it alone.

    If `out` is a folder, it gets `results.json`, and a folder for each split with the text files of the metrics:
    predicted and true transcripts (`hypo.word`, `ref.word`, `hypo.units`, `ref.units`).

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
    d2v.core.files.kinds.ConfigError: missing key 'model': give a run, a file or a name from `d2v models`
    """
    settings, stored, sweep = opened_for_sweep(with_keywords(UseSettings, overrides, keys))
    check_ending(settings.out, ".json", folder=True)
    labels = labels_of(stored)
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
    shown = {split: with_progress(loader, progress and rank == 0) for split, loader in loaders.items()}
    found, tried = _measured(settings, stored, sweep, shown)
    result = Evaluated(splits=found, notes={split: tuple(said) for split, said in notes.items()}, tried=tried)
    if settings.out is not None and rank == 0:
        _write(settings, result)
    return result


def _measured(
    settings: UseSettings, stored: Stored, sweep: Sweep | None, batches: Mapping[str, Iterable[Batch]]
) -> tuple[dict[str, Evaluation], tuple[Tried, ...]]:
    """Evaluations by split, and what a sweep on the first one has tried."""
    task, device = settings.task, prepared(settings, stored)
    found: dict[str, Evaluation] = {}
    tried: tuple[Tried, ...] = ()
    precision = decided(settings.precision, device)
    with InferenceKernels(settings.kernels).of(stored.module, precision), autocast(precision, device):
        for split, loader in batches.items():
            if sweep is not None and not found:
                task, found[split], tried = sweep.run(stored, loader, device=device)
            else:
                found[split] = scored(task, stored.module, loader, labels=labels_of(stored), device=device)
    return found, tried


def _write(settings: UseSettings, result: Evaluated) -> None:
    """Write the results to a file, or with the text files of each split to a folder."""
    assert settings.out is not None
    out = Path(settings.out)
    content = {"model": settings.model, "data": settings.data.path, **result.to_plain()}
    if out.suffix != ".json":
        for split, one in result.splits.items():
            for name, text in getattr(one, "files", {}).items():  # not all evaluations have some
                write_text(out / escaped(split) / name, text)
        out = out / "results.json"
    write_text(out, json.dumps(content, indent=1) + "\n")
