"""What the calls on a fine-tuned model share: settings, opening the model, and what may differ from its training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from attrs import field, frozen
from attrs.validators import and_, ge, min_len, optional

from d2v.core.data import DataConfig
from d2v.core.files import ConfigError, Stored
from d2v.core.jobs.device import pick_device
from d2v.core.jobs.models import match_input, settings_of
from d2v.core.labels import Labels
from d2v.core.paths import PathText
from d2v.core.precision import AskedPrecision
from d2v.core.recipes.sections import AUTO, kernel_names
from d2v.core.task import Task
from d2v.core.validators import distinct


def _as_tuple(value: str | list[str] | tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Convert the typed value, one split or several, to a tuple."""
    names = (value,) if isinstance(value, str) else value
    if names is None:
        return None
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"split={value!r} must be the name of a split or a list of names")
    return tuple(names)


@frozen(kw_only=True)
class UseSettings:
    """Settings of `evaluate` and `predict`.

    Args:
        model: a run, a folder, a published file or a name of `d2v models`.
        data: samples; keys that are not set default to those of the training.
        split: split of the data, or several; None = the test split for evaluation, all files of a folder for
            predictions.
        task: the task of the fine-tuned model; options of its use may change, options built into the model may not.
        batch_size: samples in a batch.
        precision: of the forward pass: fp32, bf16, fp16 or auto = bf16 where the device computes in it natively.
        kernels: forms of computation on a CPU, which differ by rounding: auto = the faster ones, measured once for each
            machine and size of model; plain = those of torch; or names: onednn-linear, row-attention,
            channels-last-extractor, channels-last-positions.
        device: auto = cuda, mps or cpu, the first that is available.
        threads: CPU threads for computation; None = PyTorch's default.
        out: file to write: .json for an evaluation, or a folder; .csv or .jsonl for predictions, .tsv for GLUE's
            server; null = none.
    """

    model: PathText
    data: DataConfig
    split: tuple[str, ...] | None = field(
        default=None, converter=_as_tuple, validator=optional(and_(min_len(1), distinct))
    )
    task: Task
    batch_size: int = field(default=64, validator=ge(1))
    precision: AskedPrecision = "fp32"
    kernels: tuple[str, ...] = field(default=AUTO, converter=kernel_names)
    device: str = "auto"
    threads: int | None = field(default=None, validator=optional(ge(1)))
    out: PathText | None = None


def opened(overrides: Mapping[str, Any]) -> tuple[UseSettings, Stored]:
    """Open a fine-tuned model with the settings of its use.

    Raises:
        ConfigError: if a key is wrong, the model is only pretrained, or an option differs that is built into it.
        FileNotFoundError: if there is no such model.
        DataError: if a file of the task cannot be used.
        MissingExtraError: if the task needs packages that are not installed.
    """
    settings, stored = settings_of(UseSettings, overrides)
    built = stored.description.task
    assert built is not None  # its values are part of the settings
    check_use(settings.task, built)
    settings.task.scorer(labels_of(stored))  # reports wrong files of the task before any data is read
    return settings, stored


def labels_of(stored: Stored) -> Labels:
    """Labels of a fine-tuned model."""
    assert stored.description.labels is not None  # a task has them
    return stored.description.labels


def check_use(task: Task, built: Task) -> None:
    """Refuse options of a task that differ from those that the model was built and trained with.

    Args:
        task: with the requested options.
        built: with the options of the training.

    Raises:
        ConfigError: naming the keys.
    """
    if type(task) is not type(built):
        raise ConfigError("task.kind is the task that the model was fine-tuned for and cannot change; leave it out")
    free = task.use_options
    names = [one.name for one in attrs.fields(type(task)) if one.name not in free]  # type: ignore[arg-type]  # a task is one
    for name in names:
        if getattr(task, name) != getattr(built, name):
            allowed = ", ".join(f"task.{one}" for one in sorted(free)) or "no option of this task"
            raise ConfigError(
                f"task.{name}={getattr(task, name)!r}: the model was trained with {getattr(built, name)!r}, which "
                f"cannot be changed now; {allowed} can"
            )


def prepared(settings: UseSettings, stored: Stored) -> torch.device:
    """Move a model to the device of the settings and make it take their data; return the device."""
    device = pick_device(settings.device)
    module = stored.module.to(device).eval()
    match_input(settings.data, module.get_submodule("encoder"), stored.description.modality)
    return device


def check_ending(out: str | None, *endings: str, folder: bool = False) -> None:
    """Refuse a file name whose ending does not determine the format.

    Args:
        out: the name.
        endings: of files.
        folder: whether a name without ending is that of a folder.

    Raises:
        ConfigError: naming the allowed endings.
    """
    if out is None or out.endswith(endings) or (folder and (not Path(out).suffix or Path(out).is_dir())):
        return
    raise ConfigError(f"out={out!r} must end in {' or '.join(endings)}" + (", or be a folder" if folder else ""))
