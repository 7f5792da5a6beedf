"""Random 1.0 cases of images: the original toolkit's model, and two steps of the BEiT-based one."""

from typing import Any

from draw import Draw, Shapes, Tensors, base, convolution, linear, norm, prefixed
from draw_former import finish
from plain_image import relative_index


def vision(seed: int) -> tuple[dict[str, Any], Tensors, Tensors]:
    """Configuration, tensors and inputs of the toolkit's image model."""
    d = Draw(seed)
    config = base("v1/vision_fairseq_v1")
    cfg, dim, heads = config["model_cfg"], d.one_of(8, 12), d.one_of(2, 4)
    side, size, depth = d.one_of(2, 3, 4), d.one_of(2, 4), d.one_of(2, 3)
    scaled = not d.chance(0.35)
    cfg |= {
        "embed_dim": dim,
        "num_heads": heads,
        "depth": depth,
        "image_size": side * size,
        "patch_size": size,
        "layer_scale_init_value": 0.1 if scaled else 0.0,
        "average_top_k_layers": d.settings.randint(1, depth),
        "end_of_block_targets": d.chance(0.5),
        "ema_transformer_only": d.chance(0.5),
        "loss_beta": d.one_of(0.0, 0.4, 2.0),
        "loss_scale": d.one_of(None, 0.3, -1.0, 0.0),
    }
    for name in ("batch_norm_target_layer", "instance_norm_target_layer", "layer_norm_target_layer"):
        cfg[name] = d.chance(0.4)
    cfg |= {name: d.chance(0.3) for name in ("layer_norm_targets", "instance_norm_targets")}
    shapes: Shapes = {"cls_emb": (1, 1, dim), "mask_emb": (1, 1, dim)}
    shapes |= convolution("patch_embed.conv", dim, 3, size, size) | linear("final_proj", dim, dim)
    for i in range(depth):
        shapes |= prefixed(f"encoder.blocks.{i}.", _block(dim, 4 * dim, scaled, "0", "2"))
    shapes["encoder.rel_pos_bias.relative_position_bias_table"] = ((2 * side - 1) ** 2 + 3, heads)
    shapes |= norm("encoder.norm", dim)
    io = {"img": d.normal(2, 3, side * size, side * size), "mask": _mask(d, 2, side)}
    config, tensors, io = finish(d, config, shapes, io, "encoder." if cfg["ema_transformer_only"] else "", "_ema.")
    return config, tensors | _indices(tensors, side), io


def beit(seed: int) -> tuple[dict[str, Any], Tensors, Tensors]:
    """Configuration, tensors and inputs of two steps of the BEiT-based model."""
    d = Draw(seed)
    config = base("v1/vision_beit_v1")
    cfg, train, dim, heads = config["model_cfg"], config["train_cfg"], d.one_of(8, 12), d.one_of(2, 4)
    side, size, depth, ratio = d.one_of(2, 3, 4), d.one_of(2, 4), d.one_of(2, 3), d.one_of(1.5, 2.0)
    scaled, absolute, shared, each = not d.chance(0.3), d.chance(0.5), d.chance(0.5), d.chance(0.5)
    cfg |= {
        "embed_dim": dim,
        "num_heads": heads,
        "depth": depth,
        "img_size": side * size,
        "patch_size": size,
        "mlp_ratio": ratio,
        "init_values": 0.1 if scaled else 0,
        "use_abs_pos_emb": absolute,
        "use_shared_rel_pos_bias": shared,
        "use_rel_pos_bias": each,
    }
    layers = sorted(d.settings.sample(range(depth), d.settings.randint(1, depth)))
    train |= {
        "target_layers": layers,
        "layer_results": d.one_of("end", "fc"),
        "l2_loss": d.chance(0.3),
        "l1_beta": d.one_of(0.4, 2.0),
        "var_w0": d.one_of(0.0, 0.5),
        "var_margin0": 1.0,
        "loss_scale": d.one_of(-1, 3.0),
        "clip_grad": d.one_of(0.1, 3.0, None),
        "ema_start_at": d.one_of(0, 1, 4),
        "ema_decay": d.one_of(0.9, 1.0),
        "ema_decay_init": 0.7,
        "target_layer_norm_last": d.chance(0.6),
    }
    for name in ("target_batch_norm", "target_instance_norm", "post_target_instance_norm", "post_target_layer_norm"):
        train[name] = d.chance(0.3)
    config["wd_values"] = [0.05, 0.02]
    shapes: Shapes = {"cls_token": (1, 1, dim), "mask_token": (1, 1, dim)}
    shapes |= {"pos_embed": (1, side * side + 1, dim)} if absolute else {}
    shapes |= convolution("patch_embed.proj", dim, 3, size, size)
    table = ((2 * side - 1) ** 2 + 3, heads)
    if shared:
        shapes["rel_pos_bias.relative_position_bias_table"] = table
    for i in range(depth):
        shapes |= prefixed(f"blocks.{i}.", _block(dim, int(dim * ratio), scaled, "fc1", "fc2"))
        if each:
            shapes[f"blocks.{i}.attn.relative_position_bias_table"] = table
    shapes |= norm("norm", dim) | linear("lm_head", dim, dim)
    config["params_without_weight_decay"] = [
        name for name, shape in shapes.items() if len(shape) == 1 or name in ("cls_token", "pos_embed")
    ]
    io: Tensors = {}
    for step in range(2):
        io[f"samples{step}"] = d.normal(2, 3, side * size, side * size)
        io[f"bool_masked_pos{step}"] = _mask(d, 2, side)
    tensors = prefixed("model.", d.fill(shapes)) | prefixed("ema.", d.fill(shapes))
    return config, tensors | _indices(tensors, side), io


def _indices(tensors: Tensors, side: int) -> Tensors:
    """The buffer that is stored with each table in a file."""
    table, index = "relative_position_bias_table", "relative_position_index"
    return {name.replace(table, index): relative_index(side) for name in tensors if name.endswith(table)}


def _block(dim: int, inner: int, scaled: bool, first: str, second: str) -> Shapes:
    shapes: Shapes = {"attn.qkv.weight": (3 * dim, dim), "attn.q_bias": (dim,), "attn.v_bias": (dim,)}
    shapes |= linear("attn.proj", dim, dim) | norm("norm1", dim) | norm("norm2", dim)
    shapes |= linear(f"mlp.{first}", inner, dim) | linear(f"mlp.{second}", dim, inner)
    return shapes | ({"gamma_1": (dim,), "gamma_2": (dim,)} if scaled else {})


def _mask(d: Draw, rows: int, side: int):
    counts = [d.settings.randint(2, side * side - 1) for _ in range(rows)]
    return d.mask(rows, side * side, counts).long().unflatten(1, (side, side))
