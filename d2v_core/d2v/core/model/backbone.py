"""Encoder and adapters.

The same code is used for data2vec 2.0 (hidden positions are dropped) and 1.0 (they are replaced), and for pretraining,
the teacher and feature extraction.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor, nn

from d2v.core.masks import Mask
from d2v.core.model.adapter import ModalityAdapter, repeat_rows
from d2v.core.model.batch import Batch, Encoded, Layout, Local, Tokens, pick
from d2v.core.model.batcher import MultimaskBatcher
from d2v.core.nn import LayerSink, TransformerEncoder

Start = Literal["raw", "local", "tokens"]


class Encodes(Protocol):
    """An encoder that can be trained with `Data2Vec`: a `Backbone`, or a third-party encoder with this one method.

    Optional members, as in `Backbone`: `front` (masks then apply to its local features), `layout` (then masks can be
    drawn before the step), `start_of` with `front` and `tokens` (its teacher may lack modules), `pixels` (for a pixel
    loss), `modalities` (names for a single predictor), `depth` and `num_prefix_tokens` (to check the model when it is
    created).
    """

    def encode(
        self,
        batch: Batch,
        mask: Mask | None = None,
        *,
        local: Local | None = None,
        tokens: Tokens | None = None,
        sink: LayerSink | None = None,
    ) -> Encoded:
        """Encode a batch; mask None = nothing is masked. `local` and `tokens` are earlier results to start from."""
        ...


class Student(nn.Module):
    """Type of a module that implements `Encodes`; inheriting from this class is not required."""

    def encode(
        self,
        batch: Batch,
        mask: Mask | None = None,
        *,
        local: Local | None = None,
        tokens: Tokens | None = None,
        sink: LayerSink | None = None,
    ) -> Encoded:
        """Encode a batch; see `Encodes`."""
        raise NotImplementedError(f"{type(self).__name__} has no method encode")


class Backbone(Student):
    """Modality adapters and one shared encoder.

    Args:
        adapters: adapters by modality, or a single adapter.
        encoder: shared encoder: a `TransformerEncoder`, or a module with `blocks` and the same call signature.
        visible_only: True = hidden positions are dropped (2.0 pretraining); False = they are replaced and kept (1.0,
            and fine-tuning with masks).

    >>> class Front(nn.Module):
    ...     def forward(self, batch):
    ...         return Local(x=batch.source, padding=None, grid=(batch.source.shape[1],))
    >>> backbone = Backbone(ModalityAdapter(Front()), TransformerEncoder.stack(8, depth=1, num_heads=2))
    >>> batch = Batch(source=torch.zeros(2, 5, 8))
    >>> backbone.encode(batch).x.shape
    torch.Size([2, 5, 8])
    >>> mask = Mask(hidden=torch.tensor([[True, True, False, False, True]] * 6), num_masks=3)
    >>> backbone.encode(batch, mask).x.shape
    torch.Size([6, 2, 8])
    """

    def __init__(
        self,
        adapters: ModalityAdapter | Mapping[str, ModalityAdapter],
        encoder: TransformerEncoder,
        *,
        visible_only: bool = True,
    ) -> None:
        super().__init__()
        if isinstance(adapters, ModalityAdapter):
            adapters = {adapters.modality: adapters}
        self.adapters = nn.ModuleDict(dict(adapters))
        self.encoder = encoder
        self.visible_only = visible_only

    def adapter(self, modality: str | None) -> ModalityAdapter:
        """Return the adapter of a modality; None = the only one."""
        return pick(self.adapters, modality, "adapter")

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities with an adapter."""
        return tuple(self.adapters)

    def blocks(self, modality: str | None = None) -> list[nn.Module]:
        """Return context blocks, then encoder blocks: the order for layer decay and freezing."""
        context = self.adapter(modality).context
        return [*(context.blocks if context is not None else ()), *self.encoder.blocks]

    @property
    def depth(self) -> int:
        """Number of blocks of the shared encoder; in a teacher, of those before the first one that is left out."""
        lacking = self.encoder is None or self.encoder.blocks is None
        blocks: list[nn.Module | None] = [] if lacking else list(self.encoder.blocks)
        return blocks.index(None) if None in blocks else len(blocks)

    def num_prefix_tokens(self, modality: str | None = None) -> int:
        """Return e, the number of tokens that a modality's adapter puts before the positions."""
        extra_tokens = self.adapter(modality).extra_tokens
        return 0 if extra_tokens is None else extra_tokens().shape[1]

    def pixels(self, batch: Batch) -> Tensor:
        """Return the normalised raw content of each position, `b t p`; see `ModalityAdapter.pixels`."""
        return self.adapter(batch.modality).pixels(batch)

    def start_of(self, teacher: nn.Module, modality: str | None = None) -> Start:
        """Return the first stage from which a teacher of this student has all modules.

        Args:
            teacher: the averaged module.
            modality: name of the modality; None = the only one.

        Returns:
            "raw" = the raw input: the teacher has a front end, or is not a copy of this student; "local" = this
            student's local features: the teacher has no front end; "tokens" = this student's tokens of the clean input:
            the teacher lacks positions, bias, extra tokens or context, or the whole adapter.
        """
        own = self.adapter(modality)
        if not hasattr(teacher, "adapters"):
            return "raw"
        adapters: Any = teacher.adapters
        other: ModalityAdapter | None = None if adapters is None else pick(adapters, modality, "adapter")

        def lacks(part: str) -> bool:
            return getattr(other, part) is None and getattr(own, part) is not None

        if other is None or any(lacks(part) for part in ("positions", "bias", "extra_tokens", "context")):
            return "tokens"
        return "local" if lacks("front") else "raw"

    def layout(self, batch: Batch) -> Layout | None:
        """Return the layout of a batch's positions without computing its features; None if the front end cannot."""
        return self.adapter(batch.modality).layout(batch)

    def front(self, batch: Batch) -> Local:
        """Compute the local features of a batch, once per sample and without masking."""
        return self.adapter(batch.modality).front(batch)

    def tokens(self, batch: Batch, local: Local | None = None, mask: Mask | None = None) -> Tokens:
        """Compute the input of the shared encoder: positions, masking, extra tokens, context.

        Args:
            batch: b samples.
            local: local features of the batch, if already computed.
            mask: `(b m) t`, or None = nothing is masked.

        Returns:
            Tokens of b or (b m) rows.

        Raises:
            ValueError: if the mask does not fit, or counts differ between rows although hidden positions are dropped.
        """
        adapter = self.adapter(batch.modality)
        local = self.front(batch) if local is None else local
        local = dataclasses.replace(local, x=adapter.dropout(local.x))
        x, padding, position = local.x, local.padding, None
        _check(mask, local)
        dropped = mask if self.visible_only else None
        if mask is not None and dropped is None:
            x = adapter.corrupt(batch, local, mask)
            padding = None if padding is None else repeat_rows(padding, x.shape[0])
        if adapter.zero_padding and padding is not None:
            x = x.masked_fill(padding[..., None], 0)
        offset = None if adapter.positions is None else adapter.positions(x, dropped)
        if dropped is None:
            x = x if offset is None else x + offset
        else:
            batcher, position = MultimaskBatcher(dropped), dropped.visible
            x = batcher.visible(x) if offset is None else batcher.visible(x) + batcher.visible(offset)
            padding = None if padding is None else batcher.visible(padding)
        # An exported graph has one path for all values, with and without padding.
        if padding is not None and not torch.compiler.is_exporting() and not _any(padding, batch, dropped):
            padding = None
        return self._with_context(
            adapter, Tokens(x=x, padding=padding, position=position, num_prefix_tokens=0, grid=local.grid)
        )

    @staticmethod
    def _with_context(adapter: ModalityAdapter, tokens: Tokens) -> Tokens:
        if adapter.extra_tokens is not None:
            extra = adapter.extra_tokens()
            x = torch.cat([repeat(extra.to(tokens.x.dtype), "1 e d -> r e d", r=tokens.x.shape[0]), tokens.x], 1)
            padding = None if tokens.padding is None else F.pad(tokens.padding, (extra.shape[1], 0), value=False)
            tokens = dataclasses.replace(tokens, x=x, padding=padding, num_prefix_tokens=extra.shape[1])
        if adapter.bias is not None:
            tokens = dataclasses.replace(tokens, bias=adapter.bias(tokens))
        if adapter.context is None:
            return tokens
        x = adapter.context(tokens.x, padding=tokens.padding, bias=tokens.bias)
        return dataclasses.replace(tokens, x=x, num_context=len(adapter.context.blocks))

    def encode(
        self,
        batch: Batch,
        mask: Mask | None = None,
        *,
        local: Local | None = None,
        tokens: Tokens | None = None,
        sink: LayerSink | None = None,
    ) -> Encoded:
        """Encode a batch.

        Args:
            batch: b samples.
            mask: `(b m) t`; None = nothing is masked.
            local: local features to start from.
            tokens: tokens to start from; their bias is used unless the adapter has a bias.
            sink: receives layer results of the shared encoder.

        Returns:
            Encoded rows, b or (b m).

        Raises:
            ValueError: if the mask, the padding or the bias does not fit.
        """
        if tokens is None:
            local = self.front(batch) if local is None else local
            tokens = self.tokens(batch, local, mask)
        elif (bias_module := self._bias(batch.modality)) is not None:
            tokens = dataclasses.replace(tokens, bias=bias_module(tokens))
        bias, first = tokens.bias, tokens.num_context
        x: Tensor = self.encoder(
            tokens.x,
            padding=tokens.padding,
            bias=None if bias is None else lambda layer: bias(first + layer),
            num_prefix_tokens=tokens.num_prefix_tokens,
            sink=sink,
        )
        return Encoded(
            x=x, padding=tokens.padding, num_prefix_tokens=tokens.num_prefix_tokens, grid=tokens.grid, local=local
        )

    def _bias(self, modality: str | None) -> nn.Module | None:
        # A teacher may lack the adapter, or all adapters.
        adapter = None if self.adapters is None else self.adapter(modality)
        return None if adapter is None else adapter.bias


def _any(padding: Tensor, batch: Batch, dropped: Mask | None) -> bool:
    """Whether any token is padding; asks the device only if the batch does not know."""
    known: bool | None = None
    if batch.known is not None and (dropped is None or dropped is batch.mask):
        known = batch.known.padded if dropped is None else batch.known.visible_padded
    return bool(padding.any()) if known is None else known


def _check(mask: Mask | None, local: Local) -> None:
    if mask is None:
        return
    rows, length = mask.hidden.shape
    samples, positions = local.x.shape[:2]
    if length != positions or rows != samples * mask.num_masks:
        raise ValueError(
            f"a mask of {rows} rows and {length} positions with num_masks={mask.num_masks} does not fit "
            f"{samples} samples of {positions} positions"
        )
