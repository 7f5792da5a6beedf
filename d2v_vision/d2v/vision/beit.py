"""Published image models of the BEiT-based 1.0 repository: pretrained, and fine-tuned for classification."""

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
    tensors_below,
)
from d2v.core.foreign.fairseq import model_section
from d2v.core.labels import Classes
from d2v.core.loss import RegressionLoss
from d2v.core.masks import BlockMasker
from d2v.core.model import (
    BackboneConfig,
    Data2VecConfig,
    MaskedHeadConfig,
    TargetsConfig,
    TeacherConfig,
    TransformerConfig,
)
from d2v.core.teacher import EMASchedule
from d2v.vision.beit_arguments import BIAS, read_arguments
from d2v.vision.config import ImageAdapterConfig
from d2v.vision.former import (
    block_rules,
    former_encoder,
    former_student,
    image_data,
    position_rules,
    read_norms,
    read_sizes,
    token_rules,
)
from d2v.vision.tasks.classification import ImageClassification

_UNCUT = 384  # from this size, images are not cut in evaluation


@frozen
class BeitFormat:
    """The 1.0 image model of the BEiT-based repository, the source of the published results."""

    name: str = "data2vec 1.0 images, BEiT-based"

    def unpack(self, contents: Mapping[str, Any]) -> Unpacked | None:
        """Return the student's tensors, the teacher's and the run's arguments."""
        model, teacher = _state(contents), contents.get("model_ema")
        if "patch_embed.proj.weight" not in model or "head.weight" in model:
            return None
        return _unpacked(contents, {"model": model, "ema": teacher if isinstance(teacher, Mapping) else {}})

    def accepts(self, foreign: Mapping[str, Any]) -> bool:
        """Return whether the configuration is from that repository."""
        return {"use_shared_rel_pos_bias", "target_layers"} <= model_section(foreign).keys()

    def config(self, foreign: Mapping[str, Any], shapes: Shapes) -> Description:
        """Convert the fields of `read_arguments` to a d2v configuration.

        Raises:
            ValueError: if a field is missing, or changes the computation in an unsupported way.
        """
        del shapes
        model = ForeignConfig(model_section(foreign), "arguments")
        model.ignore(
            "lr", "weight_decay", "clip_grad", "var_w1", "var_margin1"
        )  # optimiser fields, or fields that the original ignores too
        model.refuse_unless("mask_dropout_prob", -1, -1.0, 0, 0.0)
        scale, beta = model.get("loss_scale", -1), model.get("l1_beta")
        config = Data2VecConfig(
            student=_student(model, attention_dropout=model.get("attn_drop_rate", 0.0)),
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
                each=read_norms(
                    model,
                    ("batch", "instance", "layer"),
                    "target_batch_norm",
                    "target_instance_norm",
                    "target_layer_norm_last",
                ),
                after=read_norms(model, ("instance", "layer"), "post_target_instance_norm", "post_target_layer_norm"),
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
        data = _data(model)
        model.finish()
        return Description(model=config, data={"vision": data})

    def layout(self, description: Description, shapes: Shapes) -> Layout:
        """Return the key table of a file of this model."""
        del shapes
        student, _ = own_parts(description)
        rules = [
            *encoder_rules(student, "student."),
            *both("norm", "student.encoder.norm_out"),
            *both("lm_head", "predictors.vision.layers.0"),
        ]
        return Layout(table=KeyTable(rules), prefixes=("model.",), teacher_prefixes=("ema.",))


@frozen
class FineTunedBeitFormat:
    """Image classification on that model; also in the layout of an engine that shards its state (`module`)."""

    name: str = "data2vec 1.0 images, BEiT-based, classification"

    def unpack(self, contents: Mapping[str, Any]) -> Unpacked | None:
        """Return the classifier's tensors and the run's arguments, if it has any."""
        model = _state(contents)
        if "patch_embed.proj.weight" not in model or "head.weight" not in model:
            return None
        return _unpacked(contents, {"model": model})

    def accepts(self, foreign: Mapping[str, Any]) -> bool:
        """Return whether the file holds such a classifier."""
        return "norm_of_head" in model_section(foreign)

    def config(self, foreign: Mapping[str, Any], shapes: Shapes) -> Description:
        """Convert the fields of `read_arguments` to an encoder with its task.

        Raises:
            ValueError: if a field is missing, or changes the computation in an unsupported way.
        """
        model = ForeignConfig(model_section(foreign), "arguments")
        norm = model.get("norm_of_head")
        if norm is None:
            raise ValueError("the classifier has neither fc_norm.weight nor norm.weight; d2v does not have this form")
        student = _student(model, norm_out=norm == "norm", mask_token="model.mask_token" in shapes)
        names = tuple(map(str, range(shapes["model.head.weight"][0])))
        mean = norm == "fc_norm"
        task = ImageClassification(
            pooling="mean" if mean else "class-token", norm=mean, drop_path_rate=model.get("drop_path")
        )
        return Description(model=task.adapt(student), data={"vision": _data(model)}, task=task, labels=Classes(names))

    def layout(self, description: Description, shapes: Shapes) -> Layout:
        """Return the key table of a file of this model."""
        del shapes
        student, encoder = own_parts(description)
        norm = both("norm", "encoder.encoder.norm_out") if encoder.norm_out else both("fc_norm", "norm")
        rules = [*encoder_rules(student, "encoder."), *norm, *both("head", "head")]
        return Layout(table=KeyTable(rules), prefixes=("model.",))


def _state(contents: Mapping[str, Any]) -> Mapping[str, Any]:
    """Tensors of the model: under `model`, under `module`, or the whole file."""
    found = (contents[name] for name in ("model", "module") if isinstance(contents.get(name), Mapping))
    return next(found, contents)


def _unpacked(contents: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]]) -> Unpacked:
    arguments, tensors = contents.get("args"), tensors_below(parts)
    shapes = {name.removeprefix("model."): tensor.shape for name, tensor in tensors.items()}
    known = arguments if isinstance(arguments, Mapping) else {}
    return Unpacked({"model": read_arguments(known, shapes)}, tensors)


