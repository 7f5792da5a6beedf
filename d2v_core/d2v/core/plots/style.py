"""The style of all figures, and the check that they can be drawn.

Figures have no background, and black in them is the ink colour: `svg` replaces it by the colour of the page's text.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from d2v.core.registry import MissingExtraError

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b8629a", "#8f7a1f")
"""Colours of data: a contrast of 3 to 1 or more against white and #121212, distinguishable with colour blindness."""
DASHES = ("-", "--", ":", "-.")
"""Dashes of lines, so that colour is never the only distinction."""

_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.size": 8,
    "grid.alpha": 0.15,
    "grid.color": "black",
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "svg.fonttype": "none",
    # Names of clip paths are hashes: with a fixed salt, they are reproducible.
    "svg.hashsalt": "d2v",
    # A dollar sign in the name of a run does not start a formula.
    "text.parse_math": False,
    "xtick.labelsize": 8,
    "xtick.major.width": 0.6,
    "ytick.labelsize": 8,
    "ytick.major.width": 0.6,
}


def require_plotting() -> None:
    """Raise if figures cannot be drawn.

    Raises:
        MissingExtraError: one line that names the missing packages and the pip command to install them.

    >>> require_plotting()  # doctest: +SKIP
    """
    missing = [module for module in ("matplotlib", "jinja2") if find_spec(module) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise MissingExtraError(
            f"plots need {', '.join(missing)}, which {verb} not installed: pip install 'd2v[plot]'", name=missing[0]
        )


@contextmanager
def drawing() -> Iterator[None]:
    """Apply the package's style inside the block; the caller's settings are restored afterwards.

    Raises:
        MissingExtraError: if matplotlib is missing.
    """
    require_plotting()
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield
