"""Converters of the original toolkit's published text models: the 2.0 class and the 1.0 class."""

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
    read_context,
    read_noise,
    read_schedule,
    read_target_norms,
    separate_block_rules,
    unpack,
)
from d2v.core.loss import RegressionLoss
from d2v.core.masks import Masker, RandomMasker, SpanMasker
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
from d2v.core.nn.initialisation import Scheme
from d2v.text.config import TextAdapterConfig


def _vocabulary_size(shapes: Shapes, name: str) -> int:
    if name not in shapes:
        raise ValueError(f"{name} is missing; it determines the vocabulary size")
    return shapes[name][0]


def _max_length(shapes: Shapes, prefix: str, stated: int) -> int:
    table = shapes.get(f"{prefix}.embed_positions.weight")
    return stated if table is None else table[0] - 2  # the padding id, 1, and a row before it


class _TextReader:
    decoder_init: Scheme | None = "normal"

    def adapter(self, own: ForeignConfig, encoder: TransformerConfig, shapes: Shapes, prefix: str) -> TextAdapterConfig:
        return TextAdapterConfig(
            vocabulary_size=_vocabulary_size(shapes, f"{prefix}.local_encoder.embed_tokens.weight"),
            max_length=_max_length(shapes, f"{prefix}.local_encoder", own.get("max_source_positions")),
            positions=_positions(own.get("learned_pos"), absent=own.get("no_token_positional_embeddings")),
            scale_embedding=not own.get("no_scale_embedding"),
            norm=own.get("layernorm_embedding"),
            embedding_dropout=own.get("dropout"),
            gradient_scale=own.get("local_grad_mult"),
            alibi=read_alibi(own, axes=1),
            extra_tokens=own.get("num_extra_tokens"),
            first_token_zero=own.get("init_extra_token_zero"),
            context=read_context(own, encoder, shapes, prefix, always=False),
            noise_std=read_noise(own),
        )

    def masker(self, own: ForeignConfig) -> Masker:
        own.ignore("mask_prob_adjust", "inverse_mask")  # random positions and spans know neither
        prob, length = own.get("mask_prob"), own.get("mask_length")
        add, dropout = own.get("add_masks"), own.get("mask_dropout")
        if length == 1:
            return RandomMasker(mask_prob=prob, pad_aware=False)
        return SpanMasker(mask_prob=prob, mask_length=length, add_masks=add, mask_dropout=dropout)

    def data(self, adapter: AdapterConfig, foreign: Mapping[str, Any]) -> None:
        return None

    def rules(self, adapter: AdapterConfig, theirs: str, ours: str) -> list[Rule]:
        assert isinstance(adapter, TextAdapterConfig)
        return _embedding_rules(adapter, f"{theirs}.local_encoder", f"{ours}.front")


@frozen
class FormerTextFormat:
    """The 1.0 text model of the original toolkit."""

    name: str = "data2vec 1.0 text"

    def unpack(self, contents: Mapping[str, Any]) -> Unpacked | None:
        """Return the model in a checkpoint of the toolkit."""
        return unpack(contents)

    def accepts(self, foreign: Mapping[str, Any]) -> bool:
        """Return whether the model is of that class."""
        return {"transformer", "head_layers", "ema_transformer_layers_only"} <= model_section(foreign).keys()

    def config(self, foreign: Mapping[str, Any], shapes: Shapes) -> Description:
        """Convert the fields to a d2v configuration.

        Raises:
            ValueError: if a field is missing, or changes the computation in an unsupported way.
        """
        model = ForeignConfig(model_section(foreign), "model")
        transformer = model.section("transformer")
        size = _vocabulary_size(shapes, "encoder.sentence_encoder.embed_tokens.weight")
        section = transformer.section("encoder")
        encoder = _former_encoder(transformer, section)
        adapter = _former_adapter(transformer, section, size, shapes)
        layers = min(model.get("average_top_k_layers"), encoder.depth)  # the original takes all if there are fewer
        scale = model.get("loss_scale", None)
        each, after = read_target_norms(model, layer=("batch", "instance", "layer"))
        # The original detects the embeddings by the position table's parameter names, and averages them without one.
        fixed = adapter.positions == "learned"
        copied = ("adapters.*.front",) if fixed else ("adapters.*.front.norm",) if adapter.norm else ()
        config = Data2VecConfig(
            student=BackboneConfig(encoder=encoder, adapters={"text": adapter}, visible_only=False),
            predictors={"text": MaskedHeadConfig(num_layers=model.count("head_layers"), init="normal")},
            # Spans may start anywhere, including <s> and </s>, and rows may differ in their number of hidden tokens.
            maskers={"text": SpanMasker(mask_prob=0.35, mask_length=4, reach_end=True, equal_counts=False)},
            targets=TargetsConfig(layers=layers, each=each, after=after),
            teacher=TeacherConfig(
                schedule=read_schedule(model), copy=copied if model.get("ema_transformer_layers_only") else ()
            ),
            loss=RegressionLoss(beta=model.get("loss_beta"), scale=scale if scale is not None and scale > 0 else None),
        )
        _ignore(model, transformer, section)
        return Description(model=config)

    def layout(self, description: Description, shapes: Shapes) -> Layout:
        """Return the key table of a file of this model."""
        student, encoder = own_parts(description)
        adapter = student.adapters["text"]
        assert isinstance(adapter, TextAdapterConfig)
        theirs, head = "encoder.sentence_encoder", whole_model(description).predictors["text"]
        assert isinstance(head, MaskedHeadConfig)
        rules = _embedding_rules(adapter, theirs, "student.adapters.text.front")
        for i in range(encoder.depth):
            rules += separate_block_rules(f"{theirs}.layers.{i}", f"student.encoder.blocks.{i}")
        if encoder.norm_out:
            rules += both(f"{theirs}.layer_norm", "student.encoder.norm_out")
        for i in range(head.num_layers):
            rules += both(f"encoder.regression_head.{2 * i}", f"predictors.text.layers.{2 * i}")
        rules.append(Constant(f"{theirs}.version"))
        # Heads of fine-tuned classifiers are stored next to the model; `classification_head_table` reads them.
        rules += [Constant(name) for name in shapes if name.startswith("classification_heads.")]
        return Layout(table=KeyTable(rules), teacher_prefixes=("encoder._ema.",), teacher_strip=f"{theirs}.")


