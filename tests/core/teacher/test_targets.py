"""Averaged targets against the formula that keeps a list."""

import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d2v.core.teacher import TargetAverager

NORMS = ("batch", "instance", "group", "layer")
AXES = {"batch": (0, 1), "instance": (1,), "group": (1, 2), "layer": (2,)}
some_norms = st.lists(st.sampled_from(NORMS), max_size=3)


def normalised(y, name):
    mean = y.mean(AXES[name], keepdim=True)
    variance = ((y - mean) ** 2).mean(AXES[name], keepdim=True)
    return (y - mean) / torch.sqrt(variance + 1e-5)


def plain(results, layers, num_prefix_tokens, each, after):
    kept = []
    for layer in sorted(layers):
        y = results[layer][:, num_prefix_tokens:].double()
        for name in each:
            y = normalised(y, name)
        kept.append(y)
    y = torch.stack(kept).mean(0)
    for name in after:
        y = normalised(y, name)
    return y


@given(
    layers=st.sets(st.integers(0, 5), min_size=1).map(tuple),
    each=some_norms,
    after=some_norms,
    num_prefix_tokens=st.integers(0, 2),
    seed=st.integers(0, 99),
)
@settings(max_examples=80, deadline=None)
def test_equals_the_formula_that_keeps_a_list(layers, each, after, num_prefix_tokens, seed):
    generator = torch.Generator().manual_seed(seed)
    averager = TargetAverager(layers, each=each, after=after)
    for _ in range(2):  # it is empty again after the first time
        results = [torch.randn(3, num_prefix_tokens + 5, 4, generator=generator) for _ in range(6)]
        before = [result.clone() for result in results]
        for layer in sorted(averager.wants):
            averager(layer, results[layer], num_prefix_tokens)
        y = averager.finish()
        assert y.shape == (3, 5, 4)
        assert y.dtype == torch.float32
        torch.testing.assert_close(
            y.double(), plain(results, layers, num_prefix_tokens, each, after), atol=1e-4, rtol=1e-4
        )
        assert all(torch.equal(a, b) for a, b in zip(results, before, strict=True)), "a layer result was changed"


@pytest.mark.parametrize("norm", NORMS)
def test_each_norm_alone(norm):
    x = torch.randn(3, 6, 4) * 5 + 2
    for options in ({"each": [norm]}, {"after": [norm]}):
        averager = TargetAverager([0], **{"each": (), **options})
        averager(0, x, 0)
        torch.testing.assert_close(averager.finish(), normalised(x, norm), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_results_are_averaged_in_float32(dtype):
    averager = TargetAverager(range(3), each=["instance"], after=["layer"])
    results = [torch.randn(2, 5, 4).to(dtype) for _ in range(3)]
    for layer, result in enumerate(results):
        averager(layer, result, 0)
    y = averager.finish()
    assert y.dtype == torch.float32
    expected = plain(results, range(3), 0, ["instance"], ["layer"])
    torch.testing.assert_close(y.double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("each", [(), ("instance",)])
def test_it_keeps_no_layer(each):
    averager = TargetAverager(range(3), each=each)
    refs = []
    for layer in range(3):
        result = torch.randn(2, 5, 4)
        refs.append(weakref.ref(result))
        averager(layer, result, 0)
        del result
        gc.collect()
        assert [ref() for ref in refs if ref() is not None] == []
    averager.finish()


def test_a_pass_that_was_broken_off_leaves_nothing_behind():
    averager = TargetAverager([0, 1], each=())
    averager(0, torch.full((1, 2, 3), 100.0), 0)
    averager.clear()
    for layer in (0, 1):
        averager(layer, torch.ones(1, 2, 3), 0)
    assert torch.equal(averager.finish(), torch.ones(1, 2, 3))


@pytest.mark.parametrize("layers", [(0, 0), (0, 2, 0), (0, 2, 2), (2, 2)])
def test_a_layer_that_comes_twice(layers):
    averager, x = TargetAverager([0, 2], each=()), torch.ones(1, 2, 3)
    for layer in layers[:-1]:
        averager(layer, x, 0)
    with pytest.raises(RuntimeError, match=rf"layer {layers[-1]} .*clear\(\)"):
        averager(layers[-1], x, 0)
    for layer in (0, 2):  # it has forgotten what it took
        averager(layer, 2 * x, 0)
    assert torch.equal(averager.finish(), 2 * x)


def test_a_layer_that_is_not_wanted():
    with pytest.raises(ValueError, match="layer 1 "):
        TargetAverager([0, 2], each=())(1, torch.ones(1, 2, 3), 0)


@pytest.mark.parametrize(
    ("layers", "options", "message"),
    [
        ([], {}, r"layers=\[\]"),
        ([0, 0], {}, r"layers=\[0, 0\]"),
        ([-1, 2], {}, r"layers=\[-1, 2\]"),
        ([0], {"kind": "attention"}, "kind='attention'"),
        ([0], {"each": ["rms"]}, "each='rms'.*instance"),
        ([0], {"after": ["rms"]}, "after='rms'"),
    ],
)
def test_refusals(layers, options, message):
    with pytest.raises(ValueError, match=message):
        TargetAverager(layers, **options)


def test_missing_layers_are_counted():
    averager = TargetAverager([0, 1], each=())
    with pytest.raises(RuntimeError, match="0 of 2"):
        averager.finish()
    averager(0, torch.ones(1, 2, 3), 0)
    with pytest.raises(RuntimeError, match="1 of 2"):
        averager.finish()
