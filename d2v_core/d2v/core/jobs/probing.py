"""The call behind `d2v probe`: scores of simple classifiers or recognisers on frozen features, next to baselines."""

import json
from collections.abc import Iterable, Mapping
from functools import partial, reduce
from operator import or_
from pathlib import Path
from typing import Any, Literal, Unpack

from attrs import evolve, field, frozen, validators

from d2v.core.data import DataConfig, DataError, identity_of
from d2v.core.data.seen import said_of_seen
from d2v.core.files import Stored
from d2v.core.files.atomic import write_text
from d2v.core.jobs.device import pick_device
from d2v.core.jobs.fine_tuned import check_ending
from d2v.core.jobs.gathering import whole
from d2v.core.jobs.kernels import InferenceKernels
from d2v.core.jobs.keywords import ProbeKeys
from d2v.core.jobs.labelled_splits import LabelledSplits
from d2v.core.jobs.models import encoder_of, match_input, settings_of
from d2v.core.jobs.opening import say_contents
from d2v.core.jobs.sequence_probing import probe_sequences
from d2v.core.labels import Classes, Labels, Symbols
from d2v.core.modality import Modality, modalities
from d2v.core.model import Batch, Student
from d2v.core.nn.sinks import ResultKind
from d2v.core.paths import PathText
from d2v.core.precision import FeaturePrecision, decided
from d2v.core.probes import (
    Features,
    Layers,
    NoClassTokenError,
    ProbeResults,
    Probing,
    SequenceProbing,
    collect_features,
)
from d2v.core.recipes.keywords import with_keywords
from d2v.core.recipes.recipe import Weights
from d2v.core.recipes.sections import AUTO, kernel_names
from d2v.core.train.ranks import world


@frozen(kw_only=True)
class ProbeSettings(Probing):
    """Settings of `probe`, including those of `Probing` for data with classes.

    Args:
        model: a run, a folder, a published file or a name of `d2v models`.
        weights: student, teacher, or untrained = the same network with initial weights. The student is the default, as
            in published fine-tuning; the teacher computes the targets of pretraining.
        data: labelled samples; keys that are not set default to those of the training.
        train: split to train probes on; null = training.
        val: split to choose the penalty of a linear probe on; null = validation, or a fifth of `train`.
        test: split for the reported accuracies; null = test, or held-out samples of data without splits.
        layers: blocks (from 0, or negative from the end) to average; [] = all; final = the encoder's output.
        each: measure each of these layers alone too; with layers=final, each block.
        result: a block's output (block) or feed-forward branch (ffn).
        poolings: mean of the tokens (mean), grid = means of its quarters, class-token = the class token.
        baselines: measure the raw input and the untrained network too.
        sequences: recognisers for data with transcripts.
        seed: of the untrained network and of draws.
        batch_size: samples in a batch.
        precision: of the encoder: fp32, bf16 or auto = bf16 where the device computes in it natively.
        kernels: forms of computation; see `extract`.
        device: auto = cuda, mps or cpu, the first that is available.
        threads: CPU threads for computation; null = PyTorch's default.
        out: .json file to write; null = none.
    """

    model: PathText
    weights: Weights = "student"
    data: DataConfig
    train: str | None = None
    val: str | None = None
    test: str | None = None
    layers: tuple[int, ...] | Literal["final"] = ()
    each: bool = False
    result: ResultKind = "block"
    poolings: tuple[Literal["mean", "grid", "class-token"], ...] = field(
        default=("mean", "grid"), validator=validators.min_len(1)
    )
    baselines: bool = True
    sequences: SequenceProbing = field(factory=SequenceProbing)
    batch_size: int = field(default=256, validator=validators.ge(1))
    precision: FeaturePrecision = "fp32"
    kernels: tuple[str, ...] = field(default=AUTO, converter=kernel_names)
    device: str = "auto"
    threads: int | None = field(default=None, validator=validators.optional(validators.ge(1)))
    out: PathText | None = None


