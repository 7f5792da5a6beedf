"""Sources of random numbers for masks.

A mask must depend only on (seed, update, sample id, clone), not on the batch, the worker or the device. `Draw`
therefore hashes counters instead of keeping a state. Maskers also accept a `torch.Generator`.
"""

import numpy as np
import torch
from attrs import field, frozen
from torch import Tensor

from d2v.core.validators import must

_BITS = 53  # of every source: enough to rank positions practically without ties
_GOLDEN = -7046029254386353131  # 2^64 / golden ratio as a signed integer: the increment of SplitMix64
_MIX = ((30, -4658895280553007687), (27, -7723592293110705685), (31, None))  # the finaliser of SplitMix64
_WORD = (1 << 64) - 1
_in_64_bits = must(lambda number: -(1 << 63) <= number < 1 << 63, "an integer that fits into 64 bits with sign")


@frozen(kw_only=True, eq=False)
class Draw:
    """Seeded source of random integers: a hash of (seed, update, sample id, clone, purpose, stream, counter).

    The hash is SplitMix64's finaliser, in wrapping 64-bit integer arithmetic, so every device gives the same numbers.

    Args:
        seed: seed of the run.
        update: number of finished updates, or the epoch if the data set draws the masks.
        ids: Long `b`, ids of the samples.
        purpose: makes draws for different purposes independent, below 2^31; 0 = hidden positions, 1 = hidden channels.

    Raises:
        ValueError: if `ids` is not a one-dimensional integer tensor, or a number does not fit into 64 bits.

    >>> draw = Draw(seed=0, update=3, ids=torch.tensor([7, 8]))
    >>> whole = draw.bits(2, 5, stream=0)
    >>> whole.shape
    torch.Size([4, 5])
    >>> alone = Draw(seed=0, update=3, ids=torch.tensor([8])).bits(2, 5, stream=0)
    >>> torch.equal(whole[2:], alone)
    True
    """

    seed: int = field(validator=_in_64_bits)
    update: int = field(validator=_in_64_bits)
    ids: Tensor = field()
    purpose: int = field(default=0)

    @ids.validator
    def _check_ids(self, _: object, ids: Tensor) -> None:
        if not isinstance(ids, Tensor):
            raise ValueError(f"ids must be a tensor of integers of shape b, not a {type(ids).__name__}")
        if ids.dim() != 1 or ids.is_floating_point() or ids.dtype == torch.bool:
            raise ValueError(f"ids must be integers of shape b, not {ids.dtype} {tuple(ids.shape)}")

    def bits(self, num_masks: int, n: int, *, stream: int) -> Tensor:
        """Return random integers below 2^53, Long `(b m) n`; each use within a mask has its own stream, from 0.

        The first numbers of a row do not depend on `n`, so padding the batch does not change what a row draws.
        """
        key = _splitmix64_of_int(_splitmix64_of_int(self.seed) + self.update)
        keys = splitmix64(self.ids.long() + (key - ((key >> 63) << 64)))
        keys = splitmix64(keys + ((self.purpose << 32) + stream))
        clone = torch.arange(num_masks, device=self.ids.device)
        rows = splitmix64(keys[:, None] + clone).flatten()
        counter = torch.arange(1, n + 1, device=self.ids.device) * _GOLDEN
        return _shift(splitmix64(rows[:, None] + counter), 64 - _BITS)


def one_number(*, seed: int, update: int, id: int, purpose: int, stream: int) -> int:
    """Return the first number that `Draw.bits` gives for one sample, computed in Python's integers.

    For a single number, operators on tensors take longer than their arithmetic.

    >>> one_number(seed=3, update=4, id=5, purpose=6, stream=7)
    1443613538402795
    >>> Draw(seed=3, update=4, ids=torch.tensor([5]), purpose=6).bits(1, 1, stream=7)
    tensor([[1443613538402795]])
    """
    key = 0
    for part in (seed, update, id, (purpose << 32) + stream, 0, _GOLDEN):
        key = _splitmix64_of_int(key + part)
    return key >> (64 - _BITS)


Source = Draw | torch.Generator  # accepted by every masker


def bits(source: Source, b: int, num_masks: int, n: int, *, stream: int) -> Tensor:
    """Return random integers below 2^53, Long `(b m) n`, from either source."""
    if isinstance(source, torch.Generator):
        return torch.randint(1 << _BITS, (b * num_masks, n), generator=source, device=source.device)
    if source.ids.shape[0] != b:
        raise ValueError(f"the draw holds {source.ids.shape[0]} ids for {b} samples")
    return source.bits(num_masks, n, stream=stream)


def device_of(source: Source) -> torch.device:
    """Device on which the source generates its numbers."""
    if not isinstance(source, Draw | torch.Generator):
        raise ValueError(f"draw={source!r} must be a Draw or a torch.Generator")
    return source.device if isinstance(source, torch.Generator) else source.ids.device


def uniform(bits: Tensor) -> Tensor:
    """Convert random integers to float32 uniforms in [0, 1), same shape."""
    return (bits >> (_BITS - 24)).to(torch.float32) * 2.0**-24


def below(bits: Tensor, high: Tensor | int) -> Tensor:
    """Convert random integers to integers in [0, high), same shape; `high` < 2^31, broadcast."""
    return ((bits >> (_BITS - 31)) * high) >> 31


# SplitMix64 three times, with equal results. Operators of torch work on every device. On a CPU, unsigned arrays of
# NumPy take a fraction of their time. A single number is hashed by Python's integers before it could become a tensor.


def splitmix64(x: Tensor) -> Tensor:
    """SplitMix64's hash (Steele, Lea and Flood 2014), Long to Long of the same shape: increment, then finaliser."""
    if x.device.type == "cpu" and x.dim():
        return _splitmix64_of_array(x)
    x = x + _GOLDEN
    for shift, factor in _MIX:
        x = x ^ _shift(x, shift)
        if factor is not None:
            x = x * factor
    return x


def _splitmix64_of_array(x: Tensor) -> Tensor:
    """`splitmix64` of a tensor on a CPU, by NumPy."""
    y = x.numpy().view(np.uint64) + np.uint64(_GOLDEN & _WORD)
    for shift, factor in _MIX:
        y ^= y >> np.uint64(shift)
        if factor is not None:
            y *= np.uint64(factor & _WORD)
    return torch.from_numpy(y.view(np.int64))


def _splitmix64_of_int(x: int) -> int:
    """`splitmix64` of an integer of any size, whose lowest 64 bits count; the result is unsigned."""
    x = (x + _GOLDEN) & _WORD
    for shift, factor in _MIX:
        x ^= x >> shift
        x = x if factor is None else x * factor & _WORD
    return x


def _shift(x: Tensor, by: int) -> Tensor:
    return (x >> by) & ((1 << (64 - by)) - 1)  # a logical shift: >> keeps the sign
