"""Speech recognition with CTC: loss, masks, transcripts that cannot be aligned, and predictions."""

import dataclasses
import logging
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_finetune import alignment_loss
from speech import DIM, LETTERS, encoder, speech, student

from d2v.audio import CTC, CTCModel
from d2v.audio.tasks.words import words_of
from d2v.core.finite import NotFiniteError
from d2v.core.labels import Symbols
from d2v.core.masks import Mask, SpanMasker
from d2v.core.model import Batch
from d2v.core.train import Freeze

TIME = SpanMasker(mask_prob=0.5, mask_length=3)
CHANNELS = SpanMasker(mask_prob=0.5, mask_length=4, min_masks=0)


def made(task: CTC = CTC(), *, former: bool = False, labels: Symbols = LETTERS) -> CTCModel:  # noqa: B008 - it is frozen
    return task.build(encoder(task.adapt(student(former=former))), embed_dim=DIM, labels=labels)


def test_start_of_the_head() -> None:
    model = CTCModel(torch.nn.Identity(), num_symbols=32, embed_dim=64)
    bound = math.sqrt(6 / (32 + 64))
    assert not model.proj.bias.any()
    assert 0.95 * bound < model.proj.weight.abs().max().item() <= bound


def test_loss_is_a_sum_over_the_utterances() -> None:
    model, batch = made().eval(), speech([300, 300, 300], ["AB|", "C", ""])
    assert batch.labels is not None
    assert batch.label_lengths is not None
    whole = model(batch, update=0)
    parts = [
        model(
            Batch(
                source=batch.source[i : i + 1],
                labels=batch.labels[i : i + 1],
                label_lengths=batch.label_lengths[i : i + 1],
            ),
            update=0,
        )
        for i in range(3)
    ]
    torch.testing.assert_close(whole.loss_sum, sum(part.loss_sum for part in parts))
    assert whole.sample_size == 3
    assert whole.metrics["loss_per_symbol"][1] == 4
    assert whole.metrics["too_long"] == (0, 3)


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(40, 200), min_size=1, max_size=3),
    texts=st.lists(st.text("AB|C", max_size=8), min_size=3, max_size=3),
)
def test_loss_is_that_of_all_alignments(lengths: list[int], texts: list[str]) -> None:
    model, batch = made().eval(), speech(lengths, texts[: len(lengths)])
    logits, frames = model.scores(batch)
    expected = [
        alignment_loss(row[:length].double().log_softmax(-1), LETTERS.numbers(text))
        for row, length, text in zip(logits, frames.tolist(), texts, strict=False)
    ]
    torch.testing.assert_close(model(batch, update=0).loss_sum, sum(expected).float(), rtol=1e-4, atol=1e-3)


def test_another_blank_and_specials_at_other_numbers() -> None:
    labels = Symbols(("A", "<pad>", "B", "-"), blank="-", specials=("<pad>",))
    model = made(labels=labels).eval()
    batch = dataclasses.replace(speech([200]), labels=torch.tensor([[0, 1, 2]]), label_lengths=torch.tensor([3]))
    without = dataclasses.replace(batch, labels=torch.tensor([[0, 2]]), label_lengths=torch.tensor([2]))
    loss = model(batch, update=0).loss_sum
    torch.testing.assert_close(loss, model(without, update=0).loss_sum)
    whole = model.logits(batch)[0].double().log_softmax(-1)[:, [3, 0, 2]]
    torch.testing.assert_close(loss, alignment_loss(whole, [1, 2]).float())


def test_padded_frames_are_blanks() -> None:
    batch = speech([300, 130])
    logits, lengths = made().eval().scores(batch)
    assert lengths.tolist() == [29, 12]
    assert logits[1, 12:, 0].eq(0).all()
    assert logits[1, 12:, 1:].eq(-torch.inf).all()
    assert logits[0].isfinite().all()


@pytest.mark.parametrize(("mode", "expected"), [("add", 1.5), ("set", None)])
def test_weight_of_the_blank(mode: str, expected: float | None) -> None:
    model, batch = made(CTC(blank_weight=1.5, blank_mode=mode)).eval(), speech([200, 100])  # type: ignore[arg-type]
    logits, lengths = model.scores(batch)
    model.blank_weight = 0.0
    plain, _ = model.scores(batch)
    torch.testing.assert_close(logits[..., 1:], plain[..., 1:])
    valid = torch.arange(logits.shape[1]) < lengths[:, None]
    wanted = plain[..., 0] + 1.5 if expected else torch.full_like(plain[..., 0], 1.5)
    torch.testing.assert_close(logits[..., 0], wanted.where(valid, 0.0))


