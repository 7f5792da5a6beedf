"""A stored model, ready for use: features of given samples, and predictions of a fine-tuned model.

`d2v extract` and `d2v predict` do the same for whole data sets, with the same functions.
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
from d2v.core.jobs.kernels import InferenceKernels
from d2v.core.jobs.models import data_for, encoder_of, require_weights, task_of
from d2v.core.model import Batch, Student
from d2v.core.nn.sinks import ResultKind
from d2v.core.precision import AskedPrecision, FeaturePrecision, autocast, decided
from d2v.core.probes import collect_features
from d2v.core.probes.encoding import Layers, evaluating
from d2v.core.recipes.recipe import Weights
from d2v.core.validators import check, one_of


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleFeatures:
    """Features of b samples, on the CPU and without gradient.

    Args:
        x: float32, `b t d` of tokens, without the class token and other extra tokens, padded ones 0; pooled `b d` or
            `b (4 d)`.
        padding: Bool `b t`, True = padding; None where nothing is padded, or tokens are pooled.
        grid: (t,) or (h, w), the layout of the tokens; None where they are pooled.
    """

    x: Tensor
    padding: Tensor | None = None
    grid: tuple[int, ...] | None = None


class ReadyModel:
    """A pretrained or fine-tuned model with the preparation of its input; created by `load`.

    Args:
        stored: the model.
        weights: student, teacher (with the student's parts where it lacks one, see `encoder_of`), or untrained = the
            same network with initial weights. The student is the default, as in published fine-tuning; the teacher
            computes the targets of pretraining.
        device: see `to`.
        kernels: see `load`.

    Raises:
        ConfigError: if the model does not have these weights, there is no such device, or `kernels` is wrong.
    """

    def __init__(
        self,
        stored: Stored,
        *,
        weights: Weights = "student",
        device: str | torch.device = "cpu",
        kernels: str | list[str] | tuple[str, ...] = "auto",
    ) -> None:
        self._stored = stored
        self._kernels = InferenceKernels(kernels)
        self.weights: Weights = weights
        self._encoders: dict[Weights, Student] = {}
        require_weights(stored, weights)
        self.module.eval()
        self.to(device)

    @property
    def module(self) -> nn.Module:
        """The whole model: a `Data2Vec`, or the module that a task built around an encoder."""
        return self._stored.module

    @property
    def description(self) -> Description:
        """Description of the model: configuration, preparation of its input, task, labels."""
        return self._stored.description

    @property
    def encoder(self) -> Student:
        """The encoder with the chosen weights, a separate copy in eval mode, made when it is first needed."""
        return self._encoder(self.weights)

    def to(self, device: str | torch.device) -> "ReadyModel":
        """Move the model in place; `auto` = cuda, mps or cpu, the first that is available.

        Raises:
            ConfigError: if there is no such device.
        """
        self.device = pick_device(str(device))
        for module in (self.module, *self._encoders.values()):
            module.to(self.device)
        return self

    def prepare(self, items: Iterable[Any], *, modality: str | None = None) -> Batch:
        """Samples as one batch, prepared as the model's training data, without augmentation.

        Args:
            items: a list of paths, or of in-memory samples of the modality: images as PIL images, arrays or tensors,
                recordings as pairs (array, sampling rate), text as strings (see `DataConfig.prepare`).
            modality: of the items, where the model has several; None = its first.

        Raises:
            ConfigError: if the model does not record how its input was prepared.
            DataError: naming the item, if one is broken or of a type that the modality does not accept.
        """
        modality = self.description.modality if modality is None else modality
        stored = self.description.data.get(modality)
        if stored is None:
            known = f"records only {', '.join(self.description.data)}" if self.description.data else "records none"
            raise ConfigError(f"no preparation of {modality} input is known: this model {known}; give a Batch instead")
        # A data configuration needs a path, and these samples have none.
        data: DataConfig = from_plain({**stored, "path": "-"}, DataConfig)  # type: ignore[type-abstract]  # one of its forms is made
        batch = data_for(data, self.description).prepare(items)
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
        precision: FeaturePrecision = "fp32",
    ) -> SampleFeatures:
        """Features of a batch, or of items that `prepare` accepts.

        Args:
            inputs: samples. Masks and labels of a batch are ignored.
            layers: "final" = the encoder's output, after the norm that follows its last block; one layer or several =
                the mean of their results, from 0 or negative from the end; "all" or None = the mean of all.
            result: of a layer: "block" = its output, "ffn" = its feed-forward branch.
            pooling: "tokens" = none; "mean", "grid" or "class-token", see `pool_layer`.
            weights: student, teacher or untrained; None = those chosen when the model was loaded.
            batch_size: items to encode at a time.
            precision: of the encoder: fp32, bf16, or auto = bf16 where the device computes in it natively.

        Raises:
            ConfigError: if the model does not have these weights or forms of computation, or as in `prepare`.
            DataError: as in `prepare`.
            ValueError: if a layer, result, pooling or precision does not exist, or features are not finite.
        """
        check(one_of(FeaturePrecision), precision=precision)
        encoder, chosen = self._encoder(self.weights if weights is None else weights), decided(precision, self.device)
        with self._kernels.of(encoder, chosen):
            found = collect_features(
                encoder,
                (batch for batch, _ in self._batches(inputs, batch_size)),
                poolings=[pooling],
                layers={"chosen": layers},
                result=result,
                depth=self.description.student.depth,
                precision=precision,
            )
        return SampleFeatures(x=found.values["chosen"][pooling], padding=found.padding, grid=found.grid)

    def predict(
        self, inputs: Batch | Iterable[Any], *, batch_size: int = 64, precision: AskedPrecision = "fp32"
    ) -> list[dict[str, Any]]:
        """Predictions of a fine-tuned model for each sample, as `d2v predict` writes them.

        Args:
            inputs: a batch, or items that `prepare` accepts.
            batch_size: items to read at a time.
            precision: of the forward pass: fp32, bf16, fp16 or auto = bf16 where the device computes in it natively.

        Returns:
            A mapping for each sample; for files, with their path under "file".

        Raises:
            ConfigError: if the model is only pretrained or lacks a form of computation, or as in `prepare`.
            DataError: as in `prepare`.
            ValueError: if the precision does not exist, or predictions are not finite.
        """
        task, labels = task_of(self._stored), self.description.labels
        assert labels is not None  # a task has them
        rows: list[dict[str, Any]] = []
        check(one_of(AskedPrecision), precision=precision)
        chosen = decided(precision, self.device)
        with evaluating(self.module), self._kernels.of(self.module, chosen), autocast(chosen, self.device):
            for batch, names in self._batches(inputs, batch_size):
                answers = task.predict(self.module, batch.to(self.device), labels=labels)
                check_answers(answers, (name.get("file", len(rows) + i) for i, name in enumerate(names)))
                rows += [name | answer for name, answer in zip(names, answers, strict=True)]
        return rows

    def kernels(self, precision: FeaturePrecision = "fp32") -> tuple[str, ...]:
        """Forms of computation that `features` takes here; ("plain",) = those of torch.

        Raises:
            ConfigError: if the model has no form of a name that was given to `load`.
        """
        return self._kernels.names(self.encoder, decided(precision, self.device))

    def _encoder(self, weights: Weights) -> Student:
        if weights not in self._encoders:
            self._encoders[weights] = encoder_of(self._stored, weights)[0].to(self.device).eval()
        return self._encoders[weights]

    def _batches(self, inputs: Batch | Iterable[Any], size: int) -> Iterator[tuple[Batch, list[dict[str, str]]]]:
        """Batches, and the file name of each sample if it has one."""
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
    source: str | os.PathLike[str],
    *,
    weights: Weights = "student",
    device: str | torch.device = "cpu",
    pretrained: str | os.PathLike[str] | None = None,
    kernels: str | list[str] | tuple[str, ...] = "auto",
) -> ReadyModel:
    """Load a pretrained or fine-tuned model, ready for use.

    Args:
        source: a model folder, a run folder, a published checkpoint file, a folder of Hugging Face, or the name of a
            published model, which is downloaded once (see `open_model`).
        weights: student, teacher, or untrained = the same network with initial weights. The student is the default, as
            in published fine-tuning; the teacher computes the targets of pretraining.
        device: device to use; `auto` = cuda, mps or cpu, the first that is available.
        pretrained: file or name of the pretrained model, for a fine-tuned file without the configuration of its
            encoder; None = the file that it names, in the same folder.
        kernels: forms of computation of `features` and `predict` on a CPU, which differ by rounding: auto = the faster
            ones, measured by the first call and once for each machine and size of model; plain = those of torch; or
            names: onednn-linear, row-attention, channels-last-extractor, channels-last-positions. Unless plain, a
            second copy of the weights of linear layers may be kept, and padding is left out where that is possible.

    Raises:
        FileNotFoundError: if it is none of them.
        DownloadError: if a published model cannot be downloaded, or has changed since.
        ValueError: if a file is broken or newer than this version, or the weights do not fit the configuration.
        ConfigError: if the model does not have these weights, there is no such device, or `kernels` is wrong.

    >>> model = load("run", weights="teacher")  # doctest: +SKIP
    >>> model.features(["a.png", "b.png"], pooling="mean").x.shape  # doctest: +SKIP
    torch.Size([2, 768])
    >>> load("nowhere")
    Traceback (most recent call last):
    FileNotFoundError: nowhere is neither a model folder nor a run folder: it does not exist
    """
    return ReadyModel(open_model(source, pretrained=pretrained), weights=weights, device=device, kernels=kernels)


def _name(item: Any) -> dict[str, str]:
    """The file name of an item; a string is a file name only if that file exists, else it is text."""
    is_file = isinstance(item, os.PathLike) or (isinstance(item, str) and os.path.isfile(item))  # noqa: PTH113 - Path raises for a long text
    return {"file": os.fspath(item)} if is_file else {}
