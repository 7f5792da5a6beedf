"""The call behind `d2v plot`: learning curves of runs, and masks and features of the first run on real samples."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from attrs import frozen
from attrs.validators import ge
from einops import rearrange
from torch import Tensor

from d2v.core.data import Batches, DataConfig, DataError
from d2v.core.data.batches import known_length
from d2v.core.files import Stored
from d2v.core.files.atomic import write_bytes, write_text
from d2v.core.jobs.models import encoder_of, match_input, settings_of
from d2v.core.jobs.opening import say_contents
from d2v.core.modality import modalities
from d2v.core.model import Batch, Data2Vec
from d2v.core.plots import learning_curves, mask_grid, pca_grid, require_plotting, svg
from d2v.core.plots.arrays import plane
from d2v.core.plots.output import pixels
from d2v.core.probes import collect_features
from d2v.core.recipes.recipe import Weights
from d2v.core.recipes.yaml_text import read_yaml
from d2v.core.validators import check

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_VIEWS = 4  # masked views of a sample to draw
StrPath = str | os.PathLike[str]


@frozen(kw_only=True)
class Plotted:
    """Output files of `plot`.

    Args:
        files: files written.
        notes: which plots were left out, and why, one line each.
    """

    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


@frozen(kw_only=True)
class _Settings:
    model: str
    data: DataConfig


@frozen
class _Plot:
    figure: "Figure"
    label: str


def plot(
    runs: Sequence[StrPath], *, out: StrPath | None = None, data: str | None = None, images: int = 8, seed: int = 0
) -> Plotted:
    """Draw learning curves, masks and features of runs.

    `curves` shows all runs, `masks` and `features` the first one, each as `.svg` and `.png`. Curves are the metrics in
    `metrics.jsonl`. Masks are those of the first update, by the run's own masker, on samples of the test split.
    Features are the mean of all blocks at each patch, once of the trained and once of the untrained network. Of a
    pretrained run they are the teacher's, since the teacher computes the targets of pretraining; of a fine-tuned run,
    which has no teacher, the student's.

    Args:
        runs: run folders, of any recipes.
        out: folder of the files, created if missing; None = `plots` in the first run.
        data: path of the samples; None = the data of the first run.
        images: number of samples.
        seed: of the choice of samples and of the untrained network's weights.

    Raises:
        MissingExtraError: if the extra `plot`, or that of the modality, is not installed.
        FileNotFoundError: if a folder is not a run.
        ValueError: if no run is given, a run has no metrics yet, or a number is out of its range.
        DataError: if the data cannot be used.
        OSError: if `out` cannot be written.

    >>> plot(["run"]).files  # doctest: +SKIP
    (PosixPath('run/plots/curves.svg'), ...)
    >>> plot([])
    Traceback (most recent call last):
    ValueError: give at least one run
    """
    folders = list(dict.fromkeys(map(Path, runs)))
    if not folders:
        raise ValueError("give at least one run")
    check(ge(1), images=images)
    check(ge(0), seed=seed)
    require_plotting()
    lines = dict(zip(_names(folders), map(read_metrics, folders), strict=True))
    target = folders[0] / "plots" if out is None else Path(out)
    _make(target)
    drawn = {"curves": _Plot(learning_curves(lines), f"Learning curves of {', '.join(lines)}.")}
    grids, notes = _grids(folders[0], data, images, seed)
    files = []
    for name, one in (drawn | grids).items():
        files += [target / f"{name}.svg", target / f"{name}.png"]
        write_text(files[-2], svg(one.figure, label=one.label, standalone=True))
        write_bytes(files[-1], pixels(one.figure))
    return Plotted(files=tuple(files), notes=tuple(notes))


def _names(folders: Sequence[Path]) -> list[str]:
    """Names of the runs: their folders' names, or whole paths where two folders have the same name."""
    short = [folder.resolve().name for folder in folders]
    return [name if short.count(name) == 1 else str(folder) for name, folder in zip(short, folders, strict=True)]


def read_metrics(run: Path) -> list[Mapping[str, float]]:
    """Lines of a run's `metrics.jsonl` so far, as numbers by name.

    Raises:
        FileNotFoundError: if the folder is not a run.
        ValueError: if there is no line yet.
    """
    if not (run / "config.yaml").is_file():
        why = "it has no config.yaml" if run.is_dir() else "the folder does not exist"
        raise FileNotFoundError(f"{run} is not a run: {why}; give a folder written by pretrain or finetune")
    path = run / "metrics.jsonl"
    lines: list[Mapping[str, float]] = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            values = dict(json.loads(line))
        except (json.JSONDecodeError, TypeError, ValueError):
            break  # the run is writing this line
        lines.append({name: value for name, value in values.items() if isinstance(value, int | float)})
    if not lines:
        raise ValueError(f"{run} has no metrics yet: the first come after train.log_every updates; wait for them")
    return lines


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise FileExistsError(f"{folder} is a file; out must be a folder") from error
    except OSError as error:
        raise OSError(f"{folder} cannot be written: {error.strerror}; choose another out") from error


