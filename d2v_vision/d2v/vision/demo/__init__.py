"""The quickstart: what a small model learns in minutes, and the page that shows it."""

from d2v.vision.demo.html import page
from d2v.vision.demo.report_images import FeatureMaps, Neighbour, Neighbours, Prediction, ReportImages, View
from d2v.vision.demo.running import quickstart

__all__ = ["FeatureMaps", "Neighbour", "Neighbours", "Prediction", "ReportImages", "View", "page", "quickstart"]
