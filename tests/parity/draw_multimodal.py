"""Random 2.0 cases: a configuration that the original would accept, tensors under its names, inputs and masks."""

from typing import Any

import torch
from draw import Draw, Shapes, Tensors, base, convolution, frames, linear, norm, prefixed
from torch import Tensor

SPECS = {
    "[(8, 5, 3), (6, 3, 2)]": [(8, 5, 3), (6, 3, 2)],
    "[(8, 4, 2)] + [(8, 3, 2)] * 2": [(8, 4, 2), (8, 3, 2), (8, 3, 2)],
    "[(6, 7, 4)]": [(6, 7, 4)],
}


def draw(seed: int) -> tuple[dict[str, Any], Tensors, Tensors]:
    """Configuration, tensors and inputs."""
    d = Draw(seed)
    kind = ("image", "audio", "text")[seed % 3]
    model = base({"image": "v2/image_base", "audio": "v2/audio_base", "text": "v2/text_base"}[kind])["model"]
    settings = model["modalities"][kind]
    _shared(d, kind, model, settings)
    inputs, shapes, positions = {"image": _image, "audio": _audio, "text": _text}[kind](d, model, settings)
    shapes |= _stack(d, model, settings) | _decoder(d, kind, model, settings)
    tensors = d.fill(shapes)
    tensors |= {name: _grid(model["embed_dim"], positions) for name in tensors if name.endswith("encoder.positions")}
    teacher = {name: shape for name, shape in shapes.items() if _taught(model, settings, name)}
    taught = prefixed("_ema.", d.fill(teacher))
    taught |= {f"_ema.{name}": tensors[name] for name in teacher if name.endswith("encoder.positions")}
    if model["ema_encoder_only"]:
        taught = {name.replace("_ema.blocks.", "_ema."): tensor for name, tensor in taught.items()}
    update = d.one_of(1, 7, 100)
    training = {"sgd_lr": 0.01, "num_updates": update}
    io = inputs | _mask(d, model, settings, inputs, positions, kind)
    return {"model": model, "training_step": training}, tensors | taught, io


def _shared(d: Draw, kind: str, model: dict[str, Any], settings: dict[str, Any]) -> None:
    heads = d.one_of(2, 3, 4, 6)
    first = d.chance(0.3)
    depth = d.one_of(1, 2, 3)
    model |= {
        "num_heads": heads,
        "embed_dim": heads * (4 if heads % 2 else d.one_of(4, 8)),
        "depth": depth,
        "layer_norm_first": first,
        "norm_affine": not d.chance(0.2),
        "norm_eps": d.one_of(1e-5, 1e-6, 1e-3),
        "mlp_ratio": d.one_of(1.3, 2.0, 4.0),
        "clone_batch": d.one_of(1, 2, 3),
        "average_top_k_layers": d.settings.randint(1, depth),
        "end_of_block_targets": d.chance(0.3),
        "loss_beta": d.one_of(0.0, 0.0, 0.5, 1.5),
        "loss_scale": d.one_of(None, 1.0, 0.3),
        "d2v_loss": d.one_of(1.0, 0.7),
        "ema_encoder_only": d.chance(0.4),
        "ema_decay": 0.8,
        "ema_end_decay": d.one_of(0.8, 0.95, 1.0),
        "ema_anneal_end_step": 50,
    }
    for name, fraction in {"batch_norm_target_layer": 0.2, "instance_norm_target_layer": 0.4}.items():
        model[name] = d.chance(fraction)
    for name in ("layer_norm_target_layer", "layer_norm_targets", "instance_norm_targets"):
        model[name] = d.chance(0.3)
    extra = d.one_of(0, 1, 1, 2)
    model["cls_loss"] = d.one_of(0.0, 0.02) if extra else 0.0
    alibi = d.chance(0.6 if kind == "audio" else 0.35)
    learned = alibi and d.chance(0.7)
    settings |= {
        "prenet_depth": d.one_of(0, 0, 1, 2),
        "num_extra_tokens": extra,
        "ema_local_encoder": d.chance(0.5),
        "encoder_zero_mask": d.chance(0.5),
        "use_alibi_encoder": alibi,
        "learned_alibi_scale": learned,
        "learned_alibi_scale_per_head": alibi and d.chance(0.5),
        "learned_alibi_scale_per_layer": alibi and d.chance(0.4),
        "num_alibi_heads": heads,
        "model_depth": depth,
        "local_grad_mult": d.one_of(1.0, 1.0, 0.5, 0.0),
    }


