"""All forms of attention with a bias by distance against the bias as a plain tensor."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from building import padding_of, randomise
from torch.nn.attention import flex_attention

from d2v.core.nn import Alibi, Attention, DistanceBias, Distances, TransformerEncoder, kernels, lean
from d2v.core.nn.attention import attention_mask
from d2v.core.nn.flex import Drawn, distance_attention, score_of
from d2v.core.nn.lean import lean_attention

ROWS, HEADS, WIDTH = 3, 2, 4
# Positions, layout, extra tokens: all in order; a visible subset of each row; of a grid, with extra tokens.
PLACES = {
    "in order": (None, (5,), 0),
    "visible": ([[0, 2, 3, 9, 11], [1, 5, 6, 9, 10], [0, 1, 2, 3, 4]], (12,), 0),
    "grid": ([[0, 2, 11], [1, 5, 6], [0, 1, 2]], (3, 4), 2),
}
PADDING = {"none": None, "some": [5, 3, 1], "whole rows": [5, 0, 2]}
placed = pytest.mark.parametrize("places", PLACES)
padded = pytest.mark.parametrize("padding", PADDING)
# The second scale is at the bound, or below it: no bias and no gradient.
SCALES = torch.tensor([[1.5, 0.0], [0.7, -0.3]])


@pytest.fixture
def forget_compiled():
    torch.compiler.reset()


def unfused(test):
    """Ignore what torch says about the kernel without a compiler, and its tracer's own warning if it is an error."""
    for warning in (
        "flex_attention called without torch.compile",
        "The .grad attribute of a Tensor that is not a leaf",
    ):
        test = pytest.mark.filterwarnings(f"ignore:{warning}")(test)
    return pytest.mark.usefixtures("forget_compiled")(test)


def parts(places, padding, dtype=torch.float32, *, scale=SCALES[0], distance="euclidean"):
    """A distance bias with its parameter, and packed projections."""
    position, grid, extra = PLACES[places]
    alibi = Alibi(HEADS, distance=distance)
    alibi.scale.data = scale[None].clone()
    alibi.to(dtype)
    position = None if position is None else torch.tensor(position)
    bias = alibi(SimpleNamespace(position=position, grid=grid, num_prefix_tokens=extra))(0)
    lengths = PADDING[padding]
    qkv = torch.randn(3, ROWS, HEADS, 5, WIDTH, dtype=dtype, requires_grad=True)
    mask = attention_mask(torch.zeros(ROWS, 5, 8), bias, None if lengths is None else padding_of(lengths, 5))
    return alibi.scale, mask, qkv


def by_table(qkv, bias):
    """The textbook formula with the full bias; zeros for queries without keys."""
    q, k, v = qkv.unbind()
    scores = q @ k.transpose(2, 3) / WIDTH**0.5 + bias.table(qkv.dtype)
    return scores.softmax(-1).nan_to_num() @ v if bias.padding is None else torch._safe_softmax(scores, -1) @ v


def with_gradients(attend, qkv, *leaves):
    y = attend()
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return [y, *torch.autograd.grad((y * weight).sum(), [qkv, *leaves], retain_graph=True)]


@placed
@padded
@pytest.mark.parametrize("scale", SCALES, ids=["zero", "negative"])
@pytest.mark.parametrize("form", ["lean", "products", "fused"])
def test_forms_of_a_cpu_agree(monkeypatch, places, padding, scale, form):
    learned, bias, qkv = parts(places, padding, torch.float64, scale=scale)
    monkeypatch.setattr(kernels, "attention_form", lambda *_: form)
    ours = with_gradients(lambda: kernels.attend(qkv, bias, 0.0), qkv, learned)
    theirs = with_gradients(lambda: by_table(qkv, bias), qkv, learned)
    for one, other in zip(ours, theirs, strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other)
    assert ours[2][0, 0] != 0 == ours[2][0, 1]


@placed
@pytest.mark.parametrize("cached", [1, 1000], ids=["row by row", "together"])
def test_gradients_under_dropout_are_right(monkeypatch, places, cached):
    monkeypatch.setattr(lean, "_CACHED", cached)
    learned, bias, qkv = parts(places, "whole rows", torch.float64)
    kept = torch.rand(ROWS, HEADS, 5, 5) < 0.7

    def attend(qkv, slopes):
        return lean_attention(*qkv, dataclasses.replace(bias, slopes=slopes), kept, 0.7)

    slopes = bias.slopes.detach().requires_grad_()
    assert torch.autograd.gradcheck(attend, (qkv, slopes))
    tensor = with_gradients(lambda: lean_attention(*qkv, bias.table(qkv.dtype), kept, 0.7), qkv, learned)
    for ours, theirs in zip(with_gradients(lambda: attend(qkv, bias.slopes), qkv, learned), tensor, strict=True):
        torch.testing.assert_close(ours, theirs)


