"""Commands on real speech: pretraining that resumes exactly, and features of files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from recordings import LIBRIVOX
from safetensors.torch import load_file

from d2v.core import extract, load, pretrain

RECIPE = """\
model:
  student:
    encoder: {block: {embed_dim: 16, num_heads: 2}, depth: 2}
    adapters:
      audio: {kind: audio, conv_layers: [[8, 10, 10], [8, 8, 8], [8, 4, 4]], positions_groups: 4}
  predictors: {audio: {kind: conv-decoder, decoder_dim: 16, num_layers: 1, kernel_size: 7, groups: 4}}
  targets: {layers: 1, each: [instance], after: []}
  teacher: {schedule: {start: 0.9}}
  num_masks: 2
mask: {kind: inverse-blocks, mask_prob: 0.5, mask_length: 5}
data: {kind: audio, max_samples: 32000, max_tokens: 70000, num_workers: 0}
optim: {lr: 1e-3, schedule: {kind: polynomial, end_lr: 1e-3}}
train: {max_steps: 6, batch_size: 4, checkpoint_every: 3, log_every: 1}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "speech.yaml"
    path.write_text(RECIPE)
    return str(path)


def run(recipe: str, out: Path, **more: Any) -> None:
    data = str(LIBRIVOX / "librivox.csv")
    pretrain(recipe, {"data.path": data, "out": str(out), "device": "cpu", **more}, progress=False)


def losses(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_pretraining_resumes_exactly(recipe: str, tmp_path: Path) -> None:
    run(recipe, tmp_path / "whole")
    run(recipe, tmp_path / "parts", **{"train.max_steps": 3})
    run(recipe, tmp_path / "parts", resume=True, **{"data.num_workers": 1})
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    weights = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "parts")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_features_of_recordings(recipe: str, tmp_path: Path) -> None:
    run(recipe, tmp_path / "run", **{"train.max_steps": 1})
    out = str(tmp_path / "features.safetensors")
    found = extract(model=str(tmp_path / "run"), data=str(LIBRIVOX), out=out, pooling="tokens", progress=False)
    names = found.names.read_text().splitlines()
    model = load(tmp_path / "run")
    stored = load_file(found.out)
    assert sorted(names) == sorted(path.name for path in LIBRIVOX.glob("*.flac"))
    alone = {name: model.features([LIBRIVOX / name], layers="all").x[0] for name in names}
    assert [int((~row.bool()).sum()) for row in stored["padding"]] == [len(alone[name]) for name in names]
    # The longest recording is not padded, so its features are those of the recording alone.
    longest = max(range(5), key=lambda row: len(alone[names[row]]))
    torch.testing.assert_close(stored["features"][longest], alone[names[longest]], atol=1e-4, rtol=1e-4)
