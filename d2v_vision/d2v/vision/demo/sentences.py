"""A report's results as table rows and sentences. Every sentence is computed from the results."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen

from d2v.core.probes.leads import Lead, Standing

Report = Mapping[str, Any]

COLUMNS = {"pixels": "raw pixels", "untrained": "untrained", "pretrained": "pretrained"}
_PROBES = {"knn": "10 nearest neighbours", "linear": "linear, all labels", "linear_100": "linear, 100 labels"}
_IN_A_SENTENCE = {
    "knn": "ten nearest neighbours",
    "linear": "a linear classifier with all labels",
    "linear_100": "a linear classifier with 100 labels",
}
_DEVICES = {"cpu": "the CPU", "cuda": "the GPU", "mps": "the GPU"}
_NEEDED = ("probe", "finetune_100", "seconds", "steps", "images_seen", "device", "seed", "recipe", "lead")


@frozen(kw_only=True)
class Cell:
    """An accuracy in the table.

    Args:
        value: percent, rounded to one decimal.
        std: standard deviation over label draws, if there are several.
        best: whether no other cell of the row is higher.

    >>> Cell(value=83.9).best
    False
    """

    value: float
    std: float | None = None
    best: bool = False


@frozen(kw_only=True)
class Row:
    """One comparison: pixels, the untrained and the pretrained network under the same classifier.

    Args:
        group: classifier, as a heading.
        label: features.
        cells: accuracies by the keys of `COLUMNS`.
        phrase: name of the comparison in a sentence.
        leads: leads of the pretrained network by the column that it is compared with.
    """

    group: str
    label: str
    cells: dict[str, Cell]
    phrase: str
    leads: dict[str, Lead]


def check(report: Report) -> None:
    """Refuse a report that lacks a key the page needs.

    Raises:
        ValueError: naming the missing keys.

    >>> check({"probe": {}, "finetune_100": {}, "lead": {}, "seconds": 1.0, "steps": 1, "images_seen": 8, "seed": 0})
    Traceback (most recent call last):
    ValueError: the report lacks device, recipe
    """
    missing = [key for key in _NEEDED if key not in report]
    if missing:
        raise ValueError(f"the report lacks {', '.join(missing)}")


def probe_rows(report: Report) -> list[Row]:
    """Return a row for each probe and pooling, ordered by probe."""
    stds = report.get("std", {}).get("probe", {})
    probes = dict.fromkeys(probe for one in report["probe"].values() for probe in one)
    return [
        Row(
            group=_PROBES.get(probe, probe),
            label=pooling,
            cells=_cells(by_probe[probe], stds.get(pooling, {}).get(probe, {})),
            phrase=f"{_IN_A_SENTENCE.get(probe, probe)} on the {pooling} pooling",
            leads=_leads(report["lead"].get("probe", {}).get(pooling, {}).get(probe, {})),
        )
        for probe in probes
        for pooling, by_probe in report["probe"].items()
        if probe in by_probe
    ]


def finetuning_row(report: Report) -> Row:
    """Return the row of fine-tuning on 100 labels; its raw pixels are from the linear classifier with 100 labels."""
    std = report.get("std", {})
    values = {"untrained": report["finetune_100"]["scratch"], "pretrained": report["finetune_100"]["pretrained"]}
    stds = dict(std.get("finetune_100", {}))
    stds["untrained"] = stds.get("scratch")
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
        leads=_leads(report["lead"].get("finetune_100", {})),
    )


def verdict(report: Report) -> str:
    """Return a sentence that compares the learned features with the raw pixels: ahead, level or behind.

    >>> knn = {"pixels": 82.2, "untrained": 68.7, "pretrained": 83.9}
    >>> lead = {"pixels": {"points": 1.7, "error": 0.6}}
    >>> print(verdict({"probe": {"mean": {"knn": knn}}, "lead": {"probe": {"mean": {"knn": lead}}}}))
    The learned features are ahead of the raw pixels in the only comparison, by 1.7 points.
    >>> lead["pixels"]["error"] = 0.9
    >>> print(verdict({"probe": {"mean": {"knn": knn}}, "lead": {"probe": {"mean": {"knn": lead}}}}))
    The learned features are level with the raw pixels in the only comparison.
    """
    return f"The learned features are {_compared(probe_rows(report), 'pixels', 'the raw pixels')}."


def versus_untrained(report: Report) -> str:
    """Return a sentence that compares the learned features with those of the untrained network.

    >>> knn = {"pixels": 82.2, "untrained": 68.7, "pretrained": 83.9}
    >>> lead = {"untrained": {"points": 15.2, "error": 0.9}}
    >>> print(versus_untrained({"probe": {"mean": {"knn": knn}}, "lead": {"probe": {"mean": {"knn": lead}}}}))
    They are ahead of those of the untrained network in the only comparison, by 15.2 points.
    """
    return f"They are {_compared(probe_rows(report), 'untrained', 'those of the untrained network')}."


def versus_scratch(report: Report) -> str:
    """Return a sentence that compares fine-tuning on 100 labels with training from scratch and with raw pixels.

    >>> accuracies = {"scratch": 58.1, "pretrained": 70.2}
    >>> lead = {"scratch": {"points": 12.1, "error": 0.9}}
    >>> print(versus_scratch({"probe": {}, "finetune_100": accuracies, "lead": {"finetune_100": lead}}))
    Fine-tuned on 100 labels, the network reaches 70.2 %, ahead of the same network trained from scratch by 12.1 points.
    """
    row = finetuning_row(report)
    others = {
        "untrained": "the same network trained from scratch",
        "pixels": "a linear classifier on the raw pixels with as many labels",
    }
    parts = [_versus(row.leads[column], other) for column, other in others.items() if column in row.leads]
    text = f"Fine-tuned on 100 labels, the network reaches {row.cells['pretrained'].value:.1f} %"
    return f"{text}, {_joined(parts)}." if parts else f"{text}."


def chance(report: Report) -> str:
    """Return sentences that define ahead, level and behind, and give the uncertainty from the number of test images.

    >>> knn = {"pixels": 80.0, "untrained": 80.0, "pretrained": 80.0}
    >>> text = chance({"probe": {"mean": {"knn": knn}}, "lead": {}, "samples": {"test": 1600}})
    >>> "two standard errors" in text, "With 1,600 test images an accuracy is uncertain by about 1.0 points" in text
    (True, True)
    """
    text = (
        "Ahead and behind mean a difference of more than two standard errors over test images and label draws; level "
        "means less"
    )
    test = report.get("samples", {}).get("test")
    values = [cell.value for row in probe_rows(report) for cell in row.cells.values()]
    if not test or not values:
        return f"{text}."
    points = max(math.sqrt(max(value * (100 - value), 0) / test) for value in values)
    return (
        f"{text}. With {test:,} test images an accuracy is uncertain by about {points:.1f} points (one standard "
        "deviation)."
    )


def duration(seconds: float) -> str:
    """Format a time for a reader.

    >>> duration(297.4), duration(42), duration(0.4), duration(3720)
    ('4 min 57 s', '42 s', '1 s', '1 h 2 min')
    """
    whole = max(round(seconds), 1)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def device_words(device: str) -> str:
    """Return the name of a device in a sentence.

    >>> device_words("cpu"), device_words("cuda:1"), device_words("xpu")
    ('the CPU', 'the GPU', 'xpu')
    """
    return _DEVICES.get(device.partition(":")[0], device)


def _cells(values: Mapping[str, float], stds: Mapping[str, float | None]) -> dict[str, Cell]:
    # Compare the rounded values: 83.94 and 83.91 are shown as equal.
    shown = {key: float(f"{values[key]:.1f}") for key in COLUMNS if key in values}
    best = max(shown.values(), default=0.0)
    return {key: Cell(value=one, std=stds.get(key), best=one == best) for key, one in shown.items()}


def _compared(rows: list[Row], other: str, name: str) -> str:
    """Count the comparisons with the pretrained network ahead, level and behind; name those where it is behind."""
    by: dict[Standing, list[Row]] = {"ahead": [], "level": [], "behind": []}
    for row in rows:
        if other in row.leads:
            by[row.leads[other].standing].append(row)
    total = sum(map(len, by.values()))
    parts: list[str] = []
    for standing, some in by.items():
        if not some:
            continue
        link = {"ahead": " of ", "level": " with ", "behind": " "}[standing] + name if not parts else ""
        count = (f"all {total}" if total > 1 else "the only") if len(some) == total else f"{len(some)} of {total}"
        noun = " comparisons" if total > 1 else " comparison"
        text = f"{standing}{link} in " + (f"{count}{noun}" if not parts else str(len(some)))
        if standing == "ahead" or (standing == "behind" and len(some) == total):
            text += f", by {_range(abs(row.leads[other].points) for row in some)}"
        elif standing == "behind":
            text += f" ({_listed(some, other)})"
        parts.append(text)
    if len(parts) == 2 and ", by " in parts[0]:
        parts[0] += ","
    return _joined(parts) if parts else f"not compared with {name}"


def _listed(rows: list[Row], other: str) -> str:
    return "; ".join(
        f"{row.phrase}, {row.cells['pretrained'].value:.1f} against {row.cells[other].value:.1f} %" for row in rows
    )


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _range(points: Iterable[float]) -> str:
    low, *_, high = sorted([*points] * 2)
    return f"{low:.1f} points" if low == high else f"{low:.1f} to {high:.1f} points"


def _versus(lead: Lead, other: str) -> str:
    if lead.standing == "level":
        return f"level with {other}"
    return f"{lead.standing}{' of' if lead.standing == 'ahead' else ''} {other} by {abs(lead.points):.1f} points"


def _leads(values: Mapping[str, Mapping[str, float]]) -> dict[str, Lead]:
    named = {"untrained" if name == "scratch" else name: one for name, one in values.items()}
    return {name: Lead(points=one["points"], error=one["error"]) for name, one in named.items()}
