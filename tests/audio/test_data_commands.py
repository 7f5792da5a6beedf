"""`d2v data manifest`, `labels` and `check-recordings`, on the recorded case of the original and on bad input."""

import shutil
from pathlib import Path

import pytest
from recordings import LIBRI, save

from d2v.audio.recordings.manifest_files import divided
from d2v.core.cli import main


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recorded tree; manifests of the case name it `tree`."""
    shutil.copytree(LIBRI, tmp_path / "libri")
    monkeypatch.chdir(tmp_path / "libri")
    return tmp_path / "libri" / "tree"


def test_the_recorded_manifests(tree: Path, tmp_path: Path) -> None:
    """The original's order is that of the file system: files are compared as sets, and its rule in its own order."""
    assert main(["data", "manifest", "tree", "--dest", str(tmp_path / "all"), "--valid-percent", "0"]) == 0
    assert [path.name for path in (tmp_path / "all").iterdir()] == ["train.tsv"]
    root, *found = lines(tmp_path / "all" / "train.tsv")
    assert root == str(tree.resolve())
    assert found == sorted(lines(LIBRI / "manifest_all" / "train.tsv")[1:])
    _, *ordered = lines(LIBRI / "manifest_all" / "train.tsv")
    recorded = [lines(LIBRI / "manifest" / f"{name}.tsv")[1:] for name in ("train", "valid")]
    assert list(divided(ordered, 0.5, 42)) == recorded


def test_the_recorded_filter(tree: Path, tmp_path: Path) -> None:
    options = ["--valid-percent", "0", "--path-must-contain", "/26/"]
    assert main(["data", "manifest", str(tree), "--dest", str(tmp_path / "some"), *options]) == 0
    assert set(lines(tmp_path / "some" / "train.tsv")[1:]) == set(lines(LIBRI / "manifest_filtered" / "train.tsv")[1:])


@pytest.mark.usefixtures("tree")
def test_the_recorded_labels(tmp_path: Path) -> None:
    out = tmp_path / "labels"
    assert main(["data", "labels", "manifest_all/train.tsv", "--output-dir", str(out), "--output-name", "train"]) == 0
    for name in ("train.ltr", "train.wrd"):
        assert (out / name).read_bytes() == (LIBRI / "labels" / name).read_bytes()
    assert lines(out / "dict.ltr.txt")[:2] == ["| 12", "O 7"]


def test_labels_from_two_columns_beside_the_manifest(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["data", "manifest", str(tree), "--dest", "mine", "--valid-percent", "0"])
    names = [line.partition("\t")[0] for line in lines(Path("mine/train.tsv"))[1:]]
    Path("texts.csv").write_text("".join(f'{Path(name).stem},"Text {i}"\n' for i, name in enumerate(names)))
    Path("mine/dict.ltr.txt").write_text("own 1\n")
    assert main(["data", "labels", "mine/train.tsv", "--transcripts", "texts.csv"]) == 0
    assert lines(Path("mine/train.wrd")) == [f"Text {i}" for i in range(5)]
    assert lines(Path("mine/train.ltr"))[0] == "T e x t | 0 |"
    assert Path("mine/dict.ltr.txt").read_text() == "own 1\n", "an existing dictionary is kept"
    Path("texts.csv").write_text(f"{names[0]},A\n")
    assert main(["data", "labels", "mine/train.tsv", "--transcripts", "texts.csv"]) != 0
    assert "4 of 5 recordings" in capsys.readouterr().err


def test_manifests_and_labels_are_data(tree: Path) -> None:
    """From a folder to letters, as the page tells."""
    from recordings import config

    from d2v.core.labels import Symbols

    main(["data", "manifest", str(tree), "--dest", "mine", "--valid-percent", "0.5"])
    for split in ("train", "valid"):
        main(["data", "labels", f"mine/{split}.tsv"])
    data = config("mine")
    symbols = data.labels(Symbols)
    batches = list(data.build("valid", batch_size=1, labels=symbols))
    assert len(batches) == len(lines(Path("mine/valid.tsv"))) - 1 > 0


def test_files_that_cannot_be_read_are_left_out_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "a.wav")
    (tmp_path / "broken.wav").write_text("text")
    save(tmp_path / "two\nlines.wav")
    command = ["data", "manifest", str(tmp_path), "--ext", ".WAV", "--dest", str(tmp_path), "--valid-percent", "0"]
    assert main(command) == 0
    assert lines(tmp_path / "train.tsv")[1:] == ["a.wav\t800"]
    out = capsys.readouterr().out
    assert "2 files left out" in out
    assert "two\\nlines.wav" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--ext", "mp3"], "no recordings"),
        (["--ext", "wav", "--path-must-contain", "/other/"], "'/other/'"),
        (["--ext", "wav", "--valid-percent", "1.5"], "valid_fraction"),
    ],
)
def test_wrong_options(tmp_path: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "a.wav")
    assert main(["data", "manifest", str(tmp_path), "--dest", str(tmp_path), *options]) != 0
    assert words in capsys.readouterr().err


def test_check_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "train/a.wav", 16000)
    save(tmp_path / "train/b.wav", 8000)
    save(tmp_path / "test/c.wav", 4000)
    command = ["data", "check-recordings", str(tmp_path), "--workers", "0"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "train: 2 recordings, 0.000417 h, 0.5 to 1 s" in out
    assert "test: 1 recordings" in out
    save(tmp_path / "test/d.wav", 16000, rate=8000, channels=2)
    assert main(command) != 0
    assert "d.wav: 2 channels; set data.mixdown" in capsys.readouterr().out
    assert main([*command, "--mixdown", "--resample"]) == 0
