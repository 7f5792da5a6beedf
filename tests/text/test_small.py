"""`text/small` on text: pretraining, an exact resume, the tokenizer of the model, and the commands."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from d2v.core import load, pretrain
from d2v.core.cli import main
from d2v.core.data import DataError
from d2v.core.files import ConfigError
from d2v.text.corpus.builtin import builtin_text
from d2v.text.corpus.token_file import TokenFile
from d2v.text.tokenizing import read_tokenizer

SHORT: dict[str, Any] = {
    "train.max_steps": 6,
    "train.checkpoint_every": 3,
    "train.log_every": 3,
    "train.batch_size": 4,
    "device": "cpu",
    "model.student.encoder.depth": 1,
    "model.targets.layers": 1,
    "model.student.adapters.text.vocabulary_size": 300,
    "data.vocabulary_size": 300,
}
with gzip.open(builtin_text("wordnet"), "rt", encoding="utf-8") as file:
    TEXT = "".join(file.readline() for _ in range(300))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text file, token files made of it, and a short pretraining on these."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "texts").mkdir()
    (folder / "texts/a.txt").write_text(TEXT)
    assert main(["data", "tokens", str(folder / "texts"), str(folder / "tokens"), "--vocabulary", "300"]) == 0
    pretrain("text/small", {**SHORT, "data": str(folder / "tokens"), "out": str(folder / "run")}, progress=False)
    return folder


def same(one: Path, other: Path) -> bool:
    first, second = (load_file(run / "model/model.safetensors") for run in (one, other))
    return all(torch.equal(first[name], second[name]) for name in first)


def test_pretraining_resumes_exactly(folder: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(folder / "run", tmp_path / "run"))
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "checkpoints/step-6")
    pretrain("text/small", {**SHORT, "data": str(folder / "tokens"), "out": str(run), "resume": True}, progress=False)
    assert same(run, folder / "run")
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["target_rank"] > 0


def test_text_files_give_the_same_run(folder: Path, tmp_path: Path) -> None:
    given = {**SHORT, "data": str(folder / "texts"), "out": str(tmp_path / "run")}
    pretrain("text/small", given, progress=False)
    assert same(tmp_path / "run", folder / "run")


def test_the_model_keeps_its_tokenizer(folder: Path) -> None:
    assert read_tokenizer(folder / "run/model") == read_tokenizer(folder / "tokens")
    model = load(folder / "run")
    found = model.features(["the act of singing", "an assembly"], pooling="mean")
    assert found.x.shape == (2, 64)
    alone = model.features(["an assembly"], pooling="mean")
    assert torch.allclose(found.x[1], alone.x[0], atol=1e-5)


def test_a_run_from_other_weights_uses_their_tokenizer(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("quite different text, from another world\n" * 300)
    given = {**SHORT, "data": str(tmp_path / "b.txt"), "init": str(folder / "run"), "out": str(tmp_path / "run")}
    pretrain("text/small", given, progress=False)
    assert read_tokenizer(tmp_path / "run/model") == read_tokenizer(folder / "run/model")


def test_what_does_not_fit_is_named_before_any_update(folder: Path, tmp_path: Path) -> None:
    given = {**SHORT, "data": str(folder / "tokens"), "out": str(tmp_path / "run")}
    with pytest.raises(DataError, match=r"vocabulary_size=300 \(400\)"):
        pretrain("text/small", {**given, "model.student.adapters.text.vocabulary_size": 400}, progress=False)
    with pytest.raises(DataError, match=r"block_size=600 is more than the model's 512"):
        pretrain("text/small", {**given, "data.block_size": 600}, progress=False)
    with pytest.raises(ConfigError, match="vocabulary_size=270 instead of 300"):
        pretrain("text/small", {**given, "data": "wordnet", "data.vocabulary_size": 270}, progress=False)
    assert not (tmp_path / "run").exists()


def test_data2vec_1_trains_on_documents(folder: Path, tmp_path: Path) -> None:
    overrides = {
        **SHORT,
        "data": str(folder / "tokens"),
        "out": str(tmp_path / "run"),
        "data.block_size": 64,
        "data.max_tokens": 256,
        "data.num_workers": 0,
        "train.accumulate": 1,
        "train.precision": "fp32",
        "model.student.encoder.block.embed_dim": 32,
        "model.student.encoder.block.num_heads": 2,
        "model.student.adapters.text.mask_id": 299,
    }
    fitted = pretrain("text/v1-base", overrides, progress=False)
    assert fitted.step == 6
    assert load(tmp_path / "run").features(["the act"]).x.shape[2] == 32


def test_commands(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dest, tokenizer = str(tmp_path / "tokens"), str(tmp_path / "tokenizer")
    (tmp_path / "valid.txt").write_bytes(b"one\n\xff\ntwo\n")
    assert main(["data", "tokenizer", str(folder / "texts"), tokenizer, "--vocabulary", "290"]) == 0
    assert main(["data", "tokenizer", str(folder / "texts"), tokenizer, "--vocabulary", "290"]) == 1
    assert main(["data", "tokens", str(folder / "texts"), dest, "--tokenizer", tokenizer]) == 0
    assert main(["data", "tokens", str(folder / "texts"), dest]) == 1
    out, err = capsys.readouterr()
    assert "a tokenizer of 290 ids" in out
    assert "301 lines, 1 documents" in out
    assert "has a tokenizer already" in err
    assert "has the split train already" in err
    more = ["data", "tokens", str(tmp_path / "valid.txt"), dest, "--split", "valid"]
    assert main(more) == 1
    assert "byte 4 is not UTF-8" in capsys.readouterr().err
    assert main([*more, "--skip-invalid", "--workers", "1"]) == 0
    assert "1 lines or files that are not text left out" in capsys.readouterr().out
    assert TokenFile(f"{dest}/valid").num_lines == 3
    assert sorted(path.name for path in Path(dest).iterdir()) == [
        "merges.txt", "train.bin", "train.idx", "valid.bin", "valid.idx", "vocab.json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ([], "no tokenizer"),
        (["--vocabulary", "9"], "at least 261"),
        (["--vocabulary", "99999"], "too large"),
        (["--vocabulary", "300", "--tokenizer", "x"], "exclude"),
        (["--tokenizer", "nowhere"], "found none"),
        (["--vocabulary", "300", "--split", "a/b"], "not a name"),
    ],
)
def test_commands_refuse(
    more: list[str], word: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "tokens", str(folder / "texts"), str(tmp_path / "dest"), *more]) == 1
    assert word in capsys.readouterr().err
    assert not (tmp_path / "dest").exists()
