"""Pretraining folders of the BEiT-based repository: two optimiser steps."""

from typing import Any

import torch
from reading import Tensors, Watch, all_layers, converted, named, scalar, trainable_gradients

from d2v.core.foreign import Converted
from d2v.core.masks import Mask
from d2v.core.model import Batch
from d2v.core.train import parameter_groups

_INPUTS = ("samples", "bool_masked_pos")
_NO_DECAY = ("student.adapters.*.extra_tokens.*", "student.adapters.*.positions.*")


def run(config: dict[str, Any], tensors: Tensors, io: Tensors) -> tuple[Tensors, Tensors]:
    """Expected and produced tensors of two optimiser steps."""
    foreign = config["model_cfg"] | config["train_cfg"] | config["mask_cfg"]
    one = converted(foreign | {"layer_norm_eps": config["layer_norm_eps"]}, tensors)
    batches = [
        Batch(source=io[f"samples{step}"], mask=Mask(hidden=io[f"bool_masked_pos{step}"].bool().flatten(1)))
        for step in range(2)
    ]
    return {name: tensor for name, tensor in io.items() if not name.startswith(_INPUTS)}, _train(
        one, batches, config, io
    )


def _train(one: Converted, batches: list[Batch], config: dict[str, Any], io: Tensors) -> Tensors:
    model = one.model.train()
    groups = parameter_groups(model, weight_decay=0.0, no_decay=[p for p in _NO_DECAY if _has(model, p)])
    optimizer = torch.optim.AdamW(groups, lr=0.0, **config["adamw"])
    produced: Tensors = {}
    for step, batch in enumerate(batches):
        watch = Watch()
        for i, block in enumerate(model.student.encoder.blocks):
            watch.on(f"student.{i}", block)
        if step == 0:
            produced |= _teacher(one, batch)
        out = model(batch, update=step)
        optimizer.zero_grad()
        (out.loss_sum / out.sample_size).backward()
        if step == 0:
            produced |= named("grad.", {n: g.clone() for n, g in trainable_gradients(one).items()})
            produced |= {"pred": out.predictions, "target": out.targets, "loss": scalar(out.loss_sum, io["loss"])}
            for i in range(len(model.student.encoder.blocks)):
                produced[f"student.block{i}"], produced[f"student.ffn{i}"] = watch.outputs[f"student.{i}"]
        else:
            produced["loss_step2"] = scalar(out.loss_sum, io["loss_step2"])
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config["train_cfg"]["clip_grad"] or torch.inf)
        produced.setdefault("grad_norm", scalar(norm, io["grad_norm"]))
        _set(optimizer, lr=config["lr_values"][step], weight_decay=config["wd_values"][step])
        optimizer.step()
        model.update_teacher(step + 1)
    student = {n: t for n, t in model.state_dict().items() if not n.startswith("teacher.")}
    produced |= named("after2.model.", one.student_names(student))
    return produced | named("after2.ema.", one.teacher_names(model.teacher.module.state_dict()))


def _has(model: torch.nn.Module, pattern: str) -> bool:
    part = pattern.split(".")[3]
    return any(getattr(adapter, part) is not None for adapter in model.student.adapters.values())


def _set(optimizer: torch.optim.Optimizer, *, lr: float, weight_decay: float) -> None:
    for group, decays in zip(optimizer.param_groups, (True, False), strict=True):
        group["lr"], group["weight_decay"] = lr, weight_decay if decays else 0.0


def _teacher(one: Converted, batch: Batch) -> Tensors:
    produced: Tensors = {}
    for kind, name in (("block", "block"), ("ffn", "ffn")):
        sink = all_layers(one.description.student.depth, kind)
        one.model.encode_teacher(batch, sink=sink)
        produced |= {f"teacher.{name}{i}": result for i, result in sink.results.items()}
    return produced
