"""Sections that recipes share: optimiser, length of the run, validation.

They contain plain values and build the classes of `d2v.core.train` from them.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from attrs import field, frozen, validators
from torch import nn
from torch.optim import Optimizer

from d2v.core.changes import may_change
from d2v.core.durations import Duration
from d2v.core.monitor import CollapseMonitor
from d2v.core.precision import AskedPrecision
from d2v.core.recipes.schedules import CosineConfig, ScheduleConfig
from d2v.core.train import (
    Freeze,
    LayerDecay,
    PublishedAdamW,
    RunFolder,
    Schedule,
    Validation,
    fit,
    parameter_groups,
)
from d2v.core.train.groups import Decay
from d2v.core.train.skipping import off_or_above_one
from d2v.core.train.strategies import StrategyName
from d2v.core.train.trackers import SinkName, sink_names
from d2v.core.validators import factor, positive


@frozen(kw_only=True)
class OptimConfig:
    """The published Adam and its schedules; see `PublishedAdamW` and `parameter_groups`.

    Args:
        lr: peak learning rate.
        schedule: of the learning rate.
        betas: decay of the two averages.
        eps: added to the uncorrected root, as published.
        weight_decay: of the decayed parameters; with a schedule, its peak (beit-cosine: its first value).
        weight_decay_schedule: of the weight decay; None = constant.
        decay: which parameters decay: "matrices", or "all" as in the published runs.
        no_decay: patterns of further parameters without decay.
        clip: maximum norm of all gradients together; 0 = no clipping.
    """

    described_by: ClassVar[tuple[object, ...]] = (PublishedAdamW, parameter_groups)

    lr: float = field(validator=validators.ge(0))
    schedule: ScheduleConfig = field(factory=CosineConfig)
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = field(default=1e-6, validator=validators.gt(0))
    weight_decay: float = field(default=0.01, validator=validators.ge(0))
    weight_decay_schedule: ScheduleConfig | None = None
    decay: Decay = "matrices"
    no_decay: tuple[str, ...] = ()
    clip: float = field(default=0.0, validator=validators.ge(0))

    def build(self, model: nn.Module) -> Optimizer:
        """The optimiser of a model."""
        return self._adam(model, None)

    def build_schedule(self, total: int) -> Schedule:
        """The learning rate schedule for a number of updates.

        Raises:
            ValueError: if it does not fit them.
        """
        return _built(self.schedule, self.lr, total, "schedule")

    def build_weight_decay(self, total: int) -> Schedule | None:
        """The schedule of the weight decay for a number of updates; None = constant.

        Raises:
            ValueError: if it does not fit them.
        """
        if self.weight_decay_schedule is None:
            return None
        return _built(self.weight_decay_schedule, self.weight_decay, total, "weight_decay_schedule")

    def _adam(self, model: nn.Module, layer_decay: LayerDecay | None) -> Optimizer:
        groups = parameter_groups(
            model, weight_decay=self.weight_decay, decay=self.decay, no_decay=self.no_decay, layer_decay=layer_decay
        )
        return PublishedAdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps)


def _built(config: ScheduleConfig, peak: float, total: int, key: str) -> Schedule:
    try:
        return config.build(peak, total)
    except ValueError as error:
        raise ValueError(f"optim.{key} does not fit train.max_steps={total}: {error}") from error


@frozen(kw_only=True)
class FinetuneOptimConfig(OptimConfig):
    """`OptimConfig` with learning rates that decrease towards the input.

    Args:
        layer_decay: factor on the learning rate from block to block; 1 = the same for all. See `LayerDecay`.
    """

    layer_decay: float = field(default=1.0, validator=factor)

    def build_for(self, model: nn.Module, blocks: Sequence[nn.Module]) -> Optimizer:
        """The optimiser of a model whose encoder runs these blocks, in order."""
        return self._adam(model, LayerDecay(self.layer_decay, blocks=blocks) if self.layer_decay < 1 else None)


AUTO, PLAIN = ("auto",), ("plain",)


def kernel_names(value: str | list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Names of forms of computation, or "auto" or "plain" alone.

    Raises:
        ValueError: if the value is neither.

    >>> kernel_names("auto"), kernel_names(["onednn-linear"])
    (('auto',), ('onednn-linear',))
    """
    if isinstance(value, Mapping) and not value:  # recorded by runs of earlier versions
        return PLAIN
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"kernels={value!r} must be auto, plain or a list of names")
    if not names or (len(names) > 1 and {"auto", "plain"} & set(names)) or len(set(names)) < len(names):
        raise ValueError(f"kernels={value!r} must be auto or plain alone, or names, each once")
    return tuple(names)


