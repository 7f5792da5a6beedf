"""The stages of the quickstart and the state they share. `running` calls them in order."""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import torch

from d2v.core import __version__
from d2v.core.data import DataConfig
from d2v.core.files import open_model
from d2v.core.files.atomic import write_text
from d2v.core.jobs import pretrain
from d2v.core.jobs.device import pick_device
from d2v.core.jobs.finetuning import recipe_for, trial
from d2v.core.jobs.labelled_splits import LabelledSplits
from d2v.core.jobs.models import encoder_of, new_encoder
from d2v.core.jobs.plotting import read_metrics
from d2v.core.jobs.running import decided_precision
from d2v.core.labels import Classes
from d2v.core.model import Batch, Data2Vec, Student, StudentConfig
from d2v.core.plots import learning_curves, svg
from d2v.core.probes import Features, ProbeResults, Probing, Score, collect_features
from d2v.core.recipes import FinetuneRecipe, PretrainRecipe, read_recipe
from d2v.core.recipes.recipe import Weights
from d2v.vision.demo.drawing import Material, draw
from d2v.vision.demo.html import page
from d2v.vision.demo.results import DRAWS, LABELS, POOLINGS, report_tree
from d2v.vision.demo.sentences import verdict
from d2v.vision.display import images_of

RECIPE, FINETUNE = "vision/small", "vision/small-finetune"
DATA = "fashion-mnist"
_FEW_LABELS = {"data.per_class": LABELS // 10, "train.max_steps": 100}  # of ten classes
_FROM_SCRATCH = {"optim.layer_decay": 1.0, "optim.lr": 2e-3}  # better without pretraining
_BATCH = 500
_PAGE = 6.0  # seconds for images and page, about


class Stages:
    """The stages of a quickstart in a folder: baselines, pretraining, report.

    Args:
        folder: an existing, empty folder.
        seed: seed of everything, at least 0.
        device: see `pick_device`.
        progress: whether to show the progress on standard error.

    Raises:
        ConfigError: if there is no such device.
    """

    def __init__(self, folder: Path, *, seed: int, device: str, progress: bool) -> None:
        self.start = time.monotonic()
        self.folder = folder
        self.seed, self.device, self.progress = seed, pick_device(device), progress
        self.probing = Probing(labels=LABELS, draws=DRAWS, seed=seed)
        self.probed: list[ProbeResults] = []
        self.finetuned: dict[str, Score] = {}
        self.features: dict[str, dict[str, Features]] = {}
        self.seconds_of: dict[str, float] = {}
        self._seconds_of_untrained: float = 0.0
        self.splits = LabelledSplits.of(self._data(), batch_size=_BATCH).in_memory()

    def spent(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start

    def to_come(self) -> float:
        """Estimated seconds of the report: evaluating the pretrained network takes as long as the untrained one did."""
        return self._seconds_of_untrained + _PAGE

    def recipe(self, *, steps: int) -> PretrainRecipe:
        """The pretraining recipe for a number of updates."""
        return read_recipe(RECIPE, self._overrides(steps), PretrainRecipe)

    def baselines(self) -> None:
        """Evaluate the raw pixels and the untrained network, and fine-tune from scratch."""
        with self._stage("baselines", "raw pixels and the untrained network"):
            raw = self.splits.raw()
            assert raw is not None  # images of one size
            self.probed.append(self.probing.measure("raw", raw))
            begin = time.monotonic()
            model = self.recipe(steps=1).model.student
            self._measure("untrained", new_encoder(model, seed=self.seed)[0])
            recipes = self._finetuning("untrained")
            encoders = (new_encoder(model, adapt=one.task.adapt, seed=one.seed) for one in recipes)
            self._finetune("scratch", recipes, encoders)
            self._seconds_of_untrained = time.monotonic() - begin

    def pretrain(self, steps: int) -> None:
        """Pretrain for a number of updates, without labels."""
        self.steps = steps
        with self._stage("pretraining", f"pretraining, {steps:,} updates without labels"):
            pretrain(RECIPE, self._overrides(steps), progress=self.progress)

    def report(self) -> dict[str, Any]:
        """Evaluate the pretrained network, draw the images, and write report and page."""
        stored = open_model(self.folder / "run")
        assert isinstance(stored.module, Data2Vec)
        with self._stage("measuring", "the pretrained network"):
            encoder = encoder_of(stored, "teacher")[0]
            self._measure("pretrained", encoder)
            recipes = self._finetuning("teacher")
            encoders = (encoder_of(stored, "teacher", adapt=one.task.adapt, seed=one.seed) for one in recipes)
            self._finetune("pretrained", recipes, encoders)
        with self._stage("drawing", "report"):
            images = draw(self._material(stored.module.to(self.device), encoder), curves=self._curves())
        report = self._content()
        write_text(self.folder / "report.json", json.dumps(report, indent=1) + "\n")
        write_text(self.folder / "report.html", page(report, images))
        return report

    def _data(self) -> DataConfig:
        (data,) = self.recipe(steps=1).sources.values()
        return data

    def _overrides(self, steps: int) -> dict[str, Any]:
        out = str(self.folder / "run")
        chosen = {"seed": self.seed, "device": str(self.device), "train.max_steps": steps}
        # A short run needs metrics for its curves too.
        every = max(1, min(100, steps // 10))
        return {"data.path": DATA, "out": out, "train.log_every": every, **chosen}

    def _finetuning(self, weights: Weights) -> list[FinetuneRecipe]:
        """A fine-tuning recipe for each label draw."""
        given: dict[str, Any] = {"model": str(self.folder / "run"), "out": str(self.folder / "classifier")}
        given |= {"data.path": DATA, "weights": weights, **_FEW_LABELS}
        if weights == "untrained":
            given |= _FROM_SCRATCH
        seeds = range(self.seed * DRAWS, (self.seed + 1) * DRAWS)
        description = self.recipe(steps=1).description()
        return [recipe_for(FINETUNE, given | {"seed": seed}, description) for seed in seeds]

    def _measure(self, name: str, encoder: Student) -> None:
        encoder.to(self.device)
        self.features[name] = self.splits.read(lambda batches: collect_features(encoder, batches, poolings=POOLINGS))
        self.probed.append(self.probing.measure(name, self.features[name]))

    def _finetune(
        self, start: str, recipes: Iterable[FinetuneRecipe], encoders: Iterable[tuple[Student, StudentConfig]]
    ) -> None:
        test, labels = self.splits.batches["test"], self.splits.labels
        draws = [
            trial(recipe, encoder, config, test, labels=labels, device=self.device)
            for recipe, (encoder, config) in zip(recipes, encoders, strict=True)
        ]
        self.finetuned[start] = Score.of(draws)

    def _material(self, model: Data2Vec, encoder: Student) -> Material:
        data, labels = self._data(), self.splits.labels
        assert isinstance(labels, Classes)  # the default of the splits
        return Material(
            model=model,
            untrained=new_encoder(self.recipe(steps=1).model.student, seed=self.seed)[0].to(self.device),
            pretrained=encoder,
            train=_whole(self.splits.batches["train"]).to(self.device),
            test=_whole(self.splits.batches["test"]).to(self.device),
            features={"untrained": self.features["untrained"], "pretrained": self.features["pretrained"]},
            classes=labels.names,
            images=lambda batch: images_of(batch, data),
        )

    def _curves(self) -> str:
        lines = read_metrics(self.folder / "run")
        return svg(learning_curves({"run": lines}, columns=2), label="Learning curves of the pretraining.")

    def _content(self) -> dict[str, Any]:
        recipe, probed = self.recipe(steps=self.steps), reduce(or_, self.probed)
        content = {
            **report_tree(probed, self.finetuned),
            "seconds": round(self.spent(), 1),
            "steps": self.steps,
            "images_seen": self.steps * recipe.train.batch_size * recipe.train.accumulate,
            "device": str(self.device),
            "precision": decided_precision(recipe.train.precision, recipe, self.device),
            "threads": torch.get_num_threads(),
            "seed": self.seed,
            "recipe": RECIPE,
            "seconds_of": {name: round(seconds, 1) for name, seconds in self.seconds_of.items()},
            "samples": {"train": probed.num_train, "test": probed.num_test},
            "version": __version__,
        }
        return {**content, "verdict": verdict(content)}

    @contextmanager
    def _stage(self, name: str, description: str) -> Iterator[None]:
        if self.progress:
            print(f"[{self.spent():4.0f} s] {description}", file=sys.stderr, flush=True)
        begin = time.monotonic()
        yield
        self.seconds_of[name] = time.monotonic() - begin


def _whole(split: Iterable[Batch]) -> Batch:
    """All samples of a split as one batch, with ids and labels."""
    batches = list(split)
    return Batch(
        source=torch.cat([batch.source for batch in batches]),
        ids=torch.cat([batch.ids for batch in batches if batch.ids is not None]),
        labels=torch.cat([batch.labels for batch in batches if batch.labels is not None]),
        modality=batches[0].modality,
    )
