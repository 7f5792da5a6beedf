"""Figures as SVG, embedded in a page or as a separate file, and as PNG.

matplotlib writes SVG for separate files: a rule for every element of the page, fixed sizes and fonts, and names that
two figures share. All of these are removed here.
"""

import io
import re
from hashlib import sha256
from html import escape
from typing import TYPE_CHECKING

from d2v.core.plots.style import drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_REFERENCE = re.compile(r'(url\(#|href="#)([^)"]+)')
_NAME = re.compile(r' id="([^"]+)"')
_FILE_STYLE = """<style>
svg { color: #1a1a1a; background: #ffffff; font-family: system-ui, sans-serif }
@media (prefers-color-scheme: dark) { svg { color: #e6e6e6; background: #121212 } }
</style>
"""


def svg(figure: "Figure", *, label: str, standalone: bool = False) -> str:
    """A figure as SVG; the same data give the same text.

    It scales to the width of its container, uses the container's font, and draws in the colour of its text what is
    black in the figure. Names inside it start with a hash of its content, so that a page can contain several.

    Args:
        figure: of matplotlib.
        label: description for readers who cannot see the figure.
        standalone: False = an element for an HTML page; True = a separate file with its own size and colours, light
            and dark.

    Raises:
        MissingExtraError: if the extra `plot` is not installed.

    >>> from d2v.core.plots import learning_curves
    >>> figure = learning_curves({"run": [{"step": 100, "loss": 2.0}, {"step": 200, "loss": 1.0}]})  # doctest: +SKIP
    >>> svg(figure, label="The loss falls from 2 to 1.")[:15]  # doctest: +SKIP
    '<svg role="img"'
    """
    text = _drawn(figure)
    view = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    assert view is not None
    width, height = view.groups()
    body = text[text.index(">", view.start()) + 1 : text.rindex("</svg>")]
    body = re.sub(r"\s*<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)
    # Older releases of matplotlib write the font as one property, newer ones as several.
    body = re.sub(r"font: (?:[\w-]+ )*?([\d.]+px) [^;\"]*", r"font-size: \1", body)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body).replace("#000000", "currentColor")
    body = _named(body, label)
    size = f'width="{width}pt" height="{height}pt" ' if standalone else ""
    head = (
        f'<svg role="img" aria-label="{escape(label)}" {size}{view[0]} xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink" fill="currentColor" stroke-linejoin="round" '
        'style="max-width: 100%; height: auto">'
    )
    return f"{head}\n{_FILE_STYLE if standalone else ''}{body.strip()}\n</svg>\n"


def pixels(figure: "Figure") -> bytes:
    """A figure on white as a PNG file, for programs that do not support SVG.

    Raises:
        MissingExtraError: if the extra `plot` is not installed.
    """
    stream = io.BytesIO()
    with drawing():
        figure.savefig(stream, format="png", dpi=200, facecolor="white", metadata={"Software": None})
    return stream.getvalue()


def _drawn(figure: "Figure") -> str:
    stream = io.StringIO()
    with drawing():
        figure.savefig(stream, format="svg", transparent=True, metadata=_NO_METADATA)
    return stream.getvalue()


def _named(body: str, label: str) -> str:
    """Keep only names that are referred to, and make them unique to this figure."""
    prefix = "d2v" + sha256(f"{label}\n{body}".encode()).hexdigest()[:10]
    used = {name for _, name in _REFERENCE.findall(body)}
    body = _NAME.sub(lambda found: f' id="{prefix}-{found[1]}"' if found[1] in used else "", body)
    return _REFERENCE.sub(rf"\1{prefix}-\2", body)
