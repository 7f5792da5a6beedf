"""The converter of the original toolkit's 1.0 speech models."""

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from d2v.audio.config import WaveformAdapterConfig
from d2v.audio.conversion.published import EXTRACTOR_NORMS, extractor_rules, read_conv_layers, recordings_data
from d2v.core.description import Description
from d2v.core.foreign import (
    ForeignConfig,
    KeyTable,
    Layout,
    Reshape,
    Rule,
    Shapes,
    Unpacked,
    both,
    own_parts,
    whole_model,
)
from d2v.core.foreign.fairseq import (
    model_section,
    read_activation,
    read_schedule,
    read_target_norms,
    separate_block_rules,
    unpack,
)
from d2v.core.loss import RegressionLoss
from d2v.core.masks import ChannelMasker, Masker, SpanMasker
from d2v.core.model import (
    BackboneConfig,
    BlockConfig,
    Data2VecConfig,
    MaskedHeadConfig,
    TargetsConfig,
    TeacherConfig,
    TransformerConfig,
)


@frozen
class FormerAudioFormat:
    """The 1.0 speech model of the original toolkit."""

    name: str = "data2vec 1.0 speech"

    def unpack(self, contents: Mapping[str, Any]) -> Unpacked | None:
        """Return the model in a checkpoint of the toolkit."""
        return unpack(contents)

    def accepts(self, foreign: Mapping[str, Any]) -> bool:
        """Return whether the model is of that class."""
        return {"conv_feature_layers", "average_top_k_layers", "ema_transformer_only"} <= model_section(foreign).keys()

    def config(self, foreign: Mapping[str, Any], shapes: Shapes) -> Description:
        """Convert the fields to a d2v configuration.

        Raises:
            ValueError: if a field is missing, or changes the computation in an unsupported way.
        """
        del shapes
        model = ForeignConfig(model_section(foreign), "model")
        encoder = _former_encoder(model)
        complete = not (model.get("ema_transformer_only") or model.get("ema_layers_only"))
        leave_out = () if complete else ("adapters.*.front", "adapters.*.mask_token")
        copied = ("adapters.*.positions",) if model.get("ema_layers_only") else ()
        each, after = read_target_norms(model, layer=("batch", "instance", "group", "layer"))
        transposed = "batch" in each or "instance" in each
        if ("group" in each or "instance" in after) and not transposed:
            raise ValueError(
                "model.group_norm_target_layer and model.instance_norm_targets cannot be converted without batch or "
                "instance norm of the layers: the original then computes them over the wrong axis"
            )
        layers = min(model.get("average_top_k_layers"), encoder.depth)  # the original takes all if there are fewer
        config = Data2VecConfig(
            student=BackboneConfig(encoder=encoder, adapters={"audio": _former_adapter(model)}, visible_only=False),
            predictors={"audio": MaskedHeadConfig(num_layers=1)},
            maskers={"audio": _former_masker(model, encoder.embed_dim)},
            # The original averages every layer if its teacher is the complete model.
            targets=TargetsConfig(layers=encoder.depth if complete else layers, each=each, after=after),
            teacher=TeacherConfig(schedule=read_schedule(model), leave_out=leave_out, copy=copied),
            loss=RegressionLoss(beta=model.get("loss_beta"), scale=model.get("loss_scale")),
        )
        _refuse(model)
        model.finish()
        data = recordings_data(foreign)
        return Description(model=config, data={"audio": data} if data else {})

    def layout(self, description: Description, shapes: Shapes) -> Layout:
        """Return the key table of a file of this model."""
        del shapes
        student, _ = own_parts(description)
        rules = [*self.encoder_rules(student, "student"), *both("final_proj", "predictors.audio.layers.0")]
        strip = "encoder." if whole_model(description).teacher.leave_out else ""
        return Layout(table=KeyTable(rules), teacher_prefixes=("_ema.",), teacher_strip=strip)

    def encoder_rules(self, student: BackboneConfig, name: str) -> list[Rule]:
        """Key table of the encoder.

        Args:
            student: configuration of the encoder.
            name: its name in the module: "student", or "encoder" in a fine-tuned model.
        """
        encoder, adapter = student.encoder, student.adapters["audio"]
        assert isinstance(encoder, TransformerConfig)
        assert isinstance(adapter, WaveformAdapterConfig)
        ours, embed_dim = f"{name}.adapters.audio", encoder.embed_dim
        norm = "norm_out" if encoder.norm_out else "norm_in"
        rules = [
            *extractor_rules(adapter, "feature_extractor", f"{ours}.front.extractor"),
            *both("layer_norm", f"{ours}.front.norm"),
            *both("post_extract_proj", f"{ours}.front.proj"),
            Reshape("mask_emb", f"{ours}.mask_token.token", (embed_dim,), (1, 1, embed_dim)),
            *both("encoder.layer_norm", f"{name}.encoder.{norm}"),
        ]
        for i in range(adapter.positions_depth):
            rules += both(f"encoder.pos_conv.{i}.0", f"{ours}.positions.convs.{i}")
        for i in range(encoder.depth):
            rules += separate_block_rules(f"encoder.layers.{i}", f"{name}.encoder.blocks.{i}")
        return rules


