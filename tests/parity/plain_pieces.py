"""What the plain formulations of both generations are made of."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Tensors = dict[str, Tensor]

SWITCHES = ("batch_norm_target_layer", "instance_norm_target_layer", "group_norm_target_layer")
SWITCHES += ("layer_norm_target_layer", "layer_norm_targets", "instance_norm_targets")


def linear(t: Tensors, name: str, x: Tensor) -> Tensor:
    """A linear layer by name."""
    return F.linear(x, t[f"{name}.weight"], t.get(f"{name}.bias"))


def norm(t: Tensors, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    """A layer norm by name, with weights if there are any under that name."""
    return F.layer_norm(x, x.shape[-1:], t.get(f"{name}.weight"), t.get(f"{name}.bias"), eps)


def plain_norm(x: Tensor) -> Tensor:
    """A layer norm without weights."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-5)


def over_axes(x: Tensor, *axes: int) -> Tensor:
    """Zero mean and unit biased variance over axes."""
    return (x - x.mean(axes, keepdim=True)) / (x.var(axes, correction=0, keepdim=True) + 1e-5).sqrt()


def dropped(x: Tensor, rate: float) -> Tensor:
    """Dropout with a rate; 0 = none."""
    return F.dropout(x, rate) if rate else x


def attend(
    q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None, padding: Tensor | None, dropout: float = 0.0
) -> Tensor:
    """Attention over `b t d` with scores written out."""
    q, k, v = (one.unflatten(-1, (heads, -1)).transpose(1, 2) for one in (q, k, v))
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)
    if bias is not None:
        scores = scores + bias
    if padding is not None:
        scores = scores.masked_fill(padding[:, None, None], -math.inf)
    return (dropped(scores.softmax(-1), dropout) @ v).transpose(1, 2).flatten(2)


def convolved(t: Tensors, name: str, x: Tensor, groups: int) -> Tensor:
    """One layer of positions or decoder on channels-first x: convolution of the same size, norm of channels, GELU."""
    weight, axes = t[f"{name}.weight"], x.dim() - 2
    kernel = weight.shape[-1]
    y = (F.conv1d, F.conv2d)[axes - 1](x, weight, t[f"{name}.bias"], padding=kernel // 2, groups=groups)
    if kernel % 2 == 0:
        y = y[..., :-1] if axes == 1 else y[..., :-1, :-1]
    return F.gelu(plain_norm(y.movedim(1, -1)).movedim(-1, 1))


def frame_padding(padding: Tensor, spec: list[tuple[int, int, int]], frames: int) -> Tensor:
    """Padding of frames from padding of samples."""
    length = (~padding.bool()).sum(1)
    for _, kernel, stride in spec:
        length = (length - kernel) // stride + 1
    return torch.arange(frames, device=padding.device)[None] >= length[:, None]


def sinusoids(positions: Tensor, width: int, pad: int) -> Tensor:
    """Sines then cosines of the positions; zero at padding."""
    rates = torch.exp(torch.arange(width // 2, device=positions.device) * -(math.log(10000) / (width // 2 - 1)))
    angles = positions[..., None] * rates
    return torch.cat([angles.sin(), angles.cos()], -1).masked_fill((positions == pad)[..., None], 0.0)


def embed(t: Tensors, name: str, tokens: Tensor, scale: bool, learned: bool | None, pad: int = 1) -> Tensor:
    """Token embeddings and positions, which pad tokens do not advance; `learned` None: no positions."""
    table = t[f"{name}embed_tokens.weight"]
    x = F.embedding(tokens, table, padding_idx=pad) * (table.shape[1] ** 0.5 if scale else 1.0)
    real = tokens != pad
    positions = real.long().cumsum(1) * real + pad
    if learned is None:
        return x
    if learned:
        return x + F.embedding(positions, t[f"{name}embed_positions.weight"], padding_idx=pad)
    return x + sinusoids(positions, table.shape[1], pad).to(x)


def conv_stack(t: Tensors, name: str, source: Tensor, spec: list[tuple[int, int, int]], mode: str) -> Tensor:
    """The waveform's convolutions, `b c t`."""
    x = source[:, None]
    for i, (_, _, stride) in enumerate(spec):
        x = F.conv1d(x, t[f"{name}{i}.0.weight"], t.get(f"{name}{i}.0.bias"), stride=stride)
        if mode == "layer_norm":
            x = norm(t, f"{name}{i}.2.1", x.transpose(1, 2)).transpose(1, 2)
        elif i == 0:
            x = F.group_norm(x, x.shape[1], t[f"{name}0.2.weight"], t[f"{name}0.2.bias"], eps=1e-5)
        x = F.gelu(x)
    return x


def scaled_gradient(x: Callable[[], Tensor], factor: float) -> Tensor:
    """The value, with its gradient multiplied; with 0 no gradient at all."""
    if factor == 0:
        with torch.no_grad():
            return x()
    value = x()
    if factor == 1:
        return value
    return value * factor + (value * (1 - factor)).detach()


def normalized_layers(settings: dict[str, Any], layers: list[Tensor]) -> Tensor:
    """Targets from layer results `b t d`."""
    normed = []
    for y in layers:
        if settings.get("batch_norm_target_layer"):
            y = over_axes(y, 0, 1)
        if settings.get("instance_norm_target_layer"):
            y = over_axes(y, 1)
        if settings.get("group_norm_target_layer"):
            y = over_axes(y, 1, 2)
        if settings.get("layer_norm_target_layer"):
            y = plain_norm(y)
        normed.append(y)
    mean = torch.stack(normed).mean(0)
    if settings.get("layer_norm_targets"):
        mean = plain_norm(mean)
    return over_axes(mean, 1) if settings.get("instance_norm_targets") else mean


def elementwise(prediction: Tensor, target: Tensor, beta: float) -> Tensor:
    """Squared error, or smooth L1 with beta."""
    gap = (prediction - target).abs()
    return gap**2 if beta == 0 else torch.where(gap < beta, 0.5 * gap**2 / beta, gap - 0.5 * beta)


def deviation(z: Tensor) -> Tensor:
    """The logged standard deviation of vectors `n d`."""
    return (z.var(0, correction=1) + 1e-6).sqrt().mean()


def decay_at(start: float, end: float, anneal: int, update: int) -> float:
    """The fraction that the teacher keeps at a count of finished updates."""
    if start == end:
        return start
    return end if update >= anneal else end - (end - start) * (1 - update / anneal)


def regression(cfg: dict[str, Any], predicted: Tensor, target: Tensor) -> Tensors:
    """The summed loss and what is logged with it."""
    scale = cfg["loss_scale"] if cfg["loss_scale"] is not None else predicted.shape[1] ** -0.5
    return {
        "pred": predicted,
        "target": target,
        "loss": scale * elementwise(predicted, target, cfg["loss_beta"]).sum()[None],
        "sample_size": torch.tensor([len(predicted)]),
        "pred_var": deviation(predicted)[None],
        "target_var": deviation(target)[None],
    }


def layers_named(kind: str, ran: dict[str, Any], taught: dict[str, Any]) -> Tensors:
    """Outputs and feed-forward branches of student and teacher by the files' names."""
    named = {f"student.{kind}{i}": x for i, x in enumerate(ran["layers"])}
    named |= {f"student.ffn{i}": x for i, x in enumerate(ran["ffns"])}
    named |= {f"teacher.{kind}{i}": x for i, x in enumerate(taught["layers"])}
    return named | {f"teacher.ffn{i}": x for i, x in enumerate(taught["ffns"])}
