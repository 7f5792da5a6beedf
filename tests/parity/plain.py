"""data2vec 2.0 in plain formulas: a second formulation to compare the library with, in numbers and time.

Flat dictionaries of tensors under the names of the original, driven by its configuration. Every sample is repeated for
its masks, every layer's output is kept, nothing is shared with the library. Dropouts and the decoder's noise have the
configuration's rates, which are zero where numbers are compared; there is no layer drop.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from plain_pieces import (
    Tensors,
    attend,
    conv_stack,
    convolved,
    decay_at,
    deviation,
    dropped,
    elementwise,
    embed,
    frame_padding,
    linear,
    norm,
    normalized_layers,
    scaled_gradient,
)
from torch import Tensor


def train_step(model: dict[str, Any], tensors: Tensors, io: Tensors) -> tuple[Tensor, Tensors]:
    """The loss per masked position and its gradients by student name."""
    student, teacher = split(model, tensors)
    return _gradients(student, forward(model, student, teacher, io)["loss.total"])


def run(config: dict[str, Any], tensors: Tensors, io: Tensors) -> Tensors:
    """All that a reference folder holds: a training step, features, and the teacher after the step."""
    model, step = config["model"], config["training_step"]
    student, teacher = split(model, tensors)
    produced = forward(model, student, teacher, io)
    _, grads = _gradients(student, produced["loss.total"])
    produced |= {f"grad.{name}": grad for name, grad in grads.items()} | features(model, student, io)
    with torch.no_grad():
        after = {name: p - step["sgd_lr"] * grads[name] if name in grads else p for name, p in student.items()}
        averaged = average(model, teacher, after, step["num_updates"])
    produced |= {f"ema_after.{name}": p for name, p in averaged.items()}
    return {name: tensor.detach() for name, tensor in produced.items()}


def split(model: dict[str, Any], tensors: Tensors) -> tuple[Tensors, Tensors]:
    """Student tensors as leaves, trainable where the original's are, and the teacher's."""
    student = {name: p.detach().clone() for name, p in tensors.items() if not name.startswith("_ema.")}
    for name, p in student.items():
        p.requires_grad_(trainable(model, name))
    return student, {name.removeprefix("_ema."): p for name, p in tensors.items() if name.startswith("_ema.")}


def trainable(model: dict[str, Any], name: str) -> bool:
    """False for fixed positions and for an alibi scale that is not learned."""
    settings = modality(model)[1]
    fixed = name.endswith("fixed_positional_encoder.positions")
    return not fixed and (settings["learned_alibi_scale"] or not name.endswith("alibi_scale"))


def modality(model: dict[str, Any]) -> tuple[str, dict[str, Any], str]:
    """The name in upper case, its settings, and the prefix of its tensors."""
    name = model["supported_modality"]
    return name, model["modalities"][name.lower()], f"modality_encoders.{name}."


def _gradients(student: Tensors, loss: Tensor) -> tuple[Tensor, Tensors]:
    leaves = {name: p for name, p in student.items() if p.requires_grad}
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return loss.detach(), {name: grad for name, grad in zip(leaves, grads, strict=True) if grad is not None}


def local_features(model: dict[str, Any], t: Tensors, source: Tensor) -> Tensor:
    """Patches, frames or tokens, `b t d`."""
    name, settings, at = modality(model)

    def encoder() -> Tensor:
        if name == "AUDIO":
            spec = eval(settings["feature_encoder_spec"])
            return conv_stack(t, f"{at}local_encoder.conv_layers.", source, spec, settings["extractor_mode"])
        if name == "TEXT":
            learned = None if settings["no_token_positional_embeddings"] else settings["learned_pos"]
            x = embed(t, f"{at}local_encoder.", source, not settings["no_scale_embedding"], learned)
            return norm(t, f"{at}local_encoder.layernorm_embedding", x) if settings["layernorm_embedding"] else x
        wide = settings["embed_dim"] != model["embed_dim"]
        conv = f"{at}local_encoder.0.proj" if wide else f"{at}local_encoder.proj"
        x = F.conv2d(source, t[f"{conv}.weight"], t[f"{conv}.bias"], stride=settings["patch_size"])
        x = x.flatten(2).transpose(1, 2)
        return linear(t, f"{at}local_encoder.1", x) if wide else x

    x = scaled_gradient(encoder, settings["local_grad_mult"])
    if name == "AUDIO":
        return linear(t, f"{at}project_features.2", norm(t, f"{at}project_features.1", x.transpose(1, 2)))
    return x


def padding_of(model: dict[str, Any], io: Tensors, positions: int) -> Tensor | None:
    """Padding of positions."""
    name, settings, _ = modality(model)
    if "padding_mask" not in io:
        return None
    if name == "AUDIO":
        return frame_padding(io["padding_mask"], eval(settings["feature_encoder_spec"]), positions)
    return io["padding_mask"].bool()


def alibi(model: dict[str, Any], positions: int) -> Tensor:
    """Minus slope times distance, `h t t`, before any scale."""
    name, settings, _ = modality(model)
    place = torch.arange(positions, dtype=torch.float64)
    if name == "IMAGE" and settings["alibi_dims"] == 2:
        side = math.isqrt(positions)
        rows, columns = place // side, place % side
        dy, dx = (rows[:, None] - rows).abs(), (columns[:, None] - columns).abs()
        distance = dy + dx if settings["alibi_distance"] == "manhattan" else (dy**2 + dx**2).sqrt()
    else:
        distance = (place[:, None] - place).abs()
    return -torch.tensor(slopes(model["num_heads"]))[:, None, None] * distance


def slopes(heads: int) -> list[float]:
    """Slopes of the heads."""
    power = 2 ** math.floor(math.log2(heads))
    if power == heads:
        return [2 ** (-8 * (h + 1) / heads) for h in range(heads)]
    return slopes(power) + slopes(2 * power)[::2][: heads - power]


def block(
    model: dict[str, Any],
    t: Tensors,
    name: str,
    x: Tensor,
    bias: Tensor | None,
    padding: Tensor | None,
    training: bool = False,
):
    """Output of a block and its layer result."""
    eps = model["norm_eps"]
    names = ("attention_dropout", "encoder_dropout", "activation_dropout", "post_mlp_drop")
    on_weights, on_output, on_hidden, on_branch = (model[name] if training else 0.0 for name in names)

    def attention(y: Tensor) -> Tensor:
        q, k, v = linear(t, f"{name}.attn.qkv", y).chunk(3, -1)
        y = linear(t, f"{name}.attn.proj", attend(q, k, v, model["num_heads"], bias, padding, on_weights))
        return dropped(y, on_output)

    def ffn(y: Tensor) -> Tensor:
        hidden = dropped(F.gelu(linear(t, f"{name}.mlp.fc1", y)), on_hidden)
        return dropped(linear(t, f"{name}.mlp.fc2", hidden), on_hidden)

    if model["layer_norm_first"]:
        a = x + attention(norm(t, f"{name}.norm1", x, eps))
        f = ffn(norm(t, f"{name}.norm2", a, eps))
        out = f + dropped(f, on_branch)  # the original loses the stream here
    else:
        a = norm(t, f"{name}.norm1", x + attention(x), eps)
        f = ffn(a)
        out = norm(t, f"{name}.norm2", a + dropped(f, on_branch), eps)
    return out, out if model["end_of_block_targets"] else f


def encode(model, t, blocks, local, padding, io=None, clones=1, training=False) -> dict[str, Any]:
    """From local features to the outputs of all main blocks; `io` with a mask removes what is masked.

    `blocks` maps names of main blocks to tensors: an encoder-only teacher has its own there and the student's in `t`.
    """
    name, settings, at = modality(model)
    x = local
    if name == "IMAGE" and settings["fixed_positions"]:
        x = x + t[f"{at}fixed_positional_encoder.positions"]
    x = x.repeat_interleave(clones, 0)
    if padding is not None:
        padding = padding.repeat_interleave(clones, 0)
    mask = None if io is None else io["mask"].bool()
    if name == "AUDIO":
        z = x
        if mask is not None:
            z = z.masked_fill(mask[..., None], 0.0)
            if "channel_mask" in io:
                z = z.masked_fill(io["channel_mask"].bool().repeat_interleave(clones, 0)[:, None], 0.0)
        z = z.transpose(1, 2)
        for i in range(settings["conv_pos_depth"]):
            z = convolved(t, f"{at}relative_positional_encoder.{i + 1}.0", z, settings["conv_pos_groups"])
        x = x + z.transpose(1, 2)
    rows, positions = x.shape[:2]
    bias = None
    if settings["use_alibi_encoder"]:
        bias = alibi(model, positions).to(x).expand(rows, -1, -1, -1)
    if mask is not None:
        keep = ids_keep(mask)
        x = x.gather(1, keep[..., None].expand(-1, -1, x.shape[2]))
        if padding is not None:
            padding = padding.gather(1, keep)
        if bias is not None:
            heads, visible = bias.shape[1], keep.shape[1]
            bias = bias.gather(2, keep[:, None, :, None].expand(-1, heads, -1, positions))
            bias = bias.gather(3, keep[:, None, None].expand(-1, heads, visible, -1))
    extra = settings["num_extra_tokens"]
    if extra:
        x = torch.cat([t[f"{at}extra_tokens"].expand(rows, -1, -1), x], 1)
        padding = None if padding is None else F.pad(padding, (extra, 0), value=False)
        bias = None if bias is None else F.pad(bias, (extra, 0, extra, 0))
    prenet, depth = settings["prenet_depth"], model["depth"]
    biases: list[Tensor | None] = [None] * (prenet + depth)
    if bias is not None:
        scale = t[f"{at}alibi_scale"].clamp_min(0).expand(prenet + depth, -1, -1, -1, -1)
        biases = [bias * scale[layer] for layer in range(prenet + depth)]
    if not model["layer_norm_first"] and (name != "TEXT" or prenet > 0):
        x = norm(t, f"{at}context_encoder.norm", x, model["norm_eps"])
        x = dropped(x, settings["prenet_dropout"] if training else 0.0)
    for i in range(prenet):
        x, _ = block(model, t, f"{at}context_encoder.blocks.{i}", x, biases[i], padding, training)
    x = dropped(x, model["dropout_input"] if training else 0.0)
    inputs, results = [], []
    for i in range(depth):
        inputs.append(x)
        x, result = block(model, blocks, f"blocks.{i}", x, biases[prenet + i], padding, training)
        results.append(result)
    out = norm(t, "norm", x, model["norm_eps"]) if model["layer_norm_first"] else x
    return {"in": inputs[0], "last": x, "out": out, "results": results, "padding": padding}


def ids_keep(mask: Tensor) -> Tensor:
    """Visible positions in ascending order, as many per row as in row 0."""
    visible = int((~mask[0]).sum())
    return torch.argsort(mask.int(), dim=1, stable=True)[:, :visible]


def decode(model: dict[str, Any], t: Tensors, x: Tensor) -> Tensor:
    """Predictions at all positions from rows put back in place."""
    name, settings, at = modality(model)
    decoder, at = settings["decoder"], f"{at}decoder."
    y = x.transpose(1, 2)
    if name == "IMAGE":
        y = y.unflatten(2, (math.isqrt(x.shape[1]), -1))
    for i in range(decoder["decoder_layers"]):
        z = convolved(t, f"{at}blocks.{i}.0", y, decoder["decoder_groups"])
        y = z + y if decoder["decoder_residual"] and z.shape[1] == y.shape[1] else z
    y = y.flatten(2).transpose(1, 2)
    layers = 1 if name == "IMAGE" else decoder["projection_layers"]
    if layers == 1:
        return linear(t, f"{at}proj", y)
    for i in range(layers - 1):
        y = F.gelu(linear(t, f"{at}proj.{2 * i}", y))
    return linear(t, f"{at}proj.{2 * (layers - 1)}", y)


def teacher_layers(model: dict[str, Any], student: Tensors, teacher: Tensors, local: Tensor, io: Tensors):
    """The teacher's run on the complete input."""
    settings = modality(model)[1]
    with torch.no_grad():
        padding = padding_of(model, io, local.shape[1])
        if model["ema_encoder_only"]:
            blocks = {f"blocks.{name}": p for name, p in teacher.items()}
            return encode(model, student, blocks, local, padding)
        if settings["ema_local_encoder"]:
            local = local_features(model, teacher, io["source"])
        return encode(model, teacher, teacher, local, padding)


