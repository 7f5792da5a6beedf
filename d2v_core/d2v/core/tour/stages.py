"""The stages of a quickstart, and what passes from one to the next. Their order is `running`'s."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from d2v.core import __version__
from d2v.core.data import DataConfig
from d2v.core.files import open_model
from d2v.core.files.atomic import write_text
from d2v.core.jobs.device import pick_device
from d2v.core.jobs.finetuning import recipe_for
from d2v.core.jobs.models import encoder_of, new_encoder
from d2v.core.jobs.pretraining import pretrain
from d2v.core.jobs.running import decided_precision
from d2v.core.modality import Modality
from d2v.core.model import Data2Vec, Student
from d2v.core.plots import learning_curves, svg
from d2v.core.probes import Features, raw_features
from d2v.core.recipes import FinetuneRecipe, PretrainRecipe, read_recipe
from d2v.core.tour.html import page
from d2v.core.tour.measuring import DRAWS, POOLINGS, Figures, Parts, fine_tuned, probed
from d2v.core.tour.pictures import Material, draw

_PAGE = 6.0  # seconds that pictures and page take, about


class Stages:
    """A quickstart in a folder: baselines, pretraining, report.

    Args:
        folder: that is there, and empty.
        record: of a modality with a quickstart.
        seed: of everything.
        device: see `pick_device`.
        progress: whether to say how far it is, on standard error.
    """

    def __init__(self, folder: Path, record: Modality, *, seed: int, device: str, progress: bool) -> None:
        assert record.quickstart is not None
        self.began = time.monotonic()
        self.folder, self.record, self.plan = folder, record, record.quickstart
        self.seed, self.device, self.progress = seed, pick_device(device), progress
        self.figures = Figures()
        self.features: dict[str, dict[str, Features]] = {}
        self.seconds_of: dict[str, float] = {}
        self._trained_like: float = 0.0
        self.parts = Parts.of(self._data())

    def spent(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.began

    def to_come(self) -> float:
        """Seconds that the report takes: it measures the pretrained network as the baselines did the untrained one."""
        return self._trained_like + _PAGE

    def recipe(self, *, steps: int) -> PretrainRecipe:
        """The pretraining of so many updates."""
        return read_recipe(self.plan.recipe, self._overrides(steps), PretrainRecipe)

    def baselines(self) -> None:
        """Measure raw input and the untrained network, and fine-tune from scratch."""
        with self._stage("baselines", "what raw input and the untrained network are worth"):
            raw = {part: raw_features(batches) for part, batches in self.parts.batches.items()}
            known = {part: found for part, found in raw.items() if found is not None}
            scores = probed(known, layers="input", pooling="raw", seed=self.seed)
            for pooling in POOLINGS:
                self.figures.probe(pooling, "pixels", scores)
            begin = time.monotonic()
            model = self.recipe(steps=1).model.student
            self._measure("untrained", "random_init", new_encoder(model, seed=self.seed)[0])
            recipes = self._finetuning("random")
            encoders = [new_encoder(model, adapt=one.task.adapt, seed=one.seed) for one in recipes]
            self.figures.finetune("scratch", fine_tuned(recipes, encoders, self.parts, self.device))
            self._trained_like = time.monotonic() - begin

    def pretrain(self, steps: int) -> None:
        """Pretrain for so many updates, without labels."""
        self.steps = steps
        with self._stage("pretraining", f"pretraining, {steps:,} updates without labels"):
            pretrain(self.plan.recipe, self._overrides(steps), progress=self.progress)

    def report(self) -> dict[str, Any]:
        """Measure the pretrained network, draw the pictures, and write report and page."""
        stored = open_model(self.folder / "run")
        assert isinstance(stored.module, Data2Vec)
        with self._stage("measuring", "what the pretrained network is worth"):
            encoder = encoder_of(stored, "teacher")[0]
            self._measure("pretrained", "pretrained", encoder)
            recipes = self._finetuning("teacher")
            encoders = [encoder_of(stored, "teacher", adapt=one.task.adapt, seed=one.seed) for one in recipes]
            self.figures.finetune("pretrained", fine_tuned(recipes, encoders, self.parts, self.device))
        with self._stage("drawing", "pictures"):
            album = draw(self._material(stored.module.to(self.device), encoder), curves=self._curves())
        report = self._content()
        write_text(self.folder / "report.json", json.dumps(report, indent=1) + "\n")
        write_text(self.folder / "report.html", page(report, album))
        return report

    def _data(self) -> DataConfig:
        (data,) = self.recipe(steps=1).sources.values()
        return data

    def _overrides(self, steps: int) -> dict[str, Any]:
        out = str(self.folder / "run")
        chosen = {"seed": self.seed, "device": str(self.device), "train.max_steps": steps}
        # A short run has lines to draw curves of as well.
        every = max(1, min(100, steps // 10))
        return {"data.path": self.plan.path, "out": out, "train.log_every": every, **chosen}

    def _finetuning(self, weights: str) -> list[FinetuneRecipe]:
        """A recipe for each draw of labels."""
        given = {"model": str(self.folder / "run"), "data.path": self.plan.path, "out": str(self.folder / "classifier")}
        given |= {"weights": weights, **self.plan.few_labels}
        if weights == "random":
            given |= self.plan.scratch
        seeds = range(self.seed * DRAWS, (self.seed + 1) * DRAWS)
        description = self.recipe(steps=1).description()
        return [recipe_for(self.plan.finetune, given | {"seed": seed}, description) for seed in seeds]

    def _measure(self, name: str, column: str, encoder: Student) -> None:
        self.features[name] = self.parts.features(encoder.to(self.device))
        for pooling in POOLINGS:
            scores = probed(self.features[name], layers="all", pooling=pooling, seed=self.seed)
            self.figures.probe(pooling, column, scores)

    def _material(self, model: Data2Vec, encoder: Student) -> Material:
        look, data = self.record.pictures, self._data()
        assert look is not None
        return Material(
            model=model,
            untrained=new_encoder(self.recipe(steps=1).model.student, seed=self.seed)[0].to(self.device),
            pretrained=encoder,
            train=self.parts.whole("train").to(self.device),
            test=self.parts.whole("test").to(self.device),
            features=self.features,
            classes=self.parts.labels.names,
            pictures=lambda batch: look(batch, data),
        )

    def _curves(self) -> str:
        lines = [json.loads(line) for line in (self.folder / "run" / "metrics.jsonl").read_text().splitlines()]
        return svg(learning_curves({"run": lines}, columns=2), label="Learning curves of the pretraining.")

    def _content(self) -> dict[str, Any]:
        recipe = self.recipe(steps=self.steps)
        sizes = {part: sum(batch.size for batch in some) for part, some in self.parts.batches.items()}
        return {
            **self.figures.to_plain(),
            "seconds": round(self.spent(), 1),
            "steps": self.steps,
            "images_seen": self.steps * recipe.train.batch_size * recipe.train.accumulate,
            "device": str(self.device),
            "precision": decided_precision(recipe.train.precision, recipe, self.device),
            "threads": torch.get_num_threads(),
            "seed": self.seed,
            "recipe": self.plan.recipe,
            "seconds_of": {name: round(seconds, 1) for name, seconds in self.seconds_of.items()},
            "samples": {part: sizes[part] for part in ("train", "test")},
            "version": __version__,
        }

    @contextmanager
    def _stage(self, name: str, told: str) -> Iterator[None]:
        if self.progress:
            print(f"[{self.spent():4.0f} s] {told}", file=sys.stderr, flush=True)
        begin = time.monotonic()
        yield
        self.seconds_of[name] = time.monotonic() - begin
