"""Text classification and regression in plain formulas; see `plain` for the idea."""

from typing import Any

import plain
import torch
from plain_pieces import Tensors, linear


def run(config: dict[str, Any], tensors: Tensors, io: Tensors) -> Tensors:
    """All that a folder holds."""
    model = config["model_cfg"]
    scales = model["modalities"]["text"]["learned_alibi_scale"]
    leaves = {
        name: p.detach().clone().requires_grad_(scales or not name.endswith("alibi_scale"))
        for name, p in tensors.items()
    }
    t = {name.removeprefix("model."): p for name, p in leaves.items()}
    (dense,) = (name.removesuffix(".weight") for name in t if name.endswith(".dense.weight"))
    local = plain.local_features(model, t, io["source"])
    padding = plain.padding_of(model, io, local.shape[1])
    extra = model["modalities"]["text"]["num_extra_tokens"]
    x = plain.encode(model, t, t, local, padding)["out"][:, extra:]
    logits = linear(t, dense.replace("dense", "out_proj"), linear(t, dense, x[:, 0]).tanh())
    target = io["target"].flatten()
    if config["regression"]:
        loss = (logits[:, 0] - target).square().sum()
    else:
        loss = -(logits - logits.logsumexp(1, keepdim=True))[torch.arange(len(target)), target].sum()
    learned = {name: p for name, p in leaves.items() if p.requires_grad}
    grads = torch.autograd.grad(loss, list(learned.values()), allow_unused=True)
    produced = {"x": x, "logits": logits, "loss": loss[None]}
    produced |= {f"grad.{name}": grad for name, grad in zip(learned, grads, strict=True) if grad is not None}
    return {name: tensor.detach() for name, tensor in produced.items()}
