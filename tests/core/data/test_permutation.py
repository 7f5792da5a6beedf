"""The order of an epoch: each place once, each order as likely as another, and nothing stored."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from d2v.core.data import KeyedPermutation
from d2v.core.data.permutation import permuted_in_groups

quick = settings(max_examples=60, deadline=None)
SEEDS = st.integers(0, 2**40)
EPOCHS = st.integers(0, 1000)


@pytest.mark.parametrize("n", [0, *range(1, 66), 120, 121, 122, 255, 256, 257, 5000])
def test_it_is_a_bijection(n: int) -> None:
    for epoch in range(3):
        order = KeyedPermutation(n, seed=n, epoch=epoch)
        assert sorted(order[torch.arange(n)].tolist()) == list(range(n))
    assert len(order) == n


@quick
@given(
    n=st.integers(1, 10**10), places=st.lists(st.floats(0, 1, exclude_max=True), max_size=9), seed=SEEDS, epoch=EPOCHS
)
def test_every_path_gives_the_same(n: int, places: list[float], seed: int, epoch: int) -> None:
    order = KeyedPermutation(n, seed=seed, epoch=epoch)
    wanted = torch.tensor([int(place * n) for place in places], dtype=torch.long)
    found = order[wanted].tolist()
    assert found == [order[place] for place in wanted.tolist()]
    assert found == KeyedPermutation(n, seed=seed, epoch=epoch)[wanted.view(1, -1)].flatten().tolist()
    sizes, groups = torch.full_like(wanted, n), torch.zeros_like(wanted)
    assert found == permuted_in_groups(wanted, sizes, groups, seed=seed, epoch=epoch).tolist()
    assert all(0 <= number < n for number in found)
    assert len(set(found)) == len(set(wanted.tolist()))


def test_groups_have_permutations_of_their_own() -> None:
    sizes = torch.tensor([1, 40, 40, 7]).repeat_interleave(torch.tensor([1, 40, 40, 7]))
    places = torch.cat([torch.arange(n) for n in (1, 40, 40, 7)])
    groups = torch.arange(4).repeat_interleave(torch.tensor([1, 40, 40, 7]))
    found = permuted_in_groups(places, sizes, groups, seed=1, epoch=2).split([1, 40, 40, 7])  # type: ignore[no-untyped-call]
    assert [part.sort().values.tolist() for part in found] == [list(range(n)) for n in (1, 40, 40, 7)]
    assert found[1].tolist() != found[2].tolist()


def test_seeds_epochs_purposes_and_streams_give_orders_of_their_own() -> None:
    orders = {
        tuple(KeyedPermutation(50, seed=s, epoch=e, purpose=p, stream=i))
        for s in range(2)
        for e in range(2)
        for p in (100, 104)
        for i in range(2)
    }
    assert len(orders) == 16


def many(n: int, draws: int) -> Tensor:
    """So many permutations of n numbers, `draws n`."""
    groups = torch.arange(draws).repeat_interleave(n)
    places = torch.arange(n).repeat(draws)
    return permuted_in_groups(places, torch.full_like(places, n), groups, seed=7, epoch=0).view(draws, n)


def is_uniform(numbers: Tensor, kinds: int) -> bool:
    """Whether numbers from 0 to kinds - 1 are equally frequent, by chi squared within five standard deviations."""
    expected = len(numbers) / kinds
    chi2 = float(((numbers.bincount(minlength=kinds) - expected) ** 2 / expected).sum())
    return abs(chi2 - (kinds - 1)) < 5 * math.sqrt(2 * (kinds - 1))


@pytest.mark.parametrize("n", [3, 4, 5])
def test_all_orders_are_as_frequent(n: int) -> None:
    numbers = {order: number for number, order in enumerate(itertools.permutations(range(n)))}
    assert is_uniform(torch.tensor([numbers[tuple(order)] for order in many(n, 5000).tolist()]), len(numbers))


@pytest.mark.parametrize("n", [7, 97, 256])
def test_places_are_uniform_and_neighbours_do_not_stay_together(n: int) -> None:
    orders = many(n, 10000)
    for place in (0, n // 2, n - 1):
        assert is_uniform(orders[:, place], n)
    for place, other in ((0, 1), (0, n - 1), (n // 2, n // 3)):
        assert is_uniform((orders[:, place] - orders[:, other]) % n - 1, n - 1)


def test_epochs_are_as_different_as_streams() -> None:
    firsts = [KeyedPermutation(10, seed=1, epoch=epoch)[torch.arange(2)] for epoch in range(1000)]
    pairs = torch.stack(firsts)
    assert is_uniform(pairs[:, 0], 10)
    assert is_uniform((pairs[:, 1] - pairs[:, 0]) % 10 - 1, 9)


def test_a_long_order_looks_shuffled() -> None:
    n = 10**6
    order = KeyedPermutation(n, seed=0, epoch=0)[torch.arange(n)].double() / n
    both = torch.stack([torch.arange(n).double() / n, order, order.roll(1), order.roll(1000)])
    assert (both.corrcoef() - torch.eye(4)).abs().max() < 5 / math.sqrt(n)


@pytest.mark.parametrize("place", [-1, 5, torch.tensor([0, 5])])
def test_places_beyond_the_end(place: int) -> None:
    with pytest.raises(IndexError, match="from 0 to 4"):
        KeyedPermutation(5, seed=0, epoch=0)[place]


def test_wrong_sizes() -> None:
    with pytest.raises(ValueError, match=r"n.*-1"):
        KeyedPermutation(-1, seed=0, epoch=0)
