"""Image classifiers: fine-tuning folders of the original toolkit, and checkpoints of both generations."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from reading import Tensors, named

from d2v.core.foreign import Converted, convert
from d2v.core.modality import modalities
from d2v.core.model import Batch
from d2v.vision import ImageClassifier

_INPUTS = ("imgs", "labels", "mixed.imgs", "mixed.targets")


def is_image(config: Mapping[str, Any]) -> bool:
    """Whether a folder is one of these."""
    return str(config.get("kind", "")).startswith("mae_image_classification")


def run(config: dict[str, Any], tensors: Tensors, io: Tensors) -> tuple[Tensors, Tensors]:
    """Expected and produced tensors of evaluation, and of a training step on mixed images."""
    one = _converted(config, tensors)
    model = one.model
    assert isinstance(model, ImageClassifier)
    batch = Batch(source=io["imgs"], labels=io["labels"])
    with torch.no_grad():
        produced = checkpoint(model.eval(), {"source": io["imgs"]})
        logits = produced["logits"].float()
        produced["eval.loss"] = F.cross_entropy(logits, io["labels"], reduction="none")
        out = model(batch, update=0)
        produced["eval.correct"] = _count(out.metrics["accuracy"], io["eval.correct"])
        model.label_smoothing = config["classification_cfg"]["label_smoothing"]
        produced["smoothed.loss"] = _each_loss(model.train(), batch)
    scores = model.logits(Batch(source=io["mixed.imgs"])).float()
    elements = -io["mixed.targets"] * scores.log_softmax(-1)
    elements.sum().backward()
    produced["mixed.loss_elements"] = elements.detach()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    full = {short: name for name in tensors for short in one.layout.divide({name: name})[0]}
    theirs = {full[name]: grad for name, grad in one.student_names(grads).items()}
    return {name: tensor for name, tensor in io.items() if name not in _INPUTS}, produced | named("grad.", theirs)


@torch.no_grad()
def checkpoint(model: ImageClassifier, io: Tensors) -> Tensors:
    """What a checkpoint's inputs give, in evaluation mode."""
    batch = Batch(source=io["source"] if "source" in io else io["pixels"])
    encoded = model.encoder.encode(batch)  # type: ignore[operator]
    pooled = encoded.x[:, encoded.num_prefix_tokens :].mean(1) if model.pooling == "mean" else encoded.class_token
    return {
        "features": encoded.x[:, encoded.num_prefix_tokens :],
        "pooled": pooled if model.norm is None else model.norm(pooled),
        "logits": model.logits(batch),
    }


def _converted(config: dict[str, Any], tensors: Tensors) -> Converted:
    """The model that a user would get of a checkpoint with this configuration."""
    converters = [one for name in modalities.names() for one in modalities.load(name).converters]
    foreign = {"model": {**config["classification_cfg"], "pretrained_model_args": {"model": config["model_cfg"]}}}
    return convert(converters, foreign, tensors)


def _each_loss(model: ImageClassifier, batch: Batch) -> torch.Tensor:
    assert batch.labels is not None
    rows = zip(batch.source.split(1), batch.labels.split(1), strict=True)
    losses = [model(dataclasses.replace(batch, source=one, labels=label), update=0).loss_sum for one, label in rows]
    return torch.stack(losses)


def _count(metric: tuple[torch.Tensor, Any], like: torch.Tensor) -> torch.Tensor:
    return (metric[0] / 100).round().to(like.dtype).reshape(like.shape)
