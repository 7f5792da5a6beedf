"""`d2v data openwebtext` with a small archive of the same layout, from a server on this machine."""

import hashlib
import io
import lzma
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Served, serving

from d2v.core.cli import main
from d2v.core.data import DataError
from d2v.text import TextDataConfig, download_commands
from d2v.text.corpus import encoding, openwebtext, text_files
from d2v.text.corpus.encoding import encode
from d2v.text.corpus.openwebtext import OpenWebText
from d2v.text.corpus.texts import TextFiles
from d2v.text.corpus.token_file import TokenFile
from d2v.text.corpus.unfinished import JOURNAL
from d2v.text.tokenizing import Tokenizer, train_tokenizer, write_tokenizer

NAME = "/openwebtext.tar.xz"
TRAIN = {f"openwebtext/urlsf_subset00-{number}_data.xz": number for number in range(4)}
VAL = {"openwebtext/urlsf_subset20-1_data.xz": 7, "openwebtext/urlsf_subset201_data.xz": 8}


def packed(files: dict[str, bytes], *links: str, compressed: bool = True) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in links:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return lzma.compress(stream.getvalue()) if compressed else stream.getvalue()


def texts(number: int) -> dict[str, bytes]:
    return {f"{number}-{i}.txt": f"the cat {number}\n\nsat on {i}\n".encode() for i in range(9)}


def archive() -> bytes:
    files = {name: packed(texts(number)) for name, number in TRAIN.items() | VAL.items()}
    bad = {"../../out.txt": b"outside", "a.txt": b"\xff\xfea\0", "b.txt": b"one\xff", "c.bin": b"no text", "d.txt": b""}
    bad["e.txt"] = b"\xef\xbb\xbfthe mat\r\n"
    files["openwebtext/urlsf_subset01-1_data.xz"] = packed(bad, "link.txt")
    return packed(dict(sorted(files.items())) | {"openwebtext/README": b"x"}, "link.xz")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["the cat sat on the mat", "outside"], 268)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    content = archive()
    monkeypatch.setattr(download_commands, "DIGEST", f"sha256:{hashlib.sha256(content).hexdigest()}")
    with serving(Served({NAME: content})) as one:
        yield one


def documents(folder: Path, split: str, tokenizer: Tokenizer) -> list[str]:
    """Documents of a split, their lines joined by |."""
    tokens = TokenFile(folder / split).tokens(0, 10**6).tolist()
    lines = " ".join("\n" if id == 2 else tokenizer.decode([id]).replace(" ", "_") for id in tokens)
    found = lines.replace(" ", "").replace("_", " ").split("\n\n")
    return [document.replace("\n", "|") for document in found if document]


def run(dest: Path, served: Served, *options: str) -> int:
    return main(["data", "openwebtext", str(dest), "--mirror", f"{served.address}/", "--workers", "1", *options])


