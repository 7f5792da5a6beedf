"""Small speech models and batches that tests of the tasks share."""

from typing import Any

import torch
from building import randomise

from d2v.audio import WaveformAdapterConfig
from d2v.core.labels import Symbols
from d2v.core.model import BackboneConfig, Batch, BlockConfig, Student, TransformerConfig

DIM = 16
LETTERS = Symbols(
    ("<s>", "<pad>", "</s>", "<unk>", "|", "A", "B", "C"),
    blank="<s>",
    specials=("<pad>", "</s>"),
    unknown="<unk>",
    boundary="|",
)
ENCODER = TransformerConfig(block=BlockConfig(embed_dim=DIM, num_heads=2), depth=2)


def student(*, former: bool = False) -> BackboneConfig:
    """A 2.0 or 1.0 encoder with frames of 10 samples: 2.0 has noise, alibi and a norm, 1.0 a mask token."""
    own: dict[str, Any] = {"alibi": None, "context": None, "mask_token": True, "zero_padding": True} if former else {}
    adapter = WaveformAdapterConfig(conv_layers=((8, 10, 5), (8, 3, 2)), positions_groups=4, **own)
    return BackboneConfig(encoder=ENCODER, adapters={"audio": adapter}, visible_only=False)


def encoder(config: BackboneConfig | None = None) -> Student:
    """The encoder of a configuration with visible biases."""
    built: Student = randomise((config or student()).build())
    return built


def speech(lengths: list[int], transcripts: list[str] | None = None, ids: list[int] | None = None) -> Batch:
    """Padded noise of these lengths in samples, with letters."""
    longest = max(lengths)
    padding = torch.arange(longest)[None] >= torch.tensor(lengths)[:, None]
    source = torch.randn(len(lengths), longest).masked_fill(padding, 0)
    labels = None
    if transcripts is not None:
        rows = [torch.tensor(LETTERS.numbers(text), dtype=torch.long) for text in transcripts]
        labels = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=1)
    return Batch(
        source=source,
        padding=padding if padding.any() else None,
        ids=None if ids is None else torch.tensor(ids),
        labels=labels,
        label_lengths=None if transcripts is None else torch.tensor([len(text) for text in transcripts]),
    )
