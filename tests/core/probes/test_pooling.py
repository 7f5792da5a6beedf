"""Poolings against loops over positions, with padding and uneven grids."""

import math

import pytest
import torch
from building import padding_of
from hypothesis import given, settings
from hypothesis import strategies as st

from d2v.core.probes import POOLINGS, pool_layer


def segments(length, n):
    """Start and stop of n segments of a length, those of adaptive average pooling."""
    return [(math.floor(i * length / n), math.ceil((i + 1) * length / n)) for i in range(n)]


def mean_of(rows, d):
    return torch.stack(rows).mean(0) if rows else torch.zeros(d)


def by_loop(x, pooling, grid, valid):
    """Features of one sample: patches `t d`, Bool valid `t`."""
    t, d = x.shape
    if pooling == "mean":
        return mean_of([x[i] for i in range(t) if valid[i]], d)
    if pooling == "tokens":
        return torch.stack([x[i] if valid[i] else torch.zeros(d) for i in range(t)])
    blocks = []
    if len(grid) == 1:
        places = [i for i in range(t) if valid[i]]
        for start, stop in segments(len(places), 4):
            blocks.append(mean_of([x[i] for i in places[start:stop]], d))
        return torch.cat(blocks)
    h, w = grid
    rows = [i for i in range(h) if any(valid[i * w + j] for j in range(w))]
    columns = [j for j in range(w) if any(valid[i * w + j] for i in range(h))]
    for top, bottom in segments(len(rows), 2):
        for left, right in segments(len(columns), 2):
            inside = [i * w + j for i in rows[top:bottom] for j in columns[left:right]]
            blocks.append(mean_of([x[i] for i in inside if valid[i]], d))
    return torch.cat(blocks)


@settings(deadline=None)
@given(
    grid=st.one_of(st.tuples(st.integers(1, 11)), st.tuples(st.integers(1, 5), st.integers(1, 5))),
    num_prefix_tokens=st.integers(0, 2),
    padded=st.booleans(),
    pooling=st.sampled_from(["mean", "grid", "tokens"]),
    seed=st.integers(0, 99),
)
def test_equals_a_loop(grid, num_prefix_tokens, padded, pooling, seed):
    b, t, d = 3, math.prod(grid), 2
    generator = torch.Generator().manual_seed(seed)
    result = torch.randn(b, num_prefix_tokens + t, d, generator=generator)
    padding = torch.rand(b, num_prefix_tokens + t, generator=generator) < 0.4 if padded else None
    valid = torch.ones(b, t, dtype=torch.bool) if padding is None else ~padding[:, num_prefix_tokens:]
    found = pool_layer(result, pooling, num_prefix_tokens=num_prefix_tokens, grid=grid, padding=padding)
    expected = torch.stack([by_loop(result[i, num_prefix_tokens:], pooling, grid, valid[i]) for i in range(b)])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("grid", [(4,), (9,), (6, 6), (5, 7), (1, 3)])
def test_without_padding_blocks_are_those_of_adaptive_pooling(grid):
    x = torch.randn(2, math.prod(grid), 3)
    images = x.transpose(1, 2).unflatten(2, grid)
    pool = torch.nn.functional.adaptive_avg_pool1d if len(grid) == 1 else torch.nn.functional.adaptive_avg_pool2d
    pooled = pool(images, 4 if len(grid) == 1 else 2)
    expected = pooled.flatten(2).transpose(1, 2).flatten(1)
    torch.testing.assert_close(pool_layer(x, "grid", num_prefix_tokens=0, grid=grid), expected)


@pytest.mark.parametrize("pooling", ["mean", "grid"])
def test_padding_changes_nothing(pooling):
    lengths, t = [7, 3, 5], 7
    x = torch.randn(3, t, 4)
    found = pool_layer(x, pooling, num_prefix_tokens=0, grid=(t,), padding=padding_of(lengths, t))
    for i, length in enumerate(lengths):
        alone = pool_layer(x[i : i + 1, :length], pooling, num_prefix_tokens=0, grid=(length,))
        torch.testing.assert_close(found[i : i + 1], alone)


@pytest.mark.parametrize("pooling", ["mean", "grid", "tokens"])
def test_what_stands_at_padded_positions_is_not_read(pooling):
    x, padding = torch.randn(1, 6, 4), padding_of([4], 6)
    x[:, 4:] = torch.nan
    assert pool_layer(x, pooling, num_prefix_tokens=0, grid=(6,), padding=padding).isfinite().all()


def test_the_class_token_is_the_last_extra_token():
    x = torch.randn(2, 3 + 4, 5)
    assert torch.equal(pool_layer(x, "class-token", num_prefix_tokens=3, grid=(2, 2)), x[:, 2])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_half_precision_is_summed_in_float32(pooling):
    x = torch.randn(2, 1 + 300, 3).bfloat16()
    found = pool_layer(x, pooling, num_prefix_tokens=1, grid=(300,))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, pool_layer(x.float(), pooling, num_prefix_tokens=1, grid=(300,)))


@pytest.mark.parametrize(
    ("pooling", "options", "message"),
    [
        ("men", {}, "pooling='men'.*mean 'mean'"),
        ("class-token", {}, "no class token"),
        ("mean", {"grid": (3,)}, "grid=\\(3,\\) must have 1 or 2 axes and 4 positions"),
        ("grid", {"grid": (1, 2, 2)}, "1 or 2 axes"),
        ("grid", {"num_prefix_tokens": 1}, "3 positions"),
    ],
)
def test_what_does_not_fit_is_refused(pooling, options, message):
    with pytest.raises(ValueError, match=message):
        pool_layer(torch.zeros(1, 4, 2), pooling, **{"num_prefix_tokens": 0, "grid": (2, 2), **options})
