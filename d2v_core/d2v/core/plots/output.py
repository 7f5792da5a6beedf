"""Figures as SVG, part of a page or a file that stands alone, and as pixels.

The SVG that matplotlib writes is meant for a file of its own: a rule for every element of the page, fixed sizes and
fonts, and names that two figures share. All of that is taken out here.
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
_ALONE = """<style>
svg { color: #1a1a1a; background: #ffffff; font-family: system-ui, sans-serif }
@media (prefers-color-scheme: dark) { svg { color: #e6e6e6; background: #121212 } }
</style>
"""


def svg(figure: "Figure", *, label: str, standalone: bool = False) -> str:
    """A figure as SVG, the same text for the same data.

    It is as wide as the place that it stands in, text is in the font of that place, and what is black in the figure
    has the colour of that text. Names inside it begin with a hash of its content, so that several stand on one page.

    Args:
        figure: of matplotlib.
        label: what a reader who cannot see it is told.
        standalone: False = an element for an HTML page; True = a file, which brings a size and its colours, light and
            dark.

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
    # Older releases write the font as one property, newer ones as several.
    body = re.sub(r"font: (?:[\w-]+ )*?([\d.]+px) [^;\"]*", r"font-size: \1", body)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body).replace("#000000", "currentColor")
    body = _named(body, label)
    size = f'width="{width}pt" height="{height}pt" ' if standalone else ""
    head = (
        f'<svg role="img" aria-label="{escape(label)}" {size}{view[0]} xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink" fill="currentColor" stroke-linejoin="round" '
        'style="max-width: 100%; height: auto">'
    )
    return f"{head}\n{_ALONE if standalone else ''}{body.strip()}\n</svg>\n"


def pixels(figure: "Figure") -> bytes:
    """A figure on white as a PNG file, for programs that take no SVG.

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
    """The same with names only where something refers to them, and those unlike the names of other figures."""
    prefix = "d2v" + sha256(f"{label}\n{body}".encode()).hexdigest()[:10]
    used = {name for _, name in _REFERENCE.findall(body)}
    body = _NAME.sub(lambda found: f' id="{prefix}-{found[1]}"' if found[1] in used else "", body)
    return _REFERENCE.sub(rf"\1{prefix}-\2", body)