def _image(d: Draw, model: dict[str, Any], settings: dict[str, Any]) -> tuple[Tensors, Shapes, int]:
    if d.chance(0.35):  # 3 p^2 = D
        model |= {"embed_dim": 12, "num_heads": d.one_of(2, 3), "recon_loss": 0.4}
        settings["num_alibi_heads"] = model["num_heads"]
    dim, side = model["embed_dim"], d.one_of(3, 4)
    size = 2 if model["recon_loss"] > 0 else d.one_of(2, 4)
    wide = d.chance(0.3)
    settings |= {
        "input_size": side * size,
        "patch_size": size,
        "embed_dim": dim + 4 if wide else dim,
        "fixed_positions": not d.chance(0.3),
        "alibi_distance": d.one_of("manhattan", "euclidean"),
    }
    at = "modality_encoders.IMAGE."
    conv = f"{at}local_encoder.0.proj" if wide else f"{at}local_encoder.proj"
    shapes = convolution(conv, settings["embed_dim"], 3, size, size)
    shapes |= linear(f"{at}local_encoder.1", dim, settings["embed_dim"]) if wide else {}
    if settings["fixed_positions"]:
        shapes[f"{at}fixed_positional_encoder.positions"] = (1, side * side, dim)
    shapes |= linear("recon_proj", dim, dim) if model["recon_loss"] > 0 else {}
    return {"source": d.normal(2, 3, side * size, side * size)}, shapes, side * side