def test_transcripts_that_are_too_long_cost_nothing_and_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    model, batch = made(), speech([300, 60, 60], ["AB", "AABB", "ABCA"], ids=[7, 8, 9])  # 5 frames: AABB needs 6
    with caplog.at_level(logging.WARNING):
        out = model(batch, update=0)
        model(batch, update=1)
    count, of = out.metrics["too_long"]
    assert (float(count), of) == (100, 3)
    assert [record.args for record in caplog.records] == [("8",)]
    out.loss_sum.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    short = dataclasses.replace(batch, label_lengths=torch.tensor([2, 0, 4]))
    assert model(short, update=0).loss_sum > out.loss_sum.detach(), "an empty transcript has a loss, this one has none"


def test_only_too_long_transcripts() -> None:
    out = made()(speech([60], ["AAAAAA"]), update=0)
    assert out.loss_sum == 0
    out.loss_sum.backward()


@pytest.mark.parametrize(("average", "count"), [("utterances", 2), ("symbols", 5)])
def test_what_the_loss_is_averaged_over(average: str, count: int) -> None:
    task = CTC(average=average)  # type: ignore[arg-type]
    assert made(task)(speech([200, 200], ["AB|", "CA"]), update=0).sample_size == count


def test_masks_in_training_only() -> None:
    task = CTC(mask=TIME, channel_mask=CHANNELS)
    model, batch = made(task, former=True), speech([300, 200], ["AB|", "C"])
    losses = [model.train()(batch, update=update).loss_sum.item() for update in (0, 0, 1)]
    plain = model.eval()(batch, update=0).loss_sum.item()
    assert losses[0] == losses[1] != losses[2]
    assert plain not in losses
    torch.testing.assert_close(plain, made_without_masks(model)(batch, update=0).loss_sum.item())


def made_without_masks(model: CTCModel) -> CTCModel:
    model.masker = None
    return model.train()


def test_a_mask_depends_on_the_sample_alone() -> None:
    """Without equal counts: these depend on the batch by definition."""
    model = made(CTC(mask=SpanMasker(mask_prob=0.5, mask_length=3, equal_counts=False)), former=True)
    batch = speech([300, 300, 300], ids=[4, 5, 6])
    one = Batch(source=batch.source[1:2], ids=torch.tensor([5]))
    torch.testing.assert_close(model.scores(batch, update=3)[0][1], model.scores(one, update=3)[0][0])
    other = Batch(source=batch.source[1:2], ids=torch.tensor([6]))
    assert not torch.allclose(model.scores(one, update=3)[0], model.scores(other, update=3)[0])


def test_the_seed_of_the_run_sets_the_masks() -> None:
    batch = speech([300])
    outputs = []
    for seed in (0, 0, 1):
        torch.manual_seed(7)
        backbone = encoder(CTC().adapt(student(former=True)))
        torch.manual_seed(seed)
        model = CTC(mask=TIME).build(backbone, embed_dim=DIM, labels=LETTERS)
        torch.nn.init.ones_(model.proj.weight)
        outputs.append(model.scores(batch, update=0)[0])
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize("texts", [["AB", "C"], ["A", ""]])
@pytest.mark.parametrize("lengths", [[300, 300], [300, 160]])
def test_masks_can_be_drawn_before_the_step(lengths: list[int], texts: list[str]) -> None:
    model, batch = made(CTC(mask=TIME, channel_mask=CHANNELS)), speech(lengths, texts, ids=[4, 9])
    prepared = model.prepared(batch, update=3)
    assert prepared.mask is not None
    assert prepared.mask.channels is not None
    assert prepared.known is not None
    assert prepared.known.padded == (lengths[1] < 300)
    found = []
    for one in (prepared, batch):
        torch.manual_seed(0)
        found.append(model(one, update=3).loss_sum)
    assert torch.equal(*found)
    short = speech([5, 5], texts)
    assert model.prepared(short, update=3) is short  # the step refuses it
    with pytest.raises(ValueError, match="9; leave them out"):
        model.prepared(speech([300, 5], texts, ids=[4, 9]), update=3)


def test_a_mask_that_the_batch_brings() -> None:
    batch = speech([300])
    model = made(CTC(mask=TIME), former=True)
    nothing = dataclasses.replace(batch, mask=Mask(hidden=torch.zeros(1, 29, dtype=torch.bool)))
    torch.testing.assert_close(model.scores(nothing, update=0)[0], model.scores(batch)[0])


def test_hidden_frames_of_2_0_become_noise_or_zeros() -> None:
    batch = speech([300])
    loud = made(CTC(mask=TIME, mask_noise_std=0.5))
    assert not torch.equal(loud.scores(batch, update=0)[0], loud.scores(batch, update=0)[0]), "noise is drawn anew"
    zeros = made(CTC(mask=TIME, mask_noise_std=0.0))
    assert torch.equal(zeros.scores(batch, update=0)[0], zeros.scores(batch, update=0)[0])


