"""The quickstart: what a small model learns in minutes, and the page that shows it."""

from d2v.vision.tour.album import Album, FeatureMaps, Imagined, Neighbour, Neighbours, View
from d2v.vision.tour.html import page
from d2v.vision.tour.running import quickstart

__all__ = ["Album", "FeatureMaps", "Imagined", "Neighbour", "Neighbours", "View", "page", "quickstart"]
