"""Common parts of the three modalities of the original 2.0 model class: fields, block names, teacher names.

That class contains all modalities (`modality_encoders.IMAGE` ...), so most of its configuration and its key table are
common.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from attrs import frozen

from d2v.core.description import Description
from d2v.core.foreign.config import ForeignConfig
from d2v.core.foreign.converter import own_parts, whole_model
from d2v.core.foreign.fairseq.checkpoint import model_section, unpack
from d2v.core.foreign.fairseq.former import read_schedule, read_target_norms
from d2v.core.foreign.fairseq.pieces import block_rules
from d2v.core.foreign.formats import Layout, Shapes, Unpacked
from d2v.core.foreign.rules import Rename, Reshape, Rule, both
from d2v.core.foreign.tables import KeyTable
from d2v.core.loss import RegressionLoss
from d2v.core.masks import ChannelMasker, Masker, SpanMasker
from d2v.core.model import (
    AdapterConfig,
    AlibiConfig,
    BackboneConfig,
    BlockConfig,
    ContextConfig,
    ConvDecoderConfig,
    Data2VecConfig,
    TargetsConfig,
    TeacherConfig,
    TransformerConfig,
)
from d2v.core.nn.initialisation import Scheme


@frozen
class MultimodalFormat:
    """A converter of one modality of the original 2.0 model class.

    Args:
        name: for messages.
        modality: name of the modality in this package.
        kind: name of the modality in the original toolkit, such as "IMAGE".
        reader: reads the modality's specific part.
    """

    name: str
    modality: str
    kind: str
    reader: "ModalityReader"

    def unpack(self, contents: Mapping[str, Any]) -> Unpacked | None:
        """The model in a checkpoint of the toolkit."""
        return unpack(contents)

    def accepts(self, foreign: Mapping[str, Any]) -> bool:
        """Whether the model is of that class and of this modality."""
        model = model_section(foreign)
        return "modalities" in model and model.get("supported_modality") == self.kind

    def config(self, foreign: Mapping[str, Any], shapes: Shapes) -> Description:
        """The model's configuration in this package.

        Raises:
            ValueError: if a field is missing, or changes the computation in an unsupported way.
        """
        model = ForeignConfig(model_section(foreign), "model")
        own = model.section("modalities").section(self.kind.lower())
        encoder = _encoder(model, shapes)
        adapter = self.reader.adapter(own, encoder, shapes, f"modality_encoders.{self.kind}")
        noise_std = own.get("mask_noise_std")
        config = Data2VecConfig(
            student=BackboneConfig(encoder=encoder, adapters={self.modality: adapter}),
            predictors={
                self.modality: _decoder(own.section("decoder"), adapter.dims, noise_std, self.reader.decoder_init)
            },
            maskers={self.modality: _with_channels(self.reader.masker(own), own, encoder.embed_dim)},
            targets=_targets(model),
            teacher=_teacher(model, own),
            loss=RegressionLoss(beta=model.get("loss_beta"), scale=model.get("loss_scale")),
            num_masks=model.get("clone_batch"),
            regression_weight=model.get("d2v_loss", 1.0),
            cls_weight=model.get("cls_loss"),
            pixel_weight=model.get("recon_loss"),
            seed=model.get("seed", 1),
        )
        _refuse(model, own)
        model.finish()
        own.finish()
        data = self.reader.data(adapter, foreign)
        return Description(model=config, data={self.modality: data} if data else {})

    def layout(self, description: Description, shapes: Shapes) -> Layout:
        """Where a file of this model stores its tensors."""
        config = whole_model(description)
        student, _ = own_parts(description)
        rules = [*self.encoder_rules(student, "student"), *self._predictor_rules(config)]
        encoder_only = "adapters.*" in config.teacher.leave_out
        strip = "blocks." if encoder_only else ""
        return Layout(table=KeyTable(rules), teacher_prefixes=("_ema.",), teacher_strip=strip)

    def encoder_rules(self, student: BackboneConfig, name: str) -> list[Rule]:
        """Key table of the encoder.

        Args:
            student: configuration of the encoder.
            name: its name in the module: "student", or "encoder" in a fine-tuned model.
        """
        encoder = student.encoder
        assert isinstance(encoder, TransformerConfig)
        theirs, ours = f"modality_encoders.{self.kind}", f"{name}.adapters.{self.modality}"
        block, adapter = encoder.block, student.adapters[self.modality]
        context: ContextConfig | None = getattr(adapter, "context", None)
        rules: list[Rule] = self.reader.rules(adapter, theirs, ours)
        for i in range(encoder.depth):
            rules += block_rules(f"blocks.{i}", f"{name}.encoder.blocks.{i}", block)
        for i in range(context.depth if context else 0):
            rules += block_rules(f"{theirs}.context_encoder.blocks.{i}", f"{ours}.context.blocks.{i}", block)
        if context is not None and context.norm and context.norm_affine:
            rules += both(f"{theirs}.context_encoder.norm", f"{ours}.context.norm_in")
        if encoder.norm_out and encoder.norm_affine:
            rules += both("norm", f"{name}.encoder.norm_out")
        alibi: AlibiConfig | None = getattr(adapter, "alibi", None)
        if alibi is not None:
            layers = encoder.depth + (context.depth if context else 0) if alibi.per_layer else 1
            heads = encoder.num_heads if alibi.per_head else 1
            shape = (layers, 1, heads, 1, 1)
            rules.append(Reshape(f"{theirs}.alibi_scale", f"{ours}.bias.scale", shape, (layers, heads)))
        if getattr(adapter, "extra_tokens", 0):
            rules.append(Rename(f"{theirs}.extra_tokens", f"{ours}.extra_tokens.tokens"))
        return rules

    def _predictor_rules(self, config: Data2VecConfig) -> list[Rule]:
        rules: list[Rule] = []
        decoder = config.predictors[self.modality]
        assert isinstance(decoder, ConvDecoderConfig)
        theirs, predictor = f"modality_encoders.{self.kind}", f"predictors.{self.modality}.decoder"
        for i in range(decoder.num_layers):
            rules += both(f"{theirs}.decoder.blocks.{i}.0", f"{predictor}.convs.{i}")
        for i in range(decoder.projection_layers):
            suffix = f".{2 * i}" if decoder.projection_layers > 1 else ""
            rules += both(f"{theirs}.decoder.proj{suffix}", f"{predictor}.proj.{2 * i}")
        if config.pixel_weight:
            rules += both("recon_proj", f"pixel_heads.{self.modality}")
        return rules


class ModalityReader(Protocol):
    """Reads the parts of the configuration that are specific to a modality."""

    @property
    def decoder_init(self) -> Scheme | None:
        """Initialisation of the decoder's projection."""
        ...

    def adapter(self, own: ForeignConfig, encoder: TransformerConfig, shapes: Shapes, prefix: str) -> AdapterConfig:
        """The adapter's configuration."""
        ...

    def masker(self, own: ForeignConfig) -> Masker:
        """The masker of published pretraining."""
        ...

    def data(self, adapter: AdapterConfig, foreign: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Preparation of the input, as plain values of a data configuration; None = unknown."""
        ...

    def rules(self, adapter: AdapterConfig, theirs: str, ours: str) -> list[Rule]:
        """Key table of the front end and the positions."""
        ...


def _encoder(model: ForeignConfig, shapes: Shapes) -> TransformerConfig:
    embed_dim = model.get("embed_dim")
    pre = model.get("layer_norm_first")
    block = BlockConfig(
        embed_dim=embed_dim,
        num_heads=model.count("num_heads"),
        mlp_ratio=model.get("mlp_ratio"),
        norm="pre_lossy" if pre else "post",
        norm_eps=model.get("norm_eps"),
        norm_affine=model.get("norm_affine"),
        attention_dropout=model.get("attention_dropout"),
        projection_dropout=model.get("encoder_dropout"),
        activation_dropout=model.get("activation_dropout"),
        branch_dropout=model.get("activation_dropout"),
        dropout=model.get("post_mlp_drop"),
    )
    return TransformerConfig(
        block=block,
        depth=model.count("depth"),
        drop_path_rate=(model.get("start_drop_path_rate"), model.get("end_drop_path_rate")),
        norm_out=pre,
        norm_affine="norm.weight" in shapes,
        dropout=model.get("dropout_input"),
        layer_drop=model.get("layerdrop"),
        init="xavier" if model.get("mae_init") else "normal",
    )


def _decoder(decoder: ForeignConfig, dims: int, noise_std: float, init: Scheme | None) -> ConvDecoderConfig:
    for field in ("add_positions_masked", "add_positions_all"):
        decoder.refuse_unless(field, False)
    decoder.ignore("final_layer_norm")  # in one published file, but not a field of the toolkit's code
    projections = decoder.count("projection_layers")
    config = ConvDecoderConfig(
        decoder_dim=decoder.get("decoder_dim"),
        num_layers=decoder.count("decoder_layers"),
        kernel_size=decoder.get("decoder_kernel"),
        groups=decoder.get("decoder_groups"),
        residual=decoder.get("decoder_residual"),
        projection_layers=1 if dims == 2 else projections,  # 2-d decoders ignore the field and have one
        projection_ratio=decoder.get("projection_ratio"),
        noise_std=noise_std,
        dropout=decoder.get("input_dropout"),
        init=init,
    )
    decoder.finish()
    return config


def _with_channels(masker: Masker, own: ForeignConfig, embed_dim: int) -> Masker:
    prob, length = own.get("mask_channel_prob"), own.get("mask_channel_length")
    if prob == 0:
        return masker
    channels = SpanMasker(mask_prob=prob, mask_length=length, min_masks=0)
    return ChannelMasker(positions=masker, channels=channels, embed_dim=embed_dim)


def _targets(model: ForeignConfig) -> TargetsConfig:
    each, after = read_target_norms(model, layer=("batch", "instance", "layer"))
    return TargetsConfig(
        layers=min(model.get("average_top_k_layers"), model.get("depth")),  # the original averages at most all layers
        kind="block" if model.get("end_of_block_targets") else "ffn",
        each=each,
        after=after,
    )


def _teacher(model: ForeignConfig, own: ForeignConfig) -> TeacherConfig:
    schedule = read_schedule(model)
    has_front = own.get("ema_local_encoder")
    if model.get("ema_encoder_only"):
        leave_out = ("adapters.*", *(("encoder.norm_out",) if model.get("layer_norm_first") else ()))
        return TeacherConfig(schedule=schedule, leave_out=leave_out)
    return TeacherConfig(schedule=schedule, leave_out=() if has_front else ("adapters.*.front",))


def _refuse(model: ForeignConfig, own: ForeignConfig) -> None:
    model.ignore("drop_path_rate")  # image classifiers store it in the configuration of their encoder
    model.ignore("ema_same_dtype", "log_norms", "max_update", "decoder_group", "modalities", "supported_modality")
    model.ignore("min_target_var", "min_pred_var")  # the stop rule belongs to the run, not to the model
    model.refuse_unless("shared_decoder", None)
    model.refuse_unless("skip_ema", False, why="without a teacher there is nothing to pretrain")
    own.ignore("type", "remove_masks", "mask_prob_min")
    own.refuse_unless("mask_prob_min", None, why="a mask ratio drawn for each batch is not supported")
    own.refuse_unless("keep_masked_pct", 0, 0.0, why="hidden positions that stay visible are not supported")
