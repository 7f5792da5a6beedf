"""Configurations of complete models."""

from collections.abc import Mapping
from typing import ClassVar, Protocol

import attrs
from attrs import field, frozen
from torch import nn

from d2v.core.loss import RegressionLoss
from d2v.core.masks import Masker
from d2v.core.model.backbone import Backbone, Student
from d2v.core.model.composition import Data2Vec
from d2v.core.model.parts import AdapterConfig, EncoderConfig
from d2v.core.model.predictors import MaskedHead, VisibleDecoder
from d2v.core.nn import ConvDecoder, initialise
from d2v.core.nn.initialisation import Scheme
from d2v.core.nn.sinks import ResultKind
from d2v.core.teacher import EMASchedule, EMATeacher, TargetAverager
from d2v.core.teacher.targets import TargetNorm


class PredictorConfig(Protocol):
    """Configuration of a predictor."""

    def build(self, *, embed_dim: int, dims: int) -> nn.Module:
        """Build the predictor for a width and a number of grid axes."""
        ...


@frozen(kw_only=True)
class ConvDecoderConfig:
    """`VisibleDecoder` with a `ConvDecoder`; see there.

    Args:
        init: initialisation of the projection, see `initialise`; None = PyTorch's default (published image and speech
            models).
    """

    described_by: ClassVar[tuple[type, ...]] = (VisibleDecoder, ConvDecoder)

    decoder_dim: int
    num_layers: int
    kernel_size: int
    groups: int
    residual: bool = True
    projection_layers: int = 1
    projection_ratio: float = 2.0
    noise_std: float = 0.01
    dropout: float = 0.0
    init: Scheme | None = None

    def build(self, *, embed_dim: int, dims: int) -> VisibleDecoder:
        """Build the predictor with initial weights."""
        values = attrs.asdict(self)
        outer = {"noise_std": values.pop("noise_std"), "dropout": values.pop("dropout")}
        scheme = values.pop("init")
        decoder = ConvDecoder(embed_dim, dims=dims, **values)
        if scheme is not None:
            initialise(decoder, scheme)
        return VisibleDecoder(decoder, **outer)


@frozen(kw_only=True)
class MaskedHeadConfig:
    """`MaskedHead`; see there.

    Args:
        init: see `initialise`; None = PyTorch's default.
    """

    described_by: ClassVar[tuple[type, ...]] = (MaskedHead,)

    num_layers: int = 1
    init: Scheme | None = None

    def build(self, *, embed_dim: int, dims: int) -> MaskedHead:
        """Build the predictor with initial weights."""
        del dims
        head = MaskedHead(embed_dim, num_layers=self.num_layers)
        if self.init is not None:
            initialise(head, self.init)
        return head


@frozen(kw_only=True)
class TargetsConfig:
    """`TargetAverager`; see there.

    Args:
        layers: layers (from 0) to average, or a number K = the last K layers (`average_top_k_layers`).
    """

    described_by: ClassVar[tuple[type, ...]] = (TargetAverager,)

    layers: tuple[int, ...] | int
    kind: ResultKind = "ffn"
    each: tuple[TargetNorm, ...] = ("instance",)
    after: tuple[TargetNorm, ...] = ()

    def build(self, *, depth: int) -> TargetAverager:
        """Build the averager for an encoder with `depth` blocks."""
        layers = range(depth - self.layers, depth) if isinstance(self.layers, int) else self.layers
        if not layers or min(layers) < 0 or max(layers) >= depth:
            raise ValueError(f"targets.layers={self.layers} does not fit an encoder of {depth} blocks")
        return TargetAverager(layers, kind=self.kind, each=self.each, after=self.after)


@frozen(kw_only=True)
class TeacherConfig:
    """`EMATeacher`; see there.

    Args:
        schedule: schedule of the decay.
    """

    described_by: ClassVar[tuple[type, ...]] = (EMATeacher,)

    schedule: EMASchedule
    leave_out: tuple[str, ...] = ()
    copy: tuple[str, ...] = ()

    def build(self, student: nn.Module) -> EMATeacher:
        """Build a teacher that starts as a copy of the student."""
        return EMATeacher(student, self.schedule, leave_out=self.leave_out, copy=self.copy)


