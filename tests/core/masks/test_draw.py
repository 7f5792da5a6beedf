"""Random numbers of masks: the same on every device."""

import torch

from d2v.core.masks import Draw
from d2v.core.masks.draw import one_number, splitmix64

SEEDS = (0, -1, (1 << 63) - 1, -(1 << 63))


def test_a_hash_by_numpy_is_that_of_the_operators() -> None:
    x = torch.randint(-(1 << 63), (1 << 63) - 1, (5, 3))
    alone = [splitmix64(one) for one in x.flatten()]  # a single number is hashed by the operators of its device
    assert torch.equal(splitmix64(x), torch.stack(alone).view(5, 3))
    assert torch.equal(splitmix64(x.t()), splitmix64(x).t())


def test_seeds_of_64_bits_with_sign() -> None:
    ids = torch.tensor([7, -3])
    for seed in SEEDS:
        for update in SEEDS:
            found = Draw(seed=seed, update=update, ids=ids, purpose=1).bits(1, 1, stream=2)
            assert found.tolist() == [
                [one_number(seed=seed, update=update, id=id, purpose=1, stream=2)] for id in ids.tolist()
            ]
