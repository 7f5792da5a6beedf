"""Pretraining folders of the original toolkit's 1.0 speech, text and image models."""

from typing import Any

import attrs
import torch
from reading import Tensors, Watch, all_layers, converted, matching, named, padding_of, scalar, trainable_gradients

from d2v.core.foreign import Converted
from d2v.core.masks import Mask
from d2v.core.model import Batch
from d2v.core.monitor import standard_deviation
from d2v.text.convert import classification_head_table
from d2v.text.tasks.classification import SentenceClassifier

_INPUTS = ("source", "padding_mask", "mask", "channel_mask", "img", "src_tokens", "target_tokens")
# Layers of speech and text lie `t b d` in the files.
TIME_FIRST = ("student.layer", "teacher.layer", "teacher.ffn")


def run(config: dict[str, Any], tensors: Tensors, io: Tensors) -> tuple[Tensors, Tensors]:
    """Expected and produced tensors of the teacher's update, one training step and inference."""
    one = converted(config["model_cfg"], tensors)
    batch = _batch(io)
    produced = _update(one, config, tensors, io) | _inference(one, config, batch, tensors, io)
    produced |= _step(one, batch, io)
    if "pipeline.target_tokens" in io:
        produced |= _pipeline(one, batch, io)
    expected = _expected(io, batch, one) | named("_ema.", _teacher(one, tensors))
    return {name: tensor for name, tensor in expected.items() if name in expected.keys() - _inputs(io)}, produced


def _inputs(io: Tensors) -> set[str]:
    given = {*_INPUTS, "infer.source", "infer.padding_mask", "pipeline.target_tokens"}
    return given | matching(io, "ema_before.").keys()


def _teacher(one: Converted, tensors: Tensors) -> Tensors:
    (prefix,) = one.layout.teacher_prefixes
    return {name.removeprefix(prefix): tensor for name, tensor in matching(tensors, prefix).items()}


def _expected(io: Tensors, batch: Batch, one: Converted) -> Tensors:
    if batch.source.dim() == 4:
        return io
    length = batch.mask.hidden.shape[1]  # where it is odd, the file carries one more frame of padding
    return {n: t.transpose(0, 1)[:, :length] if n.startswith(TIME_FIRST) else t for n, t in io.items()}


def _batch(io: Tensors) -> Batch:
    channels = io["channel_mask"].bool() if "channel_mask" in io else None
    mask = Mask(hidden=io["mask"].bool().flatten(1), channels=channels)
    if "src_tokens" in io:
        return Batch(source=io["src_tokens"], view=io["target_tokens"], mask=mask)
    padding = io["padding_mask"].bool() if "padding_mask" in io else None
    return Batch(source=io["img"] if "img" in io else io["source"], padding=padding, mask=mask)


def _update(one: Converted, config: dict[str, Any], tensors: Tensors, io: Tensors) -> Tensors:
    before = {name.removeprefix("ema_before."): t for name, t in matching(io, "ema_before.").items()}
    one.load_teacher(before)
    one.model.update_teacher(config["num_updates"])
    after = one.teacher_names(one.model.teacher.module.state_dict())
    one.load_teacher(_teacher(one, tensors))  # the step was recorded with the file's teacher
    return named("_ema.", {name: tensor.clone() for name, tensor in after.items()})


@torch.no_grad()
def _inference(one: Converted, config: dict[str, Any], batch: Batch, tensors: Tensors, io: Tensors) -> Tensors:
    student = one.model.student.eval()
    if "infer.source" in io:
        batch = Batch(source=io["infer.source"], padding=io["infer.padding_mask"].bool())
    batch = attrs.evolve(batch.seen_by_teacher(), mask=None)
    encoded = student.encode(batch)
    produced = {"infer.x": encoded.x[:, encoded.num_prefix_tokens :]}
    produced["infer.padding_mask_frames"] = padding_of(encoded)
    if "classification_head" in config:
        prefix, classes = config["classification_head"]["prefix"], config["classification_head"]["num_classes"]
        classifier = SentenceClassifier(
            student, num_classes=classes, embed_dim=one.description.student.embed_dim
        ).eval()
        table = classification_head_table(prefix)
        classifier.load_state_dict(table.to_ours(matching(tensors, f"{prefix}.")), strict=False)
        produced["infer.logits"] = classifier.logits(batch)
    return produced


def _step(one: Converted, batch: Batch, io: Tensors) -> Tensors:
    model, watch = one.model.train(), Watch()
    depth, layer = one.description.student.depth, "block" if batch.source.dim() == 4 else "layer"
    (predictor,) = model.predictors.values()
    watch.on("predictor", predictor)
    for i, block in enumerate(model.student.encoder.blocks):
        watch.on(f"student.{i}", block)
    for adapter in model.student.adapters.values():
        if hasattr(adapter.front, "extractor"):
            watch.on("extractor", adapter.front.extractor)
    out = model(batch, update=0)
    encoded = watch.inputs["predictor"][0]
    produced = {
        "encoder_out": encoded.x[:, encoded.num_prefix_tokens :],
        "projected": encoded.local.x,
        "pred": out.predictions,
        "target": out.targets,
        "loss": scalar(out.loss_sum, io["loss"]),
        "sample_size": torch.tensor([out.sample_size]),
        "pred_var": standard_deviation(out.predictions)[None],
        "target_var": standard_deviation(out.targets)[None],
    }
    if "extractor" in watch.outputs:
        produced["conv_features"] = watch.outputs["extractor"].transpose(1, 2)
    for i in range(depth):
        produced[f"student.{layer}{i}"], produced[f"student.ffn{i}"] = watch.outputs[f"student.{i}"]
    for kind, name in (("block", layer), ("ffn", "ffn")):
        sink = all_layers(depth, kind)
        model.encode_teacher(batch, sink=sink)
        produced |= {f"teacher.{name}{i}": result for i, result in sink.results.items()}
    out.loss_sum.backward()
    return produced | named("grad.", trainable_gradients(one))


@torch.no_grad()
def _pipeline(one: Converted, batch: Batch, io: Tensors) -> Tensors:
    out = one.model(attrs.evolve(batch, view=io["pipeline.target_tokens"]), update=0)
    return {"pipeline.loss": scalar(out.loss_sum, io["pipeline.loss"]), "pipeline.target": out.targets}
