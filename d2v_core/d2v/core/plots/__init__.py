"""Plots of runs: learning curves, masks and features, drawn from tensors and plain values of any modality.

Figures need the extra `d2v[plot]`. matplotlib is imported when the first one is drawn, and its settings are unchanged.
"""

from d2v.core.plots.arrays import hide, pca_colours, png
from d2v.core.plots.curves import learning_curves
from d2v.core.plots.grids import mask_grid, pca_grid
from d2v.core.plots.output import svg
from d2v.core.plots.style import require_plotting

__all__ = ["hide", "learning_curves", "mask_grid", "pca_colours", "pca_grid", "png", "require_plotting", "svg"]
