"""Hugging Face models: their configuration, and what the classes of all modalities have in common.

The names of tensors begin with the name of the encoder if there is a head.
"""

import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import attrs
from torch import Tensor, nn

from d2v.core.description import Description
from d2v.core.foreign.config import ForeignConfig
from d2v.core.foreign.formats import Exported, Layout, Shapes, Unpacked
from d2v.core.foreign.rules import Constant, Rule
from d2v.core.foreign.sources import CONFIG
from d2v.core.foreign.stored import tensors_below
from d2v.core.foreign.tables import KeyTable
from d2v.core.model import BackboneConfig, TransformerConfig
from d2v.core.nn.block import Activation
from d2v.core.state_dict import shapes_of

_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "relu": "relu",
    "gelu_new": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
}
# Fields of every configuration that do not change what an encoder computes.
_COMMON = (
    *("_name_or_path", "architectures", "model_type", "torch_dtype", "dtype", "transformers_version", "problem_type"),
    *("id2label", "label2id", "num_labels", "finetuning_task", "task_specific_params", "tokenizer_class", "prefix"),
    *("initializer_range", "return_dict", "use_return_dict", "output_hidden_states", "output_attentions"),
    *("torchscript", "gradient_checkpointing", "chunk_size_feed_forward", "attn_implementation"),
    "_attn_implementation",
    *("_attn_implementation_autoset", "bos_token_id", "eos_token_id", "sep_token_id", "decoder_start_token_id"),
    *("use_cache", "tie_word_embeddings", "tie_encoder_decoder", "auto_map", "use_bfloat16"),
)
_COMPUTED = ("position_ids", "token_type_ids", "relative_position_index")
# Fields of this package's configurations that do not change the features of whole inputs.
_TRAINING_ONLY = frozenset(
    {"attention_dropout", "projection_dropout", "activation_dropout", "branch_dropout", "dropout", "layer_drop"}
    | {"drop_path_rate", "init", "extra_tokens_std", "first_token_zero", "gradient_scale", "visible_only", "noise_std"}
    | {"embedding_dropout", "channels_first", "mask_id", "zero_padding", "mlp_ratio"}
)
_KEY, _FILES, _GUESSED = "hugging_face", "files", "guessed"
_HEAD_WIDTH, _NUM_HEADS = 64, "num_attention_heads"


