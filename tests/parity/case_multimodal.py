"""Pretraining folders of the original 2.0 model class, three modalities."""

from typing import Any

import torch
from reading import Tensors, Watch, all_layers, converted, named, padding_of, scalar, trainable_gradients

from d2v.core.foreign import Converted
from d2v.core.masks import Mask
from d2v.core.model import Backbone, Batch
from d2v.core.monitor import standard_deviation

_INPUTS = ("source", "padding_mask", "mask", "channel_mask")


def run(config: dict[str, Any], tensors: Tensors, io: Tensors) -> tuple[Tensors, Tensors]:
    """Expected and produced tensors of one training step and of feature extraction."""
    one = converted(config["model"], tensors)
    batch = _batch(io)
    produced = _features(one, batch) | _step(one, batch, io, config)
    return {name: tensor for name, tensor in io.items() if name not in _INPUTS}, produced


def _batch(io: Tensors) -> Batch:
    padding = io["padding_mask"].bool() if "padding_mask" in io else None
    num_masks = io["mask"].shape[0] // io["source"].shape[0]
    channels = None
    if "channel_mask" in io:
        given = io["channel_mask"].bool()
        channels = given.repeat_interleave(io["mask"].shape[0] // given.shape[0], 0)
    mask = Mask(hidden=io["mask"].bool(), num_masks=num_masks, channels=channels)
    return Batch(source=io["source"], padding=padding, mask=mask)


def _features(one: Converted, batch: Batch) -> Tensors:
    student = one.model.student.eval()
    assert isinstance(student, Backbone)
    sink = all_layers(one.description.student.depth, one.description.model.targets.kind)
    with torch.no_grad():
        encoded = student.encode(batch, sink=sink)
    x = encoded.x[:, encoded.num_prefix_tokens :]
    produced = {"features.x": x, "features.padding_mask": padding_of(encoded)}
    return produced | {f"features.layer.{layer}": result for layer, result in sink.results.items()}


def _step(one: Converted, batch: Batch, io: Tensors, config: dict) -> Tensors:
    model, watch = one.model.train(), Watch()
    (predictor,) = model.predictors.values()
    watch.on("student.first", model.student.encoder.blocks[0])
    watch.on("student.last", model.student.encoder.blocks[-1])
    watch.on("teacher.first", model.teacher.module.encoder.blocks[0])
    watch.on("predictor", predictor)
    watch.on("decoder", predictor.decoder)
    out = model(batch, update=0)
    encoded = watch.inputs["predictor"][0]
    decoder_in, grid, _ = watch.inputs["decoder"]
    mask = out.mask
    kind = config["model"]["supported_modality"]
    terms = {"regression": f"{kind}_regression", "cls": "cls", "pixels": "recon"}
    produced = {
        "ids_keep": mask.visible,
        "ids_restore": torch.argsort(torch.argsort(mask.hidden.int(), dim=1, stable=True), dim=1),
        "student.local_features": encoded.local.x,
        "student.encoder_in": watch.inputs["student.first"][0],
        "student.last_block_out": watch.outputs["student.last"][0],
        "student.encoder_out": encoded.x,
        "student.decoder_in": decoder_in,
        "student.decoder_out": predictor.decoder(decoder_in, grid),
        "teacher.encoder_in": watch.inputs["teacher.first"][0],
        "loss.total": out.loss_sum / out.sample_size,
        "sample_size": scalar(out.sample_size, io["sample_size"]),
        "pred_var": standard_deviation(out.predictions),
        "target_var": standard_deviation(out.targets),
        "masked_pct": scalar(mask.hidden[0].float().mean(), io["masked_pct"]),
    }
    produced |= {f"loss.sum.{terms[name]}": total for name, (total, _) in out.metrics.items()}
    produced |= _teacher(one, batch)
    (out.loss_sum / out.sample_size).backward()
    produced |= named("grad.", trainable_gradients(one))
    return produced | _update(one, config["training_step"])


def _teacher(one: Converted, batch: Batch) -> Tensors:
    model, sink = one.model, all_layers(one.description.student.depth, one.description.model.targets.kind)
    encoded = model.encode_teacher(batch, sink=sink)
    model.encode_teacher(batch, sink=model.targets)
    layers = {f"teacher.lr.{i}": result[:, encoded.num_prefix_tokens :] for i, result in sink.results.items()}
    return layers | {"targets": model.targets.finish()}


def _update(one: Converted, step: dict) -> Tensors:
    model = one.model
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= step["sgd_lr"] * parameter.grad
    model.update_teacher(step["num_updates"])
    return named("ema_after.", one.teacher_names(model.teacher.module.state_dict()))
