"""The section `decoder` of speech recognition: which search turns scores of frames into transcripts."""

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Protocol

from attrs import field, frozen
from attrs.validators import ge, optional
from torch import Tensor

from d2v.audio.decoding.greedy import best_path
from d2v.audio.decoding.hypothesis import Hypothesis
from d2v.audio.decoding.language_models import load_lm
from d2v.audio.decoding.lexicon import read_lexicon
from d2v.audio.decoding.search import BeamSearch, SearchSpace, searched_words
from d2v.core.files.kinds import add_role
from d2v.core.labels import Symbols
from d2v.core.paths import PathText
from d2v.core.validators import must, not_negative

Search = Callable[[Tensor], list[Hypothesis]]
_finite = must(math.isfinite, "a finite number")


class DecoderConfig(Protocol):
    """Configuration of a decoder."""

    def build(self, labels: Symbols) -> Search:
        """Return a function from log-probabilities `t v` of a recording to its hypotheses, the best first."""
        ...


@frozen(kw_only=True)
class Greedy:
    """The best symbol of each frame; see `best_path`."""

    def build(self, labels: Symbols) -> Search:
        """Return the decoder."""
        blank = labels.blank_number
        return lambda scores: [best_path(scores, blank)]


@frozen(kw_only=True)
class Beam:
    """Beam search; see `BeamSearch`. Needs the extra `decode`.

    Args:
        lexicon: file with a word and its symbols in each line; null = any sequence of symbols.
        lm: language model of the lexicon's words, or without lexicon of the symbols: an ARPA file, a binary file of
            KenLM, or a transformer_lm checkpoint of the original toolkit; null = none.
    """

    described_by: ClassVar[tuple[type, ...]] = (BeamSearch,)

    lexicon: PathText | None = None
    lm: PathText | None = None
    nbest: int = field(default=1, validator=ge(1))
    beam_size: int = field(default=50, validator=ge(1))
    beam_size_token: int | None = field(default=None, validator=optional(ge(1)))
    beam_threshold: float = field(default=50.0, validator=not_negative)
    lm_weight: float = field(default=2.0, validator=_finite)
    word_score: float = field(default=-1.0, validator=_finite)
    unk_score: float | None = field(default=None, validator=optional(_finite))
    sil_score: float = field(default=0.0, validator=_finite)

    @unk_score.validator
    def _check(self, _: object, unk_score: float | None) -> None:
        if unk_score is not None and self.lexicon is None:
            raise ValueError(f"unk_score={unk_score} needs a lexicon: without one, no word is unknown")

    def build(self, labels: Symbols) -> BeamSearch:
        """Return the search. Searches with the same files share lexicon and language model.

        Raises:
            DataError: if lexicon or language model is missing or damaged, or does not fit the dictionary.
            ForeignFileError: if a checkpoint of a language model is damaged or of an unsupported form.
            MissingExtraError: if the extra `decode` is not installed.
            ValueError: if the dictionary has no blank or no symbol for silence.
        """
        space = _space(labels, self.lexicon, self.lm, (_stamp(self.lexicon), _stamp(self.lm)))
        return BeamSearch(
            space,
            nbest=self.nbest,
            beam_size=self.beam_size,
            beam_size_token=self.beam_size_token,
            beam_threshold=self.beam_threshold,
            lm_weight=self.lm_weight,
            word_score=self.word_score,
            unk_score=self.unk_score,
            sil_score=self.sil_score,
        )


add_role(DecoderConfig, {"greedy": Greedy, "beam": Beam}, default="greedy")


@lru_cache(maxsize=1)  # a language model may take gigabytes
def _space(labels: Symbols, lexicon: str | None, lm: str | None, stamps: tuple[object, ...]) -> SearchSpace:
    """Lexicon and language model of files; `stamps` tell whether the files have changed."""
    del stamps
    spelled = None if lexicon is None else read_lexicon(lexicon, labels)
    words = searched_words(labels, spelled)
    specials = [symbol for symbol in (labels.blank, labels.unknown, *labels.specials) if symbol is not None]
    model = None if lm is None else load_lm(lm, words, ignored=specials if spelled is None else ())
    return SearchSpace.of(labels, spelled, model)


def _stamp(path: str | None) -> object:
    if path is None or not Path(path).is_file():
        return None
    found = Path(path).stat()
    return found.st_mtime_ns, found.st_size
