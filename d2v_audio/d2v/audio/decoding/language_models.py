"""Language models of a search: n-grams or a transformer of the original toolkit, told apart by their files."""

import logging
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from d2v.audio.decoding.ngrams import load_ngrams, missing_from_ngrams
from d2v.audio.decoding.prefix_scores import PrefixScores, for_search
from d2v.audio.decoding.search import UNKNOWN_WORD
from d2v.audio.decoding.transformer_lm_file import read_transformer_lm
from d2v.core.data import DataError, escaped

_logger = logging.getLogger(__name__)
_END = "</s>"
_NAMED = 5


def load_lm(path: str | os.PathLike[str], words: Sequence[str], *, ignored: Sequence[str] = ()) -> Any:
    """Load a language model for a search over these words, and warn of those that it lacks.

    Args:
        path: of an ARPA file, a binary file of KenLM, or a `transformer_lm` checkpoint with `dict.txt` in its folder.
        words: `searched_words`.
        ignored: words that may be missing: specials.

    Raises:
        DataError: if the file is missing or damaged, or the language model has none of the words.
        ForeignFileError: if a checkpoint is damaged or of an unsupported form.
        MissingExtraError: if packages are missing.
    """
    if not _is_checkpoint(path):
        _check_words(path, words, missing_from_ngrams(path, words), ignored, "score as its unknown word")
        return load_ngrams(path, words)
    lm, dictionary = read_transformer_lm(path)
    known = {symbol: number for number, symbol in enumerate(dictionary.symbols)}
    # The toolkit gives unknown words no probability.
    numbers = [None if word == UNKNOWN_WORD else known.get(word) for word in words]
    missing = [word for word, number in zip(words, numbers, strict=True) if number is None]
    _check_words(path, words, missing, ignored, "are never found")
    return for_search(PrefixScores(lm, numbers, start=known[_END]))


def _is_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Whether a file is of `torch.save`: a zip archive or, before PyTorch 1.6, pickles."""
    if not Path(path).is_file():
        return False  # reported for n-grams
    with Path(path).open("rb") as stream:
        start = stream.read(4)
    return start == b"PK\x03\x04" or start.startswith(pickle.PROTO)


def _check_words(
    path: str | os.PathLike[str], words: Sequence[str], missing: Sequence[str], ignored: Sequence[str], effect: str
) -> None:
    left_out = {*ignored, UNKNOWN_WORD}
    wanted = [word for word in words if word not in left_out]
    lacking = [word for word in missing if word not in left_out]
    name, some = escaped(os.fspath(path)), ", ".join(map(escaped, lacking[:_NAMED]))
    if wanted and len(lacking) == len(wanted):
        raise DataError(
            f"{name} has none of the {len(wanted)} words of the search ({some}); it needs a language model of the "
            "words in the lexicon, in the same case, or of the dictionary's symbols if there is no lexicon"
        )
    if lacking:
        more = "" if len(lacking) <= _NAMED else ", ..."
        _logger.warning("%s lacks %d of %d words, which %s: %s%s", name, len(lacking), len(wanted), effect, some, more)
