"""Token files after an interruption are those of a run without one; documents are held out by their text."""

import gzip
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define

from d2v.core.cli import main
from d2v.core.data import DataError, HoldOut
from d2v.core.files.folder_lock import FolderLock
from d2v.text.corpus import encoding, text_files
from d2v.text.corpus.encoding import encode
from d2v.text.corpus.texts import Task, TextFiles
from d2v.text.corpus.token_file import TokenFile
from d2v.text.corpus.unfinished import JOURNAL, Encoded
from d2v.text.tokenizing import Tokenizer, train_tokenizer, write_tokenizer

HELD = HoldOut(fraction=0.3)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["the cat sat on the mat", "the other cat"], 268)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TextFiles:
    """Files of several pieces, with documents that end in none, one and several of them."""
    monkeypatch.setattr(text_files, "BLOCK", 1 << 8)
    monkeypatch.setattr(text_files, "LONGEST_LINE", 1 << 9)
    long = "".join(f"the mat {i}\n" for i in range(99))
    texts = {
        "a.txt": "\n".join(f"the cat {i}\n" for i in range(40)),
        "b.jsonl": "".join(json.dumps({"text": f"cat {i}\n\nsat"}) + "\n" for i in range(40)),
        "c.txt": long + "\n" + "x" * 2000 + "\n\nend",
        "empty.txt": "",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "d.txt.gz").write_bytes(gzip.compress(b"on the\n\xff\nmat\n" * 60))
    return TextFiles({"train": [str(tmp_path / name) for name in (*texts, "d.txt.gz")]})


