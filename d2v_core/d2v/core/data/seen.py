"""Record of the samples a model was trained on, saved with it, so that results on them are reported as such."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

from attrs import field, frozen

from d2v.core.data.identity import Identity
from d2v.core.validators import one_of

How = Literal["pretrain", "finetune", "choose", "report"]
"""
pretrain: the model was pretrained on the samples, without labels.
finetune: the model was trained on them, with labels.
choose: its checkpoint was selected on them.
report: they were held out, to report results on.
"""


@frozen(kw_only=True)
class Seen:
    """Samples of a data set that a model has seen, and how.

    Args:
        how: see `How`.
        modality: modality of the samples.
        split: name of their split.
        identity: identity of the samples.
    """

    how: How = field(validator=one_of(How))
    modality: str
    split: str
    identity: Identity


def seen_to_plain(seen: Iterable[Seen]) -> list[dict[str, Any]]:
    """Return plain values for JSON. The keys are in separate files next to it, see `seen_files`."""
    return [
        {"how": one.how, "modality": one.modality, "split": one.split, **one.identity.to_plain()}
        | ({} if one.identity.keys is None else {"keys": _file(index)})
        for index, one in enumerate(seen)
    ]


def seen_files(seen: Iterable[Seen]) -> dict[str, bytes]:
    """Return the contents of the separate files by name: the keys of the samples."""
    return {_file(index): one.identity.key_bytes() for index, one in enumerate(seen) if one.identity.keys is not None}


def seen_from_plain(values: Iterable[Mapping[str, Any]], files: Mapping[str, bytes]) -> tuple[Seen, ...]:
    """Restore from the plain values and the contents of the files.

    Raises:
        ValueError: if a value is invalid.
        KeyError: if a value is missing.

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
    """Notes to print with a result on these samples: one line for each way in which the model has seen them.

    Args:
        identity: identity of the samples.
        split: name of their split.
        seen: samples that the model has seen.

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


def _file(index: int) -> str:
    return f"seen-{index}.keys"
