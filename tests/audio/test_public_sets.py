"""`d2v data librispeech` and `librilight` with small archives of the same layout, from a server on this machine."""

import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve
from recordings import config, save
from serving import Served, serving

from d2v.audio.download_commands import LIBRILIGHT, LIBRISPEECH
from d2v.audio.recordings.dictionary import librispeech_dictionary
from d2v.audio.recordings.public_sets import Subset, prepare
from d2v.core.cli import main
from d2v.core.data import DataError
from d2v.core.files.downloads import DownloadError
from d2v.core.labels import Symbols


def chapter(folder: Path, speaker: int, *texts: str) -> None:
    """Recordings of a speaker with their transcripts, as LibriSpeech has them."""
    below = folder / str(speaker) / "7"
    lines = [f"{speaker}-7-{number:04}" for number in range(len(texts))]
    for number, name in enumerate(lines):
        save(below / f"{name}.flac", 8000 + 800 * number, seed=speaker + number)
    (below / f"{speaker}-7.trans.txt").write_text(
        "".join(f"{name} {text}\n" for name, text in zip(lines, texts, strict=True))
    )


def packed(tree: Path, *members: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for member in members:
            tar.add(tree / member, member)
    return stream.getvalue()


def name_of(subset: Subset) -> str:
    return "/" + subset.address.rpartition("/")[2]


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """Small archives at the names of the real ones; the tables of the commands have their digests."""
    tree = tmp_path / "tree"
    chapter(tree / "LibriSpeech/train-clean-100", 19, "A CAT", "THE DOG", "IT'S SO")
    chapter(tree / "LibriSpeech/dev-clean", 20, "ONE")
    (tree / "LibriSpeech/LICENSE.TXT").write_text("free")
    for place, speaker in (("1h/0/clean", 1), ("1h/1/other", 2), ("9h/clean", 3)):
        chapter(tree / "librispeech_finetuning" / place, speaker, "WELL", "NO")
    save(tree / "small/5/book/part.flac", 9000)
    contents = {
        "train-clean-100": packed(tree, "LibriSpeech/LICENSE.TXT", "LibriSpeech/train-clean-100"),
        "dev-clean": packed(tree, "LibriSpeech/LICENSE.TXT", "LibriSpeech/dev-clean"),
        "small": packed(tree, "small"),
        **dict.fromkeys(["10min", "1h", "10h"], packed(tree, "librispeech_finetuning")),
    }
    files = {}
    for table in (LIBRISPEECH, LIBRILIGHT):
        for name in contents.keys() & table.keys():
            files[name_of(table[name])] = contents[name]
            digest = f"sha256:{hashlib.sha256(contents[name]).hexdigest()}"
            monkeypatch.setitem(table, name, evolve(table[name], digest=digest))
    with serving(Served(files)) as one:
        yield one


def run(verb: str, dest: Path, served: Served, *subsets: str) -> int:
    options = [word for name in subsets for word in ("--subset", name)]
    return main(["data", verb, str(dest), *options, "--mirror", f"{served.address}/"])


def test_librispeech_is_data_to_train_on(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a relative folder, as in the docs
    assert run("librispeech", Path("speech"), served, "train-clean-100", "dev-clean") == 0
    assert "speech/train-clean-100.tsv: 3 recordings" in capsys.readouterr().out
    dest = tmp_path / "speech"
    assert sorted(path.name for path in dest.iterdir()) == sorted(
        ["LibriSpeech", "dict.ltr.txt"]
        + [f"{name}.{end}" for name in ("dev-clean", "train-clean-100") for end in ("ltr", "tsv", "wrd")]
    )
    assert (dest / "LibriSpeech/LICENSE.TXT").read_text() == "free"
    assert (dest / "train-clean-100.wrd").read_text() == "A CAT\nTHE DOG\nIT'S SO\n"
    assert (dest / "dict.ltr.txt").read_text() == librispeech_dictionary()

    data = config(dest)
    assert not data.contents().unused
    splits = data.splits()
    assert (splits.train, splits.test) == ("train-clean-100", "dev-clean")
    symbols = data.labels(Symbols)
    assert next(iter(data.build(splits.train, batch_size=2, training=True))).source.shape[1] in (8000, 8800, 9600)
    assert sum(len(one.source) for one in data.build(splits.train, batch_size=2, labels=symbols)) == 3

    before = {path: path.stat().st_mtime_ns for path in dest.rglob("*")}
    asked = len(served.asked)
    assert run("librispeech", Path("speech"), served, "train-clean-100") == 0
    assert "train-clean-100: complete" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in dest.rglob("*")} == before
    assert len(served.asked) == asked
    (dest / "train-clean-100.wrd").unlink()
    assert run("librispeech", Path("speech"), served, "train-clean-100") == 0
    assert (dest / "train-clean-100.wrd").exists(), "only the missing step is done again"
    assert len(served.asked) == asked


def test_libri_light(served: Served, tmp_path: Path) -> None:
    counts = {"10min": 2, "1h": 4, "10h": 6}
    assert run("librilight", tmp_path / "labelled", served, *counts) == 0
    assert len(served.asked) == 1, "the three sets are in one archive"
    for name, count in counts.items():
        data = config(tmp_path / "labelled", train_split=f"train-{name}")
        assert len(list(data.build(f"train-{name}", batch_size=1, labels=data.labels(Symbols)))) == count
    assert run("librilight", tmp_path / "plain", served, "small") == 0
    assert sorted(path.name for path in (tmp_path / "plain").iterdir()) == ["small", "train-small.tsv"]
    assert config(tmp_path / "plain").splits().train == "train-small"


def test_an_interrupted_download_is_resumed(served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    served.lost_after = 1000
    assert run("librispeech", tmp_path / "speech", served, "dev-clean") != 0
    assert "1000 of" in capsys.readouterr().err
    served.lost_after = None
    assert run("librispeech", tmp_path / "speech", served, "dev-clean") == 0
    assert served.asked[-1] == ("/dev-clean.tar.gz", "bytes=1000-")


def test_an_archive_with_another_digest(served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    served.files["/dev-clean.tar.gz"] += b"more"
    assert run("librispeech", tmp_path, served, "dev-clean") != 0
    error = capsys.readouterr().err
    assert f"{served.address}/dev-clean.tar.gz has the sha256 digest" in error
    assert LIBRISPEECH["dev-clean"].digest.removeprefix("sha256:") in error
    assert not (tmp_path / "LibriSpeech").exists()


def archive_of(name: str, *, link: str = "") -> bytes:
    """An archive with one file or link of any name."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = (tarfile.SYMTYPE, link) if link else (tarfile.REGTYPE, "")
        tar.addfile(member, io.BytesIO())
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (archive_of("../outside.flac"), "outside"),
        (archive_of("LibriSpeech/dev-clean/link", link="/"), "link"),
        (archive_of("other/dev-clean/a.flac"), "no folder LibriSpeech/dev-clean"),
        (b"no archive", "cannot be unpacked"),
    ],
    ids=["escape", "link", "other folder", "no archive"],
)
def test_archives_that_are_not_unpacked(tmp_path: Path, content: bytes, words: str) -> None:
    subset = evolve(LIBRISPEECH["dev-clean"], digest=f"sha256:{hashlib.sha256(content).hexdigest()}")
    dest = tmp_path / "speech"
    with serving(Served({"/dev-clean.tar.gz": content})) as served, pytest.raises(DataError, match=words):
        prepare(subset, dest, mirror=served.address)
    assert [path.name for path in dest.iterdir()] == ["dev-clean.tar.gz"]
    assert [path.name for path in tmp_path.iterdir()] == ["speech"]


def test_what_an_interrupted_unpacking_left_is_replaced(served: Served, tmp_path: Path) -> None:
    left = tmp_path / ".dev-clean.tar.gz.unpacking/LibriSpeech/dev-clean/99/1"
    left.mkdir(parents=True)
    save(left / "99-1-0000.flac")
    assert run("librispeech", tmp_path, served, "dev-clean") == 0
    assert (tmp_path / "dev-clean.wrd").read_text() == "ONE\n"


def test_an_address_that_cannot_be_reached(served: Served, tmp_path: Path) -> None:
    nowhere = served.address.rpartition(":")[0] + ":9"
    with pytest.raises(DownloadError, match=f"{nowhere}/dev-clean.tar.gz cannot be reached"):
        prepare(LIBRISPEECH["dev-clean"], tmp_path, mirror=nowhere)


def test_an_unknown_subset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "librispeech", str(tmp_path), "--subset", "dev-cleen"]) == 2
    assert "dev-clean" in capsys.readouterr().err
