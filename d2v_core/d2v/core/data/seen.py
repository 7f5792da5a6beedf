"""Which samples a model has met, and how: kept with it, so that no result is reported on them without saying so."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

from attrs import field, frozen

from d2v.core.data.identity import Identity
from d2v.core.validators import one_of

How = Literal["pretrain", "finetune", "choose", "report"]
"""
pretrain: it was pretrained on them, without labels.
finetune: it was trained on them, with labels.
choose: its checkpoint was chosen by them.
report: they were held out, to report on.
"""


@frozen(kw_only=True)
class Seen:
    """Samples of a data set that a model has met.

    Args:
        how: see `How`.
        modality: of the samples.
        split: what their part was called.
        identity: which they are.
    """

    how: How = field(validator=one_of(How))
    modality: str
    split: str
    identity: Identity


def seen_to_plain(seen: Iterable[Seen]) -> list[dict[str, Any]]:
    """Plain values, for JSON; keys lie in files beside it, see `seen_files`."""
    return [
        {"how": one.how, "modality": one.modality, "split": one.split, **one.identity.to_plain()}
        | ({} if one.identity.keys is None else {"keys": _file(place)})
        for place, one in enumerate(seen)
    ]


def seen_files(seen: Iterable[Seen]) -> dict[str, bytes]:
    """Contents of the files beside it, by name: the keys of the samples."""
    return {_file(place): one.identity.key_bytes() for place, one in enumerate(seen) if one.identity.keys is not None}


def seen_from_plain(values: Iterable[Mapping[str, Any]], files: Mapping[str, bytes]) -> tuple[Seen, ...]:
    """The same from plain values and the contents of the files.

    Raises:
        ValueError: if a value is nothing of that kind.
        KeyError: if one is missing.

    >>> one = Seen(how="pretrain", modality="vision", split="train", identity=Identity(samples=3))
    >>> seen_from_plain(seen_to_plain([one]), {}) == (one,)
    True
    """
    return tuple(
        Seen(
            how=one["how"],
            modality=one["modality"],
            split=one["split"],
            identity=Identity.read(one, files.get(one.get("keys", ""))),
        )
        for one in values
    )


def said_of_seen(identity: Identity, split: str, seen: Iterable[Seen]) -> list[str]:
    """What has to be said where a result is of these samples: one line for each way in which the model has met them.

    Args:
        identity: of the samples.
        split: what they are called.
        seen: what the model has met.

    >>> some = Identity(samples=3, digest="x")
    >>> said_of_seen(some, "train", [Seen(how="finetune", modality="vision", split="train", identity=some)])
    ['all 3 samples of train are among those that the model was trained on']
    """
    lines = []
    for one in sorted(seen, key=lambda one: get_args(How).index(one.how)):
        shared = identity.shared(one.identity)
        if not shared:
            continue
        if one.how != "report":
            count = f"all {shared}" if shared == identity.samples else f"{shared} of {identity.samples}"
            lines.append(f"{count} samples of {split} are among those that {_WORDS[one.how]}")
        elif split == one.split and identity != one.identity:
            then, now = one.identity.samples, identity.samples
            counts = f"{then} samples then, {now} now, {shared} of them the same"
            lines.append(f"{split} has changed since the model was trained: {counts}")
    return list(dict.fromkeys(lines))


_WORDS = {
    "pretrain": "the encoder was pretrained on, without labels",
    "finetune": "the model was trained on",
    "choose": "the model's checkpoint was chosen on",
}


def _file(place: int) -> str:
    return f"seen-{place}.keys"
