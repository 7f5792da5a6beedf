"""Speech models of Hugging Face, Data2VecAudio: the encoder alone, with CTC, or with a classifier of recordings."""

from collections.abc import Mapping
from typing import Any, ClassVar

from attrs import frozen
from torch import Tensor, nn

from d2v.audio.config import WaveformAdapterConfig
from d2v.audio.conversion.hugging_face_writing import config_of, head_of, preprocessor, vocabulary
from d2v.audio.tasks.classification import AudioClassification
from d2v.audio.tasks.ctc import CTC
from d2v.core.description import Description
from d2v.core.foreign import (
    Exported,
    ForeignConfig,
    Join,
    KeyTable,
    Layout,
    Rename,
    Reshape,
    Rule,
    Shapes,
    both,
    hugging_face,
    own_parts,
)
from d2v.core.labels import Classes, Labels, Symbols
from d2v.core.model import BackboneConfig, BlockConfig, TransformerConfig

_PREFIXES = ("data2vec_audio.",)
_HEADS = ("lm_head", "classifier", "projector", "layer_weights", "feature_extractor_head", "tdnn", "objective")
_MOST_LAYERS, _LARGEST = 100, 1 << 16
# Masks of fine-tuning, which the recipe sets, and fields of heads that d2v lacks.
_UNUSED = (
    *("mask_time_prob", "mask_time_length", "mask_time_min_masks", "mask_feature_prob", "mask_feature_length"),
    *("mask_feature_min_masks", "apply_spec_augment", "vocab_size", "ctc_loss_reduction", "ctc_zero_infinity"),
    *("tdnn_dim", "tdnn_kernel", "tdnn_dilation", "xvector_output_dim", "classifier_proj_size", "output_hidden_size"),
    *("adapter_kernel_size", "adapter_stride", "num_adapter_layers", "num_feat_extract_layers"),
)


