"""Converters of the original toolkit's published speech models: the 2.0 class and the 1.0 class."""

import ast
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from d2v.audio.config import WaveformAdapterConfig
from d2v.audio.extractor import ConvSpec
from d2v.core.description import Description
from d2v.core.foreign import (
    ForeignConfig,
    KeyTable,
    Layout,
    Rename,
    Reshape,
    Rule,
    Shapes,
    Unpacked,
    both,
    own_parts,
    whole_model,
)
from d2v.core.foreign.fairseq import (
    MultimodalFormat,
    model_section,
    read_activation,
    read_alibi,
    read_block_masks,
    read_context,
    read_noise,
    read_schedule,
    read_target_norms,
    separate_block_rules,
    unpack,
)
from d2v.core.loss import RegressionLoss
from d2v.core.masks import ChannelMasker, Masker, SpanMasker
from d2v.core.model import (
    AdapterConfig,
    BackboneConfig,
    BlockConfig,
    Data2VecConfig,
    MaskedHeadConfig,
    TargetsConfig,
    TeacherConfig,
    TransformerConfig,
)

_EXTRACTOR_NORMS = {"layer_norm": "layer", "default": "group"}
_LONGEST_SPEC, _MOST_LAYERS, _LARGEST_NUMBER = 4000, 100, 1 << 16


def read_conv_layers(spec: str | list[Any]) -> tuple[ConvSpec, ...]:
    """Parse convolutions from a Python expression in a file, such as "[(512, 10, 5)] + [(512, 3, 2)] * 4".

    The expression is parsed, never run: only lists of three integers, + and * are allowed. Limits on length, layers and
    numbers prevent a malicious file from filling the memory.

    Raises:
        ValueError: if the expression contains anything else.

    >>> read_conv_layers("[(8, 10, 5)] + [(8, 3, 2)] * 2")
    ((8, 10, 5), (8, 3, 2), (8, 3, 2))
    """
    try:
        layers = _parse(spec) if isinstance(spec, str) else spec
        if not 0 < len(layers) <= _MOST_LAYERS:
            raise ValueError(f"{len(layers)} layers")
        return tuple(_conv_spec(*layer) for layer in layers)
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError) as error:
        shown = repr(spec)
        shown = shown if len(shown) <= 100 else f"{shown[:100]}..."
        raise ValueError(f"{shown} is not a list of (channels, kernel, stride)") from error


def _conv_spec(channels: Any, kernel: Any, stride: Any) -> ConvSpec:
    for number in (channels, kernel, stride):
        if type(number) is not int or not 0 < number <= _LARGEST_NUMBER:  # excludes True
            raise ValueError(f"{number!r} is not an integer from 1 to {_LARGEST_NUMBER}")
    return channels, kernel, stride


def _parse(spec: str) -> Any:
    if len(spec) > _LONGEST_SPEC:
        raise ValueError(f"{len(spec)} characters")
    return _evaluate(ast.parse(spec, mode="eval").body)


