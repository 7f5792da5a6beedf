"""LabelledSplits of a labelled data set that are read several times."""

import torch

from d2v.core.jobs.labelled_splits import LabelledSplits
from d2v.core.labels import Classes
from d2v.core.model import Batch


class Counted:
    """Batches that count their passes."""

    def __init__(self, source):
        self.batch, self.passes = Batch(source=source, labels=torch.tensor([0, 1])), 0

    def __iter__(self):
        self.passes += 1
        yield self.batch


def parts(**sources):
    batches = {part: Counted(source) for part, source in sources.items()}
    return batches, LabelledSplits(batches=batches, labels=Classes(("cat", "dog")))


def test_in_memory_they_are_read_once():
    batches, opened = parts(train=torch.rand(2, 3), test=torch.rand(2, 3))
    kept = opened.in_memory()
    for _ in range(3):
        found = kept.read(lambda some: [batch.source for batch in some])
        assert {part: len(sources) for part, sources in found.items()} == {"train": 1, "test": 1}
        assert torch.equal(found["test"][0], batches["test"].batch.source)
    assert [one.passes for one in batches.values()] == [1, 1]


def test_raw_input_as_features():
    batches, opened = parts(train=torch.rand(2, 3), test=torch.rand(2, 3))
    raw = opened.raw()
    assert list(raw) == ["train", "test"]
    assert torch.equal(raw["test"].labelled("raw", "input").features, batches["test"].batch.source)


def test_where_a_part_has_no_raw_features_there_are_none():
    _, opened = parts(train=torch.rand(2, 3), test=torch.ones(2, 3).long())
    assert opened.raw() is None