def probe(
    overrides: Mapping[str, Any] | None = None, *, progress: bool = True, **keys: Unpack[ProbeKeys]
) -> ProbeResults:
    """Measure the accuracy of simple classifiers on frozen features, or the error rate of recognisers of transcripts.

    Args:
        overrides: settings by dotted key, as on the command line (see `ProbeSettings`).
        progress: whether to show progress on standard error.
        keys: settings as keywords; `model` and `data` are required.

    Returns:
        Scores of the raw input (if it is a fixed number of floats), of the untrained network and of the model, by
        features, layers, pooling and probe. `left_out` names what a small data set or the model does not allow, `notes`
        test samples that the model has seen in training.

    Raises:
        ConfigError: if a key is unknown, missing or of a wrong type.
        FileNotFoundError: if there is no model at `model`.
        DataError: if the data cannot be used or has no labels.
        ValueError: if there is only one class, a layer that the model does not have, or nothing to measure.

    >>> print(probe(model="run", data="fashion-mnist").table())  # doctest: +SKIP
    >>> probe(data="photos")
    Traceback (most recent call last):
    d2v.core.files.kinds.ConfigError: missing key 'model': give a run, a file or a name from `d2v models`
    """
    settings, stored = settings_of(ProbeSettings, with_keywords(ProbeSettings, overrides, keys))
    check_ending(settings.out, ".json")
    rows: list[Weights] = [settings.weights]
    if settings.baselines and settings.weights != "untrained":
        rows.insert(0, "untrained")
    # Open all encoders first, so that missing weights are reported before any work.
    encoders = {weights: _encoder(settings, stored, weights) for weights in rows}
    say_contents(settings.data)
    rank, workers = world()
    opened = partial(
        LabelledSplits.of,
        settings.data,
        batch_size=settings.batch_size,
        labels=_labels(settings.data),
        train=settings.train,
        val=settings.val,
        test=settings.test,
    )
    parts, progress = opened(), progress and rank == 0
    named = {"untrained" if weights == "untrained" else "pretrained": one for weights, one in encoders.items()}
    modality, depth = modalities.load(stored.description.modality), stored.description.student.depth
    if isinstance(parts.labels, Symbols):
        results = probe_sequences(
            settings.sequences,
            parts,
            named,
            layers=_layers(settings, depth),
            depth=depth,
            baselines=settings.baselines,
            data=settings.data,
            modality=modality,
            kernels=InferenceKernels(settings.kernels),
            progress=progress,
        )
    else:
        shares = opened(rank=rank, world_size=workers)
        results = _classified(settings, parts, named, progress, depth=depth, modality=modality, shares=shares)
    results = evolve(results, raw_name=modality.raw_name, notes=_notes(parts, stored))
    if settings.out is not None and rank == 0:
        content: dict[str, Any] = {"model": settings.model, "weights": settings.weights, "data": settings.data.path}
        content |= {"seed": settings.seed, "scores": results.to_plain(), "left_out": list(results.left_out)}
        content |= {"notes": list(results.notes)} if results.notes else {}
        write_text(Path(settings.out), json.dumps(content, indent=1) + "\n")
    return results


def _labels(data: DataConfig) -> Labels:
    """Classes, or else symbols; raise the error about classes if there are neither."""
    try:
        return data.labels(Classes)
    except DataError:
        try:
            return data.labels(Symbols)
        except DataError:
            pass
        raise


def _classified(
    settings: ProbeSettings,
    parts: LabelledSplits,
    encoders: Mapping[str, Student],
    progress: bool,
    *,
    depth: int,
    modality: Modality,
    shares: LabelledSplits,
) -> ProbeResults:
    """Measure the raw input of `parts`, and features that each process computes of its share of them."""
    found: list[ProbeResults] = []
    left_out: dict[str, None] = {}
    if settings.baselines:
        raw: Mapping[str, Features] | None = parts.raw(progress=progress)
        if raw is None and modality.raw_features is not None:
            raw = modality.raw_features(parts.batches, settings.data)
        if raw is not None:
            found.append(settings.measure("raw", raw))
    for name, encoder in encoders.items():
        try:
            features = _features(settings, encoder, shares, progress, depth=depth)
        except NoClassTokenError as error:
            others = tuple(pooling for pooling in settings.poolings if pooling != "class-token")
            if not others:
                raise
            settings, left_out[f"class-token: {error}"] = evolve(settings, poolings=others), None
            features = _features(settings, encoder, shares, progress, depth=depth)
        found.append(settings.measure(name, features))
    results = reduce(or_, found)
    return evolve(results, left_out=(*left_out, *results.left_out))


def _encoder(settings: ProbeSettings, stored: Stored, weights: Weights) -> Student:
    encoder, _ = encoder_of(stored, weights, seed=settings.seed)
    match_input(settings.data, encoder, stored.description.modality)
    return encoder.to(pick_device(settings.device))


def _layers(settings: ProbeSettings, depth: int) -> dict[str, Layers]:
    given: Layers = settings.layers or "all"
    chosen: dict[str, Layers] = {}
    if settings.each:
        alone = range(depth) if isinstance(given, str) else settings.layers
        chosen = {str(layer): (int(layer),) for layer in alone}
    chosen[given if isinstance(given, str) else ",".join(map(str, settings.layers))] = given
    return chosen


def _notes(parts: LabelledSplits, stored: Stored) -> tuple[str, ...]:
    """Notes on test samples that the model has seen; none if the probes hold out a part of the training samples."""
    identity = identity_of(parts.batches.get("test"))
    return () if identity is None else tuple(said_of_seen(identity, parts.names["test"], stored.description.seen))


def _features(
    settings: ProbeSettings, encoder: Student, shares: LabelledSplits, progress: bool, *, depth: int
) -> dict[str, Features]:
    chosen, kernels = _layers(settings, depth), InferenceKernels(settings.kernels)
    precision = decided(settings.precision, next(encoder.parameters()).device)

    def collect(batches: Iterable[Batch]) -> Features:
        with kernels.of(encoder, precision):
            own = collect_features(
                encoder,
                batches,
                poolings=settings.poolings,
                layers=chosen,
                result=settings.result,
                depth=depth,
                precision=settings.precision,
            )
        return whole(own)

    return shares.read(collect, progress=progress)