def _grids(run: Path, data: str | None, images: int, seed: int) -> tuple[dict[str, _Plot], list[str]]:
    path = _data_path(run) if data is None else data
    try:
        settings, stored = settings_of(_Settings, {"model": str(run), "data.path": path})
    except FileNotFoundError:
        return {}, [f"{run} has no checkpoint yet, so there are no masks and features"]
    modality = modalities.load(stored.description.modality)
    if modality.images is None:
        return {}, [f"samples of {modality.name} have no images, so there are no masks and features"]
    try:
        say_contents(settings.data)
        split = settings.data.splits()
        loader = settings.data.build(split.test or split.train, batch_size=1)
    except DataError as error:
        raise DataError(f"{error}; if the data were moved, give their new path as data (--data)") from error
    batch = drawn_samples(loader, images, seed)
    inputs, notes = modality.images(batch, settings.data), []
    found = {}
    if isinstance(stored.module, Data2Vec):
        hidden = _hidden(stored.module, batch)
        label = f"{batch.size} samples, and below each {hidden.shape[1]} views of it with hidden patches."
        found["masks"] = _Plot(mask_grid(inputs, hidden), label)
    else:
        notes.append(f"{run} is fine-tuned, so there are no masks")
    label = (
        f"{batch.size} samples, and below each its patch features as colours, by the trained and the untrained network."
    )
    found["features"] = _Plot(pca_grid(inputs, _features(stored, settings.data, batch, seed)), label)
    return found, notes


def _data_path(run: Path) -> str:
    file = run / "config.yaml"
    values: Any = read_yaml(file.read_text(errors="replace"), name=str(file))
    try:
        return str(values["data"]["path"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file} names no data.path; give data (--data)") from error


def drawn_samples(loader: Batches, n: int, seed: int) -> Batch:
    """A batch of n samples from random positions (sorted files are often of one class); of a stream, the first n."""
    batches: dict[Any, Batch] = {}
    for place, batch in _drawn_places(loader, n, seed):
        batches[place if batch.ids is None else int(batch.ids)] = batch
    if not batches:
        raise DataError(f"no sample can be read; {loader.report()}")
    ids = [batch.ids for batch in batches.values() if batch.ids is not None]
    return Batch(
        source=torch.cat([batch.source for batch in batches.values()]),
        ids=torch.cat(ids) if len(ids) == len(batches) else None,
        modality=next(iter(batches.values())).modality,
    )


def _drawn_places(loader: Batches, n: int, seed: int) -> Iterator[tuple[int, Batch]]:
    length = known_length(loader)
    if length is None:
        yield from enumerate(islice(loader, n))
        return
    picked = torch.randperm(length, generator=torch.Generator().manual_seed(seed))[:n]
    for place in picked.sort().values.tolist():
        loader.load_state_dict({"epoch": 0, "batch": place})
        # If a sample is broken, the loader gives the next one, which may be picked as well, or none.
        batch = next(iter(loader), None)
        if batch is not None:
            yield place, batch


@torch.no_grad()
def _hidden(model: Data2Vec, batch: Batch) -> Tensor:
    """Hidden patches, Bool `b m gh gw`, of some views."""
    local = model.front(batch)
    mask = model.mask(batch, local, update=0)
    height, _ = plane(tuple(batch.source.shape[1:] if local is None else local.grid))
    return rearrange(mask.hidden, "(b m) (gh gw) -> b m gh gw", m=mask.num_masks, gh=height)[:, :_VIEWS]


def _features(stored: Stored, data: DataConfig, batch: Batch, seed: int) -> dict[str, Tensor]:
    """Features `b gh gw d` of the trained and of the untrained network, by name."""
    module, modality = stored.module, stored.description.modality
    weights: Weights = "teacher" if isinstance(module, Data2Vec) else "student"
    rows: dict[str, Weights] = {"trained": weights, "untrained": "untrained"}
    features = {}
    for name, chosen in rows.items():
        encoder, _ = encoder_of(stored, chosen, seed=seed)
        match_input(data, encoder, modality)
        found = collect_features(encoder, [batch], poolings=["tokens"], depth=stored.description.student.depth)
        height, _ = plane(found.grid or ())
        features[name] = rearrange(found.values["all"]["tokens"], "b (gh gw) d -> b gh gw d", gh=height)
    return features
