"""Fine-tuning folders of the original toolkit's text models: classification and regression."""

from collections.abc import Mapping
from typing import Any

import torch
from reading import Tensors, named

from d2v.core.foreign import convert
from d2v.core.modality import modalities
from d2v.core.model import Batch
from d2v.text import SentenceClassifier

_INPUTS = ("source", "target", "padding_mask")


def is_text(config: Mapping[str, Any]) -> bool:
    """Whether a folder is one of these."""
    return str(config.get("kind", "")).startswith("sentence_prediction")


def run(config: dict[str, Any], tensors: Tensors, io: Tensors) -> tuple[Tensors, Tensors]:
    """Expected and produced tensors of one training step."""
    converters = [one for name in modalities.names() for one in modalities.load(name).converters]
    pretraining = None if config["model_cfg"] is None else {"model": config["model_cfg"]}
    foreign = {
        "model": {"pretrained_model_args": pretraining},
        "task": {"regression_target": bool(config.get("regression", False))},
    }
    one = convert(converters, foreign, tensors)
    model = one.model.train()
    assert isinstance(model, SentenceClassifier)
    padding = io["padding_mask"].bool() if "padding_mask" in io else None
    batch = Batch(source=io["source"], padding=padding, labels=io["target"].flatten())
    with torch.no_grad():
        encoded = model.encoder.encode(batch)  # type: ignore[operator]
        produced = {"x": encoded.x[:, encoded.num_prefix_tokens :], "logits": model.logits(batch)}
    out = model(batch, update=0)
    out.loss_sum.backward()
    produced["loss"] = out.loss_sum.detach()[None]
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    full = {short: name for name in tensors for short in one.layout.divide({name: name})[0]}
    theirs = {full[name]: grad for name, grad in one.student_names(grads).items()}
    frozen = config.get("params_without_grad", [])
    expected = {name: tensor for name, tensor in io.items() if name not in _INPUTS}
    expected["without_gradient"] = torch.ones(len(frozen), dtype=torch.bool)
    produced["without_gradient"] = torch.tensor([name not in theirs for name in frozen], dtype=torch.bool)
    if "sample_size" in config:
        expected["sample_size"] = torch.tensor(float(config["sample_size"]))
        produced["sample_size"] = torch.tensor(float(out.sample_size))
    return expected, produced | named("grad.", theirs)


@torch.no_grad()
def checkpoint(model: SentenceClassifier, io: Tensors) -> Tensors:
    """What a checkpoint's inputs give, in evaluation mode."""
    padding = io["padding_mask"].bool() if "padding_mask" in io else None
    batch = Batch(source=io["source"], padding=padding)
    encoded = model.encoder.encode(batch)  # type: ignore[operator]
    return {"features.x": encoded.x[:, encoded.num_prefix_tokens :], "logits": model.logits(batch)}
