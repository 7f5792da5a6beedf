"""`d2v extract` as one call: features of files, for other people's programs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Unpack

from attrs import field, frozen, validators

from d2v.core.data import DataConfig
from d2v.core.finite import NotFiniteError
from d2v.core.jobs.device import pick_device
from d2v.core.jobs.evaluation import check_ending
from d2v.core.jobs.feature_file import write_features
from d2v.core.jobs.keywords import ExtractKeys
from d2v.core.jobs.models import encoder_of, match_input, settings_of
from d2v.core.jobs.opening import say_contents
from d2v.core.jobs.running import shown
from d2v.core.nn.sinks import ResultKind
from d2v.core.paths import PathText
from d2v.core.precision import FeaturePrecision
from d2v.core.probes import encode_layers
from d2v.core.recipes.keywords import with_keywords
from d2v.core.recipes.recipe import Weights


@frozen(kw_only=True)
class ExtractSettings:
    """Settings of `extract`.

    Args:
        model: a run, a model folder or a published checkpoint file.
        weights: which of its weights: student or teacher, or untrained = the same network with initial weights.
        data: samples; what is not given is as in training.
        split: part of the data; null = all files of a folder.
        layers: blocks (from 0, or negative from the end) whose mean is read; [] = all; final = the encoder's output.
        result: of a block: its output (block) or its feed-forward branch (ffn).
        pooling: mean of the tokens, grid = means of its quarters, class-token = the class token, tokens = every token.
        batch_size: samples in a batch.
        precision: of the encoder: fp32, bf16 or auto = bf16 where the device computes in it by itself.
        device: auto = cuda, mps or cpu, the first that there is.
        threads: threads of the CPU to compute on; null = as many as PyTorch takes by itself.
        out: file to write, .safetensors or .npy; the names of the samples go to a .txt of the same name.
    """

    model: PathText
    weights: Weights = "student"
    data: DataConfig
    split: str | None = None
    layers: tuple[int, ...] | Literal["final"] = ()
    result: ResultKind = "block"
    pooling: Literal["mean", "grid", "class-token", "tokens"] = "mean"
    batch_size: int = field(default=64, validator=validators.ge(1))
    precision: FeaturePrecision = "fp32"
    device: str = "auto"
    threads: int | None = field(default=None, validator=validators.optional(validators.ge(1)))
    out: PathText


@frozen(kw_only=True)
class Extracted:
    """What `extract` has written.

    Args:
        out: the file with `features`.
        names: the file with one sample's name a line, in the same order.
        shape: of the features: `n d`, `n (4 d)` or `n t d`.
    """

    out: Path
    names: Path
    shape: tuple[int, ...]


def extract(
    overrides: Mapping[str, Any] | None = None, *, progress: bool = True, **keys: Unpack[ExtractKeys]
) -> Extracted:
    """Write the features of samples to a file.

    `.safetensors` holds `features`, `labels` where there are any, and `padding` of tokens of unequal lengths; `.npy`
    the features alone. They go to the disk as they come, so the memory needed depends on `batch_size` alone; beside the
    file, its size is needed once more until it is done.

    Args:
        overrides: by dotted key, as on the command line (see `ExtractSettings`).
        progress: whether to show how far it is, on standard error.
        keys: the same as keywords; `model`, `data` and `out` have to be given.

    Raises:
        ConfigError: if a key is unknown, missing or of a wrong type.
        FileNotFoundError: if there is no such model.
        DataError: if the data cannot be used, or does not fit the model.
        ValueError: if a layer or pooling does not exist in the model, or weights or features are not finite.

    >>> extract(model="run", data="photos", out="features.npy").shape  # doctest: +SKIP
    (1200, 768)
    >>> extract(data="photos")
    Traceback (most recent call last):
    d2v.core.files.kinds.ConfigError: missing key 'model': give a run, a model folder or a checkpoint file
    """
    settings, stored = settings_of(ExtractSettings, with_keywords(ExtractSettings, overrides, keys))
    check_ending(settings.out, ".safetensors", ".npy")
    encoder, _ = encoder_of(stored, settings.weights)
    match_input(settings.data, encoder, stored.description.modality)
    device = pick_device(settings.device)
    encoder.to(device)
    say_contents(settings.data)
    loader = settings.data.build(settings.split, batch_size=settings.batch_size)
    parts = encode_layers(
        encoder,
        shown(loader, progress),
        poolings=[settings.pooling],
        layers={"chosen": settings.layers or "all"},
        result=settings.result,
        depth=stored.description.student.depth,
        precision=settings.precision,
    )
    out = Path(settings.out)
    try:
        names, shape = write_features(out, parts, layers="chosen", pooling=settings.pooling, name=loader.name)
    except NotFiniteError as error:
        raise NotFiniteError(error.what, map(loader.name, error.names), where=error.where) from None
    return Extracted(out=out, names=names, shape=shape)
