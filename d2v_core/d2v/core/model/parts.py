"""What encoders and adapters are made of, as values that can be written down.

Pieces never see a configuration: `build()` turns one into pieces and hands them plain values.
"""

from typing import Any, ClassVar, Protocol

import attrs
from attrs import field, frozen
from attrs.validators import ge
from torch import nn

from d2v.core.model.adapter import ModalityAdapter
from d2v.core.nn import Alibi, TransformerBlock, TransformerEncoder
from d2v.core.nn.alibi import Distance
from d2v.core.nn.attention import QKVBias
from d2v.core.nn.block import Activation, NormForm
from d2v.core.nn.initialisation import Scheme


@frozen(kw_only=True)
class BlockConfig:
    """One transformer block; see `TransformerBlock` for the fields."""

    described_by: ClassVar[tuple[type, ...]] = (TransformerBlock,)

    embed_dim: int
    num_heads: int
    mlp_ratio: float = 4.0
    activation: Activation = "gelu"
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


class EncoderConfig(Protocol):
    """What the shared encoder of a `Backbone` is made of: `TransformerConfig`, or somebody else's (`d2v.encoders`)."""

    @property
    def embed_dim(self) -> int:
        """Width d."""
        ...

    @property
    def depth(self) -> int:
        """Layers that can be read, by targets and probes."""
        ...

    @property
    def num_heads(self) -> int:
        """Heads that an attention bias is for."""
        ...

    def build(self) -> TransformerEncoder:
        """The encoder with initial weights: a `TransformerEncoder`, or a module called as one that has `blocks`."""
        ...

    def build_context(self, context: "ContextConfig") -> TransformerEncoder:
        """What runs in an adapter before the shared encoder, likewise."""
        ...


@frozen(kw_only=True)
class TransformerConfig:
    """A stack of equal blocks; see `TransformerEncoder`.

    Args:
        block: every block.
        depth: number of blocks.
        drop_path_rate: rates of the first and the last block, linear between.
        norm_in: whether a norm stands in front.
        norm_out: whether a norm stands behind.
        norm_affine: whether these two norms have weights.
        dropout: after the norm in front.
        layer_drop: probability that a block is skipped in training.
        init: see `initialise`.
    """

    described_by: ClassVar[tuple[type, ...]] = (TransformerEncoder,)

    block: BlockConfig
    depth: int = field(validator=ge(0))
    drop_path_rate: tuple[float, float] = (0.0, 0.0)
    norm_in: bool = False
    norm_out: bool = False
    norm_affine: bool = True
    dropout: float = 0.0
    layer_drop: float = 0.0
    init: Scheme = "normal"

    @property
    def embed_dim(self) -> int:
        """Width d."""
        return self.block.embed_dim

    @property
    def num_heads(self) -> int:
        """Heads of each block."""
        return self.block.num_heads

    def build_context(self, context: "ContextConfig") -> TransformerEncoder:
        """Context blocks that are like those of the encoder."""
        return TransformerConfig(
            block=self.block,
            depth=context.depth,
            drop_path_rate=context.drop_path_rate,
            norm_in=context.norm,
            norm_affine=context.norm_affine,
            dropout=context.dropout,
            layer_drop=context.layer_drop,
            init=self.init,
        ).build()

    def build(self) -> TransformerEncoder:
        """The encoder with initial weights."""
        return TransformerEncoder.stack(
            depth=self.depth,
            drop_path_rate=self.drop_path_rate,
            norm_in=self._norm() if self.norm_in else None,
            norm_out=self._norm() if self.norm_out else None,
            input_dropout=self.dropout,
            layer_drop=self.layer_drop,
            init=self.init,
            **attrs.asdict(self.block),
        )

    def _norm(self) -> nn.LayerNorm:
        return nn.LayerNorm(self.block.embed_dim, eps=self.block.norm_eps, elementwise_affine=self.norm_affine)


@frozen(kw_only=True)
class ContextConfig:
    """What runs in an adapter before the shared encoder: norm, dropout and prenet blocks like those of the encoder.

    Args:
        depth: number of blocks.
        norm: whether a norm stands in front.
        norm_affine: whether that norm has weights.
        dropout: after that norm.
        layer_drop: probability that a block is skipped in training.
        drop_path_rate: rates of the first and the last block, linear between.
    """

    depth: int = 0
    norm: bool = True
    norm_affine: bool = True
    dropout: float = 0.0
    layer_drop: float = 0.0
    drop_path_rate: tuple[float, float] = (0.0, 0.0)


@frozen(kw_only=True)
class AlibiConfig:
    """Distance bias; see `Alibi`.

    Args:
        per_layer: whether each layer, context blocks included, has a scale of its own.
    """

    described_by: ClassVar[tuple[type, ...]] = (Alibi,)

    per_head: bool = True
    per_layer: bool = False
    scale: float = 1.0
    learned: bool = True
    distance: Distance = "manhattan"

    def build(self, *, num_heads: int, num_layers: int) -> Alibi:
        """The bias for a model of so many heads and layers."""
        values = attrs.asdict(self)
        return Alibi(num_heads, num_layers=num_layers if values.pop("per_layer") else 1, **values)


@frozen(kw_only=True)
class AdapterParts:
    """What an adapter of any modality may have; a modality's configuration adds its front end and changes defaults.

    Args:
        extra_tokens: e; the last one is the class token.
        extra_tokens_std: standard deviation of their initial values.
        first_token_zero: whether the first extra token starts at zero.
        alibi: distance bias, or None.
        context: what runs before the shared encoder, or None.
        noise_std: noise put at hidden positions that are kept, where there is no mask token.
        gradient_scale: factor of the gradient that reaches the front end's first stage.
    """

    extra_tokens: int = 0
    extra_tokens_std: float = 1.0
    first_token_zero: bool = False
    alibi: AlibiConfig | None = None
    context: ContextConfig | None = field(factory=ContextConfig)
    noise_std: float = 0.0
    gradient_scale: float = 1.0

    def arguments(self, encoder: EncoderConfig) -> dict[str, Any]:
        """What the modality's adapter takes: the width, every field, and bias and context made for the encoder."""
        values = {one.name: getattr(self, one.name) for one in attrs.fields(type(self))}
        alibi, context = values.pop("alibi"), values.pop("context")
        heads, layers = encoder.num_heads, self.num_layers(encoder)
        values["bias"] = None if alibi is None else alibi.build(num_heads=heads, num_layers=layers)
        values["context"] = None if context is None else encoder.build_context(context)
        return {"embed_dim": encoder.embed_dim, **values}

    def num_layers(self, encoder: EncoderConfig) -> int:
        """Blocks of context and shared encoder together."""
        return encoder.depth + (0 if self.context is None else self.context.depth)


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
