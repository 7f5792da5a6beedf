"""The batches of an update that was not applied, saved so that its loss can be computed again (`train.debug`).

`debug/update-N/` in the run folder has `rank-R.safetensors` and `rank-R.json` of each rank, and `model/`, the weights
before the update.
"""

import dataclasses
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import asdict, define, field, frozen
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from d2v.core.files.atomic import write_bytes, write_text
from d2v.core.masks import Mask
from d2v.core.model import Batch, StepOutput
from d2v.core.nn.layer_drop import layers_drawn_from
from d2v.core.precision import Precision, autocast
from d2v.core.train.ranks import dropout_seed, layer_drop_seed, world
from d2v.core.train.run_config import RunFolderError
from d2v.core.train.run_folder import RunFolder

_logger = logging.getLogger(__name__)
_MODEL = "model"
_KEPT = 2  # folders with weights; the batches of all updates are kept
_FIELDS = tuple(one.name for one in dataclasses.fields(Batch))


@frozen(kw_only=True)
class SavedUpdate:
    """Batches of one rank in an update that was not applied, as `train.debug=true` saves them.

    Args:
        update: number of the update, from 1.
        rank: the rank that read the batches.
        reason: why the update was not applied.
        loss: mean loss over the batches of this rank.
        norm: total norm of the gradients of all ranks.
        seed: seed of the run's dropout.
        precision: precision of the forward pass.
        device: device of the run, such as "cuda".
        batches: one for each micro-batch, on the CPU.
        names: names of the samples of each batch, where its loader knows them.

    >>> saved = SavedUpdate.read("run/debug/update-1200")  # doctest: +SKIP
    >>> saved.names  # doctest: +SKIP
    (('photos/a.jpg', 'photos/b.jpg'),)
    """

    update: int
    rank: int
    reason: str
    loss: float = field(converter=float)
    norm: float = field(converter=float)
    seed: int
    precision: Precision
    device: str
    batches: tuple[Batch, ...]
    names: tuple[tuple[str, ...], ...]

    @classmethod
    def read(cls, folder: str | os.PathLike[str], rank: int = 0) -> "SavedUpdate":
        """Read what a rank has saved.

        Args:
            folder: `debug/update-N` in a run folder.
            rank: number of the rank.

        Raises:
            FileNotFoundError: if the rank has saved nothing there.
        """
        stem = Path(folder) / f"rank-{rank}"
        values = json.loads(stem.with_suffix(".json").read_text())
        tensors = load_file(stem.with_suffix(".safetensors"))
        parts = values.pop("batches")
        return cls(
            batches=tuple(_batch(tensors, number, part) for number, part in enumerate(parts)),
            names=tuple(tuple(part["names"]) for part in parts),
            **values,
        )

    def loss_of(self, model: nn.Module) -> float:
        """Compute the mean loss over the batches again, as in the run: the masks, dropout and precision are the same.

        Args:
            model: a model on any device, such as `open_model(f"{folder}/model").module`; it is put in train mode.
        """
        model.train()
        device = next(model.parameters()).device
        losses, count = 0.0, 0
        for micro, batch in enumerate(self.batches):
            torch.manual_seed(dropout_seed(self.seed, self.update - 1, self.rank, micro))
            drawn = layers_drawn_from(layer_drop_seed(self.seed, self.update - 1, micro))
            with torch.no_grad(), autocast(self.precision, device), drawn:
                output: StepOutput = model(batch.to(device), update=self.update - 1)
            losses, count = losses + float(output.loss_sum), count + output.sample_size
        return losses / count


