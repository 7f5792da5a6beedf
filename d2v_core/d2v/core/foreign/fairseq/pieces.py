"""Sections of a 2.0 modality's configuration that several modalities have, and names of block tensors."""

from d2v.core.foreign.config import ForeignConfig
from d2v.core.foreign.formats import Shapes
from d2v.core.foreign.rules import Rule, both
from d2v.core.masks import InverseBlockMasker, Masker, RandomMasker
from d2v.core.model import AlibiConfig, BlockConfig, ContextConfig, TransformerConfig


def block_rules(theirs: str, ours: str, block: BlockConfig) -> list[Rule]:
    """Rules of a block whose queries, keys and values are one matrix."""
    pairs = [("attn.qkv", "attn.qkv"), ("attn.proj", "attn.proj"), ("mlp.fc1", "mlp.0"), ("mlp.fc2", "mlp.3")]
    if block.norm_affine:
        pairs += [("norm1", "norm1"), ("norm2", "norm2")]
    return [rule for a, b in pairs for rule in both(f"{theirs}.{a}", f"{ours}.{b}")]


def read_context(
    own: ForeignConfig, encoder: TransformerConfig, shapes: Shapes, prefix: str, *, always: bool
) -> ContextConfig | None:
    """Prenet blocks and the norm before them.

    Args:
        own: the modality's section.
        encoder: the shared blocks.
        shapes: of the file's tensors, which show whether the norm has weights.
        prefix: of the modality's tensors.
        always: whether the norm exists without prenet blocks (images and speech).
    """
    depth, dropout = own.count("prenet_depth"), own.get("prenet_dropout")
    norm = encoder.block.norm == "post" and (always or depth > 0)
    context = ContextConfig(
        depth=depth,
        norm=norm,
        norm_affine=f"{prefix}.context_encoder.norm.weight" in shapes,
        dropout=dropout if always or depth > 0 else 0.0,
        layer_drop=own.get("prenet_layerdrop"),
        drop_path_rate=(own.get("start_drop_path_rate"), own.get("end_drop_path_rate")),
    )
    return context if norm or depth else None


def read_alibi(own: ForeignConfig, *, axes: int) -> AlibiConfig | None:
    """The distance bias, if it is enabled."""
    own.ignore("alibi_max_pos", "num_alibi_heads", "model_depth")
    own.refuse_unless("learned_alibi", False, why="a learned bias table never worked in the original")
    if own.get("use_alibi_encoder"):
        own.refuse_unless("alibi_dims", axes)
    own.ignore("alibi_dims")
    values = AlibiConfig(
        per_head=own.get("learned_alibi_scale_per_head"),
        per_layer=own.get("learned_alibi_scale_per_layer"),
        scale=own.get("alibi_scale"),
        learned=own.get("learned_alibi_scale"),
        distance=own.get("alibi_distance", "manhattan"),
    )
    return values if own.get("use_alibi_encoder") else None


def read_block_masks(own: ForeignConfig) -> Masker:
    """The block masks of the published data sets of images and speech."""
    own.ignore("add_masks")  # of the span generator in the model class, which published pretraining did not use
    prob, length = own.get("mask_prob"), own.get("mask_length")
    adjust, inverse, dropout = (own.get(field) for field in ("mask_prob_adjust", "inverse_mask", "mask_dropout"))
    if length == 1:
        return RandomMasker(mask_prob=prob)
    return InverseBlockMasker(
        mask_prob=prob, mask_length=length, mask_prob_adjust=adjust, inverse=inverse, mask_dropout=dropout
    )


def read_noise(own: ForeignConfig) -> float:
    """The noise at the hidden positions of the decoder's input."""
    noise = float(own.get("mask_noise_std"))
    return 0.0 if own.get("encoder_zero_mask") else noise
