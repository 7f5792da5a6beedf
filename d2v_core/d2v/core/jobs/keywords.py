"""Keywords of the calls of this package, for editors and type checkers.

Written by tools/make_keywords.py from the settings classes; do not edit it by hand.
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Literal, TypedDict

from d2v.core.data.config import DataConfig
from d2v.core.masks.masker import Masker
from d2v.core.model.config import ModelConfig
from d2v.core.probes.sequences import SequenceProbing
from d2v.core.recipes.sections import (
    FinetuneOptimConfig,
    FreezeConfig,
    MonitorConfig,
    OptimConfig,
    TrainConfig,
    ValidationConfig,
)
from d2v.core.task import Task


class DataKeys(TypedDict, total=False):
    """Keys of `data`; which of them exist depends on the data."""

    sample_rate: int
    """Of the model's input in Hz (`data.sample_rate`)."""

    resample: bool
    """Whether recordings of another rate are resampled; otherwise they count as broken (`data.resample`)."""

    mixdown: bool
    """Whether several channels are averaged; otherwise such recordings count as broken (`data.mixdown`)."""

    normalize: bool
    """Whether each recording is scaled to zero mean and unit variance over its whole length, as all data2vec models
    need (`data.normalize`).
    """

    label_file: str
    """Ending of the label files: `ltr` = letters, also spelled from words; with another ending, such as `phn`, units
    are separated by spaces (`data.label_file`).
    """

    dictionary: str | None
    """File with the symbols of labels; `librispeech` = the published letters; None = the file `dict.LABEL_FILE.txt`
    beside the recordings, otherwise the symbols of the training transcripts (`data.dictionary`).
    """

    train_split: str | None
    """Split to train on, or several joined by `+`; None = `train`, otherwise all that are named for training, such as
    `train-clean-100` and `train-other-500` (`data.train_split`).
    """

    min_samples: int
    """Training skips shorter recordings, in samples at `sample_rate` (`data.min_samples`)."""

    max_samples: int | None
    """Training crops longer recordings at random places; None = no crop (`data.max_samples`)."""

    max_tokens: int | None
    """Limit of recordings x longest recording of a batch on one rank, in samples; in evaluation, a longer recording is
    a batch of its own (`data.max_tokens`).
    """

    batch_multiple: int
    """Batches of that many recordings or more have a multiple of it (`data.batch_multiple`)."""

    num_buckets: int
    """Recordings are shuffled within this number of buckets of similar length; more buckets mean less padding
    (`data.num_buckets`).
    """

    pad: bool
    """Whether training without labels pads as well, instead of cropping to the shortest (`data.pad`)."""

    hold_out: float | None
    """Fraction held out as the split `test` if the data has no split to report on; selected by a hash of the names, in
    each class (see `d2v.core.data.HoldOut`) (`data.hold_out`).
    """

    hold_out_seed: int
    """Seed of the held-out selection (`data.hold_out_seed`)."""

    num_workers: int
    """Loader processes, at most one for each CPU core; 0 = load in the training process (`data.num_workers`)."""

    glue: Literal["cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst_2", "sts_b"] | None
    """Task of GLUE whose official files are in the folder; None = any files (`data.glue`)."""

    text: str | None
    """Column of the text; None = found by its name, such as `text` or `sentence` (`data.text`)."""

    text_pair: str | None
    """Column of the second text; None = none, or found by its name, such as `sentence2` (`data.text_pair`)."""

    label: str | None
    """Column of the label; None = found by its name, such as `label` (`data.label`)."""

    header: bool
    """Whether `.csv` and `.tsv` files name their columns; otherwise these are named by their numbers, from 1
    (`data.header`).
    """

    tokenizer: str | None
    """Folder with the files of a tokenizer, for a model that has none; None = that of the model (`data.tokenizer`)."""

    max_length: int | None
    """Longest sample in tokens; None = that of the model (`data.max_length`)."""

    cut: bool
    """Whether longer training texts are cut; otherwise they are left out, as published (`data.cut`)."""

    per_class: int | None
    """Train on this number of texts of each class, drawn by the seed; None = on all (`data.per_class`)."""

    vocabulary_size: int | None
    """Number of ids of a tokenizer that is trained on text files if there is none; None = such text is refused
    (`data.vocabulary_size`).
    """

    text_field: str
    """Field of JSON lines that holds the text (`data.text_field`)."""

    block_size: int
    """Tokens of a block, `<s>` included (`data.block_size`)."""

    break_mode: Literal["none", "complete", "complete_doc", "eos"]
    """none = blocks of equal length, across lines and documents; complete = whole lines, as many as fit; complete_doc =
    whole lines of one document; eos = one line each (`data.break_mode`).
    """

    cut_long: bool
    """Whether a line longer than a block is cut into blocks (complete, complete_doc, eos); otherwise it is a long block
    of its own, as published, which the model may refuse (`data.cut_long`).
    """

    size: int
    """Height and width of the model's input in pixels (`data.size`)."""

    channels: Literal[1, 3]
    """3 = RGB, 1 = grey (`data.channels`)."""

    crop_area: Sequence[float] | None
    """Range of a random crop's area, as fractions of the image; None = no random crop, as in evaluation
    (`data.crop_area`).
    """

    crop_ratio: Sequence[float]
    """Range of a crop's aspect ratio, width by height (`data.crop_ratio`)."""

    flip: float
    """Probability of a horizontal flip (`data.flip`)."""

    mean: Sequence[float] | None
    """Subtracted from values in 0 to 1, one number or one for each channel; None = ImageNet's (`data.mean`)."""

    std: Sequence[float] | None
    """Divisor after that, one number or one for each channel; None = ImageNet's (`data.std`)."""

    resize: int | None
    """Shorter side before the centre crop in evaluation, in pixels; None = size * 256 / 224 (`data.resize`)."""

    max_megapixels: float
    """Image files with more pixels (millions) count as broken; they are not decoded (`data.max_megapixels`)."""

    max_value: float | None
    """Value of white in files of more than 8 bits, for example 4095 for 12 bits in a 16-bit file; None = 65535 if a
    value is above 32767, otherwise the file counts as broken, as do floats and 32-bit integers (`data.max_value`).
    """


