"""One training step: what it adds up, where the teacher starts, and what it refuses."""

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
    calls_of,
    gradients,
    padding_of,
    random_mask,
    randomise,
    toy_batch,
    with_student,
)  # fmt: skip

from d2v.core.loss import RegressionLoss
from d2v.core.masks import Mask, RandomMasker
from d2v.core.model import AlibiConfig, Backbone, Batch, ContextConfig, Data2Vec, MaskedHead, StepOutput
from d2v.core.nn import LayerFeatures
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


def test_a_part_alone_does_not_do_for_several_modalities():
    two = TWO.build()
    for parts in ((MaskedHead(DIM), {}), ({}, RandomMasker(mask_prob=0.5))):
        with pytest.raises(ValueError, match="modalities a, b"):
            Data2Vec(two.student, two.teacher, *parts)


def test_without_targets_the_student_has_to_tell_its_layers():
    class Foreign(torch.nn.Linear):
        def encode(self, batch, mask=None, **_):
            raise AssertionError

    student = Foreign(2, 2)
    with pytest.raises(ValueError, match="targets"):
        Data2Vec(student, EMATeacher(student, 0.9), MaskedHead(2))


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


@pytest.mark.parametrize("leave_out", [(), (FRONT,), ("adapters.*",)])
def test_the_view_is_what_the_teacher_sees(leave_out):
    model = attrs.evolve(NEW, teacher=attrs.evolve(NEW.teacher, leave_out=leave_out)).build()
    mask, source, view = random_mask(B, 2, T, 4), torch.randn(B, T, WIDTH), torch.randn(B, T, WIDTH)
    out = model(Batch(source=source, view=view, mask=mask), update=0)
    assert torch.equal(out.targets, model(Batch(source=view, mask=mask), update=0).targets)
    assert torch.equal(out.predictions, model(Batch(source=source, mask=mask), update=0).predictions)


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


def refused(config, message, **fields):
    with pytest.raises(ValueError, match=message):
        config.build()(toy_batch(B, T, **fields), update=0)


def test_weights_that_nothing_answers():
    refused(
        attrs.evolve(NEW, cls_weight=0.1), "cls_weight=0.1, but the 'toy' adapter has no extra token.*set cls_weight=0"
    )
    model = NEW.build()
    with pytest.raises(ValueError, match=r"pixel_weight=1.0 needs pixel_heads"):
        type(model)(
            model.student, model.teacher, predictors={}, maskers={}, targets=model.targets, loss=model.loss,
            pixel_weight=1.0,
        )  # fmt: skip


def test_masks_that_cannot_be_learned_from():
    nothing = Mask(hidden=torch.zeros(B, T, dtype=torch.bool))
    for config in (NEW, FORMER):
        refused(
            config, "the mask hides no position, so there is nothing to predict; raise the mask ratio", mask=nothing
        )
    everything = Mask(hidden=torch.ones(B, T, dtype=torch.bool))
    refused(NEW, "every position of row 0 is hidden; leave at least one visible", mask=everything)
    unequal = Mask(hidden=torch.arange(T) < torch.tensor([1, 2, 3, 4])[:, None])
    refused(NEW, "rows leave 4 to 7 positions visible.*visible_only=False", mask=unequal)
    refused(NEW, "a mask of 3 rows and 8 positions", mask=random_mask(3, 1, T, 2))
    refused(NEW, "a mask of 4 rows and 7 positions", mask=random_mask(4, 1, 7, 2))
    out = FORMER.build()(toy_batch(B, T, mask=unequal), update=0)  # fine where the sequence is kept
    assert out.sample_size == 10
    assert FORMER.build()(toy_batch(B, T, mask=everything), update=0).loss_sum.isfinite()


def test_predictors_that_do_not_go_with_what_is_kept():
    refused(
        with_student(NEW, visible_only=False), r"\(8, 8\) rows and tokens are not the \(8, 4\) visible ones; a decoder"
    )
    refused(with_student(FORMER, visible_only=True), r"\(4, 4\) rows and positions do not fit a mask of \(4, 8\)")


def test_batches_whose_parts_do_not_fit():
    refused(NEW, "the draw holds 3 ids for 4 samples", ids=torch.arange(3))
    refused(NEW, r"\(4, 7\) rows and positions do not fit a mask of \(8, 8\)", view=torch.randn(B, 7, WIDTH))
    refused(NEW, r"\(3, 8\) rows and positions do not fit a mask of \(8, 8\)", view=torch.randn(3, T, WIDTH))


@pytest.mark.parametrize("leave_out", ["encoder", "encoder.blocks", "encoder.blocks.0", "encoder.blocks.1"])
def test_a_teacher_that_lacks_what_the_targets_need(leave_out):
    targets = attrs.evolve(NEW.targets, layers=(0, 1))
    teacher = attrs.evolve(NEW.teacher, leave_out=(leave_out,))
    with pytest.raises(ValueError, match="the teacher needs its encoder up to block 1 for the targets; do not leave"):
        attrs.evolve(NEW, targets=targets, teacher=teacher).build()
    spare = attrs.evolve(NEW, targets=targets, teacher=attrs.evolve(teacher, leave_out=("encoder.blocks.2",))).build()
    assert spare(toy_batch(B, T), update=0).loss_sum.isfinite()  # what nobody wants never runs


def test_unknown_modalities():
    refused(NEW, "no adapter for modality 'toyy', only toy; did you mean 'toy'", modality="toyy")
    model = TWO.build()
    with pytest.raises(ValueError, match=r"the model has adapters for a, b; name one in Batch.modality"):
        model(toy_batch(), update=0)
    refused(
        attrs.evolve(NEW, maskers={"toi": RandomMasker(mask_prob=0.5)}), "no masker for modality 'toy'", modality="toy"
    )
    without = attrs.evolve(
        NEW,
        predictors={"other": NEW.predictors["toy"]},
        student=attrs.evolve(NEW.student, adapters=NEW.student.adapters | {"other": ToyAdapterConfig()}),
    )
    refused(without, "no predictor for modality 'toy', only other", modality="toy", mask=random_mask(B, 1, T, 2))


def test_layers_that_the_encoder_lacks():
    for layers in (4, (1, 3), 0, ()):
        targets = attrs.evolve(NEW.targets, layers=layers)
        with pytest.raises(ValueError, match=r"targets.layers=.* does not fit an encoder of 3 blocks"):
            attrs.evolve(NEW, targets=targets).build()


def test_step_output_can_be_filled_by_hand():
    assert StepOutput(loss_sum=torch.zeros(()), sample_size=1).metrics == {}
