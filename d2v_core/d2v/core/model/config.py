"""What a model is made of, as values that can be written down.

Pieces never see a configuration: `build()` turns one into pieces and hands them plain values.
"""

from collections.abc import Mapping
from typing import Literal, Protocol

import attrs
import torch
from attrs import field, frozen
from torch import nn

from d2v.core.loss import RegressionLoss
from d2v.core.masks import Masker
from d2v.core.model.adapter import ModalityAdapter
from d2v.core.model.backbone import Backbone
from d2v.core.model.composition import Data2Vec
from d2v.core.model.predictors import MaskedHead, VisibleDecoder
from d2v.core.nn import Alibi, ConvDecoder, TransformerBlock, TransformerEncoder, initialise
from d2v.core.nn.attention import QKVBias
from d2v.core.nn.block import NormForm
from d2v.core.nn.initialisation import Scheme, scale_branches
from d2v.core.nn.sinks import ResultKind
from d2v.core.teacher import EMASchedule, EMATeacher, TargetAverager
from d2v.core.teacher.targets import TargetNorm


@frozen(kw_only=True)
class BlockConfig:
    """One transformer block; see `TransformerBlock` for the fields."""

    dim: int
    num_heads: int
    hidden_dim: int | None = None
    norm: NormForm = "post"
    norm_eps: float = 1e-6
    norm_affine: bool = True
    qkv_bias: QKVBias = "all"
    layer_scale: float | None = None
    attention_dropout: float = 0.0
    projection_dropout: float = 0.0
    activation_dropout: float = 0.0
    branch_dropout: float = 0.0
    dropout: float = 0.0

    def build(self, *, drop_path: float = 0.0) -> TransformerBlock:
        """The block with a drop-path rate."""
        return TransformerBlock(**attrs.asdict(self), drop_path=drop_path)


@frozen(kw_only=True)
class EncoderConfig:
    """A stack of equal blocks.

    Args:
        block: every block.
        depth: number of blocks.
        drop_path: rates of the first and the last block, linear between.
        norm_in: whether a norm stands in front.
        norm_out: whether a norm stands behind.
        norm_affine: whether these two norms have weights.
        dropout: after the norm in front.
        layer_drop: probability that a block is skipped in training.
        init: see `initialise`.
    """

    block: BlockConfig
    depth: int = field()
    drop_path: tuple[float, float] = (0.0, 0.0)
    norm_in: bool = False
    norm_out: bool = False
    norm_affine: bool = True
    dropout: float = 0.0
    layer_drop: float = 0.0
    init: Scheme = "normal"

    @depth.validator
    def _check_depth(self, _: object, depth: int) -> None:
        if depth < 0:
            raise ValueError(f"depth={depth} is negative")

    def build(self) -> TransformerEncoder:
        """The encoder with initial weights."""
        rates = torch.linspace(*self.drop_path, self.depth).tolist()
        blocks = [self.block.build(drop_path=rate) for rate in rates]
        encoder = TransformerEncoder(
            blocks,
            norm_in=self._norm() if self.norm_in else None,
            norm_out=self._norm() if self.norm_out else None,
            dropout=self.dropout,
            layer_drop=self.layer_drop,
        )
        initialise(encoder, self.init)
        if self.init == "scaled":
            scale_branches(block.last_linears for block in blocks)
        return encoder

    def _norm(self) -> nn.LayerNorm:
        return nn.LayerNorm(self.block.dim, eps=self.block.norm_eps, elementwise_affine=self.norm_affine)


@frozen(kw_only=True)
class ContextConfig:
    """What runs in an adapter before the shared encoder: norm, dropout and prenet blocks like those of the encoder.

    Args:
        depth: number of blocks.
        norm: whether a norm stands in front.
        norm_affine: whether that norm has weights.
        dropout: after that norm.
        layer_drop: probability that a block is skipped in training.
        drop_path: rates of the first and the last block, linear between.
    """

    depth: int = 0
    norm: bool = True
    norm_affine: bool = True
    dropout: float = 0.0
    layer_drop: float = 0.0
    drop_path: tuple[float, float] = (0.0, 0.0)

    def build(self, encoder: EncoderConfig) -> TransformerEncoder:
        """The context encoder that goes with a shared encoder."""
        return EncoderConfig(
            block=encoder.block,
            depth=self.depth,
            drop_path=self.drop_path,
            norm_in=self.norm,
            norm_affine=self.norm_affine,
            dropout=self.dropout,
            layer_drop=self.layer_drop,
            init=encoder.init,
        ).build()


@frozen(kw_only=True)
class AlibiConfig:
    """Distance bias; see `Alibi`.

    Args:
        per_layer: whether each layer, context blocks included, has a scale of its own.
    """

    per_head: bool = True
    per_layer: bool = False
    scale: float = 1.0
    learned: bool = True
    distance: Literal["manhattan", "euclidean"] = "manhattan"

    def build(self, *, num_heads: int, num_layers: int) -> Alibi:
        """The bias for a model of so many heads and layers."""
        values = attrs.asdict(self)
        return Alibi(num_heads, num_layers=num_layers if values.pop("per_layer") else 1, **values)


