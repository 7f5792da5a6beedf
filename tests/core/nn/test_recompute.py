"""Results that are computed again: the same gradients, bit for bit, from less memory."""

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from building import NEW, toy_batch
from torch import Tensor, nn

from d2v.core.masks import Mask
from d2v.core.model import Encoded, VisibleDecoder
from d2v.core.nn import ConvDecoder, TransformerBlock, TransformerEncoder
from d2v.core.nn import recompute as module
from d2v.core.nn.linear import Linear
from d2v.core.nn.recompute import GELU, LargeResults, keeping_less, recomputed


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SMALL", 1)


def gradients(loss: Callable[[], Tensor], model: nn.Module, *, less: bool, dtype: torch.dtype | None) -> list[Tensor]:
    torch.manual_seed(1)
    model.zero_grad()
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        if less:
            with keeping_less():
                value = loss()
        else:
            value = loss()
    value.backward()  # type: ignore[no-untyped-call]
    return [value.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def same(loss: Callable[[], Tensor], model: nn.Module, dtype: torch.dtype | None = None) -> None:
    plain, less = (gradients(loss, model, less=less, dtype=dtype) for less in (False, True))
    assert len(plain) == len(less) > 1
    assert all(torch.equal(a, b) for a, b in zip(plain, less, strict=True))


precisions = pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["fp32", "bf16"])


