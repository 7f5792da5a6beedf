"""The teacher of a student whose parameters are sharded: one process and gloo are enough to meet every type."""

import pytest
import torch
import torch.distributed as dist
from building import DIM, NEW, toy_batch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from d2v.core.teacher import EMATeacher

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="this PyTorch has no torch.distributed")


@pytest.fixture
def mesh(tmp_path):
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def half(_: int) -> float:
    return 0.5


def test_distributed_parameters(mesh):
    student = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    start = {name: p.detach().clone() for name, p in student.named_parameters()}
    for linear in student:
        for name, parameter in list(linear.named_parameters()):
            setattr(linear, name, nn.Parameter(distribute_tensor(parameter.detach(), mesh, [Shard(0)])))
    teacher = EMATeacher(student, half, copy=["1.bias"])
    assert all(isinstance(p, DTensor) for p in teacher.parameters())
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.to_local().add_(1.0)
    teacher.update(student, 1)
    for name, ours in teacher.module.named_parameters():
        torch.testing.assert_close(ours.full_tensor(), start[name] + (1.0 if name == "1.bias" else 0.5))


# The branch of a block is a view of its last linear layer's output; it is never changed in place.
@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module .* returned a view tensor")
def test_fully_sharded_model(mesh):
    """Steps of a sharded model equal those of a whole one; FSDP modules cannot be copied: the teacher comes first."""
    torch.manual_seed(1)
    whole = NEW.build()
    sharded = NEW.build()
    sharded.load_state_dict(whole.state_dict())
    for module in (sharded.student, sharded.teacher.module):
        for block in module.encoder.blocks:
            fully_shard(block, mesh=mesh)
    fully_shard(sharded.student.encoder, mesh=mesh)
    fully_shard(sharded.teacher.module.encoder, mesh=mesh)
    batches = [toy_batch() for _ in range(2)]
    for model in (whole, sharded):
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        for n, batch in enumerate(batches, start=1):
            out = model(batch, update=n)
            optimizer.zero_grad()
            (out.loss_sum / out.sample_size).backward()
            optimizer.step()
            model.update_teacher(n)
    for (name, ours), theirs in zip(sharded.named_parameters(), whole.parameters(), strict=True):
        ours = ours.full_tensor() if isinstance(ours, DTensor) else ours
        torch.testing.assert_close(ours, theirs, msg=lambda text, name=name: f"{name}: {text}")
    assert isinstance(sharded.teacher.module.encoder.blocks[0].norm1.weight, DTensor)
    assert sharded.teacher.module.encoder.blocks[0].norm1.weight.full_tensor().shape == (DIM,)
