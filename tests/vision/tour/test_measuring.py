"""The tree of figures that a report holds."""

from d2v.core.probes import Accuracy, Case, Figures
from d2v.vision.tour.measuring import report_tree


def test_figures_become_the_tree_of_the_report():
    accuracies = {
        Case("input", "-", "raw", "knn"): Accuracy(percent=82.2),
        Case("pretrained", "all", "grid", "few"): Accuracy(percent=69.581, std=2.224),
    }
    figures = Figures(accuracies=accuracies, neighbours=10, labels=100, num_train=10, num_test=5)
    assert report_tree(figures, {"scratch": Accuracy(percent=57.0, std=1.0)}) == {
        "probe": {
            "mean": {"knn": {"pixels": 82.2}},
            "grid": {"knn": {"pixels": 82.2}, "linear_100": {"pretrained": 69.58}},
        },
        "finetune_100": {"scratch": 57.0},
        "std": {"probe": {"grid": {"linear_100": {"pretrained": 2.22}}}, "finetune_100": {"scratch": 1.0}},
    }
