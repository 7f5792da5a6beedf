"""Beam search against plain loops on random settings, torchaudio's decoder, and what it refuses."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_decoding import History, free_search, lexicon_search
from scripts import loaded
from speech import LETTERS

from d2v.audio.decoding import BeamSearch, SearchSpace, load_lm, read_lexicon, searched_words
from d2v.core.labels import Symbols

pytest.importorskip("flashlight")
pytest.importorskip("kenlm")

arpa = loaded("benchmarks/arpa.py")
WORDS = ("A", "AB", "BA", "CAB", "ABBA", "C")
BLANK, SILENCE = 0, 4


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lexicon with a homophone, and n-gram models of its words and of the symbols, made from random text."""
    folder = tmp_path_factory.mktemp("decoding")
    (folder / "lexicon.txt").write_text(arpa.lexicon(WORDS) + "AA A B |\nAB A A B |\n")
    generator = torch.Generator().manual_seed(3)
    text = [[WORDS[i] for i in torch.randint(len(WORDS), (5,), generator=generator).tolist()] for _ in range(30)]
    (folder / "words.arpa").write_text(arpa.Ngrams([[*row, "AA"] for row in text], 3).arpa())
    (folder / "letters.arpa").write_text(arpa.Ngrams([list("|".join(row)) for row in text], 3).arpa())
    return folder


class Table:
    """The scores of an ARPA file, read by plain code."""

    def __init__(self, path: Path) -> None:
        self.scores: dict[History, tuple[float, float]] = {}
        for line in path.read_text().splitlines():
            columns = line.split("\t")
            if len(columns) > 1:
                gram = tuple(columns[1].split(" "))
                self.scores[gram] = float(columns[0]), float(columns[2]) if len(columns) > 2 else 0.0
        self.order = max(map(len, self.scores))

    def __call__(self, history: History, word: str) -> float:
        known = [one if (one,) in self.scores else "<unk>" for one in ("<s>", *history, word)]
        context = tuple(known[:-1][-(self.order - 1) :])
        return self._backed_off(context, known[-1])

    def _backed_off(self, context: History, word: str) -> float:
        if (*context, word) in self.scores:
            return self.scores[(*context, word)][0]
        weight = self.scores[context][1] if context in self.scores else 0.0
        return weight + self._backed_off(context[1:], word)


@st.composite
def cases(draw: st.DrawFn) -> tuple[torch.Tensor, dict[str, Any]]:
    seed, frames = draw(st.integers(0, 10**6)), draw(st.integers(1, 9))
    emissions = torch.randn(frames, 8, generator=torch.Generator().manual_seed(seed))
    emissions *= draw(st.sampled_from([0.5, 2.0, 6.0]))
    options = {
        "nbest": draw(st.integers(1, 3)),
        "beam_size": draw(st.sampled_from([1, 3, 20])),
        "beam_size_token": draw(st.sampled_from([None, 2, 5])),
        "beam_threshold": draw(st.sampled_from([2.0, 50.0])),
        "lm_weight": draw(st.sampled_from([0.1, 1.0, 2.5])),  # with 0, homophones are equal
        "word_score": draw(st.sampled_from([-1.0, 0.0, 1.5])),
        "unk_score": draw(st.sampled_from([None, -2.0])),
        "sil_score": draw(st.sampled_from([-1.0, 0.0, 0.5])),
    }
    return emissions, options


_SPACES: dict[tuple[Path, bool], SearchSpace] = {}


def space_of(files: Path, free: bool) -> SearchSpace:
    if (files, free) not in _SPACES:
        lexicon = None if free else read_lexicon(files / "lexicon.txt", LETTERS)
        words = searched_words(LETTERS, lexicon)
        lm = load_lm(files / ("letters.arpa" if free else "words.arpa"), words, ignored=LETTERS.symbols[:4])
        _SPACES[files, free] = SearchSpace.of(LETTERS, lexicon, lm)
    return _SPACES[files, free]


@settings(deadline=None, max_examples=60)
@given(case=cases(), free=st.booleans())
def test_searches_agree_with_plain_loops(files: Path, case: tuple[torch.Tensor, dict[str, Any]], free: bool) -> None:
    emissions, options = case
    found = BeamSearch(space_of(files, free), **options)(emissions)
    rows, where = emissions.tolist(), {"blank": BLANK, "silence": SILENCE, "options": options}
    if free:
        expected = free_search(rows, LETTERS.symbols, Table(files / "letters.arpa"), **where)
    else:
        lexicon = read_lexicon(files / "lexicon.txt", LETTERS)
        spelled = [(lexicon.words[number], spelling) for number, spelling in lexicon.spellings]
        expected = lexicon_search(rows, spelled, Table(files / "words.arpa"), **where)
    assert [one.score for one in found] == pytest.approx([score for score, _, _ in expected], abs=1e-3)
    for one, (_, path, words) in zip(found, expected, strict=True):
        assert one.path == path[1:-1]
        assert (one.words or ()) == words


def test_torchaudio_finds_the_same(files: Path) -> None:
    from torchaudio.models.decoder import ctc_decoder

    emissions = 3 * torch.randn(1, 30, 8)
    options = {"nbest": 3, "beam_size": 30, "lm_weight": 1.5, "word_score": 0.5, "sil_score": -0.2}
    theirs = ctc_decoder(
        lexicon=str(files / "lexicon.txt"),
        tokens=list(LETTERS.symbols),
        lm=str(files / "words.arpa"),
        blank_token="<s>",
        sil_token="|",
        unk_word="<unk>",
        **options,
    )
    found = BeamSearch(space_of(files, free=False), **options)(emissions[0])
    expected = theirs(emissions)[0]
    assert [one.words for one in found] == [tuple(one.words) for one in expected]
    assert [one.tokens for one in found] == [tuple(one.tokens.tolist()) for one in expected]
    assert [one.timesteps for one in found] == [tuple(one.timesteps.tolist()) for one in expected]
    assert [one.score for one in found] == pytest.approx([one.score for one in expected])


def test_without_language_model_and_beam_limits_the_best_path_is_found() -> None:
    emissions = torch.randn(12, 8).log_softmax(-1)
    emissions[:, 1:4] = -math.inf
    search = BeamSearch(SearchSpace.of(LETTERS, None, None), beam_size=500, beam_threshold=1e3)
    assert search(emissions)[0].path == tuple(emissions.argmax(-1).tolist())


def test_no_frames(files: Path) -> None:
    (found,) = BeamSearch(space_of(files, free=False))(torch.zeros(0, 8))
    assert (found.path, found.words, found.text(LETTERS)) == ((), (), "")


@pytest.mark.parametrize("shape", [(4, 7), (4,), (1, 4, 8)])
def test_scores_of_another_dictionary(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="scores"):
        BeamSearch(SearchSpace.of(LETTERS, None, None))(torch.zeros(shape))


@pytest.mark.parametrize("option", [{"nbest": 0}, {"beam_size": 0}, {"beam_threshold": -1.0}])
def test_options_out_of_range(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        BeamSearch(SearchSpace.of(LETTERS, None, None), **option)


def test_dictionaries_that_cannot_be_searched() -> None:
    with pytest.raises(ValueError, match="silence"):
        BeamSearch(SearchSpace.of(Symbols(("-", "A"), blank="-"), None, None))
    with pytest.raises(ValueError, match="no blank"):
        SearchSpace.of(Symbols(("|", "A"), boundary="|"), None, None)
