"""`d2v probe` as one call: what frozen features are worth, with the simple baselines beside every figure."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from attrs import field, frozen, validators

from d2v.core.data import DataConfig
from d2v.core.files import Stored
from d2v.core.files.atomic import write_text
from d2v.core.jobs.device import pick_device
from d2v.core.jobs.evaluation import check_ending
from d2v.core.jobs.figures import Figure, ProbeReport
from d2v.core.jobs.models import encoder_of, match_input, settings_of
from d2v.core.jobs.running import shown
from d2v.core.labels import Classes
from d2v.core.model import Student
from d2v.core.nn.sinks import ResultKind
from d2v.core.precision import AskedPrecision, for_features
from d2v.core.probes import Features, Labelled, collect_features, few_label_probe, hold_out, knn_accuracy, linear_probe
from d2v.core.probes import raw_features as raw_features_of
from d2v.core.probes.encoding import Layers
from d2v.core.recipes.recipe import Weights

Probe = Literal["knn", "linear", "few"]


@frozen(kw_only=True)
class ProbeSettings:
    """Settings of `probe`.

    Args:
        model: a run, a model folder or a published checkpoint file.
        weights: which of its weights: student, teacher, or random = the same network untrained.
        data: labelled samples; what is not given is as in training.
        train: part that probes learn from; null = the one for training.
        val: part that the strength of a linear probe is chosen on; null = the one for it, or a fifth of `train`.
        test: part that figures are of; null = the one for them, or a fifth of `train`.
        layers: blocks (from 0, or negative from the end) whose mean is read; [] = all; final = the encoder's output.
        each: true = each of these layers alone as well; beside the final output, each block.
        result: of a block: its output (block) or its feed-forward branch (ffn).
        poolings: mean of the tokens, grid = means of its quarters, class-token = the class token.
        probes: knn = nearest neighbours, linear = all labels, few = linear with few labels.
        labels: how many the few are.
        draws: draws of the few labels.
        neighbours: k.
        baselines: whether the raw input and the untrained network are measured too.
        seed: of the untrained network, of draws and of what is held out.
        batch_size: samples in a batch.
        precision: of the encoder: fp32, bf16 or auto = bf16 where the device computes in it by itself.
        device: auto = cuda, mps or cpu, the first that there is.
        out: .json file to write; null = none.
    """

    model: str
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
    probes: tuple[Probe, ...] = field(default=("knn", "linear", "few"), validator=validators.min_len(1))
    labels: int = field(default=100, validator=validators.ge(2))
    draws: int = field(default=5, validator=validators.ge(1))
    neighbours: int = field(default=10, validator=validators.ge(1))
    baselines: bool = True
    seed: int = field(default=0, validator=validators.ge(0))
    batch_size: int = field(default=256, validator=validators.ge(1))
    precision: AskedPrecision = field(default="fp32", validator=for_features)
    device: str = "auto"
    out: str | None = None


def probe(overrides: Mapping[str, Any], *, progress: bool = True) -> ProbeReport:
    """Accuracy of simple classifiers on frozen features.

    Args:
        overrides: by dotted key, as on the command line (see `ProbeSettings`); `model` and `data.path` have to be
            given.
        progress: whether to show how far it is, on standard error.

    Raises:
        ConfigError: if a key is unknown, missing or of a wrong type.
        FileNotFoundError: if there is no such model.
        DataError: if the data cannot be used or has no labels.
        ValueError: if there is one class only, or a layer or pooling that the model does not have.

    >>> print(probe({"model": "run", "data.path": "fashion-mnist"}).table())  # doctest: +SKIP
    >>> probe({"data.path": "photos"})
    Traceback (most recent call last):
    d2v.core.files.kinds.ConfigError: missing key 'model': give a run, a model folder or a checkpoint file
    """
    settings, stored = settings_of(ProbeSettings, overrides)
    check_ending(settings.out, ".json")
    rows: list[Weights] = [settings.weights]
    if settings.baselines and settings.weights != "random":
        rows.insert(0, "random")
    # Before anything is measured: what the model does not have is told at once.
    encoders = {weights: _encoder(settings, stored, weights) for weights in rows}
    parts = _Parts(settings)
    figures: list[Figure] = []
    if settings.baselines:
        raw = {name: raw_features_of(shown(part, progress)) for name, part in parts.loaders.items()}
        if all(found is not None for found in raw.values()):
            figures += parts.measure("input", {n: f for n, f in raw.items() if f is not None}, "input", "raw")
    for weights, encoder in encoders.items():
        features = _features(settings, encoder, parts, progress, depth=stored.description.student.depth)
        label = "random_init" if weights == "random" else "pretrained"
        for layers in next(iter(features.values())).values:
            for pooling in settings.poolings:
                figures += parts.measure(label, features, layers, pooling)
    report = ProbeReport(
        figures=tuple(figures),
        neighbours=settings.neighbours,
        labels=settings.labels,
        num_train=parts.sizes["train"],
        num_test=parts.sizes["test"],
    )
    if settings.out is not None:
        content: dict[str, Any] = {"model": settings.model, "weights": settings.weights, "data": settings.data.path}
        content |= {"seed": settings.seed, "figures": report.to_plain()}
        write_text(Path(settings.out), json.dumps(content, indent=1) + "\n")
    return report


class _Parts:
    """The parts of the data set, and the probes on their features."""

    def __init__(self, settings: ProbeSettings) -> None:
        self.settings = settings
        self.sizes: dict[str, int] = {}
        data, known = settings.data, settings.data.splits()
        labels = data.labels(Classes)
        names = {
            "train": settings.train or known.train,
            "val": settings.val or known.val,
            "test": settings.test or known.test,
        }
        self.loaders = {
            part: data.build(split, batch_size=settings.batch_size, labels=labels)
            for part, split in names.items()
            if split is not None
        }

    def measure(self, label: str, features: Mapping[str, Features], layers: str, pooling: str) -> list[Figure]:
        """All probes of one pooling of one choice of layers."""
        settings = self.settings
        sets: dict[str, Labelled] = {name: found.labelled(pooling, layers) for name, found in features.items()}
        train, val, test = sets["train"], sets.get("val"), sets.get("test")
        if test is None:
            train, test = hold_out(train, seed=settings.seed)
        self.sizes = {"train": len(train.labels), "test": len(test.labels)}
        found = []
        for name in settings.probes:
            std = None
            if name == "knn":
                accuracy = knn_accuracy(train, test, k=settings.neighbours)
            elif name == "linear":
                accuracy = linear_probe(train, test, val=val, seed=settings.seed).accuracy
            else:
                result = few_label_probe(
                    train, test, labels=settings.labels, draws=settings.draws, val=val, seed=settings.seed
                )
                accuracy, std = result.mean, result.std if settings.draws > 1 else None
            shown_layers = "-" if label == "input" else layers
            found.append(
                Figure(features=label, layers=shown_layers, pooling=pooling, probe=name, accuracy=accuracy, std=std)
            )
        return found


def _encoder(settings: ProbeSettings, stored: Stored, weights: Weights) -> Student:
    encoder, _ = encoder_of(stored, weights, seed=settings.seed)
    match_input(settings.data, encoder, stored.description.modality)
    return encoder.to(pick_device(settings.device))


def _features(
    settings: ProbeSettings, encoder: Student, parts: _Parts, progress: bool, *, depth: int
) -> dict[str, Features]:
    given: Layers = settings.layers or "all"
    chosen: dict[str, Layers] = {}
    if settings.each:
        alone = range(depth) if isinstance(given, str) else settings.layers
        chosen = {str(layer): (int(layer),) for layer in alone}
    chosen[given if isinstance(given, str) else ",".join(map(str, settings.layers))] = given
    return {
        name: collect_features(
            encoder,
            shown(loader, progress),
            poolings=settings.poolings,
            layers=chosen,
            result=settings.result,
            depth=depth,
            precision=settings.precision,
        )
        for name, loader in parts.loaders.items()
    }