def _evaluate(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        values = [_evaluate(part) for part in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mult):
        left, right = _evaluate(node.left), _evaluate(node.right)
        if isinstance(node.op, ast.Add) and isinstance(left, list) and isinstance(right, list):
            return left + right
        repeats = isinstance(node.op, ast.Mult) and isinstance(left, list) and isinstance(right, int)
        if repeats and len(left) * right <= _MOST_LAYERS:
            return left * right
    raise ValueError(f"{type(node).__name__} is not allowed")


class _AudioReader:
    decoder_init = None

    def adapter(
        self, own: ForeignConfig, encoder: TransformerConfig, shapes: Shapes, prefix: str
    ) -> WaveformAdapterConfig:
        own.refuse_unless("conv_pos_pre_ln", False)
        own.refuse_unless("extractor_mode", *_EXTRACTOR_NORMS)
        return WaveformAdapterConfig(
            conv_layers=read_conv_layers(own.get("feature_encoder_spec")),
            extractor_norm=_EXTRACTOR_NORMS[own.get("extractor_mode")],  # type: ignore[arg-type]  # refused above if unknown
            gradient_scale=own.get("local_grad_mult"),
            positions_width=own.get("conv_pos_width"),
            positions_depth=own.count("conv_pos_depth"),
            positions_groups=own.get("conv_pos_groups"),
            alibi=read_alibi(own, axes=1),
            extra_tokens=own.get("num_extra_tokens"),
            first_token_zero=own.get("init_extra_token_zero"),
            context=read_context(own, encoder, shapes, prefix, always=True),
            noise_std=read_noise(own),
        )

    def masker(self, own: ForeignConfig) -> Masker:
        return read_block_masks(own)

    def data(self, adapter: AdapterConfig, foreign: Mapping[str, Any]) -> None:
        return None

    def rules(self, adapter: AdapterConfig, theirs: str, ours: str) -> list[Rule]:
        assert isinstance(adapter, WaveformAdapterConfig)
        rules = _extractor_rules(adapter, f"{theirs}.local_encoder", f"{ours}.front.extractor")
        rules += both(f"{theirs}.project_features.1", f"{ours}.front.norm")
        rules += both(f"{theirs}.project_features.2", f"{ours}.front.proj")
        for i in range(adapter.positions_depth):
            rules += both(f"{theirs}.relative_positional_encoder.{i + 1}.0", f"{ours}.positions.convs.{i}")
        return rules


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
        return Description(model=config)

    def layout(self, description: Description, shapes: Shapes) -> Layout:
        """Return the key table of a file of this model."""
        del shapes
        student, encoder = own_parts(description)
        adapter = student.adapters["audio"]
        assert isinstance(adapter, WaveformAdapterConfig)
        ours, embed_dim = "student.adapters.audio", encoder.embed_dim
        norm = "norm_out" if encoder.norm_out else "norm_in"
        rules = [
            *_extractor_rules(adapter, "feature_extractor", f"{ours}.front.extractor"),
            *both("layer_norm", f"{ours}.front.norm"),
            *both("post_extract_proj", f"{ours}.front.proj"),
            Reshape("mask_emb", f"{ours}.mask_token.token", (embed_dim,), (1, 1, embed_dim)),
            *both("encoder.layer_norm", f"student.encoder.{norm}"),
            *both("final_proj", "predictors.audio.layers.0"),
        ]
        for i in range(adapter.positions_depth):
            rules += both(f"encoder.pos_conv.{i}.0", f"{ours}.positions.convs.{i}")
        for i in range(encoder.depth):
            rules += separate_block_rules(f"encoder.layers.{i}", f"student.encoder.blocks.{i}")
        strip = "encoder." if whole_model(description).teacher.leave_out else ""
        return Layout(table=KeyTable(rules), teacher_prefixes=("_ema.",), teacher_strip=strip)


def _extractor_rules(adapter: WaveformAdapterConfig, theirs: str, ours: str) -> list[Rule]:
    rules: list[Rule] = []
    for i in range(len(adapter.conv_layers)):
        parts = ("weight", "bias") if adapter.conv_bias else ("weight",)
        rules += [Rename(f"{theirs}.conv_layers.{i}.0.{part}", f"{ours}.convs.{i}.{part}") for part in parts]
        if adapter.extractor_norm == "layer":
            rules += both(f"{theirs}.conv_layers.{i}.2.1", f"{ours}.norms.{i}")
    if adapter.extractor_norm == "group":
        rules += both(f"{theirs}.conv_layers.0.2", f"{ours}.norms.0")
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
    model.refuse_unless("extractor_mode", *_EXTRACTOR_NORMS)
    if model.get("pos_conv_depth") < 2:
        raise ValueError("model.pos_conv_depth=1 cannot be converted: no data2vec model has the weight-normalised form")
    return WaveformAdapterConfig(
        conv_layers=read_conv_layers(model.get("conv_feature_layers")),
        extractor_norm=_EXTRACTOR_NORMS[model.get("extractor_mode")],  # type: ignore[arg-type]  # refused above if unknown
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
    channels = {
        "mask_length": model.get("mask_channel_length"),
        "selection": model.get("mask_channel_selection"),
        "mask_other": model.get("mask_channel_other"),
        "no_overlap": model.get("no_mask_channel_overlap"),
        "min_space": model.get("mask_channel_min_space"),
    }
    if prob == 0:
        return spans
    return ChannelMasker(
        positions=spans, channels=SpanMasker(mask_prob=prob, min_masks=0, **channels), embed_dim=embed_dim
    )


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


converters = (MultimodalFormat("data2vec 2.0 speech", "audio", "AUDIO", _AudioReader()), FormerAudioFormat())
