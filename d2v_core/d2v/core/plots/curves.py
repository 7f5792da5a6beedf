"""Learning curves: the lines of `metrics.jsonl` of one or several runs, one panel for each metric."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from d2v.core.plots.style import COLOURS, DASHES, drawing
from d2v.core.suggestions import nearest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Lines = Sequence[Mapping[str, float]]

_TITLES = {
    "loss": ("loss", "mean"),
    "explained": ("explained by the predictions", "fraction of variance"),
    "position_fraction": ("explained by the position alone", "fraction of variance"),
    "target_var": ("standard deviation of the targets", "standard deviation"),
    "pred_var": ("standard deviation of the predictions", "standard deviation"),
    "lr": ("learning rate", "rate"),
    "target_rank": ("effective rank of the targets", "directions"),
    "prediction_rank": ("effective rank of the predictions", "directions"),
    "decay": ("decay of the teacher", "fraction kept per update"),
    "accuracy": ("accuracy in training", "percent"),
}
_FEW = 12  # up to this number of points, markers are drawn too
_STEPS = [1, 2, 2.5, 5, 10]  # round steps between ticks
_WIDTH, _HEIGHT = 2.7, 1.8  # inches of a panel


def learning_curves(runs: Mapping[str, Lines], metrics: Sequence[str] | None = None, *, columns: int = 3) -> "Figure":
    """Metrics over updates, one panel for each metric, one line for each run.

    Args:
        runs: name of a run to its lines: `step` = finished updates, and metrics by name. A line or a run may lack
            metrics.
        metrics: names of the metrics to draw; None = loss, indicators of collapse, schedules, accuracy and all that
            start with `val_`, if a run has them.
        columns: panels in a row.

    Raises:
        ValueError: if there is no run, a run has no lines, a line has no `step`, or no run has one of the metrics.
        MissingExtraError: if the extra `plot` is not installed.

    >>> learning_curves({"run": [{"step": 100, "loss": 2.0}, {"step": 200, "loss": 1.0}]})  # doctest: +SKIP
    <Figure size 270x180 with 1 Axes>
    >>> learning_curves({"run": []})
    Traceback (most recent call last):
    ValueError: run 'run' has no metrics yet
    """
    chosen = _chosen(runs, metrics)
    with drawing():
        from matplotlib.figure import Figure

        columns = min(columns, len(chosen))
        rows = -(-len(chosen) // columns)
        legend = 0.3 * -(-len(runs) // columns) if len(runs) > 1 else 0.0
        figure = Figure(figsize=(columns * _WIDTH, rows * _HEIGHT + legend), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
        for panel in panels[len(chosen) :]:
            panel.remove()
        handles: dict[str, Any] = {}
        for place, (name, panel) in enumerate(zip(chosen, panels, strict=False)):
            handles |= _panel(panel, name, runs)
            if place + columns >= len(chosen):
                panel.set_xlabel("updates")
        if len(runs) > 1:
            known = [name for name in runs if name in handles]
            figure.legend(
                [handles[name] for name in known], known, loc="outside upper left", ncols=columns, handlelength=3
            )
        # Draw now: ticks are created on drawing, in the style of that time, and a layout computed at each drawing
        # differs slightly each time.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    return figure


def _chosen(runs: Mapping[str, Lines], metrics: Sequence[str] | None) -> list[str]:
    if not runs:
        raise ValueError("there is no run to draw curves of")
    known: dict[str, None] = {}
    for run, lines in runs.items():
        if not lines:
            raise ValueError(f"run {run!r} has no metrics yet")
        for line in lines:
            if "step" not in line:
                raise ValueError(f"run {run!r} has a line without 'step': {dict(line)}")
            known |= dict.fromkeys(line)
    if metrics is None:
        found = [*(name for name in _TITLES if name in known), *(name for name in known if name.startswith("val_"))]
        metrics = found or [name for name in known if name != "step"]
    if not metrics:
        raise ValueError("there is no metric to draw")
    for name in metrics:
        if name not in known:
            raise ValueError(f"no run has a metric {name!r}, only {', '.join(sorted(known))}{nearest(name, known)}")
    return list(metrics)


def _panel(panel: "Axes", metric: str, runs: Mapping[str, Lines]) -> dict[str, Any]:
    """Draw one metric; return the line of each run that has it."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    handles: dict[str, Any] = {}
    for place, (run, lines) in enumerate(runs.items()):
        points = [(line["step"], line[metric]) for line in lines if metric in line]
        if not points:
            continue
        steps, values = zip(*points, strict=True)
        (handles[run],) = panel.plot(
            steps,
            values,
            color=COLOURS[place % len(COLOURS)],
            linestyle=DASHES[place % len(DASHES)],
            marker="o" if len(points) <= _FEW else "",
            markersize=3,
        )
    title, unit = _title(metric)
    panel.set_title(title)
    panel.set_ylabel(unit)
    panel.set_xlim(*_range(line["step"] for run in handles for line in runs[run]))
    panel.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=_STEPS))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    panel.yaxis.set_major_locator(MaxNLocator(4, steps=_STEPS))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    return handles


def _title(metric: str) -> tuple[str, str]:
    """Title and unit of a metric."""
    if metric in _TITLES:
        return _TITLES[metric]
    words = metric.replace("_", " ").removeprefix("val ")
    unit = {"accuracy": "percent", "loss": "mean"}.get(words.split()[-1], "")
    return (f"{words} in validation" if metric.startswith("val_") else words), unit


def _range(steps: Iterable[float]) -> tuple[float, float]:
    """The range from update 0 to the last one, with a margin for its marker."""
    last = max(steps)
    return -0.02 * last, 1.03 * max(last, 1)
