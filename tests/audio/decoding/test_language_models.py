"""Files of language models: their words, and those that cannot be used."""

import gzip
import logging
import shutil
from pathlib import Path

import pytest
from speech import LETTERS

from d2v.audio.decoding import Beam, load_lm
from d2v.audio.decoding.ngrams import missing_from_ngrams
from d2v.core.data import DataError
from d2v.core.registry import MissingExtraError

DATA = Path(__file__).parents[2] / "parity/data/decoding"
ARPA = (DATA / "lm.arpa").read_text()


def test_words_of_an_arpa_file(tmp_path: Path) -> None:
    wanted = ["CAT", "DOG", "cat", "SEE", "<unk>"]
    assert missing_from_ngrams(DATA / "lm.arpa", wanted) == ["DOG", "cat"]
    (tmp_path / "lm.gz").write_bytes(gzip.compress(ARPA.encode()))
    assert missing_from_ngrams(tmp_path / "lm.gz", wanted) == ["DOG", "cat"]


@pytest.mark.parametrize("name", ["lm.arpa", "transformer_lm.pt"])
def test_a_language_model_of_another_vocabulary(name: str) -> None:
    pytest.importorskip("flashlight")
    with pytest.raises(DataError, match=r"none of the 2 words.*\(cat, dog\)"):
        load_lm(DATA / name, ["cat", "dog", "<unk>"])


@pytest.mark.parametrize(("name", "effect"), [("lm.arpa", "unknown word"), ("transformer_lm.pt", "never found")])
def test_missing_words_are_named(name: str, effect: str, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("flashlight")
    pytest.importorskip("kenlm")
    with caplog.at_level(logging.WARNING):
        load_lm(DATA / name, ["CAT", "DOG", "HORSE", "<unk>"])
    (line,) = caplog.messages
    assert all(word in line for word in (name, "2 of 3", "DOG, HORSE", effect))


def test_specials_may_be_missing(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("kenlm")
    with caplog.at_level(logging.WARNING):
        load_lm(DATA / "lm.arpa", ["CAT", "<pad>"], ignored=["<pad>"])
    assert not caplog.messages


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (ARPA.replace("-0.65511", "minus"), "minus"),
        (ARPA[:700], "End of file"),
        (ARPA.replace("ngram 1=15", "ngram 1=14"), "header"),
        (ARPA.replace("\\data\\", "\\dates\\"), "dates"),
    ],
)
def test_broken_arpa_files(tmp_path: Path, content: str, word: str) -> None:
    pytest.importorskip("flashlight")
    pytest.importorskip("kenlm")
    (tmp_path / "lm.arpa").write_text(content)
    with pytest.raises(DataError, match=word) as error:
        load_lm(tmp_path / "lm.arpa", ["CAT"])
    assert "lm.arpa" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"no language model\n", bytes(range(129, 256)) * 9, b"\x1f\x8bcut"])
def test_files_of_another_kind(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("flashlight")
    pytest.importorskip("kenlm")
    (tmp_path / "lm").write_bytes(content)
    with pytest.raises(DataError, match="lm"):
        load_lm(tmp_path / "lm", ["CAT"])


def test_a_damaged_binary_file(tmp_path: Path) -> None:
    pytest.importorskip("flashlight")
    pytest.importorskip("kenlm")
    (tmp_path / "lm.bin").write_bytes(b"mmap lm http://kheafield.com/code format version 5\n\0" + bytes(300))
    with pytest.raises(DataError, match=r"lm\.bin"):
        load_lm(tmp_path / "lm.bin", ["CAT"])


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.arpa"):
        load_lm(tmp_path / "nowhere.arpa", ["CAT"])


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    pytest.importorskip("flashlight")
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("A A |\n")
    decoder = Beam(lexicon=str(lexicon))
    first = decoder.build(LETTERS).space
    assert decoder.build(LETTERS).space is first
    lexicon.write_text("A A |\nB B |\n")
    assert decoder.build(LETTERS).space.words == ("A", "B", "<unk>")


@pytest.mark.parametrize("package", ["flashlight", "kenlm"])
def test_a_missing_package(package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("d2v.audio.decoding.packages.find_spec", lambda name: None if name == package else name)
    shutil.copy(DATA / "lm.arpa", tmp_path)
    with pytest.raises(MissingExtraError, match=rf"{package}.*d2v\[decode\]"):
        load_lm(tmp_path / "lm.arpa", ["CAT"])
    if package == "flashlight":
        with pytest.raises(MissingExtraError, match=r"d2v\[decode\]"):
            Beam().build(LETTERS)
