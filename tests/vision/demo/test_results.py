"""The tree of results in a report."""

import torch

from d2v.core.probes import Case, ProbeResults, Score
from d2v.vision.demo.results import report_tree


def test_figures_become_the_tree_of_the_report():
    scores = {
        Case("raw", "-", "-", "knn"): Score(percent=82.2),
        Case("pretrained", "all", "grid", "few"): Score(percent=69.581, std=2.224),
    }
    figures = ProbeResults(scores=scores, titles={}, num_train=10, num_test=5)
    assert report_tree(figures, {"scratch": Score(percent=57.0, std=1.0)}) == {
        "probe": {
            "mean": {"knn": {"pixels": 82.2}},
            "grid": {"knn": {"pixels": 82.2}, "linear_100": {"pretrained": 69.58}},
        },
        "finetune_100": {"scratch": 57.0},
        "std": {"probe": {"grid": {"linear_100": {"pretrained": 2.22}}}, "finetune_100": {"scratch": 1.0}},
        "lead": {},
    }


def test_what_the_pretrained_network_is_compared_with_has_its_lead():
    def of(*right):
        return Score.of_correct(torch.arange(100)[None] < torch.tensor(right)[:, None])

    scores = {
        Case("raw", "-", "-", "few"): of(60, 70),
        Case("untrained", "all", "mean", "few"): of(50, 50),
        Case("pretrained", "all", "mean", "few"): of(80, 80),
    }
    figures = ProbeResults(scores=scores, titles={}, num_train=10, num_test=100)
    tuned = {
        "scratch": Score(percent=60.0, std=1.0, draws=5),
        "pretrained": Score(percent=65.0, std=1.0, draws=5),
    }
    leads = report_tree(figures, tuned)["lead"]
    mean = leads["probe"]["mean"]["linear_100"]
    assert {name: one["points"] for name, one in mean.items()} == {"pixels": 15.0, "untrained": 30.0}
    assert mean["pixels"]["error"] > mean["untrained"]["error"] - 2
    assert {name: one["points"] for name, one in leads["finetune_100"].items()} == {"scratch": 5.0, "pixels": 0.0}
