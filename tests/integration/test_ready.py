"""A model that was trained on images, loaded: the features and answers of the commands, in memory."""

import csv
from pathlib import Path

import pytest
import torch
from commands import Run
from PIL import Image
from safetensors.torch import load_file

from d2v.core import Data2Vec, load
from d2v.core.data import DataError
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


def test_a_broken_file_is_named(made: Path, files: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("not an image")
    with pytest.raises(DataError, match=r"item 1, .*broken\.png"):
        load(made / "run").features([files[0], broken])