def test_token_files_to_train_on(
    served: Served, tmp_path: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tokenizer(tokenizer, tmp_path / "gpt2")
    dest = tmp_path / "owt"
    assert run(dest, served, "--tokenizer", str(tmp_path / "gpt2")) == 0
    shown = capsys.readouterr().out
    assert "2 lines or files that are not text left out" in shown
    assert "b.txt: byte 3 is not UTF-8" in shown
    assert sorted(path.name for path in dest.iterdir()) == [
        *("merges.txt", "train.bin", "train.idx", "val.bin", "val.idx", "vocab.json")
    ]
    assert not list(tmp_path.parent.glob("**/out.txt"))
    expected = [f"the cat {number}|sat on {i}" for number in TRAIN.values() for i in range(9)]
    assert documents(dest, "train", tokenizer) == [*expected, "outside", "the mat"]
    assert documents(dest, "val", tokenizer) == [f"the cat {n}|sat on {i}" for n in VAL.values() for i in range(9)]
    data = TextDataConfig(path=str(dest), block_size=16, num_workers=0)
    assert (data.splits().train, data.splits().test) == ("train", "val")
    assert next(iter(data.build("train", batch_size=2, training=True))).source.shape == (2, 16)
    asked = len(served.asked)
    assert run(dest, served) == 0
    assert "complete" in capsys.readouterr().out
    assert len(served.asked) == asked


def test_interruptions(
    served: Served,
    tmp_path: Path,
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(tmp_path / "whole", served, "--vocabulary", "270", "--keep") == 0
    assert (tmp_path / "whole/openwebtext.tar.xz").read_bytes() == served.files[NAME]
    capsys.readouterr()
    dest = tmp_path / "dest"
    served.lost_after = 700
    assert run(dest, served, "--vocabulary", "270") != 0
    assert "700 of" in capsys.readouterr().err
    served.lost_after = None
    monkeypatch.setattr(encoding, "_SAVE_EVERY", 0.0)
    read = openwebtext._documents
    seen: list[str] = []

    def documents(name: str, member: io.BufferedReader) -> Iterator[object]:
        seen.append(name)
        if len(seen) == 10:  # the tokenizer is trained on the seven archives before
            raise KeyboardInterrupt
        return read(name, member)  # type: ignore[return-value]

    monkeypatch.setattr(openwebtext, "_documents", documents)
    assert run(dest, served, "--vocabulary", "270") != 0
    assert served.asked[-1] == (NAME, "bytes=700-")
    assert (dest / JOURNAL).exists()
    assert run(dest, served) == 0
    assert "going on after" in capsys.readouterr().out
    assert seen[10:] == seen[9:10] + sorted(seen[:7])[3:], "archives that are done are not read again"
    for name in ("train.bin", "train.idx", "val.bin", "val.idx", "vocab.json"):
        assert (dest / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (dest / NAME[1:]).exists()


def test_long_documents_and_many_of_them(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "BLOCK", 1 << 8)
    monkeypatch.setattr("d2v.text.corpus.texts._BATCH", 1 << 9)
    long = "".join(f"the mat {i}\n\n" for i in range(99)).encode()
    files = {
        "a.xz": packed({"a.txt": b"one", "b.txt": long, "c.txt": long + b"\xff"}),
        "urlsf_subset20.xz": packed(texts(1)),
    }
    (tmp_path / "a.tar.xz").write_bytes(packed(files))
    found = encode(OpenWebText(tmp_path / "a.tar.xz"), tmp_path, tokenizer, skip_invalid=True)
    assert found["train"].documents == 3
    whole = "|".join(f"the mat {i}" for i in range(99))
    first, second, third = documents(tmp_path, "train", tokenizer)
    assert (first, second) == ("one", whole)
    assert whole.startswith(third), "what comes before a wrong byte is kept, up to a piece"


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"no archive", "cannot be read"),
        (packed({"a.txt": b"text"}), "no archives"),
        (packed({"a.xz": b"text"}), "cannot be read"),
        (packed({"a.xz": packed(texts(1))})[:-50], "cannot be read"),
    ],
)
def test_other_archives(content: bytes, word: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "a.tar.xz").write_bytes(content)
    with pytest.raises(DataError, match=word):
        encode(OpenWebText(tmp_path / "a.tar.xz"), tmp_path / "tokens", tokenizer)


def test_unfinished_files_of_another_source(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "a.tar.xz").write_bytes(archive())
    with pytest.raises(DataError, match="UTF-16"):
        encode(OpenWebText(tmp_path / "a.tar.xz"), tmp_path, tokenizer)
    assert (tmp_path / JOURNAL).exists()
    (tmp_path / "a.txt").write_text("the cat")
    said: list[str] = []
    source = TextFiles({split: [str(tmp_path / "a.txt")] for split in ("train", "val")})
    assert encode(source, tmp_path, tokenizer, say=said.append)["train"].lines == 2
    assert ["anew" in text for text in said] == [True]


def test_a_tokenizer_is_needed_before_the_download(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "dest", served) != 0
    assert "--tokenizer" in capsys.readouterr().err
    assert not served.asked


def test_the_official_archive() -> None:
    assert openwebtext.ADDRESS.startswith("https://zenodo.org/record/3834942/")
    assert len(openwebtext.DIGEST) == len("sha256:") + 64
