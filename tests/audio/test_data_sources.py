"""What a path of recordings means: splits, classes, manifests, lists, LibriSpeech's layout, and what is not used."""

import logging
import zipfile
from pathlib import Path

import pytest
from recordings import LIBRI, LIBRIVOX, config, manifest, save

from d2v.audio import AudioDataConfig, WaveformAdapterConfig, modality
from d2v.core.data import DataConfig, DataError, Splits
from d2v.core.data.folders.layout import splits_by_use
from d2v.core.files import from_plain, to_plain
from d2v.core.labels import Classes, Symbols
from d2v.core.registry import MissingExtraError


def names(data: AudioDataConfig, split: str | None) -> list[str]:
    loader = data.build(split, batch_size=100)
    return sorted(loader.name(id) for batch in loader for id in batch.ids.tolist())


def fill(root: Path, *paths: str) -> None:
    for path in paths:
        save(root / path)


def librispeech(root: Path, *splits: str) -> None:
    for split in splits:
        for speaker in ("19", "26"):
            folder = root / split / speaker / "7"
            lines = [f"{speaker}-7-{i:04} WORDS OF {split.upper()}\n" for i in range(2)]
            fill(folder, *(f"{speaker}-7-{i:04}.flac" for i in range(2)))
            (folder / f"{speaker}-7.trans.txt").write_text("".join(lines))


def test_it_keeps_the_contract() -> None:
    data: DataConfig = config("recordings")
    assert from_plain(to_plain(data), DataConfig) == data  # type: ignore[type-abstract]
    assert modality.data == {"recordings": AudioDataConfig}


def test_a_folder_of_splits_and_classes(tmp_path: Path) -> None:
    fill(tmp_path, "train/yes/1.wav", "train/no/2.flac", "valid/yes/3.ogg", "extra/4.wav", "train/no/README.md.wav")
    (tmp_path / "train/no/notes.doc").write_text("text")
    data = config(tmp_path)
    assert data.splits() == Splits(train="train", test="val")
    assert data.labels(Classes) == Classes(("no", "yes"))
    (batch,) = data.build("valid", batch_size=2)
    assert batch.labels.tolist() == [1]
    found = data.contents()
    beside = "recordings and folders next to the splits"
    assert found.unused == {".doc files": ("train/no/notes.doc",), beside: ("extra/",)}
    assert found.line().startswith(f"{tmp_path}: 4 recordings (train 3, val 1), 2 classes (no, yes); not used: ")
    assert found.listed_by == f"d2v data check-recordings {tmp_path}"


