"""Check that the library works on this machine: train a tiny model on random numbers, in seconds.

`examination` checks a model. No modality is needed. Each check is a function that raises on failure; checks are
independent of each other.
"""

import os
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from d2v.core.files import ConfigError
from d2v.core.jobs.device import pick_device
from d2v.core.jobs.doctor_report import DoctorError, DoctorReport
from d2v.core.jobs.environment import environment_report
from d2v.core.jobs.examination import examine
from d2v.core.masks import BlockMasker, Draw, InverseBlockMasker, Masker, RandomMasker, SpanMasker
from d2v.core.modality import modalities
from d2v.core.model import Backbone, Batch, Data2Vec, Local, ModalityAdapter, VisibleDecoder
from d2v.core.nn import ConvDecoder, TransformerEncoder
from d2v.core.registry import MissingExtraError, PluginError
from d2v.core.teacher import EMASchedule, EMATeacher, TargetAverager
from d2v.core.train import CosineSchedule, MemorySource, PublishedAdamW, RunFolder, fit, parameter_groups
from d2v.core.version import __version__

_DIM, _SIDE = 16, 8
Check = Callable[[torch.device], None]


def doctor(
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    pretrained: str | os.PathLike[str] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> DoctorReport:
    """Report versions and devices, and check that training works on this machine; or check a model.

    Checks take seconds: packages of the extras, masks, an update on the device that `auto` picks, a checkpoint, a
    resumed run. An extra that is not installed is not a failure.

    Args:
        checkpoint: check this instead of the machine: a run, a folder, a published file or a name of `d2v models`.
        pretrained: the same for the pretrained model, for a fine-tuned file without the configuration of its encoder.
        tell: called with each line of the report as soon as it is known.

    Raises:
        ConfigError: if there is `pretrained` without `checkpoint`.
        FileNotFoundError: if there is no model at `checkpoint`.
        DownloadError: if a published model cannot be downloaded, or has changed since.

    >>> doctor().failed
    []
    """
    if checkpoint is None and pretrained is not None:
        raise ConfigError("pretrained is for a fine-tuned file: name that as checkpoint")
    if checkpoint is not None:
        return _told(examine(checkpoint, pretrained), tell)
    facts: dict[str, str] = {}
    for name, text in environment_report(__version__):
        facts[name] = text
        tell(*DoctorReport(facts={name: text}, checks={}).lines())
    device = pick_device("auto")
    checks: dict[str, str | None] = {}
    # Keep the caller's random state.
    with torch.random.fork_rng():
        for name, check in {**_imports(), **CHECKS}.items():
            try:
                check(device)
                checks[name] = None
            except Exception as error:  # any failure becomes a line of the report
                text = str(error) if isinstance(error, DoctorError) else f"{type(error).__name__}: {error}"
                checks[name] = " ".join(text.split())
            tell(*DoctorReport(facts={}, checks={name: checks[name]}).lines())
    return DoctorReport(facts=facts, checks=checks)


def _told(parts: Iterable[DoctorReport], tell: Callable[[str], None]) -> DoctorReport:
    """One report of its parts, each of which is told as soon as it is known."""
    facts: dict[str, str] = {}
    checks: dict[str, str | None] = {}
    for part in parts:
        facts |= part.facts
        checks |= part.checks
        tell("\n".join(part.lines()))
    return DoctorReport(facts=facts, checks=checks)


class _Front(nn.Linear):
    def forward(self, batch: Batch) -> Local:  # type: ignore[override]  # a linear layer whose input is a batch
        return Local(x=super().forward(batch.source), padding=None, grid=(_SIDE, _SIDE))


def tiny_model() -> Data2Vec:
    """A model of two small blocks, whose input is `b 64 3`; always the same."""
    torch.manual_seed(0)
    student = Backbone(ModalityAdapter(_Front(3, _DIM)), TransformerEncoder.stack(_DIM, depth=2, num_heads=2))
    decoder = ConvDecoder(_DIM, decoder_dim=_DIM, num_layers=1, kernel_size=3, groups=2, dims=2)
    return Data2Vec(
        student,
        EMATeacher(student, EMASchedule(0.9)),
        VisibleDecoder(decoder),
        InverseBlockMasker(mask_prob=0.6, mask_length=3),
        targets=TargetAverager(range(2), after=["layer"]),
        num_masks=2,
    )


def tiny_data() -> MemorySource:
    """Three batches of random numbers; always the same."""
    generator = torch.Generator().manual_seed(0)
    sources = [torch.randn(4, _SIDE**2, 3, generator=generator) for _ in range(3)]
    return MemorySource([Batch(source=source, ids=torch.arange(4) + 4 * i) for i, source in enumerate(sources)])


def _masks(device: torch.device) -> None:
    maskers: dict[str, tuple[Masker, tuple[int, ...]]] = {
        "random": (RandomMasker(mask_prob=0.5), (50,)),
        "inverse blocks": (InverseBlockMasker(mask_prob=0.8, mask_length=3), (14, 14)),
        "blocks": (BlockMasker(num_masked=60, min_per_block=16), (14, 14)),
        "spans": (SpanMasker(mask_prob=0.65, mask_length=10), (100,)),
    }
    for name, (masker, grid) in maskers.items():
        here, there = (
            masker(4, grid, num_masks=1, draw=Draw(seed=0, update=7, ids=torch.arange(4, device=place))).hidden.cpu()
            for place in ("cpu", device)
        )
        if not torch.equal(here, there):
            raise DoctorError(f"the masker of {name} draws different masks on {device} and on the CPU")


def _step(device: torch.device) -> None:
    model = tiny_model().to(device).train()
    optimizer = PublishedAdamW(parameter_groups(model, weight_decay=0.05), lr=1e-2)
    before = [tensor.clone() for tensor in model.teacher.module.parameters()]
    out = model(next(iter(tiny_data())).to(device), update=0)
    (out.loss_sum / out.sample_size).backward()
    norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    if not (norm > 0 and norm.isfinite()):
        raise DoctorError(f"the gradient of an update on {device} has norm {norm.item()}")
    optimizer.step()
    model.update_teacher(1)
    after = list(model.teacher.module.parameters())
    if all(torch.equal(old, new) for old, new in zip(before, after, strict=True)):
        raise DoctorError("the teacher does not follow the student")


def _checkpoint(device: torch.device) -> None:
    model = tiny_model().to(device)
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(f"{folder}/run", config="", description={})
        try:
            run.save(1, model.state_dict(), {"step": 1})
            other = tiny_model().to(device)
            next(other.parameters()).data.zero_()
            read = run.load()
            assert read is not None  # just written
            other.load_state_dict(read[0])
        finally:
            run.close()
    _same(model, other, "a checkpoint")


def _resume(device: torch.device) -> None:
    # On the CPU, which adds in a fixed order. Accelerators may not, and then no two runs are the same.
    del device
    with tempfile.TemporaryDirectory() as folder:
        whole = _trained(Path(folder, "whole"), steps=(2,))
        resumed = _trained(Path(folder, "resumed"), steps=(1, 2))
    _same(whole, resumed, "a run that was interrupted")


def _trained(path: Path, *, steps: tuple[int, ...]) -> Data2Vec:
    """A model trained up to each number of updates in turn, resumed each time as in a new process."""
    for until in steps:
        model = tiny_model()
        optimizer = PublishedAdamW(parameter_groups(model, weight_decay=0.05))
        run = RunFolder(path, config="", description={}, resume=True)
        try:
            schedule = CosineSchedule(1e-2, total=2)
            fit(model, tiny_data(), optimizer=optimizer, schedule=schedule, max_steps=until, accumulate=2, run=run)
        finally:
            run.close()
    return model


def _same(model: nn.Module, other: nn.Module, what: str) -> None:
    theirs = other.state_dict()
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, theirs[name])]
    if changed:
        raise DoctorError(f"{what} does not restore {changed[0]} ({len(changed)} tensors differ)")


def _imports() -> dict[str, Check]:
    """For each modality whose extra is installed, a check that its packages can be imported with this torch."""
    checks: dict[str, Check] = {}
    for name in modalities.names():
        try:
            record = modalities.load(name)
            record.require_extra()
        except (PluginError, MissingExtraError):  # reported with the facts
            continue
        if record.requires:
            checks[f"{name} packages"] = partial(_importable, record.requires)
    return checks


def _importable(packages: Iterable[str], device: torch.device) -> None:
    del device
    for package in packages:
        import_module(package)


CHECKS: dict[str, Check] = {"masks": _masks, "training step": _step, "checkpoint": _checkpoint, "resume": _resume}