def test_only_channels_may_be_masked() -> None:
    masker = CTC(channel_mask=CHANNELS).masker(DIM)
    assert masker is not None
    mask = masker(4, (30,), draw=torch.Generator().manual_seed(0))
    assert not mask.hidden.any()
    assert mask.channels is not None
    assert mask.channels.any()


def test_recordings_shorter_than_a_frame_are_named() -> None:
    with pytest.raises(ValueError, match=r"one frame: 12"):
        made().logits(speech([300, 15], ids=[11, 12]))


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_the_extractor_is_trained_if_its_gradient_is_not_zero(scale: float) -> None:
    model = made(CTC(gradient_scale=scale))
    model(speech([200], ["AB"]), update=0).loss_sum.backward()
    grads = {name for name, p in model.named_parameters() if p.grad is not None}
    assert any(".front.extractor." in name for name in grads) == (scale > 0)
    assert "encoder.adapters.audio.front.proj.weight" in grads


def test_a_frozen_encoder_still_masks() -> None:
    model, batch = made(CTC(mask=TIME), former=True), speech([300], ["AB"])
    freeze = Freeze(model, ["encoder"], updates=2)
    freeze.apply(1)
    losses = [model(batch, update=update).loss_sum for update in (0, 1)]
    losses[1].backward()
    assert losses[0] != losses[1]
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {"proj.weight", "proj.bias"}
    freeze.apply(2)
    model(batch, update=2).loss_sum.backward()
    assert model.encoder.adapters["audio"].front.proj.weight.grad is not None  # type: ignore[union-attr, index]


def test_loss_is_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        out = made()(speech([200], ["AB"]), update=0)
    assert out.loss_sum.dtype == torch.float32
    out.loss_sum.backward()


def test_predictions() -> None:
    model, batch, task = made().eval(), speech([300, 130]), CTC(sample_rate=1000)
    with torch.no_grad():
        rows, outputs = task.predict(model, batch, labels=LETTERS), task.outputs(model, batch, labels=LETTERS)
        logits, lengths = model.scores(batch)
    for row, numbers, scores, length in zip(rows, outputs, logits, lengths.tolist(), strict=True):
        assert row["symbols"].split() == [LETTERS.symbols[number] for number in numbers]
        assert row["text"] == LETTERS.text(numbers)
        assert row["score"] == pytest.approx(scores[:length].log_softmax(-1).amax(-1).sum().item(), abs=1e-3)
        path = scores[:length].argmax(-1)
        expected = [(word.text, word.first * 0.01, (word.last + 1) * 0.01) for word in words_of(path, LETTERS)]
        assert [(word["word"], word["start"], word["end"]) for word in row["words"]] == [
            (text, pytest.approx(start), pytest.approx(end)) for text, start, end in expected
        ]


def test_times_need_the_stride_of_the_front_end() -> None:
    model = made().eval()
    model.encoder.adapters["audio"].front = _NoStride(model.encoder.adapters["audio"].front)  # type: ignore[union-attr, index]
    (row,) = CTC().predict(model, speech([300]), labels=LETTERS)
    assert set(row) == {"text", "symbols", "score"}


class _NoStride(torch.nn.Module):
    def __init__(self, inside: torch.nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, batch: Batch) -> object:
        return self.inside(batch)


def test_scores_that_are_not_numbers_are_refused() -> None:
    model = made().eval()
    batch = speech([300, 200], ids=[3, 4])
    batch.source[1, 50] = torch.nan
    with pytest.raises(NotFiniteError, match=r": 4;"):
        CTC().outputs(model, batch, labels=LETTERS)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="no blank"):
        made(labels=Symbols(("A", "B")))
    with pytest.raises(ValueError, match="no transcripts"):
        made()(speech([200]), update=0)
    for options, message in (
        ({"num_symbols": 1}, "num_symbols"),
        ({"blank": 5}, "blank=5"),
        ({"blank_mode": "sub"}, "blank_mode='sub'"),
        ({"average": "frames"}, "average='frames'"),
    ):
        with pytest.raises(ValueError, match=message):
            CTCModel(torch.nn.Identity(), **{"num_symbols": 5, "embed_dim": 4, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("former", [False, True])
def test_transcripts_are_learned(former: bool) -> None:
    torch.manual_seed(0)
    task, texts = CTC(gradient_scale=1.0), ["AB|C", "CA", "BB"]
    config = task.adapt(student(former=former))
    model = task.build(config.build(), embed_dim=DIM, labels=LETTERS)
    batch = speech([300, 200, 250], texts)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for update in range(150):
        optimizer.zero_grad()
        model(batch, update=update).loss_sum.backward()
        optimizer.step()
    with torch.no_grad():
        rows = task.predict(model.eval(), batch, labels=LETTERS)
    assert [row["text"] for row in rows] == ["AB C", "CA", "BB"]