def _ignore(model: ForeignConfig, transformer: ForeignConfig, section: ForeignConfig) -> None:
    model.ignore("load_checkpoint_heads", "max_positions")
    # Fields of the sequence-to-sequence model whose configuration was reused, and of the run.
    section.ignore("embed_path", "layers_to_keep", "xformers_att_config")
    transformer.ignore(
        "adaptive_input", "adaptive_softmax_cutoff", "adaptive_softmax_dropout", "adaptive_softmax_factor"
    )
    transformer.ignore(
        "base_layers", "base_shuffle", "base_sublayers", "char_inputs", "checkpoint_activations", "decoder"
    )
    transformer.ignore("cross_self_attention", "export", "max_target_positions", "merge_src_tgt_embed", "relu_dropout")
    transformer.ignore("min_params_to_wrap", "no_cross_attention", "no_decoder_final_norm", "offload_activations")
    transformer.ignore("quant_noise", "share_all_embeddings", "share_decoder_input_output_embed")
    transformer.ignore("tie_adaptive_proj", "tie_adaptive_weights")
    for config in (model, transformer, section):
        config.finish()


def classification_head_table(prefix: str) -> KeyTable:
    """Key table from a sentence-classification head, such as "classification_heads.sst2", to `SentenceClassifier`."""
    return KeyTable([rule for part in ("dense", "out_proj") for rule in both(f"{prefix}.{part}", part)])


def _positions(learned: bool, *, absent: bool) -> Any:
    return None if absent else "learned" if learned else "sinusoidal"


def _embedding_rules(adapter: TextAdapterConfig, theirs: str, ours: str) -> list[Rule]:
    rules: list[Rule] = [Rename(f"{theirs}.embed_tokens.weight", f"{ours}.tokens.weight")]
    if adapter.positions == "learned":
        rules.append(Rename(f"{theirs}.embed_positions.weight", f"{ours}.positions.weight"))
    return rules + (both(f"{theirs}.layernorm_embedding", f"{ours}.norm") if adapter.norm else [])


def _former_encoder(transformer: ForeignConfig, section: ForeignConfig) -> TransformerConfig:
    pre = section.get("normalize_before")
    block = BlockConfig(
        embed_dim=section.get("embed_dim"),
        num_heads=section.count("attention_heads"),
        mlp_ratio=section.get("ffn_embed_dim") / section.get("embed_dim"),
        activation=read_activation(transformer),
        norm="pre" if pre else "post",
        norm_eps=1e-5,
        attention_dropout=transformer.get("attention_dropout"),
        projection_dropout=transformer.get("dropout"),
        activation_dropout=transformer.get("activation_dropout"),
        dropout=transformer.get("dropout"),
    )
    return TransformerConfig(
        block=block, depth=section.count("layers"), norm_out=pre, layer_drop=section.get("layerdrop")
    )


def _former_adapter(transformer: ForeignConfig, section: ForeignConfig, size: int, shapes: Shapes) -> TextAdapterConfig:
    return TextAdapterConfig(
        vocabulary_size=size,
        max_length=_max_length(shapes, "encoder.sentence_encoder", transformer.get("max_source_positions")),
        mask_id=size - 1,  # <mask> is appended last
        positions=_positions(
            section.get("learned_pos"), absent=transformer.get("no_token_positional_embeddings", False)
        ),
        scale_embedding=not transformer.get("no_scale_embedding"),
        norm=transformer.get("layernorm_embedding"),
        embedding_dropout=transformer.get("dropout"),
        zero_padding=True,
    )


multimodal_format = MultimodalFormat("data2vec 2.0 text", "text", "TEXT", _TextReader())
converters = (multimodal_format, FormerTextFormat())