class RunKeys(DataKeys, total=False):
    """Keywords that `pretrain` and `finetune` share."""

    out: str | PathLike[str]
    """Run folder, created by the run."""

    seed: int
    """Of weights, order, masks, augmentation and dropout."""

    resume: bool
    """true = continue the run in `out`, if there is one."""

    accept: Sequence[Literal["data", "schedule"]]
    """Changes to accept on resume: data = other samples than at the checkpoint, schedule = other values of schedules,
    which depend on `train.max_steps`.
    """

    device: str
    """auto = cuda, mps or cpu, the first that is available."""

    threads: int | None
    """CPU threads for computation; None = PyTorch's default."""

    train: TrainConfig | Mapping[str, Any]
    """Length of the run."""

    max_steps: int
    """Updates of the run (`train.max_steps`)."""

    max_epochs: int | None
    """Passes over the training data after which the run ends, if that is before `max_steps`, on which its schedules
    depend; None = no limit (`train.max_epochs`).
    """

    batch_size: int
    """Samples in a batch of one process (`train.batch_size`)."""

    accumulate: int
    """Batches in an update of one process (`train.accumulate`)."""

    precision: Literal["auto", "fp32", "bf16", "fp16"]
    """Of the forward pass: fp32, bf16, fp16 (with the published loss scaling), or auto = bf16 where the device computes
    in it natively, else fp32 (`train.precision`).
    """

    strategy: Literal["auto", "single", "ddp", "fsdp"]
    """How the processes of torchrun share the work: ddp, fsdp = parameters are sharded too, single = one process, auto
    = ddp if there are several (`train.strategy`).
    """

    compile: bool
    """Whether blocks, and decoders of images, are compiled (torch.compile) (`train.compile`)."""

    checkpoint_activations: bool
    """Whether the backward pass computes blocks again, which saves memory and takes time
    (`train.checkpoint_activations`).
    """

    min_loss_scale: float
    """Smallest factor on the loss in fp16; an update that overflows at it ends the run with an error
    (`train.min_loss_scale`).
    """

    timeout: float | None
    """Seconds that a process of torchrun waits for the others before it ends with an error that names them; None =
    1800, or as in the process group that a program has made (`train.timeout`).
    """

    max_skipped_updates: int
    """Updates that may be skipped because their loss or gradient is not finite, or their loss is a spike; the next one
    ends the run with an error (`train.max_skipped_updates`).
    """

    spike_ratio: float
    """An update is a spike if its loss is more than this many times the median of the last 100; 0 = off
    (`train.spike_ratio`).
    """

    debug: bool
    """Whether the batches of an update that is skipped, or ends the run, are saved with the weights in `debug/update-N`
    (`train.debug`).
    """

    checkpoint_every: int
    """Updates between checkpoints (`train.checkpoint_every`)."""

    keep: int
    """Number of newest checkpoints to keep (`train.keep`)."""

    log_every: int
    """Updates between lines of metrics (`train.log_every`)."""

    sinks: Literal["tensorboard", "wandb", "mlflow"] | Sequence[Literal["tensorboard", "wandb", "mlflow"]] | None
    """Further outputs of metrics besides metrics.jsonl: tensorboard, wandb, mlflow; None = tensorboard if it is
    installed (`train.sinks`).
    """

    kernels: str | list[str] | tuple[str, ...]
    """Forms of computation on a CPU: auto = the faster ones, measured once for each machine and size of model, and kept
    by the run; plain = those of torch; or names: onednn-linear, channels-last-decoder, channels-last-extractor,
    channels-last-positions (`train.kernels`).
    """

    lr: float
    """Peak learning rate (`optim.lr`)."""

    betas: Sequence[float]
    """Decay of the two averages (`optim.betas`)."""

    eps: float
    """Added to the uncorrected root, as published (`optim.eps`)."""

    weight_decay: float
    """Of the decayed parameters; with a schedule, its peak (beit-cosine: its first value) (`optim.weight_decay`)."""

    no_decay: list[str] | tuple[str, ...]
    """Patterns of further parameters without decay (`optim.no_decay`)."""

    clip: float
    """Maximum norm of all gradients together; 0 = no clipping (`optim.clip`)."""


