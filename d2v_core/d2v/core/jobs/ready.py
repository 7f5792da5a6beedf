"""A stored model, ready for use: features of what a user has at hand, and what a fine-tuned model says of it.

`d2v extract` and `d2v predict` do the same for whole data sets, through the same calls.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from d2v.core.data import DataConfig, DataError, item_list
from d2v.core.description import Description
from d2v.core.files import ConfigError, Stored, from_plain, open_model
from d2v.core.finite import check_answers
from d2v.core.jobs.device import pick_device
from d2v.core.jobs.models import encoder_of, task_of
from d2v.core.model import Batch, Student
from d2v.core.nn.sinks import ResultKind
from d2v.core.probes import collect_features
from d2v.core.probes.encoding import Layers, evaluating
from d2v.core.recipes.recipe import Weights


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleFeatures:
    """Features of b samples, on the CPU and without gradient.

    Args:
        x: float32, `b t d` of tokens, without those in front (class token), padded ones 0; pooled `b d` or `b (4 d)`.
        padding: Bool `b t`, True = padding; None where nothing is padded, or tokens are pooled.
        grid: (t,) or (h, w), the layout of the tokens; None where they are pooled.
    """

    x: Tensor
    padding: Tensor | None = None
    grid: tuple[int, ...] | None = None


class ReadyModel:
    """A pretrained or fine-tuned model with the preparation of its input; made by `load`.

    Args:
        stored: the model.
        weights: of the encoder: student, teacher (with the student's parts where it lacks one, see `encoder_of`), or
            untrained = the same network with initial weights.
        device: see `to`.

    Raises:
        ConfigError: if the model has no such weights, or there is no such device.
    """

    def __init__(self, stored: Stored, *, weights: Weights = "student", device: str | torch.device = "cpu") -> None:
        self._stored = stored
        self.weights: Weights = weights
        self._encoders: dict[Weights, Student] = {}
        self.module.eval()
        self.to(device)
        self._encoder(weights)

    @property
    def module(self) -> nn.Module:
        """The whole model: a `Data2Vec`, or what a task has built around an encoder."""
        return self._stored.module

    @property
    def description(self) -> Description:
        """What is known of it: configuration, preparation of its input, task, labels."""
        return self._stored.description

    @property
    def encoder(self) -> Student:
        """The encoder with the chosen weights, which it has for itself; in eval mode."""
        return self._encoder(self.weights)

    def to(self, device: str | torch.device) -> "ReadyModel":
        """Move it, in place; `auto` = cuda, mps or cpu, the first that there is.

        Raises:
            ConfigError: if there is no such device.
        """
        self.device = pick_device(str(device))
        for module in (self.module, *self._encoders.values()):
            module.to(self.device)
        return self

    def prepare(self, items: Iterable[Any], *, modality: str | None = None) -> Batch:
        """Samples as one batch, prepared as the model's data were, without augmentation.

        Args:
            items: a list of paths, or of what the modality has in memory: images as pictures, arrays or tensors,
                recordings as pairs (array, sampling rate), text as strings (see `DataConfig.prepare`).
            modality: of the items, where the model has several; None = its first.

        Raises:
            ConfigError: if the model does not say how its input was prepared.
            DataError: naming the item, if one is broken or of no kind that the modality takes.
        """
        modality = self.description.modality if modality is None else modality
        stored = self.description.data.get(modality)
        if stored is None:
            told = f"is told of {', '.join(self.description.data)} only" if self.description.data else "is not told"
            raise ConfigError(f"how input of {modality} was prepared for this model {told}; give a Batch instead")
        # A data set has a path, and these samples lie in none.
        data: DataConfig = from_plain({**stored, "path": "-"}, DataConfig)  # type: ignore[type-abstract]  # one of its forms is made
        batch = data.prepare(items)
        return Batch(source=batch.source, padding=batch.padding, modality=modality)

    def features(
        self,
        inputs: Batch | Iterable[Any],
        *,
        layers: Layers = "final",
        result: ResultKind = "block",
        pooling: str = "tokens",
        weights: Weights | None = None,
        batch_size: int = 64,
    ) -> SampleFeatures:
        """Features of a batch, or of items as `prepare` takes them.

        Args:
            inputs: samples. What is masked or labelled in a batch is not looked at.
            layers: "final" = the encoder's output, after the norm behind its last block; one layer or several = the
                mean of their results, from 0 or negative from the end; "all" or None = the mean of all.
            result: of a layer: "block" = its output, "ffn" = its feed-forward branch.
            pooling: "tokens" = none; "mean", "grid" or "class-token", see `pool_layer`.
            weights: others than those chosen when the model was loaded.
            batch_size: items that are encoded at a time.

        Raises:
            ConfigError: if the model has no such weights, or as of `prepare`.
            DataError: as of `prepare`.
            ValueError: if a layer, result or pooling does not exist, or features are not finite.
        """
        found = collect_features(
            self._encoder(self.weights if weights is None else weights),
            (batch for batch, _ in self._batches(inputs, batch_size)),
            poolings=[pooling],
            layers={"chosen": layers},
            result=result,
            depth=self.description.student.depth,
        )
        return SampleFeatures(x=found.values["chosen"][pooling], padding=found.padding, grid=found.grid)

    @torch.no_grad()
    def predict(self, inputs: Batch | Iterable[Any], *, batch_size: int = 64) -> list[dict[str, Any]]:
        """What a fine-tuned model says of each sample, as `d2v predict` writes it.

        Args:
            inputs: a batch, or items as `prepare` takes them.
            batch_size: items that are read at a time.

        Returns:
            A mapping for each sample; of files with their path under "file".

        Raises:
            ConfigError: if the model is pretrained only, or as of `prepare`.
            DataError: as of `prepare`.
            ValueError: if predictions are not finite.
        """
        task, labels = task_of(self._stored), self.description.labels
        assert labels is not None  # a task has them
        rows: list[dict[str, Any]] = []
        with evaluating(self.module):
            for batch, names in self._batches(inputs, batch_size):
                answers = task.predict(self.module, batch.to(self.device), labels=labels)
                check_answers(answers, (name.get("file", len(rows) + i) for i, name in enumerate(names)))
                rows += [name | answer for name, answer in zip(names, answers, strict=True)]
        return rows

    def _encoder(self, weights: Weights) -> Student:
        if weights not in self._encoders:
            self._encoders[weights] = encoder_of(self._stored, weights)[0].to(self.device).eval()
        return self._encoders[weights]

    def _batches(self, inputs: Batch | Iterable[Any], size: int) -> Iterator[tuple[Batch, list[dict[str, str]]]]:
        """Batches with what is known of the names of their samples."""
        if isinstance(inputs, Batch):
            yield inputs, [{}] * inputs.size
            return
        items = item_list(inputs)
        for start in range(0, len(items), size):
            some = items[start : start + size]
            try:
                batch = self.prepare(some)
            except DataError as error:
                raise DataError(f"{error} (counted from item {start})") from error
            yield batch, [_name(item) for item in some]


def load(
    source: str | os.PathLike[str], *, weights: Weights = "student", device: str | torch.device = "cpu"
) -> ReadyModel:
    """A ready model, pretrained or fine-tuned.

    Args:
        source: a model folder, a run folder, or a published checkpoint file (see `open_model`).
        weights: of the encoder: student or teacher.
        device: where to; `auto` = cuda, mps or cpu, the first that there is.

    Raises:
        FileNotFoundError: if it is none of them.
        ValueError: if a file is broken or newer than this version, or the weights do not fit the configuration.
        ConfigError: if the model has no such weights, or there is no such device.

    >>> model = load("run", weights="teacher")  # doctest: +SKIP
    >>> model.features(["a.png", "b.png"], pooling="mean").x.shape  # doctest: +SKIP
    torch.Size([2, 768])
    >>> load("nowhere")
    Traceback (most recent call last):
    FileNotFoundError: nowhere is neither a model folder nor a run folder: it does not exist
    """
    return ReadyModel(open_model(source), weights=weights, device=device)


def _name(item: Any) -> dict[str, str]:
    """The name of a file; a string is one only where it names a file, else it is a text."""
    is_file = isinstance(item, os.PathLike) or (isinstance(item, str) and os.path.isfile(item))  # noqa: PTH113 - a long text is no path, and Path raises
    return {"file": os.fspath(item)} if is_file else {}
