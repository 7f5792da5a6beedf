"""Audio classification and tagging: pooling, mixing, loudness, losses and predictions."""

import dataclasses
import math
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from speech import DIM, encoder, speech, student

from d2v.audio import AudioClassification, AudioClassifier, AudioTagger, AudioTagging, FrameClassifier, SourceMixup
from d2v.audio.tasks.frames import Frames
from d2v.audio.tasks.levels import a_weights, loudness
from d2v.audio.tasks.pooling import Pooling
from d2v.core.labels import Classes, MultiLabel
from d2v.core.masks import SpanMasker
from d2v.core.model import Batch

NAMES = ("speech", "music", "dog")


def head(pooling: Any, **options: Any) -> FrameClassifier:
    built = FrameClassifier(DIM, len(NAMES), pooling=pooling, **options)
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter)
    return built


def by_hand(own: FrameClassifier, x: torch.Tensor) -> torch.Tensor:
    """Probabilities of the classes for the frames `t d` of one recording."""
    z = own.proj(x)
    p = z.sigmoid()
    return {
        "linear-softmax": lambda: p.square().sum(0) / p.sum(0),
        "mean": lambda: z.mean(0).sigmoid(),
        "max": lambda: p.amax(0),
        "mean-sigmoid": lambda: p.mean(0),
        "mean-features": lambda: own.proj(x.mean(0)).sigmoid(),
        "projected-mean": lambda: own.proj(own.features(x).mean(0)).sigmoid(),  # type: ignore[misc]
        "extremized-odds": lambda: (own.odds_factor * z.sum(0)).sigmoid(),
    }[own.pooling]()


FRAME_POOLINGS = [name for name in get_args(Pooling) if name != "class-token"]


@pytest.mark.parametrize("pooling", FRAME_POOLINGS)
@pytest.mark.parametrize("padding", ["ignore", "zero"])
def test_pooling(pooling: str, padding: str) -> None:
    own, x = head(pooling, padding=padding, odds_factor=0.3), torch.randn(2, 6, DIM)
    hidden = torch.arange(6) >= torch.tensor([[6], [4]])
    second = x[1, :4] if padding == "ignore" else x[1].masked_fill(hidden[1, :, None], 0)
    expected = torch.stack([by_hand(own, x[0]), by_hand(own, second)])
    torch.testing.assert_close(own(Frames(x=x, padding=hidden)).sigmoid(), expected)


def test_pooling_of_the_class_token() -> None:
    own, token = head("class-token"), torch.randn(2, DIM)
    torch.testing.assert_close(own(Frames(x=torch.randn(2, 5, DIM), padding=None, class_token=token)), own.proj(token))
    with pytest.raises(ValueError, match="no class token"):
        own(Frames(x=torch.randn(2, 5, DIM), padding=None))


