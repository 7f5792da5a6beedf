"""Token embedding and the masked text of 1.0."""

import math

import attrs
import pytest
import torch
from building import random_mask, randomise

from d2v.core.masks import Mask
from d2v.core.model import Backbone, Batch, BlockConfig, TransformerConfig
from d2v.text import TextAdapter, TextAdapterConfig, TokenEmbedding

DIM, PAD = 8, 1
ENCODER = TransformerConfig(block=BlockConfig(embed_dim=DIM, num_heads=2), depth=2)
TEXT = TextAdapterConfig(vocabulary_size=20, max_length=10, embedding_dropout=0.0)
IDS = torch.tensor([[0, 5, 6, 2], [0, 7, 2, PAD], [0, 2, PAD, PAD]])


def make(**options):
    return randomise_but_padding(TokenEmbedding(20, embed_dim=DIM, max_length=10, **options))


def randomise_but_padding(front):
    randomise(front, std=0.3)
    for table in (front.tokens, front.positions):
        if table is not None:
            table.weight.data[front.padding_id] = 0
    return front


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", None])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_formula(positions, norm, scale):
    front = make(positions=positions, norm=norm, scale=scale)
    local = front(Batch(source=IDS))
    layout = front.layout(Batch(source=IDS))
    assert torch.equal(local.padding, IDS == PAD)
    assert torch.equal(layout.padding, IDS == PAD)
    assert layout.grid == local.grid == (4,)
    for row in range(3):
        seen = 0
        for t in range(4):
            token = int(IDS[row, t])
            seen += token != PAD
            place = seen + PAD if token != PAD else PAD
            x = front.tokens.weight[token] * scale
            if positions == "learned":
                x = x + front.positions.weight[place]
            elif positions == "sinusoidal" and token != PAD:
                angles = [place * 10000 ** (-i / (DIM // 2 - 1)) for i in range(DIM // 2)]
                x = x + torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
            x = front.norm(x) if norm else x
            torch.testing.assert_close(local.x[row, t], x, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_positions_skip_padding_wherever_it_lies(positions):
    front = make(positions=positions)
    left = front(Batch(source=torch.tensor([[PAD, PAD, 0, 5, 2]]))).x[0, 2:]
    torch.testing.assert_close(left, front(Batch(source=torch.tensor([[0, 5, 2]]))).x[0])


def test_padding_rows_stay_zero_and_get_no_gradient():
    front = TokenEmbedding(20, embed_dim=DIM, max_length=10, norm=False)
    tables = (front.tokens.weight, front.positions.weight)
    assert not any(table[PAD].any() for table in tables)
    assert not front(Batch(source=IDS)).x[IDS == PAD].any()
    optimizer = torch.optim.SGD(front.parameters(), lr=1.0)
    (front(Batch(source=IDS)).x + 1).square().sum().backward()
    for table in tables:
        assert not table.grad[PAD].any()
        assert table.grad.any()
    optimizer.step()
    assert not any(table[PAD].any() for table in tables)


def test_tables():
    front = TokenEmbedding(500, embed_dim=64, max_length=512)
    assert front.positions.weight.shape == (514, 64)
    assert front.tokens.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert "sinusoids" not in TokenEmbedding(20, embed_dim=DIM, max_length=4, positions="sinusoidal").state_dict()


def test_given_padding_wins():
    padding = torch.tensor([[False, False, False, True]])
    local = make()(Batch(source=IDS[:1], padding=padding))
    assert torch.equal(local.padding, padding)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_gradient_scale(scale):
    plain, scaled = make(), make(gradient_scale=scale)
    scaled.load_state_dict(plain.state_dict())
    for front in (plain, scaled):
        front(Batch(source=IDS)).x.square().sum().backward()
    torch.testing.assert_close(scaled.tokens.weight.grad, scale * plain.tokens.weight.grad)


def backbone(**options):
    adapter = attrs.evolve(TEXT, **options).build(ENCODER)
    randomise_but_padding(adapter.front)
    return Backbone({"text": adapter}, ENCODER.build(), visible_only=options.get("mask_id") is None).eval()


def test_hidden_tokens_become_the_id_of_the_mask():
    model, mask = backbone(mask_id=19), random_mask(3, 2, 4, 2)
    mask = attrs.evolve(mask, hidden=mask.hidden & (IDS != PAD).repeat_interleave(2, 0))
    masked = IDS.repeat_interleave(2, 0).masked_fill(mask.hidden, 19)
    torch.testing.assert_close(model.encode(Batch(source=IDS), mask).x, model.encode(Batch(source=masked)).x)


def test_a_padded_sentence_equals_itself_alone():
    for options in ({}, {"mask_id": 19, "zero_padding": True}):
        model = backbone(**options)
        encoded = model.encode(Batch(source=IDS))
        for row, length in enumerate((4, 3, 2)):
            torch.testing.assert_close(
                encoded.x[row, :length], model.encode(Batch(source=IDS[row : row + 1, :length])).x[0]
            )


def test_visible_tokens_keep_their_positions():
    model, mask, batch = backbone(), random_mask(3, 2, 4, 2), Batch(source=IDS)
    full = model.tokens(batch).x.repeat_interleave(2, 0)
    assert torch.equal(model.tokens(batch, None, mask).x.flatten(0, 1), full[~mask.hidden])


def test_refusals():
    with pytest.raises(ValueError, match=r"11 tokens .*10"):
        make()(Batch(source=torch.full((1, 11), 5)))
    for source in (torch.zeros(2, 4), torch.zeros(2, 4, 3).long()):
        with pytest.raises(ValueError, match=r"ids .*integers"):
            make()(Batch(source=source))
    with pytest.raises(ValueError, match=r"positions='rotary'.*'sinusoidal'"):
        make(positions="rotary")


def test_hidden_channels_of_masked_text_are_zero() -> None:
    adapter = TextAdapter(vocabulary_size=9, embed_dim=4, mask_id=8, embedding_dropout=0.0)
    batch = Batch(source=torch.tensor([[0, 4, 5, 2]]))
    mask = Mask(
        hidden=torch.tensor([[False, True, False, False]]), channels=torch.tensor([[False, True, False, False]])
    )
    x = adapter.corrupt(batch, adapter.front(batch), mask)
    assert (x[..., 1] == 0).all()
    assert (x[..., [0, 2, 3]] != 0).any()


def test_without_a_mask_id_hidden_vectors_are_zero() -> None:
    adapter = TextAdapter(vocabulary_size=9, embed_dim=4, embedding_dropout=0.0)
    batch = Batch(source=torch.tensor([[0, 4, 5, 2]]))
    x = adapter.corrupt(batch, adapter.front(batch), Mask(hidden=torch.tensor([[False, True, False, False]])))
    assert (x.abs().sum(-1) > 0).tolist() == [[True, False, True, True]]


@pytest.mark.parametrize("embed_dim", [2, 3, 8])
def test_sinusoids_of_any_width_are_finite(embed_dim: int) -> None:
    front = TokenEmbedding(9, embed_dim=embed_dim, max_length=5, positions="sinusoidal", norm=False)
    assert front(Batch(source=torch.tensor([[0, 4, 5, 2]]))).x.isfinite().all()