@frozen
class _Product:
    """Two linear layers in a row, with nothing between them but a mean: their product is one layer."""

    @property
    def theirs(self) -> tuple[str, ...]:
        """Third-party names."""
        return ("projector.weight", "projector.bias", "classifier.weight", "classifier.bias")

    @property
    def ours(self) -> tuple[str, ...]:
        """Names in this package."""
        return ("head.proj.weight", "head.proj.bias")

    def our_shapes(self, shapes: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Shapes of the product."""
        inner, offset, outer, bias = shapes
        if len(inner) != 2 or len(outer) != 2 or offset != inner[:1] or outer[1] != inner[0] or bias != outer[:1]:
            raise ValueError("are not two linear layers")
        return [(outer[0], inner[1]), bias]

    def to_ours(self, tensors: list[Tensor]) -> list[Tensor]:
        """Multiply, in float64."""
        inner, offset, outer, bias = (tensor.double() for tensor in tensors)
        return [(outer @ inner).float(), (outer @ offset + bias).float()]

    def to_theirs(self, tensors: list[Tensor]) -> list[Tensor]:
        """Refuse: a product has no single pair of factors."""
        raise ValueError("a linear layer cannot be converted back into two")


@frozen
class HuggingFaceAudioFormat(hugging_face.FolderFormat):
    """Data2VecAudio, which computes the same as the 1.0 speech model."""

    types: ClassVar[tuple[str, ...]] = ("data2vec-audio",)

    name: str = "Hugging Face speech"

    def config(self, foreign: Mapping[str, Any], shapes: Shapes) -> Description:
        """Convert the fields to an encoder, with the task if it has a head that this package has.

        Raises:
            ValueError: if a field is missing, or changes the computation in an unsupported way.
        """
        model = hugging_face.config_of(foreign)
        student = _student(model)
        data = {"audio": _data(foreign)}
        fields = {
            "dropout": model.get("hidden_dropout", 0.1),
            "attention_dropout": model.get("attention_dropout", 0.1),
            "activation_dropout": model.get("activation_dropout", 0.1),
            "input_dropout": model.get("feat_proj_dropout", 0.0),
            "final_dropout": model.get("final_dropout", 0.1),
            "layer_drop": model.get("layerdrop", 0.1),
        }
        named, blank = hugging_face.architecture(foreign), model.count("pad_token_id", 0, most=1 << 20)
        model.ignore(*_UNUSED)
        task: CTC | AudioClassification
        labels: Labels
        if "lm_head.weight" in shapes and named in ("", "Data2VecAudioForCTC"):
            task, labels = CTC(**fields), _symbols(foreign, shapes["lm_head.weight"][0], blank)
        elif "projector.weight" in shapes and named in ("", "Data2VecAudioForSequenceClassification"):
            model.refuse_unless("use_weighted_layer_sum", False)
            names = hugging_face.class_names(foreign, shapes["classifier.weight"][0])
            task, labels = (
                AudioClassification(**{**fields, "final_dropout": 0.0}, pooling="mean-features"),
                Classes(names),
            )
        else:
            model.ignore("use_weighted_layer_sum")
            model.finish()
            return Description(model=student, data=data)
        model.ignore("use_weighted_layer_sum")
        model.finish()
        return Description(model=task.adapt(student), data=data, task=task, labels=labels)

    def layout(self, description: Description, shapes: Shapes) -> Layout:
        """Return the key table of a file of this model."""
        student, _ = own_parts(description)
        rules = encoder_rules(student, "encoder." if description.task is not None else "")
        if isinstance(description.task, CTC):
            rules += both("lm_head", "proj")
        elif description.task is not None:
            rules.append(_Product())
        rules += hugging_face.unused(shapes, rules, _PREFIXES, heads=_HEADS)
        return Layout(table=KeyTable(rules), prefixes=_PREFIXES)

    def export(self, module: nn.Module, description: Description) -> Exported:
        """Return the model as a Data2VecAudio.

        Raises:
            ValueError: if that class computes something else.
        """
        student, tensors = hugging_face.student_of(module, description)
        task, kind = description.task, "Data2VecAudioModel"
        config = config_of(student)
        theirs = KeyTable(encoder_rules(student, "")).to_theirs(tensors)
        if task is not None:
            kind, head, more = head_of(module, description)
            theirs = {f"{_PREFIXES[0]}{name}": tensor for name, tensor in theirs.items()} | head
            config |= more
        return self.written(student, kind, config, theirs, self.files(description))

    def files(self, description: Description) -> Mapping[str, bytes]:
        """How recordings are prepared, and the symbols of speech recognition."""
        return preprocessor(description) | vocabulary(description)


def encoder_rules(student: BackboneConfig, name: str) -> list[Rule]:
    """Key table of the encoder; `name` = prefix of its tensors in the module."""
    encoder, adapter, ours = student.encoder, student.adapters["audio"], f"{name}adapters.audio"
    assert isinstance(encoder, TransformerConfig)
    assert isinstance(adapter, WaveformAdapterConfig)
    width = encoder.embed_dim
    rules: list[Rule] = [
        *both("feature_projection.layer_norm", f"{ours}.front.norm"),
        *both("feature_projection.projection", f"{ours}.front.proj"),
        Reshape("masked_spec_embed", f"{ours}.mask_token.token", (width,), (1, 1, width)),
        *both("encoder.layer_norm", f"{name}encoder.norm_in"),
    ]
    for i in range(len(adapter.conv_layers)):
        there, here = f"feature_extractor.conv_layers.{i}", f"{ours}.front.extractor"
        rules += [
            Rename(f"{there}.conv.{part}", f"{here}.convs.{i}.{part}")
            for part in (("weight", "bias") if adapter.conv_bias else ("weight",))
        ]
        rules += both(f"{there}.layer_norm", f"{here}.norms.{i}")
    for i in range(adapter.positions_depth):
        rules += both(f"encoder.pos_conv_embed.layers.{i}.conv", f"{ours}.positions.convs.{i}")
    pairs = (
        ("attention.out_proj", "attn.proj"),
        ("layer_norm", "norm1"),
        ("feed_forward.intermediate_dense", "mlp.0"),
        ("feed_forward.output_dense", "mlp.3"),
        ("final_layer_norm", "norm2"),
    )
    for i in range(encoder.depth):
        there, here = f"encoder.layers.{i}", f"{name}encoder.blocks.{i}"
        for part in ("weight", "bias"):
            rules.append(Join(tuple(f"{there}.attention.{x}_proj.{part}" for x in "qkv"), f"{here}.attn.qkv.{part}"))
        rules += [rule for a, b in pairs for rule in both(f"{there}.{a}", f"{here}.{b}")]
    return rules


def _student(model: ForeignConfig) -> BackboneConfig:
    model.refuse_unless("feat_extract_activation", "gelu")
    model.refuse_unless("feat_extract_norm", "layer", why="data2vec has a norm after each convolution")
    model.refuse_unless("add_adapter", False)
    width, eps = model.count("hidden_size", most=1 << 16), model.get("layer_norm_eps", 1e-5)
    dropout = model.get("hidden_dropout", 0.1)
    block = BlockConfig(
        embed_dim=width,
        num_heads=model.count("num_attention_heads"),
        mlp_ratio=model.count("intermediate_size", most=1 << 20) / width,
        activation=hugging_face.read_activation(model),
        norm="post",
        norm_eps=eps,
        attention_dropout=model.get("attention_dropout", 0.1),
        projection_dropout=dropout,
        activation_dropout=model.get("activation_dropout", 0.1),
        dropout=dropout,
    )
    encoder = TransformerConfig(
        block=block,
        depth=model.count("num_hidden_layers"),
        norm_in=True,
        dropout=dropout,
        layer_drop=model.get("layerdrop", 0.1),
    )
    depth = model.count("num_conv_pos_embeddings", 5, most=_MOST_LAYERS)
    kernel = model.count("conv_pos_kernel_size", 19, most=_LARGEST)
    if kernel < 3:
        raise ValueError(f"config.conv_pos_kernel_size={kernel} cannot be converted: d2v has kernels from 3")
    adapter = WaveformAdapterConfig(
        conv_layers=_conv_layers(model),
        conv_bias=model.get("conv_bias", False),
        norm_eps=eps,
        positions_width=kernel * depth,
        positions_depth=depth,
        positions_groups=model.count("num_conv_pos_embedding_groups", 16, most=_LARGEST),
        alibi=None,
        mask_token=True,
        context=None,
        dropout=model.get("feat_proj_dropout", 0.0),
        zero_padding=True,
    )
    return BackboneConfig(encoder=encoder, adapters={"audio": adapter}, visible_only=False)


def _conv_layers(model: ForeignConfig) -> tuple[tuple[int, int, int], ...]:
    columns = [model.get(name) for name in ("conv_dim", "conv_kernel", "conv_stride")]
    if not all(isinstance(column, list) and 0 < len(column) <= _MOST_LAYERS for column in columns):
        raise ValueError("config.conv_dim, conv_kernel and conv_stride must be lists of a number for each layer")
    if len({len(column) for column in columns}) > 1:
        raise ValueError("config.conv_dim, conv_kernel and conv_stride have different lengths")
    if not all(type(number) is int and 0 < number <= _LARGEST for column in columns for number in column):
        raise ValueError(f"config.conv_dim, conv_kernel and conv_stride must be integers from 1 to {_LARGEST}")
    return tuple(zip(*columns, strict=True))


def _data(foreign: Mapping[str, Any]) -> dict[str, Any]:
    """How recordings were prepared; without the folder's preprocessor as for all published models."""
    given = hugging_face.json_of(foreign, "preprocessor_config.json")
    return {
        "kind": "audio/recordings",
        "sample_rate": given.get("sampling_rate", 16_000),
        "normalize": bool(given.get("do_normalize", True)),
    }


def _symbols(foreign: Mapping[str, Any], count: int, blank: int) -> Symbols:
    """The symbols of `vocab.json`; numbers where it is missing."""
    given = hugging_face.json_of(foreign, "vocab.json")
    if given and isinstance(next(iter(given.values())), dict):  # one vocabulary for each language
        given = {}
    names = {number: symbol for symbol, number in given.items()}
    symbols = tuple(names.get(number, str(number)) for number in range(count))
    return Symbols(
        symbols,
        blank=symbols[blank],
        specials=tuple(one for one in ("<s>", "</s>", "<pad>") if one in symbols and one != symbols[blank]),
        unknown="<unk>" if "<unk>" in symbols else None,
        boundary="|" if "|" in symbols else None,
    )


converters = (HuggingFaceAudioFormat(),)
