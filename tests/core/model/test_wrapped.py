"""Wrapped students, third-party students, and whole models under DDP and FSDP2 train as the plain model does."""

import copy

import attrs
import pytest
import torch
import torch.distributed as dist
from building import FORMER, NEW, adapted, gradients, padding_of, random_mask, randomise, toy_batch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from d2v.core.loss import RegressionLoss
from d2v.core.model import AlibiConfig, Backbone, ContextConfig, Data2Vec
from d2v.core.teacher import EMATeacher
from d2v.core.wrappers import unwrapped

B, T = 4, 8
FRONT = "adapters.*.front"
PARTS = {"extra_tokens": 1, "alibi": AlibiConfig(), "context": ContextConfig(depth=1)}
EVERYTHING = attrs.evolve(adapted(NEW, **PARTS), cls_weight=0.1, pixel_weight=0.3)
COMPOSITIONS = {
    "raw": (EVERYTHING, ()),
    "local": (EVERYTHING, (FRONT,)),
    "tokens": (EVERYTHING, ("adapters.*",)),
    "tokens of 1.0": (attrs.evolve(adapted(FORMER, **PARTS)), (FRONT, "adapters.*.extra_tokens")),
}
compositions = pytest.mark.parametrize(("config", "leave_out"), COMPOSITIONS.values(), ids=COMPOSITIONS)
needs_processes = pytest.mark.skipif(not dist.is_available(), reason="this PyTorch has no torch.distributed")


@pytest.fixture
def group(tmp_path):
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Foreign(nn.Module):
    """A third-party student with the full interface of a backbone."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.inner = backbone

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)


class Bare(nn.Module):
    """A third-party student that can only encode."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.inner = backbone

    def encode(self, batch, mask=None, *, local=None, tokens=None, sink=None):
        assert local is tokens is None
        return self.inner.encode(batch, mask, sink=sink)


WRAPS = {
    "compiled": lambda student: torch.compile(student, backend="eager"),
    "DataParallel": nn.DataParallel,
    "foreign": Foreign,
    "foreign and compiled": lambda student: torch.compile(Foreign(student), backend="eager"),
    "DDP": DistributedDataParallel,
    "DDP and compiled": lambda student: DistributedDataParallel(torch.compile(student, backend="eager")),
    "DDP and foreign": lambda student: DistributedDataParallel(Foreign(student)),
}


def around(model: Data2Vec, student: nn.Module, **changes) -> Data2Vec:
    """The same model about another student."""
    values = {
        "predictors": model.predictors,
        "maskers": model.maskers,
        "targets": model.targets,
        "loss": model.loss,
        "num_masks": model.num_masks,
        "cls_weight": model.cls_weight,
        "pixel_weight": model.pixel_weight,
        "pixel_heads": model.pixel_heads,
    }
    return Data2Vec(student, model.teacher, **{**values, **changes})


@needs_processes
@compositions
@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
@pytest.mark.parametrize("late", [False, True], ids=["made with it", "put in later"])
@pytest.mark.usefixtures("group")
def test_a_wrapped_student_gives_the_same_losses(config, leave_out, wrap, late):
    config = attrs.evolve(config, teacher=attrs.evolve(config.teacher, leave_out=leave_out))
    plain = randomise(config.build(), std=0.1)
    other = copy.deepcopy(plain)
    if late:
        other.student = wrap(other.student)
    else:
        other = around(other, wrap(other.student))
    assert other.teacher_start() == plain.teacher_start()
    for n in (1, 2):
        batch = toy_batch(B, T, padding=padding_of([8, 7, 6, 8], T))
        found = []
        for model in (plain, other):
            model.zero_grad()
            out = model(batch, update=n)
            out.loss_sum.backward()
            found.append((out.loss_sum, out.targets, *gradients(model).values()))
        assert len(found[0]) == len(found[1])
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs)
        if not isinstance(unwrapped(other.student), Foreign):  # whose teacher would have other names
            plain.update_teacher(n)
            other.update_teacher(n)


def test_a_student_that_only_encodes():
    """Its teacher starts at the raw input, whatever is inside."""
    plain = randomise(adapted(NEW, extra_tokens=1).build(), std=0.1)
    student = Bare(plain.student)
    other = around(plain, student)
    other.teacher = EMATeacher(student, 0.9)
    other.teacher.module.inner.load_state_dict(plain.teacher.module.state_dict())
    assert other.teacher_start() == "raw"
    batch = toy_batch(B, T, mask=random_mask(B, 2, T, 3))
    for model in (other, around(other, torch.compile(student, backend="eager"))):
        torch.testing.assert_close(model(batch, update=1).loss_sum, plain(batch, update=1).loss_sum)
    with pytest.raises(ValueError, match="pixels"):
        around(other, student, pixel_weight=0.1, pixel_heads={"toy": nn.Linear(2, 2)})
    around(other, student, cls_weight=0.1)(batch, update=0)  # whether it has a class token shows when it runs


def test_what_does_not_fit_is_seen_through_a_wrapper():
    model = NEW.build()
    for wrap in (torch.compile, nn.DataParallel, Foreign):
        with pytest.raises(ValueError, match=r"cls_weight=0\.1"):
            around(model, wrap(model.student), cls_weight=0.1)
    model.teacher = EMATeacher(Foreign(model.student), 0.9, leave_out=["inner.encoder.blocks.1"])
    with pytest.raises(ValueError, match="block 2,"):
        around(model, Foreign(model.student))


def losses(model: nn.Module, updated: Data2Vec, steps: int = 2) -> list[float]:
    """Losses of a few updates with the same batches; `updated` is the model inside."""
    torch.manual_seed(3)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    found = []
    for n in range(1, steps + 1):
        out = model(toy_batch(B, T, padding=padding_of([8, 7, 6, 8], T)), update=n)
        optimizer.zero_grad()
        (out.loss_sum / out.sample_size).backward()
        optimizer.step()
        updated.update_teacher(n)
        found.append(out.loss_sum.item())
    return found


def same_weights(ours: nn.Module, theirs: nn.Module) -> None:
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        a = a.full_tensor() if isinstance(a, DTensor) else a
        torch.testing.assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}")


# DDP looks for tensors in the output to see which parameters took part; in what it cannot search it finds none.
@needs_processes
@pytest.mark.usefixtures("group")
def test_ddp_finds_the_tensors_of_a_step():
    whole = randomise(attrs.evolve(EVERYTHING, loss=RegressionLoss(beta=1.0)).build(), std=0.1)
    whole.student.unused = nn.Linear(2, 2)
    other = copy.deepcopy(whole)
    parallel = DistributedDataParallel(other, find_unused_parameters=True)
    assert losses(parallel, other) == pytest.approx(losses(whole, whole))
    same_weights(other, whole)


# The branch of a block is a view of its last linear layer's output; it is never changed in place.
@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module .* returned a view tensor")
@needs_processes
@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("parts", ["root", "blocks and root"])
def test_fsdp_finds_the_tensors_of_a_step(parts):
    whole = randomise(EVERYTHING.build(), std=0.1)
    other = copy.deepcopy(whole)
    mesh = init_device_mesh("cpu", (1,))
    if parts != "root":
        for module in (other.student, other.teacher.module):
            for block in module.encoder.blocks:
                fully_shard(block, mesh=mesh)
    fully_shard(other, mesh=mesh)
    assert losses(other, other) == pytest.approx(losses(whole, whole))
    same_weights(other, whole)
