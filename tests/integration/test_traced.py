"""Encoders as graphs, run by torch.export and ONNX Runtime: the numbers are those of the model."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from d2v.audio import LogMelAdapterConfig
from d2v.core.description import Description
from d2v.core.exports import forms_for
from d2v.core.files import open_model, save
from d2v.core.jobs import convert
from d2v.core.model import BackboneConfig, Batch, BlockConfig, TransformerConfig
from d2v.core.registry import MissingExtraError

CHECKPOINTS = Path(__file__).parents[1] / "parity/data/checkpoints"
IMAGE, AUDIO, TEXT = "image_pretrain.pt", "audio_pretrain.pt", "text_pretrain.pt"
FORMER = ["vision_v1_pretrained_checkpoint-799.pth", "audio_v1_pretrained.pt", "text_v1_pretrained.pt"]
NAMES = {"vision": "pixel_values", "audio": "input_values", "text": "input_ids"}
SILENT = pytest.mark.filterwarnings(
    "ignore:the file does not say how images:UserWarning", "ignore:arguments.target_layers:UserWarning"
)
LONG = pytest.mark.long


def samples(student: Any) -> Iterator[tuple[Tensor, ...]]:
    """Batches of one to three samples, of several lengths, with and without padding."""
    ((modality, adapter),) = student.adapters.items()
    if modality == "vision":
        for b in (1, 3):
            yield (torch.randn(b, adapter.channels, *adapter.image_size),)
        return
    lengths = (1, 9, adapter.max_length) if modality == "text" else (adapter.shortest, 5000, 9001)
    for b, length in zip((1, 2, 3), lengths, strict=True):
        mask = torch.ones(b, length, dtype=torch.long)
        if b > 1:
            mask[1, length * 2 // 3 :] = 0
        if modality == "text":
            yield torch.randint(4, 20, (b, length)).masked_fill(mask == 0, adapter.padding_id), mask
        else:
            yield torch.randn(b, length) * mask, mask


def check(path: Path, run: Callable[[Sequence[Tensor]], Sequence[Tensor]]) -> None:
    """Compare outputs with the model's; where all is valid, the model leaves padding out of its computation."""
    stored = open_model(path)
    encoder: Any = stored.student.eval()
    for arguments in samples(stored.description.student):
        source, *masks = arguments
        encoded = encoder.encode(Batch(source=source, padding=masks[0] == 0 if masks else None))
        x, *valid = run(arguments)
        assert x.shape == encoded.x.shape
        assert (x - encoded.x).abs().max() <= 1e-5 * encoded.x.abs().max()
        assert len(valid) == len(masks)
        if masks:
            expected = torch.zeros(x.shape[:2], dtype=torch.bool) if encoded.padding is None else encoded.padding
            assert torch.equal(valid[0], (~expected).long())


@SILENT
@torch.no_grad()
@LONG
@pytest.mark.parametrize("name", [IMAGE, AUDIO, *FORMER])
def test_programs_of_torch(tmp_path: Path, name: str) -> None:
    done = convert(CHECKPOINTS / name, tmp_path / "model", to="torch-export")
    assert done.text().startswith("an encoder of ")
    program = torch.export.load(tmp_path / "model/model.pt2").module()

    def run(arguments: Sequence[Tensor]) -> Sequence[Tensor]:
        out = program(*arguments)
        return out if isinstance(out, tuple) else (out,)

    check(CHECKPOINTS / name, run)
    inputs = json.loads((tmp_path / "model/config.json").read_text())["inputs"]
    assert next(iter(inputs)) == NAMES[done.description.modality]
    assert next(iter(inputs.values()))[0] == "batch"


def onnx_agrees(path: Path, folder: Path) -> None:
    """Write a model as ONNX and compare its numbers."""
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    convert(path, folder, to="onnx")
    session = runtime.InferenceSession(folder / "model.onnx")
    names = [one.name for one in session.get_inputs()]
    assert names == list(json.loads((folder / "config.json").read_text())["inputs"])
    assert [one.name for one in session.get_outputs()] == ["last_hidden_state", "output_attention_mask"][: len(names)]

    def run(arguments: Sequence[Tensor]) -> Sequence[Tensor]:
        given = {key: one.numpy() for key, one in zip(names, arguments, strict=True)}
        return [torch.from_numpy(one) for one in session.run(None, given)]

    check(path, run)


@SILENT
@torch.no_grad()
@pytest.mark.parametrize("name", [TEXT, *(pytest.param(name, marks=LONG) for name in [IMAGE, AUDIO, *FORMER])])
def test_onnx_runtime(tmp_path: Path, name: str) -> None:
    onnx_agrees(CHECKPOINTS / name, tmp_path / "model")


@LONG
@torch.no_grad()
def test_log_mel_spectrograms(tmp_path: Path) -> None:
    """Their front end has a Fourier transform, and pads short recordings."""
    block = BlockConfig(embed_dim=16, num_heads=2)
    adapter = LogMelAdapterConfig(positions_groups=4, positions_depth=1)
    student = BackboneConfig(encoder=TransformerConfig(block=block, depth=1), adapters={"audio": adapter})
    save(tmp_path / "model", student.build(), Description(model=student))
    convert(tmp_path / "model", tmp_path / "program", to="torch-export")
    program = torch.export.load(tmp_path / "program/model.pt2").module()
    check(tmp_path / "model", lambda arguments: program(*arguments))
    onnx_agrees(tmp_path / "model", tmp_path / "onnx")


@torch.no_grad()
def test_a_program_of_text_and_the_sizes_that_it_refuses(tmp_path: Path) -> None:
    convert(CHECKPOINTS / TEXT, tmp_path / "model", to="torch-export")
    program = torch.export.load(tmp_path / "model/model.pt2").module()
    check(CHECKPOINTS / TEXT, lambda arguments: program(*arguments))
    student: Any = open_model(CHECKPOINTS / TEXT).description.student
    longest = student.adapters["text"].max_length
    ids = torch.full((1, longest + 1), 5)
    with pytest.raises((RuntimeError, AssertionError), match=str(longest)):
        program(ids, torch.ones_like(ids))


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d2v.core.exports.forms.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"the form onnx needs onnx, onnxscript: pip install 'd2v\[export\]'"):
        convert(CHECKPOINTS / TEXT, tmp_path / "model", to="onnx")
    assert not list(tmp_path.iterdir())


def test_forms_of_every_modality() -> None:
    assert {"hugging-face", "onnx", "torch-export"} <= forms_for("audio").keys()
