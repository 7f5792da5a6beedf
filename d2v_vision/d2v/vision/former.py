"""What the two published implementations of 1.0 images share: the transformer, and most of the key table."""

from typing import Any

from d2v.core.foreign import ForeignConfig, Rename, Rule, both
from d2v.core.model import BlockConfig, TransformerConfig
from d2v.core.teacher.targets import TargetNorm

_MOST_PATCHES = 64


def read_norms(model: ForeignConfig, norms: tuple[TargetNorm, ...], *fields: str) -> tuple[TargetNorm, ...]:
    """Those of the norms whose field is on; one field name has a gap for the norm's."""
    names = fields if len(fields) > 1 else [fields[0].format(norm) for norm in norms]
    return tuple(norm for norm, field in zip(norms, names, strict=True) if model.get(field))


def former_encoder(
    *,
    embed_dim: int,
    depth: int,
    num_heads: int,
    mlp_ratio: float,
    eps: float,
    layer_scale: float,
    drop_path_rate: float,
    attention_dropout: float,
) -> TransformerConfig:
    """The transformer of 1.0 images: pre-norm, no bias for keys."""
    block = BlockConfig(
        embed_dim=embed_dim,
        num_heads=num_heads,
        mlp_ratio=mlp_ratio,
        norm="pre",
        norm_eps=eps,
        qkv_bias="qv",
        layer_scale=layer_scale if layer_scale else None,
        attention_dropout=attention_dropout,
    )
    return TransformerConfig(
        block=block, depth=depth, drop_path_rate=(0.0, drop_path_rate), norm_out=True, init="scaled"
    )


def token_rules(*, cls_name: str, mask_name: str, patch_name: str) -> list[Rule]:
    """Rules of class token, mask token and patch embedding."""
    ours = "student.adapters.vision"
    return [
        Rename(cls_name, f"{ours}.extra_tokens.tokens"),
        Rename(mask_name, f"{ours}.mask_token.token"),
        *both(patch_name, f"{ours}.front.proj"),
    ]


def block_rules(there: str, i: int, block: BlockConfig, *, mlp: tuple[str, str]) -> list[Rule]:
    """Rules of a block; `mlp` = what its two linear layers are called."""
    here = f"student.encoder.blocks.{i}"
    rules: list[Rule] = [
        Rename(f"{there}.attn.{name}", f"{here}.attn.{name}") for name in ("qkv.weight", "q_bias", "v_bias")
    ]
    pairs = [("attn.proj", "attn.proj"), (f"mlp.{mlp[0]}", "mlp.0"), (f"mlp.{mlp[1]}", "mlp.3")]
    pairs += [("norm1", "norm1"), ("norm2", "norm2")]
    rules += [rule for a, b in pairs for rule in both(f"{there}.{a}", f"{here}.{b}")]
    if block.layer_scale is not None:
        rules += [Rename(f"{there}.gamma_{k}", f"{here}.scale{k}") for k in (1, 2)]
    return rules


def read_sizes(model: ForeignConfig, image: str, patch: str) -> tuple[int, int]:
    """Sides of images and patches, as far as their positions fit into a memory.

    Args:
        model: the foreign configuration.
        image: field of the image's side.
        patch: field of the patch's.

    Raises:
        ValueError: if there are more than 64 patches along a side, whose relative positions fill the memory.
    """
    size, part = model.count(image, most=1 << 13), model.count(patch, most=1 << 13)
    if part == 0 or size // part > _MOST_PATCHES:
        raise ValueError(f"{model.name}.{image}={size} has more than {_MOST_PATCHES} patches of {part} along a side")
    return size, part


def image_data(size: int, channels: int, **values: Any) -> dict[str, Any]:
    """How images were prepared, as plain values of `ImageDataConfig`; its defaults are the published preparation."""
    return {"kind": "vision/images", "size": size, "channels": channels, **values}
