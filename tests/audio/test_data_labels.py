"""Labels of recordings: letters and other symbols with their dictionaries, classes, and several classes at a time."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recordings import LIBRIVOX, config, manifest, save

from d2v.audio.recordings.dictionary import dictionary_text, librispeech_dictionary, parse_dictionary
from d2v.audio.recordings.transcripts import Transcripts, letters_of, read_two_columns, words_of_names
from d2v.core.data import DataError
from d2v.core.labels import Classes, MultiLabel, Number, Symbols
from d2v.core.model import Batch

LETTERS = parse_dictionary(librispeech_dictionary(), "dict.ltr.txt")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three recordings, with manifests of two of them to train on and one to test on."""
    for number in range(3):
        save(tmp_path / "sound" / f"{number}.wav", 800 + number, seed=number)
    manifest(tmp_path / "train.tsv", tmp_path / "sound", "0.wav", "1.wav")
    manifest(tmp_path / "test.tsv", tmp_path / "sound", "2.wav")
    return tmp_path


def only(folder: Path, split: str, labels: Any, **options: Any) -> Batch:
    (batch,) = config(folder, **options).build(split, batch_size=8, labels=labels)
    labels.check(batch)
    return batch


def texts(batch: Batch, symbols: Symbols) -> dict[int, str]:
    assert batch.ids is not None
    return dict(zip(batch.ids.tolist(), map(symbols.text, symbols.sequences(batch)), strict=True))


# --- dictionaries -----------------------------------------------------------------------------------------------------


def test_the_published_dictionary() -> None:
    assert LETTERS.symbols == ("<s>", "<pad>", "</s>", "<unk>", *"|ETAONIHSRDLUMWCFGYPBVK'XJQZ")
    assert (LETTERS.num_outputs, LETTERS.blank_number, LETTERS.symbols.index("|")) == (32, 0, 4)
    assert LETTERS.numbers("ÉA") == [3, 7]


def test_rules_of_dictionary_files() -> None:
    found = parse_dictionary("| 3\nA B 2\nA 1\n\nA 5 #fairseq:overwrite\n", "d")
    assert found.symbols[4:] == ("|", "A B", "A (line 3)", "A")
    for text, line in [("A 1\nA 2\n", 2), ("A 1\nB\n", 2), ("A one\n", 1), ("<s> 1 #fairseq:overwrite\n", 1)]:
        with pytest.raises(DataError, match=f"line {line}"):
            parse_dictionary(text, "d")
    assert parse_dictionary("a 1\n", "d").boundary is None


@given(st.dictionaries(st.text(st.characters(codec="ascii", categories=["L", "P"]), min_size=1), st.integers(1, 99)))
def test_dictionaries_survive_the_file(counts: dict[str, int]) -> None:
    found = parse_dictionary(dictionary_text(counts), "d").symbols[4:]
    assert sorted(found) == sorted(unit for unit in counts if unit not in LETTERS.specials)
    assert [counts[unit] for unit in found] == sorted((counts[unit] for unit in found), reverse=True)


@given(st.text(st.characters(codec="ascii", categories=["L", "Zs"])))
def test_letters_spell_the_words(text: str) -> None:
    units = letters_of(text)
    assert "".join(units).replace("|", " ").split() == text.split()
    assert units.count("|") == len(text.split())


# --- symbols ----------------------------------------------------------------------------------------------------------


def test_letters_beside_a_manifest(folder: Path) -> None:
    (folder / "train.ltr").write_text("H I | A L L |\nB Y E |\n")
    (folder / "test.wrd").write_text("HI BABY\n")
    symbols = config(folder).labels(Symbols)
    assert isinstance(symbols, Symbols)
    assert symbols.symbols == ("<s>", "<pad>", "</s>", "<unk>", "|", "L", "A", "B", "E", "H", "I", "Y")
    assert texts(only(folder, "train", symbols), symbols) == {0: "HI ALL", 1: "BYE"}
    assert texts(only(folder, "test", symbols), symbols) == {0: "HI BABY"}, "spelled from words"
    assert config(folder).files() == {"dict.ltr.txt": b"| 3\nL 2\nA 1\nB 1\nE 1\nH 1\nI 1\nY 1\n"}
    (folder / "dict.ltr.txt").write_text(librispeech_dictionary())
    assert config(folder).labels(Symbols) == LETTERS
    assert config(folder).files() == {"dict.ltr.txt": librispeech_dictionary().encode()}
    (folder / "dict.ltr.txt").unlink()
    assert config(folder, dictionary="librispeech").labels(Symbols) == LETTERS
    (folder / "own.txt").write_text("A 1\n")
    named = config(folder, dictionary=str(folder / "own.txt")).labels(Symbols)
    assert isinstance(named, Symbols)
    assert named.symbols[4:] == ("A",)


