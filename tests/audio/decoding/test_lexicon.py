"""Lexicons: spellings, and files that cannot be used."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from speech import LETTERS

from d2v.audio.decoding import read_lexicon
from d2v.core.data import DataError
from d2v.core.labels import Symbols

PHONES = Symbols(("<s>", "ah", "t"), blank="<s>")


def written(folder: Path, text: str) -> Path:
    path = folder / "lexicon.txt"
    path.write_text(text)
    return path


def test_words_with_several_spellings(tmp_path: Path) -> None:
    found = read_lexicon(written(tmp_path, "ab\tA B |\nca C A |\n\nab  A  |\nab A B |\n"), LETTERS)
    assert found.words == ("ab", "ca")
    assert found.spellings == ((0, (5, 6, 4)), (1, (7, 5, 4)), (0, (5, 4)))


def test_a_dictionary_without_boundary(tmp_path: Path) -> None:
    assert read_lexicon(written(tmp_path, "at ah t\n"), PHONES).spellings == ((0, (1, 2)),)


@given(st.lists(st.text("ABC", min_size=1, max_size=5), min_size=1, max_size=20))
def test_any_words(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    path = written(tmp_path_factory.mktemp("words"), "".join(f"{word} {' '.join(word)} |\n" for word in words))
    found = read_lexicon(path, LETTERS)
    assert found.words == tuple(dict.fromkeys(words))
    assert [LETTERS.text(numbers) for _, numbers in found.spellings] == list(found.words)


def test_many_words_of_one_spelling(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_lexicon(written(tmp_path, "".join(f"A{i} A |\n" for i in range(6))), LETTERS)
    assert not caplog.messages
    read_lexicon(written(tmp_path, "".join(f"A{i} A |\n" for i in range(7))), LETTERS)
    assert "7 words are spelled A|" in caplog.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("no words",)),
        ("AB\n", ("line 1", "AB", "spelling")),
        ("A A |\nAB A B\n", ("line 2", "AB", "|")),
        ("A |\n", ("line 1", "spelling")),
        ("CAR C A R |\nCA C A |\n", ("line 1", "CAR", "'R'", "cannot spell 1 ")),
        ("A <s> |\n", ("line 1", "'<s>'")),
        ("A <pad> |\n", ("line 1", "'<pad>'")),
        ("".join(f"Z{i} Z |\n" for i in range(9)), ("cannot spell 9 ", "Z2", "6 more")),
    ],
)
def test_wrong_lexicons(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    with pytest.raises(DataError) as error:
        read_lexicon(written(tmp_path, text), LETTERS)
    assert all(word in str(error.value) for word in ("lexicon.txt", *words))
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.txt"):
        read_lexicon(tmp_path / "nowhere.txt", LETTERS)
    (tmp_path / "latin.txt").write_bytes("Ä A |\n".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        read_lexicon(tmp_path / "latin.txt", LETTERS)
