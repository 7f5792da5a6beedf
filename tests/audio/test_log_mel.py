"""The log-mel front end: energies as torchaudio computes them, padding, silence, frozen weights, resume of a model."""

import pytest
import torch
from building import padding_of
from torchaudio.transforms import MelSpectrogram

from d2v.audio import ConvExtractor, LogMel, LogMelAdapterConfig, LogMelFront
from d2v.audio.log_mel import stacked_energies
from d2v.core.model import Batch, BlockConfig, TransformerConfig


def front(**options: float) -> LogMelFront:
    return LogMelFront(LogMel(num_bands=20), ConvExtractor([(8, 3, 2)] * 2, in_channels=20), embed_dim=6, **options)


def test_energies_are_those_of_torchaudio() -> None:
    waveform = torch.randn(2, 9_000, generator=torch.Generator().manual_seed(0))
    reference = MelSpectrogram(16_000, n_fft=512, win_length=400, hop_length=160, f_min=40.0, n_mels=40, center=False)
    left = (512 - 400) // 2  # zeros where the window is zero
    expected = (reference(torch.nn.functional.pad(waveform, (left, left))) + 1e-6).log().transpose(1, 2)
    expected = (expected - expected.mean(1, keepdim=True)) / (expected.std(1, correction=0, keepdim=True) + 1e-5)
    torch.testing.assert_close(LogMel()(waveform), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("samples", [399, 400, 559, 560, 1_000, 16_000])
def test_number_of_frames(samples: int) -> None:
    spectrogram = LogMel()
    frames = spectrogram.num_frames(samples)
    if frames:
        assert spectrogram(torch.randn(1, samples)).shape == (1, frames, 40)
    whole = front()
    if whole.num_frames(samples):
        local = whole(Batch(source=torch.randn(1, samples)))
        assert local.grid == (whole.num_frames(samples),)
    else:
        with pytest.raises(ValueError, match="longer"):
            whole(Batch(source=torch.randn(1, samples)))


def test_a_recording_of_one_window_has_one_frame() -> None:
    """The reader accepts it, so it must not end a run."""
    assert [front().num_frames(samples) for samples in (399, 400, 1_359, 1_360, 2_000)] == [0, 1, 1, 1, 2]
    source = torch.randn(2, 600, generator=torch.Generator().manual_seed(0))
    local = front()(Batch(source=source, padding=padding_of([600, 400], 600)))
    assert local.grid == (1,)
    assert local.padding is not None
    assert not local.padding.any()
    assert stacked_energies(Batch(source=source), 16_000).x.shape == (2, 1, 160)


def test_a_padded_recording_has_the_features_of_the_same_recording_alone() -> None:
    """Also if the padding is not silent: neither windows nor statistics may see it."""
    torch.manual_seed(0)
    source, lengths = torch.randn(4, 16_000), [16_000, 11_111, 4_000, 600]
    made = front()
    local = made(Batch(source=source, padding=padding_of(lengths, 16_000)))
    assert local.padding is not None
    for row, length in enumerate(lengths):
        alone = made(Batch(source=source[row : row + 1, :length])).x[0]
        assert int((~local.padding[row]).sum()) == len(alone)
        torch.testing.assert_close(local.x[row, : len(alone)], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lengths", [None, [9_000, 4_000, 500]])
@pytest.mark.parametrize("samples", [9_000, 600])
def test_the_layout_is_that_of_the_features(lengths: list[int] | None, samples: int) -> None:
    padding = None if lengths is None else padding_of(lengths, samples)
    batch = Batch(source=torch.randn(3, samples), padding=padding)
    local, layout = front()(batch), front().layout(batch)
    assert layout.grid == local.grid
    assert (layout.padding is None) == (lengths is None)
    if layout.padding is not None and local.padding is not None:
        assert torch.equal(layout.padding, local.padding)


def test_loudness_does_not_matter_and_silence_is_finite() -> None:
    made, source = LogMel(), torch.randn(1, 8_000)
    torch.testing.assert_close(made(source), made(20 * source), atol=2e-3, rtol=0)
    assert torch.equal(made(torch.zeros(1, 8_000)), torch.zeros(1, 48, 40))
    assert front()(Batch(source=torch.zeros(1, 8_000))).x.isfinite().all()


@pytest.mark.parametrize(("scale", "trained"), [(0.0, False), (0.5, True), (1.0, True)])
def test_a_frozen_front_end_gets_no_gradient(scale: float, trained: bool) -> None:
    made = front(gradient_scale=scale)
    x = made(Batch(source=torch.randn(2, 8_000))).x
    assert x.requires_grad == trained
    if trained:
        x.square().sum().backward()
        assert all(parameter.grad is not None for parameter in made.parameters())


def test_energies_are_computed_in_float32_under_autocast() -> None:
    made, source = LogMel(), torch.randn(1, 8_000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(made(source), made.forward(source.float()))
        assert made(source).dtype == torch.float32


def test_weights_hold_no_filters() -> None:
    encoder = TransformerConfig(block=BlockConfig(embed_dim=16, num_heads=2), depth=1)
    names = LogMelAdapterConfig().build(encoder).state_dict()
    assert not [name for name in names if "spectrogram" in name]


@pytest.mark.parametrize(
    ("options", "key"),
    [({"window": 1e-6}, "window"), ({"min_frequency": 8_000.0}, "min_frequency"), ({"hop": 0}, "hop")],
)
def test_bad_values_are_named(options: dict[str, float], key: str) -> None:
    with pytest.raises(ValueError, match=key):
        LogMel(**options)  # type: ignore[arg-type]  # numbers of both kinds


def test_frames_of_40_ms_at_any_rate() -> None:
    """Words of a recogniser get their times from these two numbers."""
    for rate in (8_000, 16_000):
        made = LogMelFront(
            LogMel(sample_rate=rate, num_bands=20), ConvExtractor([(8, 3, 2)] * 2, in_channels=20), embed_dim=6
        )
        assert made.stride / made.sample_rate == 0.04
