"""Image models of Hugging Face: Data2VecVision and BEiT, the encoder alone or with a classifier."""

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

from attrs import frozen
from torch import nn

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
from d2v.core.labels import Classes
from d2v.core.model import BackboneConfig, TransformerConfig
from d2v.vision.beit_arguments import grid_of
from d2v.vision.config import ImageAdapterConfig
from d2v.vision.former import former_encoder, former_student, image_data, position_rules, read_sizes, token_rules
from d2v.vision.preparation import MEAN, STD
from d2v.vision.tasks.classification import ImageClassification

_PREFIXES = ("data2vec_vision.", "beit.")
_TABLE = "relative_position_bias.relative_position_bias_table"
_PATCH = "embeddings.patch_embeddings.projection.weight"
_HEADS = ("classifier", "decode_head", "auxiliary_head", "fpn1", "fpn2", "fpn3", "fpn4", "lm_head", "layernorm")
_SEGMENTATION = (
    *("out_indices", "out_features", "stage_names", "pool_scales", "semantic_loss_ignore_index", "use_auxiliary_head"),
    *("auxiliary_channels", "auxiliary_concat_input", "auxiliary_loss_weight", "auxiliary_num_convs", "add_fpn"),
    *("reshape_hidden_states", "vocab_size", "encoder_stride"),
)


@frozen
class HuggingFaceImageFormat(hugging_face.FolderFormat):
    """Data2VecVision and BEiT, which compute the same."""

    types: ClassVar[tuple[str, ...]] = ("data2vec-vision", "beit")

    name: str = "Hugging Face images"

    def guess(self, shapes: Shapes) -> Mapping[str, Any] | None:
        """Configuration of a BEiT encoder from its shapes."""
        if _PATCH not in shapes or len(shapes[_PATCH]) != 4:
            return None
        width, channels, patch = shapes[_PATCH][:3]
        own = f"encoder.layer.0.attention.attention.{_TABLE}"
        tables = [shapes[name] for name in (f"encoder.{_TABLE}", own) if name in shapes]
        positions = shapes.get("embeddings.position_embeddings")
        return {
            "hidden_size": width,
            "num_channels": channels,
            "patch_size": patch,
            "image_size": patch * grid_of(positions, tables),
            "num_hidden_layers": len({name.split(".")[2] for name in shapes if name.startswith("encoder.layer.")}),
            **({"num_attention_heads": tables[0][1]} if tables else hugging_face.guessed_heads(width)),
            "intermediate_size": shapes["encoder.layer.0.intermediate.dense.weight"][0],
            "layer_scale_init_value": 0.1 if "encoder.layer.0.lambda_1" in shapes else 0.0,
            "use_mask_token": "embeddings.mask_token" in shapes,
            "use_absolute_position_embeddings": positions is not None,
            "use_shared_relative_position_bias": f"encoder.{_TABLE}" in shapes,
            "use_relative_position_bias": own in shapes,
            "use_mean_pooling": "layernorm.weight" not in shapes,
        }

    def config(self, foreign: Mapping[str, Any], shapes: Shapes) -> Description:
        """Convert the fields to an encoder, with the task if it is a classifier.

        Raises:
            ValueError: if a field is missing, or changes the computation in an unsupported way.
        """
        model = hugging_face.config_of(foreign)
        model.ignore(*_SEGMENTATION)
        mean, own = model.get("use_mean_pooling", True), hugging_face.without_prefix(shapes, _PREFIXES)
        # A pretrained file without its last norm ends at its last block, as do models whose classifier has the norm.
        student = _student(model, norm_out=not mean and "layernorm.weight" in own)
        data = {"vision": _data(foreign, model)}
        if not _is_classifier(foreign, own):
            model.ignore("drop_path_rate")
            model.finish()
            return Description(model=student, data=data)
        task = ImageClassification(
            pooling="mean" if mean else "class-token",
            norm=mean,
            norm_eps=model.get("layer_norm_eps", 1e-12),
            drop_path_rate=model.get("drop_path_rate", 0.1),
        )
        model.finish()
        labels = Classes(hugging_face.class_names(foreign, own["classifier.weight"][0]))
        return Description(model=task.adapt(student), data=data, task=task, labels=labels)

    def layout(self, description: Description, shapes: Shapes) -> Layout:
        """Return the key table of a file of this model."""
        student, encoder = own_parts(description)
        name = "encoder." if description.task is not None else ""
        rules = encoder_rules(student, name)
        if encoder.norm_out:
            rules += both("layernorm", f"{name}encoder.norm_out")
        if isinstance(description.task, ImageClassification):
            rules += both("classifier", "head")
            rules += both("pooler.layernorm", "norm") if description.task.norm else []
        rules += hugging_face.unused(shapes, rules, _PREFIXES, heads=_HEADS)
        return Layout(table=KeyTable(rules), prefixes=_PREFIXES)

    def export(self, module: nn.Module, description: Description) -> Exported:
        """Return the model as a Data2VecVision.

        Raises:
            ValueError: if that class computes something else.
        """
        student, tensors = hugging_face.student_of(module, description)
        task, labels = description.task, description.labels
        config = _config_of(student)
        rules = encoder_rules(student, "")
        if student.encoder.norm_out:  # type: ignore[attr-defined]  # a transformer, see student_of
            rules += both("layernorm", "encoder.norm_out")
        theirs = KeyTable(rules).to_theirs(tensors)
        kind = "Data2VecVisionModel"
        if task is not None:
            if not isinstance(task, ImageClassification) or not isinstance(labels, Classes):
                raise ValueError(f"a {type(task).__name__} cannot be written for Hugging Face")
            if task.norm == student.encoder.norm_out or task.norm != (task.pooling == "mean"):  # type: ignore[attr-defined]
                raise ValueError("Data2VecVision has one norm: after the mean of patches, or before the class token")
            if task.norm and task.norm_eps != config["layer_norm_eps"]:
                raise ValueError(f"task.norm_eps={task.norm_eps} is not that of the blocks, {config['layer_norm_eps']}")
            head = KeyTable(both("classifier", "head") + (both("pooler.layernorm", "norm") if task.norm else []))
            own = {name: t for name, t in module.state_dict().items() if not name.startswith("encoder.")}
            outer = head.to_theirs(own)
            theirs |= {name: tensor for name, tensor in outer.items() if name.startswith("pooler.")}
            theirs = {f"{_PREFIXES[0]}{name}": tensor for name, tensor in theirs.items()}
            theirs |= {name: tensor for name, tensor in outer.items() if not name.startswith("pooler.")}
            config |= hugging_face.labels_config(labels.names) | {"problem_type": "single_label_classification"}
            kind = "Data2VecVisionForImageClassification"
        return self.written(student, kind, config, theirs, self.files(description))

    def files(self, description: Description) -> Mapping[str, bytes]:
        """How images are prepared."""
        data = description.data.get("vision", {})
        size, channels = data.get("size", 224), data.get("channels", 3)
        values = {
            "image_processor_type": "BeitImageProcessor",
            "do_resize": True,
            "size": {"height": size, "width": size},
            "resample": 3,
            "do_center_crop": False,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": data.get("mean") or list(MEAN[channels]),
            "image_std": data.get("std") or list(STD[channels]),
        }
        return {"preprocessor_config.json": hugging_face.as_json(values)}


