"""The contents of a recipe: all settings of a run, as frozen values."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import attrs
from attrs import field, frozen, validators

from d2v.core.changes import may_change
from d2v.core.data import DataConfig
from d2v.core.description import Description
from d2v.core.durations import updates
from d2v.core.files import to_plain
from d2v.core.masks import Masker
from d2v.core.model import Data2VecConfig, ModelConfig
from d2v.core.paths import PathText
from d2v.core.recipes.sections import (
    FinetuneOptimConfig,
    FreezeConfig,
    MonitorConfig,
    OptimConfig,
    TrainConfig,
    ValidationConfig,
)
from d2v.core.task import Task
from d2v.core.validators import one_of

Weights = Literal["student", "teacher", "untrained"]
Consent = Literal["data", "schedule"]
"""Changes that a run accepts on resume only if the user asks for them."""


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)


@frozen(kw_only=True)
class Run:
    """Settings of every run.

    Args:
        out: run folder, created by the run.
        seed: of weights, order, masks, augmentation and dropout.
        resume: true = continue the run in `out`, if there is one.
        accept: changes to accept on resume: data = other samples than at the checkpoint, schedule = other values of
            schedules, which depend on `train.max_steps`.
        device: auto = cuda, mps or cpu, the first that is available.
        threads: CPU threads for computation; None = PyTorch's default.
    """

    out: PathText = field(validator=validators.min_len(1), metadata=may_change("unrecorded"))
    seed: int = field(default=0, validator=validators.ge(0))
    resume: bool = field(default=False, metadata=may_change("unrecorded"))
    accept: tuple[Consent, ...] = field(
        default=(),
        converter=_as_tuple,
        validator=validators.deep_iterable(one_of(Consent)),
        metadata=may_change("unrecorded"),
    )
    device: str = field(default="auto", metadata=may_change("unrecorded"))
    threads: int | None = field(
        default=None, validator=validators.optional(validators.ge(1)), metadata=may_change("unrecorded")
    )

    command: ClassVar[str]

    @classmethod
    def complete(cls, values: dict[str, Any]) -> None:
        """Derive values from other values, in place."""


@frozen(kw_only=True)
class PretrainRecipe(Run):
    """Pretraining of one modality, or of several with a shared encoder.

    Args:
        init: a run, a model folder or a published model (its file or its name) whose weights the run starts from; null
            = untrained.
        model: student, predictors, targets and teacher.
        mask: which positions are hidden; with several modalities, by modality.
        data: unlabelled samples; with several modalities, by modality.
        sampling: relative frequency of batches by modality; {} = equal.
        optim: optimiser and learning rate.
        train: length of the run.
        monitor: when to stop a run that learns nothing.
    """

    command: ClassVar[str] = "pretrain"

    init: PathText | None = None
    model: ModelConfig
    mask: Masker | Mapping[str, Masker]
    data: DataConfig | Mapping[str, DataConfig]
    sampling: Mapping[str, float] = field(factory=dict)
    optim: OptimConfig
    train: TrainConfig
    monitor: MonitorConfig = field(factory=MonitorConfig)

    def __attrs_post_init__(self) -> None:
        taken = ", ".join(self.modalities)
        named = {"predictors": self.model.predictors, "mask": self.masks, "data": self.sources}
        for key, parts in named.items():
            if set(parts) != set(self.modalities):
                raise ValueError(f"{key} is for {', '.join(parts)}, but model.student takes {taken}")
        for name, weight in self.sampling.items():
            if name not in self.modalities or not 0 < weight < math.inf:
                raise ValueError(f"sampling.{name}={weight} must be a number above 0, for one of {taken}")
        self.optim.build_schedule(self.train.max_steps)
        self.optim.build_weight_decay(self.train.max_steps)

    @classmethod
    def complete(cls, values: dict[str, Any]) -> None:
        """Give the teacher's schedule the run's length if its annealing is a fraction of the run."""
        schedule: Any = values
        for section in ("model", "teacher", "schedule"):
            schedule = schedule.get(section) if isinstance(schedule, dict) else None
        train = values.get("train")
        # Wrong types are reported when the classes are filled.
        if isinstance(schedule, dict) and isinstance(schedule.get("anneal"), float) and isinstance(train, dict):
            schedule["total"] = train.get("max_steps")

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities of the student."""
        return self.model.student.modalities

    @property
    def masks(self) -> Mapping[str, Masker]:
        """Maskers by modality."""
        return self.mask if isinstance(self.mask, Mapping) else dict.fromkeys(self.modalities[:1], self.mask)

    @property
    def sources(self) -> Mapping[str, DataConfig]:
        """Data by modality."""
        return self.data if isinstance(self.data, Mapping) else dict.fromkeys(self.modalities[:1], self.data)

    def model_config(self) -> Data2VecConfig:
        """The configuration of the whole model, with its masks and seed."""
        values = {one.name: getattr(self.model, one.name) for one in attrs.fields(ModelConfig)}
        return Data2VecConfig(**values, maskers=self.masks, seed=self.seed)

    def description(self) -> Description:
        """The description for the model folder."""
        data = {name: without_path(one) for name, one in self.sources.items()}
        files: dict[str, bytes] = {}
        for modality, one in self.sources.items():
            for name, content in one.files().items():
                if files.setdefault(name, content) != content:
                    raise ValueError(f"data.{modality}: its file {name} differs from that of another modality")
        return Description(model=self.model_config(), data=data, files=files)


@frozen(kw_only=True)
class FinetuneRecipe(Run):
    """Training of a task on top of a pretrained model.

    Args:
        model: a run, a folder, a published file or a name of `d2v models`.
        weights: student, teacher, or untrained = the same network with initial weights. The student is the default, as
            in published fine-tuning; the teacher computes the targets of pretraining.
        task: the task to learn.
        data: labelled samples; their preparation defaults to that of the model's pretraining.
        preparation: model = refuse `data` settings that contradict the model's preparation; data = prepare the input
            as `data` says, as some published runs did.
        optim: optimiser and learning rate.
        train: length of the run.
        validation: evaluation on held-out data during training.
        freeze: parts that are not trained at first.
    """

    command: ClassVar[str] = "finetune"

    model: PathText = field(validator=validators.min_len(1))
    weights: Weights = "student"
    task: Task
    data: DataConfig
    preparation: Literal["model", "data"] = "model"
    optim: FinetuneOptimConfig
    train: TrainConfig
    validation: ValidationConfig = field(factory=ValidationConfig)
    freeze: FreezeConfig = field(factory=FreezeConfig)

    def __attrs_post_init__(self) -> None:
        updates(self.freeze.updates, self.train.max_steps, name="freeze.updates")
        updates(self.validation.start, self.train.max_steps, name="validation.start")
        self.optim.build_schedule(self.train.max_steps)
        self.optim.build_weight_decay(self.train.max_steps)


def without_path(data: DataConfig) -> dict[str, Any]:
    """The preparation of input as plain values: the part of a data configuration that is stored with a model."""
    values: dict[str, Any] = to_plain(data)
    del values["path"]
    return values
