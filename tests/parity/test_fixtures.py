"""The library and the plain formulation against the numbers of the reference."""

import json
import shutil
from pathlib import Path

import check
import plain
import plain_former
import plain_image
import pytest
import torch
from compare import compare
from reading import converted, read
from safetensors.torch import load_file, save_file
from torch.nn.attention import flex_attention

from d2v.core.nn import DistanceBias, kernels

FOLDERS = sorted(path.parent for path in (Path(__file__).parent / "data").glob("v*/*/config.json"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_library_agrees(folder: Path) -> None:
    result = check.check(folder)
    assert result["ok"], result["error"]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_the_distance_bias_of_a_gpu_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its function, run by torch on the CPU without a compiler; tests/gpu runs the kernel."""
    asked: list[bool] = []

    def form(q: torch.Tensor, mask: object, dropout: float) -> str:
        asked.append(isinstance(mask, DistanceBias))
        return "distances" if asked[-1] else "fused"

    torch.compiler.reset()
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
    monkeypatch.setattr(kernels, "attention_form", form)
    result = check.check(next(folder for folder in FOLDERS if folder.name == "audio_base_padded"))
    assert result["ok"], result["error"]
    assert asked
    assert all(asked)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_plain_formulation_agrees(folder: Path) -> None:
    config, tensors, io = read(folder)
    if "model_cfg" not in config:
        produced = plain.run(config, tensors, io)
    else:
        produced = (plain_image.run_beit if "train_cfg" in config else plain_former.run)(config, tensors, io)
    problems, _ = compare(check.ran(config, tensors, io)[0], produced)
    assert not problems


def test_there_are_eleven_folders() -> None:
    assert len(FOLDERS) == 11


def test_broken_folder_is_reported_and_others_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(FOLDERS[-1], broken)
    (broken / "model.safetensors").write_bytes(b"no tensors")
    assert check.main([str(broken), str(tmp_path), str(FOLDERS[-1])]) == 1
    first, second, third = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert not first["ok"]
    assert first["error"]
    assert not second["ok"]
    assert "config.json" in second["error"]
    assert third["ok"]


@pytest.mark.parametrize("name", ["targets", "grad.blocks.0.attn.qkv.weight", "ema_after.0.mlp.fc1.weight"])
def test_perturbed_numbers_fail(tmp_path: Path, name: str) -> None:
    (source,) = (folder for folder in FOLDERS if folder.name == "text_base")
    folder = tmp_path / source.name
    shutil.copytree(source, folder)
    io = load_file(folder / "io.safetensors")
    io[name] += 1e-3 * io[name].abs().max()
    save_file(io, folder / "io.safetensors")
    result = check.check(folder)
    assert not result["ok"]
    assert str(result["error"]).startswith(f"{name} differs by")


def test_missing_output_fails(tmp_path: Path) -> None:
    folder = tmp_path / "more"
    shutil.copytree(FOLDERS[-1], folder)
    io = load_file(folder / "io.safetensors")
    save_file(io | {"grad.nothing.weight": torch.ones(2)}, folder / "io.safetensors")
    assert check.check(folder)["error"] == "grad.nothing.weight was not produced"


@pytest.mark.parametrize("folder", [one for one in FOLDERS if one.name != "vision_beit_v1"], ids=lambda one: one.name)
def test_every_field_of_the_reference_is_known(folder: Path) -> None:
    config, tensors, _ = read(folder)
    converted(config.get("model_cfg", config["model"]), tensors)  # an unknown field warns, and warnings are errors here


def test_plain_training_step_is_that_of_the_whole_run() -> None:
    config, tensors, io = read(next(one for one in FOLDERS if one.name == "image_base"))
    loss, grads = plain.train_step(config["model"], tensors, io)
    torch.testing.assert_close(loss, io["loss.total"])
    assert {f"grad.{name}" for name in grads} == {name for name in io if name.startswith("grad.")}


def test_old_alibi_scale_without_layer_axis() -> None:
    """Old files hold a scale of four axes; it means one layer."""
    config, tensors, io = read(next(one for one in FOLDERS if one.name == "audio_base"))
    scales = [name for name in tensors if name.endswith("alibi_scale")]
    old = tensors | {name: tensors[name][0] for name in scales}
    expected, produced = check.ran(config, old, io)
    problems, _ = compare(expected, produced)
    assert len(scales) == 2
    assert not problems


def test_a_file_without_teacher_gives_a_copy_of_the_student() -> None:
    (folder,) = (folder for folder in FOLDERS if folder.name == "image_large")
    config, tensors, _ = read(folder)
    one = converted(config["model"], {name: t for name, t in tensors.items() if not name.startswith("_ema.")})
    student = one.model.student.state_dict()
    assert all(torch.equal(tensor, student[name]) for name, tensor in one.model.teacher.module.state_dict().items())


@pytest.mark.parametrize("name", ["audio_base", "audio_v1_base", "text_v1_base", "vision_fairseq_v1"])
def test_more_layers_than_there_are_are_all_layers(name: str) -> None:
    (folder,) = (folder for folder in FOLDERS if folder.name == name)
    config, tensors, _ = read(folder)
    foreign = config.get("model_cfg", config["model"]) | {"average_top_k_layers": 99}
    one = converted(foreign, tensors)
    assert one.model.targets.layers == tuple(range(one.description.student.depth))
