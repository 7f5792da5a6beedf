"""Published checkpoint files, as the original's own trainer writes them at toy size."""

import shutil
from pathlib import Path

import check
import pytest
import torch
from safetensors.torch import load_file, save_file

from d2v.core.files import open_model
from d2v.core.foreign import ForeignFileError
from d2v.core.labels import Classes

DATA = Path(__file__).parent / "data/checkpoints"
FILES = sorted(path for path in DATA.iterdir() if path.with_name(f"{path.stem}.io.safetensors").is_file())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_features_agree(path: Path) -> None:
    result = check.check(path)
    assert result["ok"], result["error"]


def test_there_are_eleven_files() -> None:
    assert len(FILES) == 11


@pytest.mark.filterwarnings("ignore:arguments.target_layers:UserWarning")  # blocks that the toy model lacks
@pytest.mark.filterwarnings("ignore:the file does not say how images:UserWarning")  # it has no arguments
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_field_of_the_files_is_known(path: Path) -> None:
    open_model(path)  # an unknown field warns, and warnings are errors here


def test_weights_are_those_of_the_folder_that_the_file_was_made_from() -> None:
    """Student and teacher."""
    tensors = load_file(DATA.parent / "v2/image_base/model.safetensors")
    model = open_model(DATA / "image_pretrain.pt").module
    norm = "blocks.0.norm1.weight"
    assert torch.equal(model.student.encoder.get_parameter(norm), tensors[norm])
    assert torch.equal(model.teacher.module.encoder.state_dict()[norm], tensors[f"_ema.{norm}"])


@pytest.mark.parametrize("shape", [(1, 6, 1, 1), (6, 1, 1)])
def test_old_shapes_of_the_distance_bias(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Files of older code lack the axis of the layers, or that of the batch as well."""
    contents = torch.load(DATA / "audio_pretrain.pt", weights_only=True)
    name = "modality_encoders.AUDIO.alibi_scale"
    contents["model"][name] = contents["model"][name].reshape(shape)
    torch.save({key: contents[key] for key in ("cfg", "model", "args")}, tmp_path / "file.pt")
    before, after = open_model(DATA / "audio_pretrain.pt"), open_model(tmp_path / "file.pt")
    for one, other in zip(before.module.state_dict().values(), after.module.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_file_tells_how_images_were_prepared() -> None:
    found = open_model(DATA / "image_pretrain.pt").description
    assert found.modality == "vision"
    assert found.data == {"vision": {"kind": "vision/images", "size": 48, "channels": 3}}


@pytest.mark.parametrize(("name", "message"), [("hostile_pickle", "io.open"), ("truncated", "cut off")])
def test_broken_files_end_in_one_line(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ForeignFileError, match=rf"{name}\.pt: .*{message}") as caught:
        open_model(DATA / f"{name}.pt")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_perturbed_numbers_fail(tmp_path: Path) -> None:
    shutil.copy(DATA / "text_pretrain.pt", tmp_path)
    io = load_file(DATA / "text_pretrain.io.safetensors")
    io["features.layer.1"] += 1e-3 * io["features.layer.1"].abs().max()
    save_file(io, tmp_path / "text_pretrain.io.safetensors")
    assert str(check.check(tmp_path / "text_pretrain.pt")["error"]).startswith("features.layer.1 differs by")


def test_a_classifier_needs_the_pretrained_file_beside_it(tmp_path: Path) -> None:
    """The toolkit stores the configuration of the encoder only there; folders in its stored name do not count."""
    (tmp_path / "pretrained").mkdir()
    shutil.copy(DATA / "text_cls.pt", tmp_path)
    shutil.copy(DATA / "text_pretrain.pt", tmp_path / "pretrained")  # the stored name is pretrained/text_pretrain.pt
    with pytest.raises(ForeignFileError, match=r"pretrained/text_pretrain.pt' into the same folder"):
        open_model(tmp_path / "text_cls.pt")
    shutil.copy(DATA / "text_pretrain.pt", tmp_path)
    found = open_model(tmp_path / "text_cls.pt").description
    assert found.labels == Classes(("0", "1"))
    (tmp_path / "text_pretrain.pt").write_bytes(b"something else")
    with pytest.raises(ForeignFileError, match=r"text_pretrain\.pt"):
        open_model(tmp_path / "text_cls.pt")
