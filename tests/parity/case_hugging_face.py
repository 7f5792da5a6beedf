"""Folders of Hugging Face models: outputs of the classes in evaluation mode."""

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from reading import Tensors, Watch, all_layers
from safetensors.torch import load_file
from torch import nn

from d2v.audio import AudioClassifier, CTCModel
from d2v.core.files import Stored, open_model
from d2v.core.foreign import is_hugging_face
from d2v.core.masks import Mask
from d2v.core.model import Batch
from d2v.text import SentenceClassifier
from d2v.vision import ImageClassifier

__all__ = ["is_hugging_face", "run"]

_SOURCES = ("input_values", "input_ids", "pixel_values")
_INPUTS = (*_SOURCES, "input_values_padded", "attention_mask", "labels", "mask_time_indices", "bool_masked_pos")


@torch.no_grad()
def run(folder: Path) -> tuple[Tensors, Tensors]:
    """Expected and produced tensors of a folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a folder without a preprocessor
        stored = open_model(folder)
    io = load_file(folder / "io.safetensors")
    stored.module.eval()
    produced = _encoded(stored, io) | _pooled(folder, stored, io) | _scores(stored.module, io)
    if "loss" in io:
        config = json.loads((folder / "config.json").read_text())
        produced["loss"] = _loss(stored.module, io, mean=config.get("ctc_loss_reduction") == "mean")[None]
    return {name: tensor for name, tensor in io.items() if name not in _INPUTS}, produced


def _encoded(stored: Stored, io: Tensors) -> Tensors:
    """Features of the input as it is, padded and masked."""
    student: Any = stored.student
    watch, produced = Watch(), {}
    watch.on("first", student.encoder.blocks[0])
    for adapter in student.adapters.values():
        if hasattr(adapter.front, "extractor"):
            watch.on("extracted", adapter.front.norm)
    sink = all_layers(len(student.encoder.blocks), "block")
    encoded = student.encode(_batch(io), sink=sink)
    produced = {"last_hidden_state": encoded.x, "hidden_states.0": watch.inputs["first"][0]}
    produced |= {f"hidden_states.{i + 1}": result for i, result in sink.results.items()}
    if "extracted" in watch.outputs:
        produced["extract_features"] = watch.outputs["extracted"]
    if "input_values_padded" in io:
        produced["padded.last_hidden_state"] = student.encode(_batch(io, padded=True)).x
    for name in ("mask_time_indices", "bool_masked_pos"):
        if name in io:
            mask = Mask(hidden=io[name].bool().flatten(1))
            produced["masked.last_hidden_state"] = student.encode(_batch(io), mask).x
    return produced


def _pooled(folder: Path, stored: Stored, io: Tensors) -> Tensors:
    """A pooler is not read with an encoder: its output is that of the file's layer on our features."""
    if "pooler_output" not in io:
        return {}
    student: Any = stored.student
    file = folder / "model.safetensors"
    tensors = load_file(file) if file.is_file() else torch.load(folder / "pytorch_model.bin", weights_only=True)
    layer = {name.rpartition(".")[2]: tensor for name, tensor in tensors.items() if ".pooler." in f".{name}"}
    x = student.encode(_batch(io)).x
    if "pixel_values" not in io:
        return {"pooler_output": torch.tanh(nn.functional.linear(x[:, 0], layer["weight"], layer["bias"]))}
    if not layer:
        return {"pooler_output": x[:, 0]}
    eps = json.loads((folder / "config.json").read_text()).get("layer_norm_eps", 1e-12)
    mean = x[:, 1:].mean(1)
    return {"pooler_output": nn.functional.layer_norm(mean, mean.shape[-1:], layer["weight"], layer["bias"], eps)}


def _scores(model: nn.Module, io: Tensors) -> Tensors:
    """Scores and loss of a head."""
    if isinstance(model, CTCModel):
        watch = Watch()
        watch.on("proj", model.proj)
        model.scores(_batch(io))
        produced = {"logits": watch.outputs["proj"]}
        if "input_values_padded" in io:
            model.scores(_batch(io, padded=True))
            produced["padded.logits"] = watch.outputs["proj"]
    elif isinstance(model, ImageClassifier | SentenceClassifier | AudioClassifier):
        produced = {"logits": model.logits(_batch(io))}
        if "input_values_padded" in io and isinstance(model, AudioClassifier):
            produced["padded.logits"] = model.logits(_batch(io, padded=True))
    else:
        return {}
    return produced


def _loss(model: nn.Module, io: Tensors, *, mean: bool) -> torch.Tensor:
    labels, batch = io["labels"], _batch(io, padded="input_values_padded" in io)
    if not isinstance(model, CTCModel):
        out: torch.Tensor = model(dataclasses.replace(batch, labels=labels), update=0).loss_sum / len(labels)
        return out
    model.specials = ()  # these classes remove none
    lengths, losses = (labels >= 0).sum(1), []
    for i in range(len(labels)):  # one by one: a mean is one over the symbols of each
        source, target = batch.source[i : i + 1], labels[i : i + 1].clamp(min=0)
        padding = None if batch.padding is None else batch.padding[i : i + 1]
        one = Batch(source=source, padding=padding, labels=target, label_lengths=lengths[i : i + 1])
        losses.append(model(one, update=0).loss_sum / (lengths[i] if mean else 1))
    total = torch.stack(losses)
    return total.mean() if mean else total.sum()


def _batch(io: Tensors, *, padded: bool = False) -> Batch:
    """The input; recordings have their padding only where they are padded, texts always."""
    (name,) = (name for name in _SOURCES if name in io)
    name = f"{name}_padded" if padded else name
    attended = io.get("attention_mask") if padded or name == "input_ids" else None
    return Batch(source=io[name], padding=None if attended is None else attended == 0)