@unfused
@pytest.mark.parametrize(("places", "padding"), [("in order", "none"), ("visible", "some"), ("grid", "whole rows")])
def test_the_form_of_a_gpu_agrees(monkeypatch, places, padding):
    # Torch trains with this function on GPUs only, but can do it here as well, slowly.
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
    learned, bias, qkv = parts(places, padding)
    ours = with_gradients(lambda: distance_attention(*qkv, bias), qkv, learned)
    for one, other in zip(ours, with_gradients(lambda: by_table(qkv, bias), qkv, learned), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert ours[0].shape == (ROWS, HEADS, 5, WIDTH)


@unfused
def test_slopes_of_a_gpu_without_gradient(monkeypatch):
    learned, bias, qkv = parts("visible", "some")
    with torch.no_grad():
        torch.testing.assert_close(distance_attention(*qkv, bias), by_table(qkv, bias))
    learned.requires_grad_(False)
    assert not distance_attention(*qkv.detach(), dataclasses.replace(bias, slopes=bias.slopes.detach())).requires_grad


def kept_of(drawn, length):
    """The draw as a plain tensor, after a check that each weight is in one of the two copies of its key."""
    places = torch.meshgrid(*map(torch.arange, (len(drawn.seed), HEADS, length, 2 * length)), indexing="ij")
    first, second = drawn.has(*places).chunk(2, -1)
    assert torch.equal(first, ~second)
    return first


@unfused
@pytest.mark.parametrize(("places", "padding"), [("in order", "none"), ("visible", "some"), ("grid", "whole rows")])
@pytest.mark.parametrize("learned", [True, False])
def test_dropout_of_the_form_of_a_gpu(monkeypatch, places, padding, learned):
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
    scale, bias, qkv = parts(places, padding)
    if not learned:
        bias = dataclasses.replace(bias, slopes=bias.slopes.detach())
    leaves = [scale] if learned else []
    torch.manual_seed(1)
    ours = with_gradients(lambda: distance_attention(*qkv, bias, 0.3), qkv, *leaves)
    torch.manual_seed(1)
    kept = kept_of(Drawn.draw(0.3, ROWS, HEADS, 5, device=qkv.device), 5)
    theirs = with_gradients(lambda: lean_attention(*qkv, bias, kept, 0.7), qkv, *leaves)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_dropped_weights_are_random(dropout):
    rows, length = 40, 100
    kept = kept_of(Drawn.draw(dropout, rows, HEADS, length, device=torch.device("cpu")), length).double()
    error = (dropout * (1 - dropout)) ** 0.5
    assert abs(kept.mean() - (1 - dropout)) < 4 * error / kept.numel() ** 0.5
    for axis in range(4):  # no row, head, query or key has more than others
        others = [one for one in range(4) if one != axis]
        means = (kept.mean(others) - kept.mean()) / error * (kept.numel() / kept.shape[axis]) ** 0.5
        assert means.abs().max() < 4.5
    kept -= kept.mean()
    for axis in range(4):  # and neighbours are independent
        products = kept * kept.roll(1, axis)
        assert abs(products.mean()) < 4 * error**2 / kept.numel() ** 0.5
    again = kept_of(Drawn.draw(dropout, rows, HEADS, length, device=torch.device("cpu")), length)
    assert (again != (kept > 0)).double().mean() == pytest.approx(2 * error**2, rel=0.05)


@placed
@padded
@pytest.mark.parametrize("distance", ["manhattan", "euclidean"])
def test_the_score_of_each_pair(places, padding, distance):
    _, bias, _ = parts(places, padding, distance=distance)
    rows = torch.zeros(ROWS, 5, dtype=torch.bool) if bias.padding is None else bias.padding
    anchored = (torch.arange(5) >= bias.distances.num_prefix_tokens).float()
    axes = bias.distances.places.expand(-1, ROWS, -1).unbind()
    index = torch.meshgrid(*map(torch.arange, (ROWS, HEADS, 5, 5)), indexing="ij")
    given = bias.distances.kind, None, bias.slopes, rows, anchored, *axes
    score = torch.randn(ROWS, HEADS, 5, 5)
    table = (score + bias.table()).expand(ROWS, -1, -1, -1)
    torch.testing.assert_close(score_of(*given)(score, *index), table)
    weighted = table + bias.distances.table()[:, None].log()
    torch.testing.assert_close(score_of(*given, weighted=True)(score, *index), weighted)


def test_distances_stay_apart_in_half_precision():
    length = 600  # bfloat16 has 8 bits, so 400 and 401 are equal
    distances = Distances(places=torch.arange(float(length))[None, None])
    bias = DistanceBias(distances=distances, slopes=torch.tensor([0.5, 0.01]))
    qkv = torch.randn(3, 1, HEADS, length, WIDTH)
    exact = lean_attention(*qkv, bias)
    rounded = lean_attention(*qkv.bfloat16(), bias).float()
    assert (rounded - exact).norm() < 0.01 * exact.norm()


class Counted(DistanceBias):
    made = 0

    def _computed(self):
        type(self).made += 1
        return super()._computed()


@pytest.mark.parametrize(
    ("mode", "dropout", "learned", "length", "made"),
    [
        ("train", 0.1, True, 40, 0),
        ("train", 0.0, True, 40, 0),
        ("train", 0.0, True, 20, 1),  # short rows: by products
        ("train", 0.0, False, 40, 1),
        ("eval", 0.1, True, 40, 1),
    ],
)
def test_the_full_bias_is_made_once_for_all_layers_or_never(monkeypatch, mode, dropout, learned, length, made):
    monkeypatch.setattr(Counted, "made", 0)
    encoder = TransformerEncoder.stack(8, depth=3, num_heads=HEADS, attention_dropout=dropout).train(mode == "train")
    slopes = torch.tensor([0.5, 0.1], requires_grad=learned)
    bias = Counted(distances=Distances(places=torch.arange(float(length))[None, None]), slopes=slopes)
    with torch.set_grad_enabled(mode == "train"):
        y = encoder(torch.randn(2, length, 8), bias=lambda _: bias, padding=padding_of([length, 7], length))
    assert Counted.made == made
    if mode == "train" and learned:
        y.square().mean().backward()
        assert slopes.grad is not None


def test_a_table_without_gradient_does_not_serve_training():
    slopes = torch.ones(1, requires_grad=True)
    bias = DistanceBias(distances=Distances(places=torch.arange(3.0)[None, None]), slopes=slopes)
    with torch.no_grad():
        bias.table()
    assert bias.table().requires_grad
    assert bias.table() is bias.table()


def test_a_users_bias_is_a_plain_tensor():
    encoder = randomise(TransformerEncoder.stack(8, depth=2, num_heads=HEADS))
    x, padding = torch.randn(ROWS, 5, 8), padding_of([5, 3, 2], 5)
    _, bias, _ = parts("visible", "none")
    table = bias.table()
    torch.testing.assert_close(
        encoder(x, bias=lambda _: table, padding=padding), encoder(x, bias=lambda _: bias, padding=padding)
    )
    torch.testing.assert_close(Attention(8, num_heads=HEADS)(x, table).shape, x.shape)


@pytest.mark.parametrize(
    ("device", "dtype", "dropout", "rows", "form"),
    [
        ("cuda", torch.bfloat16, 0.0, 96, "distances"),
        ("cuda", torch.float32, 0.0, 96, "distances"),
        ("cuda", torch.bfloat16, 0.1, 96, "distances"),
        ("cuda", torch.bfloat16, 0.0, 2, "fused"),  # small
        ("cuda", torch.float64, 0.0, 96, "fused"),
        ("mps", torch.float32, 0.0, 96, "fused"),
    ],
)
@pytest.mark.parametrize("compiler", [True, False])
def test_which_form_a_gpu_takes(monkeypatch, device, dtype, dropout, rows, form, compiler):
    monkeypatch.setattr(kernels, "can_compile", lambda: compiler)
    q = SimpleNamespace(device=torch.device(device), dtype=dtype)
    bias = DistanceBias(distances=Distances(places=torch.zeros(1, rows, 250)), slopes=torch.ones(12))
    assert kernels.attention_form(q, bias, dropout) == (form if compiler else "fused")
    assert kernels.attention_form(q, torch.zeros(1, 12, 250, 250), dropout) == "fused"


def test_triton_needs_a_c_compiler(monkeypatch):
    monkeypatch.setattr(kernels.importlib.util, "find_spec", lambda _: object())
    for found, expected in ((None, False), ("/usr/bin/cc", True)):
        monkeypatch.setattr(kernels.shutil, "which", lambda _, found=found: found)
        kernels.can_compile.cache_clear()
        assert kernels.can_compile() == expected
    kernels.can_compile.cache_clear()


@pytest.mark.parametrize(("rows", "length"), [(2, 5), (3, 6)])
def test_a_bias_for_other_tokens(rows, length):
    _, bias, _ = parts("visible", "none")
    with pytest.raises(ValueError, match=r"bias has shape \(3, 2, 5, 5\)"):
        attention_mask(torch.zeros(rows, length, 8), bias, None)
    with pytest.raises(ValueError, match="2 heads"):
        Attention(12, num_heads=3)(torch.zeros(ROWS, 5, 12), bias)


def test_padding_twice():
    _, bias, qkv = parts("visible", "some")
    again = attention_mask(torch.zeros(ROWS, 5, 8), bias, padding_of([2, 5, 5], 5))
    expected = F.scaled_dot_product_attention(*qkv, attn_mask=by_padding(bias, padding_of([2, 3, 1], 5)))
    torch.testing.assert_close(kernels.attend(qkv, again, 0.0), expected)


def by_padding(bias, padding):
    return dataclasses.replace(bias, padding=None).table().masked_fill(padding[:, None, None], -torch.inf)