def test_a_folder_without_splits_holds_recordings_out(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{word}/{i}.wav" for word in ("yes", "no") for i in range(6)))
    data = config(tmp_path, hold_out=None)
    assert data.splits() == Splits(train="train", test="test", pretrain="train+test", whole="train+test")
    train, test = names(data, "train"), names(data, "test")
    assert len(test) > 1
    assert sorted(train + test) == names(data, "train+test") == names(data, None)
    assert data.contents().splits == {"train": len(train), "test": len(test)}


def test_a_librispeech_tree(tmp_path: Path) -> None:
    librispeech(tmp_path, "train-clean-100", "dev-clean", "dev-other", "test-clean", "test-other")
    (tmp_path / "README.TXT").write_text("about")
    data = config(tmp_path)
    assert data.splits() == Splits(train="train-clean-100", val="dev-other", test="test-other")
    assert names(data, "dev_clean")[0] == "dev-clean/19/7/19-7-0000.flac", "in any spelling"
    assert len(names(data, None)) == 20
    found = data.contents()
    assert found.classes == ()
    assert "transcripts" in found.line()
    assert "no classes" not in found.line()
    assert found.unused == {".txt files": ("README.TXT",)}
    with pytest.raises(DataError, match="class"):
        data.labels(Classes)


def test_several_training_splits_are_used_together(tmp_path: Path) -> None:
    librispeech(tmp_path, "train-clean-100", "train-other-500", "dev-clean")
    data = config(tmp_path)
    both = "train-clean-100+train-other-500"
    assert data.splits() == Splits(train=both, test="dev-clean")
    assert f"training on {both}" in data.contents().line()
    assert names(data, both) == names(data, "train_clean_100") + names(data, "train_other_500")
    symbols = data.labels(Symbols)
    assert isinstance(symbols, Symbols)
    assert sum(batch.size for batch in data.build(both, batch_size=2, labels=symbols)) == 8
    assert {"5", "0", "1"} <= set(symbols.symbols), "the words of both"
    assert config(tmp_path, train_split="train-clean-100").splits() == Splits(train="train-clean-100", test="dev-clean")
    with pytest.raises(DataError, match=r"train-clean-10'.*train-clean-100"):
        config(tmp_path, train_split="train-clean-10").splits()


def test_a_single_own_split_holds_recordings_out(tmp_path: Path) -> None:
    librispeech(tmp_path, "train-clean-100")
    data = config(tmp_path, hold_out=0.5)
    train, test = names(data, data.splits().train), names(data, "test")
    assert not set(train) & set(test)
    assert len(train + test) == 4


@pytest.mark.parametrize(
    ("found", "splits"),
    [
        (["train", "valid"], Splits(train="train", test="valid")),
        (
            ["train_1h", "dev_other", "dev_clean", "test_other"],
            Splits(train="train_1h", val="dev_other", test="test_other"),
        ),
        (["train", "train_1h", "val", "dev_other", "test"], Splits(train="train", val="val", test="test")),
        (["dev_other"], Splits(train="train", test="dev_other")),
        (["lectures"], Splits(train="train")),
    ],
)
def test_splits_by_their_names(found: list[str], splits: Splits) -> None:
    assert splits_by_use(found) == splits


# --- manifests --------------------------------------------------------------------------------------------------------


def test_a_folder_of_manifests(tmp_path: Path) -> None:
    fill(tmp_path / "sound", "a.wav", "b.wav", "c.wav")
    lists = tmp_path / "lists"
    manifest(lists / "train.tsv", tmp_path / "sound", "b.wav", "a.wav")
    manifest(lists / "dev_other.tsv", tmp_path / "sound", "c.wav")
    for name in ("train.ltr", "train.phn", "dict.ltr.txt", "notes.md"):
        (lists / name).write_text("")
    data = config(lists)
    assert data.splits() == Splits(train="train", test="dev_other")
    loader = data.build("train", batch_size=2)
    assert [loader.name(id) for id in (0, 1)] == ["b.wav", "a.wav"], "in the order of the manifest"
    assert names(data, None) == ["a.wav", "b.wav", "c.wav"]
    found = data.contents()
    assert dict(found.splits) == {"train": 2, "dev_other": 1}
    assert found.unused == {"other files": ("notes.md",)}
    assert "4.17e-05 h" in found.line()
    assert config(lists / "train.tsv").contents().splits == {"train": 2}


def test_manifests_that_share_recordings_need_a_choice(tmp_path: Path) -> None:
    fill(tmp_path / "sound", "a.wav", "b.wav")
    fill(tmp_path / "other", "c.wav")
    for name, root, paths in (("10h", "sound", "ab"), ("1h", "sound", "a"), ("1m", "other", "c")):
        manifest(tmp_path / f"train_{name}.tsv", tmp_path / root, *(f"{path}.wav" for path in paths))
        (tmp_path / f"train_{name}.wrd").write_text("".join(f"{path}\n" for path in paths))
    with pytest.raises(DataError, match=r"train_10h, train_1h, train_1m share.*data\.train_split"):
        config(tmp_path).splits()
    data = config(tmp_path, train_split="train-1h+train_1m")
    assert "training on train_1h+train_1m" in data.contents().line()
    assert names(data, data.splits().train) == [f"{tmp_path}/other/c.wav", f"{tmp_path}/sound/a.wav"]
    symbols = data.labels(Symbols)
    assert isinstance(symbols, Symbols)
    assert symbols.symbols[4:] == ("|", "a", "c")


def test_moved_files_are_noticed_at_once(tmp_path: Path) -> None:
    fill(tmp_path / "sound", "a.wav", "b.wav")
    path = manifest(tmp_path / "train.tsv", tmp_path / "sound", "a.wav", "b.wav")
    (tmp_path / "sound").rename(tmp_path / "moved")
    with pytest.raises(DataError, match=r"train\.tsv.*sound/a\.wav does not exist.*first line"):
        config(path).contents()
    (tmp_path / "moved/a.wav").unlink()
    path.write_text(path.read_text().replace("sound", "moved", 1))
    loader = config(path).build(None, batch_size=2)
    assert [batch.size for batch in loader] == [1]
    assert len(loader.broken) == 1


def test_a_relative_root_is_beside_the_manifest_or_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "sound", "a.wav")
    manifest(tmp_path / "beside.tsv", tmp_path / "sound", "a.wav").write_text("sound\na.wav\t800\n")
    assert names(config(tmp_path / "beside.tsv"), None) == ["a.wav"]
    monkeypatch.chdir(LIBRI)
    assert len(names(config(LIBRI / "manifest"), None)) == 5


