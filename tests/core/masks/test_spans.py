"""Spans: where they start, how long they are, and how they are kept apart."""

import math
from itertools import combinations
from typing import Any

import pytest
import torch
from attrs import evolve
from drawing import SPANS, chi_square, draw_for, quick
from hypothesis import given
from hypothesis import strategies as st

from d2v.core.masks import ChannelMasker, SpanMasker, cover_spans


def test_add_masks_brings_all_rows_to_the_largest_count() -> None:
    draw, free = draw_for(40), evolve(SPANS, equal_counts=False)
    lengths = torch.tensor([60, 50]).repeat(20)
    before = free(40, (60,), draw=draw, lengths=lengths).hidden
    after = evolve(SPANS, add_masks=True)(40, (60,), draw=draw, lengths=lengths).hidden
    assert after.sum(1).tolist() == [int(before.sum(1).max())] * 40
    assert not (before & ~after).any()
    assert not after[1::2, 50:].any()


def test_mask_dropout_releases_a_rounded_fraction() -> None:
    before = SPANS(20, (60,), draw=draw_for(20)).hidden
    after = evolve(SPANS, mask_dropout=0.3)(20, (60,), draw=draw_for(20)).hidden
    assert not (after & ~before).any()
    n = int(before[0].sum())
    assert after.sum(1).tolist() == [n - round(0.3 * n)] * 20


def test_channels_without_spans_are_not_masked() -> None:
    few = SpanMasker(mask_prob=0.1, mask_length=20, min_masks=0)  # 0.32 spans a row
    hidden = few(500, (64,), draw=draw_for(500)).hidden
    counts = hidden.sum(1)
    assert counts.unique().tolist() == [0, 20]  # the others have equal counts
    assert 0.2 < float((counts > 0).float().mean()) < 0.44
    one = evolve(few, min_masks=1)(500, (64,), draw=draw_for(500)).hidden.sum(1)
    assert one.unique().tolist() == [20]


def test_channels_are_independent_of_positions() -> None:
    both = ChannelMasker(positions=SPANS, channels=SPANS, embed_dim=60)(200, (60,), draw=draw_for(200))
    assert both.channels is not None
    assert both.channels.shape == (200, 60)
    alike = float((both.hidden == both.channels).float().mean())
    hidden, channels = float(both.hidden.float().mean()), float(both.channels.float().mean())
    assert abs(alike - hidden * channels - (1 - hidden) * (1 - channels)) < 0.03  # 1.0 were they the same draw
    assert torch.equal(both.hidden, SPANS(200, (60,), draw=draw_for(200)).hidden)


def test_starts_of_equal_spans_are_uniform_and_never_reach_the_end() -> None:
    masker = SpanMasker(mask_prob=0.2, mask_length=8, equal_counts=False)  # one span a row
    hidden = masker(8000, (40,), draw=draw_for(8000)).hidden
    starts = hidden.long().argmax(1)[hidden.sum(1) == 8]
    assert len(starts) == 8000
    chi_square(torch.bincount(starts, minlength=32))


def test_short_rows_start_their_spans_within_one_more_place_than_spans() -> None:
    hidden = SpanMasker(mask_prob=0.1, mask_length=5)(2000, (6,), draw=draw_for(2000)).hidden
    rows, counts = hidden.unique(dim=0, return_counts=True)
    assert rows.int().tolist() == [[0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]]
    chi_square(counts)


def test_text_spans_start_anywhere() -> None:
    masker = SpanMasker(mask_prob=0.2, mask_length=8, equal_counts=False, reach_end=True)
    hidden = masker(8000, (40,), draw=draw_for(8000)).hidden
    counts = torch.bincount(hidden.long().argmax(1), minlength=40)
    chi_square(counts)
    assert hidden.sum(1)[hidden[:, -1] & ~hidden[:, -2]].unique().tolist() == [1]  # cut at the end


