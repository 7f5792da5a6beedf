"""Commands take a published checkpoint file where they take a model folder."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from d2v.core import Batch, evaluate, extract, finetune, load, predict, save
from d2v.core.files import ConfigError, open_model

FILE = Path(__file__).parents[1] / "parity/data/checkpoints/image_pretrain.pt"


def test_features_of_a_published_file(tmp_path: Path) -> None:
    out = tmp_path / "features.safetensors"
    found = extract({"model": str(FILE), "data.path": "digits", "split": "test", "out": str(out)}, progress=False)
    assert found.shape[1] == 32
    assert load_file(out)["features"].isfinite().all()


def test_a_published_file_is_ready_for_use() -> None:
    model = load(FILE, weights="teacher")
    images = [np.zeros((60, 50), dtype=np.uint8), np.full((60, 50, 3), 200, dtype=np.uint8)]
    assert model.features(images, pooling="mean").x.isfinite().all()
    with pytest.raises(ConfigError, match="d2v finetune"):
        model.predict(images)


@pytest.mark.parametrize(
    "name", ["audio_pretrain.pt", "audio_v1_pretrained.pt", "text_pretrain.pt", "text_v1_pretrained.pt"]
)
def test_the_teacher_of_a_published_file_gives_features_whatever_it_lacks(name: str) -> None:
    model = load(FILE.parent / name)
    audio = name.startswith("audio")
    batch = Batch(source=torch.randn(2, 4000) if audio else torch.randint(4, 12, (2, 9)))
    student, teacher = (model.features(batch, weights=weights, layers="all") for weights in ("student", "teacher"))
    assert teacher.x.isfinite().all()
    assert teacher.x.shape == student.x.shape
    assert not torch.equal(teacher.x, student.x)


def test_fine_tuning_a_published_file(tmp_path: Path) -> None:
    finetune(
        "vision/small-finetune",
        {
            "model": str(FILE),
            "data.path": "digits",
            "out": str(tmp_path / "run"),
            "train.max_steps": 2,
            "train.batch_size": 4,
            "data.num_workers": 0,
            "data.crop_area": None,
            "device": "cpu",
        },
        progress=False,
    )
    described = open_model(tmp_path / "run").description
    assert described.data["vision"]["size"] == 48
    assert described.data["vision"]["channels"] == 3


def test_evaluating_a_published_classifier(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its classes are numbers, in the order of the names of the training folders."""
    file, photos = FILE.with_name("image_cls.pt"), tmp_path / "photos"
    rng = np.random.default_rng(0)
    for number, name in enumerate(["z", "b", "c", "d", "e", "f", "g", "h", "i", "a"]):
        (photos / "val" / name).mkdir(parents=True)
        for k in range(2):
            image = rng.integers(0, 255, (60, 50 + number, 3), dtype=np.uint8)
            Image.fromarray(image).save(photos / "val" / name / f"{k}.png")
    keys = {"model": str(file), "data.path": str(photos), "split": "val", "data.num_workers": 0, "device": "cpu"}
    rows = predict(keys, progress=False)
    folders = sorted(path.name for path in (photos / "val").iterdir())
    right = [folders[int(row["class"])] == Path(row["file"]).parent.name for row in rows]
    found = evaluate(keys, progress=False)
    assert found.metrics()["accuracy"] == pytest.approx(100 * sum(right) / len(right))
    assert "classes have no names" in caplog.text


def test_an_encoder_of_hugging_face_in_commands(tmp_path: Path) -> None:
    shutil.copytree(FILE.parents[1] / "hf/vision_model", tmp_path / "model")
    (tmp_path / "model/preprocessor_config.json").write_text('{"image_mean": [0.5], "image_std": [0.5]}')
    keys = {"model": str(tmp_path / "model"), "data.path": "digits", "data.num_workers": 0, "device": "cpu"}
    made = {"train.max_steps": 1, "train.batch_size": 4, "data.crop_area": None, "out": str(tmp_path / "run")}
    finetune("vision/small-finetune", {**keys, **made}, progress=False)
    assert open_model(tmp_path / "run").description.data["vision"]["mean"] == [0.5]


def test_a_contradiction_to_how_it_was_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.channels"):
        extract({"model": str(FILE), "data.path": "digits", "data.channels": 1, "out": "x.npy"}, progress=False)


def test_a_published_file_becomes_a_model_folder(tmp_path: Path) -> None:
    stored = open_model(FILE)
    save(tmp_path / "model", stored.module, stored.description)
    again = open_model(tmp_path / "model")
    assert again.description == stored.description
    assert type(load(FILE).module) is type(again.module)


def test_a_model_folder_that_asks_for_too_much_is_refused(tmp_path: Path) -> None:
    """Before memory is allocated."""
    stored = open_model(FILE)
    save(tmp_path / "model", stored.module, stored.description)
    config = tmp_path / "model/config.json"
    config.write_text(re.sub('"embed_dim": 32', '"embed_dim": 1048576', config.read_text()))
    with pytest.raises(ValueError, match=r"model/config\.json: .*more than"):
        open_model(tmp_path / "model")


def test_a_file_of_a_model_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"config\.json.*folder"):
        load(tmp_path / "config.json")
