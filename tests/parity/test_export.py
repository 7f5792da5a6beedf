"""Models that are written for Hugging Face: its own classes load them and compute the same."""

import shutil
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers import Data2VecAudioForCTC as ForCTC
from transformers import Data2VecAudioForSequenceClassification as ForAudio
from transformers import Data2VecTextForSequenceClassification as ForText
from transformers import Data2VecVisionForImageClassification as ForImages

from d2v.audio import AudioClassification
from d2v.core.cli import main
from d2v.core.description import Description
from d2v.core.exports import export_folder, form_of
from d2v.core.files import open_model
from d2v.core.jobs import convert
from d2v.core.labels import Classes, Number
from d2v.core.model import Batch
from d2v.text import TextRegression

DATA = Path(__file__).parent / "data"
SILENT = pytest.mark.filterwarnings(
    "ignore:the file does not say how images:UserWarning", "ignore:arguments.target_layers:UserWarning"
)


def loaded(path: Path, kind: Any = AutoModel, **options: Any) -> PreTrainedModel:
    """The model as users of that package load it; every tensor must find its place."""
    model, report = kind.from_pretrained(path, attn_implementation="eager", output_loading_info=True, **options)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    one: PreTrainedModel = model.eval()
    return one


def agree(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@torch.no_grad()
def test_speech(tmp_path: Path) -> None:
    file = DATA / "checkpoints/audio_v1_pretrained.pt"
    convert(file, tmp_path / "model", to="hugging-face")
    source = load_file(file.with_suffix(".io.safetensors"))["source"]
    theirs = loaded(tmp_path / "model")(source).last_hidden_state
    agree(open_model(file).student.eval().encode(Batch(source=source)).x, theirs)  # type: ignore[operator]


@torch.no_grad()
def test_speech_recognition(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = DATA / "checkpoints/audio_v1_ctc_finetuned.pt"
    assert main(["convert", str(file), str(tmp_path / "model"), "--to", "hugging-face"]) == 0
    assert capsys.readouterr().out.startswith("a CTC with 32 symbols of audio, ")
    io = load_file(file.with_suffix(".io.safetensors"))
    model = loaded(tmp_path / "model", ForCTC)
    agree(open_model(file).module.eval().logits(Batch(source=io["source"])), model(io["source"]).logits)  # type: ignore[operator]
    again = open_model(tmp_path / "model").description.labels
    assert again == attrs.evolve(open_model(file).description.labels, specials=again.specials)  # type: ignore[misc, union-attr]


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["mean", "projected-mean"])
def test_speech_classification(tmp_path: Path, pooling: Any) -> None:
    student = open_model(DATA / "checkpoints/audio_v1_pretrained.pt").description.student
    task = AudioClassification(pooling=pooling)
    described = Description(model=task.adapt(student), task=task, labels=Classes(("yes", "no")))
    module = described.build().eval()
    export_folder(tmp_path / "model", form_of("hugging-face", described.modality), module, described)
    source = torch.randn(2, 9000)
    agree(module.logits(Batch(source=source)), loaded(tmp_path / "model", ForAudio)(source).logits)  # type: ignore[operator]


@torch.no_grad()
def test_text(tmp_path: Path) -> None:
    file = DATA / "checkpoints/text_v1_pretrained.pt"
    convert(file, tmp_path / "model", to="hugging-face")
    ids = load_file(file.with_suffix(".io.safetensors"))["tokens"]
    theirs = loaded(tmp_path / "model", add_pooling_layer=False)(ids, attention_mask=(ids != 1).long())
    ours = open_model(file).student.eval().encode(Batch(source=ids)).x  # type: ignore[operator]
    agree(ours[ids != 1], theirs.last_hidden_state[ids != 1])


@torch.no_grad()
def test_text_regression(tmp_path: Path) -> None:
    """Numbers are on the scale of the labels."""
    student = open_model(DATA / "checkpoints/text_v1_pretrained.pt").description.student.unmasked()
    described = Description(model=student, task=TextRegression(label_scale=5.0), labels=Number())
    module = described.build().eval()
    export_folder(tmp_path / "model", form_of("hugging-face", described.modality), module, described)
    ids = torch.randint(4, 20, (3, 9))
    numbers = loaded(tmp_path / "model", ForText)(ids).logits[:, 0]
    agree(module.numbers(Batch(source=ids)), numbers)  # type: ignore[operator]


@SILENT
@torch.no_grad()
def test_images(tmp_path: Path) -> None:
    file = DATA / "checkpoints/vision_v1_pretrained_checkpoint-799.pth"
    convert(file, tmp_path / "model", to="hugging-face")
    images = load_file(file.with_suffix(".io.safetensors"))["pixels"]
    theirs = loaded(tmp_path / "model", add_pooling_layer=False)(images).last_hidden_state
    agree(open_model(file).student.eval().encode(Batch(source=images)).x, theirs)  # type: ignore[operator]
    data = open_model(tmp_path / "model").description.data["vision"]
    assert data["mean"] == [0.485, 0.456, 0.406]


@SILENT
@torch.no_grad()
def test_image_classification(tmp_path: Path) -> None:
    file = DATA / "checkpoints/vision_v1_finetuned_mp_rank_00_model_states.pt"
    convert(file, tmp_path / "model", to="hugging-face")
    images = load_file(file.with_suffix(".io.safetensors"))["pixels"]
    theirs = loaded(tmp_path / "model", ForImages)(images).logits
    agree(open_model(file).module.eval().logits(Batch(source=images)), theirs)  # type: ignore[operator]


@pytest.mark.parametrize("name", sorted(folder.name for folder in (DATA / "hf").iterdir()))
@pytest.mark.filterwarnings("ignore:the folder has no preprocessor_config:UserWarning")
def test_a_folder_comes_back(tmp_path: Path, name: str) -> None:
    """Written again, it is the same model; the tensors are those of the folder, without a pooler."""
    convert(DATA / "hf" / name, tmp_path / "model", to="hugging-face")
    before, after = open_model(DATA / "hf" / name), open_model(tmp_path / "model")
    assert after.description.model == before.description.model
    assert after.description.task == before.description.task
    assert AutoConfig.from_pretrained(tmp_path / "model").architectures
    for tensor, other in zip(before.module.state_dict().values(), after.module.state_dict().values(), strict=True):
        assert torch.equal(tensor, other)


def test_our_own_folder(tmp_path: Path) -> None:
    shutil.copy(DATA / "checkpoints/text_cls.pt", tmp_path)
    with pytest.raises(ValueError, match="same folder"):
        convert(tmp_path / "text_cls.pt", tmp_path / "model")
    pretrained = DATA / "checkpoints/text_pretrain.pt"
    done = convert(tmp_path / "text_cls.pt", tmp_path / "model", pretrained=pretrained)
    assert done.text().startswith("a TextClassification with 2 classes of text, ")
    one, other = open_model(tmp_path / "model"), open_model(tmp_path / "text_cls.pt", pretrained=pretrained)
    assert one.description == other.description
    for name, tensor in other.module.state_dict().items():
        assert torch.equal(one.module.state_dict()[name], tensor)
    with pytest.raises(FileExistsError, match="exists already"):
        convert(tmp_path / "model", tmp_path / "model")
