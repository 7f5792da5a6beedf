"""What is inside torch.compile, DDP, DataParallel and activation checkpoints, and what it is called."""

import copy

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.parallel import DistributedDataParallel

from d2v.core.files.folder import write_files
from d2v.core.teacher import EMATeacher
from d2v.core.train import RunFolder
from d2v.core.wrappers import call_inside, load_plain_state, named_parts, plain_name, plain_state, unwrapped


def compiled(module: nn.Module) -> nn.Module:
    return torch.compile(module, backend="eager")


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2)), nn.Linear(2, 2))


def wrapped_within(whole: nn.Sequential) -> nn.Sequential:
    """The same modules, some of them in wrappers."""
    inner = nn.Sequential(nn.DataParallel(whole[1][0]), checkpoint_wrapper(whole[1][1]))
    return nn.Sequential(compiled(whole[0]), compiled(nn.DataParallel(inner)), whole[2])


WRAPS = {
    "compiled": compiled,
    "DataParallel": nn.DataParallel,
    "both": lambda module: nn.DataParallel(compiled(module)),
    "checkpointed": checkpoint_wrapper,
    "within": wrapped_within,
    "within and without": lambda module: compiled(wrapped_within(module)),
}
wraps = pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)


@wraps
def test_names_are_those_without_wrappers(wrap):
    plain = net()
    wrapped = wrap(plain)
    assert {plain_name(wrapped, name) for name in wrapped.state_dict()} == set(plain.state_dict())
    assert [name for name, _ in named_parts(wrapped)] == [name for name, _ in plain.named_modules()]
    assert [name for name, _ in named_parts(plain)] == [name for name, _ in plain.named_modules()]
    if wrap is not wrapped_within:
        assert type(unwrapped(wrapped)) is nn.Sequential


def test_a_part_of_ones_own_may_be_called_module():
    plain = nn.ModuleDict({"module": nn.ModuleDict({"module": nn.Linear(2, 2)})})
    assert unwrapped(plain) is plain
    for wrap in (lambda module: module, compiled, nn.DataParallel):
        wrapped = wrap(plain)
        assert {plain_name(wrapped, name) for name in wrapped.state_dict()} == set(plain.state_dict())


@wraps
def test_what_is_written_and_read(wrap, tmp_path):
    plain = net()
    write_files(tmp_path, plain_state(wrap(plain)), {})
    state = load_file(tmp_path / "model.safetensors")
    assert state.keys() == plain.state_dict().keys()
    other = net()
    load_plain_state(wrap(other), state)
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, plain.state_dict()[name]), name
    with pytest.raises(RuntimeError, match=r"more\.weight"):
        load_plain_state(wrap(other), {**state, "more.weight": torch.zeros(1)})


@wraps
def test_a_checkpoint_goes_from_a_wrapped_model_to_a_plain_one_and_back(wrap, tmp_path):
    plain, others = net(), (net(), net())
    run = RunFolder(tmp_path / "run", config="", description={})
    run.save(1, plain_state(wrap(plain)), {"step": 1})
    for other in (others[0], wrap(others[1])):
        tensors, state = run.load()
        load_plain_state(other, tensors)
        assert state == {"step": 1}
    run.close()
    for other in others:
        for name, tensor in other.state_dict().items():
            assert torch.equal(tensor, plain.state_dict()[name]), name


@wraps
@pytest.mark.parametrize("late", [False, True])
def test_a_teacher_follows_a_wrapped_student(wrap, late):
    student = net()
    wrapped = wrap(student)
    options = {"leave_out": ["1.1"], "copy": ["*.bias"]}
    ours = EMATeacher(student if late else wrapped, 0.5, **options)
    theirs = EMATeacher(copy.deepcopy(student), 0.5, **options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert ours.module[1][1] is None
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += torch.randn_like(parameter)
    student[1][0].running_mean += 1
    ours.update(wrapped, 1)
    theirs.update(student, 1)
    assert len(ours.state_dict()) == 9
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name
    assert not {p.data_ptr() for p in ours.parameters()} & {p.data_ptr() for p in student.parameters()}


class Summed(nn.Module):
    """Its `value` calls its own `forward`, as third-party encoders do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return x @ self.weight

    def value(self, x, *, factor=1.0):
        return self(x) * factor


@pytest.mark.skipif(not dist.is_available(), reason="this PyTorch has no torch.distributed")
@pytest.mark.parametrize("within", [lambda module: module, compiled], ids=["plain", "compiled"])
def test_ddp_takes_part_in_calls_of_other_methods(within, tmp_path):
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        module = Summed()
        parallel = DistributedDataParallel(within(module))
        reduced = []

        def hook(state, bucket):
            reduced.append(bucket.buffer().clone())
            future = torch.futures.Future()
            future.set_result(bucket.buffer())
            return future

        parallel.register_comm_hook(None, hook)
        x = torch.randn(2, 3)
        for step in (1, 2):
            out = call_inside(parallel, "value", x, factor=2.0)
            torch.testing.assert_close(out, 2 * x.sum(1))
            out.sum().backward()
            assert len(reduced) == step
            torch.testing.assert_close(parallel(x), x.sum(1))  # its own forward is back in place
            assert "forward" not in vars(module)
        with pytest.raises(TypeError, match="unexpected"):
            call_inside(parallel, "value", x, wrong=1)
        torch.testing.assert_close(parallel(x), x.sum(1))
    finally:
        dist.destroy_process_group()
