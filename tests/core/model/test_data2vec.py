"""One training step: what it adds up, what it masks, and who learns."""

import dataclasses

import attrs
import pytest
import torch
from building import (
    DIM,
    FORMER,
    NEW,
    WIDTH,
    ToyAdapterConfig,
    adapted,
    gradients,
    padding_of,
    random_mask,
    randomise,
    toy_batch,
)  # fmt: skip

from d2v.core.loss import RegressionLoss
from d2v.core.masks import RandomMasker
from d2v.core.model import AlibiConfig, Backbone, Batch, ContextConfig, Data2Vec, StepOutput
from d2v.core.teacher import EMATeacher, TargetAverager

B, T = 4, 8
CONFIGS = {
    "2.0": NEW,
    "2.0 with everything": attrs.evolve(
        adapted(NEW, extra_tokens=2, alibi=AlibiConfig(per_layer=True), context=ContextConfig(depth=1)),
        pixel_weight=0.3,
    ),
    "1.0": FORMER,
}
configs = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def build(config):
    return randomise(config.build(), std=0.1)


def rows(batch: Batch, part: slice) -> Batch:
    return dataclasses.replace(batch, source=batch.source[part], ids=batch.ids[part])


@configs
def test_micro_batches_give_the_same_gradient(config):
    model = build(config)
    batch = toy_batch(B, T, ids=torch.tensor([7, 3, 11, 5]))
    found = []
    for size in (4, 2, 1):
        model.zero_grad()
        outs = [model(rows(batch, slice(i, i + size)), update=3) for i in range(0, B, size)]
        count = sum(out.sample_size for out in outs)
        total = sum(out.loss_sum for out in outs)
        (total / count).backward()
        found.append((count, total.detach(), gradients(model)))
    for count, total, grads in found[1:]:
        assert count == found[0][0] == B * config.num_masks * (T // 2)
        torch.testing.assert_close(total, found[0][1])
        assert grads.keys() == found[0][2].keys()
        for name, gradient in grads.items():
            torch.testing.assert_close(gradient, found[0][2][name], atol=1e-5, rtol=1e-4)


def test_the_class_token_loss_grows_with_the_rows_of_a_worker():
    """The published definition: a sum over rows times the count; so two halves weigh half of one whole."""
    model = build(attrs.evolve(adapted(NEW, extra_tokens=1), regression_weight=0.0, cls_weight=1.0))
    batch = toy_batch(B, T, ids=torch.arange(B))
    whole = model(batch, update=0)
    halves = [model(rows(batch, part), update=0) for part in (slice(2), slice(2, 4))]
    torch.testing.assert_close(sum(half.loss_sum for half in halves), whole.loss_sum / 2)


def test_the_loss_is_the_sum_of_its_terms():
    config = attrs.evolve(
        adapted(NEW, extra_tokens=2),
        regression_weight=0.5,
        cls_weight=0.01,
        pixel_weight=0.3,
        loss=RegressionLoss(beta=1.0),
    )
    model, batch = build(config).eval(), toy_batch(B, T)
    out = model(batch, update=2)
    n = out.sample_size
    assert n == B * 2 * T // 2
    assert out.predictions.shape == out.targets.shape == (n, DIM)
    assert not out.predictions.requires_grad
    assert not out.targets.requires_grad

    def e(a, b):
        return torch.nn.functional.smooth_l1_loss(a, b, reduction="sum") / a.shape[-1] ** 0.5

    sink = TargetAverager([1, 2], each=["instance"])
    model.teacher.module.encode(batch, sink=sink)
    full = sink.finish()
    pixels = batch.source.repeat_interleave(2, 0)[out.mask.hidden]
    expected = {
        "regression": 0.5 * e(out.predictions, full.repeat_interleave(2, 0)[out.mask.hidden]),
        "cls": 0.01 * n * e(model.student.encode(batch, out.mask).x[:, 1], full.mean(1).repeat_interleave(2, 0)),
        "pixels": 0.3 * e(model.pixel_heads["toy"](out.predictions), pixels),
    }
    assert out.metrics.keys() == expected.keys()
    for name, value in expected.items():
        total, count = out.metrics[name]
        assert count == n
        assert not total.requires_grad
        torch.testing.assert_close(total, value.detach())
    torch.testing.assert_close(out.loss_sum.detach(), sum(expected.values()).detach())


def test_a_mean_loss_counts_one():
    out = attrs.evolve(NEW, loss=RegressionLoss(reduction="mean")).build()(toy_batch(), update=0)
    assert out.sample_size == 1
    torch.testing.assert_close(out.loss_sum.detach(), ((out.predictions - out.targets) ** 2).mean())


@configs
def test_no_gradient_reaches_the_teacher_and_all_others_learn(config):
    model = build(config)
    out = model(toy_batch(B, T), update=0)
    (out.loss_sum / out.sample_size).backward()
    names = gradients(model).keys()
    assert not any(name.startswith("teacher.") for name in names)
    assert {n for n, p in model.named_parameters() if p.requires_grad} - names == set()
    assert not any(p.requires_grad for p in model.teacher.parameters())
    assert not any(module.training for module in model.teacher.modules())
    assert model.student.training


TWO = attrs.evolve(
    NEW,
    student=attrs.evolve(
        NEW.student,
        adapters={"a": ToyAdapterConfig(), "b": ToyAdapterConfig(width=5, extra_tokens=1)},
    ),
    predictors={"a": NEW.predictors["toy"], "b": NEW.predictors["toy"]},
    maskers={"a": RandomMasker(mask_prob=0.5), "b": RandomMasker(mask_prob=0.25)},
    teacher=attrs.evolve(NEW.teacher, leave_out=("adapters.a.front",)),
)


def test_two_adapters_over_one_encoder():
    model = build(TWO)
    assert (model.teacher_start("a"), model.teacher_start("b")) == ("local", "raw")
    for name, other, width, hidden in (("a", "b", WIDTH, 4), ("b", "a", 5, 2)):
        model.zero_grad()
        out = model(toy_batch(B, T, width=width, modality=name), update=1)
        assert out.sample_size == B * 2 * hidden
        out.loss_sum.backward()
        names = gradients(model).keys()
        assert {n for n, p in model.named_parameters() if p.requires_grad} - names == {
            n for n, p in model.named_parameters() if p.requires_grad and f".{other}." in f".{n}"
        }
        assert any(n.startswith("student.encoder.") for n in names)
        model.update_teacher(1)
    with pytest.raises(ValueError, match=r"a, b.*Batch\.modality"):
        model(toy_batch(), update=0)


def test_parts_that_are_given_alone_are_those_of_the_only_modality():
    named = NEW.build()
    teacher = EMATeacher(named.student, 0.9)
    alone = Data2Vec(
        Backbone(named.student.adapter("toy"), named.student.encoder),
        teacher,
        named.predictors["toy"],
        named.maskers["toy"],
        num_masks=2,
    )
    assert list(alone.student.adapters) == list(alone.predictors) == list(alone.maskers) == ["input"]
    by_name = Data2Vec(
        named.student, teacher, named.predictors, named.maskers, num_masks=2, targets=TargetAverager(range(3))
    )
    batch = toy_batch(B, T)
    found = alone(batch, update=5)
    assert found.loss_sum.isfinite()
    by_name_out = by_name(dataclasses.replace(batch, modality="toy"), update=5)
    assert torch.equal(found.targets, by_name_out.targets)  # all layers, instance-normalised
    assert torch.equal(found.loss_sum, by_name_out.loss_sum)


@configs
def test_a_step_under_autocast_is_close(config):
    model, batch = build(config).eval(), toy_batch(B, T)
    plain = model(batch, update=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(batch, update=0)
    out.loss_sum.backward()
    assert out.loss_sum.dtype == out.targets.dtype == torch.float32
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())
    torch.testing.assert_close(out.loss_sum, plain.loss_sum, rtol=0.02, atol=0)
    torch.testing.assert_close(out.targets, plain.targets, rtol=0.1, atol=0.1)


def test_a_given_mask_wins():
    mask = random_mask(B, 3, T, 2)  # another number of masks and of hidden positions than the model's own
    out = NEW.build()(toy_batch(B, T, mask=mask), update=0)
    assert out.mask is mask
    assert out.sample_size == B * 3 * 2
    assert attrs.evolve(NEW, maskers={}).build()(toy_batch(B, T, mask=mask), update=0).mask is mask


def test_masks_depend_on_seed_update_and_ids_alone():
    model, ids = NEW.build(), torch.tensor([7, 3, 11, 5])
    m = NEW.num_masks

    def hidden(order=(0, 1, 2, 3), *, seed=0, update=4, **fields):
        model.seed = seed
        batch = toy_batch(len(order), T, **({"ids": ids[list(order)]} | fields))
        return model(batch, update=update).mask.hidden.view(len(order), m, T)

    first = hidden()
    assert torch.equal(hidden(), first)  # whatever the generator's state and the content
    assert torch.equal(hidden((2, 0)), first[[2, 0]])
    assert not torch.equal(hidden(update=5), first)
    assert not torch.equal(hidden(seed=1), first)
    assert not torch.equal(first[:, 0], first[:, 1])
    assert torch.equal(hidden(ids=None), hidden(ids=torch.arange(4)))


def test_padding_is_not_hidden_and_counts_are_equal():
    padding = padding_of([8, 6, 5, 8], T)
    out = NEW.build()(toy_batch(B, T, padding=padding), update=0)
    assert not (out.mask.hidden & padding.repeat_interleave(2, 0)).any()
    assert out.mask.hidden.sum(1).unique().numel() == 1


def test_update_teacher_follows_the_student():
    model = NEW.build()
    before = model.teacher.module.encoder.blocks[0].norm1.weight.clone()
    model.student.encoder.blocks[0].norm1.weight.data += 1
    model.update_teacher(1)
    torch.testing.assert_close(model.teacher.module.encoder.blocks[0].norm1.weight, before + 0.1)


def test_student_and_teacher_share_nothing_and_the_state_is_whole():
    model = FORMER.build()
    assert not {p.data_ptr() for p in model.student.parameters()} & {p.data_ptr() for p in model.teacher.parameters()}
    other = build(FORMER)
    other.load_state_dict(model.state_dict())
    batch = toy_batch(B, T)
    assert torch.equal(other(batch, update=3).loss_sum, model(batch, update=3).loss_sum)


def test_step_output_can_be_filled_by_hand():
    assert StepOutput(loss_sum=torch.zeros(()), sample_size=1).metrics == {}
