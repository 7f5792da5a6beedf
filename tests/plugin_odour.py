"""A third-party plug-in: an example modality with two of everything, and parts for any modality."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from attrs import frozen
from torch import Tensor, nn

from d2v.core.data import Batches, Contents, DataError, FixedPlan, Loader, Splits
from d2v.core.masks import Mask
from d2v.core.modality import Modality
from d2v.core.model import (
    Batch,
    ContextConfig,
    Encoded,
    EncoderConfig,
    Local,
    MaskedHead,
    ModalityAdapter,
    Student,
)
from d2v.core.nn import LayerSink, TransformerBlock, TransformerEncoder

WIDTH, LENGTH = 3, 8


class Front(nn.Linear):
    """Raw input `b t 3` to features."""

    def forward(self, batch: Batch) -> Local:  # type: ignore[override]  # a linear layer that reads a batch
        return Local(x=super().forward(batch.source), padding=None, grid=(batch.source.shape[1],))


@frozen(kw_only=True)
class GrainsConfig:
    """One front end."""

    dims: ClassVar[int] = 1
    pixel_dim: ClassVar[int] = 0

    def build(self, encoder: EncoderConfig) -> ModalityAdapter:
        """The adapter."""
        return ModalityAdapter(Front(WIDTH, encoder.embed_dim))


@frozen(kw_only=True)
class PlumesConfig(GrainsConfig):
    """Another one, which zeroes nothing and adds noise where nothing is seen."""

    noise: float = 0.1

    def build(self, encoder: EncoderConfig) -> ModalityAdapter:
        """The adapter."""
        return ModalityAdapter(Front(WIDTH, encoder.embed_dim), noise_std=self.noise)


class Numbers:
    """Samples that are computed from their ids."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __len__(self) -> int:
        return 16

    def get(self, id: int, *, seed: int, epoch: int) -> Tensor:
        """A sample `t 3`."""
        generator = torch.Generator().manual_seed(1000 * seed + 100 * epoch + id)
        return self.scale * torch.randn(LENGTH, WIDTH, generator=generator)


def collate(samples: list[Tensor], ids: Tensor) -> Batch:
    """A batch."""
    return Batch(source=torch.stack(samples), ids=ids)


@frozen(kw_only=True)
class JarsConfig:
    """One kind of data."""

    inherited: ClassVar[tuple[str, ...]] = ("scale",)

    path: str
    scale: float = 1.0

    def build(
        self, split: str | None, *, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1,
        training: bool = False, **labels: Any,
    ) -> Batches:  # fmt: skip
        """The batches."""
        if split not in (None, "train"):
            raise DataError(f"jars have no split {split!r}")
        samples = Numbers(self.scale)
        plan = FixedPlan(
            n=len(samples), batch_size=batch_size, seed=seed, shuffle=training, drop_last=training, rank=rank,
            world_size=world_size,
        )  # fmt: skip
        return Loader(samples, collate, plan, endless=training)

    def contents(self) -> Contents:
        """Sixteen jars."""
        return Contents(path=self.path, splits={"train": 16}, unit="jars")

    def splits(self) -> Splits:
        """One."""
        return Splits(train="train")

    def preparation(self) -> Mapping[str, Any]:
        """The scale."""
        return {"scale": self.scale}

    def files(self) -> Mapping[str, bytes]:
        """A file that belongs to the model."""
        return {"nose.txt": f"{self.scale}\n".encode()}

    def match(self, adapter: ModalityAdapter) -> None:
        """Any adapter will do."""

    def matching(self, adapter: Any) -> Any:
        """Any adapter will do."""
        return adapter


@frozen(kw_only=True)
class BottlesConfig(JarsConfig):
    """Another kind of data."""

    depth: int = 1


@frozen(kw_only=True)
class EverySecond:
    """A third-party masker: hides every second position, the odd or the even ones by update."""

    def __call__(
        self, b: int, grid: tuple[int, ...], *, num_masks: int = 1, draw: Any, lengths: Tensor | None = None
    ) -> Mask:
        """The mask."""
        first = 0 if isinstance(draw, torch.Generator) else draw.update % 2
        row = torch.arange(grid[0]) % 2 == first
        return Mask(hidden=row.repeat(b * num_masks, 1), num_masks=num_masks)


@frozen(kw_only=True)
class HeadConfig:
    """A third-party predictor."""

    layers: int = 2

    def build(self, *, embed_dim: int, dims: int) -> nn.Module:
        """The predictor."""
        del dims
        return MaskedHead(embed_dim, num_layers=self.layers)


@frozen(kw_only=True)
class WideEncoderConfig:
    """A third-party shared encoder."""

    embed_dim: int = 8
    depth: int = 2
    num_heads: int = 2

    def build(self) -> TransformerEncoder:
        """The encoder."""
        return TransformerEncoder(
            [TransformerBlock(self.embed_dim, num_heads=self.num_heads, mlp_ratio=8.0) for _ in range(self.depth)]
        )

    def build_context(self, context: ContextConfig) -> TransformerEncoder:
        """No context."""
        return TransformerEncoder()


class Recurrent(Student):
    """A complete third-party student: one recurrent layer, whose output is its only layer result."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.rnn = nn.GRU(WIDTH, embed_dim, batch_first=True)

    def front(self, batch: Batch) -> Local:
        """The raw input: it gives the number of positions to mask."""
        return Local(x=batch.source, padding=None, grid=(batch.source.shape[1],))

    def encode(
        self, batch: Batch, mask: Mask | None = None, *, local: Any = None, tokens: Any = None,
        sink: LayerSink | None = None,
    ) -> Encoded:  # fmt: skip
        """Hidden positions are zero."""
        x = batch.source
        if mask is not None:
            x = x.repeat_interleave(mask.num_masks, 0).masked_fill(mask.hidden[..., None], 0)
        x, _ = self.rnn(x)
        if sink is not None and 0 in sink.wants:
            sink(0, x, 0)
        return Encoded(x=x, padding=None, num_prefix_tokens=0, grid=(x.shape[1],))


@frozen(kw_only=True)
class RecurrentConfig:
    """Its configuration."""

    embed_dim: int = 8
    depth: ClassVar[int] = 1
    modalities: ClassVar[tuple[str, ...]] = ("odour",)

    def grid_axes(self, modality: str) -> int:
        """One."""
        return 1

    def pixel_dim(self, modality: str) -> int:
        """None."""
        return 0

    def unmasked(self) -> "RecurrentConfig":
        """The same: it drops nothing."""
        return self

    def build(self) -> Student:
        """The student."""
        return Recurrent(self.embed_dim)


modality = Modality(
    name="odour",
    description="smells",
    adapters={"grains": GrainsConfig, "plumes": PlumesConfig},
    data={"jars": JarsConfig, "bottles": BottlesConfig},
)
ENTRY_POINTS = {
    "d2v.modalities": {"odour": "modality"},
    "d2v.maskers": {"every-second": "EverySecond"},
    "d2v.predictors": {"odour-head": "HeadConfig"},
    "d2v.encoders": {"wide": "WideEncoderConfig"},
    "d2v.students": {"recurrent": "RecurrentConfig"},
}
