"""Our masks against statistics of the published implementation's (data/masks.json, data/masks_v1.json).

Every figure is compared as z = difference / its standard error. The error of ours comes from a bootstrap over calls,
since runs cluster within rows and rows within calls; that of the published figure is the same, scaled to its number of
calls.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attrs import evolve, field, frozen

from d2v.core.masks import BlockMasker, Draw, InverseBlockMasker, RandomMasker, SpanMasker

DATA = Path(__file__).parent / "data"
REFERENCE = json.loads((DATA / "masks.json").read_text())
REFERENCE_V1 = json.loads((DATA / "masks_v1.json").read_text())
ROUNDED = 6e-5  # the figures have four or five digits
ROWS = 6000
RESAMPLES = 300
Array = np.ndarray[Any, Any]


@frozen
class Figure:
    """A published figure; ours is sum(total) / sum(weight) over rows, or the deviation around that, with `squares`."""

    name: str
    published: float
    total: Array
    weight: Array
    squares: Array | None = field(default=None)


def mean_and_std(name: str, published: dict[str, float], values: Array) -> Iterator[Figure]:
    one = np.ones(len(values))
    yield Figure(f"{name} mean", published["mean"], values, one)
    yield Figure(f"{name} std", published["std"], values, one, values**2)
    if published["std"] == 0:
        yield Figure(f"{name} least", published["min"], np.full(len(values), values.min()), one)
        yield Figure(f"{name} most", published["max"], np.full(len(values), values.max()), one)


def histogram(name: str, published: dict[str, float], counts: Array, reference_rows: float) -> Iterator[Figure]:
    """Shares of sizes from `counts` `rows (sizes from 0)`; bins that expect fewer than 5 are pooled."""
    open_end = [int(key[:-1]) for key in published if key.endswith("+")]
    cap = open_end[0] if open_end else max(map(int, published)) + 1
    counts = np.concatenate([counts[:, 1:cap], counts[:, cap:].sum(1, keepdims=True)], 1)
    fractions = np.array([published.get(str(size), 0.0) for size in range(1, cap)] + [published.get(f"{cap}+", 0.0)])
    weight = counts.sum(1)
    expected = counts.sum(0) / len(counts) * reference_rows
    order = np.argsort(expected)
    rare = int((expected < 5).sum())
    if rare and expected[order[:rare]].sum() < 5:
        rare += 1
    if rare:
        yield Figure(f"{name} rare", fractions[order[:rare]].sum(), counts[:, order[:rare]].sum(1), weight)
    for size in order[rare:]:
        yield Figure(f"{name} {size + 1}", fractions[size], counts[:, size], weight)


def run_counts(x: Array) -> Array:
    """How many runs of True of each length a row has, `rows (length from 0)`."""
    rows, t = x.shape
    edge = np.diff(np.pad(x.astype(np.int8), ((0, 0), (1, 1))))
    row, start = (edge == 1).nonzero()
    length = (edge == -1).nonzero()[1] - start
    return np.bincount(row * (t + 1) + length, minlength=rows * (t + 1)).reshape(rows, t + 1)


def runs(name: str, published: dict[str, Any], x: Array, reference_rows: float, lines: int = 1) -> Iterator[Figure]:
    """`lines` is the number of grid rows a mask has, over which the published figures for images are averages."""
    counts = run_counts(x.reshape(-1, x.shape[1] // lines)).reshape(len(x), lines, -1).sum(1)
    yield Figure(f"{name} length", published["mean_length"], x.sum(1), counts.sum(1))
    yield Figure(f"{name} number", published["runs_per_sample"], counts.sum(1), np.full(len(x), lines))
    yield from histogram(name, published["histogram"], counts, reference_rows)


def probabilities(name: str, published: dict[str, float], hidden: Array) -> Iterator[Figure]:
    t = hidden.shape[1]
    places = {"overall": range(t), "middle": range(t // 2 - 5, t // 2 + 5)}  # the middle was a window of about ten
    for key, value in published.items():
        columns = places.get(key) or [t - int(key[2:]) if key.startswith("T-") else int(key)]
        yield Figure(f"{name} {key}", value, hidden[:, list(columns)].mean(1), np.ones(len(hidden)))


def plane_probabilities(published: dict[str, Any], hidden: Array, side: int) -> Iterator[Figure]:
    y, x = np.divmod(np.arange(side * side), side)
    ring = np.minimum.reduce([y, x, side - 1 - y, side - 1 - x])
    corner = (ring == 0) & np.isin(y, [0, side - 1]) & np.isin(x, [0, side - 1])
    middle = [side // 2 - 1, side // 2]
    places = {"overall": ring >= 0, "corners": corner, "edges": (ring == 0) & ~corner, "second_ring": ring == 1}
    places |= {"inner": ring >= 2, "centre": np.isin(y, middle) & np.isin(x, middle)}
    one = np.ones(len(hidden))
    for place, where in places.items():
        yield Figure(f"hidden {place}", published[place], hidden[:, where].mean(1), one)
    for position, value in enumerate(published["map_row_major"]):
        yield Figure(f"hidden {position}", value, hidden[:, position], one)


def component_sizes(visible: Array, side: int) -> Array:
    """How many 4-connected components of each size a row has, `rows (size from 0)`: labels spread to the largest."""
    rows, t = visible.shape
    label = np.where(visible, np.arange(1, t + 1), 0).reshape(rows, side, side)
    while True:
        wide = np.pad(label, ((0, 0), (1, 1), (1, 1)))
        around = [wide[:, :-2, 1:-1], wide[:, 2:, 1:-1], wide[:, 1:-1, :-2], wide[:, 1:-1, 2:]]
        spread = np.where(label > 0, np.maximum.reduce([label, *around]), 0)
        if (spread == label).all():
            break
        label = spread
    sizes = np.bincount((label.reshape(rows, t) + np.arange(rows)[:, None] * (t + 1)).ravel(), minlength=rows * (t + 1))
    sizes = sizes.reshape(rows, t + 1)[:, 1:]
    index = sizes + np.arange(rows)[:, None] * (t + 1)
    counts = np.bincount(index.ravel(), minlength=rows * (t + 1)).reshape(rows, t + 1)
    counts[:, 0] = 0
    return counts


def components(published: dict[str, Any], visible: Array, side: int) -> Iterator[Figure]:
    counts = component_sizes(visible, side)
    size = np.arange(counts.shape[1])
    number = counts.sum(1)
    yield from mean_and_std("components", published["count"], number)
    yield Figure("component size mean", published["size"]["mean"], counts @ size, number)
    yield Figure("component size std", published["size"]["std"], counts @ size, number, counts @ size**2)
    yield from histogram("component size", published["size_histogram"], counts, REFERENCE["draws"])


def full_windows(visible: Array, side: int, length: int) -> Array:
    plane = visible.reshape(-1, side, side)
    windows = np.lib.stride_tricks.sliding_window_view(plane, (length, length), axis=(1, 2))
    return windows.all((3, 4)).sum((1, 2))


def image_figures(entry: dict[str, Any], masker: InverseBlockMasker | RandomMasker) -> Iterator[Figure]:
    draw = Draw(seed=1, update=2, ids=torch.arange(ROWS))
    t, n = entry["positions"], REFERENCE["draws"]
    side = round(t**0.5)
    hidden = masker(ROWS, (side, side), draw=draw).hidden.numpy()
    yield from mean_and_std("hidden", entry["masked_per_sample"], hidden.sum(1))
    yield from mean_and_std("visible", entry["visible_per_sample"], (~hidden).sum(1))
    if isinstance(masker, RandomMasker):
        yield from probabilities("hidden", entry["masked_probability"], hidden)
        return
    chosen = masker._blocks(ROWS, (side, side), 1, draw, torch.full((ROWS,), t)).numpy().sum(1)
    target, one = (~hidden).sum(1), np.ones(ROWS)
    yield from mean_and_std("before", entry["visible_before_count_adjustment"], chosen)
    yield Figure("removed", entry["share_of_samples_where_cells_were_removed"], chosen > target, one)
    yield Figure("added", entry["share_of_samples_where_cells_were_added"], chosen < target, one)
    yield from components(entry["visible_components_4_connected"], ~hidden, side)
    windows = full_windows(~hidden, side, entry["mask_length"])
    yield from mean_and_std("windows", entry["fully_visible_windows_of_block_size"], windows)
    yield from runs("visible runs", entry["visible_runs_along_rows"], ~hidden, n, side)
    yield from runs("hidden runs", entry["masked_runs_along_rows"], hidden, n, side)
    yield from plane_probabilities(entry["masked_probability"], hidden, side)


def line_figures(entry: dict[str, Any], masker: InverseBlockMasker | RandomMasker) -> Iterator[Figure]:
    draw = Draw(seed=1, update=2, ids=torch.arange(ROWS))
    t, n = entry["positions"], REFERENCE["draws"]
    hidden = masker(ROWS, (t,), draw=draw).hidden.numpy()
    yield from mean_and_std("hidden", entry["masked_per_sample"], hidden.sum(1))
    yield from runs("hidden runs", entry["masked_runs"], hidden, n)
    yield from runs("visible runs", entry["visible_runs"], ~hidden, n)
    yield from probabilities("hidden", entry["masked_probability"], hidden)
    if isinstance(masker, InverseBlockMasker):
        chosen = masker._blocks(ROWS, (t,), 1, draw, torch.full((ROWS,), t)).numpy()
        yield from mean_and_std("before", entry["masked_before_count_adjustment"], chosen.sum(1))
        yield from runs("runs before", entry["masked_runs_before_adjustment"], chosen, n)
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


def scores(figures: list[Figure], rows_per_call: int, reference_calls: int) -> list[tuple[str, float]]:
    """(name, z) of every figure."""
    stacked = [np.stack([np.asarray(x, float) for x in part], 1) for part in _parts(figures)]
    calls = len(stacked[0]) // rows_per_call
    totals, weights, squares = (part.reshape(calls, rows_per_call, -1).sum(1) for part in stacked)
    deviation = np.array([figure.squares is not None for figure in figures])

    def estimate(times: Array) -> Array:
        total, weight, square = times @ totals, times @ weights, times @ squares
        mean = total / weight
        return np.where(deviation, np.sqrt(np.clip(square / weight - mean**2, 0, None)), mean)

    resample = np.random.default_rng(0).multinomial(calls, np.full(calls, 1 / calls), size=RESAMPLES)
    ours, error = estimate(np.ones((1, calls)))[0], estimate(resample.astype(float)).std(0)
    error *= np.sqrt(1 + calls / reference_calls)
    difference = ours - np.array([figure.published for figure in figures])
    exact = error < 1e-9
    z = np.where(exact, np.where(np.abs(difference) < ROUNDED, 0, np.inf), difference / np.where(exact, 1, error))
    return list(zip([figure.name for figure in figures], z.tolist(), strict=True))


def _parts(figures: list[Figure]) -> list[list[Array]]:
    zero = np.zeros(len(figures[0].total))
    return [
        [figure.total for figure in figures],
        [figure.weight for figure in figures],
        [zero if figure.squares is None else figure.squares for figure in figures],
    ]


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
    # Every mean is a whole number of frames over 400 rows, so that is how many there were.
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