def _former_encoder(model: ForeignConfig) -> TransformerConfig:
    pre = model.get("layer_norm_first")
    block = BlockConfig(
        embed_dim=model.get("encoder_embed_dim"),
        num_heads=model.count("encoder_attention_heads"),
        mlp_ratio=model.get("encoder_ffn_embed_dim") / model.get("encoder_embed_dim"),
        activation=read_activation(model),
        norm="pre" if pre else "post",
        norm_eps=1e-5,
        attention_dropout=model.get("attention_dropout"),
        projection_dropout=model.get("dropout"),
        activation_dropout=model.get("activation_dropout"),
        dropout=model.get("dropout"),
    )
    return TransformerConfig(
        block=block,
        depth=model.count("encoder_layers"),
        norm_in=not pre,
        norm_out=pre,
        dropout=model.get("dropout"),
        layer_drop=model.get("encoder_layerdrop"),
    )


def _former_adapter(model: ForeignConfig) -> WaveformAdapterConfig:
    model.refuse_unless("extractor_mode", *EXTRACTOR_NORMS)
    if model.get("pos_conv_depth") < 2:
        raise ValueError("model.pos_conv_depth=1 cannot be converted: no data2vec model has the weight-normalised form")
    return WaveformAdapterConfig(
        conv_layers=read_conv_layers(model.get("conv_feature_layers")),
        extractor_norm=EXTRACTOR_NORMS[model.get("extractor_mode")],
        conv_bias=model.get("conv_bias"),
        gradient_scale=model.get("feature_grad_mult"),
        positions_width=model.get("conv_pos"),
        positions_depth=model.count("pos_conv_depth"),
        positions_groups=model.get("conv_pos_groups"),
        alibi=None,
        mask_token=True,
        context=None,
        dropout=model.get("dropout_input"),
        channels_first=model.get("mask_channel_before"),
        zero_padding=True,
    )


def _former_masker(model: ForeignConfig, embed_dim: int) -> Masker:
    spans, channels = read_span_masks(model)
    return spans if channels is None else ChannelMasker(positions=spans, channels=channels, embed_dim=embed_dim)


def read_span_masks(model: ForeignConfig) -> tuple[SpanMasker, SpanMasker | None]:
    """Return the masks of frames, and those of channels or None; fine-tuning has the same fields."""
    spans = SpanMasker(
        mask_prob=model.get("mask_prob"),
        mask_length=model.get("mask_length"),
        selection=model.get("mask_selection"),
        mask_other=model.get("mask_other"),
        no_overlap=model.get("no_mask_overlap"),
        min_space=model.get("mask_min_space"),
        mask_dropout=model.get("mask_dropout"),
        equal_counts=model.get("require_same_masks"),
    )
    prob = model.get("mask_channel_prob")
    fields = {
        "mask_length": model.get("mask_channel_length"),
        "selection": model.get("mask_channel_selection"),
        "mask_other": model.get("mask_channel_other"),
        "no_overlap": model.get("no_mask_channel_overlap"),
        "min_space": model.get("mask_channel_min_space"),
    }
    return spans, None if prob == 0 else SpanMasker(mask_prob=prob, min_masks=0, **fields)


def _refuse(model: ForeignConfig) -> None:
    model.refuse_unless("layer_type", "transformer")
    model.refuse_unless("pos_enc_type", "abs")
    model.refuse_unless("attn_type", "")
    model.refuse_unless("quantize_input", False)
    model.refuse_unless("quantize_targets", False)
    model.refuse_unless("target_glu", False)
    model.refuse_unless("adp_num", -1, 0)
    model.refuse_unless("crop_seq_to_multiple", 1)
    # Fields of wav2vec 2.0, which this class was derived from, and of the run: data2vec never reads them.
    model.ignore("adp_act_fn", "adp_dim", "adp_trf_idx", "checkpoint_activations", "codebook_negatives")
    model.ignore("cross_sample_negatives", "depthwise_conv_kernel_size", "dropout_features", "final_dim", "fp16")
    model.ignore("latent_dim", "latent_groups", "latent_temp", "latent_vars", "logit_temp", "max_positions")
    model.ignore("max_update", "min_pred_var", "min_target_var", "negatives_from_everywhere", "num_negatives")
    model.ignore("quantizer_depth", "quantizer_factor", "required_seq_len_multiple", "same_quantizer")
    model.ignore("self_attn_norm_type", "final_norm_type")  # in a published file, but unknown to the original code
