"""The class of Hugging Face for encoders that the transformers package has no class of."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoFeatureExtractor, AutoImageProcessor, AutoModel

import d2v.hugging_face  # noqa: F401 - registers the class
from d2v.core import load
from d2v.core.files import open_model
from d2v.core.jobs import convert
from d2v.core.model import Batch
from d2v.core.registry import UnknownNameError

CHECKPOINTS = Path(__file__).parents[1] / "parity/data/checkpoints"
MODELS = {"image_pretrain.pt": "pixel_values", "audio_pretrain.pt": "input_values", "text_pretrain.pt": "input_ids"}


def inputs(name: str) -> dict[str, Any]:
    """Two samples by the names of the package; sequences are padded."""
    if name == "image_pretrain.pt":
        config: Any = open_model(CHECKPOINTS / name).description.student
        return {"pixel_values": torch.randn(2, 3, *config.adapters["vision"].image_size)}
    if name == "audio_pretrain.pt":
        mask = torch.ones(2, 9000, dtype=torch.long)
        mask[1, 6000:] = 0
        return {"input_values": torch.randn(2, 9000) * mask, "attention_mask": mask}
    ids = torch.randint(4, 20, (2, 9))
    ids[1, 5:] = 1
    return {"input_ids": ids, "attention_mask": (ids != 1).long()}


def batch_of(given: dict[str, Any]) -> Batch:
    mask = given.get("attention_mask")
    source = next(one for name, one in given.items() if name != "attention_mask")
    return Batch(source=source, padding=None if mask is None else mask == 0)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_the_package_computes_the_same(tmp_path: Path, name: str) -> None:
    done = convert(CHECKPOINTS / name, tmp_path / "model", to="hugging-face")
    assert done.text().startswith("an encoder of ")
    model, report = AutoModel.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not model.training
    assert "import d2v.hugging_face" in (tmp_path / "model/README.md").read_text()
    assert model.main_input_name == MODELS[name]
    given = inputs(name)
    ours = load(CHECKPOINTS / name)
    encoded = ours.encoder.encode(batch_of(given))
    entered: list[torch.Tensor] = []
    model.encoder.encoder.blocks[0].register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    out = model(**given, output_hidden_states=True)
    assert torch.equal(out.last_hidden_state, encoded.x)
    assert len(out.hidden_states) == ours.description.student.depth + 1
    assert torch.equal(out.hidden_states[0], entered[0])
    features = ours.features(batch_of(given), layers=0)
    valid = slice(None) if features.padding is None else ~features.padding
    assert torch.equal(out.hidden_states[1][:, encoded.num_prefix_tokens :][valid], features.x[valid])
    assert model(next(iter(given.values()))[:1], return_dict=False)[0].shape == encoded.x[:1].shape


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_a_folder_that_the_package_saved_is_read_by_both(tmp_path: Path, name: str) -> None:
    convert(CHECKPOINTS / name, tmp_path / "model", to="hugging-face")
    model = AutoModel.from_pretrained(tmp_path / "model")
    model.save_pretrained(tmp_path / "again", max_shard_size="20KB")
    assert len(list((tmp_path / "again").glob("*.safetensors"))) > 1
    given = inputs(name)
    expected = model(**given).last_hidden_state
    assert torch.equal(AutoModel.from_pretrained(tmp_path / "again")(**given).last_hidden_state, expected)
    for folder in ("model", "again"):
        ours = load(tmp_path / folder)
        assert torch.equal(ours.encoder.encode(batch_of(given)).x, expected)
        assert ours.description.data == open_model(CHECKPOINTS / name).description.data


def test_a_head_that_no_class_has_is_mentioned(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="not the head of the ImageClassification: .*computes the same"):
        done = convert(CHECKPOINTS / "image_cls.pt", tmp_path / "model", to="hugging-face")
    assert done.description.task is None
    assert sum(one.numel() for one in AutoModel.from_pretrained(tmp_path / "model").parameters()) == done.parameters


def test_preparation_is_read_by_the_package(tmp_path: Path) -> None:
    convert(CHECKPOINTS / "image_pretrain.pt", tmp_path / "image", to="hugging-face")
    convert(CHECKPOINTS / "audio_pretrain.pt", tmp_path / "audio", to="hugging-face")
    assert list(AutoImageProcessor.from_pretrained(tmp_path / "image").image_mean) == [0.485, 0.456, 0.406]
    assert AutoFeatureExtractor.from_pretrained(tmp_path / "audio").sampling_rate == 16_000


def test_initial_weights_and_half_precision(tmp_path: Path) -> None:
    convert(CHECKPOINTS / "audio_pretrain.pt", tmp_path / "model", to="hugging-face")
    config = AutoConfig.from_pretrained(tmp_path / "model")
    assert config.hidden_size == open_model(tmp_path / "model").description.student.embed_dim
    fresh, given = AutoModel.from_config(config).eval(), inputs("audio_pretrain.pt")
    assert fresh(**given).last_hidden_state.isfinite().all()
    half = AutoModel.from_pretrained(tmp_path / "model", dtype=torch.bfloat16)
    assert {one.dtype for one in half.parameters()} == {torch.bfloat16}
    whole = AutoModel.from_pretrained(tmp_path / "model")(**given).last_hidden_state
    given["input_values"] = given["input_values"].bfloat16()
    assert (half(**given).last_hidden_state - whole).abs().mean() < 0.1 * whole.abs().mean()


def test_bad_folders_and_inputs(tmp_path: Path) -> None:
    convert(CHECKPOINTS / "text_pretrain.pt", tmp_path / "model", to="hugging-face")
    model = AutoModel.from_pretrained(tmp_path / "model")
    ids = torch.tensor([[4, 5]])
    for wrong in ({}, {"pixel_values": ids}, {"inputs": ids, "input_ids": ids}):
        with pytest.raises(TypeError, match="give one input, input_ids"):
            model(**wrong)
    weights = load_file(tmp_path / "model/model.safetensors")
    lost = weights.pop("encoder.encoder.blocks.0.norm1.weight")
    save_file(weights, tmp_path / "model/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="no weights for weight of a LayerNorm"):
        AutoModel.from_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=r"missing: encoder\.blocks\.0\.norm1\.weight"):
        open_model(tmp_path / "model")
    save_file(
        weights | {"encoder.encoder.blocks.0.norm1.weight": lost * torch.nan}, tmp_path / "model/model.safetensors"
    )
    with pytest.raises(ValueError, match="not finite"):
        open_model(tmp_path / "model")
    path = tmp_path / "model/config.json"
    values = json.loads(path.read_text())
    values["d2v"]["model"]["encoder"]["kind"] = "os.system"
    path.write_text(json.dumps(values))
    for read in (open_model, AutoModel.from_pretrained):
        with pytest.raises(ValueError, match=r"os\.system"):
            read(tmp_path / "model")
    values["d2v"] |= {"format": 99}
    path.write_text(json.dumps(values))
    for read in (open_model, AutoModel.from_pretrained):
        with pytest.raises(ValueError, match="format 99"):
            read(tmp_path / "model")
    for empty in ({"format": 1}, {"format": 1, "model": 3}):
        path.write_text(json.dumps(values | {"d2v": empty}))
        with pytest.raises(ValueError, match="describes no encoder"):
            AutoModel.from_pretrained(tmp_path / "model")


def test_forms_are_listed(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"text models have no form 'huggingface' .*did you mean 'hugging-face'"):
        convert(CHECKPOINTS / "text_pretrain.pt", tmp_path / "model", to="huggingface")
    assert not list(tmp_path.iterdir())


def test_the_extra_is_named_if_the_package_is_missing() -> None:
    program = "import sys; sys.modules['transformers'] = None\nimport d2v.hugging_face"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "pip install 'd2v[hugging-face]'" in done.stderr.splitlines()[-1]
