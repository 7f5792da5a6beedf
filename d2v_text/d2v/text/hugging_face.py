"""Text models of Hugging Face: Data2VecText and RoBERTa, the encoder alone or with a classifier of texts."""

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

from attrs import frozen
from torch import Tensor, nn

from d2v.core.description import Description
from d2v.core.foreign import (
    Exported,
    ForeignConfig,
    Join,
    KeyTable,
    Layout,
    Rename,
    Rule,
    Shapes,
    both,
    hugging_face,
    own_parts,
)
from d2v.core.labels import Classes, Labels, Number
from d2v.core.model import BackboneConfig, BlockConfig, TransformerConfig
from d2v.text.config import TextAdapterConfig
from d2v.text.tasks.classification import TextClassification, TextRegression
from d2v.text.tokenizing import tokenizer_of

_PREFIXES = ("data2vec_text.", "roberta.")
_TOKENS, _POSITIONS = "embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"
_KINDS = "embeddings.token_type_embeddings.weight"
_HEADS = ("classifier", "lm_head", "qa_outputs")
_TOKENIZER = ("vocab.json", "merges.txt")


@frozen
class _Fold:
    """The vector of the first kind of token, which every token has, is added to the vectors of the positions."""

    their_name: str
    our_name: str

    @property
    def theirs(self) -> tuple[str, ...]:
        """Third-party names."""
        return (self.their_name, _KINDS)

    @property
    def ours(self) -> tuple[str, ...]:
        """Names in this package."""
        return (self.our_name,)

    def our_shapes(self, shapes: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """The shape of the positions."""
        positions, kinds = shapes
        if len(positions) != 2 or len(kinds) != 2 or positions[1] != kinds[1] or not kinds[0]:
            raise ValueError("are of different widths")
        return [positions]

    def to_ours(self, tensors: list[Tensor]) -> list[Tensor]:
        """Add."""
        positions, kinds = tensors
        return [positions.float() + kinds[0].float()]

    def to_theirs(self, tensors: list[Tensor]) -> list[Tensor]:
        """The positions, and zeros for a single kind."""
        return [tensors[0], tensors[0].new_zeros(1, tensors[0].shape[1])]


@frozen
class HuggingFaceTextFormat(hugging_face.FolderFormat):
    """Data2VecText and RoBERTa, which compute the same."""

    types: ClassVar[tuple[str, ...]] = ("data2vec-text", "roberta")

    name: str = "Hugging Face text"

    def guess(self, shapes: Shapes) -> Mapping[str, Any] | None:
        """Configuration of a RoBERTa encoder from its shapes."""
        if _TOKENS not in shapes or len(shapes[_TOKENS]) != 2:
            return None
        return {
            "hidden_size": shapes[_TOKENS][1],
            "num_hidden_layers": len({name.split(".")[2] for name in shapes if name.startswith("encoder.layer.")}),
            **hugging_face.guessed_heads(shapes[_TOKENS][1]),
            "intermediate_size": shapes["encoder.layer.0.intermediate.dense.weight"][0],
            "layer_norm_eps": 1e-5,
        }

    def config(self, foreign: Mapping[str, Any], shapes: Shapes) -> Description:
        """Convert the fields to an encoder, with the task if it is a classifier.

        Raises:
            ValueError: if a field is missing, or changes the computation in an unsupported way.
        """
        model, own = hugging_face.config_of(foreign), hugging_face.without_prefix(shapes, _PREFIXES)
        student = _student(model, own)
        dropout = model.get("classifier_dropout", None)
        dropout = model.get("hidden_dropout_prob", 0.1) if dropout is None else dropout
        kind = hugging_face.problem_type(foreign)
        model.finish()
        files = _tokenizer(foreign)
        data = {"text": {"kind": "text/sentences"}} if files else {}
        if not _is_classifier(foreign, own):
            return Description(model=student, data=data, files=files)
        count = own["classifier.out_proj.weight"][0]
        if kind == "multi_label_classification":
            raise ValueError(f"config.problem_type={kind!r} cannot be converted: d2v does not have it for text")
        task: TextClassification | TextRegression = TextRegression(dropout=dropout)
        labels: Labels = Number()
        if kind == "regression" and count > 1:
            raise ValueError(f"regression of {count} numbers cannot be converted: d2v has one number for each text")
        if count > 1:
            task = TextClassification(dropout=dropout)
            labels = Classes(hugging_face.class_names(foreign, count))
        return Description(model=task.adapt(student), data=data, task=task, labels=labels, files=files)

    def layout(self, description: Description, shapes: Shapes) -> Layout:
        """Return the key table of a file of this model."""
        student, _ = own_parts(description)
        rules = encoder_rules(student, "encoder." if description.task is not None else "")
        if description.task is not None:
            rules += [rule for part in ("dense", "out_proj") for rule in both(f"classifier.{part}", part)]
        rules += hugging_face.unused(shapes, rules, _PREFIXES, heads=_HEADS)
        return Layout(table=KeyTable(rules), prefixes=_PREFIXES)

    def export(self, module: nn.Module, description: Description) -> Exported:
        """Return the model as a Data2VecText.

        Raises:
            ValueError: if that class computes something else.
        """
        student, tensors = hugging_face.student_of(module, description)
        task, labels, kind = description.task, description.labels, "Data2VecTextModel"
        config = _config_of(student)
        theirs = KeyTable(encoder_rules(student, "")).to_theirs(tensors)
        if task is not None:
            if not isinstance(task, TextClassification | TextRegression):
                raise ValueError(f"a {type(task).__name__} cannot be written for Hugging Face")
            kind = "Data2VecTextForSequenceClassification"
            theirs = {f"{_PREFIXES[0]}{name}": tensor for name, tensor in theirs.items()}
            scale = task.label_scale if isinstance(task, TextRegression) else 1.0
            for name, tensor in module.state_dict().items():
                if not name.startswith("encoder."):
                    theirs[f"classifier.{name}"] = tensor * scale if name.startswith("out_proj.") else tensor
            config |= {"problem_type": "regression", **hugging_face.labels_config(["LABEL_0"])}
            if isinstance(labels, Classes):
                config |= hugging_face.labels_config(labels.names) | {"problem_type": "single_label_classification"}
        return self.written(student, kind, config, theirs, self.files(description))

    def files(self, description: Description) -> Mapping[str, bytes]:
        """The tokenizer, if the model has one."""
        files = {name: content for name, content in description.files.items() if name in _TOKENIZER}
        if files:
            files["tokenizer_config.json"] = hugging_face.as_json({"tokenizer_class": "RobertaTokenizer"})
        return files


def _config_of(student: BackboneConfig) -> dict[str, Any]:
    encoder, adapter = student.encoder, student.adapters["text"]
    assert isinstance(encoder, TransformerConfig)
    assert isinstance(adapter, TextAdapterConfig)
    block = encoder.block
    if adapter.positions != "learned" or not adapter.norm:
        raise ValueError(f"no class of Hugging Face has positions={adapter.positions}, norm={adapter.norm}")
    return {
        "vocab_size": adapter.vocabulary_size,
        "hidden_size": block.embed_dim,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": block.num_heads,
        "intermediate_size": int(block.embed_dim * block.mlp_ratio + 1e-6),
        "hidden_act": block.activation,
        "layer_norm_eps": block.norm_eps,
        "hidden_dropout_prob": block.projection_dropout,
        "attention_probs_dropout_prob": block.attention_dropout,
        "max_position_embeddings": adapter.max_length + adapter.padding_id + 1,
        "type_vocab_size": 1,
        "pad_token_id": adapter.padding_id,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }


def encoder_rules(student: BackboneConfig, name: str) -> list[Rule]:
    """Key table of the encoder; `name` = prefix of its tensors in the module."""
    encoder, front = student.encoder, f"{name}adapters.text.front"
    assert isinstance(encoder, TransformerConfig)
    rules: list[Rule] = [
        Rename(_TOKENS, f"{front}.tokens.weight"),
        _Fold(_POSITIONS, f"{front}.positions.weight"),
        *both("embeddings.LayerNorm", f"{front}.norm"),
    ]
    pairs = (
        ("attention.output.dense", "attn.proj"),
        ("attention.output.LayerNorm", "norm1"),
        ("intermediate.dense", "mlp.0"),
        ("output.dense", "mlp.3"),
        ("output.LayerNorm", "norm2"),
    )
    for i in range(encoder.depth):
        there, here = f"encoder.layer.{i}", f"{name}encoder.blocks.{i}"
        for part in ("weight", "bias"):
            names = tuple(f"{there}.attention.self.{which}.{part}" for which in ("query", "key", "value"))
            rules.append(Join(names, f"{here}.attn.qkv.{part}"))
        rules += [rule for a, b in pairs for rule in both(f"{there}.{a}", f"{here}.{b}")]
    return rules


def _student(model: ForeignConfig, own: Shapes) -> BackboneConfig:
    model.refuse_unless("position_embedding_type", "absolute", None)
    model.ignore("type_vocab_size", "max_position_embeddings", "vocab_size")  # the tensors tell
    width, padding = model.count("hidden_size", most=1 << 16), model.count("pad_token_id", 1, most=1 << 20)
    for name in (_TOKENS, _POSITIONS):
        if len(own.get(name, ())) != 2:
            raise ValueError(f"{name} is missing or not a matrix; it determines the vocabulary and the longest text")
    size, dropout, eps = own[_TOKENS][0], model.get("hidden_dropout_prob", 0.1), model.get("layer_norm_eps", 1e-12)
    block = BlockConfig(
        embed_dim=width,
        num_heads=model.count("num_attention_heads"),
        mlp_ratio=model.count("intermediate_size", most=1 << 20) / width,
        activation=hugging_face.read_activation(model),
        norm="post",
        norm_eps=eps,
        attention_dropout=model.get("attention_probs_dropout_prob", 0.1),
        projection_dropout=dropout,
        dropout=dropout,
    )
    adapter = TextAdapterConfig(
        vocabulary_size=size,
        max_length=own[_POSITIONS][0] - padding - 1,
        padding_id=padding,
        mask_id=size - 1,  # <mask> is the last symbol of published vocabularies
        norm_eps=eps,
        embedding_dropout=dropout,
    )
    encoder = TransformerConfig(block=block, depth=model.count("num_hidden_layers"))
    return BackboneConfig(encoder=encoder, adapters={"text": adapter}, visible_only=False)


def _tokenizer(foreign: Mapping[str, Any]) -> dict[str, bytes]:
    """Files of the folder's tokenizer; none where they are missing or not those of a data2vec model."""
    files = {name: content for name in _TOKENIZER if (content := hugging_face.file_of(foreign, name)) is not None}
    if len(files) < len(_TOKENIZER):
        return {}
    try:
        tokenizer_of(files)
    except (ValueError, ImportError) as error:
        warnings.warn(f"the tokenizer in the folder is not used: {error}", stacklevel=2)
        return {}
    return files


def _is_classifier(foreign: Mapping[str, Any], own: Shapes) -> bool:
    named = hugging_face.architecture(foreign)
    return "classifier.out_proj.weight" in own and (not named or named.endswith("ForSequenceClassification"))


converters = (HuggingFaceTextFormat(),)
