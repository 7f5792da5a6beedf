"""Figures: their content, and that they are readable on any background."""

import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest
import torch

from d2v.core.plots import learning_curves, mask_grid, pca_grid, require_plotting, style, svg
from d2v.core.registry import MissingExtraError

matplotlib = pytest.importorskip("matplotlib")

RUN = [{"step": 100, "loss": 3.0, "lr": 1e-3, "val_accuracy": 40.0}, {"step": 200, "loss": 1.5, "lr": 5e-4}]


def lines(panel: object) -> list[list[tuple[float, float]]]:
    return [list(zip(*line.get_data(), strict=True)) for line in panel.lines]  # type: ignore[attr-defined]  # of axes


def test_a_panel_a_metric_and_a_line_a_run() -> None:
    figure = learning_curves({"a": RUN, "b": [{"step": 50, "loss": 2.0}]})
    panels = {panel.get_title(loc="left"): panel for panel in figure.axes}
    assert list(panels) == ["loss", "learning rate", "accuracy in validation"]
    assert lines(panels["loss"]) == [[(100, 3.0), (200, 1.5)], [(50, 2.0)]]
    assert lines(panels["accuracy in validation"]) == [[(100, 40.0)]]
    assert panels["accuracy in validation"].get_ylabel() == "percent"
    assert all(panel.get_xlabel() == "updates" for panel in figure.axes)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]


def test_one_run_needs_no_legend_and_metrics_can_be_chosen() -> None:
    figure = learning_curves({"a": RUN}, ["lr"])
    assert not figure.legends
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["learning rate"]
    assert lines(figure.axes[0]) == [[(100, 1e-3), (200, 5e-4)]]


def test_unknown_names_are_drawn_where_there_are_no_others() -> None:
    figure = learning_curves({"a": [{"step": 1, "words_read": 7.0}]})
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["words read"]


