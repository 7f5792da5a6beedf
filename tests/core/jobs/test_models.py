"""Encoders out of stored models: whose weights they have, and that the teacher's compute what targets are made of."""

from pathlib import Path

import attrs
import pytest
import torch
from building import FORMER, NEW, adapted, randomise, toy_batch, with_student
from labelled import ToyClasses
from torch import nn

from d2v.core.description import Description
from d2v.core.files import ConfigError, Stored
from d2v.core.jobs.models import encoder_of
from d2v.core.labels import Classes
from d2v.core.model import AlibiConfig, ContextConfig, Data2VecConfig
from d2v.core.nn import LayerFeatures

RICH = adapted(NEW, extra_tokens=1, alibi=AlibiConfig(), context=ContextConfig(depth=1))
NORMED = with_student(RICH, encoder=attrs.evolve(RICH.student.encoder, norm_out=True))


def stored(config: Data2VecConfig, *leave_out: str) -> Stored:
    """A model whose student and teacher have nothing in common but their shapes."""
    config = attrs.evolve(config, teacher=attrs.evolve(config.teacher, leave_out=leave_out))
    model = config.build().eval()
    randomise(model.student)
    randomise(model.teacher)
    return Stored(path=Path("model"), description=Description(model=config), module=model)


@pytest.mark.parametrize(
    ("config", "leave_out"),
    [
        (RICH, []),
        (RICH, ["adapters.*.front"]),
        (RICH, ["adapters.*"]),
        (NEW, ["adapters.*.front", "adapters.*.positions"]),
        (NEW, ["adapters.toy.front.proj.bias"]),
        (NORMED, ["encoder.norm_out"]),
        (NORMED, ["adapters.*", "encoder.norm_out"]),
        (FORMER, ["adapters.*.front", "adapters.*.mask_token"]),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, list) else "",
)
def test_the_teacher_s_encoder_has_the_student_s_parts_where_it_lacks_one(
    config: Data2VecConfig, leave_out: list[str]
) -> None:
    one = stored(config, *leave_out)
    student, teacher = one.module.student.state_dict(), one.module.teacher.module.state_dict()  # type: ignore[union-attr, operator]
    encoder, _ = encoder_of(one, "teacher")
    found = encoder.state_dict()
    assert found.keys() == student.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, teacher.get(name, student[name])), name
    lacking = found.keys() - teacher.keys()
    assert bool(lacking) == bool(leave_out)
    assert all(any(matches(name, pattern) for pattern in leave_out) for name in lacking)


def matches(name: str, pattern: str) -> bool:
    return all(part in ("*", own) for part, own in zip(pattern.split("."), name.split("."), strict=False))


@pytest.mark.parametrize("leave_out", [[], ["adapters.*.front"], ["adapters.*"], ["encoder.norm_out"]], ids=str)
def test_it_computes_what_targets_are_made_of(leave_out: list[str]) -> None:
    one = stored(NORMED, *leave_out)
    batch = toy_batch()
    ours, theirs = (LayerFeatures(range(3), kind="ffn", output=False) for _ in range(2))
    one.module.encode_teacher(batch, sink=theirs)  # type: ignore[operator]
    with torch.no_grad():
        encoder_of(one, "teacher")[0].eval().encode(batch, sink=ours)
    for layer in range(3):
        torch.testing.assert_close(ours.results[layer], theirs.results[layer])


def test_weights_that_are_not_there() -> None:
    one = stored(NEW)
    with pytest.raises(ConfigError, match=r"'techer' .*teacher"):
        encoder_of(one, "techer")  # type: ignore[arg-type]
    described = Description(model=NEW.student, task=ToyClasses(), labels=Classes(("a", "b")))
    tuned = Stored(path=one.path, description=described, module=nn.ModuleDict({"encoder": one.student}))
    alone = Stored(path=one.path, description=Description(model=NEW.student), module=one.student)
    for other in (tuned, alone):
        with pytest.raises(ConfigError, match="no teacher"):
            encoder_of(other, "teacher")
        made = encoder_of(other, "student")[0].state_dict()
        for name, tensor in one.student.state_dict().items():
            assert torch.equal(made[name], tensor)
            assert made[name].data_ptr() != tensor.data_ptr()
