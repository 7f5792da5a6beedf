"""How all figures look, and the check that they can be drawn.

Figures have no background, and what is black in them is ink: `svg` turns it into the colour of the surrounding text.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from d2v.core.registry import MissingExtraError

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b8629a", "#8f7a1f")
"""Of data: 3 to 1 or more against white and against #121212, and told apart by the colour-blind."""
DASHES = ("-", "--", ":", "-.")
"""Of lines, so that colour alone tells nothing."""

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
    # Names of clip paths are hashes: the same salt, the same bytes.
    "svg.hashsalt": "d2v",
    # A dollar in the name of a run is no formula.
    "text.parse_math": False,
    "xtick.labelsize": 8,
    "xtick.major.width": 0.6,
    "ytick.labelsize": 8,
    "ytick.major.width": 0.6,
}


def require_plotting() -> None:
    """Do nothing if figures can be drawn.

    Raises:
        MissingExtraError: one line with what is missing and the pip command that mends it.

    >>> require_plotting()  # doctest: +SKIP
    """
    missing = [module for module in ("matplotlib", "jinja2") if find_spec(module) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise MissingExtraError(
            f"pictures need {', '.join(missing)}, which {verb} not installed: pip install 'd2v[plot]'", name=missing[0]
        )


@contextmanager
def drawing() -> Iterator[None]:
    """Our style for as long as something is drawn, whatever the caller has set; his settings come back after it.

    Raises:
        MissingExtraError: if matplotlib is missing.
    """
    require_plotting()
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield
