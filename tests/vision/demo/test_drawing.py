"""Patches of images."""

import torch

from d2v.vision.demo.drawing import cut_patches, put_patches


def test_patches_of_hidden_places_put_back_give_the_picture():
    images = torch.rand(3, 1, 8, 12)
    hidden = torch.rand(3, 2, 2, 3) < 0.5
    patches = cut_patches(images, hidden)
    assert patches.shape == (int(hidden.sum()), 1, 4, 4)
    start = 0
    for image, views in zip(images, hidden, strict=True):
        for view in views:
            own = patches[start : start + int(view.sum())]
            start += int(view.sum())
            assert torch.equal(put_patches(image, view, own), image)
            emptied = put_patches(image, view, own * 0)
            grown = view.repeat_interleave(4, 0).repeat_interleave(4, 1)
            assert torch.equal(emptied[0], image[0].masked_fill(grown, 0))
