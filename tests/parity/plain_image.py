"""The 1.0 image models in plain formulas: the original toolkit's, and two optimiser steps of the BEiT-based one."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from plain_pieces import (
    SWITCHES,
    Tensors,
    attend,
    elementwise,
    layers_named,
    linear,
    norm,
    normalized_layers,
    over_axes,
    plain_norm,
    regression,
)
from torch import Tensor


def relative_index(side: int) -> Tensor:
    """Rows of the table for each pair of class token and patches."""
    place = torch.arange(side * side)
    rows, columns = place // side, place % side
    wide = 2 * side - 1
    index = torch.empty(side * side + 1, side * side + 1, dtype=torch.long)
    index[1:, 1:] = (rows[:, None] - rows + side - 1) * wide + columns[:, None] - columns + side - 1
    index[0, :], index[:, 0], index[0, 0] = wide**2, wide**2 + 1, wide**2 + 2
    return index


def image_blocks(t: Tensors, at: str, x: Tensor, depth: int, heads: int, eps: float, mlp: tuple[str, str]) -> dict:
    """All blocks on class token and patches; a table of relative positions counts where there is one."""
    index = relative_index(math.isqrt(x.shape[1] - 1))

    def bias(name: str) -> Tensor | float:
        table = t.get(f"{name}relative_position_bias_table")
        return 0.0 if table is None else table[index].permute(2, 0, 1)

    shared, outs, branches = bias(f"{at}rel_pos_bias."), [], []
    for i in range(depth):
        name = f"{at}blocks.{i}"
        y = norm(t, f"{name}.norm1", x, eps)
        q, k, v = linear(t, f"{name}.attn.qkv", y).chunk(3, -1)
        total = shared + bias(f"{name}.attn.")
        q, v = q + t[f"{name}.attn.q_bias"], v + t[f"{name}.attn.v_bias"]
        y = linear(t, f"{name}.attn.proj", attend(q, k, v, heads, total if torch.is_tensor(total) else None, None))
        x = x + t.get(f"{name}.gamma_1", 1.0) * y
        y = F.gelu(linear(t, f"{name}.mlp.{mlp[0]}", norm(t, f"{name}.norm2", x, eps)))
        f = t.get(f"{name}.gamma_2", 1.0) * linear(t, f"{name}.mlp.{mlp[1]}", y)
        x = x + f
        outs.append(x)
        branches.append(f)
    return {"out": norm(t, f"{at}norm", x, eps), "layers": outs, "ffns": branches}


def with_token(x: Tensor, token: Tensor, mask: Tensor | None = None, mask_token: Tensor | None = None) -> Tensor:
    """Patches, masked ones replaced, behind the class token."""
    if mask is not None:
        x = torch.where(mask[..., None], mask_token, x)
    return torch.cat([token.expand(len(x), -1, -1), x], 1)


def patches(t: Tensors, name: str, images: Tensor, size: int) -> Tensor:
    """Embedded patches `b t d`."""
    x = F.conv2d(images, t[f"{name}.weight"], t[f"{name}.bias"], stride=size)
    return x.flatten(2).transpose(1, 2)


def vision_step(config: dict[str, Any], student: Tensors, teacher: Tensors, io: Tensors) -> Tensors:
    """One training step and inference of the toolkit's image model."""
    cfg, mask = config["model_cfg"], io["mask"].bool().flatten(1)

    def blocks(t: Tensors, at: str, x: Tensor) -> dict[str, Any]:
        return image_blocks(t, at, x, cfg["depth"], cfg["num_heads"], 1e-5, ("0", "2"))

    local = patches(student, "patch_embed.conv", io["img"], cfg["patch_size"])
    ran = blocks(student, "encoder.", with_token(local, student["cls_emb"], mask, student["mask_emb"]))
    with torch.no_grad():
        clean = with_token(local, student["cls_emb"])
        inferred = blocks(student, "encoder.", clean)["out"][:, 1:]
        if cfg["ema_transformer_only"]:
            taught = blocks(teacher, "", clean)
        else:
            own = patches(teacher, "patch_embed.conv", io["img"], cfg["patch_size"])
            taught = blocks(teacher, "encoder.", with_token(own, teacher["cls_emb"]))
        results = taught["layers" if cfg["end_of_block_targets"] else "ffns"][-cfg["average_top_k_layers"] :]
        target = normalized_layers({name: cfg.get(name, False) for name in SWITCHES}, [one[:, 1:] for one in results])[
            mask
        ]
    scale = 1.0 if cfg["loss_scale"] is not None and cfg["loss_scale"] <= 0 else cfg["loss_scale"]
    produced = regression(cfg | {"loss_scale": scale}, ran["out"][:, 1:][mask], target)
    return produced | {"infer.x": inferred} | layers_named("block", ran, taught)


