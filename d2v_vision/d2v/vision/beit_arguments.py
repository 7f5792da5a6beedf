"""Settings of a model of the BEiT-based repository, from the arguments of a run and the shapes of its tensors."""

import json
import math
import warnings
from collections.abc import Mapping
from typing import Any

from d2v.core.foreign import Shapes

BIAS = "rel_pos_bias.relative_position_bias_table"
_HEADS = {"base": 12, "large": 16}
# Defaults of the published script, for arguments that a run does not have.
_DEFAULTS: dict[str, Any] = {
    "attn_drop_rate": 0.0,
    "drop_path": 0.1,
    "ema_decay": 0.9998,
    "ema_decay_init": 0.999,
    "ema_start_at": 25_000,
    "l1_beta": 0.12,
    "l2_loss": False,
    "layer_results": "end",
    "loss_scale": -1,
    "mask_dropout_prob": -1.0,
    "post_target_instance_norm": False,
    "post_target_layer_norm": False,
    "target_batch_norm": False,
    "target_instance_norm": False,
    "target_layer_norm_last": True,
    "var_margin0": 0.5,
    "var_w0": 0.0,
}


def read_arguments(arguments: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """The fields of a model and of its training, out of the arguments of a run and the shapes of its tensors.

    The arguments contain every option of the run, so unknown ones cause no warning.

    Args:
        arguments: the command's arguments.
        shapes: shapes of the model's tensors.

    Raises:
        ValueError: if the model's sizes cannot be determined.
    """
    embed_dim, channels, patch = shapes["patch_embed.proj.weight"][:3]
    depth = len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})
    own = f"blocks.0.attn.{BIAS.rpartition('.')[2]}"
    tables = [shapes[name] for name in (BIAS, own) if name in shapes]
    fields = {
        "embed_dim": embed_dim,
        "depth": depth,
        "num_heads": _num_heads(arguments, tables),
        "mlp_ratio": shapes["blocks.0.mlp.fc1.weight"][0] / embed_dim,
        "channels": channels,
        "patch_size": patch,
        "img_size": patch * grid_of(shapes.get("pos_embed"), tables),
        "init_values": arguments.get("layer_scale_init_value", 0.1) if "blocks.0.gamma_1" in shapes else 0,
        "use_abs_pos_emb": "pos_embed" in shapes,
        "use_shared_rel_pos_bias": BIAS in shapes,
        "use_rel_pos_bias": own in shapes,
        "num": arguments.get("num_mask_patches", 75),
        "min": arguments.get("min_mask_patches_per_block", 16),
        "max": arguments.get("max_mask_patches_per_block"),
    }
    if "head.weight" in shapes:
        norms = (name for name in ("fc_norm", "norm") if f"{name}.weight" in shapes)
        default = {"mean": 0.5, "norm_of_head": next(norms, None), "drop_path": arguments.get("drop_path", 0.1)}
        if "imagenet_default_mean_and_std" not in arguments:
            warnings.warn(
                "the file does not say how images were normalised: mean and std are 0.5, as in the published commands",
                stacklevel=2,
            )
        return fields | (default | {"mean": None} if arguments.get("imagenet_default_mean_and_std") else default)
    if arguments.get("imagenet_default_mean_and_std", True) is False:
        fields["mean"] = 0.5
    fields["target_layers"] = _target_layers(arguments.get("target_layers", "[]"), depth)
    return fields | {name: arguments.get(name, default) for name, default in _DEFAULTS.items()}


def _num_heads(arguments: Mapping[str, Any], tables: list[tuple[int, ...]]) -> int:
    size = str(arguments.get("model")).split("_")[1:2]
    if tables:
        return tables[0][1]
    if not size or size[0] not in _HEADS:
        raise ValueError("the number of heads is given neither by a relative bias nor by the model's name")
    return _HEADS[size[0]]


def grid_of(positions: tuple[int, ...] | None, tables: list[tuple[int, ...]]) -> int:
    """Patches along a side: tables have (2 w - 1)^2 + 3 rows, learned positions w^2 + 1.

    Raises:
        ValueError: if there are neither.
    """
    if positions is not None:
        return math.isqrt(positions[1] - 1)
    if not tables:
        raise ValueError("the image size is given neither by a relative bias nor by positions")
    return (math.isqrt(tables[0][0] - 3) + 1) // 2


def _target_layers(text: Any, depth: int) -> list[int]:
    """Parse the blocks that targets were averaged over, from a text such as "[6, 7, 8]"."""
    layers = json.loads(text) if isinstance(text, str) else text
    if not isinstance(layers, list) or not all(type(layer) is int for layer in layers):
        raise ValueError(f"arguments.target_layers={text!r} must be a list of integers")
    known = [layer for layer in layers if 0 <= layer < depth]
    if known != layers or not layers:
        warnings.warn(
            f"arguments.target_layers={text!r} do not fit {depth} blocks; features are not affected", stacklevel=2
        )
    return known or list(range(depth))
