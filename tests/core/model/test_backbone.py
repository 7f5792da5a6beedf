"""Masks, padding and extra tokens through the backbone."""

import dataclasses

import attrs
import pytest
import torch
from building import DIM, FORMER, NEW, adapted, calls_of, padding_of, random_mask, randomise, toy_batch, with_student

from d2v.core.masks import Mask
from d2v.core.model import AlibiConfig, Batch, BlockConfig, ContextConfig, Local, TransformerConfig
from d2v.core.nn import LayerFeatures

B, M, T, HIDDEN = 3, 4, 8, 5
ADAPTERS = {
    "plain": {},
    "class token": {"extra_tokens": 2},
    "distances": {"alibi": AlibiConfig(per_layer=True), "extra_tokens": 1, "context": ContextConfig(depth=2)},
    "prenet": {"context": ContextConfig(depth=1), "positions": False},
}
adapters = pytest.mark.parametrize("parts", ADAPTERS.values(), ids=ADAPTERS)
modes = pytest.mark.parametrize("config", [NEW, FORMER], ids=["visible only", "all kept"])


def build(config, **parts):
    return randomise(adapted(config, **parts).student.build(), std=0.2)


@adapters
@modes
@pytest.mark.parametrize("padded", [False, True])
def test_masks_together_equal_masks_one_by_one(parts, config, padded):
    backbone, mask = build(config, **parts), random_mask(B, M, T, HIDDEN)
    batch = toy_batch(B, T, padding=padding_of([8, 7, 5], T) if padded else None)
    sink = LayerFeatures(range(3), kind="block")
    together = backbone.encode(batch, mask, sink=sink)
    kept = T - HIDDEN if config is NEW else T
    assert together.x.shape == (B * M, together.num_prefix_tokens + kept, DIM)
    for view in range(M):
        own = LayerFeatures(range(3), kind="block")
        alone = backbone.encode(batch, Mask(hidden=mask.hidden[view::M]), sink=own)
        valid = slice(None) if together.padding is None else ~together.padding[view::M]
        for ours, theirs in [(together.x, alone.x), *zip(sink.results.values(), own.results.values(), strict=True)]:
            torch.testing.assert_close(ours[view::M][valid], theirs[valid])


@adapters
def test_shapes_of_features(parts):
    backbone, batch = build(NEW, **parts), toy_batch(B, T, padding=padding_of([8, 7, 5], T))
    encoded = backbone.encode(batch)
    e = parts.get("extra_tokens", 0)
    assert encoded.x.shape == (B, e + T, DIM)
    assert encoded.num_prefix_tokens == e
    assert encoded.grid == (T,)
    assert encoded.local.x.shape == (B, T, DIM)
    assert torch.equal(encoded.padding[:, e:], batch.padding)
    assert not encoded.padding[:, :e].any()
    assert build(NEW, **parts).encode(dataclasses.replace(batch, padding=padding_of([8, 8, 8], T))).padding is None


def test_visible_only_can_be_flipped():
    backbone, mask, batch = build(NEW, extra_tokens=1), random_mask(B, M, T, HIDDEN), toy_batch(B, T)
    assert backbone.encode(batch, mask).x.shape == (B * M, 1 + T - HIDDEN, DIM)
    features = backbone.encode(batch).x
    backbone.visible_only = False
    assert backbone.encode(batch, mask).x.shape == (B * M, 1 + T, DIM)
    torch.testing.assert_close(backbone.encode(batch).x, features)
    uneven = Mask(hidden=torch.arange(T) < torch.tensor([[1], [5], [8]]))  # counts may differ, and a row may hide all
    assert backbone.encode(batch, uneven).x.shape == (B, 1 + T, DIM)


def test_what_hidden_positions_hold_never_matters():
    """2.0 drops them and 1.0 replaces them."""
    mask, batch = random_mask(B, 1, T, HIDDEN), toy_batch(B, T)
    other = dataclasses.replace(batch, source=torch.where(mask.hidden[..., None], 9.0, batch.source))
    for config in (NEW, FORMER):
        backbone = build(config)
        assert torch.equal(backbone.encode(batch, mask).x, backbone.encode(other, mask).x)