def run_beit(config: dict[str, Any], tensors: Tensors, io: Tensors) -> Tensors:
    """All that a folder of the BEiT-based repository holds: two optimiser steps."""
    student = {n.removeprefix("model."): p.detach().clone() for n, p in tensors.items() if n.startswith("model.")}
    teacher = {n.removeprefix("ema."): p for n, p in tensors.items() if n.startswith("ema.")}
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in student.items()}
    train, produced = config["train_cfg"], {}
    for step in range(2):
        leaves = {name: p.detach().requires_grad_() for name, p in student.items() if p.is_floating_point()}
        made = _beit_loss(config, student | leaves, teacher, io[f"samples{step}"], io[f"bool_masked_pos{step}"])
        grads = dict(zip(leaves, torch.autograd.grad(made["loss"], list(leaves.values())), strict=True))
        total = torch.stack([grad.norm() for grad in grads.values()]).norm()
        if step == 0:
            produced = made | {f"grad.{name}": grad for name, grad in grads.items()} | {"grad_norm": total[None]}
        else:
            produced["loss_step2"] = made["loss"]
        clip = train["clip_grad"]
        factor = min(1.0, clip / (float(total) + 1e-6)) if clip else 1.0
        for name, grad in grads.items():
            decay = 0.0 if name in config["params_without_weight_decay"] else config["wd_values"][step]
            rate = config["lr_values"][step]
            adamw(student, moments, name, grad * factor, rate, decay, step + 1, **config["adamw"])
        start, first, last = train["ema_start_at"], train["ema_decay_init"], train["ema_decay"]
        keep = last if step >= start else first + step * (last - first) / start
        if keep != 1:
            teacher = {
                name: keep * p + (1 - keep) * student[name] if p.is_floating_point() else p
                for name, p in teacher.items()
            }
    produced |= {f"after2.model.{name}": p for name, p in student.items()}
    produced |= {f"after2.ema.{name}": p for name, p in teacher.items()}
    return {name: tensor.detach() for name, tensor in produced.items()}


def adamw(student, moments, name, grad, lr, weight_decay, step, *, betas, eps) -> None:
    """One published step of a tensor."""
    (first, second), (m, v) = betas, moments[name]
    moments[name] = m, v = first * m + (1 - first) * grad, second * v + (1 - second) * grad**2
    scaled = m / (1 - first**step) / ((v / (1 - second**step)).sqrt() + eps)
    student[name] = student[name] * (1 - lr * weight_decay) - lr * scaled


def _beit_loss(config: dict[str, Any], student: Tensors, teacher: Tensors, images: Tensor, masked: Tensor) -> Tensors:
    cfg, train, mask = config["model_cfg"], config["train_cfg"], masked.bool().flatten(1)

    def ran(t: Tensors, mask: Tensor | None) -> dict[str, Any]:
        x = patches(t, "patch_embed.proj", images, cfg["patch_size"])
        x = with_token(x, t["cls_token"], mask, t["mask_token"]) + t.get("pos_embed", 0.0)
        return image_blocks(t, "", x, cfg["depth"], cfg["num_heads"], config["layer_norm_eps"], ("fc1", "fc2"))

    own = ran(student, mask)
    with torch.no_grad():
        taught = ran(teacher, None)
        kept = taught["layers" if train["layer_results"] == "end" else "ffns"]
        switches = {
            "batch_norm_target_layer": train["target_batch_norm"],
            "instance_norm_target_layer": train["target_instance_norm"],
            "layer_norm_target_layer": train["target_layer_norm_last"],
        }
        target = normalized_layers(switches, [kept[i][:, 1:] for i in train["target_layers"]])
        # here the mean gets its instance norm first, unlike in the toolkit
        target = over_axes(target, 1) if train["post_target_instance_norm"] else target
        target = plain_norm(target) if train["post_target_layer_norm"] else target
    predicted = linear(student, "lm_head", own["out"][:, 1:][mask])
    loss = elementwise(predicted, target[mask], 0.0 if train["l2_loss"] else train["l1_beta"]).mean()
    if train["var_w0"] > 0:
        std = (predicted.var(0, correction=1) + 1e-6).sqrt()
        loss = loss + train["var_w0"] * (train["var_margin0"] - std).relu().mean()
    loss = loss if train["loss_scale"] == -1 else loss * train["loss_scale"]
    named = {"pred": predicted, "target": target[mask], "loss": loss[None]}
    return named | layers_named("block", own, taught)
