"""Published image models: the 2.0 class, the 1.0 class, and the BEiT-based 1.0 repository."""

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from d2v.core.foreign import Constant, ForeignConfig, KeyTable, Layout, Rename, Rule, Shapes, Split, own_parts
from d2v.core.foreign.multimodal import MultimodalFormat, both, read_alibi, read_block_masks, read_context, read_noise
from d2v.core.loss import RegressionLoss
from d2v.core.masks import BlockMasker, Masker
from d2v.core.model import (
    BackboneConfig,
    BlockConfig,
    Data2VecConfig,
    MaskedHeadConfig,
    TargetsConfig,
    TeacherConfig,
    TransformerConfig,
)
from d2v.core.teacher import EMASchedule
from d2v.core.teacher.targets import TargetNorm
from d2v.vision.config import ImageAdapterConfig


class _ImageReader:
    decoder_init = None

    def adapter(
        self, own: ForeignConfig, encoder: TransformerConfig, shapes: Shapes, prefix: str
    ) -> ImageAdapterConfig:
        own.refuse_unless("transformer_decoder", False)
        own.refuse_unless("enc_dec_transformer", False)
        width = own.get("embed_dim")
        return ImageAdapterConfig(
            image_size=own.get("input_size"),
            patch_size=own.get("patch_size"),
            channels=own.get("in_chans"),
            width=None if width == encoder.embed_dim else width,
            positions="sincos" if own.get("fixed_positions") else None,
            alibi=read_alibi(own, axes=2),
            extra_tokens=own.get("num_extra_tokens"),
            first_token_zero=own.get("init_extra_token_zero"),
            context=read_context(own, encoder, shapes, prefix, always=True),
            noise_std=read_noise(own),
            gradient_scale=own.get("local_grad_mult"),
        )

    def masker(self, own: ForeignConfig) -> Masker:
        return read_block_masks(own)

    def rules(self, config: Data2VecConfig, theirs: str, ours: str) -> list[Rule]:
        (adapter,) = own_parts(config)[0].adapters.values()
        assert isinstance(adapter, ImageAdapterConfig)
        if adapter.width is None:
            rules = both(f"{theirs}.local_encoder.proj", f"{ours}.front.proj")
        else:
            rules = both(f"{theirs}.local_encoder.0.proj", f"{ours}.front.proj")
            rules += both(f"{theirs}.local_encoder.1", f"{ours}.front.widen")
        if adapter.positions is not None:
            rules.append(Rename(f"{theirs}.fixed_positional_encoder.positions", f"{ours}.positions.positions"))
        return rules


@frozen
class FormerImageFormat:
    """The 1.0 image model of the original toolkit."""

    name: str = "data2vec 1.0 images"

    def accepts(self, foreign: Mapping[str, Any]) -> bool:
        """Whether the configuration is of that class."""
        return {"shared_rel_pos_bias", "image_size", "num_mask_patches"} <= foreign.keys()

    def config(self, foreign: Mapping[str, Any], shapes: Shapes) -> Data2VecConfig:
        """Our configuration.

        Raises:
            ValueError: if a field is missing, or changes the computation in a way that we lack.
        """
        del shapes
        model = ForeignConfig(foreign, "model")
        model.ignore("mlp_ratio", "max_update")  # the original ignores its own ratio: the network is always 4 d wide
        model.refuse_unless("shared_rel_pos_bias", True, why="the original fails without the shared bias")
        scale = model.get("loss_scale")
        leave_out = ("adapters.*.front", "adapters.*.extra_tokens", "adapters.*.mask_token")
        config = Data2VecConfig(
            student=BackboneConfig(
                encoder=_encoder(
                    embed_dim=model.get("embed_dim"),
                    depth=model.get("depth"),
                    num_heads=model.get("num_heads"),
                    mlp_ratio=4,
                    eps=1e-5,
                    layer_scale=model.get("layer_scale_init_value"),
                    drop_path_rate=model.get("drop_path"),
                    attention_dropout=model.get("attention_dropout"),
                ),
                adapters={
                    "vision": ImageAdapterConfig(
                        image_size=model.get("image_size"),
                        patch_size=model.get("patch_size"),
                        channels=model.get("in_channels"),
                        positions=None,
                        relative_bias="shared",
                        extra_tokens_std=0.02,
                        mask_token=True,
                        context=None,
                    )
                },
                visible_only=False,
            ),
            predictors={"vision": MaskedHeadConfig(num_layers=0)},
            maskers={
                "vision": BlockMasker(
                    num_masked=model.get("num_mask_patches"),
                    min_per_block=model.get("min_mask_patches_per_block"),
                    max_per_block=model.get("max_mask_patches_per_block"),
                )
            },
            targets=TargetsConfig(
                layers=min(model.get("average_top_k_layers"), model.get("depth")),  # the original takes what there is
                kind="block" if model.get("end_of_block_targets") else "ffn",
                each=_norms(model, ("batch", "instance", "layer"), "{}_norm_target_layer"),
                after=_norms(model, ("layer", "instance"), "{}_norm_targets"),
            ),
            teacher=TeacherConfig(
                schedule=EMASchedule(
                    model.get("ema_decay"), end=model.get("ema_end_decay"), anneal=model.get("ema_anneal_end_step")
                ),
                leave_out=leave_out if model.get("ema_transformer_only") else (),
            ),
            loss=RegressionLoss(beta=model.get("loss_beta"), scale=1.0 if scale is not None and scale <= 0 else scale),
        )
        model.finish()
        return config

    def layout(self, config: Data2VecConfig, shapes: Shapes) -> Layout:
        """Where a file of this model keeps its tensors."""
        del shapes
        _, encoder = own_parts(config)
        rules = [
            *_token_rules(cls_name="cls_emb", mask_name="mask_emb", patch_name="patch_embed.conv"),
            Rename("encoder.rel_pos_bias.relative_position_bias_table", "student.adapters.vision.bias.shared"),
            Constant("encoder.rel_pos_bias.relative_position_index"),
            *both("encoder.norm", "student.encoder.norm_out"),
            *(Constant(f"final_proj.{part}") for part in ("weight", "bias")),  # never used by the original
        ]
        for i in range(encoder.depth):
            rules += _block_rules(f"encoder.blocks.{i}", i, encoder.block, mlp=("0", "2"))
        strip = "encoder." if config.teacher.leave_out else ""
        return Layout(KeyTable(rules), teacher_prefix="_ema.", teacher_strip=strip)


