"""Published image models of the BEiT-based 1.0 repository."""

import json
import math
import warnings
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from d2v.core.description import Description
from d2v.core.foreign import (
    Constant,
    ForeignConfig,
    KeyTable,
    Layout,
    Rename,
    Shapes,
    Split,
    Unpacked,
    both,
    own_parts,
    tensors_below,
)
from d2v.core.foreign.fairseq import model_section
from d2v.core.loss import RegressionLoss
from d2v.core.masks import BlockMasker
from d2v.core.model import (
    BackboneConfig,
    Data2VecConfig,
    MaskedHeadConfig,
    TargetsConfig,
    TeacherConfig,
)
from d2v.core.teacher import EMASchedule
from d2v.vision.config import ImageAdapterConfig
from d2v.vision.former import block_rules, former_encoder, image_data, read_norms, read_sizes, token_rules

_BIAS = "rel_pos_bias.relative_position_bias_table"
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


@frozen
class BeitFormat:
    """The 1.0 image model of the BEiT-based repository, the source of the published results."""

    name: str = "data2vec 1.0 images, BEiT-based"

    def unpack(self, contents: Mapping[str, Any]) -> Unpacked | None:
        """Return the student's tensors, the teacher's and the run's arguments from a training checkpoint."""
        arguments, model, teacher = (contents.get(part) for part in ("args", "model", "model_ema"))
        if (
            not isinstance(arguments, Mapping)
            or not isinstance(model, Mapping)
            or "patch_embed.proj.weight" not in model
        ):
            return None
        tensors = tensors_below({"model": model, "ema": teacher if isinstance(teacher, Mapping) else {}})
        shapes = {name.removeprefix("model."): tensor.shape for name, tensor in tensors.items()}
        return Unpacked({"model": read_arguments(arguments, shapes)}, tensors)

    def accepts(self, foreign: Mapping[str, Any]) -> bool:
        """Return whether the configuration is from that repository."""
        return {"use_shared_rel_pos_bias", "target_layers"} <= model_section(foreign).keys()

    def config(self, foreign: Mapping[str, Any], shapes: Shapes) -> Description:
        """Convert the fields of `read_arguments` to a d2v configuration.

        Raises:
            ValueError: if a field is missing, or changes the computation in an unsupported way.
        """
        del shapes
        model = ForeignConfig(model_section(foreign), "arguments")
        model.ignore(
            "lr", "weight_decay", "clip_grad", "var_w1", "var_margin1"
        )  # optimiser fields, or fields that the original ignores too
        shared, own = model.get("use_shared_rel_pos_bias"), model.get("use_rel_pos_bias", False)
        model.refuse_unless("mask_dropout_prob", -1, -1.0, 0, 0.0)
        scale, beta = model.get("loss_scale", -1), model.get("l1_beta")
        size, patch = read_sizes(model, "img_size", "patch_size")
        config = Data2VecConfig(
            student=BackboneConfig(
                encoder=former_encoder(
                    embed_dim=model.get("embed_dim"),
                    depth=model.count("depth"),
                    num_heads=model.count("num_heads"),
                    mlp_ratio=model.get("mlp_ratio"),
                    eps=model.get("layer_norm_eps", 1e-6),
                    layer_scale=model.get("init_values"),
                    drop_path_rate=model.get("drop_path", 0.0),
                    attention_dropout=model.get("attn_drop_rate", 0.0),
                ),
                adapters={
                    "vision": ImageAdapterConfig(
                        image_size=size,
                        patch_size=patch,
                        positions="learned" if model.get("use_abs_pos_emb", False) else None,
                        relative_bias="both" if shared and own else "shared" if shared else "layer" if own else None,
                        extra_tokens_std=0.02,
                        mask_token=True,
                        context=None,
                    )
                },
                visible_only=False,
            ),
            predictors={"vision": MaskedHeadConfig(num_layers=1, init="scaled")},
            maskers={
                "vision": BlockMasker(
                    num_masked=model.get("num", 120),
                    min_per_block=model.get("min", 16),
                    max_per_block=model.get("max", None),
                )
            },
            targets=TargetsConfig(
                layers=tuple(model.get("target_layers")),
                kind="block" if model.get("layer_results") == "end" else "ffn",
                each=read_norms(
                    model,
                    ("batch", "instance", "layer"),
                    "target_batch_norm",
                    "target_instance_norm",
                    "target_layer_norm_last",
                ),
                after=read_norms(model, ("instance", "layer"), "post_target_instance_norm", "post_target_layer_norm"),
            ),
            teacher=TeacherConfig(
                schedule=EMASchedule(
                    model.get("ema_decay_init"), end=model.get("ema_decay"), anneal=model.get("ema_start_at"), first=0
                )
            ),
            loss=RegressionLoss(
                beta=0.0 if model.get("l2_loss") else beta,
                scale=None if scale == -1 else scale,
                reduction="mean",
                variance_weight=model.get("var_w0", 0.0),
                variance_margin=model.get("var_margin0", 0.5),
            ),
        )
        mean = model.get("mean", None)
        values = {} if mean is None else {"mean": [mean], "std": [mean]}
        model.finish()
        return Description(model=config, data={"vision": image_data(size, 3, **values)})

    def layout(self, description: Description, shapes: Shapes) -> Layout:
        """Return the key table of a file of this model."""
        del shapes
        student, encoder = own_parts(description)
        adapter = student.adapters["vision"]
        assert isinstance(adapter, ImageAdapterConfig)
        ours = "student.adapters.vision"
        rules = [
            *token_rules(cls_name="cls_token", mask_name="mask_token", patch_name="patch_embed.proj"),
            *both("norm", "student.encoder.norm_out"),
            *both("lm_head", "predictors.vision.layers.0"),
        ]
        if adapter.positions == "learned":
            patches = adapter.grid[0] * adapter.grid[1]
            names = (f"{ours}.extra_tokens.positions", f"{ours}.positions.positions")
            rules.append(Split("pos_embed", names, sizes=(1, patches), axis=1))
        if adapter.relative_bias in ("shared", "both"):
            rules.append(Rename("rel_pos_bias.relative_position_bias_table", f"{ours}.bias.shared"))
            rules.append(Constant("rel_pos_bias.relative_position_index"))
        for i in range(encoder.depth):
            rules += block_rules(f"blocks.{i}", i, encoder.block, mlp=("fc1", "fc2"))
            if adapter.relative_bias in ("layer", "both"):
                there = f"blocks.{i}.attn"
                rules.append(Rename(f"{there}.relative_position_bias_table", f"{ours}.bias.layers.{i}"))
                rules.append(Constant(f"{there}.relative_position_index"))
        return Layout(table=KeyTable(rules), prefixes=("model.",), teacher_prefixes=("ema.",))


