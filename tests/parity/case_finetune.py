"""Fine-tuning folders of the original toolkit's speech models: CTC, and audio classification."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from reading import Tensors, Watch, matching, named

from d2v.audio import AudioTagger, CTCModel
from d2v.core.foreign import Converted, convert
from d2v.core.masks import Mask
from d2v.core.modality import modalities
from d2v.core.model import Batch
from d2v.core.train import LayerDecay

_INPUTS = ("source", "padding_mask", "mask", "channel_mask", "target", "label", "train.r", "train.perm")
_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")


def is_finetuning(config: Mapping[str, Any]) -> bool:
    """Whether a folder is one of these."""
    return "ctc_cfg" in config or str(config.get("kind", "")).startswith("audio_classification")


def run(config: dict[str, Any], tensors: Tensors, io: Tensors) -> tuple[Tensors, Tensors]:
    """Expected and produced tensors of evaluation and of one training step."""
    one = _converted(config, tensors)
    produced = (_ctc if isinstance(one.model, CTCModel) else _tagging)(one.model, config, io)  # type: ignore[operator]
    grads = {name: p.grad for name, p in one.model.named_parameters() if p.grad is not None}
    full = {short: name for name in tensors for short in one.layout.divide({name: name})[0]}
    theirs = {full[name]: grad for name, grad in one.student_names(grads).items()}
    produced |= named("grad.", theirs)
    frozen = config.get("params_without_grad", [])
    produced["without_gradient"] = torch.tensor([name not in theirs for name in frozen])
    expected = {name: tensor for name, tensor in io.items() if name not in _INPUTS}
    expected["without_gradient"] = torch.ones(len(frozen), dtype=torch.bool)
    rates = {name: own["lr_scale"] for name, own in config.get("optim_overrides", {}).items() if "lr_scale" in own}
    if rates:
        scales = _scales(one, config["ctc_cfg"]["layer_decay"])
        expected |= {f"lr_scale.{name}": torch.tensor(rate) for name, rate in rates.items()}
        produced |= {f"lr_scale.{full[name]}": scale for name, scale in scales.items() if full[name] in rates}
    return expected | _sizes(config), produced


def _converted(config: dict[str, Any], tensors: Tensors) -> Converted:
    """The model that a user would get of a checkpoint with this configuration."""
    converters = [one for name in modalities.names() for one in modalities.load(name).converters]
    task = config["ctc_cfg"] if "ctc_cfg" in config else config["classification_cfg"]
    foreign: dict[str, Any] = {"model": {**task, "w2v_args": {"model": config["model_cfg"]}}}
    if "ctc_cfg" in config:
        count = tensors["w2v_encoder.proj.weight"].shape[0]
        symbols = (*_SPECIALS, *(f"symbol{number}" for number in range(len(_SPECIALS), count)))
        foreign["dictionaries"] = {"target_dictionary": symbols}
    return convert(converters, foreign, tensors)


def _batch(io: Tensors) -> Batch:
    mask = None
    if "mask" in io:
        channels = io["channel_mask"].bool() if "channel_mask" in io else None
        mask = Mask(hidden=io["mask"].bool(), channels=channels)
    padding = io["padding_mask"].bool() if "padding_mask" in io else None
    return Batch(source=io["source"], padding=padding, mask=mask)


def _ctc(model: CTCModel, config: dict[str, Any], io: Tensors) -> Tensors:
    target = io["target"]
    lengths = torch.full((len(target),), target.shape[1])  # padding and end are specials, which the model removes
    batch = dataclasses.replace(_batch(io), labels=target, label_lengths=lengths)
    watch = Watch()
    watch.on("proj", model.proj)
    model.train()
    with torch.no_grad():
        logits, frames = model.scores(batch, update=0)
    padding = torch.arange(logits.shape[1]) >= frames[:, None]
    sizes = {}
    for name, average in (("sentence_avg", "utterances"), ("tokens", "symbols")):
        model.average = average  # type: ignore[assignment]
        model.zero_grad()
        out = model(batch, update=0)
        out.loss_sum.backward()
        if f"sample_size_{name}" in config:
            sizes[f"sample_size.{name}"] = torch.tensor(float(out.sample_size))
    return {
        "encoder_out": watch.outputs["proj"].transpose(0, 1),
        "log_probs": logits.log_softmax(-1).transpose(0, 1),
        "frame_padding_mask": padding.to(torch.uint8),
        "input_lengths": frames,
        "ctc_loss": out.loss_sum.detach()[None],
        **sizes,
    }


@torch.no_grad()
def checkpoint(model: CTCModel, io: Tensors) -> Tensors:
    """What a checkpoint's inputs give, in evaluation mode."""
    batch, watch = _batch(io), Watch()
    watch.on("proj", model.proj)
    logits, frames = model.scores(batch)
    produced = {
        "encoder_out": watch.outputs["proj"].transpose(0, 1),
        "logits": logits.transpose(0, 1),
        "log_probs": logits.log_softmax(-1).transpose(0, 1),
        "frame_padding_mask": (torch.arange(logits.shape[1]) >= frames[:, None]).to(torch.uint8),
        "input_lengths": frames,
        "encoder_out_unpadded_first": model.logits(Batch(source=io["source"][:1])).transpose(0, 1),
    }
    if "target" in io:
        batch = dataclasses.replace(batch, labels=io["target"], label_lengths=io["target_lengths"])
        produced["ctc_loss"] = model(batch, update=0).loss_sum[None]
    return produced


def _tagging(model: AudioTagger, config: dict[str, Any], io: Tensors) -> Tensors:
    batch, produced = dataclasses.replace(_batch(io), labels=io["label"]), {}
    with torch.no_grad():
        logits = model.eval().logits(batch)
        produced["eval.sample_size"] = torch.tensor([float(model(batch, update=0).sample_size)])
    produced["probabilities"] = logits.sigmoid()
    produced["eval.loss"] = F.binary_cross_entropy_with_logits(logits, io["label"], reduction="none")
    if "train.r" in io:
        assert model.mixup is not None
        batch = model.mixup.mix(batch, r=io["train.r"].flatten(), partner=io["train.perm"])
        produced["train.mixed_source"] = batch.source
    model.mixup = None  # the batch is mixed already
    with torch.no_grad():
        logits = model.train().logits(batch, update=0)
    out = model(batch, update=0)
    out.loss_sum.backward()
    assert batch.labels is not None
    produced["train.loss"] = F.binary_cross_entropy_with_logits(logits, batch.labels, reduction="none")
    produced["train.sample_size"] = torch.tensor([float(out.sample_size)])
    return produced


def _scales(one: Converted, decay: float) -> Tensors:
    """Factors of the learning rate by the file's names; no rule joins tensors of several factors."""
    found = LayerDecay(decay, blocks=one.model.encoder.blocks()).scales(one.model)  # type: ignore[operator, union-attr]
    ours = {name: torch.tensor(found.get(id(p), 1.0)).expand(p.shape) for name, p in one.model.named_parameters()}
    return {name: scale.flatten()[0] for name, scale in one.student_names(ours).items()}


def _sizes(config: dict[str, Any]) -> Tensors:
    names = matching(config, "sample_size_")
    return {f"sample_size.{name.removeprefix('sample_size_')}": torch.tensor(float(names[name])) for name in names}
