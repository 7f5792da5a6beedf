"""A rank of test_strategies: `torchrun --nproc-per-node N strategy_worker.py FOLDER` trains in several ways."""

import shutil
import sys
from pathlib import Path

import attrs
import torch
from building import NEW
from torch import Tensor

from d2v.core.model import Batch, Data2Vec
from d2v.core.train import Freeze, PublishedAdamW, RunFolder, fit, parameter_groups
from d2v.core.train.ranks import connected, world
from d2v.core.train.strategies import Strategy, strategy_by_name

UPDATES, MICRO = 4, 4  # micro-batches of an update, over all ranks
FORMS = {1: ["single"], 2: ["ddp", "fsdp"], 4: ["ddp", "fsdp"]}


class Shares:
    """The same micro-batches for any number of ranks, which take turns."""

    def __init__(self) -> None:
        self.first = 0

    def __iter__(self):
        rank, workers = world()
        while True:
            number = self.first * workers + rank
            source = torch.randn(2, 12, 3, generator=torch.Generator().manual_seed(number))
            self.first += 1
            yield Batch(source=source, ids=torch.tensor([2 * number, 2 * number + 1]))

    def state_dict(self):
        return {"first": self.first}

    def load_state_dict(self, state):
        self.first = state["first"]

    def continued(self, state, *, before):
        return {"first": state["first"] * before // world()[1]}


def model_of(*, layer_drop: float = 0.0) -> Data2Vec:
    torch.manual_seed(0)
    encoder = attrs.evolve(NEW.student.encoder, layer_drop=layer_drop)
    return attrs.evolve(NEW, student=attrs.evolve(NEW.student, encoder=encoder)).build()


def train(strategy: Strategy, *, updates: int = UPDATES, layer_drop: float = 0.0, run: Path | None = None, micro=None):
    """Train, with a part that thaws after two updates; return all weights and the metrics of the last update."""
    model = model_of(layer_drop=layer_drop)
    strategy.shard(model)
    groups = parameter_groups(model, weight_decay=0.01, decay="matrices")
    folder = None if run is None else RunFolder(run, config="", description={}, resume=True)
    written: list[dict[str, float]] = []
    fit(
        model,
        Shares(),
        optimizer=PublishedAdamW(groups, lr=1e-2),
        schedule=lambda _: 1e-2,
        max_steps=updates,
        accumulate=micro or MICRO // world()[1],
        clip=1.0,
        strategy=strategy,
        run=folder,
        log_every=1,
        freeze=Freeze(model, ["student.adapters"], updates=2),
        hooks=[Kept(written)],
    )
    if folder is not None:
        folder.close()
    with torch.no_grad(), strategy.whole(model):  # outside of a step
        features = model.eval().student.encode(Batch(source=torch.ones(1, 12, 3))).x
    return {**strategy.tensors(model), "features": features}, written


class Kept:
    """Keeps the metrics of every update."""

    def __init__(self, written: list[dict[str, float]]) -> None:
        self.written = written

    def on_log(self, step: int, metrics: dict[str, float]) -> None:
        self.written.append({name: metrics[name] for name in ("loss", "regression")})


def everything(folder: Path) -> dict[str, tuple[dict[str, Tensor], list[dict[str, float]]]]:
    """Train in all ways that this number of ranks has."""
    found = {}
    for form in FORMS[world()[1]]:
        found[form] = train(strategy_by_name(form))
        found[f"{form}, skipping"] = train(strategy_by_name(form), layer_drop=0.3, micro=2)
    for before in sorted(folder.glob("begun-*")):
        for form in FORMS[world()[1]]:
            name = f"{before.name} on {world()[1]}-{form}"
            if world()[0] == 0:
                shutil.copytree(before, folder / name.replace("begun", "resumed"))
            found[name] = train(strategy_by_name(form), run=folder / name.replace("begun", "resumed"))
    for form in FORMS[world()[1]]:
        train(strategy_by_name(form), updates=2, run=folder / f"begun-{world()[1]}-{form}")
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    target = Path(sys.argv[1])
    with connected(timeout=60):
        results = everything(target)
        torch.save(results, target / f"{world()[1]}-{world()[0]}.pt")
