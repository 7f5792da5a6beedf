"""The teacher against the closed form of its history, and what it must not keep."""

import copy
import gc
import weakref

import pytest
import torch
from building import FORMER, NEW, adapted, toy_batch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from d2v.core.teacher import EMASchedule, EMATeacher


def half(_: int) -> float:
    return 0.5


def net(**options) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4, **options), nn.BatchNorm1d(4), nn.Linear(4, 2, **options))


def moved(student: nn.Module) -> nn.Module:
    """An optimiser step, as far as the teacher is concerned."""
    for parameter in student.parameters():
        parameter.data += torch.randn_like(parameter)
    return student


@given(decays=st.lists(st.floats(0, 1), min_size=1, max_size=6), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_closed_form_of_its_history(decays, seed):
    torch.manual_seed(seed)
    student = net()
    history = [[p.detach().double().clone() for p in student.parameters()]]
    teacher = EMATeacher(student, lambda n: decays[n - 1])
    for n in range(1, len(decays) + 1):
        moved(student)
        teacher.update(student, n)
        history.append([p.detach().double().clone() for p in student.parameters()])
    # t_n = sum over k of (1 - a_k) a_(k+1) ... a_n s_k, with a_0 = 0 for the start.
    weights = [1.0]
    for decay in decays:
        weights = [weight * decay for weight in weights] + [1 - decay]
    for i, ours in enumerate(teacher.module.parameters()):
        expected = sum(weight * old[i] for weight, old in zip(weights, history, strict=True))
        torch.testing.assert_close(ours.double(), expected, atol=3e-6, rtol=1e-5)


def test_it_starts_as_a_copy_of_its_own():
    student = net()
    teacher = EMATeacher(student, half)
    for (name, ours), theirs in zip(teacher.module.named_parameters(), student.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
        assert ours.data_ptr() != theirs.data_ptr(), name
    assert all(p.requires_grad for p in student.parameters())


def test_buffers_and_frozen_parameters_are_copied():
    student = net()
    student[0].requires_grad_(False)
    teacher = EMATeacher(student, half)
    student(torch.randn(5, 3))  # moves the running statistics
    teacher.update(moved(student), 1)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(getattr(teacher.module[1], name), getattr(student[1], name)), name
    assert torch.equal(teacher.module[0].weight, student[0].weight)
    assert not torch.equal(teacher.module[2].weight, student[2].weight)
    student[2].requires_grad_(False)  # frozen later: from then on it is copied
    teacher.update(moved(student), 2)
    assert torch.equal(teacher.module[2].weight, student[2].weight)


@pytest.mark.parametrize(
    ("patterns", "copied"),
    [
        (["0"], {"0.weight", "0.bias"}),
        (["2.bias"], {"2.bias"}),
        (["*.bias", "1"], {"0.bias", "1.bias", "2.bias", "1.weight"}),
        (["*"], {"0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"}),
    ],
)
def test_copied_parts(patterns, copied):
    student = net()
    teacher = EMATeacher(student, half, copy=patterns)
    teacher.update(moved(student), 1)
    theirs = dict(student.named_parameters())
    assert {name for name, ours in teacher.module.named_parameters() if torch.equal(ours, theirs[name])} == copied


def test_a_copied_name_is_no_prefix():
    student = nn.ModuleDict({"front": nn.Linear(2, 2), "front2": nn.Linear(2, 2)})
    teacher = EMATeacher(student, half, copy=["front"])
    teacher.update(moved(student), 1)
    assert torch.equal(teacher.module["front"].weight, student["front"].weight)
    assert not torch.equal(teacher.module["front2"].weight, student["front2"].weight)


def test_left_out_parts_are_none_and_never_copied():
    class Heavy(nn.Linear):
        def __deepcopy__(self, memo):
            raise AssertionError("a left-out part was copied")

    student = nn.ModuleDict({"body": nn.Linear(2, 2), "heavy": Heavy(2, 2)})
    student.body_bias = student["body"].bias  # a parameter under a second name goes as well
    teacher = EMATeacher(student, half, leave_out=["heavy", "body.bias"])
    assert teacher.module["heavy"] is None
    assert teacher.module["body"].bias is None
    assert [name for name, _ in teacher.module.named_parameters()] == ["body.weight"]
    teacher.update(moved(student), 1)
    assert set(teacher.state_dict()) == {"module.body.weight"}
    student.to(torch.float64)  # what it does not hold does not matter to it
    teacher.update(student, 2)


def test_left_out_parts_of_a_model():
    model = adapted(NEW, extra_tokens=1).build()
    teacher = EMATeacher(model.student, half, leave_out=["adapters.*.front", "encoder.blocks.2"])
    adapter = teacher.module.adapters["toy"]
    assert adapter.front is None
    assert adapter.positions is not None
    assert teacher.module.encoder.blocks[2] is None
    whole = EMATeacher(model.student, half, leave_out=["adapters.*"])
    assert whole.module.adapters["toy"] is None


def test_decay_one_leaves_it_untouched():
    student = net()
    student[0].requires_grad_(False)
    teacher = EMATeacher(student, EMASchedule(0.5, end=1.0, anneal=2), copy=["2"])
    before = copy.deepcopy(teacher.state_dict())
    student(torch.randn(5, 3))
    teacher.update(moved(student), 2)
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    teacher.update(student, 1)
    assert not torch.equal(before["module.0.weight"], teacher.module[0].weight)


def test_decay_zero_follows_at_once():
    student = net()
    teacher = EMATeacher(student, lambda n: 0.0)
    teacher.update(moved(student), 1)
    for ours, theirs in zip(teacher.module.parameters(), student.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_always_in_eval_mode_without_gradients():
    student = nn.Sequential(net(), nn.Dropout(0.5)).train()
    teacher = EMATeacher(student, half)
    outer = nn.ModuleDict({"teacher": teacher}).train()
    assert not any(module.training for module in teacher.modules())
    assert outer.training
    assert student.training
    assert not any(p.requires_grad for p in teacher.parameters())
    teacher.update(moved(student), 1)
    assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())
    x = torch.randn(5, 3)
    assert torch.equal(teacher(x), teacher(x))
    assert torch.equal(teacher(x), teacher.module(x))


@pytest.mark.parametrize("make", [net, lambda: FORMER.build().student, lambda: NEW.build().student])
def test_it_keeps_no_reference_to_the_student(make):
    student = make()
    if not isinstance(student, nn.Sequential):
        student.encode(toy_batch())
    teacher = EMATeacher(student, half)
    teacher.update(student, 1)
    parts = [weakref.ref(part) for part in (*student.modules(), *student.parameters())]
    del student
    gc.collect()
    assert [ref() for ref in parts if ref() is not None] == []
    assert sum(p.numel() for p in teacher.parameters()) > 0


def test_state_dict_round_trip():
    student = net()
    teacher = EMATeacher(student, half, leave_out=["2"])
    teacher.update(moved(student), 1)
    other = EMATeacher(net(), half, leave_out=["2"])
    other.load_state_dict(copy.deepcopy(teacher.state_dict()))
    teacher.update(moved(student), 2)
    other.update(student, 2)
    assert len(teacher.state_dict()) == 7
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_student_is_averaged_in_float32(dtype):
    student = net().to(dtype)
    student[0].requires_grad_(False)
    teacher = EMATeacher(student, lambda n: 0.999)
    assert {p.dtype for p in teacher.parameters()} == {torch.float32}
    expected = {name: p.float().clone() for name, p in student.named_parameters()}
    for n in range(1, 4):
        teacher.update(moved(student), n)
        for name, theirs in student.named_parameters():
            mixed = expected[name].lerp(theirs.float(), 1 - 0.999)
            expected[name] = mixed if theirs.requires_grad else theirs.float().clone()
    for name, ours in teacher.module.named_parameters():
        torch.testing.assert_close(ours, expected[name], rtol=0, atol=0, msg=name)
    assert torch.equal(teacher.module[1].running_var, student[1].running_var.float())


def test_tied_parameters_stay_tied_and_move_once():
    student = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    student["b"].weight = student["a"].weight
    teacher = EMATeacher(student, half)
    before = student["a"].weight.detach().clone()
    assert teacher.module["a"].weight is teacher.module["b"].weight
    student["a"].weight.data += 1
    teacher.update(student, 1)
    torch.testing.assert_close(teacher.module["b"].weight, before + 0.5)


@pytest.mark.parametrize("n", [0, -1])
def test_the_first_update_is_number_one(n):
    student = net()
    with pytest.raises(ValueError, match=f"n={n}: "):
        EMATeacher(student, half).update(student, n)


@pytest.mark.parametrize("decay", [-0.1, 1.1, float("nan")])
def test_decays_outside_their_range(decay):
    student = net()
    with pytest.raises(ValueError, match=r"decay .*update 3"):
        EMATeacher(student, lambda n: decay).update(student, 3)


def test_a_pattern_that_matches_nothing_names_the_nearest():
    student = NEW.build().student
    for options in ({"leave_out": ["adapters.*.fronts"]}, {"copy": ["adapters.*.fronts"]}):
        with pytest.raises(ValueError, match=r"'adapters.\*.fronts'.*front'"):
            EMATeacher(student, half, **options)


def test_a_changed_student_is_refused():
    student = net()
    teacher = EMATeacher(student, half)
    before = copy.deepcopy(teacher.state_dict())
    student[2] = nn.Identity()
    with pytest.raises(ValueError, match=r"student .*'2.weight'"):
        teacher.update(student, 1)
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())


def test_a_number_is_a_constant_decay():
    student = net()
    ours, theirs = EMATeacher(student, 0.75), EMATeacher(student, lambda n: 0.75)
    assert ours.schedule(1) == ours.schedule(10**6) == 0.75
    for n in (1, 2):
        moved(student)
        ours.update(student, n)
        theirs.update(student, n)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)
    EMATeacher(student, 1)
    with pytest.raises(ValueError, match=r"schedule=1.5"):
        EMATeacher(student, 1.5)


@pytest.mark.parametrize(
    ("place", "name", "value", "shapes"),
    [
        (2, "weight", nn.Parameter(torch.ones(7, 4)), r"\(7, 4\).*\(2, 4\)"),
        (2, "bias", nn.Parameter(torch.ones(1)), r"\(1,\).*\(2,\)"),  # could be broadcast
        (1, "weight", nn.Parameter(torch.ones(1), requires_grad=False), r"\(1,\).*\(4,\)"),
        (1, "running_mean", torch.ones(1), r"\(1,\).*\(4,\)"),
    ],
)
def test_another_shape_is_refused_before_anything_moves(place, name, value, shapes):
    student = net()
    teacher = EMATeacher(student, half)
    before = copy.deepcopy(teacher.state_dict())
    moved(student)
    setattr(student[place], name, value)
    with pytest.raises(ValueError, match=rf"'{place}\.{name}' has shape {shapes}"):
        teacher.update(student, 1)
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