def read_arguments(arguments: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """The fields of a model and of its training, out of the arguments of a run and the shapes of its tensors.

    The arguments contain every option of the run, so unknown ones cause no warning.

    Args:
        arguments: the command's arguments.
        shapes: shapes of the model's tensors.

    Raises:
        ValueError: if the model's sizes cannot be determined.
    """
    embed_dim, _, patch, _ = shapes["patch_embed.proj.weight"]
    depth = len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})
    own = f"blocks.0.attn.{_BIAS.rpartition('.')[2]}"
    tables = [shapes[name] for name in (_BIAS, own) if name in shapes]
    fields = {
        "embed_dim": embed_dim,
        "depth": depth,
        "num_heads": _num_heads(arguments, tables),
        "mlp_ratio": shapes["blocks.0.mlp.fc1.weight"][0] / embed_dim,
        "patch_size": patch,
        "img_size": patch * _grid(shapes, tables),
        "init_values": arguments.get("layer_scale_init_value", 0.1) if "blocks.0.gamma_1" in shapes else 0,
        "use_abs_pos_emb": "pos_embed" in shapes,
        "use_shared_rel_pos_bias": _BIAS in shapes,
        "use_rel_pos_bias": own in shapes,
        "target_layers": _target_layers(arguments.get("target_layers", "[]"), depth),
        "num": arguments.get("num_mask_patches", 75),
        "min": arguments.get("min_mask_patches_per_block", 16),
        "max": arguments.get("max_mask_patches_per_block"),
    }
    if arguments.get("imagenet_default_mean_and_std", True) is False:
        fields["mean"] = 0.5
    return fields | {name: arguments.get(name, default) for name, default in _DEFAULTS.items()}


def _num_heads(arguments: Mapping[str, Any], tables: list[tuple[int, ...]]) -> int:
    size = str(arguments.get("model")).split("_")[1:2]
    if tables:
        return tables[0][1]
    if not size or size[0] not in _HEADS:
        raise ValueError("the number of heads is given neither by a relative bias nor by the model's name")
    return _HEADS[size[0]]


def _grid(shapes: Shapes, tables: list[tuple[int, ...]]) -> int:
    """Patches along a side: the tables have (2 w - 1)^2 + 3 rows, learned positions w^2 + 1."""
    if "pos_embed" in shapes:
        return math.isqrt(shapes["pos_embed"][1] - 1)
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
