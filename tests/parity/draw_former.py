"""Random 1.0 cases of speech and text; see `draw_multimodal`."""

from typing import Any

import plain_former
import torch
from draw import Draw, Shapes, Tensors, base, convolution, frames, linear, norm, prefixed
from draw_multimodal import SPECS

ACTIVATIONS = ("gelu", "relu", "gelu_accurate", "gelu_fast")


def audio(seed: int) -> tuple[dict[str, Any], Tensors, Tensors]:
    """Configuration, tensors and inputs of a speech model."""
    d = Draw(seed)
    config = base(f"v1/{d.one_of('audio_v1_base', 'audio_v1_audioset')}")
    cfg, text, mode = config["model_cfg"], d.one_of(*SPECS), d.one_of("layer_norm", "default")
    spec, heads, dim = SPECS[text], 2, d.one_of(8, 16)
    positions, samples, count = d.one_of(2, 3), d.one_of(60, 83), d.one_of(2, 3)
    layers_only, bias = d.chance(0.35), d.chance(0.3)
    cfg |= {
        "conv_feature_layers": text,
        "extractor_mode": mode,
        "conv_bias": bias,
        "feature_grad_mult": d.one_of(1.0, 0.1, 0.0),
        "encoder_embed_dim": dim,
        "encoder_attention_heads": heads,
        "encoder_ffn_embed_dim": d.one_of(12, 24),
        "encoder_layers": count,
        "layer_norm_first": d.chance(0.4),
        "pos_conv_depth": positions,
        "conv_pos": positions * d.one_of(3, 4, 5),
        "conv_pos_groups": d.one_of(1, 2, 4),
        "average_top_k_layers": d.settings.randint(1, count),
        "ema_layers_only": layers_only,
        "ema_transformer_only": layers_only or d.chance(0.5),
        "mask_channel_before": d.chance(0.5),
    } | _loss(d, 2.0)
    _audio_norms(d, cfg)
    kernel, into = max(3, cfg["conv_pos"] // positions), 1
    shapes: Shapes = {"mask_emb": (dim,)}
    for i, (channels, size, _) in enumerate(spec):
        shapes |= convolution(f"feature_extractor.conv_layers.{i}.0", channels, into, size, bias=bias)
        if mode == "layer_norm" or i == 0:
            after = "2.1" if mode == "layer_norm" else "2"
            shapes |= norm(f"feature_extractor.conv_layers.{i}.{after}", channels)
        into = channels
    shapes |= norm("layer_norm", into) | linear("post_extract_proj", dim, into) | linear("final_proj", dim, dim)
    for i in range(positions):
        shapes |= convolution(f"encoder.pos_conv.{i}.0", dim, dim // cfg["conv_pos_groups"], kernel)
    shapes |= norm("encoder.layer_norm", dim)
    for i in range(count):
        shapes |= prefixed(f"encoder.layers.{i}.", _layer(dim, cfg["encoder_ffn_embed_dim"]))
    length = frames(samples, spec)
    io = {"source": d.normal(2, samples), "infer.source": d.normal(2, samples)}
    short = d.padding([samples, d.settings.randint(30, samples - 25)], samples)
    io |= {"infer.padding_mask": short, "infer.padding_mask_frames": short.new_zeros(2, length)}
    padding = None
    if d.chance(0.5):
        io["padding_mask"] = short
        padding = d.padding([frames(int(n), spec) for n in (short == 0).sum(1)], length)
    io["mask"] = d.mask(2, length, [d.settings.randint(2, length - 2) for _ in range(2)], padding)
    if d.chance(0.5):
        io["channel_mask"] = (torch.rand(2, dim, generator=d.numbers) < 0.3).to(torch.uint8)
    cfg["activation_fn"] = d.one_of(*ACTIVATIONS)
    return finish(d, config, shapes, io, "encoder." if cfg["ema_transformer_only"] else "", "_ema.")


def text(seed: int) -> tuple[dict[str, Any], Tensors, Tensors]:
    """Configuration, tensors and inputs of a text model."""
    d = Draw(seed)
    config = base("v1/text_v1_base")
    cfg, dim, count, length = config["model_cfg"], d.one_of(8, 16), d.one_of(2, 3), d.one_of(8, 12)
    vocabulary, inner, at = 20, d.one_of(12, 24), "encoder.sentence_encoder."
    cfg |= {
        "head_layers": d.one_of(1, 2, 3),
        "average_top_k_layers": d.settings.randint(1, count),
        "ema_transformer_layers_only": d.chance(0.5),
        "max_positions": 16,
    } | _loss(d, 4.0)
    cfg["loss_scale"] = d.one_of(1.0, 0.3, 0.0, -1.0)
    for name in ("batch_norm_target_layer", "instance_norm_target_layer", "layer_norm_target_layer"):
        cfg[name] = d.chance(0.4)
    cfg |= {name: d.chance(0.3) for name in ("layer_norm_targets", "instance_norm_targets")}
    transformer = cfg["transformer"]
    transformer |= {
        "no_scale_embedding": not d.chance(0.4),
        "layernorm_embedding": not d.chance(0.4),
        "max_source_positions": 16,
    }
    encoder = transformer["encoder"]
    encoder |= {"attention_heads": 2, "embed_dim": dim, "ffn_embed_dim": inner, "layers": count}
    encoder |= {"learned_pos": not d.chance(0.35), "normalize_before": d.chance(0.4)}
    shapes: Shapes = {f"{at}embed_tokens.weight": (vocabulary, dim)}
    if encoder["learned_pos"]:
        shapes[f"{at}embed_positions.weight"] = (18, dim)
    shapes |= norm(f"{at}layernorm_embedding", dim) if transformer["layernorm_embedding"] else {}
    for i in range(count):
        shapes |= prefixed(f"{at}layers.{i}.", _layer(dim, inner))
    shapes |= norm(f"{at}layer_norm", dim) if encoder["normalize_before"] else {}
    widths = [dim] + [2 * dim] * (cfg["head_layers"] - 1) + [dim]
    for i in range(cfg["head_layers"]):
        shapes |= linear(f"encoder.regression_head.{2 * i}", widths[i + 1], widths[i])
    head = config["classification_head"]["prefix"]
    shapes |= linear(f"{head}.dense", dim, dim) | linear(f"{head}.out_proj", 3, dim)
    tokens = d.tokens(vocabulary - 1, 2, length)
    padding = d.padding([length, d.settings.randint(4, length - 1) if d.chance(0.5) else length], length)
    tokens = tokens.masked_fill(padding.bool(), 1)
    counts = [d.settings.randint(2, int((row == 0).sum()) - 1) for row in padding]
    mask = torch.zeros_like(padding)
    for row, count_masked in enumerate(counts):
        real = (padding[row] == 0).nonzero().flatten()
        mask[row, real[torch.randperm(len(real), generator=d.numbers)[:count_masked]]] = 1
    masked = tokens.masked_fill(mask.bool(), vocabulary - 1)
    io = {"target_tokens": tokens, "src_tokens": masked, "mask": mask}
    io["pipeline.target_tokens"] = torch.where(mask.bool(), tokens, 1)
    config |= {"vocab_size": vocabulary, "mask": vocabulary - 1}
    transformer["activation_fn"] = d.one_of(*ACTIVATIONS)
    return finish(d, config, shapes, io, at, "encoder._ema.")


def finish(d: Draw, config: dict, shapes: Shapes, io: Tensors, averaged: str, prefix: str):
    """Tensors for all shapes; the teacher, the averaged part of the student, as one update makes it."""
    config["num_updates"] = d.one_of(1, 500, 1000)
    config["model_cfg"] |= {"ema_decay": 0.8, "ema_end_decay": d.one_of(0.8, 0.95, 1.0), "ema_anneal_end_step": 1000}
    student = d.fill(shapes)
    part = {name.removeprefix(averaged): shape for name, shape in shapes.items() if name.startswith(averaged)}
    before = d.fill(part)
    double = [{name: tensor.double() for name, tensor in one.items()} for one in (before, student)]
    after = {name: tensor.float() for name, tensor in plain_former.averaged(config, *double).items()}
    return config, student | prefixed(prefix, after), io | prefixed("ema_before.", before)


def _layer(dim: int, inner: int) -> Shapes:
    shapes: Shapes = {}
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        shapes |= linear(f"self_attn.{name}", dim, dim)
    shapes |= norm("self_attn_layer_norm", dim) | norm("final_layer_norm", dim)
    return shapes | linear("fc1", inner, dim) | linear("fc2", dim, inner)


def _loss(d: Draw, beta: float) -> dict[str, Any]:
    return {"loss_beta": d.one_of(0.0, 0.4, beta), "loss_scale": d.one_of(None, 1.0, 0.3)}


def _audio_norms(d: Draw, cfg: dict[str, Any]) -> None:
    """Target norms, but for those that the original computes over the wrong axis."""
    each = {"batch_norm_target_layer": d.chance(0.3), "instance_norm_target_layer": d.chance(0.5)}
    right = any(each.values())
    cfg |= each | {"group_norm_target_layer": right and d.chance(0.3), "layer_norm_target_layer": d.chance(0.3)}
    cfg |= {"layer_norm_targets": d.chance(0.3), "instance_norm_targets": right and d.chance(0.3)}
