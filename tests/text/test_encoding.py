"""Text files to token files: lines and documents, bad input, bounded memory, any number of processes."""

import gzip
import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from d2v.core.data import DataError
from d2v.text.corpus import lines as lines_module
from d2v.text.corpus import processes, text_files
from d2v.text.corpus.encoding import encode
from d2v.text.corpus.text_files import LONGEST_LINE, find_texts
from d2v.text.corpus.texts import TextFiles
from d2v.text.corpus.token_file import TokenFile
from d2v.text.corpus.unfinished import Encoded
from d2v.text.tokenizing import EOS, Tokenizer, read_tokenizer, train_tokenizer

RULES = Path(__file__).parent.parent / "parity/data/rules"
EXPECTED = json.loads((RULES / "corpus/expected.json").read_text())


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["the cat sat on the mat", "the other cat"], 268)


def encoded(content: bytes | dict[str, bytes], folder: Path, tokenizer: Tokenizer, **options: object) -> list[str]:
    """The lines of token files, as text; | is an empty line."""
    named = content if isinstance(content, dict) else {"a.txt": content}
    for name, one in named.items():
        (folder / name).write_bytes(one)
    tokens(folder, list(named), folder, tokenizer, **options)
    return shown(TokenFile(folder / "train"), tokenizer)


def tokens(folder: Path, names: Sequence[str], dest: Path, tokenizer: Tokenizer, **options: object) -> Encoded:
    """Write the token files of text files anew."""
    for path in dest.glob("train.*"):
        path.unlink()
    source = TextFiles({"train": [str(folder / name) for name in names]})
    return encode(source, dest, tokenizer, **options)["train"]  # type: ignore[arg-type]


def shown(tokens: TokenFile, tokenizer: Tokenizer) -> list[str]:
    lines = np.split(tokens.tokens(0, tokens.num_tokens), tokens.starts(1, tokens.num_lines))
    assert all(line[-1] == EOS for line in lines)
    return [tokenizer.decode(line.tolist()) or "|" for line in lines]


def test_the_recorded_corpus_matches_token_for_token(tmp_path: Path) -> None:
    # Its lines are numbers of pieces, as the original writes them between encoding and binarisation.
    for name in ("encoder.json", "vocab.bpe"):
        (tmp_path / name).write_bytes((RULES / "bpe" / name).read_bytes())
    (tmp_path / "dict.txt").write_bytes((RULES / "corpus/dict.txt").read_bytes())
    tokenizer = read_tokenizer(tmp_path)
    pieces = {id: piece for piece, id in json.loads((tmp_path / "encoder.json").read_text()).items()}
    text = ["".join(pieces[int(number)] for number in line.split()) for line in EXPECTED["lines"]]
    (tmp_path / "a.txt").write_text("".join(f"{line}\n" for line in text))
    tokens(tmp_path, ["a.txt"], tmp_path, tokenizer)
    for name in ("train.bin", "train.idx"):
        assert (tmp_path / name).read_bytes() == (RULES / "corpus" / name).read_bytes()


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"one\ntwo", ["one", "two", "|"]),
        (b"one\n\ntwo\n", ["one", "|", "two", "|"]),
        (b"one\n\n\ntwo\n\n", ["one", "|", "|", "two", "|"]),
        (b"one\r\n\r\ntwo\r\n", ["one", "|", "two", "|"]),
        (b"\xef\xbb\xbfone\n \xc2\xa0\ntwo \n", ["one", "|", "two", "|"]),
        ("naïve 日本\n".encode(), ["naïve 日本", "|"]),
    ],
)
def test_lines_and_documents(content: bytes, lines: list[str], tmp_path: Path, tokenizer: Tokenizer) -> None:
    assert encoded(content, tmp_path, tokenizer) == lines


def test_files_and_records_are_documents(tmp_path: Path, tokenizer: Tokenizer) -> None:
    records = [{"text": "a\n\nb"}, {"text": ""}, {"text": "c\r\n"}]
    files = {
        "a.txt": b"one",
        "b.txt.gz": gzip.compress(b"two\n\n"),
        "c.jsonl": "\n".join(map(json.dumps, records)).encode(),
        "empty.txt": b"",
    }
    found = encoded(files, tmp_path, tokenizer)
    assert found == ["one", "|", "two", "|", "a", "b", "|", "|", "c", "|"]
    done = tokens(tmp_path, list(files), tmp_path, tokenizer)
    assert (done.documents, done.lines, done.empty) == (4, 10, [str(tmp_path / "empty.txt")])