def test_text_may_hide_a_short_row_as_a_whole() -> None:
    masker = SpanMasker(mask_prob=0.35, mask_length=4, min_masks=1, equal_counts=False, reach_end=True)
    assert masker(50, (2,), draw=draw_for(50)).hidden.all(1).any()


@pytest.mark.parametrize(
    ("selection", "other", "mean", "variance"),
    [("static", 0.0, 6, 0), ("normal", 2.0, 6, 4 + 1 / 12), ("poisson", 0.0, 6, 6), ("uniform", 2.0, 7, 10)],
)
def test_lengths_follow_their_distribution(selection: Any, other: float, mean: float, variance: float) -> None:
    masker = SpanMasker(
        mask_prob=0.0, mask_length=6, min_masks=1, equal_counts=False, selection=selection, mask_other=other
    )  # one span a row
    lengths = masker(20000, (64,), draw=draw_for(20000)).hidden.sum(1).double()
    n = lengths.numel()
    assert abs(float(lengths.mean()) - mean) <= 4 * math.sqrt(variance / n)
    # The fourth moment of each of these is below 4 variance^2; one part in a hundred is for the clip at 1.
    assert abs(float(lengths.var()) - variance) <= variance * (4 * math.sqrt(3 / n) + 0.01)


def arrangements(t: int, lengths: list[int], space: int) -> int:
    """Number of ways to place the spans in order with `space` between them, by trying them all."""
    found = 0
    for starts in combinations(range(t), len(lengths)):
        ends = [start + length for start, length in zip(starts, lengths, strict=True)]
        found += ends[-1] <= t and all(b - a >= space for a, b in zip(ends[:-1], starts[1:], strict=True))
    return found


@pytest.mark.parametrize("space", [1, 2])
def test_arrangements_without_overlap_are_equally_likely(space: int) -> None:
    masker = SpanMasker(mask_prob=0.75, mask_length=3, no_overlap=True, min_space=space)  # 3 spans in 12
    hidden = masker(20000, (12,), draw=draw_for(20000)).hidden
    assert hidden.sum(1).unique().tolist() == [9 if arrangements(12, [3, 3, 3], space) else 6]
    _, counts = hidden.unique(dim=0, return_counts=True)
    expected = arrangements(12, [3, 3, 3], space) or arrangements(12, [3, 3], space)
    assert len(counts) == expected
    chi_square(counts)


def test_spans_without_overlap_use_all_the_room_there_is() -> None:
    masker = SpanMasker(mask_prob=0.1, mask_length=3, min_masks=3, no_overlap=True)
    assert masker(1, (11,), draw=draw_for(1)).hidden.int().tolist() == [[1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1]]
    assert masker(1, (10,), draw=draw_for(1)).hidden.sum() == 6  # the third does not fit


@given(
    t=st.integers(6, 50),
    length=st.integers(1, 12),
    space=st.integers(1, 4),
    p=st.floats(0.1, 1),
    seed=st.integers(0, 99),
)
@quick
def test_spans_without_overlap_keep_their_distance(t: int, length: int, space: int, p: float, seed: int) -> None:
    masker = SpanMasker(mask_prob=p, mask_length=length, no_overlap=True, min_space=space, equal_counts=False)
    for row in masker(6, (t,), draw=draw_for(6, seed)).hidden.int().tolist():
        runs = "".join(map(str, row)).strip("0").replace("01", "0 1").replace("10", "1 0").split()
        hidden = [len(run) for run in runs if run[0] == "1"]
        assert hidden
        assert set(hidden) == {min(length, t - 1)}
        assert all(len(run) >= space for run in runs if run[0] == "0")


def test_cover_spans_cuts_skips_and_merges() -> None:
    starts, lengths = torch.tensor([[0, 2, 9, 5], [8, 30, 3, 3]]), torch.tensor([[3, 2, 5, 0], [1, 4, 2, 2]])
    hidden = cover_spans(starts, lengths, 10)
    assert [row.nonzero().flatten().tolist() for row in hidden] == [[0, 1, 2, 3, 9], [3, 4, 8]]