@define(kw_only=True)
class Recorder:
    """Keeps the batches of the current update, to save them if it is not applied.

    Args:
        run: run folder.
        seed: seed of the run's dropout.
        precision: precision of the forward pass.
        data: the source of the batches, which may know the names of samples.
    """

    run: RunFolder
    seed: int
    precision: Precision
    data: object
    _batches: list[Batch] = field(init=False, factory=list)

    def see(self, micro: int, batch: Batch) -> None:
        """Keep a micro-batch of the current update; the first one replaces those of the update before."""
        self._batches = [*(self._batches if micro else ()), batch]

    def save(
        self, update: int, reason: str, norm: float, outputs: Sequence[StepOutput], tensors: Mapping[str, Tensor]
    ) -> str:
        """Write the files of this rank, and the weights on the first.

        Args:
            update: number of the update, from 1.
            reason: why it is not applied.
            norm: total norm of the gradients.
            outputs: of its micro-batches.
            tensors: of the model, gathered from all ranks.

        Returns:
            The folder; "" after a warning if it could not be written: that must not hide why the update was not
            applied.
        """
        folder = self.run.path / "debug" / f"update-{update}"
        saved = SavedUpdate(
            update=update,
            rank=world()[0],
            reason=reason,
            loss=sum(float(one.loss_sum) for one in outputs) / max(1, sum(one.sample_size for one in outputs)),
            norm=norm,
            seed=self.seed,
            precision=self.precision,
            device=self._batches[0].source.device.type,
            batches=tuple(batch.to("cpu") for batch in self._batches),
            names=tuple(self._names(batch) for batch in self._batches),
        )
        try:
            _write(folder / f"rank-{saved.rank}", saved, outputs)
            if saved.rank == 0:
                self.run.write_model(folder / _MODEL, tensors)
                for old in _with_model(folder.parent)[:-_KEPT]:
                    self.run.remove(old / _MODEL)
        except (OSError, RunFolderError, SafetensorError) as error:
            _logger.warning("the batches of update %d could not be saved in %s: %s", update, folder, error)
            return ""
        return str(folder)

    def _names(self, batch: Batch) -> tuple[str, ...]:
        name = getattr(self.data, "name", None)
        return () if name is None or batch.ids is None else tuple(name(id) for id in batch.ids.tolist())


def _write(stem: Path, saved: SavedUpdate, outputs: Sequence[StepOutput]) -> None:
    """Write what `SavedUpdate.read` reads."""
    tensors: dict[str, Tensor] = {}
    parts = []
    for number, (batch, names, output) in enumerate(zip(saved.batches, saved.names, outputs, strict=True)):
        tensors |= _tensors(batch, number)
        parts.append(
            {
                "modality": batch.modality,
                "num_masks": None if batch.mask is None else batch.mask.num_masks,
                "ids": None if batch.ids is None else batch.ids.tolist(),
                "names": names,
                "loss_sum": _number(float(output.loss_sum)),
                "sample_size": output.sample_size,
            }
        )
    values = asdict(saved, filter=lambda one, _: one.name not in ("batches", "names"))
    values |= {"loss": _number(saved.loss), "norm": _number(saved.norm), "batches": parts}
    write_bytes(stem.with_suffix(".safetensors"), save(tensors))
    write_text(stem.with_suffix(".json"), json.dumps(values, indent=1) + "\n")


def _tensors(batch: Batch, number: int) -> dict[str, Tensor]:
    """Tensors of a micro-batch and its mask, by their names in the file."""
    found = {name: getattr(batch, name) for name in _FIELDS}
    if batch.mask is not None:
        found |= {"mask.hidden": batch.mask.hidden, "mask.channels": batch.mask.channels}
    return {
        f"{number}.{name}": one.clone(memory_format=torch.contiguous_format)
        for name, one in found.items()
        if isinstance(one, Tensor)
    }


def _batch(tensors: Mapping[str, Tensor], number: int, part: Mapping[str, Any]) -> Batch:
    """The inverse of `_tensors`; `part` has what is no tensor."""
    own = {name: tensors[key] for name in _FIELDS if (key := f"{number}.{name}") in tensors}
    hidden, channels = (tensors.get(f"{number}.mask.{name}") for name in ("hidden", "channels"))
    mask = None if hidden is None else Mask(hidden=hidden, channels=channels, num_masks=part["num_masks"])
    values: dict[str, Any] = {**own, "mask": mask, "modality": part["modality"]}
    return Batch(**values)


def _number(value: float) -> float | str:
    """Return a number for JSON, which has no NaN and no infinity: these become texts, which `float` reads."""
    return value if math.isfinite(value) else str(value)


def _with_model(debug: Path) -> list[Path]:
    """Folders of updates that have weights, oldest first."""
    folders = [path.parent for path in debug.glob(f"update-*/{_MODEL}")]
    return sorted(folders, key=lambda folder: int(folder.name.rpartition("-")[2]))
