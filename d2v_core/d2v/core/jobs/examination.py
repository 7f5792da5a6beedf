"""Check a stored model: what it is, whether every tensor has its place, and features of a made-up input."""

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from d2v.core.description import Description
from d2v.core.files import Stored, open_model, to_plain
from d2v.core.files.inspection import Inspected, inspect_model
from d2v.core.jobs.conversion import what_it_is
from d2v.core.jobs.doctor_report import DoctorReport
from d2v.core.jobs.ready import ReadyModel
from d2v.core.modality import modalities
from d2v.core.model import BackboneConfig, Batch, Data2Vec, TransformerConfig
from d2v.core.monitor import effective_rank
from d2v.core.recipes.recipe import Weights
from d2v.core.state_dict import complaint

_SHOWN = 4
_SMALLEST_SPREAD = 1e-4  # of tokens around their mean, relative to their length


def examine(source: str | os.PathLike[str], pretrained: str | os.PathLike[str] | None = None) -> Iterator[DoctorReport]:
    """Parts of a report on a model, as soon as they are known.

    Args:
        source: as for `load`.
        pretrained: as for `load`.

    Yields:
        Facts and checks: `file` (it is read), `tensors` (each has a place), `weights` (they are finite), and for
        student and teacher `student features` and `teacher features`. After a failure, what depends on it is left out.

    Raises:
        FileNotFoundError: if there is no model at `source`.
        DownloadError: as `load`.
    """
    try:
        found = inspect_model(source, pretrained=pretrained)
    except ValueError as error:
        yield _outcome("file", error)
        return
    yield DoctorReport(facts=_facts(found), checks={"file": None})
    yield DoctorReport(facts={}, checks={"tensors": complaint(found.problems) or None})
    if any(found.problems.values()):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they were given above
            stored = open_model(source, pretrained=pretrained)
    except ValueError as error:
        yield _outcome("weights", error)
        return
    yield DoctorReport(facts={"parameters": _parameters(stored.module)}, checks={"weights": None})
    yield from _features(stored)


def _facts(found: Inspected) -> dict[str, str]:
    described, names = found.description, found.ignored
    facts = {"model": str(found.path), "format": found.format, "modality": described.modality}
    facts |= {"kind": what_it_is(described), **_architecture(described)}
    facts["precision"] = ", ".join(f"{name} ({count} tensors)" for name, count in found.precision.items())
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        facts["not needed"] = f"{len(names)} tensors: {', '.join(names[:_SHOWN])}{more}"
    return facts


def _architecture(description: Description) -> dict[str, str]:
    student = description.student
    if not isinstance(student, BackboneConfig):
        return {"architecture": type(student).__name__}
    encoder = student.encoder
    shape = type(encoder).__name__
    if isinstance(encoder, TransformerConfig):
        block = encoder.block
        shape = f"{encoder.depth} blocks of width {block.embed_dim} with {block.num_heads} heads"
    return {"architecture": shape} | {
        f"{name} input": ", ".join(f"{key}={value}" for key, value in _set_values(adapter).items())
        for name, adapter in student.adapters.items()
    }


def _set_values(config: Any) -> Mapping[str, Any]:
    """Plain values of a configuration that are not defaults."""
    plain = to_plain(config)
    usual = {one.name: one.default for one in attrs.fields(type(config)) if not isinstance(one.default, attrs.Factory)}  # type: ignore[arg-type]
    return {
        key: value
        for key, value in plain.items()
        if value is not None and not isinstance(value, Mapping) and to_plain(usual.get(key, attrs.NOTHING)) != value
    }


def _parameters(module: nn.Module) -> str:
    total = sum(parameter.numel() for parameter in module.parameters())
    if not isinstance(module, Data2Vec):
        return f"{total:,}"
    parts = {"student": module.student, "teacher": module.teacher.module}
    counts = [f"{name} {sum(p.numel() for p in part.parameters()):,}" for name, part in parts.items()]
    return f"{total:,}: {', '.join(counts)}, the rest are predictors"


def _features(stored: Stored) -> Iterator[DoctorReport]:
    batch = _example(stored.description)
    if batch is None:
        yield DoctorReport(facts={"features": "not measured: the modality has no example"}, checks={})
        return
    model = ReadyModel(stored)
    every: tuple[Weights, ...] = ("student", "teacher") if isinstance(stored.module, Data2Vec) else ("student",)
    for weights in every:
        name = f"{weights} features"
        try:
            x = model.features(batch, weights=weights).x
        except ValueError as error:
            yield _outcome(name, error)
            continue
        yield DoctorReport(facts={weights: _statistics(x)}, checks={name: _sameness(x)})


def _example(description: Description) -> Batch | None:
    student, name = description.student, description.modality
    make = modalities.load(name).example if name in modalities.names() else None
    if make is None or not isinstance(student, BackboneConfig):
        return None
    return replace(make(student.adapters[name]), modality=name)


def _statistics(x: Tensor) -> str:
    """Numbers on features `b t d`, the tokens of a few samples."""
    rows, tokens = x.flatten(0, 1), F.normalize(x, dim=-1)
    count = x.shape[1]
    cosine = (
        (tokens @ tokens.mT).sum((1, 2)).sub(count).div(count * (count - 1)).mean() if count > 1 else torch.tensor(1.0)
    )
    most = min(len(rows) - 1, x.shape[2])
    return (
        f"mean {rows.mean():.3f}, standard deviation {rows.std():.3f}, effective rank {effective_rank(rows):.1f} of at "
        f"most {most}, cosine of two tokens {cosine:.3f}"
    )


def _sameness(x: Tensor) -> str | None:
    """The complaint that all tokens have the same features; None if they differ."""
    rows = x.flatten(0, 1)
    spread = (rows - rows.mean(0)).norm(dim=1).mean() / rows.norm(dim=1).mean().clamp(min=1e-12)
    return "all tokens have the same features: the model has collapsed" if spread < _SMALLEST_SPREAD else None


def _outcome(name: str, error: Exception) -> DoctorReport:
    return DoctorReport(facts={}, checks={name: " ".join(str(error).split())})