def guessed_heads(embed_dim: int) -> dict[str, int]:
    """The field of the number of heads, which weights do not tell: the usual 64 channels each, if that is possible."""
    return {} if embed_dim % _HEAD_WIDTH else {_NUM_HEADS: embed_dim // _HEAD_WIDTH}


class FolderFormat(ABC):
    """Common part of the converters: folders, and files of another repository (`data2vec`, `encoder`).

    Such a file has no configuration. It is guessed, or completed by `config.json` in the same folder.

    Attributes:
        types: values of `model_type`; models are written with the first.
    """

    types: ClassVar[tuple[str, ...]]

    @abstractmethod
    def config(self, foreign: Mapping[str, Any], shapes: Shapes) -> Description:
        """Description of the converted model, see `Converter`."""

    def guess(self, shapes: Shapes) -> Mapping[str, Any] | None:
        """Configuration of an encoder from its shapes; None = it is of another type."""
        del shapes
        return None

    def unpack(self, contents: Mapping[str, Any]) -> Unpacked | None:
        """The model in a folder or a file; None if it is of another type."""
        config, weights = contents.get("config"), contents.get("weights", {})
        if isinstance(config, Mapping):
            if config.get("model_type") not in self.types or not isinstance(weights, Mapping):
                return None
            return Unpacked({_KEY: config, _FILES: contents.get(_FILES, {})}, tensors_below(weights))
        if "data2vec" not in contents or not isinstance(contents.get("encoder"), Mapping):
            return None
        tensors = tensors_below(contents["encoder"])
        guessed = self.guess({name: tensor.shape for name, tensor in tensors.items()})
        if guessed is None:
            return None
        return Unpacked({_KEY: {**guessed, "model_type": self.types[0]}, _GUESSED: True}, tensors)

    def accepts(self, foreign: Mapping[str, Any]) -> bool:
        """Whether the model is of one of the types."""
        config = foreign.get(_KEY)
        return isinstance(config, Mapping) and config.get("model_type") in self.types

    def file_beside(self, foreign: Mapping[str, Any]) -> str | None:
        """Name of the configuration if it was guessed."""
        return CONFIG if foreign.get(_GUESSED) else None

    def completed(self, foreign: Mapping[str, Any], beside: Mapping[str, Any]) -> Mapping[str, Any]:
        """The description with the configuration of the other file."""
        return {_KEY: beside[_KEY]}

    def written(
        self,
        student: BackboneConfig,
        kind: str,
        config: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        files: Mapping[str, bytes],
    ) -> Exported:
        """A model as a class of Hugging Face has it.

        Args:
            student: configuration of the encoder.
            kind: name of the class.
            config: fields of its configuration.
            tensors: by its names.
            files: further files by name.

        Raises:
            ValueError: naming each setting of the encoder that reading the result does not give.
        """
        config = {**config, "architectures": [kind], "model_type": self.types[0]}
        back = self.config({_KEY: config, _FILES: files}, shapes_of(tensors)).student
        if found := list(_differences(student, back, "model")):
            raise ValueError(f"no class of Hugging Face computes the same: {', '.join(found)}")
        return Exported(config, tensors, files)


def config_of(foreign: Mapping[str, Any]) -> ForeignConfig:
    """The configuration of an unpacked folder, with the fields of every model ignored."""
    config = ForeignConfig(foreign[_KEY], "config")
    if foreign.get(_GUESSED):
        if _NUM_HEADS not in config:
            raise ValueError(
                f"the file does not give the number of heads; put the encoder's {CONFIG} into the same folder"
            )
        warnings.warn(
            f"the file has no configuration: heads of {_HEAD_WIDTH} channels and usual values are assumed; put the "
            f"encoder's {CONFIG} into the same folder if they differ",
            stacklevel=2,
        )
    config.ignore(*_COMMON)
    config.refuse_unless("pruned_heads", {}, None)
    config.refuse_unless("is_decoder", False)
    config.refuse_unless("add_cross_attention", False)
    return config


def file_of(foreign: Mapping[str, Any], name: str) -> bytes | None:
    """A file next to the weights; None if it is missing."""
    files = foreign.get(_FILES, {})
    return files.get(name) if isinstance(files, Mapping) else None


def json_of(foreign: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A mapping in a JSON file next to the weights; empty if it is missing or broken."""
    try:
        values = json.loads(file_of(foreign, name) or b"{}")
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, Mapping) else {}


def architecture(foreign: Mapping[str, Any]) -> str:
    """The class that was saved, such as "Data2VecAudioForCTC"; "" if it is unknown."""
    named = foreign[_KEY].get("architectures")
    return str(named[0]) if isinstance(named, list) and named else ""


def problem_type(foreign: Mapping[str, Any]) -> str | None:
    """The kind of problem that a classifier was trained on; None = the configuration does not say."""
    found = foreign[_KEY].get("problem_type")
    return found if isinstance(found, str) else None


def without_prefix(shapes: Shapes, prefixes: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Shapes by names without the name of the encoder."""
    return Layout(table=KeyTable([]), prefixes=prefixes).divide(shapes)[0]


def read_activation(config: ForeignConfig) -> Activation:
    """The activation of the blocks."""
    config.refuse_unless("hidden_act", *_ACTIVATIONS)
    return _ACTIVATIONS[config.get("hidden_act", "gelu")]


def class_names(foreign: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """Names of the classes; numbers where the configuration has none, and after a name that occurs twice.

    >>> class_names({"hugging_face": {"id2label": {"0": "crane", "1": "crane", "2": "LABEL_2"}}}, 4)
    ('crane', 'crane (1)', '2', '3')
    """
    given = foreign[_KEY].get("id2label")
    known = {str(number): str(name) for number, name in given.items()} if isinstance(given, Mapping) else {}
    names: list[str] = []
    for number in range(count):
        name = known.get(str(number), f"LABEL_{number}")
        name = str(number) if name == f"LABEL_{number}" else name
        names.append(f"{name} ({number})" if name in names else name)
    return tuple(names)


def unused(shapes: Shapes, rules: Iterable[Rule], prefixes: tuple[str, ...], *, heads: tuple[str, ...]) -> list[Rule]:
    """Rules for tensors that have no part in the features: computed indices, and heads that this package lacks.

    Args:
        shapes: of the file's tensors.
        rules: of the tensors that are used.
        prefixes: of the encoder's tensors.
        heads: first part of the names of tensors outside the encoder.
    """
    known = {name for rule in rules for name in rule.theirs}
    found: list[Rule] = []
    lost = set()
    for name in shapes:
        short = next((name.removeprefix(prefix) for prefix in prefixes if name.startswith(prefix)), name)
        first, last = short.split(".")[0], short.rpartition(".")[2]
        if short in known:
            continue
        if first in heads and short == name:
            lost.add(first)
            found.append(Constant(short))
        elif last in _COMPUTED or first == "pooler":
            found.append(Constant(short))
    if lost:
        warnings.warn(f"only the encoder was read, not the head: {', '.join(sorted(lost))}", stacklevel=2)
    return found


def student_of(module: nn.Module, description: Description) -> tuple[BackboneConfig, dict[str, Tensor]]:
    """Configuration and tensors of the encoder of a model.

    Raises:
        ValueError: if it is not an encoder of this package.
    """
    config = description.student
    if not isinstance(config, BackboneConfig) or not isinstance(config.encoder, TransformerConfig):
        raise ValueError(f"a {type(config).__name__} cannot be written for Hugging Face")
    return config, dict(description.encoder_of(module).state_dict())


def _differences(ours: Any, theirs: Any, name: str) -> Iterator[str]:
    if attrs.has(type(ours)) and type(ours) is type(theirs):
        for field in attrs.fields(type(ours)):
            if field.name not in _TRAINING_ONLY:
                yield from _differences(getattr(ours, field.name), getattr(theirs, field.name), f"{name}.{field.name}")
    elif isinstance(ours, Mapping) and isinstance(theirs, Mapping) and ours.keys() == theirs.keys():
        for key in ours:
            yield from _differences(ours[key], theirs[key], f"{name}.{key}")
    elif ours != theirs:
        shown = type(ours).__name__ if attrs.has(type(ours)) else repr(ours)
        yield f"{name}={shown}"


def labels_config(names: Sequence[str]) -> dict[str, Any]:
    """Fields of the names of classes."""
    return {
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }


def as_json(values: Mapping[str, Any]) -> bytes:
    """The content of a JSON file."""
    return (json.dumps(dict(values), indent=1) + "\n").encode()
