"""A model that was trained on images, loaded: the features and answers of the commands, in memory."""

import copy
import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Run
from PIL import Image
from safetensors.torch import load_file

from d2v.core import Data2Vec, load, save
from d2v.core.data import DataError
from d2v.core.files import ConfigError
from d2v.core.nn.forms import forms_taken
from d2v.vision import ImageClassifier


@pytest.fixture
def files(made: Path) -> list[Path]:
    return sorted((made / "photos/test").rglob("*.png"))


@pytest.mark.parametrize("weights", ["student", "teacher"])
def test_features_of_files_are_those_of_extract(
    weights: str, made: Path, files: list[Path], tmp_path: Path, d2v: Run
) -> None:
    out = tmp_path / "f.safetensors"
    given = [f"model={made / 'run'}", f"data.path={made / 'photos/test'}", f"weights={weights}", "batch_size=7"]
    code, _, errors = d2v("extract", *given, "pooling=tokens", "layers=final", f"out={out}")
    assert code == 0, errors
    model = load(made / "run", weights=weights)  # type: ignore[arg-type]
    assert isinstance(model.module, Data2Vec)
    found = model.features(files, batch_size=25)
    torch.testing.assert_close(found.x, load_file(out)["features"], atol=1e-5, rtol=1e-4)
    assert found.grid == (4, 4)
    assert found.padding is None
    images = [Image.open(file) for file in files[:3]]
    torch.testing.assert_close(model.features(images).x, found.x[:3], atol=1e-5, rtol=1e-4)
    for image in images:
        image.close()


def test_answers_of_files_are_those_of_predict(made: Path, files: list[Path], tmp_path: Path, d2v: Run) -> None:
    out = tmp_path / "p.csv"
    code, _, errors = d2v("predict", f"model={made / 'classifier'}", f"data.path={made / 'photos/test'}", f"out={out}")
    assert code == 0, errors
    model = load(made / "classifier")
    assert isinstance(model.module, ImageClassifier)
    rows = model.predict(files, batch_size=7)
    assert [row["file"] for row in rows] == [str(file) for file in files]
    expected = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["class"] for row in rows] == [row["class"] for row in expected]
    for row, one in zip(rows, expected, strict=True):
        assert row["probability"] == pytest.approx(float(one["probability"]), abs=1e-4)
        assert row.keys() == one.keys()
    assert model.features(files[:2], pooling="class-token", layers=[-1, -2]).x.shape == (2, 96)


FORMS = ["onednn-linear", "row-attention"]


@pytest.mark.parametrize("weights", ["student", "teacher"])
def test_forms_of_computation_give_the_same_features(weights: Any, made: Path, files: list[Path]) -> None:
    plain, other = (load(made / "run", weights=weights, kernels=kernels) for kernels in ("plain", FORMS))
    assert plain.kernels() == ("plain",)
    for options in ({}, {"layers": "all", "result": "ffn"}, {"layers": [1], "pooling": "mean"}):
        expected, found = (model.features(files[:3], **options).x for model in (plain, other))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    half = other.features(files[:3], precision="bf16").x
    torch.testing.assert_close(half, plain.features(files[:3], precision="bf16").x, atol=0.05, rtol=0.05)
    assert not torch.equal(half, other.features(files[:3]).x)


def test_forms_of_computation_leave_the_model_as_it_is(made: Path, files: list[Path], tmp_path: Path) -> None:
    model = load(made / "classifier", kernels=FORMS)
    before = copy.deepcopy(model.module.state_dict())
    rows = model.predict(files[:5])
    assert rows == load(made / "classifier", kernels=FORMS).predict(files[:5])
    for row, plain in zip(rows, load(made / "classifier", kernels="plain").predict(files[:5]), strict=True):
        assert row == plain | {"probability": pytest.approx(plain["probability"], abs=1e-4)}
    model.features(files[:5])
    assert forms_taken(model.module) == forms_taken(model.encoder) == ()
    assert all(torch.equal(one, before[name]) for name, one in model.module.state_dict().items())
    copied = copy.deepcopy(model)
    assert copied.predict(files[:5]) == rows
    save(tmp_path / "saved", model.module, model.description)
    assert load(tmp_path / "saved", kernels=FORMS).predict(files[:5]) == rows
    # An update in between: the weights that were packed before are not used again.
    module = model.module.train()
    batch = dataclasses.replace(model.prepare(files[:5]), labels=torch.tensor([0, 1, 0, 1, 0]))
    module(batch, update=0).loss_sum.backward()
    torch.optim.SGD(module.parameters(), lr=0.1).step()
    changed = model.predict(files[:5])
    save(tmp_path / "updated", model.module, model.description)
    expected = load(tmp_path / "updated", kernels="plain").predict(files[:5])
    assert [row["probability"] for row in changed] != [row["probability"] for row in rows]
    for row, one in zip(changed, expected, strict=True):
        assert row == one | {"probability": pytest.approx(one["probability"], abs=1e-4)}


@pytest.mark.parametrize("command", ["extract", "predict"])
def test_commands_with_forms_of_computation(command: str, made: Path, tmp_path: Path, d2v: Run) -> None:
    model, kept = ("run", "f.npy") if command == "extract" else ("classifier", "p.jsonl")
    found = []
    for number, kernels in enumerate(["plain", f"[{','.join(FORMS)}]"]):
        out = tmp_path / f"{number}-{kept}"
        given = [f"model={made / model}", f"data.path={made / 'photos/test'}", f"kernels={kernels}", f"out={out}"]
        code, _, errors = d2v(command, *given)
        assert code == 0, errors
        found.append(out)
    if command == "extract":
        plain, other = map(np.load, found)
        np.testing.assert_allclose(other, plain, atol=1e-5, rtol=1e-4)
    else:
        plain, other = ([json.loads(line) for line in out.read_text().splitlines()] for out in found)
        for one, two in zip(plain, other, strict=True):
            assert two == one | {"probability": pytest.approx(one["probability"], abs=1e-4)}
    code, _, errors = d2v(command, *given[:2], "kernels=fast", f"out={tmp_path / kept}")
    assert code != 0
    assert "no form 'fast'" in errors


def test_wrong_forms_and_precisions_are_refused(made: Path, files: list[Path]) -> None:
    with pytest.raises(ConfigError, match="kernels=3 must be"):
        load(made / "run", kernels=3)  # type: ignore[arg-type]  # as a user may
    with pytest.raises(ConfigError, match="no form 'fast'"):
        load(made / "run", kernels=["fast"]).features(files[:1])
    with pytest.raises(ValueError, match="precision='fp16'"):
        load(made / "run").features(files[:1], precision="fp16")  # type: ignore[arg-type]  # as above
    with pytest.raises(ValueError, match="precision='half'"):
        load(made / "classifier").predict(files[:1], precision="half")  # type: ignore[arg-type]  # as above


def test_a_broken_file_is_named(made: Path, files: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("not an image")
    with pytest.raises(DataError, match=r"item 1, .*broken\.png"):
        load(made / "run").features([files[0], broken])
