"""One training step on a GPU: the same numbers as on a CPU, in every precision and compiled, without waiting."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from building import FORMER, NEW, gradients, toy_batch
from torch import Tensor

from d2v.core import Batch, Data2Vec, InverseBlockMasker
from d2v.core.model import (
    BackboneConfig,
    BlockConfig,
    ContextConfig,
    ConvDecoderConfig,
    Data2VecConfig,
    TargetsConfig,
    TeacherConfig,
    TransformerConfig,
)
from d2v.core.precision import autocast
from d2v.core.teacher import EMASchedule
from d2v.core.train import PublishedAdamW, parameter_groups
from d2v.vision import ImageAdapterConfig

pytestmark = pytest.mark.gpu

# The composition of the published image models, without noise, so that nothing is drawn but the masks.
IMAGES = Data2VecConfig(
    student=BackboneConfig(
        encoder=TransformerConfig(block=BlockConfig(embed_dim=64, num_heads=4, norm_eps=1e-6), depth=3),
        adapters={"vision": ImageAdapterConfig(image_size=64, patch_size=8, context=ContextConfig(depth=1))},
    ),
    predictors={"vision": ConvDecoderConfig(decoder_dim=32, num_layers=2, kernel_size=3, groups=4, noise_std=0.0)},
    maskers={"vision": InverseBlockMasker(mask_prob=0.75, mask_length=2, mask_prob_adjust=0.1)},
    targets=TargetsConfig(layers=3, each=("instance",), after=("layer",)),
    teacher=TeacherConfig(schedule=EMASchedule(0.9)),
    num_masks=4,
    cls_weight=0.01,
)


@pytest.fixture
def model() -> Data2Vec:
    torch.manual_seed(3)
    return IMAGES.build().train()


@pytest.fixture
def batch() -> Batch:
    return Batch(source=torch.randn(4, 3, 64, 64), ids=torch.arange(4) + 10)


def run(model: Data2Vec, batch: Batch, precision: Any = "fp32", *, update: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss per hidden position, and its gradients, on the model's device."""
    device = next(model.parameters()).device
    model.zero_grad()
    with autocast(precision, device):
        out = model(batch.to(device), update=update)
    loss = out.loss_sum / out.sample_size
    loss.backward()
    return loss.detach().cpu(), {name: grad.cpu() for name, grad in gradients(model).items()}


def direction(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """Cosine of two gradients as a whole."""
    assert first.keys() == second.keys()
    ours, theirs = (torch.cat([one[name].flatten() for name in first]).double() for one in (first, second))
    return float(ours @ theirs / ours.norm() / theirs.norm())


def test_fp32_gives_what_the_cpu_gives(model: Data2Vec, batch: Batch, gpu: torch.device) -> None:
    loss, grads = run(model, batch)
    loss_there, grads_there = run(copy.deepcopy(model).to(gpu), batch)
    torch.testing.assert_close(loss_there, loss, rtol=1e-5, atol=1e-5)
    for name, grad in grads.items():
        torch.testing.assert_close(grads_there[name], grad, rtol=1e-3, atol=1e-4 * float(grad.norm()), msg=name)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_close_to_full(model: Data2Vec, batch: Batch, gpu: torch.device, precision: str) -> None:
    model = model.to(gpu)
    loss, grads = run(model, batch)
    loss_half, grads_half = run(model, batch, precision)
    assert loss_half == pytest.approx(float(loss), rel=0.02)
    assert direction(grads_half, grads) > 0.99


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_what_is_added_up_and_averaged_stays_in_fp32(
    model: Data2Vec, batch: Batch, gpu: torch.device, precision: Any
) -> None:
    model = model.to(gpu)
    with autocast(precision, gpu):
        out = model(batch.to(gpu), update=0)
    out.loss_sum.backward()
    assert out.loss_sum.dtype == torch.float32
    assert out.targets is not None
    assert out.targets.dtype == torch.float32
    assert {total.dtype for total, _ in out.metrics.values()} == {torch.float32}
    assert {grad.dtype for grad in gradients(model).values()} == {torch.float32}
    model.update_teacher(1)
    assert {p.dtype for p in model.teacher.parameters()} == {torch.float32}


# The compiler's own warnings are not defects of d2v.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 1e-2)])
def test_blocks_compiled_one_by_one_give_the_same(
    model: Data2Vec, batch: Batch, gpu: torch.device, precision: Any, tolerance: float
) -> None:
    torch.compiler.reset()
    model = model.to(gpu)
    compiled = copy.deepcopy(model)
    for backbone in (compiled.student, compiled.teacher.module):
        for block in backbone.blocks():
            block.compile(dynamic=False, fullgraph=True)
    for update in range(2):
        loss, grads = run(model, batch, precision, update=update)
        again, grads_again = run(compiled, batch, precision, update=update)
        torch.testing.assert_close(again, loss, rtol=tolerance, atol=0)
        assert direction(grads_again, grads) > 1 - 10 * tolerance**2


def trained(model: Data2Vec, batch: Batch) -> Callable[[], None]:
    """Updates of the model on one batch, as a loop without checks would make them."""
    optimizer = PublishedAdamW(parameter_groups(model, weight_decay=0.05), lr=1e-3)
    done = 0

    def update() -> None:
        nonlocal done
        optimizer.zero_grad()
        with autocast("bf16", batch.source.device):
            out = model(batch, update=done)
        (out.loss_sum / out.sample_size).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        done += 1
        model.update_teacher(done)

    return update


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("config", [IMAGES, NEW, FORMER], ids=["images", "2.0", "1.0"])
def test_with_a_mask_that_is_there_nothing_waits_for_the_device(
    batch: Batch, gpu: torch.device, config: Data2VecConfig
) -> None:
    batch = (batch if config is IMAGES else toy_batch()).to(gpu)
    model = config.build().to(gpu).train()
    mask = model.mask(batch, model.front(batch), update=0)
    assert len(mask.visible) == len(mask.hidden)  # which they are is worked out once, by waiting
    assert len(mask.index) == mask.hidden.sum()
    update = trained(model, dataclasses.replace(batch, mask=mask))
    update()  # makes the optimiser's state
    try:
        torch.cuda.set_sync_debug_mode("error")
        update()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_memory_does_not_grow(model: Data2Vec, batch: Batch, gpu: torch.device) -> None:
    update, held, peaks = trained(model.to(gpu), batch.to(gpu)), [], []
    for _ in range(6):
        torch.cuda.reset_peak_memory_stats()
        update()
        held.append(torch.cuda.memory_allocated())
        peaks.append(torch.cuda.max_memory_allocated())
    assert len(set(held[2:])) == 1
    assert len(set(peaks[2:])) == 1
