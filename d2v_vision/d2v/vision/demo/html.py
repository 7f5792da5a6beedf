"""Render the report as a self-contained page: a template filled with results, sentences and images.

Nothing is computed here; `sentences` writes the sentences, and `drawing` draws the images.
"""

from base64 import b64encode
from importlib.resources import files
from itertools import groupby

from d2v.vision.demo import sentences
from d2v.vision.demo.report_images import Neighbours, ReportImages
from d2v.vision.demo.sentences import Report


def page(report: Report, images: ReportImages) -> str:
    """Render a quickstart's report as a self-contained HTML page, without scripts or external fonts and images.

    Args:
        report: content of `report.json`: accuracies in percent under `probe` and `finetune_100`, `seconds`, `steps`,
            `images_seen`, `device`, `seed`, `recipe`; optional are `std` (the same tree), `seconds_of` (by stage),
            `samples` (`train`, `test`) and `version`.
        images: the images; sections without images are left out.

    Returns:
        The page. All text is escaped; `images.curves` is inserted unchanged.

    Raises:
        ValueError: if the report lacks a key; the message names it.

    >>> knn = {"pixels": 82.2, "untrained": 68.7, "pretrained": 83.9}
    >>> report = {"probe": {"mean": {"knn": knn}}, "finetune_100": {"scratch": 58.1, "pretrained": 70.2}}
    >>> report["lead"] = {"probe": {"mean": {"knn": {"pixels": {"points": 1.7, "error": 0.6}}}}}
    >>> report |= {"seconds": 297.4, "steps": 7000, "images_seen": 56000, "device": "cpu", "seed": 0}
    >>> page(report, ReportImages())
    Traceback (most recent call last):
    ValueError: the report lacks recipe
    >>> report["recipe"] = "vision/small"
    >>> "by 1.7 points" in page(report, ReportImages())
    True
    """
    from jinja2 import Environment, StrictUndefined

    sentences.check(report)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        uri=lambda png: "data:image/png;base64," + b64encode(png).decode(),
        duration=sentences.duration,
        of_one_class=_of_one_class,
    )
    rows = sentences.probe_rows(report)
    return environment.from_string(_read("report.html.j2")).render(
        report=report,
        images=images,
        style=_read("report.css"),
        groups=[(group, list(of_it)) for group, of_it in groupby([*rows, sentences.finetuning_row(report)], _group)],
        columns=sentences.COLUMNS,
        verdict=_kept_together(sentences.verdict(report)),
        sentences=[
            _kept_together(sentence(report))
            for sentence in (sentences.versus_untrained, sentences.versus_scratch, sentences.chance)
        ],
        device=sentences.device_words(report["device"]),
        std=bool(report.get("std")),
        train=report.get("samples", {}).get("train"),
    )


def _read(name: str) -> str:
    return files("d2v.vision.demo").joinpath(name).read_text(encoding="utf-8")


def _kept_together(sentence: str) -> str:
    return sentence.replace(" %", "\N{NO-BREAK SPACE}%")


def _group(row: sentences.Row) -> str:
    return row.group


def _of_one_class(all_of_them: tuple[Neighbours, ...], features: str) -> str:
    pairs = [(one.name, each.query.name) for each in all_of_them for one in getattr(each, features)]
    return f"{sum(name == query for name, query in pairs)} of {len(pairs)}"