def corrupted(mask, **options):
    token = options.pop("mask_token", False)
    backbone = build(FORMER, positions=False, mask_token=token, options=options)
    batch = toy_batch(B, T)
    local = backbone.adapter(None).front(batch)
    return backbone, backbone.tokens(batch, local, mask).x, local.x.repeat_interleave(mask.num_masks, 0)


@pytest.mark.parametrize("mask_token", [True, False])
def test_hidden_positions_become_the_mask_token_or_zero(mask_token):
    mask = random_mask(B, 2, T, HIDDEN)
    backbone, x, local = corrupted(mask, mask_token=mask_token)
    filling = backbone.adapter(None).mask_token() if mask_token else torch.zeros(())
    torch.testing.assert_close(x, torch.where(mask.hidden[..., None], filling, local))


def test_hidden_positions_become_noise():
    mask = random_mask(B, 200, T, HIDDEN)
    _, x, local = corrupted(mask, noise_std=0.3)
    assert torch.equal(x[~mask.hidden], local[~mask.hidden])
    assert x[mask.hidden].std().item() == pytest.approx(0.3, rel=0.02)


@pytest.mark.parametrize("first", [False, True])
def test_channels_are_zeroed_before_or_after_the_token(first):
    channels = torch.rand(B * 2, DIM) < 0.4
    mask = attrs.evolve(random_mask(B, 2, T, HIDDEN), channels=channels)
    backbone, x, local = corrupted(mask, mask_token=True, channels_first=first)
    token = backbone.adapter(None).mask_token()
    hidden, gone = mask.hidden[..., None], channels[:, None]
    if first:
        expected = torch.where(hidden, token, local.masked_fill(gone, 0))
    else:
        expected = torch.where(hidden, token, local).masked_fill(gone, 0)
    torch.testing.assert_close(x, expected)


def test_dropout_on_features_acts_in_training_only():
    backbone, batch = build(NEW, options={"dropout": 0.5}), toy_batch(B, T)
    local = backbone.adapter(None).front(batch)
    assert not torch.equal(backbone.tokens(batch, local).x, backbone.tokens(batch, local).x)
    assert torch.equal(backbone.eval().tokens(batch, local).x, backbone.tokens(batch, local).x)


@adapters
@pytest.mark.parametrize("zero_padding", [False, True])
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_padding_changes_no_valid_output(parts, zero_padding, norm):
    """Attention masks padded keys, so nothing reaches a valid position; convolutional positions are another matter
    (tests/audio: the features of padded frames go through the convolution, as the published models' do).
    """  # noqa: D205
    encoder = TransformerConfig(block=BlockConfig(embed_dim=DIM, num_heads=2, norm=norm), depth=2)
    backbone = build(with_student(NEW, encoder=encoder), **parts, options={"zero_padding": zero_padding})
    lengths = [8, 6, 3]
    batch = toy_batch(B, T, padding=padding_of(lengths, T))
    encoded = backbone.encode(batch)
    e = encoded.num_prefix_tokens
    for row, length in enumerate(lengths):
        alone = backbone.encode(Batch(source=batch.source[row : row + 1, :length]))
        torch.testing.assert_close(encoded.x[row, : e + length], alone.x[0])


def test_zero_padding_clears_padded_features_before_positions():
    batch = toy_batch(B, T, padding=padding_of([8, 6, 3], T))
    plain, zeroed = (build(FORMER, options={"zero_padding": flag}) for flag in (False, True))
    zeroed.load_state_dict(plain.state_dict())
    table = plain.adapter(None).positions.table[:, :T].expand(B, -1, -1)
    x, y = plain.tokens(batch).x, zeroed.tokens(batch).x
    assert torch.equal(x[~batch.padding], y[~batch.padding])
    assert torch.equal(y[batch.padding], table[batch.padding])
    assert not torch.allclose(x[batch.padding], y[batch.padding])


