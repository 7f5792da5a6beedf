"""Which recordings training uses, and the limit of a batch in samples."""

import logging

import torch
from torch import Tensor

from d2v.audio.recordings.sources import Recordings
from d2v.core.data import DataError, escaped

_logger = logging.getLogger(__name__)


def long_enough(path: str, ids: Tensor, lengths: Tensor, min_samples: int) -> Tensor:
    """Return the recordings that are not too short for training; the number of others is logged.

    Args:
        path: name of the data in messages.
        ids: of the recordings, Long.
        lengths: of all recordings, Long `n`, -1 = unknown: these are kept, since reading them tells why.
        min_samples: shortest length that is used.

    Raises:
        DataError: if all are too short.
    """
    short = (lengths[ids] >= 0) & (lengths[ids] < min_samples)
    count = int(short.sum())
    if count == len(ids) > 0:
        raise DataError(
            f"data.path={path!r}: all {count} recordings are shorter than data.min_samples={min_samples}; the longest "
            f"has {int(lengths[ids].max())} samples"
        )
    if count:
        _logger.warning(
            "data.path=%r: %d of %d recordings are shorter than data.min_samples=%d and not trained on",
            path,
            count,
            len(ids),
            min_samples,
        )
    return ids[~short]


def counted_lengths(lengths: Tensor, max_samples: int | None) -> Tensor:
    """Return the lengths that recordings have in batches.

    Args:
        lengths: Long `n`, -1 = unknown, since the header cannot be read. These count as the median: reading them gives
            the reason, and their replacement in training is one of the shorter half.
        max_samples: longer recordings are cropped to this length; None = no crop.

    >>> counted_lengths(torch.tensor([900, -1, 500, 600]), 800)
    tensor([800, 600, 500, 600])
    """
    known = lengths[lengths >= 0]
    found = torch.where(lengths < 0, known.median() if len(known) else 0, lengths)
    return found if max_samples is None else found.clamp(max=max_samples)


def warn_of_cropped_text(path: str, lengths: Tensor, max_samples: int | None) -> None:
    """Log how many transcribed recordings are cropped: their transcripts are not.

    Args:
        path: name of the data in messages.
        lengths: of the recordings, Long `n`.
        max_samples: longer recordings are cropped to this length; None = no crop.
    """
    count = 0 if max_samples is None else int((lengths > max_samples).sum())
    if count:
        _logger.warning(
            "data.path=%r: %d of %d recordings are cropped to data.max_samples=%d, but their transcripts are not; set "
            "data.max_samples=null",
            path,
            count,
            len(lengths),
            max_samples,
        )


def token_limit(
    path: str, source: Recordings, ids: Tensor, lengths: Tensor, max_tokens: int | None, *, cropped: bool
) -> int | None:
    """Return the limit of a batch in samples; in evaluation, at least the longest recording.

    Args:
        path: name of the data in messages.
        source: the recordings.
        ids: of the recordings that are used, Long `k`.
        lengths: of these recordings as the model receives them, Long `k`.
        max_tokens: limit that was asked for; None = no limit.
        cropped: whether longer recordings can be cropped, as in training.

    Raises:
        DataError: in training, if a recording exceeds the limit.
    """
    if max_tokens is None or not len(lengths):
        return max_tokens
    longest = int(lengths.argmax())
    if not cropped:
        return max(max_tokens, int(lengths[longest]))
    if int(lengths[longest]) > max_tokens:
        count = int(torch.count_nonzero(lengths > max_tokens))
        raise DataError(
            f"data.path={path!r}: {count} recordings are longer than data.max_tokens={max_tokens}, for example "
            f"{escaped(source.name(int(ids[longest])))} with {int(lengths[longest])} samples; raise data.max_tokens, "
            "or set data.max_samples to crop them"
        )
    return max_tokens
