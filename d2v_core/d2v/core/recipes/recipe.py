"""What a recipe holds: everything that a run depends on, as frozen values."""

from typing import Any, ClassVar, Literal

import attrs
from attrs import field, frozen, validators

from d2v.core.data import DataConfig
from d2v.core.files import Description, to_plain
from d2v.core.masks import Masker
from d2v.core.model import Data2VecConfig, ModelConfig
from d2v.core.recipes.sections import (
    FinetuneOptimConfig,
    FreezeConfig,
    MonitorConfig,
    OptimConfig,
    TrainConfig,
    ValidationConfig,
)
from d2v.core.task import Task

Weights = Literal["student", "teacher", "random"]


@frozen(kw_only=True)
class Run:
    """What every run has.

    Args:
        out: run folder, to be made.
        seed: of weights, order, masks, augmentation and dropout.
        resume: true = go on in `out`, if a run was begun there.
        device: auto = cuda, mps or cpu, the first that there is.
    """

    out: str = field(validator=validators.min_len(1))
    seed: int = field(default=0, validator=validators.ge(0))
    resume: bool = False
    device: str = "auto"

    command: ClassVar[str]

    @classmethod
    def complete(cls, values: dict[str, Any]) -> None:
        """Put into plain values what follows from others of them."""


@frozen(kw_only=True)
class PretrainRecipe(Run):
    """Pretraining of one modality.

    Args:
        model: encoder, adapter, decoder, targets and teacher.
        mask: which positions are hidden.
        data: unlabelled samples.
        optim: optimiser and learning rate.
        train: length of the run.
        monitor: when to stop a run that learns nothing.
    """

    command: ClassVar[str] = "pretrain"

    model: ModelConfig
    mask: Masker
    data: DataConfig
    optim: OptimConfig
    train: TrainConfig
    monitor: MonitorConfig = field(factory=MonitorConfig)

    def __attrs_post_init__(self) -> None:
        if len(self.model.adapters) != 1:
            raise ValueError(f"model.adapters must hold one modality, not {len(self.model.adapters)}")
        self.optim.build_schedule(self.train.max_steps)
        self.optim.build_weight_decay(self.train.max_steps)

    @classmethod
    def complete(cls, values: dict[str, Any]) -> None:
        """The teacher's schedule, where it is a fraction of the run, gets the run's length."""
        place: Any = values
        for section in ("model", "teacher", "schedule"):
            place = place.get(section) if isinstance(place, dict) else None
        train = values.get("train")
        # What is of a wrong type is told when the classes are filled.
        if isinstance(place, dict) and isinstance(place.get("anneal"), float) and isinstance(train, dict):
            place["total"] = train.get("max_steps")

    @property
    def modality(self) -> str:
        """Name of its adapter."""
        return next(iter(self.model.adapters))

    def model_config(self) -> Data2VecConfig:
        """The whole model, with its mask and seed."""
        values = {one.name: getattr(self.model, one.name) for one in attrs.fields(ModelConfig)}
        return Data2VecConfig(**values, maskers={self.modality: self.mask}, seed=self.seed)

    def description(self) -> Description:
        """What its model folder tells."""
        return Description(model=self.model_config(), data=without_path(self.data))


@frozen(kw_only=True)
class FinetuneRecipe(Run):
    """Training of a task on top of a pretrained model.

    Args:
        model: a run or a model folder.
        weights: which of its weights to start from: student, teacher, or random = from scratch.
        task: what to learn.
        data: labelled samples.
        optim: optimiser and learning rate.
        train: length of the run.
        validation: looking at held-out data.
        freeze: parts that do not train at first.
    """

    command: ClassVar[str] = "finetune"

    model: str = field(validator=validators.min_len(1))
    weights: Weights = "student"
    task: Task
    data: DataConfig
    optim: FinetuneOptimConfig
    train: TrainConfig
    validation: ValidationConfig = field(factory=ValidationConfig)
    freeze: FreezeConfig = field(factory=FreezeConfig)

    def __attrs_post_init__(self) -> None:
        self.optim.build_schedule(self.train.max_steps)
        self.optim.build_weight_decay(self.train.max_steps)


def without_path(data: DataConfig) -> dict[str, Any]:
    """How input is prepared, as plain values: what of a data configuration travels with a model."""
    values: dict[str, Any] = to_plain(data)
    del values["path"]
    return values