class AdapterConfig(Protocol):
    """What a modality's adapter is made of."""

    def build(self, encoder: EncoderConfig) -> ModalityAdapter:
        """The adapter for a shared encoder."""
        ...

    @property
    def dims(self) -> int:
        """Axes of the grid of positions, 1 or 2."""
        ...

    @property
    def pixel_dim(self) -> int:
        """Numbers of raw content at a position, for the reconstruction loss; 0 = none."""
        ...


class PredictorConfig(Protocol):
    """What a predictor is made of."""

    def build(self, *, dim: int, dims: int) -> nn.Module:
        """The predictor for a width and a number of grid axes."""
        ...


@frozen(kw_only=True)
class ConvDecoderConfig:
    """`VisibleDecoder` with a `ConvDecoder`; see there.

    Args:
        init: of the projection: None = PyTorch's own (published image and speech models), else see `initialise`.
    """

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

    def build(self, *, dim: int, dims: int) -> VisibleDecoder:
        """The predictor with initial weights."""
        values = attrs.asdict(self)
        outer = {"noise_std": values.pop("noise_std"), "dropout": values.pop("dropout")}
        scheme = values.pop("init")
        decoder = ConvDecoder(dim, dims=dims, **values)
        if scheme is not None:
            initialise(decoder, scheme)
        return VisibleDecoder(decoder, **outer)


@frozen(kw_only=True)
class MaskedHeadConfig:
    """`MaskedHead`; see there.

    Args:
        init: None = PyTorch's own, else see `initialise`.
    """

    num_layers: int = 1
    init: Scheme | None = None

    def build(self, *, dim: int, dims: int) -> MaskedHead:
        """The predictor with initial weights."""
        del dims
        head = MaskedHead(dim, num_layers=self.num_layers)
        if self.init is not None:
            initialise(head, self.init)
        return head


@frozen(kw_only=True)
class TargetsConfig:
    """`TargetAverager`; see there.

    Args:
        layers: layers (from 0) to average, or their number K = the last K (`average_top_k_layers`).
    """

    layers: tuple[int, ...] | int
    kind: ResultKind = "ffn"
    each: tuple[TargetNorm, ...] = ("instance",)
    after: tuple[TargetNorm, ...] = ()

    def build(self, *, depth: int) -> TargetAverager:
        """The averager for an encoder of so many blocks."""
        layers = range(depth - self.layers, depth) if isinstance(self.layers, int) else self.layers
        if not layers or min(layers) < 0 or max(layers) >= depth:
            raise ValueError(f"targets.layers={self.layers} does not fit an encoder of {depth} blocks")
        return TargetAverager(layers, kind=self.kind, each=self.each, after=self.after)


@frozen(kw_only=True)
class TeacherConfig:
    """`EMATeacher`; see there.

    Args:
        schedule: of the decay.
    """

    schedule: EMASchedule
    leave_out: tuple[str, ...] = ()
    copy: tuple[str, ...] = ()

    def build(self, student: nn.Module) -> EMATeacher:
        """A teacher that starts as a copy of the student."""
        return EMATeacher(student, self.schedule, leave_out=self.leave_out, copy=self.copy)


@frozen(kw_only=True)
class Data2VecConfig:
    """A whole model; see `Data2Vec` and `Backbone`.

    Args:
        encoder: shared blocks.
        adapters: by modality.
        predictors: by modality.
        maskers: by modality.
        targets: from the teacher's layers.
        teacher: its average.
        loss: of predictions and targets.
        visible_only: whether hidden positions are dropped.
    """

    encoder: EncoderConfig
    adapters: Mapping[str, AdapterConfig]
    predictors: Mapping[str, PredictorConfig]
    maskers: Mapping[str, Masker]
    targets: TargetsConfig
    teacher: TeacherConfig
    loss: RegressionLoss = field(factory=RegressionLoss)
    visible_only: bool = True
    num_masks: int = 1
    regression_weight: float = 1.0
    cls_weight: float = 0.0
    pixel_weight: float = 0.0
    seed: int = 0

    def build_backbone(self) -> Backbone:
        """The encoder and its adapters alone: what features and fine-tuning need."""
        adapters = {name: adapter.build(self.encoder) for name, adapter in self.adapters.items()}
        return Backbone(adapters, self.encoder.build(), visible_only=self.visible_only)

    def build(self) -> Data2Vec:
        """The model with initial weights."""
        student = self.build_backbone()
        dim = self.encoder.block.dim
        return Data2Vec(
            student,
            self.teacher.build(student),
            predictors={
                name: predictor.build(dim=dim, dims=self.adapters[name].dims)
                for name, predictor in self.predictors.items()
            },
            maskers=self.maskers,
            targets=self.targets.build(depth=self.encoder.depth),
            loss=self.loss,
            num_masks=self.num_masks,
            regression_weight=self.regression_weight,
            cls_weight=self.cls_weight,
            pixel_weight=self.pixel_weight,
            pixel_heads={
                name: nn.Linear(dim, adapter.pixel_dim)
                for name, adapter in self.adapters.items()
                if self.pixel_weight and adapter.pixel_dim
            },
            seed=self.seed,
        )
