"""`d2v data tokens --dataset` with data sets from folders; the hub is not asked."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from d2v.core.cli import main
from d2v.core.data import DataError
from d2v.core.registry import MissingExtraError
from d2v.text.corpus import public_sets
from d2v.text.corpus.encoding import encode
from d2v.text.corpus.public_sets import PublicSet, PublicSets
from d2v.text.corpus.texts import Task
from d2v.text.tokenizing import Tokenizer, train_tokenizer, write_tokenizer


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["the cat sat on the mat", "the other cat"], 268)


def rows(folder: Path, *files: list[object], column: str = "text") -> PublicSets:
    folder.mkdir(parents=True, exist_ok=True)
    for number, texts in enumerate(files):
        lines = [json.dumps({column: text, "title": "t"}) + "\n" for text in texts]
        (folder / f"train-{number}.jsonl").write_text("".join(lines))
    return PublicSets((PublicSet(str(folder)),), column)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


TEXTS = [f"the cat {i}\n\nsat\r\n" for i in range(60)]


def test_rows_are_documents(tmp_path: Path, tokenizer: Tokenizer) -> None:
    pytest.importorskip("datasets")
    write_tokenizer(tokenizer, tmp_path / "gpt2")
    rows(tmp_path / "books", TEXTS[:20], TEXTS[20:], column="body")
    options = ["--field", "body", "--tokenizer", str(tmp_path / "gpt2"), "--workers", "1"]
    one = str(tmp_path / "books")
    assert main(["data", "tokens", str(tmp_path / "a"), "--dataset", one, "--dataset", one, *options]) == 0
    both = [str(path) for path in sorted((tmp_path / "books").iterdir())] * 2
    assert main(["data", "tokens", *both, str(tmp_path / "b"), *options]) == 0
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert main(["data", "tokens", str(tmp_path / "c"), "--dataset", one, "--split", "extra", *options]) == 0
    assert (tmp_path / "c/extra.bin").exists()


def test_an_interrupted_stream_goes_on(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr("d2v.text.corpus.texts._BATCH", 100)
    source = rows(tmp_path / "books", TEXTS[:20], [None, *TEXTS[20:]])
    whole = encode(source, tmp_path / "whole", tokenizer, skip_invalid=True)
    assert whole["train"].documents == 60
    assert whole["train"].reasons == [f"{source.name}, row 20: it has no text"]
    tasks = PublicSets.tasks

    def some(self: PublicSets, position: object = None) -> Iterator[Task]:
        for count, task in enumerate(tasks(self, position)):
            if count == 2:
                raise KeyboardInterrupt
            yield task

    monkeypatch.setattr(PublicSets, "tasks", some)
    said: list[str] = []
    while not (tmp_path / "dest/train.idx").exists():
        try:
            found = encode(source, tmp_path / "dest", tokenizer, skip_invalid=True, say=said.append)
        except KeyboardInterrupt:
            assert len(said) < 20
    assert len(said) > 1
    assert found == whole
    assert content(tmp_path / "dest") == content(tmp_path / "whole")


def test_what_cannot_be_read(tmp_path: Path, tokenizer: Tokenizer) -> None:
    pytest.importorskip("datasets")
    named = str(tmp_path / "books")
    source = rows(tmp_path / "books", [1, 2], column="page")
    for sets, column, word in (
        ((PublicSet(named),), "pages", r"no column 'pages'; it has 'page', 'title'.*mean 'page'"),
        ((PublicSet(named),), "page", "values of type int"),
        ((PublicSet(named, split="valid"),), "page", "cannot be opened.*valid"),
        ((PublicSet(named, "other"),), "page", "cannot be opened.*other"),
        ((PublicSet(str(tmp_path / "nowhere")),), "page", "nowhere.* cannot be opened"),
    ):
        with pytest.raises(DataError, match=word):
            encode(PublicSets(sets, column), tmp_path / "dest", tokenizer)
    (tmp_path / "books/train-0.jsonl").write_text('{"page": "a"}\nnonsense\n')
    with pytest.raises(DataError, match="cannot be"):
        encode(source, tmp_path / "dest", tokenizer)


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public_sets, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'd2v\[datasets\]'"):
        rows(tmp_path / "books", TEXTS)


@pytest.mark.parametrize("name", ["", ":config", "a:b:c:d"])
def test_names(name: str) -> None:
    with pytest.raises(DataError, match="NAME:CONFIG:SPLIT"):
        PublicSet.named(name)


@pytest.mark.parametrize("arguments", [["tokens"], ["wordnet", "tokens", "--dataset", "books"]])
def test_files_or_data_sets(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "tokens", *arguments]) != 0
    assert "--dataset NAME" in capsys.readouterr().err