@frozen
class BeitFormat:
    """The 1.0 image model of the BEiT-based repository, which made the published results."""

    name: str = "data2vec 1.0 images, BEiT-based"

    def accepts(self, foreign: Mapping[str, Any]) -> bool:
        """Whether the configuration is of that repository."""
        return {"use_shared_rel_pos_bias", "target_layers"} <= foreign.keys()

    def config(self, foreign: Mapping[str, Any], shapes: Shapes) -> Data2VecConfig:
        """Our configuration, out of the model's and the run's arguments together.

        Raises:
            ValueError: if a field is missing, or changes the computation in a way that we lack.
        """
        del shapes
        model = ForeignConfig(foreign, "arguments")
        model.ignore(
            "lr", "weight_decay", "clip_grad", "var_w1", "var_margin1"
        )  # of the optimiser, or ignored there too
        shared, own = model.get("use_shared_rel_pos_bias"), model.get("use_rel_pos_bias", False)
        model.refuse_unless("mask_dropout_prob", -1, -1.0, 0, 0.0)
        scale, beta = model.get("loss_scale", -1), model.get("l1_beta")
        config = Data2VecConfig(
            student=BackboneConfig(
                encoder=_encoder(
                    embed_dim=model.get("embed_dim"),
                    depth=model.get("depth"),
                    num_heads=model.get("num_heads"),
                    mlp_ratio=model.get("mlp_ratio"),
                    eps=model.get("layer_norm_eps", 1e-6),
                    layer_scale=model.get("init_values"),
                    drop_path_rate=model.get("drop_path", 0.0),
                    attention_dropout=model.get("attn_drop_rate", 0.0),
                ),
                adapters={
                    "vision": ImageAdapterConfig(
                        image_size=model.get("img_size"),
                        patch_size=model.get("patch_size"),
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
                each=_norms(
                    model,
                    ("batch", "instance", "layer"),
                    "target_batch_norm",
                    "target_instance_norm",
                    "target_layer_norm_last",
                ),
                after=_norms(model, ("instance", "layer"), "post_target_instance_norm", "post_target_layer_norm"),
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
        model.finish()
        return config

    def layout(self, config: Data2VecConfig, shapes: Shapes) -> Layout:
        """Where a file of this model keeps its tensors."""
        del shapes
        student, encoder = own_parts(config)
        adapter = student.adapters["vision"]
        assert isinstance(adapter, ImageAdapterConfig)
        ours = "student.adapters.vision"
        rules = [
            *_token_rules(cls_name="cls_token", mask_name="mask_token", patch_name="patch_embed.proj"),
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
            rules += _block_rules(f"blocks.{i}", i, encoder.block, mlp=("fc1", "fc2"))
            if adapter.relative_bias in ("layer", "both"):
                there = f"blocks.{i}.attn"
                rules.append(Rename(f"{there}.relative_position_bias_table", f"{ours}.bias.layers.{i}"))
                rules.append(Constant(f"{there}.relative_position_index"))
        return Layout(KeyTable(rules), teacher_prefix="ema.", student_prefix="model.")


def _norms(model: ForeignConfig, norms: tuple[TargetNorm, ...], *fields: str) -> tuple[TargetNorm, ...]:
    names = fields if len(fields) > 1 else [fields[0].format(norm) for norm in norms]
    return tuple(norm for norm, field in zip(norms, names, strict=True) if model.get(field))


def _encoder(
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


def _token_rules(*, cls_name: str, mask_name: str, patch_name: str) -> list[Rule]:
    ours = "student.adapters.vision"
    return [
        Rename(cls_name, f"{ours}.extra_tokens.tokens"),
        Rename(mask_name, f"{ours}.mask_token.token"),
        *both(patch_name, f"{ours}.front.proj"),
    ]


def _block_rules(there: str, i: int, block: BlockConfig, *, mlp: tuple[str, str]) -> list[Rule]:
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


converters = (
    MultimodalFormat("data2vec 2.0 images", "vision", "IMAGE", _ImageReader()),
    FormerImageFormat(),
    BeitFormat(),
)
