"""The quickstart: train and evaluate a small model in minutes, and write a page that shows the results."""

from d2v.vision.demo.html import page
from d2v.vision.demo.report_images import FeatureMaps, MaskedViews, Neighbour, Neighbours, Prediction, ReportImages
from d2v.vision.demo.running import quickstart

__all__ = ["FeatureMaps", "MaskedViews", "Neighbour", "Neighbours", "Prediction", "ReportImages", "page", "quickstart"]
