"""Runs on a GPU: they resume bit for bit, move between devices, wait as seldom as promised, and read pinned batches."""

import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from building import NEW
from safetensors.torch import load_file
from training import NOISY, STEPS, At, same, train

from d2v.core.data import FixedPlan, Loader
from d2v.core.masks import Mask
from d2v.core.model import Batch
from d2v.core.train import Interrupted

pytestmark = pytest.mark.gpu
WAITS = 1  # of an update, with any number of micro-batches: whether the gradient is finite


def stopped(path: Path, step: int, **options: Any) -> None:
    with pytest.raises(Interrupted):
        train(path, hooks=[At(step, lambda: signal.raise_signal(signal.SIGTERM))], **options)


def built(device: torch.device, config: Any = NOISY) -> torch.nn.Module:
    torch.manual_seed(1)
    return config.build().to(device)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_resume_is_exact(tmp_path: Path, gpu: torch.device, deterministic: None, precision: str) -> None:
    train(tmp_path / "whole", model=built(gpu), precision=precision)
    stopped(tmp_path / "run", 4, model=built(gpu), precision=precision)
    train(tmp_path / "run", model=built(gpu), precision=precision)
    same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("first", ["cpu", "cuda"])
def test_a_run_goes_on_on_another_device(tmp_path: Path, first: str) -> None:
    """NEW draws nothing at random but its masks, so the devices differ by rounding alone."""
    one, other = (torch.device(name) for name in (first, {"cpu": "cuda", "cuda": "cpu"}[first]))
    train(tmp_path / "whole", model=built(other, NEW), config=NEW)
    stopped(tmp_path / "run", 4, model=built(one, NEW), config=NEW)
    train(tmp_path / "run", model=built(other, NEW), config=NEW)
    ours, theirs = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("run", "whole"))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_an_update_waits_for_the_device_as_seldom_as_promised(tmp_path: Path, gpu: torch.device) -> None:
    def count(accumulate: int) -> int:
        """Waits in the last update but one, which writes no metrics."""
        heard: list[str] = []
        begin, end = STEPS - 2, STEPS - 1
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = lambda message, *_: heard.append(str(message))  # type: ignore[assignment]
            hooks = [
                At(begin, lambda: torch.cuda.set_sync_debug_mode("warn")),
                At(end, lambda: torch.cuda.set_sync_debug_mode("default")),
            ]
            path = tmp_path / f"run-{accumulate}"
            try:
                train(path, model=built(gpu), hooks=hooks, accumulate=accumulate, log_every=100, checkpoint_every=100)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing" in message for message in heard)

    one, three = count(1), count(3)
    assert one > 0, "else nothing was counted"
    assert max(one, three) <= WAITS


def test_a_mask_is_copied_from_pinned_memory_with_its_places(gpu: torch.device) -> None:
    mask = Mask(hidden=torch.tensor([[True, False, True], [True, True, False]]))
    pinned = mask.pin_memory()
    assert all(one.is_pinned() for one in (pinned.hidden, pinned.visible, pinned.index))
    moved = pinned.to(gpu, non_blocking=True)
    torch.cuda.synchronize()
    for name in ("hidden", "visible", "index"):
        found = getattr(moved, name)
        assert found.device.type == "cuda"
        assert torch.equal(found.cpu(), getattr(mask, name))
    assert moved.pin_memory() is moved


class Numbers:
    def __len__(self) -> int:
        return 6

    def get(self, id: int, *, seed: int, epoch: int) -> torch.Tensor:
        return torch.tensor([float(id)])


def collate(samples: list[torch.Tensor], ids: torch.Tensor) -> Batch:
    return Batch(source=torch.stack(samples), ids=ids)


# Python's own advice, of workers that do not touch the GPU.
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_lie_in_pinned_memory(gpu: torch.device, workers: int) -> None:
    torch.zeros(1, device=gpu)
    plan = FixedPlan(n=6, batch_size=2, shuffle=True, drop_last=True)
    loader = Loader(Numbers(), collate, plan, num_workers=workers)
    batches = iter(loader)
    seen = [next(batches) for _ in range(4)]
    assert all(batch.source.is_pinned() and batch.ids is not None and batch.ids.is_pinned() for batch in seen)
    assert loader.state_dict() == {"epoch": 1, "batch": 1}, "prefetched batches do not count"