class StudentConfig(Protocol):
    """Configuration of a student: `BackboneConfig`, or a third-party one (`d2v.students`)."""

    @property
    def embed_dim(self) -> int:
        """Width d of the output."""
        ...

    @property
    def depth(self) -> int:
        """Number of layers that it passes to a sink."""
        ...

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities that it takes."""
        ...

    def grid_axes(self, modality: str) -> int:
        """Return the number of axes of the grid of positions, 1 or 2."""
        ...

    def pixel_dim(self, modality: str) -> int:
        """Return the size of the raw content of a position, for the reconstruction loss; 0 = none."""
        ...

    def unmasked(self) -> "StudentConfig":
        """Return the configuration for features and fine-tuning: every position is kept."""
        ...

    def build(self) -> Student:
        """Build the student with initial weights, a module that implements `Encodes`."""
        ...


@frozen(kw_only=True)
class BackboneConfig:
    """Configuration of an encoder with its adapters; see `Backbone`.

    Args:
        encoder: encoder shared by all modalities.
        adapters: adapters by modality.
        visible_only: whether hidden positions are dropped.
    """

    described_by: ClassVar[tuple[type, ...]] = (Backbone,)

    encoder: EncoderConfig
    adapters: Mapping[str, AdapterConfig]
    visible_only: bool = True

    @property
    def embed_dim(self) -> int:
        """Width d of the encoder."""
        return self.encoder.embed_dim

    @property
    def depth(self) -> int:
        """Number of layers of the shared encoder."""
        return self.encoder.depth

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities with an adapter."""
        return tuple(self.adapters)

    def grid_axes(self, modality: str) -> int:
        """Return the number of axes of the grid of positions, 1 or 2."""
        return self.adapters[modality].dims

    def pixel_dim(self, modality: str) -> int:
        """Return the size of the raw content of a position; 0 = none."""
        return self.adapters[modality].pixel_dim

    def unmasked(self) -> "BackboneConfig":
        """Return the configuration with every position kept."""
        return attrs.evolve(self, visible_only=False)

    def build(self) -> Backbone:
        """Build the encoder and its adapters with initial weights."""
        adapters = {name: adapter.build(self.encoder) for name, adapter in self.adapters.items()}
        return Backbone(adapters, self.encoder.build(), visible_only=self.visible_only)


@frozen(kw_only=True)
class ModelConfig:
    """Configuration of a model without masks and seed, which are separate in a recipe; see `Data2Vec`.

    Args:
        student: network to train.
        predictors: predictors by modality.
        targets: targets computed from the teacher's layers.
        teacher: moving average of the student.
        loss: loss between predictions and targets.
        num_masks: m, number of masked views of each sample (`clone_batch`).
        regression_weight: weight of the loss between predictions and targets.
        cls_weight: weight of the class token's loss.
        pixel_weight: weight of the reconstruction loss.
    """

    described_by: ClassVar[tuple[type, ...]] = (Data2Vec,)

    student: StudentConfig
    predictors: Mapping[str, PredictorConfig]
    targets: TargetsConfig
    teacher: TeacherConfig
    loss: RegressionLoss = field(factory=RegressionLoss)
    num_masks: int = 1
    regression_weight: float = 1.0
    cls_weight: float = 0.0
    pixel_weight: float = 0.0


@frozen(kw_only=True)
class Data2VecConfig(ModelConfig):
    """Configuration of a complete model; see `Data2Vec`.

    Args:
        maskers: maskers by modality.
        seed: seed of the masks.
    """

    maskers: Mapping[str, Masker]
    seed: int = 0

    def build(self) -> Data2Vec:
        """Build the model with initial weights."""
        student, config = self.student.build(), self.student
        return Data2Vec(
            student,
            self.teacher.build(student),
            predictors={
                name: predictor.build(embed_dim=config.embed_dim, dims=config.grid_axes(name))
                for name, predictor in self.predictors.items()
            },
            maskers=self.maskers,
            targets=self.targets.build(depth=config.depth),
            loss=self.loss,
            num_masks=self.num_masks,
            regression_weight=self.regression_weight,
            cls_weight=self.cls_weight,
            pixel_weight=self.pixel_weight,
            pixel_heads={
                name: nn.Linear(config.embed_dim, width)
                for name in config.modalities
                if self.pixel_weight and (width := config.pixel_dim(name))
            },
            seed=self.seed,
        )
