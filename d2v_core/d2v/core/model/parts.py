"""What encoders and adapters are made of, as values that can be written down.

Pieces never see a configuration: `build()` turns one into pieces and hands them plain values.
"""

from typing import Any, ClassVar, Protocol

import attrs
import torch
from attrs import field, frozen
from attrs.validators import ge
from torch import nn

from d2v.core.model.adapter import ExtraTokens, ModalityAdapter
from d2v.core.nn import Alibi, TransformerBlock, TransformerEncoder, initialise
from d2v.core.nn.alibi import Distance
from d2v.core.nn.attention import QKVBias
from d2v.core.nn.block import Activation, NormForm
from d2v.core.nn.initialisation import Scheme, scale_branches


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

    def build(self, *, drop_path_rate: float = 0.0) -> TransformerBlock:
        """The block with a drop-path rate."""
        return TransformerBlock(**attrs.asdict(self), drop_path_rate=drop_path_rate)


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
        rates = torch.linspace(*self.drop_path_rate, self.depth, device="cpu").tolist()
        blocks = [self.block.build(drop_path_rate=rate) for rate in rates]
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
    first_token_zero: bool = True
    alibi: AlibiConfig | None = None
    context: ContextConfig | None = field(factory=ContextConfig)
    noise_std: float = 0.0
    gradient_scale: float = 1.0

    def parts(self, encoder: EncoderConfig) -> dict[str, Any]:
        """Arguments of `ModalityAdapter` for a shared encoder."""
        num_layers, heads = self.num_layers(encoder), encoder.num_heads
        return {
            "bias": None if self.alibi is None else self.alibi.build(num_heads=heads, num_layers=num_layers),
            "extra_tokens": self.build_extra_tokens(encoder.embed_dim) if self.extra_tokens else None,
            "context": None if self.context is None else encoder.build_context(self.context),
            "noise_std": self.noise_std,
        }

    def num_layers(self, encoder: EncoderConfig) -> int:
        """Blocks of context and shared encoder together."""
        return encoder.depth + (0 if self.context is None else self.context.depth)

    def build_extra_tokens(self, embed_dim: int) -> ExtraTokens:
        """The extra tokens."""
        return ExtraTokens(self.extra_tokens, embed_dim, std=self.extra_tokens_std, first_zero=self.first_token_zero)


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
