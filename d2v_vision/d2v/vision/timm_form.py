"""The form `timm`: 1.0 image models as the class `Beit` of the timm package, whose tensors have the same names.

Models of data2vec 2.0 have norms after their residuals, which no transformer of that package has.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from d2v.core.description import Description
from d2v.core.exports.encoder import encoder_alone
from d2v.core.exports.hugging_face import write_config, write_tensors
from d2v.core.finite import check_weights
from d2v.core.foreign import ExportForm, KeyTable, both
from d2v.core.labels import Classes
from d2v.core.model import BackboneConfig, TransformerConfig
from d2v.vision.beit import encoder_rules
from d2v.vision.config import ImageAdapterConfig
from d2v.vision.preparation import MEAN, STD
from d2v.vision.tasks.classification import ImageClassification

_ARCHITECTURE, _EPS = "beit_base_patch16_224", 1e-6


def write(folder: Path, module: nn.Module, description: Description) -> Description:
    """Write `config.json` and `model.safetensors`: the encoder, or a classifier with its head.

    Raises:
        ValueError: naming what the class lacks, or if a weight is not finite.
    """
    student = description.student
    if found := list(_differences(description)):
        raise ValueError(f"no class of timm computes the same: {', '.join(found)}")
    assert isinstance(student, BackboneConfig)
    head = _head(description)
    if head is None:
        module, description = encoder_alone(module, description)
    name = "encoder." if head else ""
    rules = [*encoder_rules(student, name), *both("norm", f"{name}encoder.norm_out")]
    if head is not None:
        rules += both("head", "head") + both("fc_norm", "norm")
    tensors = KeyTable(rules).to_theirs(dict(module.state_dict()))
    tensors.pop("mask_token", None)  # of pretraining
    check_weights(tensors, "the model")
    write_config(folder / "config.json", _config(student, description))
    write_tensors(folder / "model.safetensors", tensors)
    return description


def _differences(description: Description) -> Iterator[str]:
    """What the class lacks, by the names of our fields."""
    student = description.student
    if not isinstance(student, BackboneConfig) or not isinstance(student.encoder, TransformerConfig):
        yield f"a {type(student).__name__}"
        return
    encoder, adapter = student.encoder, student.adapters["vision"]
    if not isinstance(adapter, ImageAdapterConfig):
        yield f"a {type(adapter).__name__}"
        return
    fixed: list[tuple[Any, str, Any]] = [
        (encoder.block, "norm", "pre"),
        (encoder.block, "norm_eps", _EPS),
        (encoder.block, "norm_affine", True),
        (encoder.block, "qkv_bias", "qv"),
        (encoder.block, "activation", "gelu"),
        (encoder, "norm_in", False),
        (encoder, "norm_affine", True),
        (adapter, "context", None),
        (adapter, "alibi", None),
        (adapter, "extra_tokens", 1),
    ]
    for config, name, value in fixed:
        given = getattr(config, name)
        if given != value:
            yield f"{name}={given if isinstance(given, str | int | float) else type(given).__name__}"
    if adapter.width not in (None, encoder.embed_dim):
        yield f"width={adapter.width}"
    if adapter.positions not in (None, "learned"):
        yield f"positions={adapter.positions}"
    if not encoder.norm_out and _head(description) is None:
        yield "norm_out=False"


def _head(description: Description) -> ImageClassification | None:
    """The task, if the class has its head: one norm, before or after pooling."""
    task, encoder = description.task, description.student.encoder  # type: ignore[attr-defined]  # a backbone, checked
    if not isinstance(task, ImageClassification) or not isinstance(description.labels, Classes):
        return None
    same = task.norm != encoder.norm_out and task.norm == (task.pooling == "mean")
    return task if same and task.norm_eps in (_EPS, *(() if task.norm else (task.norm_eps,))) else None


def _config(student: BackboneConfig, description: Description) -> dict[str, Any]:
    encoder, adapter = student.encoder, student.adapters["vision"]
    assert isinstance(encoder, TransformerConfig)
    assert isinstance(adapter, ImageAdapterConfig)
    block, labels = encoder.block, description.labels
    count = labels.num_outputs if isinstance(labels, Classes) else 0
    pool = "token" if encoder.norm_out else "avg"
    data = description.data.get("vision", {})
    arguments = {
        "img_size": list(adapter.image_size),
        "patch_size": list(adapter.patch_size),
        "in_chans": adapter.channels,
        "embed_dim": block.embed_dim,
        "depth": encoder.depth,
        "num_heads": block.num_heads,
        # Such that the width of the feed-forward network is not rounded down.
        "mlp_ratio": int(block.embed_dim * block.mlp_ratio + 1e-6) / block.embed_dim,
        "init_values": block.layer_scale,
        "use_abs_pos_emb": adapter.positions == "learned",
        "use_rel_pos_bias": adapter.relative_bias in ("layer", "both"),
        "use_shared_rel_pos_bias": adapter.relative_bias in ("shared", "both"),
    }
    preparation = {
        "input_size": [adapter.channels, *adapter.image_size],
        "fixed_input_size": True,
        "interpolation": "bicubic",
        "mean": list(data.get("mean") or MEAN[adapter.channels]),
        "std": list(data.get("std") or STD[adapter.channels]),
        "num_classes": count,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }
    return {
        "architecture": _ARCHITECTURE,
        "num_classes": count,
        "num_features": block.embed_dim,
        "global_pool": pool,
        **({"label_names": list(labels.names)} if isinstance(labels, Classes) else {}),
        "model_args": {**arguments, "num_classes": count, "global_pool": pool},
        "pretrained_cfg": preparation,
    }


FORM = ExportForm(summary="a 1.0 image model for the timm package", write=write)
