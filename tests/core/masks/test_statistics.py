"""Masks against statistics of the published implementation's (data/masks.json, data/masks_v1.json)."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from attrs import evolve
from mask_figures import (
    Array,
    Figure,
    components,
    full_windows,
    mean_and_std,
    plane_probabilities,
    probabilities,
    runs,
    scores,
)

from d2v.core.masks import BlockMasker, Draw, InverseBlockMasker, RandomMasker, SpanMasker, blocks

DATA = Path(__file__).parent / "data"
REFERENCE = json.loads((DATA / "masks.json").read_text())
REFERENCE_V1 = json.loads((DATA / "masks_v1.json").read_text())
ROWS = 6000


def drawn(masker: InverseBlockMasker | RandomMasker, grid: tuple[int, ...]) -> tuple[Array, Array | None]:
    """Hidden positions, and of blocks the positions that were chosen before their count was adjusted."""
    with patch.object(blocks, "adjusted", wraps=blocks.adjusted) as adjusted:
        hidden = masker(ROWS, grid, draw=Draw(seed=1, update=2, ids=torch.arange(ROWS))).hidden
    return hidden.numpy(), adjusted.call_args.args[0].numpy() if adjusted.called else None


def image_figures(entry: dict[str, Any], masker: InverseBlockMasker | RandomMasker) -> Iterator[Figure]:
    n, side = REFERENCE["draws"], round(entry["positions"] ** 0.5)
    hidden, before = drawn(masker, (side, side))
    yield from mean_and_std("hidden", entry["masked_per_sample"], hidden.sum(1))
    yield from mean_and_std("visible", entry["visible_per_sample"], (~hidden).sum(1))
    if before is None:
        yield from probabilities("hidden", entry["masked_probability"], hidden)
        return
    chosen, target, one = before.sum(1), (~hidden).sum(1), np.ones(ROWS)
    yield from mean_and_std("before", entry["visible_before_count_adjustment"], chosen)
    yield Figure("removed", entry["share_of_samples_where_cells_were_removed"], chosen > target, one)
    yield Figure("added", entry["share_of_samples_where_cells_were_added"], chosen < target, one)
    yield from components(entry["visible_components_4_connected"], ~hidden, side, n)
    windows = full_windows(~hidden, side, entry["mask_length"])
    yield from mean_and_std("windows", entry["fully_visible_windows_of_block_size"], windows)
    yield from runs("visible runs", entry["visible_runs_along_rows"], ~hidden, n, side)
    yield from runs("hidden runs", entry["masked_runs_along_rows"], hidden, n, side)
    yield from plane_probabilities(entry["masked_probability"], hidden, side)


def line_figures(entry: dict[str, Any], masker: InverseBlockMasker | RandomMasker) -> Iterator[Figure]:
    n = REFERENCE["draws"]
    hidden, before = drawn(masker, (entry["positions"],))
    yield from mean_and_std("hidden", entry["masked_per_sample"], hidden.sum(1))
    yield from runs("hidden runs", entry["masked_runs"], hidden, n)
    yield from runs("visible runs", entry["visible_runs"], ~hidden, n)
    yield from probabilities("hidden", entry["masked_probability"], hidden)
    if before is not None:
        yield from mean_and_std("before", entry["masked_before_count_adjustment"], before.sum(1))
        yield from runs("runs before", entry["masked_runs_before_adjustment"], before, n)
    else:
        yield from mean_and_std("visible", entry["visible_per_sample"], (~hidden).sum(1))


def span_figures(entry: dict[str, Any], masker: SpanMasker) -> Iterator[Figure]:
    t, rows = entry["positions"], entry["rows_per_call"]
    n = rows * entry["calls"]
    valid = torch.tensor(entry.get("valid_lengths", [t] * rows))
    free = evolve(masker, equal_counts=False)  # the same spans, not equalised
    ids = torch.arange(ROWS // rows * rows)
    first = free(
        len(ids), (t,), draw=Draw(seed=1, update=2, ids=ids), lengths=valid.repeat(ROWS // rows)
    ).hidden.numpy()
    if rows == 1:
        after = first
    else:
        draws = [Draw(seed=1, update=2, ids=call) for call in ids.split(rows)]
        after = torch.cat([masker(rows, (t,), draw=draw, lengths=valid).hidden for draw in draws]).numpy()
    assert (np.ptp(after.sum(1).reshape(-1, rows), 1) == 0).all()
    yield from mean_and_std("hidden", entry["masked_per_sample"], after.sum(1))
    yield from mean_and_std("before", entry["masked_per_sample_before_equalising"], first.sum(1))
    yield from runs("hidden runs", entry["masked_runs"], after, n)
    yield from runs("runs before", entry["masked_runs_before_equalising"], first, n)
    if "visible_runs" in entry:
        yield from runs("visible runs", entry["visible_runs"], ~after, n)
        yield from probabilities("hidden", entry["masked_probability"], after)
        yield from probabilities("hidden before", entry["masked_probability_before_equalising"], first)
    for length, part in entry.get("per_valid_length", {}).items():
        where, v = np.tile((valid == int(length)).numpy(), ROWS // rows), int(length)
        assert after[where, v:].sum() == part["masked_in_padding"]
        inner = [
            *mean_and_std("hidden", part["masked_per_sample"], after[where].sum(1)),
            *mean_and_std("before", part["masked_per_sample_before_equalising"], first[where].sum(1)),
            *runs("hidden runs", part["masked_runs"], after[where], where.mean() * n),
            *probabilities("hidden", part["masked_probability"], after[where, :v]),
        ]
        for figure in inner:  # back to all rows, so that calls stay whole
            squares = None if figure.squares is None else _scatter(figure.squares, where)
            total, weight = _scatter(figure.total, where), _scatter(figure.weight, where)
            yield Figure(f"{length}: {figure.name}", figure.published, total, weight, squares)


def _scatter(values: Array, where: Array) -> Array:
    full = np.zeros(len(where))
    full[where] = values
    return full


SETTINGS = [f"{kind}/{name}" for kind in ("image", "audio", "text") for name in REFERENCE[kind]]


def compare(setting: str, wrong: int = 0) -> list[tuple[str, float]]:
    """Scores of one setting; `wrong` is added to the length of its blocks or spans, or to its count."""
    kind, name = setting.split("/")
    entry = REFERENCE[kind][name]
    generator, p = entry["generator"], entry["mask_prob"]
    if generator == "spans":
        spans = SpanMasker(mask_prob=p, mask_length=entry["mask_length"] + wrong)
        return scores(list(span_figures(entry, spans)), entry["rows_per_call"], entry["calls"])
    masker: InverseBlockMasker | RandomMasker
    if generator == "random per position":
        masker = RandomMasker(mask_prob=p + 1.5 * wrong / entry["positions"])
    else:
        masker = InverseBlockMasker(
            mask_prob=p,
            mask_length=entry["mask_length"] + wrong,
            mask_prob_adjust=entry["mask_prob_adjust"],
            inverse=entry.get("inverse_mask", False),
        )
    figures = image_figures if kind == "image" else line_figures
    return scores(list(figures(entry, masker)), 1, REFERENCE["draws"])


@cache
def right(setting: str) -> list[tuple[str, float]]:
    return compare(setting)


@pytest.mark.parametrize("setting", SETTINGS)
def test_masks_follow_the_published_distributions(setting: str) -> None:
    assert {name: z for name, z in right(setting) if not abs(z) <= 6} == {}


def test_few_figures_are_far_from_the_published_ones() -> None:
    every = {(setting, name): z for setting in SETTINGS for name, z in right(setting)}
    far = {name: z for name, z in every.items() if abs(z) > 4}
    assert len(every) > 2000
    assert len(far) <= len(every) / 1000, far


@pytest.mark.parametrize("wrong", [-1, 1])
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_length_off_by_one_is_found(setting: str, wrong: int) -> None:
    assert max(abs(z) for _, z in compare(setting, wrong)) > 6


@pytest.mark.parametrize("published", REFERENCE_V1["span_statistics"], ids=lambda published: published["name"])
def test_spans_of_1_0_hide_the_published_fraction(published: dict[str, Any]) -> None:
    t = published["frames"]
    masker = SpanMasker(mask_prob=published["mask_prob"], mask_length=published["mask_length"], equal_counts=False)
    hidden = masker(ROWS, (t,), draw=Draw(seed=1, update=2, ids=torch.arange(ROWS))).hidden.numpy().mean(1)
    figures = mean_and_std("fraction", {"mean": published["mean_masked_fraction"], "std": published["std"]}, hidden)
    # Every mean is an integer of frames over 400 rows, so that is how many there were.
    assert max(abs(z) for _, z in scores(list(figures), 1, 400)) < 4


def test_rectangles_reach_the_published_counts() -> None:
    published = REFERENCE_V1["beit_count_statistics"]
    masker = BlockMasker(num_masked=120, min_per_block=16, max_per_block=196)
    count = masker(ROWS, (14, 14), draw=Draw(seed=1, update=2, ids=torch.arange(ROWS))).hidden.sum(1).numpy()
    one = np.ones(ROWS)
    figures = [
        Figure("mean", published["mean"], count, one),
        Figure("exact", published["frac_exact"], count == 120, one),
    ]
    assert count.max() == published["max"]
    assert abs(count.min() - published["min"]) <= 4  # the smallest of a few thousand
    assert max(abs(z) for _, z in scores(figures, 1, 2000)) < 4
