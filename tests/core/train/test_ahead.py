"""The next batch is read while the device computes, and nothing else changes."""

from itertools import islice

import pytest
import torch
from building import FORMER, NEW
from torch import nn
from training import At, Boom, Breaking, boom, same, train

from d2v.core.model import Batch, StepOutput
from d2v.core.train import LossScale, MemorySource, NonFiniteError, fit
from d2v.core.train.ahead import Ahead

CPU = torch.device("cpu")


class Reading(MemorySource):
    """Notes when a batch is read."""

    def __init__(self, events, number=5):
        super().__init__([Batch(source=torch.full((2, 3), float(i))) for i in range(number)], seed=None)
        self.events = events

    def __iter__(self):
        for batch in super().__iter__():
            self.events.append(("read", int(batch.source[0, 0])))
            yield batch


class Line(nn.Linear):
    """A model of one line; notes what it prepares and what it computes."""

    def __init__(self, events):
        super().__init__(3, 1)
        self.events = events

    def prepared(self, batch, *, update):
        self.events.append(("prepared", update))
        return batch

    def forward(self, batch, *, update):
        self.events.append(("step", update))
        return StepOutput(loss_sum=super().forward(batch.source).square().sum(), sample_size=batch.size)


def fitted(events, *, max_steps=3, model=None, data=None, **options):
    model = model or Line(events)
    data = data or Reading(events)
    optimizer = torch.optim.SGD(model.parameters())
    fit(model, data, optimizer=optimizer, schedule=lambda _: 1e-3, max_steps=max_steps, **options)
    return data


def test_the_next_batch_is_read_before_the_update_ends_and_none_too_many():
    events = []

    class Ends:
        def on_step_end(self, step):
            events.append(("end", step))

    data = fitted(events, max_steps=2, hooks=[Ends()], accumulate=2)
    assert events == [
        *[("read", 0), ("prepared", 0), ("step", 0)],
        *[("read", 1), ("prepared", 0), ("step", 0)],
        *[("read", 2), ("prepared", 1), ("end", 1), ("step", 1)],
        *[("read", 3), ("prepared", 1), ("step", 1), ("end", 2)],
    ]
    assert data.state_dict() == {"epoch": 0, "batch": 4}


def test_it_gives_the_batches_of_the_source_and_the_position_before_the_next():
    data, plain = Reading([]), islice(Reading([]), 7)
    ahead = Ahead(data, CPU)
    for number, batch in enumerate(plain):
        if number % 3:
            ahead.fetch(0)
            ahead.fetch(0)  # nothing more
        assert ahead.state_dict() == {"epoch": number // 5, "batch": number % 5}
        assert torch.equal(ahead.take(0).source, batch.source)


def test_an_error_waits_for_its_turn():
    ahead = Ahead(Breaking(Reading([]), batch=2), CPU)
    ahead.fetch(0)
    first = ahead.take(0)
    ahead.fetch(1)
    assert first.source[0, 0] == 0
    with pytest.raises(Boom):
        ahead.take(1)


def test_a_mask_that_fails_is_drawn_again_for_another_update():
    def prepare(batch, *, update):
        if update == 2:
            raise Boom
        return batch

    ahead = Ahead(Reading([]), CPU, prepare=prepare)
    ahead.fetch(2)
    assert ahead.take(1).source[0, 0] == 0
    ahead.fetch(2)
    with pytest.raises(Boom):
        ahead.take(2)


def test_a_batch_that_cannot_be_read_leaves_the_update_before_it_finished():
    events = []
    with pytest.raises(Boom):
        fitted(events, data=Breaking(Reading(events), batch=3), hooks=[At(2, lambda: events.append("second"))])
    assert events[-1] == "second"


def test_what_was_not_taken_comes_again():
    events = []
    data = Reading(events)
    with pytest.raises(Boom):
        fitted(events, data=data, hooks=[At(2, boom)])
    assert data.state_dict() == {"epoch": 0, "batch": 2}
    events.clear()
    fitted(events, data=data, max_steps=1)
    assert events[0] == ("read", 2)


def test_a_mask_is_drawn_again_for_an_update_that_was_skipped():
    events = []

    class Once(Line):
        def forward(self, batch, *, update):
            out = super().forward(batch, update=update)
            first = events.count(("step", 1)) == 1 and update == 1
            return StepOutput(loss_sum=out.loss_sum * (float("inf") if first else 1), sample_size=batch.size)

    fitted(events, model=Once(events), precision="fp16", loss_scale=LossScale(window=100))
    assert [event for event in events if event[0] != "read"] == [
        *[("prepared", 0), ("step", 0), ("prepared", 1), ("step", 1)],
        *[("prepared", 2), ("prepared", 1), ("step", 1)],  # the overflow
        *[("prepared", 2), ("step", 2)],
    ]
    assert [number for kind, number in events if kind == "read"] == [0, 1, 2, 3]


def test_an_update_that_is_not_finite_is_named():
    events = []

    class Broken(Line):
        def forward(self, batch, *, update):
            out = super().forward(batch, update=update)
            return StepOutput(loss_sum=out.loss_sum * (float("nan") if update == 1 else 1), sample_size=batch.size)

    with pytest.raises(NonFiniteError, match="update 2 "):
        fitted(events, model=Broken(events), max_steps=4)
    assert events[-2:] == [("read", 2), ("prepared", 2)]  # on its way before the norm was read


@pytest.mark.parametrize("config", [NEW, FORMER], ids=["2.0", "1.0"])
def test_a_run_is_the_same_as_with_masks_drawn_in_the_step(tmp_path, monkeypatch, config):
    train(tmp_path / "ahead", config=config)
    with monkeypatch.context() as patched:
        patched.delattr("d2v.core.model.Data2Vec.prepared")
        train(tmp_path / "within", config=config)
    same(tmp_path / "ahead", tmp_path / "within")
