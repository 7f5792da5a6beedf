"""Configurations of encoders and adapters.

Modules never receive a configuration: `build()` constructs them from plain values.
"""

from typing import Any, ClassVar, Protocol

import attrs
from attrs import field, frozen
from attrs.validators import ge
from torch import nn

from d2v.core.model.adapter import ModalityAdapter
from d2v.core.nn import Alibi, TransformerBlock, TransformerEncoder
from d2v.core.nn.attention import QKVBias
from d2v.core.nn.block import Activation, NormForm
from d2v.core.nn.distances import Distance
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
    """Configuration of a `Backbone`'s shared encoder: `TransformerConfig`, or a third-party one (`d2v.encoders`)."""

    @property
    def embed_dim(self) -> int:
        """Width d."""
        ...

    @property
    def depth(self) -> int:
        """Number of layers that targets and probes can use."""
        ...

    @property
    def num_heads(self) -> int:
        """Number of heads that an attention bias must have."""
        ...

    def build(self) -> TransformerEncoder:
        """Build the encoder: a `TransformerEncoder`, or a module with `blocks` and the same call signature."""
        ...

    def build_context(self, context: "ContextConfig") -> TransformerEncoder:
        """Build the context encoder of an adapter, which runs before the shared encoder."""
        ...


@frozen(kw_only=True)
class TransformerConfig:
    """A stack of equal blocks; see `TransformerEncoder`.

    Args:
        block: configuration of every block.
        depth: number of blocks.
        drop_path_rate: rates of the first and the last block, linear between.
        norm_in: whether there is a norm before the first block.
        norm_out: whether there is a norm after the last block.
        norm_affine: whether these two norms have weights.
        dropout: dropout rate after the input norm.
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
        """Number of heads of each block."""
        return self.block.num_heads

    def build_context(self, context: "ContextConfig") -> TransformerEncoder:
        """Build context blocks with the settings of the encoder's blocks."""
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
        """Build the encoder with initial weights."""
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
    """Context encoder of an adapter, before the shared encoder: norm, dropout and blocks with the encoder's settings.

    Args:
        depth: number of blocks.
        norm: whether there is a norm before the first block.
        norm_affine: whether that norm has weights.
        dropout: dropout rate after that norm.
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
        per_layer: whether each layer, context blocks included, has a separate scale.
    """

    described_by: ClassVar[tuple[type, ...]] = (Alibi,)

    per_head: bool = True
    per_layer: bool = False
    scale: float = 1.0
    learned: bool = True
    distance: Distance = "manhattan"

    def build(self, *, num_heads: int, num_layers: int) -> Alibi:
        """Build the bias for a model with this number of heads and layers."""
        values = attrs.asdict(self)
        return Alibi(num_heads, num_layers=num_layers if values.pop("per_layer") else 1, **values)


@frozen(kw_only=True)
class AdapterParts:
    """Settings that adapters of all modalities share; a modality's configuration adds its front end and its defaults.

    Args:
        extra_tokens: e, number of extra tokens; the last one is the class token.
        extra_tokens_std: standard deviation of their initial values.
        first_token_zero: whether the first extra token starts at zero.
        alibi: distance bias, or None.
        context: context encoder before the shared encoder, or None.
        noise_std: standard deviation of the noise at hidden positions that are kept, without a mask token.
        gradient_scale: factor on the gradient that reaches the first stage of the front end.
    """

    extra_tokens: int = 0
    extra_tokens_std: float = 1.0
    first_token_zero: bool = False
    alibi: AlibiConfig | None = None
    context: ContextConfig | None = field(factory=ContextConfig)
    noise_std: float = 0.0
    gradient_scale: float = 1.0

    def arguments(self, encoder: EncoderConfig) -> dict[str, Any]:
        """Return the arguments of the adapter: the width, all fields, and bias and context built for the encoder."""
        values = {one.name: getattr(self, one.name) for one in attrs.fields(type(self))}
        alibi, context = values.pop("alibi"), values.pop("context")
        heads, layers = encoder.num_heads, self.num_layers(encoder)
        values["bias"] = None if alibi is None else alibi.build(num_heads=heads, num_layers=layers)
        values["context"] = None if context is None else encoder.build_context(context)
        return {"embed_dim": encoder.embed_dim, **values}

    def num_layers(self, encoder: EncoderConfig) -> int:
        """Total number of blocks of context and shared encoder."""
        return encoder.depth + (0 if self.context is None else self.context.depth)


class AdapterConfig(Protocol):
    """Configuration of a modality's adapter."""

    def build(self, encoder: EncoderConfig) -> ModalityAdapter:
        """Build the adapter for a shared encoder."""
        ...

    @property
    def dims(self) -> int:
        """Number of axes of the grid of positions, 1 or 2."""
        ...

    @property
    def pixel_dim(self) -> int:
        """Size of the raw content of a position, for the reconstruction loss; 0 = none."""
        ...