@pytest.mark.parametrize(
    ("name", "content", "word", "left"),
    [
        ("a.txt", b"one\ntw\xffo\nthree\n", "byte 6 is not UTF-8", ["one", "three", "|"]),
        ("a.txt", b"one\n" + "\ud800".encode(errors="surrogatepass") + b"\n", "byte 4 is not UTF-8", ["one", "|"]),
        ("a.txt", b"o" * 9000 + b"\n\0two\n", "byte 9001 is NUL", ["o" * 9000, "|"]),
        ("a.jsonl", b'{"text": "one"}\n{"text": "\\ud800"}\n', "byte 16 contains a lone surrogate", ["one", "|"]),
        ("a.jsonl", b'{"text": "one"}\n{"txt": "a"}\n', "field 'text'; it has 'txt'", ["one", "|"]),
        ("a.jsonl", b'{"text": "one"}\n{"text": 3}\n[]\n', "byte 16 has no text", ["one", "|"]),
        ("a.jsonl", b'{"text": "one"}\n{"text": \n', "byte 16 is not JSON", ["one", "|"]),
        ("a.jsonl", b'{"text": "one"}\n' + b"[" * 100_000 + b"\n", "byte 16 is not JSON", ["one", "|"]),
    ],
)  # fmt: skip
def test_bad_lines_are_named_and_skipped_on_request(
    name: str, content: bytes, word: str, left: list[str], tmp_path: Path, tokenizer: Tokenizer
) -> None:
    with pytest.raises(DataError, match=word) as caught:
        encoded({name: content}, tmp_path, tokenizer)
    assert name in str(caught.value)
    assert not list(tmp_path.glob("*train*"))
    assert encoded({name: content}, tmp_path, tokenizer, skip_invalid=True) == left


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"\x89PNG\r\n\x1a\n\0\0", "not a text file"), ("text\n".encode("utf-16"), "UTF-16")],
)
def test_files_of_other_kinds_are_skipped_whole(
    content: bytes, word: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    with pytest.raises(DataError, match=word):
        encoded(content, tmp_path, tokenizer)
    assert encoded({"a.txt": content, "b.txt": b"two"}, tmp_path, tokenizer, skip_invalid=True) == ["two", "|"]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_no_text_at_all(content: bytes, tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="no text"):
        encoded(content, tmp_path, tokenizer)


def test_compressed_files_that_are_cut_off(tmp_path: Path, tokenizer: Tokenizer) -> None:
    whole = gzip.compress(b"one two three\n" * 99)
    for content in (whole[:-9], b"plain text"):
        with pytest.raises(DataError, match=r"a\.txt\.gz cannot be read"):
            encoded({"a.txt.gz": content}, tmp_path, tokenizer, skip_invalid=True)


@pytest.mark.parametrize("word", ["x", "日", "word "])
def test_lines_without_an_end_are_cut(word: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    text = (word * (LONGEST_LINE * 5 // 2 // len(word.encode()))).strip()
    for number, data in enumerate((text.encode(), f"{text}\nend\n".encode())):
        lines = encoded({f"{number}.txt": data}, tmp_path, tokenizer)
        cut = [line for line in lines if line not in ("|", "end")]
        assert [len(line.encode()) <= LONGEST_LINE for line in cut] == [True] * 3
        assert (" " if word == "word " else "").join(cut) == text


def test_memory_does_not_grow_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer
) -> None:
    # Sixty-four times smaller than by default, and so is the line: 8 MB stand for half a gigabyte without a space.
    monkeypatch.setattr(text_files, "LONGEST_LINE", LONGEST_LINE >> 6)
    monkeypatch.setattr(lines_module, "LONGEST_LINE", LONGEST_LINE >> 6)
    monkeypatch.setattr(text_files, "BLOCK", text_files.BLOCK >> 6)
    path = tmp_path / "a.txt"

    def peak(megabytes: int) -> int:
        path.write_bytes(b"x" * (megabytes << 20))
        tracemalloc.start()
        count = size = 0
        for piece in text_files.pieces(str(path)):
            parts = [line for line in lines_module.lines_of(piece) if line and isinstance(line, str)]
            assert all(len(line) <= LONGEST_LINE >> 6 for line in parts)
            count, size = count + len(parts), size + sum(map(len, parts))
        assert (count, size) == (megabytes << 8, megabytes << 20)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(8) < peak(1) + (1 << 12) < 1 << 17
    assert len(encoded(path.read_bytes(), tmp_path, tokenizer)) == 257


def test_processes_give_the_same_files(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_ALONE", 0)
    monkeypatch.setattr(text_files, "BLOCK", 1 << 10)
    paths = []
    for number in range(3):
        paths.append(tmp_path / f"{number}.txt")
        paths[-1].write_bytes(b"".join(b"the cat %d\n%s" % (i, b"\xff\n" * (i % 97 == 0)) for i in range(999)))
    found: list[Encoded] = []
    for workers in (1, 2):
        names = [path.name for path in paths]
        found.append(tokens(tmp_path, names, tmp_path / str(workers), tokenizer, skip_invalid=True, workers=workers))
    assert found[0] == found[1]
    assert found[0].skipped.total() == 33
    assert len(found[0].reasons) == 20
    for end in (".bin", ".idx"):
        assert (tmp_path / f"1/train{end}").read_bytes() == (tmp_path / f"2/train{end}").read_bytes()


def test_splits_by_folders_and_by_names(tmp_path: Path) -> None:
    for name in (
        "x/train/a.txt",
        "x/valid/b.txt.gz",
        "y/train.txt",
        "y/valid.txt",
        "z/a.txt",
        "z/sub/b.jsonl",
        "z/c.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")

    def names(*paths: str) -> dict[str, list[str]]:
        found = find_texts([str(tmp_path / path) for path in paths])
        return {split: [str(Path(file).relative_to(tmp_path)) for file in files] for split, files in found.items()}

    assert names("x") == {"train": ["x/train/a.txt"], "val": ["x/valid/b.txt.gz"]}
    assert names("y") == {"train": ["y/train.txt"], "val": ["y/valid.txt"]}
    assert names("z", "z/c.png") == {"train": ["z/a.txt", "z/sub/b.jsonl", "z/c.png"]}
    with pytest.raises(DataError, match="neither a folder nor"):
        names("nowhere")
