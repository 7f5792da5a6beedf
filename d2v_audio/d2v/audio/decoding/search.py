"""Beam search over the scores of a CTC model, with the decoders of flashlight-text (Collobert et al. 2016, 2020).

The decoders are used directly and not through torchaudio's `ctc_decoder`. The search is the same, but torchaudio's
wrapper numbers the symbols of a search without lexicon differently from its language model, drops the symbol of each
frame, and reads lexicon and language model anew for each set of weights.
"""

from itertools import groupby
from typing import Any

import torch
from attrs import frozen
from attrs.validators import ge
from torch import Tensor

from d2v.audio.decoding.hypothesis import Hypothesis
from d2v.audio.decoding.lexicon import Lexicon
from d2v.audio.decoding.packages import flashlight
from d2v.core.labels import Symbols
from d2v.core.validators import check

UNKNOWN_WORD = "<unk>"


@frozen(eq=False)
class SearchSpace:
    """What a search can find: the words of a lexicon or any symbols, with their language model, before any weights.

    Args:
        labels: the dictionary.
        words: words of the lexicon and the unknown word, or the symbols, by their numbers in the language model.
        lm: language model of flashlight-text over these words.
        trie: prefix tree of the spellings; None = no lexicon.
    """

    labels: Symbols
    words: tuple[str, ...]
    lm: Any
    trie: Any

    @classmethod
    def of(cls, labels: Symbols, lexicon: Lexicon | None, lm: Any) -> "SearchSpace":
        """Make a search space.

        Args:
            labels: the dictionary.
            lexicon: words with spellings; None = any sequence of symbols.
            lm: language model of flashlight-text over `searched_words`; None = none.

        Raises:
            ValueError: if the dictionary has no blank, or nothing that can stand for silence.
            MissingExtraError: if flashlight-text is not installed.
        """
        decoder = flashlight()
        model = decoder.ZeroLM() if lm is None else lm
        labels.blank_number  # noqa: B018 - raises if there is none
        words, trie = searched_words(labels, lexicon), None
        if lexicon is not None:
            trie = decoder.Trie(labels.num_outputs, silence_of(labels))
            start = model.start(False)
            scores = [model.score(start, number)[1] for number in range(len(lexicon.words))]
            for number, spelling in lexicon.spellings:
                # A word that the language model cannot produce would spoil the best score of its subtree.
                if scores[number] > -torch.inf:
                    trie.insert(list(spelling), number, scores[number])
            trie.smear(decoder.SmearingMode.MAX)
        return cls(labels, words, model, trie)


class BeamSearch:
    """Beam search with the parameters of torchaudio's `ctc_decoder`, and its defaults except for the weights.

    A hypothesis scores the sum of its frames, `lm_weight` times the score of the language model, `word_score` for each
    word and `sil_score` for each frame of silence. N-gram models give log10 probabilities, transformer models natural
    ones.

    Args:
        space: what can be found.
        nbest: number of hypotheses returned for each recording.
        beam_size: hypotheses kept after each frame.
        beam_size_token: symbols considered at each frame, the best ones; None = all.
        beam_threshold: hypotheses whose score is lower than the best by more are dropped.
        lm_weight: weight of the language model.
        word_score: added for each word of the lexicon.
        unk_score: added for each unknown word; None = only words of the lexicon.
        sil_score: added for each frame of silence.

    Raises:
        ValueError: if a number is out of range.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        nbest: int = 1,
        beam_size: int = 50,
        beam_size_token: int | None = None,
        beam_threshold: float = 50.0,
        lm_weight: float = 2.0,
        word_score: float = -1.0,
        unk_score: float | None = None,
        sil_score: float = 0.0,
    ) -> None:
        check(ge(1), nbest=nbest, beam_size=beam_size)
        check(ge(0), beam_threshold=beam_threshold)
        decoder, labels = flashlight(), space.labels
        common: dict[str, Any] = {
            "beam_size": beam_size,
            "beam_size_token": min(beam_size_token or labels.num_outputs, labels.num_outputs),
            "beam_threshold": beam_threshold,
            "lm_weight": lm_weight,
            "sil_score": sil_score,
            "log_add": False,
            "criterion_type": decoder.CriterionType.CTC,
        }
        silence, blank = silence_of(labels), labels.blank_number
        if space.trie is None:
            options = decoder.LexiconFreeDecoderOptions(**common)
            self._decoder = decoder.LexiconFreeDecoder(options, space.lm, silence, blank, [])
        else:
            unknown = -torch.inf if unk_score is None else unk_score
            options = decoder.LexiconDecoderOptions(word_score=word_score, unk_score=unknown, **common)
            number = space.words.index(UNKNOWN_WORD)
            self._decoder = decoder.LexiconDecoder(options, space.trie, space.lm, silence, blank, number, [], False)
        self.space = space  # kept alive: the decoder does not hold the Python objects
        self.nbest = nbest

    def __call__(self, scores: Tensor) -> list[Hypothesis]:
        """Decode one recording; the best hypothesis is first, and there may be fewer than `nbest`.

        Args:
            scores: float `t v`, scores of the symbols at each valid frame: logits or log-probabilities.

        Raises:
            ValueError: if the shape does not fit the dictionary.
        """
        network = getattr(self.space.lm, "network", None)
        if network is not None:
            network.to(scores.device)  # a transformer runs where the scores were computed
        frames = scores.detach().to("cpu", torch.float32).contiguous()
        if frames.dim() != 2 or frames.shape[1] != self.space.labels.num_outputs:
            raise ValueError(f"scores {tuple(frames.shape)} must be (t, {self.space.labels.num_outputs})")
        found = self._decoder.decode(frames.data_ptr(), *frames.shape)
        return [self._hypothesis(one) for one in found[: self.nbest]]

    def _hypothesis(self, found: Any) -> Hypothesis:
        path, blank = tuple(found.tokens), self.space.labels.blank_number
        tokens, timesteps, position = [], [], 0
        for number, run in groupby(path):
            if number != blank:
                tokens.append(number)
                timesteps.append(position)
            position += len(list(run))
        words = None
        if self.space.trie is not None:
            words = tuple(self.space.words[number] for number in found.words if number >= 0)
        return Hypothesis(
            path=path[1:-1], tokens=tuple(tokens), timesteps=tuple(timesteps), words=words, score=found.score
        )


def searched_words(labels: Symbols, lexicon: Lexicon | None) -> tuple[str, ...]:
    """The words that the language model of a search scores, by their numbers.

    >>> searched_words(Symbols(("-", "A"), blank="-"), None)
    ('-', 'A')
    """
    if lexicon is None:
        return labels.symbols
    return lexicon.words if UNKNOWN_WORD in lexicon.words else (*lexicon.words, UNKNOWN_WORD)


def silence_of(labels: Symbols) -> int:
    """The number of the symbol that stands for silence: `<sep>`, the boundary of words, or the end of a sentence.

    Raises:
        ValueError: if there is none.

    >>> silence_of(Symbols(("<s>", "</s>", "|"), boundary="|"))
    2
    """
    for symbol in ("<sep>", labels.boundary, "</s>"):
        if symbol in labels.symbols:
            return labels.symbols.index(symbol)
    raise ValueError(
        "beam search needs a symbol for silence: a boundary of words, <sep> or </s>; use decoder.kind=greedy"
    )
