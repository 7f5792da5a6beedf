"""Training on every kind of source together resumes exactly after an interruption."""

from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from loading import Counting, Noisy
from torch import Tensor
from training import NOISY, Boom, Breaking, same, train

from d2v.core.data import BudgetPlan, FixedPlan, Loader, Mixture, StreamLoader
from d2v.core.model import Batch

NAMES = ("budget", "fixed", "stream")
LENGTHS = torch.tensor([6, 9, 6, 9, 7, 7, 8, 12, 6, 10])
CONFIG = attrs.evolve(
    NOISY,
    student=attrs.evolve(NOISY.student, adapters=dict.fromkeys(NAMES, NOISY.student.adapters["toy"])),
    predictors=dict.fromkeys(NAMES, NOISY.predictors["toy"]),
    maskers=dict.fromkeys(NAMES, NOISY.maskers["toy"]),
)


class Sequences(Noisy):
    """`t 3` by id; the fourth is broken."""

    def get(self, id: int, *, seed: int, epoch: int) -> Tensor:
        return super().get(id, seed=seed, epoch=epoch) + torch.arange(3.0 * int(LENGTHS[id])).view(-1, 3).sin()


def read(record: int, id: int, *, seed: int, epoch: int) -> Tensor:
    return Sequences(10, {3}).get(record, seed=seed, epoch=epoch)


def collate(samples: list[Tensor], ids: Tensor) -> Batch:
    shortest = min(map(len, samples))
    return Batch(source=torch.stack([sample[:shortest] for sample in samples]), ids=ids)


def mixture(workers: int = 0) -> Mixture:
    samples = Sequences(10, {3})
    sources: dict[str, Any] = {
        "budget": Loader(samples, collate, BudgetPlan(lengths=LENGTHS, max_tokens=24), num_workers=workers),
        "fixed": Loader(samples, collate, FixedPlan(n=10, batch_size=3), num_workers=workers),
        "stream": StreamLoader(Counting(), collate, read=read, batch_size=2, shuffle=4, num_workers=workers),
    }
    return Mixture(sources, {"budget": 2.0, "fixed": 1.0, "stream": 2.0})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "run"
    train(path, config=CONFIG, data=mixture())
    return path


@pytest.mark.parametrize(("batch", "workers"), [(9, 0), (14, 1)])
def test_going_on(tmp_path: Path, whole: Path, batch: int, workers: int) -> None:
    with pytest.raises(Boom):
        train(tmp_path, config=CONFIG, data=Breaking(mixture(workers), batch=batch))
    train(tmp_path, config=CONFIG, data=mixture())
    same(tmp_path, whole)


def test_the_state_is_plain(whole: Path) -> None:
    state = torch.load(whole / "checkpoints/step-8/training.pt", weights_only=True)["data"]
    assert state["batch"] == 16
    assert set(state["sources"]) == set(NAMES)
    assert set(state["sources"]["budget"]) == {"epoch", "batch"}
    assert state["sources"]["stream"]["stream"]["place"] <= 7
