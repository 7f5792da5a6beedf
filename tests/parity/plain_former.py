"""data2vec 1.0 in plain formulas: speech, text and two kinds of image models; see `plain` for the idea.

The stored teacher is the one that made the targets. Layers come batch-first and without padding frames.
"""

from typing import Any

import torch
import torch.nn.functional as F
from plain_image import vision_step
from plain_pieces import (
    SWITCHES,
    Tensors,
    attend,
    conv_stack,
    convolved,
    decay_at,
    embed,
    frame_padding,
    layers_named,
    linear,
    norm,
    normalized_layers,
    regression,
    scaled_gradient,
)
from torch import Tensor


def run(config: dict[str, Any], tensors: Tensors, io: Tensors) -> Tensors:
    """All that a 1.0 folder of the original toolkit holds."""
    step = {"audio": audio_step, "text": text_step, "vision": vision_step}[config["model"].removeprefix("data2vec_")]
    at = "encoder._ema." if config["model"] == "data2vec_text" else "_ema."
    student = {name: p.detach().clone() for name, p in tensors.items() if not name.startswith(at)}
    teacher = {name.removeprefix(at): p for name, p in tensors.items() if name.startswith(at)}
    leaves = {name: p.requires_grad_() for name, p in student.items() if p.is_floating_point()}
    produced = step(config, student, teacher, io)
    grads = torch.autograd.grad(produced["loss"], list(leaves.values()), allow_unused=True)
    produced |= {f"grad.{name}": grad for name, grad in zip(leaves, grads, strict=True) if grad is not None}
    before = {name.removeprefix("ema_before."): p for name, p in io.items() if name.startswith("ema_before.")}
    produced |= {f"_ema.{name}": p for name, p in averaged(config, before, student).items()}
    return {name: tensor.detach() for name, tensor in produced.items()}


def averaged(config: dict[str, Any], before: Tensors, student: Tensors) -> Tensors:
    """The teacher after the update of `num_updates`."""
    cfg = config["model_cfg"]
    decay = decay_at(cfg["ema_decay"], cfg["ema_end_decay"], cfg["ema_anneal_end_step"], config["num_updates"])
    if decay >= 1:
        return before
    copied: tuple[str, ...] = ("never",)
    if config["model"] == "data2vec_audio":
        at = "encoder." if cfg["ema_transformer_only"] or cfg["ema_layers_only"] else ""
        copied = ("pos_conv.",) if cfg["ema_layers_only"] else copied
    elif config["model"] == "data2vec_text":
        at = "encoder.sentence_encoder."
        if cfg["ema_transformer_layers_only"]:
            copied = ("embed_positions.", "layernorm_embedding.")
            # the list of what is copied holds the names of the position table's parameters: sinusoids have none
            copied += ("embed_tokens.",) if cfg["transformer"]["encoder"]["learned_pos"] else ()
    else:
        at = "encoder." if cfg["ema_transformer_only"] else ""
    after = {}
    for name, p in before.items():
        s = student[at + name].detach()
        mixed = p.is_floating_point() and not name.startswith(copied)
        after[name] = decay * p + (1 - decay) * s if mixed else s
    return after


def activated(x: Tensor, name: str) -> Tensor:
    """GELU, its approximation or ReLU, by the original's names."""
    if name == "relu":
        return x.clamp(min=0)
    if name == "gelu":
        return x * (1 + torch.erf(x / 2**0.5)) / 2
    assert name in ("gelu_accurate", "gelu_fast")
    return x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2


def layer(
    t: Tensors, name: str, x: Tensor, heads: int, padding: Tensor | None, first: bool, activation: str
) -> tuple[Tensor, Tensor]:
    """Output of a speech or text layer and its feed-forward branch."""

    def attention(y: Tensor) -> Tensor:
        q, k, v = (linear(t, f"{name}.self_attn.{one}_proj", y) for one in "qkv")
        return linear(t, f"{name}.self_attn.out_proj", attend(q, k, v, heads, None, padding))

    def ffn(y: Tensor) -> Tensor:
        return linear(t, f"{name}.fc2", activated(linear(t, f"{name}.fc1", y), activation))

    if first:
        x = x + attention(norm(t, f"{name}.self_attn_layer_norm", x))
        f = ffn(norm(t, f"{name}.final_layer_norm", x))
        return x + f, f
    x = norm(t, f"{name}.self_attn_layer_norm", x + attention(x))
    f = ffn(x)
    return norm(t, f"{name}.final_layer_norm", x + f), f


def layers(
    t: Tensors, at: str, x: Tensor, count: int, heads: int, padding: Tensor | None, first: bool, activation: str
) -> dict:
    """Outputs and feed-forward branches of all layers; the output gets the last norm of a pre-norm stack."""
    outs, ffns = [], []
    for i in range(count):
        x, f = layer(t, f"{at}layers.{i}", x, heads, padding, first, activation)
        outs.append(x)
        ffns.append(f)
    return {"out": norm(t, f"{at}layer_norm", x) if first else x, "layers": outs, "ffns": ffns}


def audio_front(cfg: dict[str, Any], t: Tensors, source: Tensor) -> tuple[Tensor, Tensor]:
    """Output of the convolutions `b c t`, and projected frames `b t d`."""
    spec, mode = eval(cfg["conv_feature_layers"]), cfg["extractor_mode"]
    x = scaled_gradient(
        lambda: conv_stack(t, "feature_extractor.conv_layers.", source, spec, mode), cfg["feature_grad_mult"]
    )
    return x, linear(t, "post_extract_proj", norm(t, "layer_norm", x.transpose(1, 2)))