def _student(
    model: ForeignConfig, *, attention_dropout: float = 0.0, norm_out: bool = True, mask_token: bool = True
) -> BackboneConfig:
    size, patch = read_sizes(model, "img_size", "patch_size")
    encoder = former_encoder(
        embed_dim=model.get("embed_dim"),
        depth=model.count("depth"),
        num_heads=model.count("num_heads"),
        mlp_ratio=model.get("mlp_ratio"),
        eps=model.get("layer_norm_eps", 1e-6),
        layer_scale=model.get("init_values"),
        drop_path_rate=model.get("drop_path", 0.0),
        attention_dropout=attention_dropout,
        norm_out=norm_out,
    )
    return former_student(
        encoder,
        size=size,
        patch=patch,
        channels=model.get("channels", 3),
        positions=model.get("use_abs_pos_emb", False),
        shared_bias=model.get("use_shared_rel_pos_bias"),
        layer_bias=model.get("use_rel_pos_bias", False),
        mask_token=mask_token,
    )


def _data(model: ForeignConfig) -> dict[str, Any]:
    size, mean = model.get("img_size"), model.get("mean", None)
    values: dict[str, Any] = {} if mean is None else {"mean": [mean], "std": [mean]}
    if "norm_of_head" in model and size >= _UNCUT:
        values["resize"] = size
    return image_data(size, model.get("channels", 3), **values)


def encoder_rules(student: BackboneConfig, name: str) -> list[Rule]:
    """Key table of the encoder without its last norm; `name` = prefix of its tensors in the module."""
    adapter, encoder = student.adapters["vision"], student.encoder
    assert isinstance(adapter, ImageAdapterConfig)
    assert isinstance(encoder, TransformerConfig)
    ours, mask = f"{name}adapters.vision", "mask_token" if adapter.mask_token else None
    rules = token_rules(cls_name="cls_token", mask_name=mask, patch_name="patch_embed.proj", name=name)
    rules += position_rules("pos_embed", adapter, name)
    if adapter.relative_bias in ("shared", "both"):
        rules.append(Rename(BIAS, f"{ours}.bias.shared"))
        rules.append(Constant("rel_pos_bias.relative_position_index"))
    for i in range(encoder.depth):
        rules += block_rules(f"blocks.{i}", i, encoder.block, mlp=("fc1", "fc2"), name=name)
        if adapter.relative_bias in ("layer", "both"):
            there = f"blocks.{i}.attn"
            rules.append(Rename(f"{there}.relative_position_bias_table", f"{ours}.bias.layers.{i}"))
            rules.append(Constant(f"{there}.relative_position_index"))
    return rules
