"""Masks that are drawn before a step, from the layout that a front end knows."""

import attrs
import pytest
import torch
from building import FORMER, NEW, adapted, padding_of, random_mask, randomise, toy_batch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from d2v.core.masks import BlockMasker, RandomMasker, SpanMasker
from d2v.core.model import AlibiConfig, Batch

T = 8
SPANS = SpanMasker(mask_prob=0.5, mask_length=2)
CONFIGS = {
    "2.0": adapted(NEW, alibi=AlibiConfig()),
    "2.0 spans": attrs.evolve(NEW, maskers={"toy": SPANS}),
    "2.0 regardless of padding": attrs.evolve(NEW, maskers={"toy": RandomMasker(mask_prob=0.5, pad_aware=False)}),
    "1.0": FORMER,
    "1.0 unequal": attrs.evolve(FORMER, maskers={"toy": attrs.evolve(SPANS, equal_counts=False)}),
}
configs = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def built(config):
    torch.manual_seed(0)
    return randomise(config.build(), std=0.1)


def stepped(model, batch, update=4):
    model.zero_grad()
    torch.manual_seed(1)
    out = model(batch, update=update)
    out.loss_sum.backward()
    return out, [p.grad for p in model.parameters() if p.grad is not None]


@configs
@pytest.mark.parametrize("lengths", [None, [8, 8, 8], [8, 6, 4]])
def test_a_step_is_the_same_bit_for_bit(config, lengths):
    model = built(config)
    batch = toy_batch(3, T, padding=None if lengths is None else padding_of(lengths, T), ids=torch.tensor([9, 2, 5]))
    prepared = model.prepared(batch, update=4)
    assert batch.mask is None
    (ours, ours_grads), (theirs, theirs_grads) = stepped(model, prepared), stepped(model, batch)
    assert torch.equal(prepared.mask.hidden, theirs.mask.hidden)
    assert torch.equal(ours.loss_sum, theirs.loss_sum)
    for one, other in zip(ours_grads, theirs_grads, strict=True):
        assert torch.equal(one, other)


@configs
@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(4, T), min_size=1, max_size=3))
def test_whether_there_is_padding_is_known(config, lengths):
    model = built(config)
    batch = toy_batch(len(lengths), T, padding=padding_of(lengths, T))
    prepared = model.prepared(batch, update=0)
    assert prepared.known.padded == (min(lengths) < T)
    for mask, known in ((None, prepared.known.padded), (prepared.mask, prepared.known.visible_padded)):
        padding = model.student.tokens(batch, mask=mask).padding
        if mask is None or model.student.visible_only:
            assert (padding is not None) == known
        assert (model.student.tokens(prepared, mask=mask).padding is None) == (padding is None)


def test_another_mask_than_that_of_the_batch_is_looked_at_itself():
    model = built(CONFIGS["2.0 spans"])
    prepared = model.prepared(toy_batch(2, T, padding=padding_of([8, 5], T)), update=0)
    other = random_mask(2, 2, T, 3)
    with_padding = (~other.hidden[2:, 5:]).any()
    assert (model.student.tokens(prepared, mask=other).padding is not None) == with_padding


def test_a_given_mask_wins():
    model, mask = built(NEW), random_mask(3, 2, T, 3)
    prepared = model.prepared(toy_batch(3, T, mask=mask), update=0)
    assert prepared.mask is mask
    assert prepared.known.padded is False


def test_the_teachers_view_is_looked_at_itself():
    batch = toy_batch(3, T, padding=padding_of([8, 5, 4], T))
    prepared = built(NEW).prepared(batch, update=0)
    assert prepared.seen_by_teacher() is prepared
    viewed = Batch(source=batch.source, view=batch.source, known=prepared.known)
    assert viewed.seen_by_teacher().known is None


def test_a_front_end_without_a_layout_draws_in_the_step():
    model = built(NEW)
    front = model.student.adapters["toy"].front
    model.student.adapters["toy"].front = nn.Sequential()
    model.student.adapters["toy"].front.forward = front.forward
    batch = toy_batch(3, T)
    assert model.prepared(batch, update=0) is batch
    assert model(batch, update=0).mask is not None


def test_a_batch_on_another_device_is_left_as_it_is():
    batch = Batch(source=torch.zeros(2, T, 3, device="meta"))
    assert built(NEW).prepared(batch, update=0) is batch


def test_refusals_are_those_of_a_step():
    model = built(attrs.evolve(NEW, maskers={"toy": BlockMasker(num_masked=2, min_per_block=1)}))
    with pytest.raises(ValueError, match="grid"):
        model.prepared(toy_batch(2, T), update=0)