@pytest.mark.parametrize("line", ["a.wav 800", "a.wav\tlong", "\t800"])
def test_lines_of_manifests_are_checked(tmp_path: Path, line: str) -> None:
    fill(tmp_path, "a.wav")
    path = manifest(tmp_path / "train.tsv", tmp_path, "a.wav")
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(DataError, match=r"train\.tsv, line 3"):
        config(path).contents()


def test_manifests_of_archives(tmp_path: Path) -> None:
    fill(tmp_path, "a.wav", "b.wav")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(tmp_path / "a.wav", "a.wav")
    content = (tmp_path / "a.wav").read_bytes()
    entry = f"all.zip:{(tmp_path / 'all.zip').read_bytes().find(content)}:{len(content)}"
    data = config(manifest(tmp_path / "train.tsv", tmp_path, entry, "b.wav", lengths=[800, 800]))
    loader = data.build(None, batch_size=2)
    (batch,) = loader
    assert batch.source.shape == (2, 800)
    identity = loader.identity()
    assert identity.sizes is not None
    assert identity.sizes.tolist() == [len(content)] * 2


# --- lists and single files -------------------------------------------------------------------------------------------


def test_lists(tmp_path: Path) -> None:
    fill(tmp_path, "a.wav", "b.wav", "c.wav")
    (tmp_path / "plain.txt").write_text("a.wav\nb.wav\n")
    assert names(config(tmp_path / "plain.txt"), None) == ["a.wav", "b.wav"]
    (tmp_path / "all.csv").write_text("path,split,label,text\na.wav,train,x,A B\nb.wav,dev_other,x,\nc.wav,train,y,C\n")
    data = config(tmp_path / "all.csv")
    assert data.splits() == Splits(train="train", test="dev_other")
    assert data.labels(Classes) == Classes(("x", "y"))
    assert "dev_other has 1 recordings without a transcript" in data.contents().line()
    (tmp_path / "table.tsv").write_text("path\tlabel\na.wav\tx\nb.wav\ty\n")
    assert config(tmp_path / "table.tsv").labels(Classes) == Classes(("x", "y"))
    (tmp_path / "bad.csv").write_text("path,split\na.wav,lectures\n")
    with pytest.raises(DataError, match="'lectures'"):
        config(tmp_path / "bad.csv").contents()
    (tmp_path / "bad.csv").write_text("file,text\na.wav,A\n")
    with pytest.raises(DataError, match="label, split and text"):
        config(tmp_path / "bad.csv").contents()


def test_the_five_sentences() -> None:
    found = config(LIBRIVOX / "librivox.csv").contents()
    assert (dict(found.splits), found.facts) == ({"train": 5}, ("transcripts",))


def test_one_file_and_none(tmp_path: Path) -> None:
    fill(tmp_path, "a.wav")
    assert names(config(tmp_path / "a.wav"), None) == ["a.wav"]
    (tmp_path / "text.doc").write_text("text")
    with pytest.raises(DataError, match="neither a recording nor a list"):
        config(tmp_path / "text.doc").contents()
    with pytest.raises(DataError, match="neither a folder nor a recording"):
        config(tmp_path / "missing").contents()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no recordings"):
        config(tmp_path / "empty").contents()


# --- models and extras ------------------------------------------------------------------------------------------------


def test_other_models_are_refused() -> None:
    from d2v.vision import ImageAdapter, ImageAdapterConfig

    data = config("recordings")
    assert data.matching(WaveformAdapterConfig()) == WaveformAdapterConfig()
    with pytest.raises(DataError, match="ImageAdapter"):
        data.match(ImageAdapter(embed_dim=8, image_size=16, patch_size=8))
    with pytest.raises(DataError, match="ImageAdapterConfig"):
        data.matching(ImageAdapterConfig(image_size=(16, 16), patch_size=8))
    assert data.preparation() == {"sample_rate": 16000, "normalize": True}


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d2v.core.modality.find_spec", lambda name: None if name == "soundfile" else object())
    with pytest.raises(MissingExtraError, match=r"soundfile.*d2v\[audio\]"):
        config("recordings").contents()


def test_the_line_is_a_warning_only_if_something_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from d2v.core.jobs.opening import say_contents

    fill(tmp_path, "a.wav")
    with caplog.at_level(logging.INFO):
        say_contents(config(tmp_path))
    assert [record.levelname for record in caplog.records] == ["INFO"]