class PretrainKeys(RunKeys, total=False):
    """Keywords of `pretrain`."""

    init: str | PathLike[str] | None
    """A run, a model folder or a published model (its file or its name) whose weights the run starts from; None =
    untrained.
    """

    model: ModelConfig | Mapping[str, Any]
    """Student, predictors, targets and teacher."""

    mask: Masker | Mapping[str, Any]
    """Which positions are hidden; with several modalities, by modality."""

    data: str | PathLike[str] | DataConfig | Mapping[str, Any]
    """Unlabelled samples; with several modalities, by modality."""

    sampling: Mapping[str, float]
    """Relative frequency of batches by modality; {} = equal."""

    optim: OptimConfig | Mapping[str, Any]
    """Optimiser and learning rate."""

    monitor: MonitorConfig | Mapping[str, Any]
    """When to stop a run that learns nothing."""


class FinetuneKeys(RunKeys, total=False):
    """Keywords of `finetune`."""

    model: str | PathLike[str]
    """A run, a folder, a published file or a name of `d2v models`."""

    weights: Literal["student", "teacher", "untrained"]
    """Student, teacher, or untrained = the same network with initial weights."""

    task: Task | Mapping[str, Any]
    """The task to learn."""

    data: str | PathLike[str] | DataConfig | Mapping[str, Any]
    """Labelled samples; their preparation defaults to that of the model's pretraining."""

    preparation: Literal["model", "data"]
    """model = refuse `data` settings that contradict the model's preparation; data = prepare the input as `data` says,
    as some published runs did.
    """

    optim: FinetuneOptimConfig | Mapping[str, Any]
    """Optimiser and learning rate."""

    validation: ValidationConfig | Mapping[str, Any]
    """Evaluation on held-out data during training."""

    freeze: FreezeConfig | Mapping[str, Any]
    """Parts that are not trained at first."""

    layer_decay: float
    """Factor on the learning rate from block to block; 1 = the same for all (`optim.layer_decay`)."""


class UseKeys(DataKeys, total=False):
    """Keywords of `evaluate` and `predict`."""

    model: str | PathLike[str]
    """A run, a folder, a published file or a name of `d2v models`."""

    data: str | PathLike[str] | DataConfig | Mapping[str, Any]
    """Samples; keys that are not set default to those of the training."""

    split: str | list[str] | tuple[str, ...] | None
    """Split of the data, or several; None = the test split for evaluation, all files of a folder for predictions."""

    task: Task | Mapping[str, Any]
    """The task of the fine-tuned model; options of its use may change, options built into the model may not."""

    batch_size: int
    """Samples in a batch."""

    precision: Literal["auto", "fp32", "bf16", "fp16"]
    """Of the forward pass: fp32, bf16, fp16 or auto = bf16 where the device computes in it natively."""

    kernels: str | list[str] | tuple[str, ...]
    """Forms of computation on a CPU, which differ by rounding: auto = the faster ones, measured once for each machine
    and size of model; plain = those of torch; or names: onednn-linear, row-attention, channels-last-extractor,
    channels-last-positions.
    """

    device: str
    """auto = cuda, mps or cpu, the first that is available."""

    threads: int | None
    """CPU threads for computation; None = PyTorch's default."""

    out: str | PathLike[str] | None
    """File to write: .json for an evaluation, or a folder; .csv or .jsonl for predictions, .tsv for GLUE's server; None
    = none.
    """