def _audio(d: Draw, model: dict[str, Any], settings: dict[str, Any]) -> tuple[Tensors, Shapes, int]:
    text = d.one_of(*SPECS)
    spec, dim, samples = SPECS[text], model["embed_dim"], d.one_of(60, 83)
    depth, mode = d.one_of(1, 2, 3), d.one_of("layer_norm", "default")
    groups = d.one_of(*(g for g in (1, 2, 4) if dim % g == 0))
    settings |= {
        "feature_encoder_spec": text,
        "extractor_mode": mode,
        "conv_pos_depth": depth,
        "conv_pos_width": depth * d.one_of(1, 3, 4, 6) + d.one_of(0, depth - 1),
        "conv_pos_groups": groups,
    }
    at, into, shapes = "modality_encoders.AUDIO.", 1, {}
    for i, (channels, kernel, _) in enumerate(spec):
        shapes |= convolution(f"{at}local_encoder.conv_layers.{i}.0", channels, into, kernel, bias=False)
        if mode == "layer_norm" or i == 0:
            after = "2.1" if mode == "layer_norm" else "2"
            shapes |= norm(f"{at}local_encoder.conv_layers.{i}.{after}", channels)
        into = channels
    shapes |= norm(f"{at}project_features.1", into) | linear(f"{at}project_features.2", dim, into)
    kernel = max(3, settings["conv_pos_width"] // depth)
    for i in range(1, depth + 1):
        shapes |= convolution(f"{at}relative_positional_encoder.{i}.0", dim, dim // groups, kernel)
    inputs = {"source": d.normal(2, samples)}
    if d.chance(0.5):
        inputs["padding_mask"] = d.padding([d.settings.randint(30, samples - 25), samples], samples)
    return inputs, shapes, frames(samples, spec)


def _text(d: Draw, model: dict[str, Any], settings: dict[str, Any]) -> tuple[Tensors, Shapes, int]:
    dim, length, vocabulary = model["embed_dim"], d.one_of(7, 12), 20
    settings |= {
        "max_source_positions": 16,
        "learned_pos": not d.chance(0.3),
        "no_scale_embedding": not d.chance(0.3),
        "layernorm_embedding": not d.chance(0.3),
        "no_token_positional_embeddings": d.chance(0.2),
    }
    at = "modality_encoders.TEXT.local_encoder."
    shapes: Shapes = {f"{at}embed_tokens.weight": (vocabulary, dim)}
    if settings["learned_pos"] and not settings["no_token_positional_embeddings"]:
        shapes[f"{at}embed_positions.weight"] = (18, dim)
    shapes |= norm(f"{at}layernorm_embedding", dim) if settings["layernorm_embedding"] else {}
    inputs = {"source": d.tokens(vocabulary, 2, length)}
    if d.chance(0.5):
        inputs["padding_mask"] = d.padding([length, d.settings.randint(3, length - 1)], length)
        inputs["source"] = inputs["source"].masked_fill(inputs["padding_mask"].bool(), 1)
    return inputs, shapes, length


def _stack(d: Draw, model: dict[str, Any], settings: dict[str, Any]) -> Shapes:
    dim, at = model["embed_dim"], f"modality_encoders.{model['supported_modality']}."
    hidden, affine = int(dim * model["mlp_ratio"]), model["norm_affine"]
    block = linear("attn.qkv", 3 * dim, dim) | linear("attn.proj", dim, dim)
    block |= linear("mlp.fc1", hidden, dim) | linear("mlp.fc2", dim, hidden)
    block |= norm("norm1", dim) | norm("norm2", dim) if affine else {}
    shapes: Shapes = {}
    for i in range(settings["prenet_depth"]):
        shapes |= prefixed(f"{at}context_encoder.blocks.{i}.", block)
    for i in range(model["depth"]):
        shapes |= prefixed(f"blocks.{i}.", block)
    if affine or d.chance(0.5):  # published, these norms have weights; norm_affine may mean them too
        if model["layer_norm_first"]:
            shapes |= norm("norm", dim)
        elif model["supported_modality"] != "TEXT" or settings["prenet_depth"] > 0:
            shapes |= norm(f"{at}context_encoder.norm", dim)
    if settings["num_extra_tokens"]:
        shapes[f"{at}extra_tokens"] = (1, settings["num_extra_tokens"], dim)
    if settings["use_alibi_encoder"]:
        layers = settings["prenet_depth"] + model["depth"] if settings["learned_alibi_scale_per_layer"] else 1
        heads = model["num_heads"] if settings["learned_alibi_scale_per_head"] else 1
        shapes[f"{at}alibi_scale"] = (layers, 1, heads, 1, 1)
    return shapes


def _decoder(d: Draw, kind: str, model: dict[str, Any], settings: dict[str, Any]) -> Shapes:
    dim, at = model["embed_dim"], f"modality_encoders.{kind.upper()}.decoder."
    inner = d.one_of(dim, 8, 28)
    groups = d.one_of(*(g for g in (1, 2, 4) if dim % g == 0 and inner % g == 0))
    layers, ratio = d.one_of(1, 2, 3), d.one_of(0.6, 2.0)
    kernel = d.one_of(2, 3, 4, 5)
    decoder = settings["decoder"]
    decoder |= {"decoder_dim": inner, "decoder_groups": groups, "decoder_kernel": kernel}
    decoder |= {"decoder_layers": d.one_of(1, 2, 3), "decoder_residual": d.chance(0.6)}
    decoder |= {"projection_layers": layers, "projection_ratio": ratio}
    shapes: Shapes = {}
    for i in range(decoder["decoder_layers"]):
        size = (kernel, kernel) if kind == "image" else (kernel,)
        shapes |= convolution(f"{at}blocks.{i}.0", inner, (inner if i else dim) // groups, *size)
    if kind == "image" or layers == 1:
        return shapes | linear(f"{at}proj", dim, inner)
    hidden = int(inner * ratio)
    shapes |= linear(f"{at}proj.0", hidden, inner)
    for i in range(1, layers - 1):
        shapes |= linear(f"{at}proj.{2 * i}", hidden, hidden)
    return shapes | linear(f"{at}proj.{2 * layers - 2}", dim, hidden)


def _taught(model: dict[str, Any], settings: dict[str, Any], name: str) -> bool:
    """Whether the teacher has a tensor."""
    if model["ema_encoder_only"]:
        return name.startswith("blocks.")
    if not settings["ema_local_encoder"] and (".local_encoder." in name or ".project_features." in name):
        return False
    return ".decoder." not in name and not name.startswith("recon_proj")


def _grid(dim: int, positions: int) -> Tensor:
    """The fixed positions of a grid: the column's sines and cosines, then the row's."""
    side = round(positions**0.5)
    rates = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    rows = []
    for place in range(positions):
        angles = [part * rates for part in (place % side, place // side)]
        rows.append(torch.cat([part for one in angles for part in (one.sin(), one.cos())]))
    return torch.stack(rows)[None].float()


def _mask(d: Draw, model: dict[str, Any], settings: dict[str, Any], inputs: Tensors, positions: int, kind: str):
    clones = model["clone_batch"]
    padding = inputs.get("padding_mask")
    if kind == "audio" and padding is not None:
        spec = SPECS[settings["feature_encoder_spec"]]
        padding = d.padding([frames(int(n), spec) for n in (padding == 0).sum(1)], positions)
    rows = 2 * clones
    repeated = None if padding is None else padding.repeat_interleave(clones, 0)
    masked = d.settings.randint(2, positions - 2) if positions > 4 else 2
    io = {"mask": d.mask(rows, positions, [masked] * rows, repeated)}
    if kind == "audio" and d.chance(0.4):
        io["channel_mask"] = (torch.rand(2, model["embed_dim"], generator=d.numbers) < 0.3).to(torch.uint8)
    return io
