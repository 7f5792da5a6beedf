"""Converters of the original toolkit's published image models: the 2.0 class and the 1.0 class."""

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from d2v.core.description import Description
from d2v.core.foreign import (
    Constant,
    Converter,
    ForeignConfig,
    KeyTable,
    Layout,
    Rename,
    Rule,
    Shapes,
    Unpacked,
    both,
    own_parts,
    whole_model,
)
from d2v.core.foreign.fairseq import (
    FineTunedFormat,
    MultimodalFormat,
    model_section,
    read_alibi,
    read_block_masks,
    read_context,
    read_noise,
    unpack,
)
from d2v.core.loss import RegressionLoss
from d2v.core.masks import BlockMasker, Masker
from d2v.core.model import (
    AdapterConfig,
    BackboneConfig,
    Data2VecConfig,
    MaskedHeadConfig,
    TargetsConfig,
    TeacherConfig,
    TransformerConfig,
)
from d2v.core.teacher import EMASchedule
from d2v.vision.beit import BeitFormat, FineTunedBeitFormat
from d2v.vision.config import ImageAdapterConfig
from d2v.vision.convert_fine_tuned import ImageClassificationReader
from d2v.vision.former import block_rules, former_encoder, image_data, read_norms, read_sizes, token_rules
from d2v.vision.hugging_face import converters as hugging_face


class _ImageReader:
    decoder_init = None

    def adapter(
        self, own: ForeignConfig, encoder: TransformerConfig, shapes: Shapes, prefix: str
    ) -> ImageAdapterConfig:
        own.refuse_unless("transformer_decoder", False)
        own.refuse_unless("enc_dec_transformer", False)
        width, (size, patch) = own.get("embed_dim"), read_sizes(own, "input_size", "patch_size")
        return ImageAdapterConfig(
            image_size=size,
            patch_size=patch,
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

    def data(self, adapter: AdapterConfig, foreign: Mapping[str, Any]) -> Mapping[str, Any]:
        assert isinstance(adapter, ImageAdapterConfig)
        return image_data(adapter.image_size[0], adapter.channels)

    def rules(self, adapter: AdapterConfig, theirs: str, ours: str) -> list[Rule]:
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

    def unpack(self, contents: Mapping[str, Any]) -> Unpacked | None:
        """Return the model in a checkpoint of the toolkit."""
        return unpack(contents)

    def accepts(self, foreign: Mapping[str, Any]) -> bool:
        """Return whether the model is of that class."""
        return {"shared_rel_pos_bias", "image_size", "num_mask_patches"} <= model_section(foreign).keys()

    def config(self, foreign: Mapping[str, Any], shapes: Shapes) -> Description:
        """Convert the fields to a d2v configuration.

        Raises:
            ValueError: if a field is missing, or changes the computation in an unsupported way.
        """
        del shapes
        model = ForeignConfig(model_section(foreign), "model")
        model.ignore("mlp_ratio", "max_update")  # the original ignores its ratio: the MLP is always 4 d wide
        model.refuse_unless("shared_rel_pos_bias", True, why="the original fails without the shared bias")
        scale, (size, patch) = model.get("loss_scale"), read_sizes(model, "image_size", "patch_size")
        leave_out = ("adapters.*.front", "adapters.*.extra_tokens", "adapters.*.mask_token")
        config = Data2VecConfig(
            student=BackboneConfig(
                encoder=former_encoder(
                    embed_dim=model.get("embed_dim"),
                    depth=model.count("depth"),
                    num_heads=model.count("num_heads"),
                    mlp_ratio=4,
                    eps=1e-5,
                    layer_scale=model.get("layer_scale_init_value"),
                    drop_path_rate=model.get("drop_path"),
                    attention_dropout=model.get("attention_dropout"),
                ),
                adapters={
                    "vision": ImageAdapterConfig(
                        image_size=size,
                        patch_size=patch,
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
                layers=min(
                    model.get("average_top_k_layers"), model.get("depth")
                ),  # the original takes all layers if there are fewer
                kind="block" if model.get("end_of_block_targets") else "ffn",
                each=read_norms(model, ("batch", "instance", "layer"), "{}_norm_target_layer"),
                after=read_norms(model, ("layer", "instance"), "{}_norm_targets"),
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
        return Description(model=config, data={"vision": image_data(size, model.get("in_channels"))})

    def layout(self, description: Description, shapes: Shapes) -> Layout:
        """Return the key table of a file of this model."""
        del shapes
        _, encoder = own_parts(description)
        rules = [
            *token_rules(cls_name="cls_emb", mask_name="mask_emb", patch_name="patch_embed.conv"),
            Rename("encoder.rel_pos_bias.relative_position_bias_table", "student.adapters.vision.bias.shared"),
            Constant("encoder.rel_pos_bias.relative_position_index"),
            *both("encoder.norm", "student.encoder.norm_out"),
            *(Constant(f"final_proj.{part}") for part in ("weight", "bias")),  # never used by the original
        ]
        for i in range(encoder.depth):
            rules += block_rules(f"encoder.blocks.{i}", i, encoder.block, mlp=("0", "2"))
        strip = "encoder." if whole_model(description).teacher.leave_out else ""
        return Layout(table=KeyTable(rules), teacher_prefixes=("_ema.",), teacher_strip=strip)


_NEW = MultimodalFormat("data2vec 2.0 images", "vision", "IMAGE", _ImageReader())
converters: tuple[Converter, ...] = (
    _NEW,
    FormerImageFormat(),
    FineTunedFormat(_NEW, ImageClassificationReader()),
    FineTunedBeitFormat(),
    BeitFormat(),
    *hugging_face,
)
