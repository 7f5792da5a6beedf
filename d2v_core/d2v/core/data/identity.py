"""Which samples a data set holds, as a small value: enough to notice that they are others, whatever a sample is.

A run keeps it with its checkpoints, so that resuming on other samples is noticed; a model keeps it, so that samples it
was trained on are recognised. Files are known by their names, never by their content: a million names take seconds.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

_KEPT = 1 << 16  # keys that travel with a model: half a megabyte, exact for sets up to this size
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

    >>> Identity.of(name_keys(["a", "b"])) == Identity.of(name_keys(["b", "a"]))
    False
    """

    samples: int | None
    digest: str = ""
    keys: Tensor | None = field(default=None, eq=False, repr=False)

    @classmethod
    def of(cls, keys: Tensor) -> "Identity":
        """The identity of samples with these keys, Long `n`, in this order."""
        digest = hashlib.blake2b(_to_bytes(keys), digest_size=16).hexdigest()
        return cls(samples=len(keys), digest=digest, keys=keys.sort().values[:_KEPT])

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

        Exact up to 65,536 samples each, an estimate above.

        >>> Identity.of(name_keys("abc")).shared(Identity.of(name_keys("bcd")))
        2
        """
        if self.samples is None or other.samples is None:
            return None
        if self.digest and self == other:
            return self.samples
        if self.keys is None or other.keys is None:
            return None
        # The keys of a larger set are known up to the largest that was kept.
        ends = [one.keys[-1] for one in (self, other) if one.keys is not None and len(one.keys) < (one.samples or 0)]
        own = self.keys if not ends else self.keys[self.keys <= min(ends)]
        common = int(torch.isin(own, other.keys).sum())
        return common if len(own) == self.samples else round(common / max(1, len(own)) * self.samples)

    def to_plain(self) -> dict[str, Any]:
        """Count and digest, for JSON."""
        return {"samples": self.samples, "digest": self.digest}

    def key_bytes(self) -> bytes:
        """The keys, for a file."""
        return b"" if self.keys is None else _to_bytes(self.keys)

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
        if not (samples is None or type(samples) is int) or not isinstance(digest, str) or len(keys or b"") % _BYTES:
            raise ValueError(f"{dict(values)} tells of no samples: it needs their number and a digest")
        return cls(samples=samples, digest=digest, keys=_from_bytes(keys) if keys else None)


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
