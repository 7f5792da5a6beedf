"""Statistics of masks compared with published ones.

Every statistic is compared as z = difference / its standard error. The library's error is a bootstrap over calls,
since runs cluster within rows and rows within calls; that of the published statistic is the same, scaled to its number
of calls.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from attrs import field, frozen

ROUNDED = 6e-5  # the published numbers have four or five digits
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


def components(published: dict[str, Any], visible: Array, side: int, reference_rows: float) -> Iterator[Figure]:
    counts = component_sizes(visible, side)
    size = np.arange(counts.shape[1])
    number = counts.sum(1)
    yield from mean_and_std("components", published["count"], number)
    yield Figure("component size mean", published["size"]["mean"], counts @ size, number)
    yield Figure("component size std", published["size"]["std"], counts @ size, number, counts @ size**2)
    yield from histogram("component size", published["size_histogram"], counts, reference_rows)


def full_windows(visible: Array, side: int, length: int) -> Array:
    plane = visible.reshape(-1, side, side)
    windows = np.lib.stride_tricks.sliding_window_view(plane, (length, length), axis=(1, 2))
    return windows.all((3, 4)).sum((1, 2))


def scores(figures: list[Figure], rows_per_call: int, reference_calls: int) -> list[tuple[str, float]]:
    """(name, z) of every figure."""
    zero = np.zeros(len(figures[0].total))
    rows = [(one.total, one.weight, zero if one.squares is None else one.squares) for one in figures]
    stacked = [np.stack([np.asarray(x, float) for x in part], 1) for part in zip(*rows, strict=True)]
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
