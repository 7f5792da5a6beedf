"""Identity of the samples of a data set, as a small value that changes when the samples change.

A run saves it in its checkpoints to detect that it is resumed on other samples. A model saves it to recognise the
samples it was trained on. Files are identified by their names, never by their content: a million names take seconds.
"""

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

_KEPT = 1 << 16  # keys saved with a model: half a megabyte, exact for data sets up to this size
_SIZES = 1 << 10  # file sizes saved with them: querying all would take minutes on a network file system
_BYTES = 8


def name_keys(names: Iterable[str]) -> Tensor:
    """Return a 64-bit number for each name, Long `n`, the same on every machine.

    Args:
        names: names of samples relative to the data set's folder, so that moving the folder changes nothing.

    >>> bool((name_keys(["cat/1.png", "dog/1.png"]) == name_keys(["cat/1.png", "dog/2.png"])).tolist()[0])
    True
    """
    # Some file systems store accents as separate code points: the same name in different bytes.
    texts = (name if name.isascii() else unicodedata.normalize("NFC", name) for name in names)
    hashes = (hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=_BYTES).digest() for text in texts)
    return _from_bytes(b"".join(hashes))


@frozen(kw_only=True)
class Identity:
    """The samples of a data set, in their order.

    Args:
        samples: number of samples; None = unknown, as for a stream.
        digest: hash of the names in order, or of other data that distinguishes two such sets; "" = nothing is known.
        keys: `name_keys` of the samples, ascending, only the smallest of large sets; None = samples have no names. Used
            to count the samples that two sets share, not for equality.
        sizes: sizes in bytes of the first samples in the order of the keys, Long of at most 1,024, -1 = unknown; None =
            samples have no sizes. Used to detect different samples with the same names.

    >>> Identity.of(name_keys(["a", "b"])) == Identity.of(name_keys(["b", "a"]))
    False
    """

    samples: int | None
    digest: str = ""
    keys: Tensor | None = field(default=None, eq=False, repr=False)
    sizes: Tensor | None = field(default=None, eq=False, repr=False)

    @classmethod
    def of(cls, keys: Tensor, sizes: Callable[[Tensor], Tensor] | None = None) -> "Identity":
        """Return the identity of samples.

        Args:
            keys: `name_keys` of the samples in their order, Long `n`.
            sizes: function from indices into the keys to sizes in bytes, Long; None = samples have no sizes.
        """
        digest = hashlib.blake2b(_to_bytes(keys), digest_size=16).hexdigest()
        order = keys.argsort()[:_KEPT]
        measured = None if sizes is None else sizes(order[:_SIZES])
        return cls(samples=len(keys), digest=digest, keys=keys[order], sizes=measured)

    @classmethod
    def joined(cls, parts: "Mapping[str, Identity]") -> "Identity":
        """Return the identity of several sets that are read together, by name."""
        counts = [parts[name].samples for name in parts]
        text = "".join(f"{name}\0{parts[name].samples}\0{parts[name].digest}\0" for name in sorted(parts))
        return cls(
            samples=None if None in counts else sum(count or 0 for count in counts),
            digest=hashlib.blake2b(text.encode(), digest_size=16).hexdigest(),
        )

    @property
    def count(self) -> str:
        """Number of samples, in words."""
        return "an unknown number of samples" if self.samples is None else f"{self.samples} samples"

    def shared(self, other: "Identity") -> int | None:
        """Number of these samples that are also in `other`, by name; None if the names are unknown.

        The number is 0 if most of the files with a common name differ in size. It is exact up to 65,536 samples each,
        and an estimate above.

        >>> Identity.of(name_keys("abc")).shared(Identity.of(name_keys("bcd")))
        2
        """
        if self.samples is None or other.samples is None:
            return None
        if self.keys is None or other.keys is None:
            return self.samples if self.digest and self == other else None
        if self._differs_in_size(other):
            return 0
        # The keys of a larger set are known up to the largest saved key.
        ends = [one.keys[-1] for one in (self, other) if one.keys is not None and len(one.keys) < (one.samples or 0)]
        own = self.keys if not ends else self.keys[self.keys <= min(ends)]
        common = int(torch.isin(own, other.keys).sum())
        return common if len(own) == self.samples else round(common / max(1, len(own)) * self.samples)

    def _differs_in_size(self, other: "Identity") -> bool:
        if self.sizes is None or other.sizes is None:
            return False
        own, others = self._size_by_key(), other._size_by_key()
        same = [own[key] == others[key] for key in own if key in others]
        return 2 * sum(same) < len(same)

    def _size_by_key(self) -> dict[int, int]:
        assert self.keys is not None and self.sizes is not None  # noqa: PT018 - there are both or none
        pairs = zip(self.keys.tolist(), self.sizes.tolist(), strict=False)
        return {key: size for key, size in pairs if size >= 0}

    def to_plain(self) -> dict[str, Any]:
        """Return count and digest, for JSON."""
        return {"samples": self.samples, "digest": self.digest}

    def key_bytes(self) -> bytes:
        """Return keys and sizes, for a file."""
        if self.keys is None:
            return b""
        sizes = torch.empty(0, dtype=torch.long) if self.sizes is None else self.sizes
        return _to_bytes(torch.cat([torch.tensor([len(self.keys)]), self.keys, sizes]))

    @classmethod
    def read(cls, values: Mapping[str, Any], keys: bytes | None = None) -> "Identity":
        """Restore from the output of `to_plain` and `key_bytes`.

        Raises:
            ValueError: if the values are not in this format.

        >>> one = Identity.of(name_keys("abc"))
        >>> Identity.read(one.to_plain(), one.key_bytes()).shared(one)
        3
        """
        samples, digest = values.get("samples"), values.get("digest")
        if not (samples is None or type(samples) is int) or not isinstance(digest, str):
            raise ValueError(f"{dict(values)} does not identify samples: their number and a digest are missing")
        if not keys:
            return cls(samples=samples, digest=digest)
        numbers = _from_bytes(keys[: len(keys) // _BYTES * _BYTES])
        count = int(numbers[0]) if len(numbers) else -1
        if not 0 <= count < len(numbers):
            raise ValueError("the keys of the samples are truncated")
        kept, sizes = numbers[1 : count + 1], numbers[count + 1 :]
        return cls(samples=samples, digest=digest, keys=kept, sizes=sizes if len(sizes) else None)


def identity_of(batches: object) -> Identity | None:
    """Return the identity of the samples of batches; None if they do not provide it (`Batches.identity`)."""
    identity = getattr(batches, "identity", None)
    found = identity() if callable(identity) else None
    return found if isinstance(found, Identity) else None


def _to_bytes(keys: Tensor) -> bytes:
    return keys.numpy().astype("<i8").tobytes()


def _from_bytes(data: bytes) -> Tensor:
    import numpy as np

    return torch.from_numpy(np.frombuffer(data, dtype="<i8").astype(np.int64))