def _config_of(student: BackboneConfig) -> dict[str, Any]:
    encoder, adapter = student.encoder, student.adapters["vision"]
    assert isinstance(encoder, TransformerConfig)
    assert isinstance(adapter, ImageAdapterConfig)
    block = encoder.block
    if block.norm != "pre" or adapter.context is not None:
        raise ValueError("no class of Hugging Face computes the same: Data2VecVision is the 1.0 model of images")
    return {
        "hidden_size": block.embed_dim,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": block.num_heads,
        "intermediate_size": int(block.embed_dim * block.mlp_ratio + 1e-6),
        "hidden_act": block.activation,
        "layer_norm_eps": block.norm_eps,
        "hidden_dropout_prob": block.projection_dropout,
        "attention_probs_dropout_prob": block.attention_dropout,
        "drop_path_rate": encoder.drop_path_rate[1],
        "image_size": adapter.image_size[0],
        "patch_size": adapter.patch_size[0],
        "num_channels": adapter.channels,
        "use_mask_token": adapter.mask_token,
        "use_absolute_position_embeddings": adapter.positions == "learned",
        "use_relative_position_bias": adapter.relative_bias in ("layer", "both"),
        "use_shared_relative_position_bias": adapter.relative_bias in ("shared", "both"),
        "layer_scale_init_value": block.layer_scale or 0.0,
        "use_mean_pooling": not encoder.norm_out,
    }


