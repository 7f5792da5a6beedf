"""Attention against matmul and softmax in float64."""

import math

import pytest
import torch
from building import padding_of, randomise

from d2v.core.nn import Attention, kernels
from d2v.core.nn.attention import attention_mask

ROWS, LENGTH, DIM, HEADS = 3, 6, 8, 2


def plain(attention: Attention, x, bias, padding):
    """The textbook formula, head by head, in float64."""
    x = x.double()
    zero = torch.zeros(DIM)
    if attention.q_bias is not None:
        qkv_bias = torch.cat([attention.q_bias, zero, attention.v_bias])
    else:
        qkv_bias = torch.zeros(3 * DIM) if attention.qkv.bias is None else attention.qkv.bias
    q, k, v = (x @ attention.qkv.weight.double().T + qkv_bias.double()).split(DIM, dim=-1)
    width, heads = DIM // HEADS, []
    for head in range(HEADS):
        part = slice(head * width, (head + 1) * width)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(width)
        if bias is not None:
            scores = scores + bias.expand(ROWS, HEADS, LENGTH, LENGTH)[:, head].double()
        if padding is not None:
            scores = scores.masked_fill(padding[:, None, :], -math.inf)
        heads.append(scores.softmax(-1) @ v[..., part])
    out = torch.cat(heads, -1) @ attention.proj.weight.double().T + attention.proj.bias.double()
    return out