@precisions
@pytest.mark.parametrize("norm", ["post", "pre", "pre_lossy"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_block(norm: str, dropout: float, dtype: torch.dtype | None) -> None:
    chances = dict.fromkeys(
        ("attention_dropout", "projection_dropout", "activation_dropout", "branch_dropout", "dropout"), dropout
    )
    block = TransformerBlock(16, num_heads=2, norm=norm, **chances)  # type: ignore[arg-type]
    x = torch.randn(3, 5, 16)
    same(lambda: block(x)[0].square().sum(), block, dtype)


@precisions
@pytest.mark.parametrize("dims", [1, 2])
def test_a_decoder(dims: int, dtype: torch.dtype | None) -> None:
    decoder = ConvDecoder(8, decoder_dim=8, num_layers=3, kernel_size=3, groups=2, dims=dims, projection_layers=2)
    x, grid = torch.randn(3, 6, 8), (6,) if dims == 1 else (2, 3)
    same(lambda: decoder(x, grid).square().sum(), decoder, dtype)


@precisions
@pytest.mark.parametrize("noise_std", [0.0, 0.5])
def test_the_input_of_a_decoder_is_not_kept(noise_std: float, dtype: torch.dtype | None) -> None:
    decoder = ConvDecoder(8, decoder_dim=4, num_layers=2, kernel_size=3)
    predictor, mask = VisibleDecoder(decoder, noise_std=noise_std), Mask(hidden=torch.arange(6).remainder(2)[None] == 1)
    x, inputs = torch.randn(1, 3, 8, requires_grad=True), []
    decoder.register_forward_pre_hook(lambda _, given: inputs.append(weakref.ref(given[0].untyped_storage())))

    def loss() -> Tensor:
        encoded = Encoded(x=x, padding=None, num_prefix_tokens=0, grid=(6,))
        return predictor(encoded, mask).square().sum() + torch.rand(())

    same(loss, predictor, dtype)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is not None), keeping_less():
        value = loss()
    gc.collect()
    assert inputs[-1]() is None
    value.backward()  # type: ignore[no-untyped-call]


@precisions
def test_a_model(dtype: torch.dtype | None) -> None:
    model, batch = NEW.build().train(), toy_batch()
    same(lambda: model(batch, update=0).loss_sum, model, dtype)


def test_half_precision_is_that_of_autocast_alone() -> None:
    """On a CPU, autocast leaves norms in half precision; their results are those of the formula, bit for bit."""
    linear, x = Linear(16, 8), torch.randn(4, 16)
    decoder = ConvDecoder(8, decoder_dim=8, num_layers=1, kernel_size=3, groups=2, projection_layers=1)
    y = torch.randn(3, 6, 8)
    with torch.autocast("cpu", torch.bfloat16), keeping_less():
        assert torch.equal(linear(x), F.linear(x, linear.weight, linear.bias))
        (conv,) = decoder.convs
        hidden = conv(y.movedim(2, 1)).movedim(1, 2)
        hidden = F.gelu(F.layer_norm(hidden, hidden.shape[-1:])) + y
        assert torch.equal(decoder(y, (6,)), decoder.proj(hidden.flatten(0, 1)).view(3, 6, 8))


@pytest.mark.parametrize("inside", [True, False])
def test_a_result_is_not_kept(inside: bool) -> None:
    x = torch.randn(4, 4, requires_grad=True)
    with keeping_less():
        middle = recomputed(torch.sin, x) if inside else torch.sin(x)
        y = middle.square()
        freed = weakref.ref(middle.untyped_storage())
        del middle
    gc.collect()
    assert (freed() is None) == inside
    y.sum().backward()
    torch.testing.assert_close(x.grad, 2 * x.detach().sin() * x.detach().cos())


def test_recipes_of_recipes_keep_only_the_first_input() -> None:
    x = torch.randn(4, 4, requires_grad=True)
    with keeping_less():
        normed = recomputed(F.layer_norm, x, (4,))
        y = recomputed(F.gelu, normed).t() @ torch.eye(4, requires_grad=True)
        freed = weakref.ref(normed.untyped_storage())
        del normed
    gc.collect()
    assert freed() is None
    y.sum().backward()
    own = x.grad
    x.grad = None
    F.gelu(F.layer_norm(x, (4,))).sum().backward()
    assert torch.equal(own, x.grad)  # type: ignore[arg-type]


def test_a_result_that_is_changed_in_place_is_kept() -> None:
    x = torch.randn(4, 4, requires_grad=True)
    with keeping_less():
        y = recomputed(torch.sin, x)
        y.add_(1)
        z = y.square().sum()
    z.backward()
    torch.testing.assert_close(x.grad, 2 * (x.detach().sin() + 1) * x.detach().cos())


def test_an_input_that_is_changed_in_place_is_an_error() -> None:
    x = torch.randn(4, 4, requires_grad=True)
    with keeping_less():
        y = x * 1
        z = recomputed(torch.sin, y).square().sum()
        y.add_(1)
    with pytest.raises(RuntimeError, match="modified"):
        z.backward()


def test_checkpointed_blocks_keep_their_inputs_only() -> None:
    encoder = TransformerEncoder.stack(16, depth=2, num_heads=2).train()
    x = torch.randn(3, 5, 16)
    plain = gradients(lambda: encoder(x).square().sum(), encoder, less=False, dtype=None)
    encoder.checkpoint_activations = True
    less = gradients(lambda: encoder(x).square().sum(), encoder, less=True, dtype=None)
    for a, b in zip(plain, less, strict=True):
        torch.testing.assert_close(a, b)


def test_without_gradients_nothing_is_noted() -> None:
    with keeping_less(), torch.no_grad():
        assert torch.equal(GELU()(torch.ones(3)), F.gelu(torch.ones(3)))
        assert not module._recipes.get().known  # type: ignore[union-attr]


def test_results_are_kept_as_usual_after_an_error() -> None:
    packed = list[torch.Size]()

    def refused() -> None:
        with keeping_less():
            recomputed(torch.exp, x)
            raise RuntimeError("boom")

    x = torch.ones(9, requires_grad=True)
    with pytest.raises(RuntimeError, match="boom"):
        refused()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_packed", lambda value: packed.append(value.shape))
        x.exp()
    assert not packed
    assert module._recipes.get() is None


def test_hooks_are_left_out_until_there_are_large_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SMALL", 100)
    unpacked, hooked, large = module._unpacked, list[bool](), LargeResults()
    for size in (9, 9, 100, 9, 100):
        seen = list[object]()
        monkeypatch.setattr(module, "_unpacked", lambda value, seen=seen: seen.append(value) or unpacked(value))
        x = torch.ones(size, requires_grad=True)
        with keeping_less(large):
            y = recomputed(torch.exp, x).square().sum()
        y.backward()
        hooked.append(bool(seen))
        torch.testing.assert_close(x.grad, 2 * (2 * x.detach()).exp())
    assert hooked == [True, False, False, True, True]