def test_other_units_than_letters(folder: Path) -> None:
    (folder / "train.phn").write_text("HH AY sil\nB AY\n")
    symbols = config(folder, label_file="phn").labels(Symbols)
    assert isinstance(symbols, Symbols)
    assert symbols.symbols[4:] == ("AY", "B", "HH", "sil")
    assert texts(only(folder, "train", symbols, label_file="phn"), symbols) == {0: "HH AY sil", 1: "B AY"}


def test_labels_of_real_speech() -> None:
    data = config(LIBRIVOX / "librivox.csv")
    batch = only(LIBRIVOX / "librivox.csv", "train", LETTERS)
    assert texts(batch, LETTERS)[1] == "HE WAS NOT AN ILL DISPOSED YOUNG MAN"
    assert data.files().keys() == {"dict.ltr.txt"}


def test_label_files_must_fit_their_manifest(folder: Path) -> None:
    (folder / "train.ltr").write_text("H I |\n")
    with pytest.raises(DataError, match=r"train\.ltr has 1 lines.*2 recordings"):
        config(folder).labels(Symbols)
    (folder / "train.ltr").write_text("H I |\n\n\n")
    with pytest.raises(DataError, match=r"train\.ltr has 3 lines"):
        config(folder).labels(Symbols)


def test_missing_transcripts_are_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"\.ltr or \.wrd file"):
        config(folder).labels(Symbols)
    with pytest.raises(DataError, match=r"\.ltr or \.wrd file"):
        config(folder).build("test", batch_size=1, labels=LETTERS)
    (folder / "list.csv").write_text("path,text\nsound/0.wav,HI\nsound/1.wav,\n")
    with pytest.raises(DataError, match=r"1 recordings have no transcript.*sound/1\.wav"):
        config(folder / "list.csv").build("train", batch_size=1, labels=LETTERS)


def test_letters_outside_the_dictionary(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "train.wrd").write_text("HI ÀLL ÀND BYE\nBYE\n")
    batch = only(folder, "train", LETTERS)
    assert "2 of 14 symbols" in caplog.text
    assert "'À'" in caplog.text
    assert texts(batch, LETTERS)[0] == "HI <unk>LL <unk>ND BYE"
    (folder / "train.wrd").write_text("hi all\nbye\n")
    with pytest.raises(DataError, match="upper and lower case"):
        config(folder).build("train", batch_size=2, labels=LETTERS)
    strict = Symbols(("<s>", "H", "I"), blank="<s>")
    (folder / "train.ltr").write_text("H I\nH O\n")
    with pytest.raises(DataError, match="'O'"):
        config(folder).build("train", batch_size=2, labels=strict)


def test_labels_survive_shuffled_training(folder: Path) -> None:
    (folder / "train.wrd").write_text("HI ALL\nBYE\n")
    loader = config(folder).build("train", batch_size=2, training=True, labels=LETTERS)
    for _, batch in zip(range(4), loader, strict=False):
        assert texts(batch, LETTERS) == {0: "HI ALL", 1: "BYE"}
        assert batch.padding is not None, "labelled recordings are padded, not cropped"


def test_cropped_transcripts_are_noted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "train.wrd").write_text("HI ALL\nBYE\n")
    config(folder, max_samples=801).build("train", batch_size=2, training=True, labels=LETTERS)
    assert "cropped" not in caplog.text
    config(folder, max_samples=800).build("train", batch_size=2, training=True, labels=LETTERS)
    assert "1 of 2 recordings are cropped to data.max_samples=800" in caplog.text


@given(st.lists(st.text(st.sampled_from("AB |é\t")), min_size=1), st.booleans(), st.booleans())
def test_the_fast_way_finds_the_same_units(lines: list[str], spelled: bool, letters: bool) -> None:
    transcripts = Transcripts(lines=lines, spelled=spelled, letters=letters, source="")
    expected = Counter(unit for id in range(len(lines)) for unit in transcripts.units(id))
    assert transcripts.counts(range(len(lines))) == expected
    assert transcripts.distinct(range(len(lines))) == set(expected)


# --- classes ----------------------------------------------------------------------------------------------------------


