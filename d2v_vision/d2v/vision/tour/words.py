"""A report's figures as rows and sentences. Every sentence is computed, so none can praise what was not measured."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen

Report = Mapping[str, Any]

COLUMNS = {"pixels": "raw pixels", "random_init": "untrained", "pretrained": "pretrained"}
_PROBES = {"knn": "10 nearest neighbours", "linear": "linear, all labels", "linear_100": "linear, 100 labels"}
_IN_A_SENTENCE = {
    "knn": "ten nearest neighbours",
    "linear": "a linear classifier with all labels",
    "linear_100": "a linear classifier with 100 labels",
}
_DEVICES = {"cpu": "the processor", "cuda": "the graphics card", "mps": "the graphics cores"}
_NEEDED = ("probe", "finetune_100", "seconds", "steps", "images_seen", "device", "seed", "recipe")


@frozen(kw_only=True)
class Cell:
    """An accuracy as the table shows it.

    Args:
        value: percent, one decimal.
        std: standard deviation over label draws, if there were several.
        best: no other cell of its row is higher.

    >>> Cell(value=83.9).best
    False
    """

    value: float
    std: float | None = None
    best: bool = False


@frozen(kw_only=True)
class Row:
    """One comparison: pixels, the untrained network and the pretrained one under the same classifier.

    Args:
        group: what classified, as a heading.
        label: of what features.
        cells: by the keys of `COLUMNS`.
        phrase: the comparison's name inside a sentence.

    >>> cells = {"pixels": Cell(value=82.2), "pretrained": Cell(value=80.0)}
    >>> Row(group="10 nearest neighbours", label="mean", cells=cells, phrase="").lead("pixels")
    -2.2
    """

    group: str
    label: str
    cells: dict[str, Cell]
    phrase: str

    def lead(self, other: str) -> float:
        """Points by which the pretrained network is ahead of another column; negative if it is behind."""
        return round(self.cells["pretrained"].value - self.cells[other].value, 1)


def check(report: Report) -> None:
    """Refuse a report that lacks what a page needs.

    Raises:
        ValueError: naming what is missing.

    >>> check({"probe": {}, "finetune_100": {}, "seconds": 1.0, "steps": 1, "images_seen": 8, "device": "cpu"})
    Traceback (most recent call last):
    ValueError: the report lacks seed, recipe
    """
    missing = [key for key in _NEEDED if key not in report]
    if missing:
        raise ValueError(f"the report lacks {', '.join(missing)}")


def probe_rows(report: Report) -> list[Row]:
    """A row for each probe and pooling, ordered by probe."""
    stds = report.get("std", {}).get("probe", {})
    probes = dict.fromkeys(probe for one in report["probe"].values() for probe in one)
    return [
        Row(
            group=_PROBES.get(probe, probe),
            label=pooling,
            cells=_cells(by_probe[probe], stds.get(pooling, {}).get(probe, {})),
            phrase=f"{_IN_A_SENTENCE.get(probe, probe)} on the {pooling} pooling",
        )
        for probe in probes
        for pooling, by_probe in report["probe"].items()
        if probe in by_probe
    ]


def finetuning_row(report: Report) -> Row:
    """Fine-tuning on 100 labels; its pixels are those of the linear classifier with 100 labels, if there is one."""
    std = report.get("std", {})
    values = {"random_init": report["finetune_100"]["scratch"], "pretrained": report["finetune_100"]["pretrained"]}
    stds = dict(std.get("finetune_100", {}))
    stds["random_init"] = stds.get("scratch")
    for pooling, by_probe in report["probe"].items():
        if "linear_100" in by_probe:
            values = {"pixels": by_probe["linear_100"]["pixels"], **values}
            stds["pixels"] = std.get("probe", {}).get(pooling, {}).get("linear_100", {}).get("pixels")
            break
    return Row(
        group="whole network fine-tuned, 100 labels",
        label="network",
        cells=_cells(values, stds),
        phrase="fine-tuning on 100 labels",
    )


def verdict(report: Report) -> str:
    """Where the learned features beat the raw pixels and where they do not, in one sentence.

    >>> knn = {"pixels": 82.2, "random_init": 68.7, "pretrained": 83.9}
    >>> print(verdict({"probe": {"mean": {"knn": knn}}}))
    The learned features beat the raw pixels in the only comparison, by 1.7 points.
    >>> knn["pretrained"] = 80.0
    >>> print(verdict({"probe": {"mean": {"knn": knn}}}))
    Raw pixels still win the only comparison, by 2.2 points.
    """
    rows = probe_rows(report)
    won, lost = [row for row in rows if row.lead("pixels") > 0], [row for row in rows if row.lead("pixels") < 0]
    every = "the only comparison" if len(rows) == 1 else f"all {len(rows)} comparisons"
    if len(won) == len(rows):
        return f"The learned features beat the raw pixels in {every}, by {_range(row.lead('pixels') for row in won)}."
    if len(lost) == len(rows):
        return f"Raw pixels still win {every}, by {_range(-row.lead('pixels') for row in lost)}."
    text = f"The learned features beat the raw pixels in {len(won)} of {len(rows)} comparisons"
    if level := len(rows) - len(won) - len(lost):
        text += f", {level} {'is' if level == 1 else 'are'} level"
    return f"{text}; raw pixels still win with {_listed(lost, 'pixels')}." if lost else f"{text}."


def beside_untrained(report: Report) -> str:
    """How far the learned features are above those of the same network untrained.

    >>> knn = {"pixels": 82.2, "random_init": 68.7, "pretrained": 83.9}
    >>> print(beside_untrained({"probe": {"mean": {"knn": knn}}}))
    Against the same network before training they gain 15.2 points.
    """
    rows = probe_rows(report)
    behind = [row for row in rows if row.lead("random_init") <= 0]
    if not behind:
        gain = _range(row.lead("random_init") for row in rows)
        return f"Against the same network before training they gain {gain}."
    if len(behind) == len(rows):
        return "The same network before training is nowhere worse."
    return f"The same network before training is no worse with {_listed(behind, 'random_init')}."


def beside_scratch(report: Report) -> str:
    """What pretraining is worth to fine-tuning on 100 labels, beside pixels too.

    >>> figures = {"scratch": 58.1, "pretrained": 70.2}
    >>> print(beside_scratch({"probe": {}, "finetune_100": figures}))
    Fine-tuned on 100 labels, the network reaches 70.2 %, 12.1 points above the same network trained from scratch.
    """
    row = finetuning_row(report)
    text = f"Fine-tuned on 100 labels, the network reaches {row.cells['pretrained'].value:.1f} %"
    text += f", {_beside(row.lead('random_init'))} the same network trained from scratch"
    if "pixels" in row.cells:
        text += f" and {_beside(row.lead('pixels'))} a linear classifier on the raw pixels with as many labels"
    return text + "."


def chance(report: Report) -> str:
    """How uncertain an accuracy is for want of test samples; empty where their number is not known.

    >>> knn = {"pixels": 80.0, "random_init": 80.0, "pretrained": 80.0}
    >>> print(chance({"probe": {"mean": {"knn": knn}}, "samples": {"test": 1600}}))
    With 1,600 test pictures an accuracy is uncertain by about 1.0 points (one standard deviation).
    """
    test = report.get("samples", {}).get("test")
    values = [cell.value for row in probe_rows(report) for cell in row.cells.values()]
    if not test or not values:
        return ""
    points = max(math.sqrt(max(value * (100 - value), 0) / test) for value in values)
    return (
        f"With {test:,} test pictures an accuracy is uncertain by about {points:.1f} points (one standard deviation)."
    )


def duration(seconds: float) -> str:
    """A time that is read, not computed with.

    >>> duration(297.4), duration(42), duration(0.4), duration(3720)
    ('4 min 57 s', '42 s', '1 s', '1 h 2 min')
    """
    whole = max(round(seconds), 1)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def device_words(device: str) -> str:
    """What a device is called in a sentence.

    >>> device_words("cpu"), device_words("cuda:1"), device_words("xpu")
    ('the processor', 'the graphics card', 'xpu')
    """
    return _DEVICES.get(device.partition(":")[0], device)


def _cells(values: Mapping[str, float], stds: Mapping[str, float | None]) -> dict[str, Cell]:
    # What is shown decides: 83.94 and 83.91 are told as equal.
    shown = {key: float(f"{values[key]:.1f}") for key in COLUMNS if key in values}
    best = max(shown.values(), default=0.0)
    return {key: Cell(value=one, std=stds.get(key), best=one == best) for key, one in shown.items()}


def _listed(rows: list[Row], other: str) -> str:
    def told(row: Row) -> str:
        return f"{row.phrase} ({row.cells[other].value:.1f} against {row.cells['pretrained'].value:.1f} %)"

    return _joined([told(row) for row in rows])


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _range(points: Iterable[float]) -> str:
    low, *_, high = sorted([*points] * 2)
    return f"{low:.1f} points" if low == high else f"{low:.1f} to {high:.1f} points"


def _beside(lead: float) -> str:
    if not lead:
        return "level with"
    return f"{abs(lead):.1f} points {'above' if lead > 0 else 'below'}"
