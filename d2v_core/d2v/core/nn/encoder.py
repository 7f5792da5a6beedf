"""A stack of transformer blocks that computes only the layers that are needed.

The same class is used for the shared encoder and for a modality's context encoder (norm, dropout, prenet blocks).
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import torch
from attrs.validators import ge
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from d2v.core.nn.attention import AttentionBias, AttentionMask, attention_mask, check_bias
from d2v.core.nn.block import TransformerBlock
from d2v.core.nn.distances import DistanceBias
from d2v.core.nn.dropout import Dropout
from d2v.core.nn.initialisation import Scheme, initialise, scale_branches
from d2v.core.nn.layer_drop import skipped
from d2v.core.nn.packing import PackedRows
from d2v.core.nn.recompute import keeping_all
from d2v.core.nn.sinks import LayerSink
from d2v.core.validators import check, probability

LayerBias = Callable[[int], AttentionBias | None]


class TransformerEncoder(nn.Module):
    """Input norm, dropout, blocks and output norm, each optional. `stack` makes an encoder of equal blocks.

    Args:
        blocks: transformer blocks, possibly none.
        norm_in: norm before the first block, or None.
        norm_out: norm after the last block, or None.
        dropout: dropout rate after the input norm.
        layer_drop: probability in training that a block is skipped, for the whole batch.

    With `checkpoint_activations = True`, the backward pass computes each block again instead of keeping its
    activations.

    >>> encoder = TransformerEncoder([TransformerBlock(8, num_heads=2) for _ in range(2)])
    >>> encoder(torch.zeros(3, 5, 8)).shape
    torch.Size([3, 5, 8])
    """

    def __init__(
        self,
        blocks: Iterable[TransformerBlock] = (),
        *,
        norm_in: nn.LayerNorm | None = None,
        norm_out: nn.LayerNorm | None = None,
        dropout: float = 0.0,
        layer_drop: float = 0.0,
    ) -> None:
        super().__init__()
        check(probability, layer_drop=layer_drop)
        self.norm_in = norm_in
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(blocks)
        self.norm_out = norm_out
        self.layer_drop = layer_drop
        self.checkpoint_activations = False

    @classmethod
    def stack(
        cls,
        embed_dim: int,
        depth: int,
        num_heads: int,
        *,
        drop_path_rate: float | tuple[float, float] = 0.0,
        norm_in: nn.LayerNorm | None = None,
        norm_out: nn.LayerNorm | None = None,
        input_dropout: float = 0.0,
        layer_drop: float = 0.0,
        init: Scheme = "normal",
        **block: Any,
    ) -> "TransformerEncoder":
        """Make an encoder of equal blocks, initialised as the published models.

        Args:
            embed_dim: d, the width.
            depth: number of blocks.
            num_heads: h, divides d.
            drop_path_rate: rate of the last block, linear from 0 at the first; or the rates of the first and the last.
            norm_in: norm before the first block, or None.
            norm_out: norm after the last block, or None.
            input_dropout: dropout rate after the input norm.
            layer_drop: probability in training that a block is skipped, for the whole batch.
            init: see `initialise`; "scaled" also scales the branches by depth (`scale_branches`).
            block: further arguments of every `TransformerBlock`, such as `mlp_ratio` or `norm`.

        Raises:
            ValueError: if `depth` is negative, or as `TransformerBlock`.
            TypeError: if `TransformerBlock` has no such argument.

        >>> encoder = TransformerEncoder.stack(8, depth=3, num_heads=2, drop_path_rate=0.1, norm="pre")
        >>> [round(block.drop_path_rate, 3) for block in encoder.blocks]
        [0.0, 0.05, 0.1]
        """
        check(ge(0), depth=depth)
        first, last = drop_path_rate if isinstance(drop_path_rate, tuple) else (0.0, drop_path_rate)
        rates = torch.linspace(first, last, depth, device="cpu").tolist()
        blocks = [TransformerBlock(embed_dim, num_heads=num_heads, drop_path_rate=rate, **block) for rate in rates]
        encoder = cls(blocks, norm_in=norm_in, norm_out=norm_out, dropout=input_dropout, layer_drop=layer_drop)
        initialise(encoder, init)
        if init == "scaled":
            scale_branches(block.last_linears for block in blocks)
        return encoder

    def forward(
        self,
        x: Tensor,
        *,
        padding: Tensor | None = None,
        bias: LayerBias | None = None,
        num_prefix_tokens: int = 0,
        sink: LayerSink | None = None,
    ) -> Tensor:
        """Run the blocks that are needed.

        Args:
            x: `r (e+k) d`.
            padding: Bool `r (e+k)`, True = padding, or None.
            bias: function from a layer (from 0) to its attention bias `r h (e+k) (e+k)`, a tensor or by distance, or
                None.
            num_prefix_tokens: e, passed to the sink.
            sink: receives layer results; None = only the output is needed.

        Returns:
            The output `r (e+k) d`; if the sink does not want it, the state after the last layer that it wants.

        Raises:
            ValueError: if the sink wants a layer that the encoder does not have, or a shape does not fit.
        """
        if self.norm_in is not None:
            x = self.norm_in(x)
        x = self.dropout(x)
        tokens, rows = x, self._rows(x, padding)
        x = x if rows is None else rows.pack(x)
        merged: list[AttentionBias | None] = []
        mask: AttentionMask | None = None
        for layer in range(self._depth(sink)):
            if self.training and self.layer_drop > 0 and skipped(self.layer_drop):
                continue
            layer_bias = bias(layer) if bias is not None else None
            if not merged or merged[0] is not layer_bias:  # most models share one bias over all layers
                merged, mask = [layer_bias], _mask(tokens, layer_bias, padding, rows)
            x, branch = self._run(self.blocks[layer], x, mask)
            if sink is not None and layer in sink.wants:
                result = branch if sink.kind == "ffn" else x
                sink(layer, result if rows is None else rows.unpack(result), num_prefix_tokens)
        if self.norm_out is not None and (sink is None or sink.output):
            x = self.norm_out(x)
        return x if rows is None else rows.unpack(x)

    def _rows(self, x: Tensor, padding: Tensor | None) -> PackedRows | None:
        """How to leave out padding, or None; code compiled for one length would be compiled again for all others."""
        rows = PackedRows.of(x, padding)
        if rows is None or len(self.blocks) == 0:
            return None
        compiled = any(getattr(one, "_compiled_call_impl", None) is not None for one in self.blocks)
        own = all(isinstance(one, TransformerBlock) for one in self.blocks)
        return rows if own and not compiled else None

    def _run(self, block: nn.Module, x: Tensor, mask: AttentionMask | None) -> tuple[Tensor, Tensor]:
        if self.checkpoint_activations and self.training and torch.is_grad_enabled():
            with keeping_all():  # only the block's input is kept
                recomputed: tuple[Tensor, Tensor] = checkpoint(_run_alone, block, x, mask, use_reentrant=False)
            return recomputed
        once: tuple[Tensor, Tensor] = block(x, mask)
        return once

    def _depth(self, sink: LayerSink | None) -> int:
        if sink is None:
            return len(self.blocks)
        missing = sorted(layer for layer in sink.wants if not 0 <= layer < len(self.blocks))
        if missing:
            raise ValueError(f"layer {missing[0]} is wanted, but the encoder has {len(self.blocks)} blocks (from 0)")
        return len(self.blocks) if sink.output else max(sink.wants, default=-1) + 1


def _mask(
    tokens: Tensor, bias: AttentionBias | None, padding: Tensor | None, rows: PackedRows | None
) -> AttentionMask | None:
    if rows is None:
        return attention_mask(tokens, bias, padding)
    check_bias(tokens, bias)
    return dataclasses.replace(rows, bias=bias)


def _run_alone(block: nn.Module, x: Tensor, mask: AttentionMask | None) -> tuple[Tensor, Tensor]:
    # The blocks share the full bias, so the first one would find it when it runs again, and keep other tensors.
    result: tuple[Tensor, Tensor] = block(x, dataclasses.replace(mask) if isinstance(mask, DistanceBias) else mask)
    return result
