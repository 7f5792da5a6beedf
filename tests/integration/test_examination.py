"""`d2v doctor --checkpoint`: what a file is, whether its tensors have their places, and features of made-up input."""

import shutil
from pathlib import Path

import attrs
import pytest
import torch
from commands import Run
from safetensors.torch import load_file, save_file

from d2v.core import convert
from d2v.core.jobs import doctor
from d2v.core.modality import modalities

DATA = Path(__file__).parents[1] / "parity/data"
FILES = DATA / "checkpoints"
QUIET = pytest.mark.filterwarnings("ignore::UserWarning")


@QUIET
@pytest.mark.parametrize(
    ("name", "format_", "kind", "features"),
    [
        ("checkpoints/image_pretrain.pt", "data2vec 2.0 images", "a pretrained model", ["student", "teacher"]),
        ("checkpoints/audio_ctc.pt", "data2vec 2.0 speech, CTC", "a CTC with 32 symbols", ["student"]),
        ("checkpoints/text_v1_pretrained.pt", "data2vec 1.0 text", "a pretrained model", ["student", "teacher"]),
        ("checkpoints/audio_v1_pretrained.pt", "data2vec 1.0 speech", "a pretrained model", ["student", "teacher"]),
        ("hf/vision_model", "Hugging Face images", "an encoder", ["student"]),
    ],
)
def test_a_model_that_is_in_order(name: str, format_: str, kind: str, features: list[str]) -> None:
    told: list[str] = []
    found = doctor(checkpoint=DATA / name, tell=told.append)
    assert found.failed == []
    assert found.facts["format"] == format_
    assert found.facts["kind"] == kind
    assert "3 blocks" in found.facts["architecture"] or "4 blocks" in found.facts["architecture"]
    assert found.facts["precision"].startswith("float32 (")
    assert found.facts["parameters"]
    assert list(found.checks) == ["file", "tensors", "weights", *(f"{one} features" for one in features)]
    for weights in features:
        assert "effective rank" in found.facts[weights]
    assert sorted("\n".join(told).splitlines()) == sorted(found.lines())


def test_tensors_that_a_model_does_not_need_are_named() -> None:
    found = doctor(checkpoint=FILES / "text_v1_pretrained.pt")
    assert found.facts["not needed"] == "2 tensors: encoder.sentence_encoder.version, encoder._ema.version"
    assert "not needed" not in doctor(checkpoint=FILES / "image_pretrain.pt").facts


def test_tensors_of_a_published_file_without_a_place(tmp_path: Path, d2v: Run) -> None:
    shutil.copytree(DATA / "hf/text_model", tmp_path / "model")
    weights = tmp_path / "model/model.safetensors"
    tensors = load_file(weights)
    tensors["zeal"] = tensors.pop("embeddings.LayerNorm.bias")
    tensors["encoder.layer.0.output.dense.bias"] = torch.zeros(7)
    save_file(tensors, weights)
    code, shown, error = d2v("doctor", "--checkpoint", tmp_path / "model")
    assert code == 1
    assert error.endswith("1 of 2 checks failed: tensors\n")
    assert "missing: embeddings.LayerNorm.bias" in shown
    assert "unexpected: zeal" in shown
    assert "of another shape: " in shown
    assert "(7,)" in shown
    assert "architecture" in shown


def test_tensors_of_a_model_folder(tmp_path: Path) -> None:
    convert(FILES / "image_pretrain.pt", tmp_path / "model")
    weights = tmp_path / "model/model.safetensors"
    tensors = load_file(weights)
    name = "student.encoder.blocks.1.attn.qkv.weight"
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, weights)
    found = doctor(checkpoint=tmp_path / "model")
    assert found.failed == ["tensors"]
    assert found.facts["format"] == "model folder"
    assert name in str(found.checks["tensors"])

    save_file({**tensors, name: torch.full_like(tensors[name], torch.nan)}, weights)
    assert name in str(doctor(checkpoint=tmp_path / "model").checks["weights"])

    save_file({key: tensor * (not key.startswith("student.")) for key, tensor in tensors.items()}, weights)
    found = doctor(checkpoint=tmp_path / "model")
    assert found.failed == ["student features"]
    assert "collapsed" in str(found.checks["student features"])

    save_file({key: tensor.half() for key, tensor in tensors.items()}, weights)
    assert doctor(checkpoint=tmp_path / "model").facts["precision"].startswith("float16 (")
    weights.write_bytes(weights.read_bytes()[:100])
    assert doctor(checkpoint=tmp_path / "model").failed == ["file"]


def test_files_that_are_refused(tmp_path: Path, d2v: Run) -> None:
    code, shown, error = d2v("doctor", "--checkpoint", FILES / "hostile_pickle.pt")
    assert code == 1
    assert "nothing was run" in shown
    assert error.endswith("checks failed: file\n")
    code, shown, error = d2v("doctor", "--checkpoint", tmp_path / "none.pt")
    assert (code, shown) == (1, "")
    assert "does not exist" in error
    code, shown, error = d2v("doctor", "--pretrained", FILES / "text_pretrain.pt")
    assert (code, shown) == (2, "")
    assert "checkpoint" in error


def test_a_classifier_of_texts_with_its_pretrained_file(tmp_path: Path) -> None:
    shutil.copy(FILES / "text_cls.pt", tmp_path)
    assert "pretrained" in str(doctor(checkpoint=tmp_path / "text_cls.pt").checks["file"])
    found = doctor(checkpoint=tmp_path / "text_cls.pt", pretrained=FILES / "text_pretrain.pt")
    assert found.failed == []
    assert found.facts["kind"] == "a TextClassification with 2 classes"


def test_a_modality_without_an_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = modalities.load("vision")
    monkeypatch.setitem(vars(modalities)["_loaded"], "vision", attrs.evolve(record, example=None))
    found = doctor(checkpoint=FILES / "image_pretrain.pt")
    assert found.failed == []
    assert "no example" in found.facts["features"]
