"""The commands on real speech: fine-tune a published file, evaluate, predict, resume."""

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from d2v.audio import CTCModel
from d2v.core import evaluate, finetune, predict
from d2v.core.files import open_model
from d2v.core.train import Interrupted

CHECKPOINTS = Path(__file__).parents[1] / "parity/data/checkpoints"
SENTENCES = Path(__file__).parent / "data/librivox/librivox.csv"
GIVEN: dict[str, Any] = {
    "data.path": str(SENTENCES),
    "data.num_workers": 0,
    "data.dictionary": "librispeech",
    "train.max_steps": 4,
    "train.accumulate": 1,
    "train.log_every": 1,
    "train.checkpoint_every": 2,
    "validation.every": 2,
    "task.channel_mask.mask_length": 4,  # the toy model has few channels
    "device": "cpu",
}


def tuned(out: Path, name: str, **other: Any) -> list[dict[str, float]]:
    overrides = GIVEN | {"model": str(CHECKPOINTS / f"{name}.pt"), "out": str(out)} | other
    finetune("audio/ctc-base-10m", overrides, progress=False)
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ["audio_pretrain", "audio_v1_pretrained"])
def test_from_a_published_file_to_words(name: str, tmp_path: Path) -> None:
    lines = tuned(tmp_path / "run", name)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert all(line["too_long"] == 0 and line["loss"] > 0 for line in lines)
    assert "val_wer" in lines[-1]
    described = open_model(tmp_path / "run").description
    assert described.labels is not None
    assert described.labels.num_outputs == 32
    scores = evaluate(model=str(tmp_path / "run"), data=str(SENTENCES), device="cpu", progress=False)
    assert set(scores.splits["test"].metrics()) == {"wer", "cer"}
    out = tmp_path / "words.csv"
    rows = predict(
        {"model": str(tmp_path / "run"), "data.path": str(SENTENCES), "device": "cpu", "out": str(out)}, progress=False
    )
    assert len(rows) == 5
    assert all(set(row) == {"file", "text", "symbols", "score", "words"} for row in rows)
    read = list(csv.DictReader(out.read_text().splitlines()))
    assert [json.loads(row["words"]) for row in read] == [row["words"] for row in rows]


def test_the_encoder_is_frozen_first(tmp_path: Path) -> None:
    """Three of four updates: the head learns, then all but the extractor."""
    tuned(tmp_path / "run", "audio_pretrain", **{"freeze.updates": 3, "train.max_steps": 3})
    before = open_model(CHECKPOINTS / "audio_pretrain.pt").module.student.state_dict()
    frozen = open_model(tmp_path / "run").module.encoder.state_dict()
    assert all(torch.equal(frozen[name], before[name]) for name in frozen)
    tuned(tmp_path / "longer", "audio_pretrain", **{"freeze.updates": 3})
    trained = open_model(tmp_path / "longer").module.encoder.state_dict()
    same = {name for name in trained if torch.equal(trained[name], before[name])}
    assert all(".front.extractor." in name for name in same)
    assert len(same) == sum(".front.extractor." in name for name in trained)


def test_a_run_is_resumed_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tuned(tmp_path / "whole", "audio_pretrain")
    half = tmp_path / "half"
    stop_after(2, monkeypatch)
    with pytest.raises(Interrupted):
        tuned(half, "audio_pretrain")
    monkeypatch.undo()
    lines = tuned(half, "audio_pretrain", resume=True)
    assert [line["loss"] for line in lines] == [line["loss"] for line in whole]
    weights = [open_model(path).module.state_dict() for path in (tmp_path / "whole", half)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def stop_after(updates: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C during an update."""
    forward, count = CTCModel.forward, []

    def counted(*arguments: Any, **keys: Any) -> Any:
        count.append(1)
        if len(count) == updates:
            os.kill(os.getpid(), signal.SIGINT)
        return forward(*arguments, **keys)

    monkeypatch.setattr(CTCModel, "forward", counted)


def test_a_published_ctc_file_is_evaluated_as_it_is() -> None:
    scores = evaluate(model=str(CHECKPOINTS / "audio_ctc.pt"), data=str(SENTENCES), device="cpu", progress=False)
    (found,) = scores.splits.values()
    assert 0 < found.metrics()["cer"] <= 110
