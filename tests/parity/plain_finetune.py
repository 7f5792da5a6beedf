"""Fine-tuning of speech in plain formulas: CTC and audio classification; see `plain` for the idea."""

import math
from typing import Any

import plain
import plain_former
import torch
import torch.nn.functional as F
from plain_pieces import Tensors, frame_padding, linear
from torch import Tensor

BODIES = ("w2v_encoder.w2v_model.", "d2v_model.")


def run(config: dict[str, Any], tensors: Tensors, io: Tensors) -> Tensors:
    """All that a fine-tuning folder holds."""
    (body,) = {one for one in BODIES for name in tensors if name.startswith(one)}
    cfg = config["ctc_cfg"] if "ctc_cfg" in config else config["classification_cfg"]
    leaves = {name: p.detach().clone().requires_grad_() for name, p in tensors.items()}
    if not cfg.get("update_alibi", True):
        leaves = {name: p.detach() if name.endswith("alibi_scale") else p for name, p in leaves.items()}
    t = {name.removeprefix(body).removeprefix("w2v_encoder."): p for name, p in leaves.items()}
    loss, produced = (ctc if "ctc_cfg" in config else tagging)(config["model_cfg"], cfg, t, io)
    learned = {name: p for name, p in leaves.items() if p.requires_grad}
    grads = torch.autograd.grad(loss, list(learned.values()), allow_unused=True)
    produced |= {f"grad.{name}": grad for name, grad in zip(learned, grads, strict=True) if grad is not None}
    return {name: tensor.detach() for name, tensor in produced.items()}


def frames(model: dict[str, Any], cfg: dict[str, Any], t: Tensors, source: Tensor, io: Tensors, masked: bool):
    """Outputs of the encoder `b t d` and the padding of frames or None."""
    hidden = io["mask"].bool()[..., None] if masked and "mask" in io else None
    channels = io["channel_mask"].bool()[:, None] if hidden is not None and "channel_mask" in io else None
    if "modalities" in model:
        settings = model["modalities"]["audio"] | {"local_grad_mult": cfg["feature_grad_mult"]}
        model = model | {"modalities": {"audio": settings}}
        x = plain.local_features(model, t, source)
        padding = plain.padding_of(model, io, x.shape[1])
        x = x if hidden is None else x.masked_fill(hidden, 0.0)
        x = x if channels is None else x.masked_fill(channels, 0.0)
        ran = plain.encode(model, t, t, x, padding)
        return ran["out"][:, settings["num_extra_tokens"] :], padding
    _, x = plain_former.audio_front(model | {"feature_grad_mult": cfg["feature_grad_mult"]}, t, source)
    spec = eval(model["conv_feature_layers"])
    padding = frame_padding(io["padding_mask"], spec, x.shape[1]) if "padding_mask" in io else None
    if channels is not None and cfg["mask_channel_before"]:
        x = x.masked_fill(channels, 0.0)
    x = x if hidden is None else torch.where(hidden, t["mask_emb"], x)
    if channels is not None and not cfg["mask_channel_before"]:
        x = x.masked_fill(channels, 0.0)
    return plain_former.audio_encoder(model, t, "encoder.", x, padding)["out"], padding


def ctc(model: dict[str, Any], cfg: dict[str, Any], t: Tensors, io: Tensors) -> tuple[Tensor, Tensors]:
    """The summed loss, and what a folder holds."""
    x, padding = frames(model, cfg, t, io["source"], io, masked=True)
    x = linear(t, "proj", x)
    logits = x.clone()
    if cfg["blank_weight"]:
        logits[..., 0] = logits[..., 0] * (cfg["blank_mode"] == "add") + cfg["blank_weight"]
    padding = torch.zeros(x.shape[:2], dtype=torch.bool) if padding is None else padding
    only_blank = torch.full_like(logits, -math.inf)
    only_blank[..., 0] = 0
    log_probs = torch.where(padding[..., None], only_blank, logits).log_softmax(-1)
    lengths = (~padding).sum(1)
    losses = [
        alignment_loss(row[:length], [symbol for symbol in target if symbol not in (1, 2)])
        for row, length, target in zip(log_probs, lengths.tolist(), io["target"].tolist(), strict=True)
    ]
    return sum(losses), {
        "encoder_out": x.transpose(0, 1),
        "log_probs": log_probs.transpose(0, 1),
        "frame_padding_mask": padding.to(torch.uint8),
        "input_lengths": lengths,
        "ctc_loss": sum(losses)[None],
    }


def alignment_loss(log_probs: Tensor, target: list[int]) -> Tensor:
    """Minus the log-probability of all alignments of a target with frames `t v`; 0 if there is none."""
    states = [0, *(symbol for one in target for symbol in (one, 0))]
    none = log_probs.new_full((), -math.inf)
    scores = [log_probs[0, symbol] if i < 2 else none for i, symbol in enumerate(states)]
    for row in log_probs[1:]:
        before, scores = scores, []
        for i, symbol in enumerate(states):
            ways = [before[i], *before[max(i - 1, 0) : i]]
            if i > 1 and symbol not in (0, states[i - 2]):
                ways.append(before[i - 2])
            ways = [way for way in ways if way > -math.inf]
            scores.append(row[symbol] + torch.stack(ways).logsumexp(0) if ways else none)
    ends = [one for one in scores[-2:] if one > -math.inf]
    return -torch.stack(ends).logsumexp(0) if ends else 0 * log_probs[:, 0].sum()


def tagging(model: dict[str, Any], cfg: dict[str, Any], t: Tensors, io: Tensors) -> tuple[Tensor, Tensors]:
    """The summed loss, and what a folder holds."""

    def probabilities(source: Tensor, masked: bool, mode: str) -> Tensor:
        x, padding = frames(model, cfg, t, source, io, masked)
        x = x if padding is None else x.masked_fill(padding[..., None], 0.0)
        return pooled(mode, x, lambda y: linear(t, "proj", y), cfg["extreme_factor"])

    p = probabilities(io["source"], False, cfg["eval_prediction_mode"] or cfg["prediction_mode"])
    r, partner = io["train.r"].reshape(-1, 1), io["train.perm"]
    mixed = (r * io["source"] + (1 - r) * io["source"][partner]) / (r**2 + (1 - r) ** 2).sqrt()
    label = io["label"]
    mixed_label = r * label + (1 - r) * label[partner] if cfg["label_mixup"] else label
    loss = F.binary_cross_entropy(probabilities(mixed, True, cfg["prediction_mode"]), mixed_label, reduction="none")
    return loss.sum(), {
        "probabilities": p,
        "eval.loss": F.binary_cross_entropy(p, label, reduction="none"),
        "eval.sample_size": label.sum()[None],
        "train.mixed_source": mixed,
        "train.loss": loss,
        "train.sample_size": label.sum()[None],
    }


def pooled(mode: str, x: Tensor, proj: Any, factor: float) -> Tensor:
    """Probabilities of a recording from its frames."""
    if mode == "average_before":
        return proj(x.mean(1)).sigmoid()
    z = proj(x)
    if mode == "lin_softmax":
        return z.sigmoid().square().sum(1) / z.sigmoid().sum(1)
    if mode == "extremized_odds":
        return (z.sum(1) * factor).sigmoid()
    after = z.sigmoid() if mode.endswith("_sigmoid") else z
    one = after.mean(1) if mode.startswith("average") else after.amax(1)
    return one if mode.endswith("_sigmoid") else one.sigmoid()
