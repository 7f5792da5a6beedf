"""Which samples a data set holds, as a small value: enough to notice that they are others, whatever a sample is.

A run keeps it with its checkpoints, so that resuming on other samples is noticed; a model keeps it, so that samples it
was trained on are recognised. Files are known by their names, never by their content: a million names take seconds.
"""

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

_KEPT = 1 << 16  # keys that travel with a model: half a megabyte, exact for sets up to this size
_SIZES = 1 << 10  # sizes of files that travel with them: asking for all would take minutes on a network
_BYTES = 8


def name_keys(names: Iterable[str]) -> Tensor:
    """A 64-bit number for each name, Long `n`, the same on every machine.

    Args:
        names: of samples, relative to where their data set lies, so that a folder that was moved is the same.

    >>> bool((name_keys(["cat/1.png", "dog/1.png"]) == name_keys(["cat/1.png", "dog/2.png"])).tolist()[0])
    True
    """
    # Some file systems store accents as letters of their own: the same name in other bytes.
    texts = (name if name.isascii() else unicodedata.normalize("NFC", name) for name in names)
    hashes = (hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=_BYTES).digest() for text in texts)
    return _from_bytes(b"".join(hashes))


@frozen(kw_only=True)
class Identity:
    """The samples of a data set, in their order.

    Args:
        samples: how many; None = that is not known, as of a stream.
        digest: hash of their names in order, or of whatever else tells two such sets apart; "" = nothing is known.
        keys: `name_keys` of the samples, of many the smallest, ascending; None = samples have no names. By them samples
            that two sets share are counted; they do not take part in a comparison.
        sizes: in bytes of the first samples in the order of the keys, Long of at most 1,024, -1 = not known; None =
            samples have none. By them samples of one name are known to be others.

    >>> Identity.of(name_keys(["a", "b"])) == Identity.of(name_keys(["b", "a"]))
    False
    """

    samples: int | None
    digest: str = ""
    keys: Tensor | None = field(default=None, eq=False, repr=False)
    sizes: Tensor | None = field(default=None, eq=False, repr=False)

    @classmethod
    def of(cls, keys: Tensor, sizes: Callable[[Tensor], Tensor] | None = None) -> "Identity":
        """The identity of samples.

        Args:
            keys: of the samples in their order, Long `n`.
            sizes: in bytes, Long, of samples by their places among the keys; None = they have none.
        """
        digest = hashlib.blake2b(_to_bytes(keys), digest_size=16).hexdigest()
        order = keys.argsort()[:_KEPT]
        measured = None if sizes is None else sizes(order[:_SIZES])
        return cls(samples=len(keys), digest=digest, keys=keys[order], sizes=measured)

    @classmethod
    def joined(cls, parts: "Mapping[str, Identity]") -> "Identity":
        """The identity of several sets that are read together, by name."""
        counts = [parts[name].samples for name in parts]
        told = "".join(f"{name}\0{parts[name].samples}\0{parts[name].digest}\0" for name in sorted(parts))
        return cls(
            samples=None if None in counts else sum(count or 0 for count in counts),
            digest=hashlib.blake2b(told.encode(), digest_size=16).hexdigest(),
        )

    @property
    def count(self) -> str:
        """How many samples, in words."""
        return "an unknown number of samples" if self.samples is None else f"{self.samples} samples"

    def shared(self, other: "Identity") -> int | None:
        """How many of these samples are among the other's, by name; None where names are not known.

        None are, where most of the files that have a name in common differ in size. Exact up to 65,536 samples each,
        an estimate above.

        >>> Identity.of(name_keys("abc")).shared(Identity.of(name_keys("bcd")))
        2
        """
        if self.samples is None or other.samples is None:
            return None
        if self.keys is None or other.keys is None:
            return self.samples if self.digest and self == other else None
        if self._differs_in_size(other):
            return 0
        # The keys of a larger set are known up to the largest that was kept.
        ends = [one.keys[-1] for one in (self, other) if one.keys is not None and len(one.keys) < (one.samples or 0)]
        own = self.keys if not ends else self.keys[self.keys <= min(ends)]
        common = int(torch.isin(own, other.keys).sum())
        return common if len(own) == self.samples else round(common / max(1, len(own)) * self.samples)

    def _differs_in_size(self, other: "Identity") -> bool:
        if self.sizes is None or other.sizes is None:
            return False
        ours, theirs = self._size_by_key(), other._size_by_key()
        same = [ours[key] == theirs[key] for key in ours if key in theirs]
        return 2 * sum(same) < len(same)

    def _size_by_key(self) -> dict[int, int]:
        assert self.keys is not None and self.sizes is not None  # noqa: PT018 - there are both or none
        pairs = zip(self.keys.tolist(), self.sizes.tolist(), strict=False)
        return {key: size for key, size in pairs if size >= 0}

    def to_plain(self) -> dict[str, Any]:
        """Count and digest, for JSON."""
        return {"samples": self.samples, "digest": self.digest}

    def key_bytes(self) -> bytes:
        """Keys and sizes, for a file."""
        if self.keys is None:
            return b""
        sizes = torch.empty(0, dtype=torch.long) if self.sizes is None else self.sizes
        return _to_bytes(torch.cat([torch.tensor([len(self.keys)]), self.keys, sizes]))

    @classmethod
    def read(cls, values: Mapping[str, Any], keys: bytes | None = None) -> "Identity":
        """What `to_plain` and `key_bytes` gave.

        Raises:
            ValueError: if it is nothing of that kind.

        >>> one = Identity.of(name_keys("abc"))
        >>> Identity.read(one.to_plain(), one.key_bytes()).shared(one)
        3
        """
        samples, digest = values.get("samples"), values.get("digest")
        if not (samples is None or type(samples) is int) or not isinstance(digest, str):
            raise ValueError(f"{dict(values)} says nothing of samples: it needs their number and a digest")
        if not keys:
            return cls(samples=samples, digest=digest)
        numbers = _from_bytes(keys[: len(keys) // _BYTES * _BYTES])
        count = int(numbers[0]) if len(numbers) else -1
        if not 0 <= count < len(numbers):
            raise ValueError("the keys of the samples are cut off")
        kept, sizes = numbers[1 : count + 1], numbers[count + 1 :]
        return cls(samples=samples, digest=digest, keys=kept, sizes=sizes if len(sizes) else None)


def identity_of(batches: object) -> Identity | None:
    """The identity of what batches are made of; None where they do not say it (`Batches.identity`)."""
    told = getattr(batches, "identity", None)
    found = told() if callable(told) else None
    return found if isinstance(found, Identity) else None


def _to_bytes(keys: Tensor) -> bytes:
    return keys.numpy().astype("<i8").tobytes()


def _from_bytes(data: bytes) -> Tensor:
    import numpy as np

    return torch.from_numpy(np.frombuffer(data, dtype="<i8").astype(np.int64))
