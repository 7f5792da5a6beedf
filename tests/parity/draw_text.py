"""Random fine-tuning cases of text, made of the encoders of random pretraining cases; see `draw_multimodal`."""

from typing import Any

import draw_multimodal
import torch
from draw import Draw, Tensors, base, linear, prefixed

Case = tuple[dict[str, Any], Tensors, Tensors]
HEAD = "classification_heads."


def draw(seed: int) -> Case:
    """Configuration, tensors and inputs."""
    d, config = Draw(seed), base("finetune/text_cls_v2")
    pretraining, tensors, given = draw_multimodal.draw(3 * seed + 2)
    model = pretraining["model"]
    other = ("_ema.", "modality_encoders.TEXT.decoder.", "recon_proj.")
    body = {name: t for name, t in tensors.items() if not name.startswith(other)}
    regression = d.chance(0.4)
    classes, width = 1 if regression else d.one_of(2, 3, 7), model["embed_dim"]
    name = d.one_of("sentence_classification_head", "sts")
    head = linear(f"{HEAD}{name}.dense", width, width) | linear(f"{HEAD}{name}.out_proj", classes, width)
    io = {name: given[name] for name in ("source", "padding_mask") if name in given}
    rows = len(io["source"])
    numbers = torch.randn(rows, 1, generator=d.numbers)
    target = numbers if regression else torch.randint(classes, (rows, 1), generator=d.numbers)
    facts = {"num_classes": classes, "regression": regression, "sample_size": rows, "params_without_grad": []}
    case = {"kind": config["kind"], "model_cfg": model} | facts
    return case, prefixed("model.", body) | d.fill(head), io | {"target": target}
