"""Random numbers of masks: the same on every device."""

import torch

from d2v.core.masks import Draw, draw
from d2v.core.masks.draw import one_number, splitmix64

SEEDS = (0, -1, (1 << 63) - 1, -(1 << 63))


def test_the_forms_of_the_hash_are_equal() -> None:
    x = torch.cat([torch.tensor(SEEDS), torch.randint(-(1 << 63), (1 << 63) - 1, (11,))]).view(5, 3)
    by_numpy = splitmix64(x)
    by_operators = [splitmix64(one) for one in x.flatten()]  # a scalar is hashed by the operators of its device
    by_integers = [draw._splitmix64_of_int(one) for one in x.flatten().tolist()]
    assert torch.equal(by_numpy, torch.stack(by_operators).view(5, 3))
    assert [one % (1 << 64) for one in by_numpy.flatten().tolist()] == by_integers
    assert torch.equal(splitmix64(x.t()), by_numpy.t())


def test_the_hash_is_splitmix64() -> None:
    """The first outputs for the state 1234567, as other implementations print them."""
    state, expected = 1234567, [6457827717110365317, 3203168211198807973, 9817491932198370423]
    found = [draw._splitmix64_of_int(state + count * draw._GOLDEN) for count in range(3)]
    assert found == expected


def test_seeds_of_64_bits_with_sign() -> None:
    ids = torch.tensor([7, -3])
    for seed in SEEDS:
        for update in SEEDS:
            found = Draw(seed=seed, update=update, ids=ids, purpose=1).bits(1, 1, stream=2)
            assert found.tolist() == [
                [one_number(seed=seed, update=update, id=id, purpose=1, stream=2)] for id in ids.tolist()
            ]
