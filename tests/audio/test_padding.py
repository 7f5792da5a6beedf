"""What padding changes in models of waveforms: as far as the positions reach, and everything with a group norm."""

import copy
from typing import Any

import pytest
import torch
from building import padding_of, randomise

from d2v.audio import WaveformAdapterConfig
from d2v.core.model import AlibiConfig, Backbone, BackboneConfig, Batch, BlockConfig, TransformerConfig
from d2v.core.nn.inference import PackedWeights, inferring

LONG, SHORT = 48_000, 40_000
REACH = 45  # frames: five convolutions of width 19


def backbone(adapter: WaveformAdapterConfig) -> Backbone:
    encoder = TransformerConfig(block=BlockConfig(embed_dim=16, num_heads=2), depth=1)
    made = BackboneConfig(encoder=encoder, adapters={"audio": adapter}, visible_only=not adapter.mask_token).build()
    return randomise(made, std=0.2).eval()


def both(made: Backbone) -> tuple[torch.Tensor, torch.Tensor]:
    """Input of the transformer for a recording beside a longer one, and alone."""
    torch.manual_seed(0)
    source = torch.randn(2, LONG)
    source[1, SHORT:] = 0
    frames = made.adapter("audio").front.num_frames(SHORT)  # type: ignore[attr-defined]  # a waveform front end
    with torch.no_grad():
        padded = made.tokens(Batch(source=source, padding=padding_of([LONG, SHORT], LONG))).x[1, :frames]
        alone = made.tokens(Batch(source=source[1:, :SHORT])).x[0]
    return padded, alone


FORMER = {"mask_token": True, "zero_padding": True, "context": None}


@pytest.mark.parametrize("options", [{}, FORMER], ids=["2.0", "1.0"])
def test_positions_of_the_last_frames_see_the_padding(options: dict[str, Any]) -> None:
    made = backbone(WaveformAdapterConfig(alibi=None, **options))
    positions = made.adapter("audio").positions
    assert positions.reach == REACH  # type: ignore[union-attr]  # convolutional positions
    padded, alone = both(made)
    torch.testing.assert_close(padded[:-REACH], alone[:-REACH], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(padded[-5:], alone[-5:], atol=1e-3)


def test_a_group_norm_sees_the_padding_everywhere() -> None:
    padded, alone = both(backbone(WaveformAdapterConfig(alibi=None, extractor_norm="group", **FORMER)))
    assert not torch.allclose(padded[:-REACH], alone[:-REACH], atol=1e-3)


@pytest.mark.parametrize("options", [{}, FORMER, {**FORMER, "zero_padding": False}], ids=["2.0", "1.0", "neither"])
@pytest.mark.parametrize("extractor", ["layer", "group"])
@torch.no_grad()
def test_padding_that_is_not_computed_changes_nothing(options: dict[str, Any], extractor: Any) -> None:
    """The last frames of short recordings see the padding, which therefore must be there as far as they see."""
    made = backbone(WaveformAdapterConfig(alibi=AlibiConfig(learned=False), extractor_norm=extractor, **options))
    lengths = [LONG, SHORT, 9_000, 400]
    padding = padding_of(lengths, LONG)
    batch = Batch(source=torch.randn(4, LONG).masked_fill(padding, 0), padding=padding)
    # In double precision, so that the difference is the rounding of one form and not of two.
    plain = copy.deepcopy(made).double().encode(Batch(source=batch.source.double(), padding=padding))
    with inferring(PackedWeights(), ("onednn-linear", "row-attention", "channels-last-extractor")):
        other = made.encode(batch)
    assert plain.padding is not None
    assert other.padding is not None
    assert torch.equal(plain.padding, other.padding)
    found, expected = other.x[~other.padding].double(), plain.x[~plain.padding]
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)
    assert not other.x[other.padding].any()
