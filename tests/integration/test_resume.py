"""A run on real images that is interrupted at any moment ends as an uninterrupted one, bit for bit.

Data2vec with dropout reads random crops and flips through two workers, two batches an update, and crosses epochs: five
breaks without a process's end, and one `kill -9`. What can go wrong apart from the data is in tests/core/train.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from training import STEPS, At, Boom, Breaking, breaking, lines, same, started, train, wait_for_line

from d2v.core import EMASchedule, InverseBlockMasker
from d2v.core.data import DataError, Loader
from d2v.core.model import (
    BackboneConfig,
    BlockConfig,
    ConvDecoderConfig,
    Data2VecConfig,
    TargetsConfig,
    TeacherConfig,
    TransformerConfig,
)
from d2v.core.train import BatchSource, JsonLines, RunFolder
from d2v.core.train import run_folder as folder_module
from d2v.vision import ImageAdapterConfig, ImageDataConfig

CONFIG = Data2VecConfig(
    student=BackboneConfig(
        encoder=TransformerConfig(block=BlockConfig(embed_dim=16, num_heads=2, dropout=0.1), depth=2),
        adapters={"vision": ImageAdapterConfig(image_size=8, patch_size=2, channels=1)},
    ),
    predictors={"vision": ConvDecoderConfig(decoder_dim=16, num_layers=1, kernel_size=3, groups=4)},
    maskers={"vision": InverseBlockMasker(mask_prob=0.6, mask_length=2)},
    targets=TargetsConfig(layers=2),
    teacher=TeacherConfig(schedule=EMASchedule(0.9, end=0.99, anneal=6)),
    num_masks=2,
    cls_weight=0.01,
)


def digits() -> Loader[Any]:
    data = ImageDataConfig(path="digits", size=8, channels=1, crop_area=(0.3, 1.0), num_workers=2)
    return data.build("train", batch_size=200, training=True)


def pretrain(path: Path, data: BatchSource | None = None) -> None:
    train(path, config=CONFIG, data=data or digits())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "run"
    data = digits()
    pretrain(path, data)
    place = data.state_dict()
    assert place["epoch"] * len(data) + place["batch"] == 2 * STEPS
    assert place["epoch"] >= 2
    return path


def test_inside_an_accumulation(tmp_path: Path, whole: Path) -> None:
    with pytest.raises(Boom):
        pretrain(tmp_path, Breaking(digits(), batch=12))  # the second one of the sixth update
    pretrain(tmp_path)
    same(tmp_path, whole)


@pytest.mark.parametrize(
    ("owner", "name", "when", "after"),
    [
        pytest.param(
            folder_module, "write_files", lambda folder, *_: ".step-6" in folder.name, True, id="half written"
        ),
        pytest.param(folder_module, "publish", lambda _, target: target.name == "step-6", False, id="not renamed"),
        pytest.param(folder_module, "publish", lambda _, target: target.name == "step-6", True, id="renamed"),
        pytest.param(RunFolder, "save", lambda _, step, *rest: step == 6, False, id="after the line"),
        pytest.param(RunFolder, "save", lambda _, step, *rest: step == 6, True, id="after the checkpoint"),
    ],
)
def test_around_a_checkpoint(
    tmp_path: Path,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    name: str,
    when: Callable[..., bool],
    after: bool,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, breaking(getattr(owner, name), when, after=after))
        # As a killed process leaves it, without cleanup.
        patch.setattr(folder_module.shutil, "rmtree", lambda *args, **options: None)
        with pytest.raises(Boom):
            pretrain(tmp_path)
    assert lines(tmp_path)[-1]["step"] == 6
    pretrain(tmp_path)
    same(tmp_path, whole)


def test_kill_with_workers(tmp_path: Path, whole: Path) -> None:
    statement = (
        "import test_resume\n"
        "hooks = [training.At(5, lambda: time.sleep(100))]\n"
        "training.train(path, config=test_resume.CONFIG, data=test_resume.digits(), hooks=hooks)"
    )
    process = started(statement, tmp_path, Path(__file__).parent)
    wait_for_line(tmp_path, 4, process)
    workers = children(process.pid)
    process.kill()
    process.wait()
    try:
        for pid in workers:
            os.kill(pid, 0)  # it lives: it has not noticed yet
        pretrain(tmp_path)
    finally:
        for pid in workers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    same(tmp_path, whole)


@pytest.mark.parametrize(
    "place", ["publish", *(pytest.param(one, marks=pytest.mark.long) for one in ("reading", "write_files", "line"))]
)
def test_a_dead_worker(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    def kill() -> None:
        victim = multiprocessing.active_children()[0].pid
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        time.sleep(1)  # torch's handler raises here, in the middle of a write

    def killing(*args: Any, **options: Any) -> None:
        original(*args, **options)
        if len(lines(tmp_path)) == 3:
            kill()

    hooks = []
    with monkeypatch.context() as patch:
        if place == "reading":
            hooks.append(At(6, kill))
        else:
            owner: Any = JsonLines if place == "line" else folder_module
            name = "_put" if place == "line" else place
            original = getattr(owner, name)
            patch.setattr(owner, name, staticmethod(killing) if place == "line" else killing)
        with pytest.raises(DataError, match=r"died by signal Killed.*data\.num_workers"):
            train(tmp_path, config=CONFIG, data=digits(), hooks=hooks)
    pretrain(tmp_path)
    same(tmp_path, whole)


def children(pid: int) -> list[int]:
    listing = Path(f"/proc/{pid}/task/{pid}/children")  # elsewhere than on Linux the workers are left to themselves
    return [int(child) for child in listing.read_text().split()] if listing.exists() else []