@pytest.mark.parametrize("qkv_bias", ["all", "qv", "none"])
@pytest.mark.parametrize(
    "bias_shape", [None, (ROWS, HEADS, LENGTH, LENGTH), (1, 1, LENGTH, LENGTH), (1, HEADS, 1, LENGTH)]
)
@pytest.mark.parametrize("padded", [False, True])
def test_equals_the_plain_formula(qkv_bias, bias_shape, padded):
    attention = randomise(Attention(DIM, num_heads=HEADS, qkv_bias=qkv_bias))
    x = torch.randn(ROWS, LENGTH, DIM)
    bias = None if bias_shape is None else torch.randn(bias_shape)
    padding = padding_of([6, 4, 1], LENGTH) if padded else None
    y = attention(x, attention_mask(x, bias, padding))
    assert y.shape == x.shape
    torch.testing.assert_close(y.double(), plain(attention, x, bias, padding), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("with_bias", [False, True])
def test_padded_keys_change_nothing(with_bias):
    attention = Attention(DIM, num_heads=HEADS)
    padding = padding_of([6, 3, 2], LENGTH)
    bias = torch.randn(1, HEADS, LENGTH, LENGTH) if with_bias else None
    x = torch.randn(ROWS, LENGTH, DIM)
    other = torch.where(padding[..., None], 100 * torch.randn_like(x), x)
    outs = [attention(y, attention_mask(y, bias, padding))[~padding] for y in (x, other)]
    assert torch.equal(*outs)


def both_forms(attention, monkeypatch, x, mask, leaves, *, precision=None):
    """Results and gradients of the products and of the fused kernel."""
    found = []
    for form in (True, False):
        monkeypatch.setattr(kernels, "products_are_faster", lambda _, form=form: form)
        with torch.autocast("cpu", dtype=precision, enabled=precision is not None):
            y = attention(x, mask)
        weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
        found.append([y, *torch.autograd.grad((y * weight).sum(), leaves, retain_graph=True)])
    return zip(*found, strict=True)


@pytest.mark.parametrize("length", [1, 8, 32])
@pytest.mark.parametrize("mask", [None, "padding", "all padding", (1, HEADS, 1), (ROWS, 1, 1), (ROWS, HEADS, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_short_rows_are_those_of_the_fused_kernel(monkeypatch, length, mask, dtype):
    attention = randomise(Attention(DIM, num_heads=HEADS), std=0.5).to(dtype)
    x = torch.randn(ROWS, length, DIM, dtype=dtype, requires_grad=True)
    leaves, padding, bias = [x, *attention.parameters()], None, None
    if isinstance(mask, tuple):
        rows, heads, queries = mask
        bias = torch.randn(rows, heads, 1 if queries == 1 else length, length, dtype=dtype, requires_grad=True)
        padding = padding_of([length, 1, length], length)
        leaves.append(bias)
    elif mask is not None:
        padding = padding_of([length, 1, 0 if mask == "all padding" else length], length)
    for ours, fused in both_forms(attention, monkeypatch, x, attention_mask(x, bias, padding), leaves):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, fused, **({"atol": 1e-4, "rtol": 1e-5} if dtype == torch.float32 else {}))


def test_short_rows_in_half_precision_are_about_as_exact_as_the_fused_kernel(monkeypatch):
    attention = randomise(Attention(DIM, num_heads=HEADS), std=0.5)
    x = torch.randn(ROWS, 100, DIM, requires_grad=True)
    mask = attention_mask(x, torch.randn(1, HEADS, 100, 100), padding_of([100, 7, 33], 100))
    full = both_forms(attention, monkeypatch, x, mask, [x])
    half = both_forms(attention, monkeypatch, x, mask, [x], precision=torch.bfloat16)
    for (_, exact), (ours, fused) in zip(full, half, strict=True):
        assert ours.dtype == fused.dtype
        # The products round their scores once more.
        assert (ours - exact).norm() < 1.5 * (fused - exact).norm() < 0.05 * exact.norm()


def test_gradients_of_short_rows_are_right():
    attention = randomise(Attention(DIM, num_heads=HEADS), std=0.5).double()
    x = torch.randn(2, 4, DIM, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(1, HEADS, 4, 4, dtype=torch.float64, requires_grad=True)
    padding = padding_of([4, 2], 4)
    assert torch.autograd.gradcheck(lambda x, bias: attention(x, attention_mask(x, bias, padding)), (x, bias))


@pytest.mark.parametrize(
    ("length", "dtype", "grad", "expected"),
    [
        (32, torch.float32, True, True),
        (33, torch.float32, True, False),
        (128, torch.bfloat16, True, True),
        (129, torch.bfloat16, True, False),
        (8, torch.float32, False, False),
        (8, torch.bfloat16, False, False),
    ],
)
def test_which_form_is_taken(monkeypatch, length, dtype, grad, expected):
    taken, products = [], kernels.attention_by_products

    def recorded(*arguments):
        taken.append(True)
        return products(*arguments)

    monkeypatch.setattr(kernels, "attention_by_products", recorded)
    with torch.set_grad_enabled(grad):
        Attention(DIM, num_heads=HEADS).to(dtype)(torch.randn(2, length, DIM, dtype=dtype))
    assert bool(taken) == expected


def test_a_row_of_padding_alone_under_dropout():
    attention = Attention(DIM, num_heads=HEADS, dropout=0.1)
    x = torch.randn(ROWS, LENGTH, DIM, requires_grad=True)
    y = attention(x, attention_mask(x, None, padding_of([6, 4, 0], LENGTH)))
    y.sum().backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()


def test_keys_have_no_bias_in_the_qv_form():
    attention = Attention(DIM, num_heads=HEADS, qkv_bias="qv")
    assert {name for name, _ in attention.named_parameters()} == {
        "qkv.weight", "q_bias", "v_bias", "proj.weight", "proj.bias",
    }  # fmt: skip
    assert Attention(DIM, num_heads=HEADS, qkv_bias="none").qkv.bias is None


@pytest.mark.parametrize("field", ["dropout", "projection_dropout"])
def test_dropouts_act_in_training_only(field):
    attention = Attention(DIM, num_heads=HEADS, **{field: 0.5})
    x = torch.randn(ROWS, LENGTH, DIM)
    assert not torch.equal(attention(x), attention(x))
    attention.eval()
    assert torch.equal(attention(x), attention(x))


def test_a_half_precision_input_takes_a_float32_bias():
    attention = Attention(DIM, num_heads=HEADS).bfloat16()
    x = torch.randn(ROWS, LENGTH, DIM, dtype=torch.bfloat16)
    bias = torch.randn(1, HEADS, LENGTH, LENGTH)
    assert attention(x, attention_mask(x, bias, padding_of([6, 4, 1], LENGTH))).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 3}, "num_heads=3.*embed_dim=8"),
        ({"num_heads": 0}, "num_heads=0"),
        ({"num_heads": 2, "qkv_bias": "kv"}, "qkv_bias='kv'.*'qv'"),
        ({"num_heads": 2, "dropout": 1.0}, "dropout.*1.0"),
        ({"num_heads": 2, "dropout": -0.1}, "dropout.*-0.1"),
        ({"num_heads": 2, "projection_dropout": 1.5}, "dropout.*1.5"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        Attention(DIM, **options)


@pytest.mark.parametrize("shape", [(2, HEADS, 6, 6), (1, HEADS, 6, 5), (1, HEADS, 5, 6), (HEADS, 6, 6)])
def test_a_bias_of_the_wrong_shape(shape):
    x = torch.randn(ROWS, LENGTH, DIM)
    with pytest.raises(ValueError, match=r"bias .*\(1 or 3, heads, 6, 6\)"):
        attention_mask(x, torch.zeros(shape), None)


def test_a_bias_for_other_heads():
    with pytest.raises(ValueError, match=r"bias .*3 heads"):
        Attention(DIM, num_heads=HEADS)(torch.randn(ROWS, LENGTH, DIM), torch.zeros(1, 3, LENGTH, LENGTH))


def test_padding_of_the_wrong_shape():
    x = torch.randn(ROWS, LENGTH, DIM)
    with pytest.raises(ValueError, match=r"padding .*\(3, 5\)"):
        attention_mask(x, None, torch.zeros(3, 5, dtype=torch.bool))