@pytest.mark.parametrize("pooling", ["linear-softmax", "mean-sigmoid"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_logits_and_gradients_are_finite_where_probabilities_are_0_or_1(pooling: str, scale: float) -> None:
    x = (torch.randn(4, 7, DIM) * scale).requires_grad_()
    logits = head(pooling)(Frames(x=x, padding=None))
    logits.square().sum().backward()
    assert logits.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_another_pooling_in_evaluation() -> None:
    own, frames = head("mean", eval_pooling="max"), Frames(x=torch.randn(2, 5, DIM), padding=None)
    torch.testing.assert_close(own.train()(frames), own.proj(frames.x).mean(1))
    torch.testing.assert_close(own.eval()(frames), own.proj(frames.x).amax(1))


def test_refusals_of_the_head() -> None:
    for options, message in (
        ({"pooling": "average"}, "pooling='average'"),
        ({"pooling": "mean", "eval_pooling": "projected-mean"}, "eval_pooling"),
        ({"pooling": "mean", "odds_factor": 0.0}, "odds_factor"),
    ):
        with pytest.raises(ValueError, match=message):
            FrameClassifier(DIM, 3, **options)  # type: ignore[arg-type]


def mixture(**options: Any) -> SourceMixup:
    return SourceMixup(**options)


@settings(deadline=None)
@given(r=st.floats(0.5, 1.0), mixed_labels=st.booleans())
def test_mixing(r: float, mixed_labels: bool) -> None:
    batch = Batch(source=torch.randn(3, 50), labels=torch.eye(3))
    partner = torch.tensor([1, 2, 0])
    out = mixture(labels=mixed_labels).mix(batch, r=torch.tensor([r]), partner=partner)
    expected = (r * batch.source + (1 - r) * batch.source[partner]) / math.sqrt(r**2 + (1 - r) ** 2)
    torch.testing.assert_close(out.source, expected)
    labels = torch.eye(3)
    torch.testing.assert_close(out.labels, r * labels + (1 - r) * labels[partner] if mixed_labels else labels)


def test_mixing_keeps_the_power_of_independent_recordings_and_the_padding() -> None:
    batch = dataclasses.replace(speech([4000, 3000]), labels=torch.eye(2))
    out = mixture(low=0.5)(batch)
    assert out.padding is batch.padding
    whole = Batch(source=torch.randn(8, 20_000), labels=torch.eye(8))
    mixed = mixture().mix(whole, r=torch.tensor([0.6]), partner=torch.arange(8).roll(1))
    assert 0.98 < mixed.source.std().item() < 1.02


def test_draws_of_mixing() -> None:
    batch = Batch(source=torch.ones(500, 1).cumsum(0), labels=torch.eye(500))
    own = [torch.diagonal(mixture(low=0.3, same=same)(batch).labels).double() for same in (True, False)]
    values = [row[row < 1].unique() for row in own]
    assert len(values[0]) == 1
    assert len(values[1]) > 400
    assert min(value.min().item() for value in values) >= 0.3
    kept = torch.diagonal(mixture(low=0.3, same=False, prob=0.25)(batch).labels)
    assert 320 < int((kept == 1).sum()) < 430


def test_mixing_is_repeated_by_the_seed() -> None:
    batch = Batch(source=torch.randn(4, 30), labels=torch.eye(4))
    out = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        out.append(mixture()(batch).source)
    assert torch.equal(out[0], out[1])
    assert not torch.equal(out[0], out[2])


@pytest.mark.parametrize("gain", ["rms", "a-weighting"])
def test_the_gain_lets_the_fraction_be_heard(gain: str) -> None:
    """The second recording is 20 dB louder: with r = 1/2 it gets a tenth of the amplitude of the first."""
    tone = torch.sin(2 * torch.pi * 1000 / 16_000 * torch.arange(8000))
    batch = Batch(source=torch.stack([tone, 10 * tone]), labels=torch.eye(2))
    out = mixture(gain=gain, labels=True).mix(batch, r=torch.tensor([0.5]), partner=torch.tensor([1, 0]))
    torch.testing.assert_close(out.labels[0], torch.tensor([10 / 11, 1 / 11]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("hertz", "decibels"), [(31.5, -39.4), (125, -16.1), (1000, 0.0), (2500, 1.3), (8000, -1.1), (16_000, -6.6)]
)
def test_a_weights_are_those_of_the_norm(hertz: float, decibels: float) -> None:
    """IEC 61672, table of A-weighting at the exact frequencies of its bands."""
    exact = 1000 * 10 ** (round(10 * math.log10(hertz / 1000)) / 10)
    assert 10 * a_weights(torch.tensor([exact])).log10().item() == pytest.approx(decibels, abs=0.06)


def test_loudness() -> None:
    quiet = torch.zeros(1, 16_000)
    assert loudness(quiet, gain="rms", sample_rate=16_000).item() == pytest.approx(-80)
    burst = quiet.clone()
    burst[0, 5000:9000] = 1.0
    assert loudness(burst, gain="rms", sample_rate=16_000).item() == pytest.approx(0, abs=1e-4), "the loudest window"
    low = torch.sin(2 * torch.pi * 125 / 16_000 * torch.arange(16_000))[None]
    assert loudness(low, gain="a-weighting", sample_rate=16_000).item() == pytest.approx(-3.0 - 16.1, abs=0.3)
    assert loudness(torch.ones(2, 7), gain="rms", sample_rate=16_000).tolist() == pytest.approx([0, 0])
    with pytest.raises(ValueError, match="gain='loud'"):
        loudness(quiet, gain="loud", sample_rate=16_000)  # type: ignore[arg-type]


def classifier(**options: Any) -> AudioClassifier:
    task = AudioClassification(**options)
    return task.build(encoder(task.adapt(student())), embed_dim=DIM, labels=Classes(NAMES))


def tagger(**options: Any) -> AudioTagger:
    task = AudioTagging(**options)
    return task.build(encoder(task.adapt(student(former=True))), embed_dim=DIM, labels=MultiLabel(NAMES))


def test_one_class() -> None:
    model = classifier().eval()
    batch = dataclasses.replace(speech([300, 200]), labels=torch.tensor([2, 0]))
    out, logits = model(batch, update=0), model.logits(batch)
    torch.testing.assert_close(out.loss_sum, F.cross_entropy(logits, batch.labels, reduction="sum"))
    assert out.sample_size == 2
    assert set(out.metrics) == {"loss", "accuracy"}
    with torch.no_grad():
        rows = AudioClassification().predict(model, batch, labels=Classes(NAMES))
    assert [row["class"] for row in rows] == [NAMES[number] for number in logits.argmax(1).tolist()]


def test_padding_does_not_change_the_pooling_of_one_class() -> None:
    """The encoder sees padding in convolutional positions; the pooling leaves it out."""
    frames = torch.randn(1, 9, DIM)
    padded = Frames(x=torch.cat([frames, torch.full((1, 4, DIM), 9.0)], 1), padding=torch.arange(13)[None] >= 9)
    own = classifier().head
    torch.testing.assert_close(own(padded), own(Frames(x=frames, padding=None)))


def test_several_classes() -> None:
    model = tagger().eval()
    labels = torch.tensor([[True, False, True], [False, False, True]])
    batch = dataclasses.replace(speech([300, 200]), labels=labels)
    out, logits = model(batch, update=0), model.logits(batch)
    expected = F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="sum")
    torch.testing.assert_close(out.loss_sum, expected)
    assert out.sample_size == 3
    none = dataclasses.replace(batch, labels=torch.zeros(2, 3))
    assert model(none, update=0).sample_size == 1, "no class at all is something to learn from, too"
    with torch.no_grad():
        rows = AudioTagging(threshold=0.0).predict(model, batch, labels=MultiLabel(NAMES))
        none_above = AudioTagging(threshold=0.999999).predict(model, batch, labels=MultiLabel(NAMES))
    probabilities = logits.sigmoid()
    for row, own in zip(rows, probabilities, strict=True):
        assert sorted(row["classes"]) == sorted(NAMES)
        assert list(row["likeliest"].values()) == sorted(row["likeliest"].values(), reverse=True)
        assert row["likeliest"]["dog"] == pytest.approx(own[2].item(), abs=1e-5)
    assert all(len(row["classes"]) < len(NAMES) for row in none_above)


def test_recordings_are_mixed_in_training_only() -> None:
    model, batch = tagger(mixup=0.5), dataclasses.replace(speech([300, 300]), labels=torch.eye(3)[:2])
    assert model.train()(batch, update=0).loss_sum != model(batch, update=0).loss_sum
    assert model.eval()(batch, update=0).loss_sum == model(batch, update=0).loss_sum
    assert AudioTagging().source_mixup() is None


def test_masks_are_drawn_before_the_step_unless_recordings_are_mixed() -> None:
    masker = SpanMasker(mask_prob=0.5, mask_length=3)
    batch = dataclasses.replace(speech([300, 200]), labels=torch.ones(2, len(NAMES)))
    for mixup in (None, SourceMixup()):
        model = AudioTagger(encoder(), head("mean"), masker=masker, mixup=mixup)
        prepared = model.prepared(batch, update=2)
        assert (prepared is batch) == (mixup is not None)
        assert (prepared.mask is None) == (mixup is not None)
        found = []
        for one in (prepared, batch):
            torch.manual_seed(0)
            found.append(model(one, update=2).loss_sum)
        assert torch.equal(*found)


def test_masks_of_classification_are_those_of_training() -> None:
    mask = SpanMasker(mask_prob=0.5, mask_length=3)
    model, batch = tagger(mask=mask), dataclasses.replace(speech([300, 200]), labels=torch.eye(3)[:2])
    losses = [model.train()(batch, update=update).loss_sum.item() for update in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    assert model.eval()(batch, update=0).loss_sum.item() not in losses


def test_refusals() -> None:
    with pytest.raises(ValueError, match="no labels"):
        classifier()(speech([200]), update=0)
    with pytest.raises(ValueError, match="no labels"):
        tagger()(speech([200]), update=0)
    with pytest.raises(ValueError, match="two classes"):
        AudioClassification().build(encoder(), embed_dim=DIM, labels=Classes(("a",)))
    with pytest.raises(ValueError, match="gain"):
        AudioTagging(mixup=0.5, gain_mode="loud").source_mixup()  # type: ignore[arg-type]