@pytest.mark.parametrize(
    ("runs", "metrics", "message"),
    [
        ({}, None, "no run"),
        ({"a": RUN, "b": []}, None, "'b'"),
        ({"a": [{"loss": 1.0}]}, None, "'a' .*'step'"),
        ({"a": [{"step": 1}]}, None, "no metric"),
        ({"a": RUN}, ["losss"], "'losss'.*'loss'"),
    ],
)
def test_curves_refuse(runs: dict[str, list[dict[str, float]]], metrics: list[str] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        learning_curves(runs, metrics)


def test_runs_of_any_name_and_number() -> None:
    names = ["_hidden", "$x$ & <b>", *map(str, range(20))]
    figure = learning_curves(dict.fromkeys(names, RUN))
    texts = ElementTree.fromstring(svg(figure, label="many")).itertext()
    assert set(names) <= {text.strip() for text in texts}
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == min(len(names), len(style.COLOURS) * len(style.DASHES))


def canvas(figure: object) -> torch.Tensor:
    """The pixels of a gallery, `h w 4`."""
    (axes,) = figure.axes  # type: ignore[attr-defined]  # a figure
    return torch.from_numpy(axes.images[0].get_array().data)


def test_a_gallery_shows_samples_over_their_views() -> None:
    images = torch.rand(3, 1, 28, 28)
    hidden = torch.zeros(3, 2, 4, 4, dtype=torch.bool)
    hidden[1, 1, 0, 0] = True
    figure = mask_grid(images, hidden)
    shown = canvas(figure)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["image", "view 1", "view 2"]
    assert shown.shape == (3 * 30 - 2, 3 * 30 - 2, 4)
    for row in range(3):
        for column in range(3):
            tile = shown[row * 30 : row * 30 + 28, column * 30 : column * 30 + 28, 0]
            same = torch.isclose(tile, images[column, 0])
            expected = torch.ones(28, 28, dtype=torch.bool)
            expected[:7, :7] = (row, column) != (2, 1)
            assert (same == expected).float().mean() > 0.99
    assert not shown[28, :, 3].any(), "gaps between images are transparent"


def test_features_are_as_large_as_their_pictures() -> None:
    shown = canvas(pca_grid(torch.rand(2, 3, 12, 8), {"one": torch.randn(2, 3, 2, 5), "two": torch.randn(2, 1, 1, 5)}))
    assert shown.shape == (3 * 13 - 1, 2 * 9 - 1, 4)
    patch = shown[13:17, :4, :3]
    assert (patch == patch[0, 0]).all()


def test_large_pictures_are_made_smaller() -> None:
    shown = canvas(mask_grid(torch.rand(1, 3, 256, 512), torch.rand(1, 1, 16, 32) < 0.5))
    assert shown.shape[1] == 128


@pytest.mark.parametrize("shape", [(28, 28), (1, 2, 28, 28), (0, 1, 28, 28)])
def test_galleries_refuse_what_are_no_pictures(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="images"):
        pca_grid(torch.zeros(shape), torch.zeros(1, 2, 2, 3))


@pytest.fixture
def page() -> str:
    return svg(learning_curves({"a": RUN, "b": RUN}), label='The "loss" < 3 & falls')


def test_svg_brings_nothing_that_touches_its_page(page: str) -> None:
    root = ElementTree.fromstring(page)
    assert root.get("role") == "img"
    assert root.get("aria-label") == 'The "loss" < 3 & falls'
    assert root.get("width") is None
    assert re.fullmatch(r"0 0 [\d.]+ [\d.]+", root.get("viewBox", ""))
    assert "max-width: 100%" in root.get("style", "")
    assert page.startswith("<svg ")
    assert not re.search("<style|<script|<metadata|<!DOCTYPE|<[?]xml|font-family|https?://(?!www.w3.org)", page)


def test_svg_takes_the_colour_of_the_text_around(page: str) -> None:
    colours = set(re.findall(r"(?:fill|stroke|color): ?(#\w+|\w+)", page)) | set(re.findall(r'fill="([^"]+)"', page))
    assert colours <= {"none", "currentColor", *style.COLOURS}
    assert {"currentColor", *style.COLOURS[:2]} <= colours
    assert "<text" in page, "text is text"


def test_svg_names_are_its_own(page: str) -> None:
    other = svg(learning_curves({"a": RUN}), label="another")
    names, others = (re.findall(r' id="([^"]+)"', text) for text in (page, other))
    assert names
    assert len(set(names)) == len(names)
    assert not set(names) & set(others)
    assert {found for pair in re.findall(r'url\(#([^)]+)|href="#([^"]+)', page) for found in pair if found} == set(
        names
    )


def test_svg_is_the_same_for_the_same_data(page: str) -> None:
    program = (
        f"import sys\nfrom d2v.core.plots import learning_curves, svg\nrun = {RUN!r}\n"
        "print(svg(learning_curves({'a': run, 'b': run}), label='The \"loss\" < 3 & falls'), end='')\n"
        "assert 'matplotlib.pyplot' not in sys.modules, 'that would pick a window system'"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == page


def test_a_file_brings_its_own_colours() -> None:
    text = svg(learning_curves({"a": RUN}), label="a", standalone=True)
    root = ElementTree.fromstring(text)
    assert root.get("width", "").endswith("pt")
    assert "@media (prefers-color-scheme: dark)" in text


def test_galleries_are_drawn_pixel_by_pixel() -> None:
    text = svg(mask_grid(torch.rand(2, 1, 8, 8), torch.rand(2, 1, 2, 2) < 0.5), label="masks")
    assert "image-rendering:pixelated" in text.replace(" ", "")
    assert text.count("data:image/png;base64,") == 1


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("colour", style.COLOURS)
@pytest.mark.parametrize("background", ["#ffffff", "#121212"])
def test_colours_can_be_seen_in_light_and_dark(colour: str, background: str) -> None:
    low, high = sorted((luminance(colour), luminance(background)))
    assert (high + 0.05) / (low + 0.05) >= 3, "WCAG 2.1, 1.4.11: 3 to 1 for what has to be seen"


def test_the_settings_of_the_caller_neither_matter_nor_change(page: str) -> None:
    with matplotlib.rc_context({"lines.linewidth": 9.0, "svg.fonttype": "path", "axes.facecolor": "red"}):
        before = matplotlib.rcParams.copy()
        again = svg(learning_curves({"a": RUN, "b": RUN}), label='The "loss" < 3 & falls')
        assert matplotlib.rcParams.copy() == before
    assert again == page


@pytest.mark.parametrize(
    ("missing", "message"),
    [(["matplotlib"], r"matplotlib, .*d2v\[plot\]"), (["matplotlib", "jinja2"], r"matplotlib, jinja2, .*d2v\[plot\]")],
)
def test_a_missing_extra_is_reported(missing: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "find_spec", lambda name: None if name in missing else name)
    with pytest.raises(MissingExtraError, match=message):
        require_plotting()
    with pytest.raises(MissingExtraError):
        learning_curves({"a": RUN})
