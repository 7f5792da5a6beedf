"""Token files and the blocks in them: the recorded cases of the original, and files that are broken or huge."""

import json
import pickle
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_files import writing_tokens

from d2v.core.data import DataError
from d2v.text.corpus import blocks
from d2v.text.corpus.blocks import BreakMode, blocks_of
from d2v.text.corpus.token_file import TokenFile, open_tokens, token_splits

RULES = Path(__file__).parent.parent / "parity/data/rules"
EXPECTED = json.loads((RULES / "corpus/expected.json").read_text())
MODES: tuple[BreakMode, ...] = ("none", "complete", "complete_doc", "eos")


def written(stem: Path, sizes: list[int], vocabulary_size: int = 100) -> TokenFile:
    ids = np.arange(sum(sizes)) % 90
    with writing_tokens(stem, vocabulary_size) as writer:
        writer.add(ids, np.asarray(sizes))
    return TokenFile(stem)


def spans(found: blocks.Blocks) -> list[list[int]]:
    return [list(found.span(id)) for id in range(len(found))]


def test_block_cases_match(tmp_path: Path) -> None:
    cases = json.loads((RULES / "blocks.json").read_text())["cases"]
    for number, case in enumerate(cases):
        tokens = written(tmp_path / str(number), case["sizes"])
        found = blocks_of(tokens, case["block_size"], case["mode"])
        assert spans(found) == case["slices"]
        assert found.lengths().tolist() == [end - start for start, end in case["slices"]]
        assert found.longest == int(found.lengths().max())
    assert len(cases) == 16


@pytest.mark.parametrize("mode", MODES)
def test_binarised_data_of_the_original_match(mode: BreakMode) -> None:
    tokens = TokenFile(RULES / "corpus/train")
    lines = np.split(tokens.tokens(0, tokens.num_tokens), tokens.starts(1, tokens.num_lines))
    assert [line.tolist() for line in lines] == EXPECTED["tokens"]
    found = blocks_of(tokens, EXPECTED["tokens_per_sample"] - 1, mode)
    assert [[0, *tokens.tokens(*found.span(id)).tolist()] for id in range(len(found))] == EXPECTED["blocks"][mode]


def test_files_written_here_are_those_of_the_original(tmp_path: Path) -> None:
    with writing_tokens(tmp_path / "train", EXPECTED["dictionary_size_with_mask"]) as writer:
        for line in EXPECTED["tokens"]:
            writer.add(np.asarray(line), np.asarray([len(line)]))
    for name in ("train.bin", "train.idx"):
        assert (tmp_path / name).read_bytes() == (RULES / "corpus" / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.bin", "train.idx"]


def test_large_vocabularies_take_32_bits(tmp_path: Path) -> None:
    tokens = written(tmp_path / "train", [3, 4], vocabulary_size=70_000)
    assert tokens.dtype == np.uint32
    assert tokens.tokens(2, 5).tolist() == [2, 3, 4]


def plain_blocks(sizes: list[int], size: int, *, by_document: bool) -> list[list[int]]:
    """The rule of the original, line by line."""
    found, place, current = [], 0, [0, 0]
    for length in sizes:
        ends = by_document and length == 1
        if current[1] > current[0] and (ends or current[1] - current[0] + length > size):
            found.append(current)
            current = [place, place]
        place += length
        current = [place, place] if ends else [current[0], place]
    return [*found, current] if current[1] > current[0] else found


@given(st.lists(st.integers(1, 12), max_size=60), st.integers(1, 20), st.integers(1, 9))
def test_blocks_of_whole_lines_do_not_depend_on_the_chunks(sizes: list[int], size: int, chunk: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        tokens = written(Path(folder) / "train", sizes)
        patch.setattr(blocks, "_LINES", chunk)
        for mode in ("complete", "complete_doc"):
            expected = plain_blocks(sizes, size, by_document=mode == "complete_doc")
            assert spans(blocks_of(tokens, size, mode)) == expected
            cut = blocks_of(tokens, size, mode, cut=True)
            assert cut.longest <= size
            assert int(cut.lengths().sum()) == sum(end - start for start, end in expected)


def test_ten_thousand_million_tokens_open_at_once(tmp_path: Path) -> None:
    lines, length = 10_000_000, 1000
    index = tmp_path / "train.idx"
    with index.open("wb") as file:  # holes: only the last line is written
        file.write(b"MMIDIDX\0\0" + (1).to_bytes(8, "little") + b"\x08" + lines.to_bytes(8, "little"))
        file.seek(26 + 4 * (lines - 1))
        file.write(length.to_bytes(4, "little"))
        file.seek(26 + 12 * lines - 8)
        file.write((2 * length * (lines - 1)).to_bytes(8, "little"))
    with (tmp_path / "train.bin").open("wb") as file:
        file.truncate(2 * lines * length)
    start = time.process_time()
    tokens = TokenFile(tmp_path / "train")
    found = blocks_of(tokens, 511, "none")
    assert tokens.num_tokens == 10**10
    assert len(found) == -(-(10**10) // 511)
    assert tokens.tokens(*found.span(len(found) - 1)).tolist() == [0] * (10**10 % 511)
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize(
    ("name", "change", "word"),
    [
        ("train.idx", lambda data: data[:-5], "cut off"),
        ("train.idx", lambda data: data[:20], "cut off"),
        ("train.idx", lambda data: b"", "cut off"),
        ("train.idx", lambda data: b"PK" + data[2:], "not the index"),
        ("train.idx", lambda data: data[:17] + b"\x07" + data[18:], "type 7"),
        ("train.bin", lambda data: data[:-2], "cut off"),
        ("train.bin", lambda data: data + b"\0\0", "does not fit"),
    ],
)
def test_broken_files_are_named(name: str, change: object, word: str, tmp_path: Path) -> None:
    for one in ("train.bin", "train.idx"):
        (tmp_path / one).write_bytes((RULES / "corpus" / one).read_bytes())
    (tmp_path / name).write_bytes(change((tmp_path / name).read_bytes()))  # type: ignore[operator]
    with pytest.raises(DataError, match=word) as caught:
        open_tokens(tmp_path, "train")
    assert name in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "valid.idx").write_bytes((RULES / "corpus/train.idx").read_bytes())
    assert token_splits(tmp_path) == ["valid"]
    with pytest.raises(DataError, match=r"valid\.bin cannot be read"):
        open_tokens(tmp_path, "valid")


def test_token_files_reach_workers(tmp_path: Path) -> None:
    tokens = pickle.loads(pickle.dumps(written(tmp_path / "train", [5, 6])))
    assert tokens.tokens(4, 6).tolist() == [4, 5]
    assert tokens.largest(10**6) == 10
