"""A mask finds its places once, where it was drawn, and carries them along."""

import pytest
import torch
from building import random_mask

from d2v.core.masks import Mask

ELSEWHERE = torch.device("meta")  # nothing can be counted there


def test_places_are_counted_before_the_mask_leaves_the_cpu():
    mask = random_mask(3, 2, 7, 4)
    moved = mask.to(ELSEWHERE, non_blocking=True)
    assert moved.num_masks == 2
    for name in ("hidden", "visible", "index"):
        ours, theirs = getattr(moved, name), getattr(mask, name)
        assert (ours.device, ours.shape, ours.dtype) == (ELSEWHERE, theirs.shape, theirs.dtype)


def test_rows_of_unequal_counts_carry_their_hidden_positions_only():
    mask = Mask(hidden=torch.tensor([[True, False, True], [False, False, True]]), channels=torch.ones(2, 5) > 0)
    moved = mask.to(ELSEWHERE)
    assert moved.index.shape == (3,)
    assert moved.channels.device == ELSEWHERE
    with pytest.raises((ValueError, RuntimeError, NotImplementedError)):
        _ = moved.visible
    with pytest.raises(ValueError, match="equal counts"):
        _ = mask.visible


def test_a_mask_that_hides_nothing_or_everything_can_be_moved():
    for hidden in (torch.zeros(2, 3, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool), torch.zeros(0, 3) > 0):
        assert Mask(hidden=hidden).to(ELSEWHERE).index.shape == (int(hidden.sum()),)


def test_the_same_device_changes_nothing():
    mask = random_mask(1, 2, 5, 2)
    assert mask.to("cpu") is mask
    assert mask.index is mask.index
