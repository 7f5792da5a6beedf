"""What is drawn for samples."""

import pytest
import torch

from d2v.core.data import few_of_each, sample_seed


def test_each_sample_of_each_epoch_has_a_seed_of_its_own() -> None:
    assert len({sample_seed(seed=s, epoch=e, id=i) for s in range(4) for e in range(4) for i in range(4)}) == 64


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
