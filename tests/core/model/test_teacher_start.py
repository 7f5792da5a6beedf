"""Where the teacher starts, and what it sees."""

import dataclasses

import attrs
import pytest
import torch
from building import FORMER, NEW, WIDTH, adapted, calls_of, random_mask, randomise, toy_batch

from d2v.core.model import AlibiConfig, Batch
from d2v.core.nn import LayerFeatures

B, T = 4, 8
# What is left out of the teacher decides where it starts (the design's table); copied parts do not.
FRONT, TOKEN, EXTRA = "adapters.*.front", "adapters.*.mask_token", "adapters.*.extra_tokens"
COMPOSITIONS = {
    "2.0 image": (NEW, (), (), "raw"),
    "2.0 audio": (NEW, (FRONT,), (), "local"),
    "2.0 text": (NEW, ("adapters.*",), (), "tokens"),
    "1.0 audio base": (FORMER, (FRONT, TOKEN), ("adapters.*.positions",), "local"),
    "1.0 audio AudioSet": (FORMER, (FRONT, TOKEN), (), "local"),
    "1.0 audio complete": (FORMER, (), (), "raw"),
    "1.0 text": (FORMER, (), (FRONT,), "raw"),
    "1.0 vision, fairseq": (FORMER, (FRONT, EXTRA, TOKEN), (), "tokens"),
    "1.0 vision, BEiT": (FORMER, (), (), "raw"),
}
RUNS = {
    "raw": ["student front", "student positions", "teacher front", "teacher positions"],
    "local": ["student front", "student positions", "teacher positions"],
    "tokens": ["student front", "student positions", "student positions"],
}


@pytest.mark.parametrize(("config", "leave_out", "copied", "start"), COMPOSITIONS.values(), ids=COMPOSITIONS)
def test_where_the_teacher_starts(config, leave_out, copied, start):
    teacher = attrs.evolve(config.teacher, leave_out=leave_out, copy=copied)
    model = attrs.evolve(adapted(config, extra_tokens=1, alibi=AlibiConfig()), teacher=teacher).build()
    randomise(model.teacher, std=0.3)  # so that it matters whose part is used
    assert model.teacher_start() == model.teacher_start("toy") == start
    parts = {
        f"{who} {part}": module
        for who, backbone in (("student", model.student), ("teacher", model.teacher.module))
        for part in ("front", "positions")
        if (module := getattr(backbone.adapters["toy"], part, None)) is not None
    }
    batch = toy_batch(B, T)
    with calls_of(parts) as calls:
        out = model(batch, update=0)
    assert calls == RUNS[start]
    assert not out.targets.requires_grad  # not even where it starts from what the student made
    student, theirs = model.student.adapter(None), model.teacher.module.adapters["toy"]
    local = student.front(batch) if start != "raw" else theirs.front(batch)
    whole = model.teacher.module if start != "tokens" else model.student
    tokens = whole.tokens(batch, local)
    bias = tokens.bias if theirs is None else theirs.bias(tokens)  # its own, where it has one
    sink = LayerFeatures([1, 2])
    model.teacher.module.encoder(tokens.x, bias=bias, num_prefix_tokens=1, sink=sink)
    y = sum(torch.nn.functional.instance_norm(sink.results[i][:, 1:].transpose(1, 2)) for i in (1, 2)) / 2
    expected = y.transpose(1, 2).repeat_interleave(config.num_masks, 0)[out.mask.hidden]
    torch.testing.assert_close(out.targets, expected.detach(), atol=1e-5, rtol=1e-4)
    out.loss_sum.backward()
    model.update_teacher(1)


def test_students_tokens_are_made_in_the_students_mode():
    """A teacher without adapters sees the student's dropout, one with adapters does not."""
    for leave_out, same in ((("adapters.*",), False), ((), True)):
        config = adapted(NEW, options={"dropout": 0.5})
        model = attrs.evolve(config, teacher=attrs.evolve(config.teacher, leave_out=leave_out)).build()
        batch, mask = toy_batch(B, T), random_mask(B, 2, T, 4)
        batch = dataclasses.replace(batch, mask=mask)
        assert torch.equal(model(batch, update=0).targets, model(batch, update=0).targets) == same
        model.eval()
        assert torch.equal(model(batch, update=0).targets, model(batch, update=0).targets)


@pytest.mark.parametrize("leave_out", [(), (FRONT,), ("adapters.*",)])
def test_the_view_is_what_the_teacher_sees(leave_out):
    model = attrs.evolve(NEW, teacher=attrs.evolve(NEW.teacher, leave_out=leave_out)).build()
    mask, source, view = random_mask(B, 2, T, 4), torch.randn(B, T, WIDTH), torch.randn(B, T, WIDTH)
    out = model(Batch(source=source, view=view, mask=mask), update=0)
    assert torch.equal(out.targets, model(Batch(source=view, mask=mask), update=0).targets)
    assert torch.equal(out.predictions, model(Batch(source=source, mask=mask), update=0).predictions)


@pytest.mark.parametrize("leave_out", ["encoder", "encoder.blocks", "encoder.blocks.0", "encoder.blocks.1"])
def test_a_teacher_that_lacks_what_the_targets_need(leave_out):
    targets = attrs.evolve(NEW.targets, layers=(0, 1))
    teacher = attrs.evolve(NEW.teacher, leave_out=(leave_out,))
    with pytest.raises(ValueError, match="block 1,"):
        attrs.evolve(NEW, targets=targets, teacher=teacher).build()
    spare = attrs.evolve(NEW, targets=targets, teacher=attrs.evolve(teacher, leave_out=("encoder.blocks.2",))).build()
    assert spare(toy_batch(B, T), update=0).loss_sum.isfinite()  # unused layers never run
