"""What is drawn for samples."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d2v.core.data import few_of_each, sample_seed
from d2v.core.masks import Draw
from d2v.core.masks.draw import one_number


def test_each_sample_of_each_epoch_has_a_seed_of_its_own() -> None:
    assert len({sample_seed(seed=s, epoch=e, id=i) for s in range(4) for e in range(4) for i in range(4)}) == 64


whole = st.integers(-(1 << 63), (1 << 63) - 1)


@given(seed=whole, update=whole, id=whole, purpose=st.integers(0, (1 << 31) - 1), stream=st.integers(0, 1000))
def test_one_number_is_that_of_a_mask(**numbers: int) -> None:
    draw = Draw(
        seed=numbers["seed"],
        update=numbers["update"],
        ids=torch.tensor([numbers["id"]]),
        purpose=numbers["purpose"],
    )
    assert one_number(**numbers) == int(draw.bits(1, 1, stream=numbers["stream"]))


def test_few_of_each_class() -> None:
    labels = torch.tensor([0, 2, 0, 2, 2, -1, 0, 0])
    few = few_of_each(labels, 2, seed=0)
    assert labels[few].bincount().tolist() == [2, 0, 2]
    assert few.tolist() == sorted(set(few.tolist()))
    assert torch.equal(few, few_of_each(labels, 2, seed=0))
    assert set(few.tolist()) < set(few_of_each(labels, 3, seed=0).tolist())
    assert len({tuple(few_of_each(labels, 2, seed=seed).tolist()) for seed in range(20)}) > 5
    with pytest.raises(ValueError, match="class 2 "):
        few_of_each(labels, 4, seed=0)
    assert few_of_each(torch.tensor([-1]), 1, seed=0).tolist() == []
