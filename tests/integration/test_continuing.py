"""Pretraining that continues from a published file, with its own schedule, at the same size or another one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sentences import reviews
from torch import nn

from d2v.core import load, pretrain, save
from d2v.core.description import Description
from d2v.core.files import ConfigError, open_model
from d2v.core.model import Data2Vec
from d2v.vision import SinCosPositions

FILES = Path(__file__).parents[1] / "parity/data/checkpoints"
POSITIONS = "adapters.vision.positions.positions"
SMALL: dict[str, Any] = {  # the published recipe at the size of the file
    "data.path": "digits",
    "data.size": 48,
    "data.num_workers": 0,
    "device": "cpu",
    "train.batch_size": 2,
    "train.accumulate": 1,
    "train.max_steps": 2,
    "train.log_every": 1,
    "train.precision": "fp32",
    "model.student.encoder.block.embed_dim": 32,
    "model.student.encoder.block.num_heads": 4,
    "model.student.encoder.depth": 3,
    "model.student.adapters.vision.image_size": 48,
    "model.student.adapters.vision.patch_size": 8,
    "model.targets.layers": 3,
    "model.num_masks": 2,
}
STILL = {"optim.lr": 0.0, "model.teacher.schedule.start": 1.0, "model.teacher.schedule.end": 1.0}


def continued(out: Path, **more: Any) -> Data2Vec:
    keys = {key.replace("__", "."): value for key, value in more.items()}
    pretrain(
        "vision/base", {**SMALL, "out": str(out), "init": str(FILES / "image_pretrain.pt"), **keys}, progress=False
    )
    module = open_model(out).module
    assert isinstance(module, Data2Vec)
    return module


def parts(model: nn.Module) -> dict[str, dict[str, torch.Tensor]]:
    assert isinstance(model, Data2Vec)
    return {"student": model.student.state_dict(), "teacher": model.teacher.module.state_dict()}


def test_student_and_teacher_start_from_the_file_and_the_schedule_is_new(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = parts(open_model(FILES / "image_pretrain.pt").module)
    assert any(not torch.equal(file["student"][name], tensor) for name, tensor in file["teacher"].items())
    for part, tensors in parts(continued(tmp_path / "still", **STILL)).items():
        assert all(torch.equal(tensor, file[part][name]) for name, tensor in tensors.items()), part
    assert "other settings" not in caplog.text

    continued(tmp_path / "run", optim__lr=1e-3, optim__schedule__warmup=1)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "lr" in line] == [1, 2]
    assert [line["lr"] for line in lines if "lr" in line] == [0.0, 1e-3], "a warm-up of its own, from 0 to the peak"


def test_another_image_size(tmp_path: Path) -> None:
    file = parts(open_model(FILES / "image_pretrain.pt").module)
    new = continued(tmp_path / "run", **STILL, data__size=64, model__student__adapters__vision__image_size=64)
    for part, tensors in parts(new).items():
        for name, tensor in tensors.items():
            expected = SinCosPositions(32, (8, 8)).positions if name == POSITIONS else file[part][name]
            assert torch.equal(tensor, expected), f"{part} {name}"
    assert load(tmp_path / "run").description.data["vision"]["size"] == 64


def test_learned_positions_of_student_and_teacher_are_interpolated(tmp_path: Path) -> None:
    learned = {"model__student__adapters__vision__positions": "learned"}
    first = continued(tmp_path / "first", **STILL, **learned, init=None)
    for module in (first.student, first.teacher.module):
        nn.init.normal_(module.get_parameter(POSITIONS))
    save(tmp_path / "model", first, open_model(tmp_path / "first").description)
    size = {"data__size": 64, "model__student__adapters__vision__image_size": 64}
    new = continued(tmp_path / "second", **STILL, **learned, **size, init=str(tmp_path / "model"))
    for part, tensors in parts(new).items():
        before = parts(first)[part][POSITIONS]
        image = before.unflatten(1, (6, 6)).movedim(-1, 1)
        expected = nn.functional.interpolate(image, (8, 8), mode="bicubic").flatten(2).mT
        torch.testing.assert_close(tensors[POSITIONS], expected, msg=part)


def test_the_data_and_the_model_must_agree(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"image_size=\[64, 64\] instead of \[48, 48\]; set model\.student\.adapters"):
        continued(tmp_path / "run", data__size=64)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.student.encoder.block.embed_dim", 64),
        ("model.student.encoder.depth", 4),
        ("model.student.encoder.block.mlp_ratio", 2.0),
        ("model.student.adapters.vision.patch_size", [16, 16]),
    ],
)
def test_another_architecture_is_named_by_key(tmp_path: Path, key: str, value: Any) -> None:
    given = {"model.student.encoder.block.embed_dim": 32, "model.student.encoder.depth": 3}
    given |= {"model.student.encoder.block.mlp_ratio": 4.0, "model.student.adapters.vision.patch_size": [8, 8]}
    with pytest.raises(ConfigError, match=r"^init=.* does not fit model\.student") as caught:
        continued(tmp_path / "run", **{key: value})
    assert f"{key}={given[key]}, not {value}" in str(caught.value)


def test_settings_that_change_results_and_no_shapes_are_mentioned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    continued(tmp_path / "run", model__student__encoder__block__num_heads=8)
    assert "model.student.encoder.block.num_heads=4, not 8" in caplog.text


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("".join(f"{text}\n" for text, _ in reviews(200)))
    return tmp_path / "texts"


@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_longer_texts(tmp_path: Path, texts: Path, positions: str) -> None:
    """Learned positions end where the file's end; computed ones do not."""
    keys: dict[str, Any] = {
        **STILL,
        "data.path": str(texts),
        "device": "cpu",
        "data.vocabulary_size": 300,
        "model.student.adapters.text.vocabulary_size": 300,
        "model.student.adapters.text.positions": positions,
        "train.max_steps": 1,
        "train.batch_size": 2,
    }

    def train(out: Path, length: int, **more: Any) -> Description:
        long = {"data.block_size": length, "model.student.adapters.text.max_length": length}
        pretrain("text/small", {**keys, **long, "out": str(out), **more}, progress=False)
        return open_model(out).description

    train(tmp_path / "short", 32)
    if positions == "sinusoidal":
        train(tmp_path / "long", 64, init=str(tmp_path / "short"))
        return
    with pytest.raises(ConfigError, match=r"positions\.weight.*max_length=32, not 64"):
        train(tmp_path / "long", 64, init=str(tmp_path / "short"))
