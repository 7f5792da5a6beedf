"""Hooks with a state: kept in checkpoints, restored, and distinguished by name."""

import signal

import numpy
import pytest
import torch
from torch import nn
from training import STEPS, At, same, train

from d2v.core.train import Interrupted, RunFolderError


class Average:
    """A running mean of what is logged, which continues after an interruption."""

    def __init__(self, name=None):
        if name is not None:
            self.name = name
        self.mean, self.seen = torch.zeros(()), 0

    def on_log(self, step, metrics):
        self.seen += 1
        self.mean += (metrics["loss"] - self.mean) / self.seen

    def state_dict(self):
        return {"mean": self.mean, "seen": self.seen, "kind": ["running", (None, True)]}

    def load_state_dict(self, state):
        self.mean, self.seen = state["mean"], state["seen"]


class Holding(Average):
    """A hook whose state is given."""

    def __init__(self, state):
        super().__init__()
        self.state = state

    def state_dict(self):
        return self.state


def interrupted(path, *hooks):
    stop = At(4, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted):
        train(path, hooks=[stop, *hooks])


def test_a_hook_goes_on_where_it_was(tmp_path):
    whole, named = Average(), Average("slow")
    train(tmp_path / "whole", hooks=[whole, named, Average()])
    interrupted(tmp_path / "run", Average(), Average("slow"), Average())
    hooks = [Average("slow"), Average(), Average()]  # stateless hooks, and named ones in another order, do not matter
    train(tmp_path / "run", hooks=hooks)
    same(tmp_path / "run", tmp_path / "whole")
    assert [hook.seen for hook in hooks] == [4, 4, 4]
    assert all(torch.equal(hook.mean, whole.mean) for hook in hooks)
    state = torch.load(tmp_path / "run" / f"checkpoints/step-{STEPS}/training.pt", weights_only=True)
    assert list(state["hooks"]) == ["slow", "Average-0", "Average-1"]


def test_a_module_may_be_a_hook(tmp_path):
    interrupted(tmp_path / "run", nn.Linear(1, 1))
    hook = nn.Linear(1, 1)
    before = hook.weight.detach().clone()
    train(tmp_path / "run", hooks=[hook])
    assert not torch.equal(hook.weight, before)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([Average("slow")], [], "lacks: slow"),
        ([Average(), Average()], [Average()], "lacks: Average-1"),
        ([Average("slow")], [Average("fast")], "lacks: slow"),
        ([Average()], [Average(), Average("fast")], "no state .*: fast"),
        ([], [Average()], "no state .*: Average-0"),
    ],
)
def test_other_hooks_are_refused(tmp_path, first, second, message):
    interrupted(tmp_path / "run", *first)
    with pytest.raises(RunFolderError, match=message):
        train(tmp_path / "run", hooks=second)


def test_two_of_one_name(tmp_path):
    with pytest.raises(ValueError, match="'slow'"):
        train(tmp_path / "run", hooks=[Average("slow"), Average("slow")])


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"best": numpy.float64(1)}, r"Holding-0\.best .*numpy\.float64"),
        ({"seen": [1, At(1, print)]}, r"Holding-0\.seen .*training\.At"),
        (At(1, print), r"Holding-0 .*training\.At"),
        ({(1, At): 1}, r"key of Holding-0 .*builtins\.type"),
    ],
)
def test_what_cannot_be_read_back_is_refused_before_training(tmp_path, state, message):
    hook = Holding(state)
    with pytest.raises(TypeError, match=message):
        train(tmp_path / "run", hooks=[hook])
    assert hook.seen == 0