def audio_encoder(cfg: dict[str, Any], t: Tensors, at: str, x: Tensor, padding: Tensor | None) -> dict[str, Any]:
    """Convolutional positions and all layers."""
    if padding is not None:
        x = x.masked_fill(padding[..., None], 0.0)
    z = x.transpose(1, 2)
    for i in range(cfg["pos_conv_depth"]):
        z = convolved(t, f"{at}pos_conv.{i}.0", z, cfg["conv_pos_groups"])
    x = x + z.transpose(1, 2)
    if not cfg["layer_norm_first"]:
        x = norm(t, f"{at}layer_norm", x)
    count, heads = cfg["encoder_layers"], cfg["encoder_attention_heads"]
    return layers(t, at, x, count, heads, padding, cfg["layer_norm_first"], cfg["activation_fn"])


def audio_step(config: dict[str, Any], student: Tensors, teacher: Tensors, io: Tensors) -> Tensors:
    """One training step and inference of the speech model."""
    cfg, mask = config["model_cfg"], io["mask"].bool()
    spec = eval(cfg["conv_feature_layers"])
    conv, projected = audio_front(cfg, student, io["source"])
    padding = frame_padding(io["padding_mask"], spec, mask.shape[1]) if "padding_mask" in io else None

    def channels(x: Tensor) -> Tensor:
        return x.masked_fill(io["channel_mask"].bool()[:, None], 0.0) if "channel_mask" in io else x

    x = channels(projected) if cfg["mask_channel_before"] else projected
    x = torch.where(mask[..., None], student["mask_emb"], x)
    x = x if cfg["mask_channel_before"] else channels(x)
    ran = audio_encoder(cfg, student, "encoder.", x, padding)
    with torch.no_grad():
        top = cfg["average_top_k_layers"]
        if cfg["ema_transformer_only"] or cfg["ema_layers_only"]:
            taught = audio_encoder(cfg, teacher, "", projected, padding)
        else:
            own = audio_front(cfg, teacher, io["source"])[1]
            taught = audio_encoder(cfg, teacher, "encoder.", own, padding)
            top = cfg["encoder_layers"]  # a complete teacher averages all layers
        target = normalized_layers({name: cfg[name] for name in SWITCHES}, taught["ffns"][-top:])
        frames = None
        if "infer.padding_mask" in io:
            frames = frame_padding(io["infer.padding_mask"], spec, io["infer.padding_mask_frames"].shape[1])
        inferred = audio_encoder(cfg, student, "encoder.", audio_front(cfg, student, io["infer.source"])[1], frames)
    produced = regression(cfg, linear(student, "final_proj", ran["out"][mask]), target[mask])
    produced |= {"conv_features": conv, "projected": projected, "encoder_out": ran["out"], "infer.x": inferred["out"]}
    if frames is not None:
        produced["infer.padding_mask_frames"] = frames
    return produced | layers_named("layer", ran, taught)


def text_encoder(cfg: dict[str, Any], t: Tensors, at: str, tokens: Tensor) -> dict[str, Any]:
    """Embeddings and all layers."""
    transformer = cfg["transformer"]
    encoder, padding = transformer["encoder"], tokens == 1
    learned = None if transformer["no_token_positional_embeddings"] else encoder["learned_pos"]
    x = embed(t, at, tokens, not transformer["no_scale_embedding"], learned)
    if transformer["layernorm_embedding"]:
        x = norm(t, f"{at}layernorm_embedding", x)
    x = x.masked_fill(padding[..., None], 0.0)
    count, heads, first = encoder["layers"], encoder["attention_heads"], encoder["normalize_before"]
    return layers(t, at, x, count, heads, padding, first, transformer["activation_fn"])


def text_step(config: dict[str, Any], student: Tensors, teacher: Tensors, io: Tensors) -> Tensors:
    """One training step and inference of the text model."""
    cfg, mask, at = config["model_cfg"], io["mask"].bool(), "encoder.sentence_encoder."
    ran = text_encoder(cfg, student, at, io["src_tokens"])
    predicted = ran["out"][mask]
    for i in range(cfg["head_layers"]):
        predicted = linear(student, f"encoder.regression_head.{2 * i}", F.gelu(predicted) if i else predicted)
    switches = {name: cfg.get(name, False) for name in SWITCHES}

    def targets(tokens: Tensor) -> tuple[dict[str, Any], Tensor]:
        with torch.no_grad():
            taught = text_encoder(cfg, teacher, "", tokens)
            return taught, normalized_layers(switches, taught["ffns"][-cfg["average_top_k_layers"] :])[mask]

    taught, target = targets(io["target_tokens"])
    scale = cfg["loss_scale"] if cfg["loss_scale"] is not None and cfg["loss_scale"] > 0 else None
    produced = regression(cfg | {"loss_scale": scale}, predicted, target)
    inferred = text_encoder(cfg, student, at, io["target_tokens"])["out"]
    produced |= {"encoder_out": ran["out"], "infer.x": inferred} | layers_named("layer", ran, taught)
    if "classification_head" in config:
        head = config["classification_head"]["prefix"]
        hidden = linear(student, f"{head}.dense", inferred[:, 0]).tanh()
        produced["infer.logits"] = linear(student, f"{head}.out_proj", hidden)
    if "pipeline.target_tokens" in io:
        produced["pipeline.target"] = targets(io["pipeline.target_tokens"])[1]
        piped = regression(cfg | {"loss_scale": scale}, predicted, produced["pipeline.target"])
        produced["pipeline.loss"] = piped["loss"]
    return produced
