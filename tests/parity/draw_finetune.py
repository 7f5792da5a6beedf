"""Random fine-tuning cases of speech, made of the encoders of random pretraining cases; see `draw_multimodal`."""

from typing import Any

import draw_former
import draw_multimodal
import torch
from draw import Draw, Tensors, base, linear, prefixed

POOLINGS = ("lin_softmax", "average", "max", "average_sigmoid", "max_sigmoid", "average_before", "extremized_odds")
Case = tuple[dict[str, Any], Tensors, Tensors]


def ctc(seed: int) -> Case:
    """Configuration, tensors and inputs of speech recognition."""
    d, config = Draw(seed), base("finetune/ctc_v2")
    model, body, io = _encoder(seed, d)
    symbols = d.one_of(6, 32)
    tensors = prefixed("w2v_encoder.w2v_model.", body) | d.fill(linear("w2v_encoder.proj", symbols, _width(model)))
    cfg = _task(d, config["ctc_cfg"], io) | {
        "blank_weight": d.one_of(0.0, 0.0, 1.5, -2.0),
        "blank_mode": d.one_of("add", "set"),
        "update_alibi": d.chance(0.5),
        "zero_mask": True,  # the noise is random
    }
    longest = d.one_of(1, 3, 40)
    target = torch.randint(3, symbols, (2, longest), generator=d.numbers)
    target[0, d.settings.randint(0, longest) :] = 1
    target[1, d.settings.randint(0, longest) :] = 2
    counted = int((target > 2).sum())
    sizes = {"sample_size_sentence_avg": 2, "sample_size_tokens": counted}
    facts = {"kind": config["kind"], "ctc_cfg": cfg, "model_cfg": model}
    return facts | sizes, tensors, io | {"target": target}


def tagging(seed: int) -> Case:
    """Configuration, tensors and inputs of audio classification."""
    d, config = Draw(seed), base("finetune/audio_cls_v1")
    model, body, io = _encoder(seed, d)
    classes = d.one_of(3, 5)
    tensors = prefixed("d2v_model.", body) | d.fill(linear("proj", classes, _width(model)))
    cfg = _task(d, config["classification_cfg"], io) | {
        "prediction_mode": d.one_of(*POOLINGS),
        "eval_prediction_mode": d.one_of(None, *POOLINGS),
        "extreme_factor": d.one_of(1.0, 0.3),
        "label_mixup": d.chance(0.5),
    }
    label = torch.zeros(2, classes)
    label[0, : d.settings.randint(1, classes)] = 1
    label[1, d.settings.randint(0, classes - 1) :] = 1
    io |= {
        "label": label,
        "train.r": torch.rand(1, generator=d.numbers) * 0.5 + 0.5,
        "train.perm": torch.tensor([1, 0]),
    }
    return {"kind": config["kind"], "classification_cfg": cfg, "model_cfg": model}, tensors, io


def _encoder(seed: int, d: Draw) -> tuple[dict[str, Any], Tensors, Tensors]:
    """Configuration and tensors of a 2.0 or 1.0 encoder, and inputs; some are masked."""
    if seed % 2:
        config, tensors, given = draw_multimodal.draw(3 * seed + 1)
        model, clones = config["model"], config["model"]["clone_batch"]
        other: tuple[str, ...] = ("_ema.", "modality_encoders.AUDIO.decoder.", "recon_proj.")
    else:
        config, tensors, given = draw_former.audio(seed)
        model, clones, other = config["model_cfg"], 1, ("_ema.", "final_proj.")
    io = {name: given[name] for name in ("source", "padding_mask") if name in given}
    if d.chance(0.5):
        io["mask"] = given["mask"][::clones]
        io |= {"channel_mask": given["channel_mask"]} if "channel_mask" in given else {}
    return model, {name: t for name, t in tensors.items() if not name.startswith(other)}, io


def _task(d: Draw, cfg: dict[str, Any], io: Tensors) -> dict[str, Any]:
    return cfg | {
        "apply_mask": "mask" in io,
        "mask_channel_before": d.chance(0.5),
        "feature_grad_mult": d.one_of(0.0, 0.5, 1.0),
        "freeze_finetune_updates": 0,
    }


def _width(model: dict[str, Any]) -> int:
    width: int = model["embed_dim"] if "embed_dim" in model else model["encoder_embed_dim"]
    return width
