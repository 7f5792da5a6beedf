"""The three norm forms against their formulas, and what acts in training only."""

import pytest
import torch
from building import padding_of, randomise

from d2v.core.nn import TransformerBlock

DIM, HEADS = 8, 2
FORMS = ("post", "pre", "pre_lossy")
forms = pytest.mark.parametrize("norm", FORMS)


def make(norm="post", **options):
    return randomise(TransformerBlock(DIM, num_heads=HEADS, norm=norm, **options))


def expected(block, x, norm):
    g1 = 1 if block.scale1 is None else block.scale1
    g2 = 1 if block.scale2 is None else block.scale2
    if norm == "post":
        a = block.norm1(x + g1 * block.attn(x))
        f = g2 * block.mlp(a)
        return block.norm2(a + f), f
    a = x + g1 * block.attn(block.norm1(x))
    f = g2 * block.mlp(block.norm2(a))
    return (a + f if norm == "pre" else f + f), f


@forms
@pytest.mark.parametrize("layer_scale", [None, 0.1])
@pytest.mark.parametrize("affine", [True, False])
def test_forms(norm, layer_scale, affine):
    block = make(norm, layer_scale=layer_scale, norm_affine=affine)
    x = torch.randn(3, 5, DIM)
    out, branch = block(x)
    assert out.shape == branch.shape == x.shape
    for ours, theirs in zip((out, branch), expected(block, x, norm), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_lossy_form_loses_the_stream():
    block = make("pre_lossy")
    out, branch = block(torch.randn(3, 5, DIM))
    torch.testing.assert_close(out, 2 * branch)


def test_layer_scale_starts_at_its_value_for_each_channel():
    block = TransformerBlock(DIM, num_heads=HEADS, layer_scale=0.25)
    for scale in (block.scale1, block.scale2):
        assert scale.requires_grad
        assert torch.equal(scale, torch.full((DIM,), 0.25))
    assert TransformerBlock(DIM, num_heads=HEADS).scale1 is None


@forms
def test_bias_and_padding_reach_the_attention(norm):
    block = make(norm)
    x, bias, padding = torch.randn(3, 5, DIM), torch.randn(1, HEADS, 5, 5), padding_of([5, 3, 1], 5)
    out, _ = block(x, bias, padding)
    other, _ = block(torch.where(padding[..., None], 7.0, x), bias, padding)
    assert torch.equal(out[~padding], other[~padding])
    assert not torch.allclose(out, block(x, None, padding)[0])
    assert not torch.allclose(out, block(x, bias)[0])


@forms
@pytest.mark.parametrize(
    "field",
    ["attention_dropout", "projection_dropout", "activation_dropout", "branch_dropout", "dropout", "drop_path_rate"],
)
def test_dropouts_act_in_training_only(norm, field):
    block = make(norm, **{field: 0.5})
    plain = make(norm)
    plain.load_state_dict(block.state_dict())
    x = torch.randn(6, 5, DIM)
    assert not torch.equal(block(x)[0], block(x)[0])
    block.eval()
    assert torch.equal(block(x)[0], plain(x)[0])


def test_dropout_and_drop_path_spare_the_branch_and_the_others_do_not():
    x = torch.randn(6, 5, DIM)
    for norm in FORMS:
        block = make(norm, dropout=0.5)
        assert torch.equal(block(x)[1], block(x)[1])
        block = make(norm, branch_dropout=0.5)
        assert not torch.equal(block(x)[1], block(x)[1])


def test_drop_path_keeps_the_mean_and_is_per_row():
    block = TransformerBlock(DIM, num_heads=HEADS, norm="pre", drop_path_rate=0.25)
    block.mlp[3].bias.data.fill_(1)  # of zeros the feed-forward branch is 1, and all else is 0
    rows = 4000
    dropped, branch = block(torch.zeros(rows, 3, DIM))
    assert torch.equal(branch, torch.ones_like(branch))
    # Each row keeps all of its branch, scaled by 1 / keep, or none of it.
    first = dropped[:, :1, :1]
    assert torch.equal(dropped, first.expand_as(dropped))
    values = first.flatten().unique()
    torch.testing.assert_close(values, torch.tensor([0.0, 1 / 0.75]))
    fraction = (first == 0).float().mean().item()
    assert abs(fraction - 0.25) < 4 * (0.25 * 0.75 / rows) ** 0.5
    # Both branches draw for themselves: with two draws there are four kinds of rows.
    randomise(block)
    out, _ = block(torch.randn(1, 3, DIM).expand(rows, -1, -1))
    kinds = (out[:, 0].double() * 1e3).round().unique(dim=0)
    assert len(kinds) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "sandwich"}, "norm='sandwich'"),
        ({"drop_path_rate": 1.0}, "drop_path_rate.*1.0"),
        ({"drop_path_rate": -0.1}, "drop_path_rate.*-0.1"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        TransformerBlock(DIM, num_heads=HEADS, **options)
    with pytest.raises(ValueError, match=r"num_heads=3.*embed_dim=8"):
        TransformerBlock(DIM, num_heads=3)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("gelu", lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2),
        ("relu", lambda x: x.clamp(min=0)),
        ("gelu_new", lambda x: x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2),
    ],
)
def test_activations(name, formula):
    block, x = make(activation=name), 2 * torch.randn(3, 5, DIM)
    a = block.norm1(x + block.attn(x))
    first, *_, last, _ = block.mlp
    torch.testing.assert_close(block(x)[1], last(formula(first(a))), atol=1e-6, rtol=1e-6)
    with pytest.raises(ValueError, match=r"activation='gelu_fast'.*'gelu_new'"):
        make(activation="gelu_fast")
