"""Tokenizers: the published byte-pair encoding, one that is trained here, and files that do not fit."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2v.core.data import DataError
from d2v.text import TextAdapter
from d2v.text.tokenizing import (
    EOS,
    FIRST,
    UNKNOWN,
    Tokenizer,
    check_adapter,
    has_tokenizer,
    read_tokenizer,
    tokenizer_of,
    train_tokenizer,
    write_tokenizer,
)

RULES = Path(__file__).parent.parent / "parity/data/rules"
LINES = ["the cat sat on the mat", "the other cat sat on the other mat", "", "100 cats, and 99 mats"]


def published(*, symbols: list[str] | None = None) -> dict[str, bytes]:
    """The recorded files, with a dictionary of all pieces in reverse order."""
    files = {name: (RULES / "bpe" / name).read_bytes() for name in ("encoder.json", "vocab.bpe")}
    symbols = [str(i) for i in reversed(range(316))] if symbols is None else symbols
    return files | {"dict.txt": "".join(f"{symbol} 1\n" for symbol in symbols).encode()}


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return train_tokenizer(LINES, 280)


def test_published_cases_match_token_for_token() -> None:
    tokenizer = tokenizer_of(published())
    cases = json.loads((RULES / "bpe/cases.json").read_text())
    for case in cases:
        ids = tokenizer.encode(case["text"])
        assert [FIRST + 315 - id for id in case["ids"]] == ids
        assert tokenizer.decode(ids) == case["decoded"]
    assert len(cases) == 9
    assert (tokenizer.vocabulary_size, tokenizer.mask_id) == (4 + 316 + 1, 320)


def test_the_dictionary_of_roberta_gives_its_ids() -> None:
    # As published: symbols by frequency, and made-up words that only fill the table.
    tokenizer = tokenizer_of(published(symbols=["256", "68", "madeupword0000", "madeupword0001"]))
    assert tokenizer.vocabulary_size == 9
    the_quick = tokenizer.encode("the quick")
    assert the_quick == [4, 5, UNKNOWN]
    assert tokenizer.decode(the_quick) == "the<unk>"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(text: str) -> None:
    tokenizer = tokenizer_of(published())
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(FIRST <= id < tokenizer.mask_id for id in ids)


def test_special_tokens_are_never_read_from_text(trained: Tokenizer) -> None:
    ids = trained.encode("<s></s><mask>\0")
    assert min(ids) >= FIRST
    assert max(ids) < trained.mask_id
    assert trained.decode([0, *ids, EOS, 1, trained.mask_id]) == "<s></s><mask>\0<mask>"


def test_lines_are_encoded_alone(trained: Tokenizer) -> None:
    assert [ids.tolist() for ids in trained.encode_lines(LINES)] == [trained.encode(line) for line in LINES]


def test_training_is_the_same_in_every_process(trained: Tokenizer) -> None:
    code = (
        "import sys, json; from d2v.text.tokenizing import train_tokenizer\n"
        f"sys.stdout.buffer.write(train_tokenizer({LINES!r}, 280).files()['merges.txt'])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert found == trained.files()["merges.txt"]


def test_files_give_the_same_tokenizer(trained: Tokenizer, tmp_path: Path) -> None:
    assert not has_tokenizer(tmp_path)
    write_tokenizer(trained, tmp_path)
    again = read_tokenizer(tmp_path)
    assert has_tokenizer(tmp_path)
    assert again.files() == trained.files()
    assert again.encode(LINES[1]) == trained.encode(LINES[1]) == pickle.loads(pickle.dumps(trained)).encode(LINES[1])


def test_transformers_reads_a_trained_tokenizer(trained: Tokenizer, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from transformers import RobertaTokenizer

    write_tokenizer(trained, tmp_path)
    theirs = RobertaTokenizer.from_pretrained(tmp_path)
    assert theirs(LINES[1])["input_ids"] == [0, *trained.encode(LINES[1]), 2]
    assert theirs.mask_token_id == trained.mask_id


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("vocab.bpe", b"#version: 0.2\nt h\n", "no merge"),
        ("vocab.bpe", b"#version: 0.2\nq z\n", "lacks"),
        ("vocab.bpe", b"#version: 0.2\nt h e\n", "line 2"),
        ("vocab.bpe", b"\xff", "UTF-8"),
        ("encoder.json", b'{"a": 0}', "315"),
        ("encoder.json", published()["encoder.json"].replace(b'"a"', b'"aaa"'), "bytes"),
        ("encoder.json", b'{"a": 1}', "numbers"),
        ("encoder.json", b"[", "JSON"),
        ("dict.txt", b"400 1\n", "400"),
        ("dict.txt", b"word 1\n", "no symbol"),
        ("dict.txt", b"1 1\n1 1\n", "twice"),
        ("dict.txt", b"1\n", "line 1"),
    ],
)
def test_published_files_that_do_not_fit(name: str, content: bytes, word: str, tmp_path: Path) -> None:
    for key, value in {**published(), name: content}.items():
        (tmp_path / key).write_bytes(value)
    with pytest.raises(DataError, match=word):
        read_tokenizer(tmp_path)


def test_incomplete_files_name_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "encoder.json").write_bytes(b"{}")
    with pytest.raises(DataError, match=r"dict\.txt; found encoder\.json"):
        read_tokenizer(tmp_path)


def test_special_tokens_elsewhere_are_refused(trained: Tokenizer) -> None:
    files = trained.files()
    pieces = json.loads(files["vocab.json"])
    pieces["<mask>"], pieces["</s>"] = pieces["</s>"], pieces["<mask>"]
    with pytest.raises(ValueError, match="</s> has id 279"):
        tokenizer_of(files | {"vocab.json": json.dumps(pieces).encode()})


def test_sizes_that_the_text_does_not_give() -> None:
    with pytest.raises(ValueError, match="at least 261"):
        train_tokenizer(LINES, 260)
    with pytest.raises(ValueError, match="too large"):
        train_tokenizer(LINES, 5000)


def test_a_tokenizer_of_another_model_is_refused(trained: Tokenizer) -> None:
    check_adapter(TextAdapter(vocabulary_size=280, embed_dim=8, mask_id=279), trained, path="tokens")
    with pytest.raises(DataError, match=r"vocabulary_size=280 \(300\)"):
        check_adapter(TextAdapter(vocabulary_size=300, embed_dim=8), trained, path="tokens")
    with pytest.raises(DataError, match=r"mask_id=279 \(3\)"):
        check_adapter(TextAdapter(vocabulary_size=280, embed_dim=8, mask_id=3), trained, path="tokens")


def test_importing_text_does_not_import_tokenizers() -> None:
    code = "import sys, d2v.text, d2v.text.tokenizing; assert 'tokenizers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
