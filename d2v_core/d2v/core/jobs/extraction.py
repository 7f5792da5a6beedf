"""The call behind `d2v extract`: features in files, for use in other programs."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Unpack

from attrs import field, frozen, validators
from torch import distributed as dist

from d2v.core.data import DataConfig
from d2v.core.files import ConfigError
from d2v.core.finite import NotFiniteError
from d2v.core.jobs.device import pick_device
from d2v.core.jobs.feature_file import write_features
from d2v.core.jobs.fine_tuned import check_ending
from d2v.core.jobs.gathering import gathered
from d2v.core.jobs.kernels import InferenceKernels
from d2v.core.jobs.keywords import ExtractKeys
from d2v.core.jobs.models import encoder_of, match_input, settings_of
from d2v.core.jobs.opening import say_contents
from d2v.core.jobs.running import with_progress
from d2v.core.model import Backbone, Batch, Student
from d2v.core.nn.sinks import ResultKind
from d2v.core.paths import PathText
from d2v.core.precision import FeaturePrecision, decided
from d2v.core.probes import Features, Layers, encode_layers, encode_windows
from d2v.core.recipes.keywords import with_keywords
from d2v.core.recipes.recipe import Weights
from d2v.core.recipes.sections import AUTO, kernel_names
from d2v.core.train.ranks import world


@frozen(kw_only=True)
class ExtractSettings:
    """Settings of `extract`.

    Args:
        model: a run, a folder, a published file or a name of `d2v models`.
        weights: student, teacher, or untrained = the same network with initial weights. The student is the default, as
            in published fine-tuning; the teacher computes the targets of pretraining.
        data: samples; keys that are not set default to those of the training.
        split: split of the data; null = all files of a folder.
        layers: blocks (from 0, or negative from the end) to average; [] = all; final = the encoder's output.
        result: of a block: its output (block) or its feed-forward branch (ffn).
        pooling: mean of the tokens (mean), grid = means of its quarters, class-token = the class token, tokens = every
            token.
        window: samples of the raw input (at 16 kHz, 480000 are 30 s) of the windows in which recordings are read, with
            memory for one window at a time; null = whole.
        batch_size: samples in a batch.
        precision: of the encoder: fp32, bf16 or auto = bf16 where the device computes in it natively.
        kernels: forms of computation on a CPU, which differ by rounding: auto = the faster ones, measured once for each
            machine and size of model; plain = those of torch; or names: onednn-linear, row-attention,
            channels-last-extractor, channels-last-positions.
        device: auto = cuda, mps or cpu, the first that is available.
        threads: CPU threads for computation; null = PyTorch's default.
        out: file to write, .safetensors or .npy; the names of the samples are written to a .txt of the same name.
    """

    model: PathText
    weights: Weights = "student"
    data: DataConfig
    split: str | None = None
    layers: tuple[int, ...] | Literal["final"] = ()
    result: ResultKind = "block"
    pooling: Literal["mean", "grid", "class-token", "tokens"] = "mean"
    window: int | None = field(default=None, validator=validators.optional(validators.ge(1)))
    batch_size: int = field(default=64, validator=validators.ge(1))
    precision: FeaturePrecision = "fp32"
    kernels: tuple[str, ...] = field(default=AUTO, converter=kernel_names)
    device: str = "auto"
    threads: int | None = field(default=None, validator=validators.optional(validators.ge(1)))
    out: PathText


@frozen(kw_only=True)
class Extracted:
    """Output files of `extract`.

    Args:
        out: the file with `features`.
        names: the file with the name of one sample in each line, in the same order.
        shape: of the features: `n d`, `n (4 d)` or `n t d`.
    """

    out: Path
    names: Path
    shape: tuple[int, ...]


def extract(
    overrides: Mapping[str, Any] | None = None, *, progress: bool = True, **keys: Unpack[ExtractKeys]
) -> Extracted:
    """Write the features of samples to a file.

    `.safetensors` holds `features`, `labels` if there are any, and `padding` of tokens of unequal lengths; `.npy` only
    the features. Features are written as they are computed, so memory depends only on `batch_size`. Until it is done,
    disk space of twice the file's size is needed.

    Args:
        overrides: settings by dotted key, as on the command line (see `ExtractSettings`).
        progress: whether to show progress on standard error.
        keys: settings as keywords; `model`, `data` and `out` are required.

    Raises:
        ConfigError: if a key is unknown, missing or of a wrong type, or a model cannot read windows.
        FileNotFoundError: if there is no model at `model`.
        DataError: if the data cannot be used, or does not fit the model.
        ValueError: if a layer or pooling does not exist in the model, or weights or features are not finite.

    >>> extract(model="run", data="photos", out="features.npy").shape  # doctest: +SKIP
    (1200, 768)
    >>> extract(data="photos")
    Traceback (most recent call last):
    d2v.core.files.kinds.ConfigError: missing key 'model': give a run, a file or a name from `d2v models`
    """
    settings, stored = settings_of(ExtractSettings, with_keywords(ExtractSettings, overrides, keys))
    check_ending(settings.out, ".safetensors", ".npy")
    encoder, _ = encoder_of(stored, settings.weights)
    match_input(settings.data, encoder, stored.description.modality)
    device = pick_device(settings.device)
    encoder.to(device)
    say_contents(settings.data)
    rank, workers = world()
    loader = settings.data.build(settings.split, batch_size=settings.batch_size, rank=rank, world_size=workers)
    batches = with_progress(loader, progress and rank == 0)
    parts = gathered(_features(settings, encoder, batches, depth=stored.description.student.depth))
    out = Path(settings.out)
    try:
        with InferenceKernels(settings.kernels).of(encoder, decided(settings.precision, device)):
            if rank > 0:
                list(parts)  # sends them to the first rank, which writes
                return _of_first_rank(None)
            names, shape = write_features(out, parts, layers="chosen", pooling=settings.pooling, name=loader.name)
    except NotFiniteError as error:
        raise NotFiniteError(error.what, map(loader.name, error.names), where=error.where) from None
    return _of_first_rank(Extracted(out=out, names=names, shape=shape))


def _of_first_rank(done: Extracted | None) -> Extracted:
    found = [done]
    if world()[1] > 1:
        dist.broadcast_object_list(found)
    assert found[0] is not None
    return found[0]


def _features(
    settings: ExtractSettings, encoder: Student, batches: Iterable[Batch], *, depth: int
) -> Iterator[Features]:
    layers: dict[str, Layers] = {"chosen": settings.layers or "all"}
    if settings.window is None:
        return encode_layers(
            encoder,
            batches,
            poolings=[settings.pooling],
            layers=layers,
            result=settings.result,
            depth=depth,
            precision=settings.precision,
        )
    if not isinstance(encoder, Backbone):
        raise ConfigError(
            f"window={settings.window}: a {type(encoder).__name__} reads whole samples only; leave it out"
        )
    return encode_windows(
        encoder,
        batches,
        window=settings.window,
        pooling=settings.pooling,
        layers=layers,
        result=settings.result,
        precision=settings.precision,
    )
