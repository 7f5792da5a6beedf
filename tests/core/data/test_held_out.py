"""The rule by which samples are held out: added files do not move others, and sizes match the fraction."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d2v.core.data import HoldOut, name_keys

FRACTIONS = st.floats(0.05, 0.9)
SEEDS = st.integers(0, 2**31)


def keys(*names: str) -> torch.Tensor:
    return name_keys(names)


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6), fraction=FRACTIONS, seed=SEEDS)
def test_each_class_is_in_both_parts(sizes: list[int], fraction: float, seed: int) -> None:
    names = [f"{label}/{i}.png" for label, size in enumerate(sizes) for i in range(size)]
    labels = torch.tensor([label for label, size in enumerate(sizes) for _ in range(size)])
    held = HoldOut(fraction=fraction, seed=seed).of(name_keys(names), labels)
    for label, size in enumerate(sizes):
        assert 1 <= int(held[labels == label].sum()) < size if size > 1 else not held[labels == label].any()


@given(before=st.integers(2, 60), more=st.integers(1, 60), fraction=FRACTIONS, seed=SEEDS)
def test_added_samples_move_at_most_the_one_that_was_forced(before: int, more: int, fraction: float, seed: int) -> None:
    names = name_keys(f"cat/{i}.png" for i in range(before + more))
    rule = HoldOut(fraction=fraction, seed=seed)
    first, then = rule.of(names[:before]), rule.of(names)[:before]
    assert int((first != then).sum()) <= 1
    if int(first.sum()) > 1 and int((~first).sum()) > 1:
        assert torch.equal(first, then)


@given(seed=SEEDS)
def test_order_decides_nothing(seed: int) -> None:
    names, rule = name_keys(f"{i}.png" for i in range(50)), HoldOut(seed=seed)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(rule.of(names)[order], rule.of(names[order]))


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_the_fraction_is_about_what_was_asked_for(fraction: float) -> None:
    n = 20_000
    held = HoldOut(fraction=fraction, seed=3).of(name_keys(f"{i}.jpg" for i in range(n)))
    assert abs(float(held.double().mean()) - fraction) < 5 * (fraction * (1 - fraction) / n) ** 0.5


def test_seeds_differ_and_nothing_is_held_out_at_zero() -> None:
    names = name_keys(f"{i}.jpg" for i in range(1000))
    first, second = (HoldOut(seed=seed).of(names) for seed in (0, 1))
    assert 100 < int((first != second).sum()) < 600
    assert not HoldOut(fraction=0.0).of(names).any()
    with pytest.raises(ValueError, match="fraction"):
        HoldOut(fraction=1.0)
