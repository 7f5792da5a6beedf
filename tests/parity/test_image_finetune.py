"""Image classifiers: the reference's folder and files, and the forms that they take."""

import shutil
from pathlib import Path

import check
import pytest
import torch
from safetensors.torch import load_file, save_file

from d2v.core import load
from d2v.core.files import open_model, save
from d2v.core.foreign import ForeignFileError
from d2v.core.labels import Classes

DATA = Path(__file__).parent / "data"
FOLDER, FILE = DATA / "finetune/image_cls_v2", DATA / "checkpoints/image_cls.pt"
BEIT = DATA / "checkpoints/vision_v1_finetuned_mp_rank_00_model_states.pt"
SILENT = pytest.mark.filterwarnings("ignore:the file does not say how images:UserWarning")


def test_library_agrees() -> None:
    result = check.check(FOLDER)
    assert result["ok"], result["error"]


@pytest.mark.parametrize("name", ["logits", "grad.head.weight", "mixed.loss_elements", "smoothed.loss"])
def test_perturbed_numbers_fail(tmp_path: Path, name: str) -> None:
    shutil.copytree(FOLDER, tmp_path / "case")
    io = load_file(FOLDER / "io.safetensors")
    io[name] += 1e-3 * io[name].abs().max()
    save_file(io, tmp_path / "case/io.safetensors")
    assert str(check.check(tmp_path / "case")["error"]).startswith(f"{name} differs by")


def changed(path: Path, **model: object) -> Path:
    """The file with other fields of its task."""
    contents = torch.load(FILE, weights_only=True)
    contents["cfg"]["model"] |= model
    torch.save({name: contents[name] for name in ("args", "cfg", "model")}, path)
    return path


def test_the_file_becomes_a_classifier() -> None:
    model = load(FILE)
    assert model.description.labels == Classes(tuple(map(str, range(10))))
    assert model.description.data["vision"]["size"] == 48
    (row,) = model.predict([torch.zeros(3, 60, 60, dtype=torch.uint8)])
    assert row["class"] in model.description.labels.names
    with pytest.raises(ValueError, match="no teacher"):
        load(FILE, weights="teacher")


def test_settings_of_the_task_change_the_computation(tmp_path: Path) -> None:
    source = load_file(DATA / "checkpoints/image_cls.io.safetensors")["source"]
    usual = check.case_image.checkpoint(open_model(FILE).module.eval(), {"source": source})["logits"]
    for model in ({"norm_eps": 0.5}, {"prediction_mode": "CLS_TOKEN"}, {"prediction_mode": "PredictionMode.CLS_TOKEN"}):
        module = open_model(changed(tmp_path / "file.pt", **model)).module.eval()
        assert not torch.allclose(check.case_image.checkpoint(module, {"source": source})["logits"], usual, atol=1e-3)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"prediction_mode": "LIN_SOFTMAX"}, "prediction_mode='LIN_SOFTMAX'"),
        ({"num_classes": 7}, "num_classes=7"),
        ({"use_fc_norm": False}, "unexpected: fc_norm.weight"),
    ],
)
def test_other_forms_are_refused_by_name(tmp_path: Path, model: dict[str, object], message: str) -> None:
    with pytest.raises(ForeignFileError, match=r"file\.pt: ") as caught:
        open_model(changed(tmp_path / "file.pt", **model))
    assert message in str(caught.value)


def test_unknown_fields_and_dropouts_are_mentioned(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="do(es)? not know: of_tomorrow"):
        open_model(changed(tmp_path / "file.pt", of_tomorrow=1))
    with pytest.warns(UserWarning, match="encoder_dropout=0.1.*not taken over"):
        open_model(changed(tmp_path / "file.pt", encoder_dropout=0.1))


def test_a_classifier_without_its_encoders_configuration(tmp_path: Path) -> None:
    """It is in the pretrained file, which is beside it or named."""
    path = changed(tmp_path / "file.pt", pretrained_model_args=None)
    pretrained = DATA / "checkpoints/image_pretrain.pt"
    with pytest.raises(ForeignFileError, match=r"pretrained/image_pretrain.pt' into the same folder"):
        open_model(path)
    named = open_model(path, pretrained=pretrained)
    shutil.copy(pretrained, tmp_path)
    assert open_model(path).description == named.description


@SILENT
@pytest.mark.parametrize("layout", ["module", "model", "whole"])
def test_layouts_of_beit_files(tmp_path: Path, layout: str) -> None:
    state = torch.load(BEIT, weights_only=True)["module"]
    torch.save(state if layout == "whole" else {layout: state}, tmp_path / "file.pth")
    found, first = open_model(tmp_path / "file.pth"), open_model(BEIT)
    assert found.description == first.description
    assert found.description.data["vision"]["mean"] == [0.5]
    for name, tensor in first.module.state_dict().items():
        assert torch.equal(tensor, found.module.state_dict()[name])


def test_arguments_of_beit_files(tmp_path: Path) -> None:
    state = torch.load(BEIT, weights_only=True)["module"]
    arguments = {"imagenet_default_mean_and_std": True, "drop_path": 0.2}
    torch.save({"model": state, "args": arguments}, tmp_path / "file.pth")
    found = open_model(tmp_path / "file.pth").description
    assert "mean" not in found.data["vision"]
    assert found.task is not None
    assert found.task.drop_path_rate == 0.2  # type: ignore[attr-defined]
    save(tmp_path / "model", open_model(tmp_path / "file.pth").module, found)
    assert open_model(tmp_path / "model").description == found


@SILENT
def test_beit_classifiers_of_the_class_token(tmp_path: Path) -> None:
    """They keep the last norm instead of one after the mean."""
    state = torch.load(BEIT, weights_only=True)["module"]
    state = {name.replace("fc_norm", "norm"): tensor for name, tensor in state.items()}
    torch.save({"module": state}, tmp_path / "file.pt")
    model = open_model(tmp_path / "file.pt")
    task = model.description.task
    assert task is not None
    assert (task.pooling, task.norm) == ("class-token", False)  # type: ignore[attr-defined]
    torch.save({"module": {n: t for n, t in state.items() if not n.startswith("norm.")}}, tmp_path / "file.pt")
    with pytest.raises(ForeignFileError, match="neither fc_norm"):
        open_model(tmp_path / "file.pt")