def test_classes_are_numbered_as_in_the_model(tmp_path: Path) -> None:
    for path in ("train/no/1.wav", "train/yes/1.wav", "val/yes/2.wav"):
        save(tmp_path / path)
    data = config(tmp_path)
    assert data.labels(Classes) == Classes(("no", "yes"))
    given = Classes(("yes", "maybe", "no"))
    assert only(tmp_path, "train", given).labels.tolist() == [2, 0]  # type: ignore[union-attr]
    for split in ("val", "valid"):
        (batch,) = data.build(split, batch_size=2)
        assert batch.labels.tolist() == [1], "as the training split numbers them"
    (batch,) = data.build("train+val", batch_size=3)
    assert batch.labels is None, "the splits have other classes"
    (batch,) = config(tmp_path / "train").build(None, batch_size=2)
    assert sorted(batch.labels.tolist()) == [0, 1]
    with pytest.raises(DataError, match=r"'no'.*'not'"):
        data.build("train", batch_size=1, labels=Classes(("not", "yes")))
    with pytest.raises(DataError, match="list"):
        config(tmp_path / "train" / "no").labels(Classes)
    with pytest.raises(DataError, match="number"):
        data.labels(Number)
    with pytest.raises(DataError, match="number"):
        data.build("train", batch_size=1, labels=Number())


def test_pretraining_has_no_labels(tmp_path: Path) -> None:
    for path in ("train/no/1.wav", "train/yes/1.wav"):
        save(tmp_path / path)
    assert next(iter(config(tmp_path).build("train", batch_size=2, training=True))).labels is None


@pytest.mark.parametrize("header", ["index,mid,display_name\n", ""])
def test_several_classes(folder: Path, header: str) -> None:
    (folder / "label_descriptors.csv").write_text(f'{header}0,/m/1,"Speech, male"\n1,/m/2,Music\n2,/m/3,Dog\n')
    (folder / "train.lbl").write_text("0.0\t10.0\t0,2\n1.5\t3\t1\n")
    (folder / "test.lbl").write_text("0\t1\t2\n")
    labels = config(folder).labels(MultiLabel)
    assert labels == MultiLabel(("Speech, male", "Music", "Dog"))
    batch = only(folder, "train", labels)
    assert batch.ids is not None
    assert batch.labels is not None
    assert batch.labels[batch.ids.argsort()].int().tolist() == [[1, 0, 1], [0, 1, 0]]
    assert only(folder, "test", labels).labels.int().tolist() == [[0, 0, 1]]  # type: ignore[union-attr]
    for line in ("0\t1\t3", "0\t1\tDog", "0\t1\t"):
        (folder / "test.lbl").write_text(f"{line}\n")
        with pytest.raises(DataError, match=r"test\.lbl, line 1"):
            config(folder).build("test", batch_size=1, labels=labels)
    with pytest.raises(DataError, match="'Music'"):
        config(folder).build("train", batch_size=1, labels=MultiLabel(("Speech, male", "Dog")))
    (folder / "label_descriptors.csv").write_text("index,mid,name\n0,/m/1,Dog\n2,/m/2,Cat\n")
    with pytest.raises(DataError, match=r"label_descriptors\.csv"):
        config(folder).labels(MultiLabel)


def test_several_classes_need_their_files(folder: Path) -> None:
    with pytest.raises(DataError, match=r"\.lbl"):
        config(folder).labels(MultiLabel)
    (folder / "train.lbl").write_text("0\t1\t0\n0\t1\t0\n")
    with pytest.raises(DataError, match=r"label_descriptors\.csv cannot be read"):
        config(folder).labels(MultiLabel)


# --- files of names and texts -----------------------------------------------------------------------------------------


def test_two_columns(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text('a/1.wav,HI ALL\n2,"BYE, BYE"\n\n3.wav,\n')
    found = words_of_names(read_two_columns(path), ["a/1.wav", "b/2.wav", "c/3.wav", "4.wav"])
    assert found == ["HI ALL", "BYE, BYE", "", None]
    path.write_text("1\tHI, ALL\n2\tBYE\n")
    assert read_two_columns(path) == {"1": "HI, ALL", "2": "BYE"}
    for text, line in [("1\tA\n1\tB\n", 2), ("1\tA\n2\n", 2), ("1,A\n,B\n", 2)]:
        path.write_text(text)
        with pytest.raises(DataError, match=f"line {line}"):
            read_two_columns(path)


def test_empty_transcripts_are_empty_sequences(folder: Path) -> None:
    (folder / "train.ltr").write_text("H I |\n\n")
    batch = only(folder, "train", LETTERS)
    assert batch.label_lengths is not None
    assert sorted(batch.label_lengths.tolist()) == [0, 3]
    assert torch.equal(batch.labels == 1, torch.arange(3) >= batch.label_lengths[:, None])  # type: ignore[arg-type]
