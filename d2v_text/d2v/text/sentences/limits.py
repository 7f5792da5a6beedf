"""Which texts training uses, and the limit of a batch in tokens."""

import logging

from torch import Tensor

from d2v.core.data import DataError
from d2v.text.sentences.text_set import Texts

_logger = logging.getLogger(__name__)


def short_enough(path: str, ids: Tensor, lengths: Tensor, longest: int, *, leave_out: bool) -> Tensor:
    """Return the texts that are used, and log how many are cut or left out.

    Args:
        path: name of the data in messages.
        ids: of the texts, Long.
        lengths: of all texts in tokens, Long `n`.
        longest: length that a text may have.
        leave_out: whether longer texts are left out; otherwise they are cut.

    Raises:
        DataError: if all would be left out.
    """
    long = lengths[ids] > longest
    count = int(long.sum())
    if leave_out and count == len(ids) > 0:
        raise DataError(f"data.path={path!r}: all {count} texts are longer than {longest} tokens; set data.cut=true")
    if count:
        what = "left out" if leave_out else "cut"
        _logger.warning(
            "data.path=%r: %d of %d texts are longer than %d tokens and %s", path, count, len(ids), longest, what
        )
    return ids[~long] if leave_out else ids


def token_limit(
    path: str, source: Texts, ids: Tensor, lengths: Tensor, max_tokens: int | None, *, training: bool
) -> int | None:
    """Return the limit of a batch in tokens; in evaluation, at least the longest text.

    Args:
        path: name of the data in messages.
        source: the texts.
        ids: of the texts that are used, Long `k`.
        lengths: of these texts as the model receives them, Long `k`.
        max_tokens: limit that was asked for; None = no limit.
        training: whether a longer text is an error.

    Raises:
        DataError: in training, if a text exceeds the limit.
    """
    if max_tokens is None:
        return None
    longest = int(lengths.argmax())
    found = int(lengths[longest])
    if training and found > max_tokens:
        raise DataError(
            f"data.path={path!r}: {source.name(int(ids[longest]))} has {found} tokens, above "
            f"data.max_tokens={max_tokens}; raise it, or set data.max_length to cut texts"
        )
    return max(max_tokens, found)
