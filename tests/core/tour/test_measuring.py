"""The tree of figures, and the pictures' patches."""

import torch

from d2v.core.tour.measuring import Figures, Score
from d2v.core.tour.pictures import _patches, _with_patches


def test_figures_become_the_tree_of_the_report():
    figures = Figures()
    figures.probe("grid", "pixels", {"knn": Score(accuracy=82.2), "linear_100": Score(accuracy=69.581, std=2.224)})
    figures.finetune("scratch", Score(accuracy=57.0, std=1.0))
    assert figures.to_plain() == {
        "probe": {"grid": {"knn": {"pixels": 82.2}, "linear_100": {"pixels": 69.58}}},
        "finetune_100": {"scratch": 57.0},
        "std": {"probe": {"grid": {"linear_100": {"pixels": 2.22}}}, "finetune_100": {"scratch": 1.0}},
    }


def test_patches_of_hidden_places_put_back_give_the_picture():
    pictures = torch.rand(3, 1, 8, 12)
    hidden = torch.rand(3, 2, 2, 3) < 0.5
    patches = _patches(pictures, hidden)
    assert patches.shape == (int(hidden.sum()), 1, 4, 4)
    start = 0
    for picture, views in zip(pictures, hidden, strict=True):
        for view in views:
            own = patches[start : start + int(view.sum())]
            start += int(view.sum())
            assert torch.equal(_with_patches(picture, view, own), picture)
            emptied = _with_patches(picture, view, own * 0)
            grown = view.repeat_interleave(4, 0).repeat_interleave(4, 1)
            assert torch.equal(emptied[0], picture[0].masked_fill(grown, 0))