class ProbeKeys(DataKeys, total=False):
    """Keywords of `probe`."""

    probes: Sequence[Literal["knn", "linear", "few"]]
    """knn = nearest neighbours, linear = all labels, few = linear with few labels."""

    neighbours: int
    """K, at least 1."""

    labels: int
    """Number of labels of the probe with few labels, at least 2."""

    draws: int
    """Number of draws of few labels, at least 1."""

    balanced: bool
    """Draw few labels equally from all classes; false = at random."""

    seed: int
    """Of the untrained network and of draws."""

    model: str | PathLike[str]
    """A run, a folder, a published file or a name of `d2v models`."""

    weights: Literal["student", "teacher", "untrained"]
    """Student, teacher, or untrained = the same network with initial weights."""

    data: str | PathLike[str] | DataConfig | Mapping[str, Any]
    """Labelled samples; keys that are not set default to those of the training."""

    train: str | None
    """Split to train probes on; None = training."""

    val: str | None
    """Split to choose the penalty of a linear probe on; None = validation, or a fifth of `train`."""

    test: str | None
    """Split for the reported accuracies; None = test, or held-out samples of data without splits."""

    layers: Sequence[int] | Literal["final"]
    """Blocks (from 0, or negative from the end) to average; [] = all; final = the encoder's output."""

    each: bool
    """Measure each of these layers alone too; with layers=final, each block."""

    result: Literal["ffn", "block"]
    """A block's output (block) or feed-forward branch (ffn)."""

    poolings: Sequence[Literal["mean", "grid", "class-token"]]
    """Mean of the tokens (mean), grid = means of its quarters, class-token = the class token."""

    baselines: bool
    """Measure the raw input and the untrained network too."""

    sequences: SequenceProbing | Mapping[str, Any]
    """Recognisers for data with transcripts."""

    batch_size: int
    """Samples in a batch."""

    precision: Literal["auto", "fp32", "bf16"]
    """Of the encoder: fp32, bf16 or auto = bf16 where the device computes in it natively."""

    kernels: str | list[str] | tuple[str, ...]
    """Forms of computation; see `extract`."""

    device: str
    """auto = cuda, mps or cpu, the first that is available."""

    threads: int | None
    """CPU threads for computation; None = PyTorch's default."""

    out: str | PathLike[str] | None
    """.json file to write; None = none."""


class ExtractKeys(DataKeys, total=False):
    """Keywords of `extract`."""

    model: str | PathLike[str]
    """A run, a folder, a published file or a name of `d2v models`."""

    weights: Literal["student", "teacher", "untrained"]
    """Student, teacher, or untrained = the same network with initial weights."""

    data: str | PathLike[str] | DataConfig | Mapping[str, Any]
    """Samples; keys that are not set default to those of the training."""

    split: str | None
    """Split of the data; None = all files of a folder."""

    layers: Sequence[int] | Literal["final"]
    """Blocks (from 0, or negative from the end) to average; [] = all; final = the encoder's output."""

    result: Literal["ffn", "block"]
    """Of a block: its output (block) or its feed-forward branch (ffn)."""

    pooling: Literal["mean", "grid", "class-token", "tokens"]
    """Mean of the tokens (mean), grid = means of its quarters, class-token = the class token, tokens = every token."""

    window: int | None
    """Samples of the raw input (at 16 kHz, 480000 are 30 s) of the windows in which recordings are read, with memory
    for one window at a time; None = whole.
    """

    batch_size: int
    """Samples in a batch."""

    precision: Literal["auto", "fp32", "bf16"]
    """Of the encoder: fp32, bf16 or auto = bf16 where the device computes in it natively."""

    kernels: str | list[str] | tuple[str, ...]
    """Forms of computation on a CPU, which differ by rounding: auto = the faster ones, measured once for each machine
    and size of model; plain = those of torch; or names: onednn-linear, row-attention, channels-last-extractor,
    channels-last-positions.
    """

    device: str
    """auto = cuda, mps or cpu, the first that is available."""

    threads: int | None
    """CPU threads for computation; None = PyTorch's default."""

    out: str | PathLike[str]
    """File to write, .safetensors or .npy; the names of the samples are written to a .txt of the same name."""
