"""Words of a best path, and the frames that they take."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from speech import LETTERS

from d2v.audio.tasks.words import words_of
from d2v.core.labels import Symbols


def spelled(path: str) -> torch.Tensor:
    symbols = {"-": "<s>", "_": "</s>"}
    return torch.tensor(LETTERS.numbers([symbols.get(one, one) for one in path]))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("--AAB||-C", [("AB", 2, 4), ("C", 8, 8)]),
        ("A-A", [("AA", 0, 2)]),
        ("|||", []),
        ("----", []),
        ("|A|", [("A", 1, 1)]),
        ("A__B", [("AB", 0, 3)]),
    ],
)
def test_words_and_their_frames(path: str, words: list[tuple[str, int, int]]) -> None:
    assert [(word.text, word.first, word.last) for word in words_of(spelled(path), LETTERS)] == words


def test_without_a_boundary_each_symbol_is_a_word() -> None:
    phones = Symbols(("-", "ah", "b"), blank="-")
    found = [(word.text, word.first, word.last) for word in words_of(torch.tensor([1, 1, 0, 1, 2]), phones)]
    assert found == [("ah", 0, 1), ("ah", 3, 3), ("b", 4, 4)]


@settings(deadline=None)
@given(st.text("-_|ABC", max_size=30))
def test_words_are_those_of_the_text(path: str) -> None:
    words = words_of(spelled(path), LETTERS)
    assert " ".join(word.text for word in words) == LETTERS.text(LETTERS.collapse(spelled(path)))
    assert all(word.first <= word.last for word in words)
    assert all(one.last < after.first for one, after in pairwise(words))