def encoder_rules(student: BackboneConfig, name: str) -> list[Rule]:
    """Key table of the encoder without its last norm; `name` = prefix of its tensors in the module."""
    adapter, encoder = student.adapters["vision"], student.encoder
    assert isinstance(adapter, ImageAdapterConfig)
    assert isinstance(encoder, TransformerConfig)
    bias = f"{name}adapters.vision.bias"
    mask = "embeddings.mask_token" if adapter.mask_token else None
    patches = "embeddings.patch_embeddings.projection"
    rules = token_rules(cls_name="embeddings.cls_token", mask_name=mask, patch_name=patches, name=name)
    rules += position_rules("embeddings.position_embeddings", adapter, name)
    if adapter.relative_bias in ("shared", "both"):
        rules.append(Rename(f"encoder.{_TABLE}", f"{bias}.shared"))
    for i in range(encoder.depth):
        there, here = f"encoder.layer.{i}", f"{name}encoder.blocks.{i}"
        rules += _block_rules(there, here, scaled=encoder.block.layer_scale is not None)
        if adapter.relative_bias in ("layer", "both"):
            rules.append(Rename(f"{there}.attention.attention.{_TABLE}", f"{bias}.layers.{i}"))
    return rules


def _block_rules(there: str, here: str, *, scaled: bool) -> list[Rule]:
    attention = f"{there}.attention.attention"
    rules: list[Rule] = [
        Join(tuple(f"{attention}.{part}.weight" for part in ("query", "key", "value")), f"{here}.attn.qkv.weight"),
        Rename(f"{attention}.query.bias", f"{here}.attn.q_bias"),
        Rename(f"{attention}.value.bias", f"{here}.attn.v_bias"),
    ]
    pairs = (
        ("attention.output.dense", "attn.proj"),
        ("intermediate.dense", "mlp.0"),
        ("output.dense", "mlp.3"),
        ("layernorm_before", "norm1"),
        ("layernorm_after", "norm2"),
    )
    rules += [rule for a, b in pairs for rule in both(f"{there}.{a}", f"{here}.{b}")]
    return rules + ([Rename(f"{there}.lambda_{k}", f"{here}.scale{k}") for k in (1, 2)] if scaled else [])


def _student(model: ForeignConfig, *, norm_out: bool) -> BackboneConfig:
    size, patch = read_sizes(model, "image_size", "patch_size")
    width, scale = model.count("hidden_size", most=1 << 16), model.get("layer_scale_init_value", 0.1)
    encoder = former_encoder(
        embed_dim=width,
        depth=model.count("num_hidden_layers"),
        num_heads=model.count("num_attention_heads"),
        mlp_ratio=model.count("intermediate_size", most=1 << 20) / width,
        activation=hugging_face.read_activation(model),
        eps=model.get("layer_norm_eps", 1e-12),
        layer_scale=max(scale, 0.0),
        drop_path_rate=model.get("drop_path_rate", 0.1),
        attention_dropout=model.get("attention_probs_dropout_prob", 0.0),
        projection_dropout=model.get("hidden_dropout_prob", 0.0),
        norm_out=norm_out,
    )
    return former_student(
        encoder,
        size=size,
        patch=patch,
        channels=model.count("num_channels", 3, most=1 << 10),
        positions=model.get("use_absolute_position_embeddings", False),
        shared_bias=model.get("use_shared_relative_position_bias", False),
        layer_bias=model.get("use_relative_position_bias", False),
        mask_token=model.get("use_mask_token", False),
    )


def _data(foreign: Mapping[str, Any], model: ForeignConfig) -> dict[str, Any]:
    """Size of the images, and the values that the folder's preprocessor subtracts and divides by."""
    given = hugging_face.json_of(foreign, "preprocessor_config.json")
    if "image_mean" not in given:
        warnings.warn(
            "the folder has no preprocessor_config.json: mean and std are 0.5, as in published ones", stacklevel=2
        )
    mean, std = (list(given.get(name, [0.5])) for name in ("image_mean", "image_std"))
    return image_data(model.get("image_size"), model.get("num_channels", 3), mean=mean, std=std)


def _is_classifier(foreign: Mapping[str, Any], own: Shapes) -> bool:
    named = hugging_face.architecture(foreign)
    return "classifier.weight" in own and (not named or named.endswith("ForImageClassification"))


converters = (HuggingFaceImageFormat(),)