@frozen(kw_only=True)
class TrainConfig:
    """Length of the run, batch size, checkpoints and logging.

    Args:
        max_steps: updates of the run.
        max_epochs: passes over the training data after which the run ends, if that is before `max_steps`, on which its
            schedules depend; None = no limit.
        batch_size: samples in a batch of one process.
        accumulate: batches in an update of one process.
        precision: of the forward pass: fp32, bf16, fp16 (with the published loss scaling), or auto = bf16 where the
            device computes in it natively, else fp32.
        strategy: how the processes of torchrun share the work: ddp, fsdp = parameters are sharded too, single = one
            process, auto = ddp if there are several.
        compile: whether blocks, and decoders of images, are compiled (torch.compile).
        checkpoint_activations: whether the backward pass computes blocks again, which saves memory and takes time.
        min_loss_scale: smallest factor on the loss in fp16; an update that overflows at it ends the run with an error.
        timeout: seconds that a process of torchrun waits for the others before it ends with an error that names them;
            None = 1800, or as in the process group that a program has made.
        max_skipped_updates: updates that may be skipped because their loss or gradient is not finite, or their loss is
            a spike; the next one ends the run with an error. A skipped update changes no weights and counts.
        spike_ratio: an update is a spike if its loss is more than this many times the median of the last 100; 0 = off.
        debug: whether the batches of an update that is skipped, or ends the run, are saved with the weights in
            `debug/update-N`.
        checkpoint_every: updates between checkpoints.
        keep: number of newest checkpoints to keep.
        log_every: updates between lines of metrics.
        sinks: further outputs of metrics besides metrics.jsonl: tensorboard, wandb, mlflow; None = tensorboard if it is
            installed.
        kernels: forms of computation on a CPU: auto = the faster ones, measured once for each machine and size of
            model, and kept by the run; plain = those of torch; or names: onednn-linear, channels-last-decoder,
            channels-last-extractor, channels-last-positions.
    """

    described_by: ClassVar[tuple[object, ...]] = (fit, RunFolder)

    max_steps: int = field(validator=validators.ge(1), metadata=may_change("length"))
    max_epochs: int | None = field(
        default=None, validator=validators.optional(validators.ge(1)), metadata=may_change("length")
    )
    batch_size: int = field(validator=validators.ge(1))
    accumulate: int = field(default=1, validator=validators.ge(1), metadata=may_change("processes"))
    precision: AskedPrecision = "fp32"
    strategy: StrategyName = field(default="auto", metadata=may_change("machine"))
    compile: bool = field(default=False, metadata=may_change("machine"))
    checkpoint_activations: bool = field(default=False, metadata=may_change("machine"))
    min_loss_scale: float = field(default=1e-6, validator=validators.gt(0), metadata=may_change("free"))
    timeout: float | None = field(default=None, validator=validators.optional(positive), metadata=may_change("free"))
    max_skipped_updates: int = field(default=0, validator=validators.ge(0), metadata=may_change("free"))
    spike_ratio: float = field(default=0.0, validator=off_or_above_one, metadata=may_change("free"))
    debug: bool = field(default=False, metadata=may_change("free"))
    checkpoint_every: int = field(default=1000, validator=validators.ge(1), metadata=may_change("free"))
    keep: int = field(default=2, validator=validators.ge(1), metadata=may_change("free"))
    log_every: int = field(default=50, validator=validators.ge(1), metadata=may_change("free"))
    sinks: tuple[SinkName, ...] | None = field(default=None, converter=sink_names, metadata=may_change("free"))
    kernels: tuple[str, ...] = field(default=AUTO, converter=kernel_names, metadata=may_change("machine"))


@frozen(kw_only=True)
class ValidationConfig:
    """Evaluation on held-out data during training.

    Args:
        every: updates between two evaluations; 0 = never.
        start: finished updates before the first evaluation, or a fraction of the run.
        split: split to evaluate on; None = the validation split. Without one, the test split is evaluated but not
            used to choose a checkpoint: the last checkpoint becomes the run's model.
        best: metric whose best checkpoint becomes the run's model; None = the task's default.
        patience: evaluations without improvement after which the run ends; None = no early stopping.
    """

    described_by: ClassVar[tuple[object, ...]] = (Validation,)

    every: int = field(default=0, validator=validators.ge(0))
    start: Duration = field(default=0, validator=validators.ge(0))
    split: str | None = None
    best: str | None = None
    patience: int | None = field(default=None, validator=validators.optional(validators.ge(1)))


@frozen(kw_only=True)
class FreezeConfig:
    """Parts that are not trained at first; see `Freeze`.

    Args:
        updates: number of updates without training these parts, or a fraction of the run; 0 = nothing is frozen.
        patterns: of parameters or modules; the encoder is `encoder`.
    """

    described_by: ClassVar[tuple[object, ...]] = (Freeze,)

    updates: Duration = field(default=0, validator=validators.ge(0))
    patterns: tuple[str, ...] = ("encoder",)


@frozen(kw_only=True)
class MonitorConfig:
    """When to stop a run that no longer learns anything; see `CollapseMonitor`.

    Args:
        min_target_var: stop after 5,000 updates if the targets' standard deviation is lower; 0 = off.
        min_pred_var: the same for the predictions.
        warmup: updates before the library's own rules apply; never fewer than 50.
        stop: whether these rules stop the run; false = they only warn.
    """

    described_by: ClassVar[tuple[object, ...]] = (CollapseMonitor,)

    min_target_var: float = field(default=0.0, validator=validators.ge(0))
    min_pred_var: float = field(default=0.0, validator=validators.ge(0))
    warmup: Duration = 0.1
    stop: bool = True
