"""`audio/small` on real speech: pretraining, an exact resume, the probe on transcripts, features in windows."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from recordings import LIBRIVOX
from safetensors.torch import load_file

from d2v.core import extract, load, pretrain, probe
from d2v.core.files import ConfigError

SHORT = {"train.max_steps": 6, "train.checkpoint_every": 3, "train.log_every": 3, "device": "cpu"}
MODEL = {
    "model.student.encoder.depth": 2,
    "model.targets.layers": 2,
    "model.student.encoder.block.embed_dim": 32,
    "model.predictors.audio.decoder_dim": 32,
    "data.max_samples": 16_000,
    "train.batch_size": 2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of the five sentences with splits, and a short pretraining on them."""
    folder = tmp_path_factory.mktemp("small")
    with (LIBRIVOX / "librivox.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (folder / "split.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "text", "split"])
        for number, row in enumerate(rows):
            table.writerow([str(LIBRIVOX / row["path"]), row["text"], "test" if number == 4 else "train"])
    pretrain("audio/small", {**SHORT, **MODEL}, data=str(LIBRIVOX), out=str(folder / "run"), progress=False)
    return folder


def test_pretraining_resumes_exactly(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run/model")
    shutil.rmtree(tmp_path / "run/checkpoints/step-6")
    pretrain("audio/small", {**SHORT, **MODEL, "data": str(LIBRIVOX), "out": str(tmp_path / "run"), "resume": True})
    whole = load_file(folder / "run/model/model.safetensors")
    again = load_file(tmp_path / "run/model/model.safetensors")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert json.loads((folder / "run/metrics.jsonl").read_text().splitlines()[-1])["target_rank"] > 0


def test_the_front_end_keeps_its_initial_weights(folder: Path) -> None:
    first = load(folder / "run", weights="untrained").encoder.state_dict()
    last = load(folder / "run").encoder.state_dict()
    names = [name for name in last if ".front." in name]
    assert names
    changed = [name for name in last if not torch.equal(first[name], last[name])]
    assert changed
    assert not set(changed) & set(names)


def test_probe_reads_transcripts_next_to_baselines(folder: Path) -> None:
    given = {"sequences.epochs": 2, "sequences.heads": 2, "each": True, "out": str(folder / "probe.json")}
    results = probe(given, model=str(folder / "run"), data=str(folder / "split.csv"), progress=False)
    rows = [(case.features, case.layers) for case in results.scores]
    encoders = [(name, layer) for name in ("untrained", "pretrained") for layer in ("0", "1", "all")]
    assert rows == [("raw", "-"), ("untrained", "front end"), *encoders]
    assert (results.num_train, results.num_test, results.metric) == (4, 1, "character error rate")
    assert all(score.draws == 2 and score.percent > 0 for score in results.scores.values())
    table = results.table().splitlines()
    assert table[1].startswith("log-mel")
    assert json.loads((folder / "probe.json").read_text())["scores"]["raw"]["-"]["-"]["ctc"]["mean"] > 0


def test_features_of_long_recordings_in_windows(folder: Path) -> None:
    given = {"model": str(folder / "run"), "data": str(LIBRIVOX), "pooling": "tokens", "layers": (-1,)}
    whole = extract({**given, "out": str(folder / "whole.safetensors")}, progress=False)
    parts = extract({**given, "out": str(folder / "parts.safetensors"), "window": 32_000}, progress=False)
    assert whole.shape == parts.shape
    first, second = load_file(whole.out), load_file(parts.out)
    assert torch.equal(first["padding"], second["padding"])
    valid = ~first["padding"]
    near = torch.nn.functional.cosine_similarity(first["features"][valid], second["features"][valid], dim=1)
    assert near.mean() > 0.8, "attention and the statistics of the spectrogram are those of a window"
    with pytest.raises(ValueError, match="window"):
        extract({**given, "out": str(folder / "short.safetensors"), "window": 3_000}, progress=False)


def test_the_rate_of_the_data_must_be_that_of_the_front_end(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sample_rate"):
        pretrain(
            "audio/small", {**SHORT, **MODEL, "data.sample_rate": 8000}, data=str(LIBRIVOX), out=str(tmp_path / "r")
        )
    with pytest.raises(ValueError, match="sample_rate"):
        extract(
            model=str(folder / "run"), data={"path": str(LIBRIVOX), "sample_rate": 8000}, out=str(tmp_path / "f.npy")
        )
