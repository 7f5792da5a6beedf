"""Checkpoint files: the model's outputs for the stored inputs, in evaluation mode."""

import warnings
from pathlib import Path

import case_finetune
import case_image
import case_text
import torch
from reading import Tensors, all_layers
from safetensors.torch import load_file

from d2v.audio import CTCModel
from d2v.core.files import open_model
from d2v.core.masks import Mask
from d2v.core.model import Batch, Data2Vec
from d2v.text import SentenceClassifier
from d2v.vision import ImageClassifier

SUFFIXES = (".pt", ".pth")
_SOURCES = ("source", "pixels", "tokens")
_TRANSCRIPTS = ("target", "target_lengths")
_INPUTS = (*_SOURCES, *_TRANSCRIPTS, "padding_mask", "bool_masked_pos", "padded.source", "padded.padding_mask")


def run(path: Path) -> tuple[Tensors, Tensors]:
    """Expected and produced tensors of a file that is stored with inputs and outputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # unknown fields of foreign configurations
        model = open_model(path, pretrained=_pretrained(path)).module.eval()
    io = load_file(path.with_name(f"{path.stem}.io.safetensors"))
    if isinstance(model, CTCModel):
        produced = case_finetune.checkpoint(model, io)
    elif isinstance(model, SentenceClassifier):
        produced = case_text.checkpoint(model, io)
    elif isinstance(model, ImageClassifier):
        produced = case_image.checkpoint(model, io)
    elif isinstance(model, Data2Vec):
        with torch.no_grad():
            produced = _features(model, io) | _predictions(model, io)
    else:
        raise ValueError(f"a {type(model).__name__} is not compared yet")
    return {name: tensor for name, tensor in io.items() if name not in _INPUTS}, produced


def _pretrained(path: Path) -> Path | None:
    """The pretrained file of text beside a classifier, which may lack the configuration of its encoder.

    None = the one that the classifier names.
    """
    found = sorted(path.parent.glob("text*pretrain*.pt"))
    return found[0] if len(found) == 1 else None


def _features(model: Data2Vec, io: Tensors) -> Tensors:
    """Features of each input under the names that the file gives them.

    The files of 2.0 hold the layers of targets with their extra tokens, those of 1.0 whole blocks without.
    """
    produced: Tensors = {}
    new = "features.x" in io
    for place in ("", "padded."):
        if any(f"{place}{name}" in io for name in _SOURCES):
            sink = all_layers(len(model.student.encoder.blocks), model.targets.kind if new else "block")
            encoded = model.student.encode(_batch(io, place), sink=sink)
            extra = encoded.num_prefix_tokens
            produced["features.x" if new else f"{place}x"] = encoded.x[:, extra:]
            for i, result in sink.results.items():
                produced[f"features.layer.{i}" if new else f"{place}layer{i}"] = result if new else result[:, extra:]
    return produced


def _predictions(model: Data2Vec, io: Tensors) -> Tensors:
    """The head's predictions: at all positions of the whole image, and at the hidden ones of a masked image."""
    if "bool_masked_pos" not in io:
        return {}
    (predictor,) = model.predictors.values()
    mask = Mask(hidden=io["bool_masked_pos"].bool().flatten(1))
    everywhere = Mask(hidden=torch.ones_like(mask.hidden))
    batch = _batch(io, "")
    return {
        "all_tokens": predictor(model.student.encode(batch), everywhere).unflatten(0, mask.hidden.shape),
        "masked": predictor(model.student.encode(batch, mask), mask),
    }


def _batch(io: Tensors, place: str) -> Batch:
    (source,) = (io[f"{place}{name}"] for name in _SOURCES if f"{place}{name}" in io)
    padding = io.get(f"{place}padding_mask")
    return Batch(source=source, padding=None if padding is None else padding.bool())