@define
class Interrupted:
    """A source that stops after some tasks."""

    whole: TextFiles
    after: int
    asked: object = "nothing"

    def __getattr__(self, name: str) -> object:
        return getattr(self.whole, name)

    def tasks(self, position: object = None) -> Iterator[Task]:
        self.asked = position
        for count, task in enumerate(self.whole.tasks(position)):
            if count == self.after:
                raise KeyboardInterrupt
            yield task


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("hold_out", [None, HELD], ids=["whole", "held out"])
@pytest.mark.parametrize("every", [0.0, 1e9], ids=["saved often", "saved at the end"])
def test_an_interrupted_run_goes_on(
    hold_out: HoldOut | None,
    every: float,
    source: TextFiles,
    tmp_path: Path,
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encoding, "_SAVE_EVERY", every)
    whole = encode(source, tmp_path / "whole", tokenizer, skip_invalid=True, hold_out=hold_out)
    count = len(list(source.tasks()))
    assert count > 20
    for steps in (1, 7):
        dest, said = tmp_path / f"steps{steps}", []
        for _ in range(-(-count // steps) + 1):
            one = Interrupted(source, steps)
            try:
                found = encode(one, dest, tokenizer, skip_invalid=True, hold_out=hold_out, say=said.append)
                break
            except KeyboardInterrupt:
                assert not list(dest.glob("*.idx"))
        assert found == whole
        assert content(dest) == content(tmp_path / "whole")
        assert len(said) == (count - 1) // steps
        assert all("going on after" in text for text in said)


def test_a_killed_run_goes_on(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "BLOCK", 1 << 12)
    (tmp_path / "a.txt").write_text("\n".join(f"the cat sat on the mat {i}\n" for i in range(9_000)))
    write_tokenizer(tokenizer, tmp_path / "tokens")
    code = (
        "import sys; from d2v.core.cli import main; from d2v.text.corpus import encoding, text_files;"
        "encoding._SAVE_EVERY = 0; text_files.BLOCK = 1 << 12; main(sys.argv[1:])"
    )
    command = ["data", "tokens", str(tmp_path / "a.txt"), str(tmp_path / "tokens"), "--valid-percent", "0.1"]
    process = subprocess.Popen([sys.executable, "-c", code, *command])
    journal = tmp_path / "tokens" / JOURNAL
    try:
        while process.poll() is None and not journal.exists():
            time.sleep(0.005)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    assert main(command) == 0
    whole = encode(
        TextFiles({"train": [str(tmp_path / "a.txt")]}), tmp_path / "whole", tokenizer, hold_out=HoldOut(fraction=0.1)
    )
    assert whole["train"].documents + whole["val"].documents == 9_000
    for name, one in content(tmp_path / "whole").items():
        assert (tmp_path / "tokens" / name).read_bytes() == one


def stopped(source: TextFiles, dest: Path, tokenizer: Tokenizer, **options: object) -> None:
    with pytest.raises(KeyboardInterrupt):
        encode(Interrupted(source, 8), dest, tokenizer, **options)  # type: ignore[arg-type]
    assert (dest / JOURNAL).exists()


@pytest.mark.parametrize("change", ["text", "tokenizer", "hold-out", "invalid", "broken journal", "lost file"])
def test_what_has_changed_is_written_anew(change: str, source: TextFiles, tmp_path: Path, tokenizer: Tokenizer) -> None:
    dest = tmp_path / "dest"
    path = Path(source.files["train"][0])
    if change == "invalid":
        path.write_bytes(b"\xff\n" + path.read_bytes())
    stopped(source, dest, tokenizer, skip_invalid=True)
    if change == "text":
        path.write_text("other\n" + path.read_text())
    elif change == "broken journal":
        (dest / JOURNAL).write_text("{}")
    elif change == "lost file":
        (dest / ".train.bin.unfinished").unlink()
    other = train_tokenizer(["the mat"], 262) if change == "tokenizer" else tokenizer
    said: list[str] = []
    options = {"hold_out": HELD if change == "hold-out" else None, "skip_invalid": change != "invalid"}
    if change == "invalid":
        path.write_bytes(path.read_bytes())
        with pytest.raises(DataError, match="not UTF-8"):
            encode(source, dest, other, say=said.append, **options)  # type: ignore[arg-type]
    else:
        found = encode(source, dest, other, say=said.append, **options)  # type: ignore[arg-type]
        assert found == encode(source, tmp_path / "whole", other, **options)  # type: ignore[arg-type]
        assert content(dest) == content(tmp_path / "whole")
    assert ["anew" in text for text in said] == [True]


def test_a_wrong_line_does_not_cost_what_was_written(source: TextFiles, tmp_path: Path, tokenizer: Tokenizer) -> None:
    said: list[str] = []
    with pytest.raises(DataError, match=r"d\.txt\.gz: byte 7 is not UTF-8"):
        encode(source, tmp_path / "dest", tokenizer)
    encode(source, tmp_path / "dest", tokenizer, skip_invalid=True, say=said.append)
    assert ["going on" in text for text in said] == [True]
    encode(source, tmp_path / "whole", tokenizer, skip_invalid=True)
    assert content(tmp_path / "dest") == content(tmp_path / "whole")


def test_only_names_were_missing(source: TextFiles, tmp_path: Path, tokenizer: Tokenizer) -> None:
    whole = encode(source, tmp_path / "whole", tokenizer, skip_invalid=True, hold_out=HELD)
    dest = tmp_path / "dest"
    with pytest.MonkeyPatch.context() as patch:
        renamed: list[Path] = []

        def replace(self: Path, target: Path) -> Path:
            if target.suffix in (".bin", ".idx"):
                renamed.append(target)
                if len(renamed) == 4:
                    raise KeyboardInterrupt
            return rename(self, target)

        rename = Path.replace
        patch.setattr(Path, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            encode(source, dest, tokenizer, skip_invalid=True, hold_out=HELD)
    assert (dest / "train.idx").exists()
    assert encode(source, dest, tokenizer, skip_invalid=True, hold_out=HELD) == whole
    assert content(dest) == content(tmp_path / "whole")


def documents(folder: Path, split: str, tokenizer: Tokenizer) -> list[str]:
    tokens = TokenFile(folder / split)
    return tokenizer.decode([id if id != 2 else 3 for id in tokens.tokens(0, tokens.num_tokens).tolist()]).split(
        "<unk><unk>"
    )[:-1]


def test_documents_are_held_out_by_their_text(tmp_path: Path, tokenizer: Tokenizer) -> None:
    texts = [f"the cat {i}\nsat" for i in range(500)]

    def made(name: str, texts: list[str], **options: object) -> dict[str, Encoded]:
        (tmp_path / f"{name}.txt").write_text("\n\n".join(texts))
        held = HoldOut(fraction=0.2, **options)  # type: ignore[arg-type]
        return encode(TextFiles({"train": [str(tmp_path / f"{name}.txt")]}), tmp_path / name, tokenizer, hold_out=held)

    found = made("a", texts)
    assert 70 < found["val"].documents < 130
    assert found["train"].documents == 500 - found["val"].documents
    train, val = (documents(tmp_path / "a", split, tokenizer) for split in ("train", "val"))
    assert sorted(train + val) == sorted(text.replace("\n", "<unk>") for text in texts)
    made("b", ["another", *reversed(texts), texts[0]])
    moved = [set(documents(tmp_path / "b", split, tokenizer)) - {"another"} for split in ("train", "val")]
    assert moved == [set(train), set(val)], "the side of a document depends on its text only"
    made("c", texts, seed=1)
    assert documents(tmp_path / "c", "val", tokenizer) != val


def test_nothing_and_everything_held_out(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "a.txt").write_text("the cat\nsat")
    source = TextFiles({"train": [str(tmp_path / "a.txt")]})
    with pytest.raises(DataError, match="none of its 1 documents"):
        encode(source, tmp_path / "few", tokenizer, hold_out=HoldOut(fraction=1e-9))
    assert sorted(content(tmp_path / "few")) == ["train.bin", "train.idx"]
    with pytest.raises(DataError, match="all are held out"):
        encode(source, tmp_path / "all", tokenizer, hold_out=HoldOut(fraction=0.999999))
    assert not content(tmp_path / "all")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--valid-percent", "1"], "valid_percent"),
        (["--valid-percent", "0.1", "--split", "train"], "exclude"),
        (["--valid-percent", "0.1", "--seed", "-1"], "seed"),
    ],
)
def test_options_of_the_hold_out(
    options: list[str], word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "tokens", "wordnet", str(tmp_path / "tokens"), "--vocabulary", "300", *options]) != 0
    assert word in capsys.readouterr().err
    (tmp_path / "texts").mkdir()
    for split in ("train", "valid"):
        (tmp_path / f"texts/{split}.txt").write_text("the cat")
    source = TextFiles({split: [str(tmp_path / f"texts/{split}.txt")] for split in ("train", "val")})
    with pytest.raises(DataError, match="train, val already"):
        encode(source, tmp_path, train_tokenizer(["a"], 261), hold_out=HELD)


def test_one_command_writes_to_a_folder(source: TextFiles, tmp_path: Path, tokenizer: Tokenizer) -> None:
    lock = FolderLock(tmp_path)
    with pytest.raises(DataError, match="another command"):
        encode(source, tmp_path, tokenizer)
    lock.release()
