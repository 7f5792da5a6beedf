"""Code shared by the converters of both published 1.0 image models: the transformer and most of the key table."""

from typing import Any

from d2v.core.foreign import ForeignConfig, Rename, Rule, Split, both
from d2v.core.model import BackboneConfig, BlockConfig, TransformerConfig
from d2v.core.nn.block import Activation
from d2v.core.teacher.targets import TargetNorm
from d2v.vision.config import ImageAdapterConfig
from d2v.vision.positions import BiasTables

_MOST_PATCHES = 64
_TABLES: dict[tuple[bool, bool], BiasTables | None] = {
    (False, False): None,
    (True, False): "shared",
    (False, True): "layer",
    (True, True): "both",
}


def read_norms(model: ForeignConfig, norms: tuple[TargetNorm, ...], *fields: str) -> tuple[TargetNorm, ...]:
    """Return the norms whose field is true; a single field name is a format string for the norm's name."""
    names = fields if len(fields) > 1 else [fields[0].format(norm) for norm in norms]
    return tuple(norm for norm, field in zip(norms, names, strict=True) if model.get(field))


def former_encoder(
    *,
    embed_dim: int,
    depth: int,
    num_heads: int,
    mlp_ratio: float,
    eps: float,
    activation: Activation = "gelu",
    layer_scale: float,
    drop_path_rate: float,
    attention_dropout: float = 0.0,
    projection_dropout: float = 0.0,
    norm_out: bool = True,
) -> TransformerConfig:
    """Create the transformer of the 1.0 image models: pre-norm, no key bias."""
    block = BlockConfig(
        embed_dim=embed_dim,
        num_heads=num_heads,
        mlp_ratio=mlp_ratio,
        activation=activation,
        norm="pre",
        norm_eps=eps,
        qkv_bias="qv",
        layer_scale=layer_scale if layer_scale else None,
        attention_dropout=attention_dropout,
        projection_dropout=projection_dropout,
        dropout=projection_dropout,
    )
    return TransformerConfig(
        block=block, depth=depth, drop_path_rate=(0.0, drop_path_rate), norm_out=norm_out, init="scaled"
    )


def former_student(
    encoder: TransformerConfig,
    *,
    size: int,
    patch: int,
    channels: int = 3,
    positions: bool,
    shared_bias: bool,
    layer_bias: bool,
    mask_token: bool = True,
) -> BackboneConfig:
    """Create the encoder with its adapter.

    Args:
        encoder: transformer.
        size: side of the image in pixels.
        patch: side of a patch in pixels.
        channels: of the image.
        positions: whether each patch has a learned vector.
        shared_bias: whether there is a relative bias that all blocks share.
        layer_bias: whether each block has one.
        mask_token: whether hidden patches are replaced by a learned vector.
    """
    adapter = ImageAdapterConfig(
        image_size=size,
        patch_size=patch,
        channels=channels,
        positions="learned" if positions else None,
        relative_bias=_TABLES[shared_bias, layer_bias],
        extra_tokens_std=0.02,
        mask_token=mask_token,
        context=None,
    )
    return BackboneConfig(encoder=encoder, adapters={"vision": adapter}, visible_only=False)


def token_rules(*, cls_name: str, mask_name: str | None, patch_name: str, name: str = "student.") -> list[Rule]:
    """Rules for class token, mask token and patch embedding; `name` = prefix of the encoder's tensors in the module."""
    ours = f"{name}adapters.vision"
    return [
        Rename(cls_name, f"{ours}.extra_tokens.tokens"),
        *([Rename(mask_name, f"{ours}.mask_token.token")] if mask_name else []),
        *both(patch_name, f"{ours}.front.proj"),
    ]


def position_rules(their_name: str, adapter: ImageAdapterConfig, name: str) -> list[Rule]:
    """Rule for learned positions, of which the first is that of the class token."""
    if adapter.positions != "learned":
        return []
    ours, patches = f"{name}adapters.vision", adapter.grid[0] * adapter.grid[1]
    names = (f"{ours}.extra_tokens.positions", f"{ours}.positions.positions")
    return [Split(their_name, names, sizes=(1, patches), axis=1)]


def block_rules(there: str, i: int, block: BlockConfig, *, mlp: tuple[str, str], name: str = "student.") -> list[Rule]:
    """Rules for a block; `mlp` = the names of its two linear layers."""
    here = f"{name}encoder.blocks.{i}"
    rules: list[Rule] = [
        Rename(f"{there}.attn.{part}", f"{here}.attn.{part}") for part in ("qkv.weight", "q_bias", "v_bias")
    ]
    pairs = [("attn.proj", "attn.proj"), (f"mlp.{mlp[0]}", "mlp.0"), (f"mlp.{mlp[1]}", "mlp.3")]
    pairs += [("norm1", "norm1"), ("norm2", "norm2")]
    rules += [rule for a, b in pairs for rule in both(f"{there}.{a}", f"{here}.{b}")]
    if block.layer_scale is not None:
        rules += [Rename(f"{there}.gamma_{k}", f"{here}.scale{k}") for k in (1, 2)]
    return rules


def read_sizes(model: ForeignConfig, image: str, patch: str) -> tuple[int, int]:
    """Return the side lengths of image and patch; refuse sizes whose relative positions exhaust the memory.

    Args:
        model: the third-party configuration.
        image: field of the image size.
        patch: field of the patch size.

    Raises:
        ValueError: if there are more than 64 patches along a side.
    """
    size, patch_size = model.count(image, most=1 << 13), model.count(patch, most=1 << 13)
    if patch_size == 0 or size // patch_size > _MOST_PATCHES:
        raise ValueError(
            f"{model.name}.{image}={size} has more than {_MOST_PATCHES} patches of {patch_size} along a side"
        )
    return size, patch_size


def image_data(size: int, channels: int, **values: Any) -> dict[str, Any]:
    """Preprocessing as plain values of `ImageDataConfig`, whose defaults are the published preprocessing."""
    return {"kind": "vision/images", "size": size, "channels": channels, **values}
