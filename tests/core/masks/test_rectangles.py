"""Rectangles of the 1.0 image models: their number, size and shape."""

import pytest
import torch
from drawing import draw_for, quick
from hypothesis import given
from hypothesis import strategies as st

from d2v.core.masks import BlockMasker, Draw


@given(
    wanted=st.integers(1, 40), least=st.integers(1, 12), seed=st.integers(0, 1000), most=st.none() | st.integers(12, 30)
)
@quick
def test_rectangles_hide_at_most_what_is_wanted(wanted: int, least: int, seed: int, most: int | None) -> None:
    masker = BlockMasker(num_masked=wanted, min_per_block=least, max_per_block=most)
    hidden = masker(4, (7, 9), num_masks=2, draw=draw_for(4, seed)).hidden
    assert (hidden.sum(1) <= wanted).all()


class Counting(Draw):
    """Counts the attempts of a `BlockMasker`."""

    attempts = 0

    def bits(self, num_masks: int, n: int, *, stream: int) -> torch.Tensor:
        Counting.attempts = stream + 1
        return super().bits(num_masks, n, stream=stream)


@pytest.mark.parametrize("num_masks", [1, 5])
def test_rectangles_end_after_ten_misses_in_a_row(num_masks: int) -> None:
    never = BlockMasker(num_masked=3, min_per_block=3, min_aspect=1.0)  # 2 x 2 is not smaller than the grid
    mask = never(1, (2, 2), num_masks=num_masks, draw=Counting(seed=0, update=0, ids=torch.tensor([1])))
    assert Counting.attempts == 10
    assert not mask.hidden.any()


def test_rectangles_add_no_more_than_max_per_block() -> None:
    small = BlockMasker(num_masked=400, min_per_block=4, max_per_block=4, min_aspect=1.0)
    hidden = small(1, (60, 60), draw=Counting(seed=0, update=0, ids=torch.tensor([1]))).hidden
    assert hidden.sum() > 390
    assert Counting.attempts >= 100


def test_rectangles_follow_their_aspect() -> None:
    flat = BlockMasker(num_masked=16, min_per_block=16, max_per_block=16, min_aspect=1.0)
    hidden = flat(100, (14, 14), draw=draw_for(100)).hidden.view(100, 14, 14)
    assert (hidden.sum((1, 2)) == 16).all()
    assert (hidden.any(2).sum(1) == 4).all()
    assert (hidden.any(1).sum(1) == 4).all()
