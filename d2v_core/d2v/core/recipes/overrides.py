"""`key=value` on top of a recipe."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from d2v.core.files import ConfigError
from d2v.core.recipes.schema import keys
from d2v.core.recipes.yaml_text import read_yaml
from d2v.core.suggestions import nearest

_ORIGINAL = {
    "task.data": "data.path",
    "checkpoint.save_dir": "out",
    "checkpoint.restore_file": "model",
    "checkpoint.save_interval_updates": "train.checkpoint_every",
    "common.seed": "seed",
    "common.fp16": "train.precision=fp16",
    "common.bf16": "train.precision=bf16",
    "common.log_interval": "train.log_every",
    "dataset.batch_size": "train.batch_size",
    "optimization.max_update": "train.max_steps",
    "optimization.lr": "optim.lr",
    "optimization.clip_norm": "optim.clip",
    "optimization.update_freq": "train.accumulate",
    "optimizer.groups.default.lr_float": "optim.lr",
    "optimizer.groups.default.optimizer.adam_betas": "optim.betas",
    "optimizer.groups.default.optimizer.weight_decay": "optim.weight_decay",
    "optimizer.groups.default.lr_scheduler.warmup_updates": "optim.schedule.warmup",
    "optimizer.adam_betas": "optim.betas",
    "optimizer.adam_eps": "optim.eps",
    "optimizer.weight_decay": "optim.weight_decay",
    "lr_scheduler.warmup_updates": "optim.schedule.warmup",
    "lr_scheduler.min_lr": "optim.schedule.min_lr",
    "model.model_path": "model",
    "model.embed_dim": "model.student.encoder.block.embed_dim",
    "model.num_heads": "model.student.encoder.block.num_heads",
    "model.depth": "model.student.encoder.depth",
    "model.clone_batch": "model.num_masks",
    "model.average_top_k_layers": "model.targets.layers",
    "model.cls_loss": "model.cls_weight",
    "model.recon_loss": "model.pixel_weight",
    "model.ema_decay": "model.teacher.schedule.start",
    "model.ema_end_decay": "model.teacher.schedule.end",
    "model.ema_anneal_end_step": "model.teacher.schedule.anneal",
    "model.layer_decay": "optim.layer_decay",
    "model.drop_path_rate": "task.drop_path_rate",
    "model.freeze_finetune_updates": "freeze.updates",
}
# Below one modality or another.
_ORIGINAL_ENDINGS = {name: f"mask.{name}" for name in ("mask_prob", "mask_prob_adjust", "mask_length")}
_ORIGINAL_SECTIONS = ("common", "checkpoint", "dataset", "optimization", "optimizer", "lr_scheduler", "task.data")


def parse_overrides(arguments: Iterable[str]) -> dict[str, Any]:
    """Arguments of the form `key=value` as a mapping; values are read as YAML.

    Raises:
        ConfigError: if one has another form, or a key stands twice.

    >>> parse_overrides(["optim.lr=1e-3", "out=run", "data.flip=0"])
    {'optim.lr': 0.001, 'out': 'run', 'data.flip': 0}
    """
    found: dict[str, Any] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key.strip("+"):
            hint = f"; write {argument.lstrip('-')}=VALUE" if argument.lstrip("-") else ""
            raise ConfigError(f"{argument!r} is not of the form key=value{hint}")
        if key in found:
            raise ConfigError(f"{key} is given twice")
        found[key] = read_yaml(text, name=argument) if text else None
    return found


def plain_keys(overrides: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Overrides without the `+` that the original wants before new keys, and hints about it.

    >>> plain_keys({"+optim.lr": 0.1})
    ({'optim.lr': 0.1}, ['+optim.lr: no + is needed here, optim.lr=... does'])
    """
    hints = [f"{key}: no + is needed here, {key.lstrip('+')}=... does" for key in overrides if key.startswith("+")]
    return {key.lstrip("+"): value for key, value in overrides.items()}, hints


def merged(config: Any, values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values with overrides put in.

    A new `kind` starts its section afresh: what the former kind had means nothing to it.

    Args:
        config: class that the values are for.
        values: plain; left alone.
        overrides: by dotted key.

    Raises:
        ConfigError: naming each key that does not exist, with the nearest one that does.
    """
    result = copy.deepcopy(dict(values))
    for key, value in sorted(overrides.items(), key=lambda item: not item[0].endswith(".kind")):
        _put(result, key, copy.deepcopy(value))
    known = [one.name for one in keys(config, result)]
    mistakes = [_unknown(key, known) for key in overrides if key not in known]
    if mistakes:
        raise ConfigError("; ".join(mistakes))
    return result


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    place = values
    for depth, section in enumerate(sections):
        inner = place.get(section)
        if inner is None:
            inner = place[section] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"unknown key {key!r}: {'.'.join(sections[: depth + 1])} is one value, not a section")
        place = inner
    if last == "kind" and place.get("kind") != value:
        place.clear()
    place[last] = value


def _unknown(key: str, known: list[str]) -> str:
    ours = _ORIGINAL.get(key) or _ORIGINAL_ENDINGS.get(key.rpartition(".")[2])
    if ours is not None and ours.partition("=")[0] in known:
        return f"unknown key {key!r}: it is called {ours} here"
    if key.split(".")[0] in _ORIGINAL_SECTIONS:
        return f"unknown key {key!r}, of the original toolkit; `d2v recipe NAME` lists the keys that there are"
    hint = nearest(key, known)
    if not hint:
        last = key.rpartition(".")[2]
        ends = [one for one in known if one.rpartition(".")[2] == last] or [
            one for one in known if nearest(last, [one.rpartition(".")[2]])
        ]
        hint = f"; did you mean {ends[0]!r}?" if ends else ""
    return f"unknown key {key!r}{hint}"