def pixels(source: Tensor, size: int) -> Tensor:
    """Normalised pixels of patches, `b t (row column channel)`."""
    b, c, height, width = source.shape
    x = source.reshape(b, c, height // size, size, width // size, size).permute(0, 2, 4, 3, 5, 1)
    x = x.reshape(b, -1, size * size * c)
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=1, keepdim=True) + 1e-6).sqrt()


def forward(model: dict[str, Any], student: Tensors, teacher: Tensors, io: Tensors) -> Tensors:
    """One training step up to the loss."""
    name, settings, _ = modality(model)
    mask, clones, extra = io["mask"].bool(), model["clone_batch"], settings["num_extra_tokens"]
    local = local_features(model, student, io["source"])
    local = dropped(local, settings.get("dropout", 0.0))
    padding = padding_of(model, io, local.shape[1])
    ran = encode(model, student, student, local, padding, io, clones, training=True)
    keep = ids_keep(mask)
    ran["out"] = dropped(ran["out"], settings["decoder"]["input_dropout"])
    decoder_in = ran["out"].new_zeros(mask.shape + local.shape[2:])
    if settings["mask_noise_std"]:
        decoder_in = decoder_in.normal_(0, settings["mask_noise_std"])
    decoder_in = decoder_in.scatter(1, keep[..., None].expand(-1, -1, local.shape[2]), ran["out"][:, extra:])
    decoder_out = decode(model, student, decoder_in)
    taught = teacher_layers(model, student, teacher, local.detach(), io)
    results = [one[:, extra:] for one in taught["results"]]
    targets = normalized_layers(model, results[-model["average_top_k_layers"] :])
    repeated = targets.repeat_interleave(clones, 0)
    predicted, wanted = decoder_out[mask], repeated[mask]
    size, beta = int(mask.sum()), model["loss_beta"]
    scale = model["loss_scale"] if model["loss_scale"] is not None else model["embed_dim"] ** -0.5
    losses = {f"{name}_regression": model["d2v_loss"] * scale * elementwise(predicted, wanted, beta).sum()}
    if model["cls_loss"] > 0:
        mean = repeated.mean(1)
        gaps = elementwise(ran["out"][:, extra - 1], mean, beta)
        losses["cls"] = model["cls_loss"] * size * scale * gaps.sum()
    if model["recon_loss"] > 0:
        patches = pixels(io["source"], settings["patch_size"]).repeat_interleave(clones, 0)[mask]
        gaps = elementwise(linear(student, "recon_proj", predicted), patches, beta)
        losses["recon"] = model["recon_loss"] * scale * gaps.sum()
    produced = {
        "ids_keep": keep,
        "ids_restore": torch.argsort(torch.argsort(mask.int(), dim=1, stable=True), dim=1),
        "student.local_features": local,
        "student.encoder_in": ran["in"],
        "student.last_block_out": ran["last"],
        "student.encoder_out": ran["out"],
        "student.decoder_in": decoder_in,
        "student.decoder_out": decoder_out,
        "teacher.encoder_in": taught["in"],
        "targets": targets,
        "loss.total": sum(losses.values()) / size,
        "sample_size": torch.tensor(size),
        "pred_var": deviation(predicted),
        "target_var": deviation(wanted),
        "masked_pct": torch.tensor(1 - keep.shape[1] / mask.shape[1]),
    }
    produced |= {f"loss.sum.{term}": value for term, value in losses.items()}
    return produced | {f"teacher.lr.{i}": result for i, result in enumerate(results)}


def features(model: dict[str, Any], student: Tensors, io: Tensors) -> Tensors:
    """Feature extraction: nothing masked."""
    extra = modality(model)[1]["num_extra_tokens"]
    with torch.no_grad():
        local = local_features(model, student, io["source"])
        ran = encode(model, student, student, local, padding_of(model, io, local.shape[1]))
    produced = {"features.x": ran["out"][:, extra:]}
    if ran["padding"] is not None:
        produced["features.padding_mask"] = ran["padding"][:, extra:]
    return produced | {f"features.layer.{i}": result for i, result in enumerate(ran["results"])}


def average(model: dict[str, Any], teacher: Tensors, student: Tensors, update: int) -> Tensors:
    """The teacher after the update of a count."""
    decay = decay_at(model["ema_decay"], model["ema_end_decay"], model["ema_anneal_end_step"], update)
    if decay >= 1:
        return teacher
    at = "blocks." if model["ema_encoder_only"] else ""
    return {
        name: decay * p + (1 - decay) * student[at + name] if trainable(model, at + name) else student[at + name]
        for name, p in teacher.items()
    }
