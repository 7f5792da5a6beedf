"""The waveform front end: lengths, padding and gradients."""

import pytest
import torch
from building import padding_of, randomise

from d2v.audio import ConvExtractor, WaveformAdapterConfig, WaveformFront
from d2v.audio.extractor import WAV2VEC_LAYERS
from d2v.core.model import (
    BackboneConfig,
    Batch,
    BlockConfig,
    Data2VecConfig,
    TargetsConfig,
    TeacherConfig,
    TransformerConfig,
)
from d2v.core.teacher import EMASchedule

SPEC = [(6, 10, 5), (6, 3, 2), (4, 2, 2)]
modes = pytest.mark.parametrize("norm", ["layer", "group"])


def make(norm="layer", **options):
    return randomise(WaveformFront(ConvExtractor(SPEC, norm=norm), embed_dim=8, **options), std=0.1)


@modes
@pytest.mark.parametrize("bias", [False, True])
def test_lengths(norm, bias):
    extractor = ConvExtractor(SPEC, norm=norm, bias=bias)
    for samples in range(25, 140):
        frames = extractor.num_frames(samples)
        if frames:
            assert extractor(torch.randn(2, 1, samples)).shape == (2, frames, 4), samples
    assert all((conv.bias is not None) == bias for conv in extractor.convs)
    assert len(extractor.norms) == (3 if norm == "layer" else 1)


def test_published_lengths():
    extractor = ConvExtractor([(1, kernel, stride) for _, kernel, stride in WAV2VEC_LAYERS])
    assert [extractor.num_frames(n) for n in (0, 399, 400, 719, 720, 16_000, 160_000)] == [0, 0, 1, 1, 2, 49, 499]


@modes
def test_padding_of_frames_follows_the_lengths(norm):
    front, lengths = make(norm), [120, 97, 60, 31]
    source = torch.randn(4, 120)
    local = front(Batch(source=source, padding=padding_of(lengths, 120)))
    frames = [front.extractor.num_frames(n) for n in lengths]
    assert local.grid == (local.x.shape[1],) == (frames[0],)
    assert torch.equal(local.padding, padding_of(frames, frames[0]))
    assert front(Batch(source=source)).padding is None


@pytest.mark.parametrize("lengths", [None, [140, 60, 24]])
def test_the_layout_is_that_of_the_features(lengths):
    front = make()
    batch = Batch(source=torch.randn(3, 140), padding=None if lengths is None else padding_of(lengths, 140))
    local, layout = front(batch), front.layout(batch)
    assert layout.grid == local.grid
    assert (layout.padding is None) == (lengths is None)
    assert lengths is None or torch.equal(layout.padding, local.padding)
    assert front.layout(Batch(source=torch.randn(3, 20))).grid == (0,)


def test_frames_are_local_with_layer_norms_and_not_with_a_group_norm():
    """A group norm looks over all of time, padding included: a padded recording differs from itself alone."""
    source = torch.randn(1, 120)
    for norm, equal in (("layer", True), ("group", False)):
        front = make(norm)
        short = front(Batch(source=source[:, :60])).x
        close = torch.allclose(front(Batch(source=source)).x[:, : short.shape[1]], short, atol=1e-5)
        assert close == equal


@modes
def test_the_formula(norm):
    front, source = make(norm), torch.randn(2, 90)
    x = source[:, None]
    for i, conv in enumerate(front.extractor.convs):
        x = conv(x)
        if norm == "layer":
            x = front.extractor.norms[i](x.transpose(1, 2)).transpose(1, 2)
        elif i == 0:  # one group a channel: each channel is normalised over time
            mean, variance = x.mean(2, keepdim=True), x.var(2, unbiased=False, keepdim=True)
            affine = front.extractor.norms[0]
            x = (x - mean) / (variance + 1e-5).sqrt() * affine.weight[:, None] + affine.bias[:, None]
        x = torch.nn.functional.gelu(x)
    torch.testing.assert_close(front(Batch(source=source)).x, front.proj(front.norm(x.transpose(1, 2))))


@pytest.mark.parametrize("scale", [1.0, 0.1, 0.0])
def test_gradients_of_the_extractor_are_scaled(scale):
    plain, scaled = make(), make(gradient_scale=scale)
    scaled.load_state_dict(plain.state_dict())
    batch = Batch(source=torch.randn(2, 90))
    for front in (plain, scaled):
        front(batch).x.square().sum().backward()
    torch.testing.assert_close(scaled.proj.weight.grad, plain.proj.weight.grad)
    for ours, theirs in zip(scaled.extractor.parameters(), plain.extractor.parameters(), strict=True):
        if scale:
            torch.testing.assert_close(ours.grad, scale * theirs.grad)
        else:
            assert ours.grad is None


def test_refusals():
    with pytest.raises(ValueError, match=r"24 samples .*longer"):
        make()(Batch(source=torch.randn(2, 24)))
    with pytest.raises(ValueError, match=r"\(2, 2, 90\).*channels"):
        make()(Batch(source=torch.randn(2, 2, 90)))
    with pytest.raises(ValueError, match=r"norm='batch'.*'group'"):
        ConvExtractor(SPEC, norm="batch")


def test_waveforms_have_no_raw_content_to_reconstruct():
    encoder = TransformerConfig(block=BlockConfig(embed_dim=16, num_heads=2), depth=1)
    config = Data2VecConfig(
        student=BackboneConfig(
            encoder=encoder,
            adapters={"audio": WaveformAdapterConfig()},
        ),
        predictors={},
        maskers={},
        targets=TargetsConfig(layers=1),
        teacher=TeacherConfig(schedule=EMASchedule(0.9)),
        pixel_weight=0.1,
    )
    with pytest.raises(ValueError, match=r"pixel_weight=0.1 .*pixel_heads"):
        config.build()