def test_starting_from_local_features_or_tokens_equals_starting_from_the_input():
    for parts in ADAPTERS.values():
        for mask in (None, random_mask(B, 2, T, HIDDEN)):
            backbone, batch = build(NEW, **parts), toy_batch(B, T, padding=padding_of([8, 7, 6], T))
            whole = backbone.encode(batch, mask).x
            local = backbone.adapter(None).front(batch)
            with calls_of({"front": backbone.adapter(None).front}) as calls:
                torch.testing.assert_close(backbone.encode(batch, mask, local=local).x, whole)
                tokens = backbone.tokens(batch, local, mask)
                torch.testing.assert_close(backbone.encode(batch, tokens=tokens).x, whole)
            assert calls == []


def test_the_bias_counts_context_blocks_first():
    backbone = build(NEW, alibi=AlibiConfig(per_layer=True), context=ContextConfig(depth=2))
    assert backbone.adapter(None).bias.scale.shape == (5, 2)
    assert len(backbone.blocks()) == 5
    assert backbone.blocks()[:2] == list(backbone.adapter(None).context.blocks)
    batch = toy_batch(B, T)
    for layer, block in enumerate(backbone.blocks()):
        backbone.zero_grad()
        given = []
        handle = block.register_forward_pre_hook(lambda _, args, given=given: given.append(args[1]))
        backbone.encode(batch)
        handle.remove()
        (gradient,) = torch.autograd.grad(given[0].table().sum(), backbone.adapter(None).bias.scale)
        assert gradient.abs().sum(1).nonzero().flatten().tolist() == [layer]


def test_local_features_are_not_changed():
    backbone, batch = build(FORMER, options={"zero_padding": True}), toy_batch(B, T, padding=padding_of([8, 6, 3], T))
    local = backbone.adapter(None).front(batch)
    before = local.x.clone()
    encoded = backbone.encode(batch, random_mask(B, 2, T, HIDDEN), local=local)
    assert encoded.local is local
    assert torch.equal(local.x, before)


@pytest.mark.parametrize(
    "mask",
    [random_mask(2, 2, T, 3), random_mask(B, 1, T + 1, 3), attrs.evolve(random_mask(B, 2, T, 3), num_masks=3)],
    ids=["samples", "positions", "num_masks"],
)
def test_a_mask_that_does_not_fit(mask):
    for config in (NEW, FORMER):
        with pytest.raises(ValueError, match=f"{len(mask.hidden)} rows .*num_masks={mask.num_masks} .*{B} samples"):
            build(config).encode(toy_batch(B, T), mask)


def test_padding_of_the_wrong_shape():
    with pytest.raises(ValueError, match=r"padding .*\(3, 8\).*source.*\(3, 7\)"):
        toy_batch(B, T, padding=torch.zeros(B, T - 1, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"padding .*torch\.int64"):
        toy_batch(B, T, padding=torch.zeros(B, T, dtype=torch.long))
    with pytest.raises(ValueError, match=r"padding .*\(3, 8\).*features.*\(3, 7\)"):
        Local(x=torch.zeros(B, T, DIM), padding=torch.zeros(B, T - 1, dtype=torch.bool), grid=(T,))


def test_modalities_by_name():
    backbone = build(NEW)
    with pytest.raises(ValueError, match=r"adapter.*'toi'.*'toy'"):
        backbone.encode(toy_batch(B, T, modality="toi"))
    two = with_student(NEW, adapters=dict.fromkeys(["a", "b"], NEW.student.adapters["toy"])).student.build()
    with pytest.raises(ValueError, match=r"a, b.*Batch\.modality"):
        two.encode(toy_batch(B, T))
    assert two.encode(toy_batch(B, T, modality="b")).x.shape == (B, T, DIM)


def test_heads_that_do_not_divide_the_width():
    encoder = TransformerConfig(block=BlockConfig(embed_dim=DIM, num_heads=3), depth=1)
    with pytest.raises(ValueError, match="num_heads=3"):
        with_student(NEW, encoder=encoder).build()
