"""Convolutional positions, alone and in a backbone."""

import attrs
import pytest
import torch
import torch.nn.functional as F
from building import padding_of, random_mask, randomise

from d2v.audio import ConvPositions, WaveformAdapterConfig
from d2v.core.masks import Mask
from d2v.core.model import Backbone, Batch, BlockConfig, TransformerConfig

DIM = 8
ENCODER = TransformerConfig(block=BlockConfig(embed_dim=DIM, num_heads=2), depth=1)
ADAPTER = WaveformAdapterConfig(
    conv_layers=((6, 10, 5), (6, 3, 2)),
    positions_width=9,
    positions_depth=2,
    positions_groups=2,
    alibi=None,
    context=None,
)


def make(width=9, depth=2):
    return randomise(ConvPositions(DIM, width=width, depth=depth, groups=2), std=0.2)


@pytest.mark.parametrize(("width", "depth", "kernel"), [(95, 5, 19), (8, 2, 4), (5, 5, 3), (9, 2, 4)])
def test_kernels(width, depth, kernel):
    positions = make(width, depth)
    assert [conv.kernel_size for conv in positions.convs] == [(kernel,)] * depth
    assert positions(torch.randn(2, 7, DIM), None).shape == (2, 7, DIM)


def test_the_formula():
    positions, x = make(), torch.randn(2, 7, DIM)
    y = x.transpose(1, 2)
    for conv in positions.convs:
        y = F.gelu(F.layer_norm(conv(y)[..., :7].transpose(1, 2), (DIM,))).transpose(1, 2)
    torch.testing.assert_close(positions(x, None), y.transpose(1, 2))


@pytest.mark.parametrize("channels", [False, True])
def test_hidden_frames_and_channels_are_zeros_to_it(channels):
    positions, x, mask = make(), torch.randn(2, 7, DIM), random_mask(2, 3, 7, 4)
    if channels:
        mask = attrs.evolve(mask, channels=torch.rand(6, DIM) < 0.4)
    cleared = x.repeat_interleave(3, 0).masked_fill(mask.hidden[..., None], 0)
    if channels:
        cleared = cleared.masked_fill(mask.channels[:, None], 0)
    assert torch.equal(positions(x, mask), positions(cleared, None))


def backbone(**options):
    return randomise(Backbone({"audio": attrs.evolve(ADAPTER, **options).build(ENCODER)}, ENCODER.build()), std=0.1)


def test_they_are_added_to_frames_that_are_not_zeroed():
    model, batch = backbone(), Batch(source=torch.randn(2, 80))
    local = model.adapter(None).front(batch)
    mask = random_mask(2, 3, local.x.shape[1], 4)
    x = local.x.repeat_interleave(3, 0)
    whole = x + model.adapter(None).positions(local.x, mask)
    assert torch.equal(model.tokens(batch, local, mask).x.flatten(0, 1), whole[~mask.hidden])


@pytest.mark.parametrize("zero_padding", [False, True])
def test_padding_reaches_valid_frames_through_the_convolution(zero_padding):
    """2.0 leaves what it finds at padded frames, 1.0 zeroes it: then a padded recording equals itself alone."""
    model = backbone(zero_padding=zero_padding).eval()
    source = torch.randn(1, 80)
    alone = model.encode(Batch(source=source[:, :50])).x[0]
    batch = Batch(source=source, padding=padding_of([50], 80))
    padded = model.encode(batch).x[0, : len(alone)]
    # The extractor's frames at the border are whole in both, and zeros continue the convolution's own padding, but only
    # the first layer sees them: after it, padded frames contain the normalised bias.
    first = backbone(zero_padding=zero_padding, positions_depth=1).eval()
    one_layer = (first.encode(Batch(source=source[:, :50])).x[0], first.encode(batch).x[0, : len(alone)])
    assert torch.allclose(*one_layer, atol=1e-5) == zero_padding
    assert not torch.allclose(alone, padded, atol=1e-5)


def test_masks_together_equal_masks_one_by_one():
    model, batch = backbone(), Batch(source=torch.randn(2, 80), padding=padding_of([80, 70], 80))
    mask = random_mask(2, 3, model.adapter(None).front(batch).x.shape[1], 4)
    together = model.encode(batch, mask)
    for view in range(3):
        alone = model.encode(batch, Mask(hidden=mask.hidden[view::3])).x
        torch.testing.assert_close(together.x[view::3], alone)


def test_refusals():
    with pytest.raises(ValueError, match=r"groups=3 .*embed_dim=8"):
        ConvPositions(DIM, groups=3)
