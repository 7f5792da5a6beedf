"""Folders of Hugging Face models: the reference's, and random ones of the classes themselves."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import check
import pytest
import torch
from hugging_face_models import agree, audio_config, text_config, vision_config, written
from safetensors.torch import load_file, save_file
from sentences import reviews
from transformers import (
    BeitConfig,
    BeitModel,
    Data2VecAudioConfig,
    Data2VecAudioForCTC,
    Data2VecAudioForSequenceClassification,
    Data2VecAudioModel,
    Data2VecTextConfig,
    Data2VecTextForMaskedLM,
    Data2VecTextForSequenceClassification,
    Data2VecTextModel,
    Data2VecVisionConfig,
    Data2VecVisionForImageClassification,
    Data2VecVisionModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
)

from d2v.core import load
from d2v.core.files import open_model, save
from d2v.core.foreign import ForeignFileError
from d2v.core.labels import Classes, Symbols
from d2v.core.model import Batch
from d2v.text.tokenizing import train_tokenizer, write_tokenizer

DATA = Path(__file__).parent / "data/hf"
FOLDERS = sorted(folder for folder in DATA.iterdir())
pytestmark = pytest.mark.filterwarnings("ignore:the folder has no preprocessor_config:UserWarning")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_library_agrees(folder: Path) -> None:
    result = check.check(folder)
    assert result["ok"], result["error"]


def test_there_are_seven_folders() -> None:
    assert len(FOLDERS) == 7


@pytest.mark.parametrize("name", ["hidden_states.1", "masked.last_hidden_state", "extract_features"])
def test_perturbed_numbers_fail(tmp_path: Path, name: str) -> None:
    shutil.copytree(DATA / "audio_model", tmp_path / "case")
    io = load_file(tmp_path / "case/io.safetensors")
    io[name] += 1e-3 * io[name].abs().max()
    save_file(io, tmp_path / "case/io.safetensors")
    assert str(check.check(tmp_path / "case")["error"]).startswith(f"{name} differs by")


@pytest.mark.parametrize("seed", range(6))
@torch.no_grad()
def test_speech(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    model = written(tmp_path, Data2VecAudioModel(audio_config(draw)), pickled=seed % 2 == 1)
    source, padding = torch.randn(2, 900), torch.zeros(2, 900, dtype=torch.bool)
    padding[1, 700:] = True
    theirs = model(source, attention_mask=(~padding).long()).last_hidden_state
    agree(load(tmp_path).encoder.encode(Batch(source=source, padding=padding)).x, theirs)


@pytest.mark.parametrize("kind", [Data2VecAudioForCTC, Data2VecAudioForSequenceClassification])
@torch.no_grad()
def test_speech_with_heads(tmp_path: Path, kind: Callable[[Data2VecAudioConfig], PreTrainedModel]) -> None:
    config = audio_config(
        random.Random(7), vocab_size=12, classifier_proj_size=5, id2label={0: "yes", 1: "no"}, pad_token_id=2
    )
    model = written(tmp_path, kind(config))
    source = torch.randn(2, 900)
    loaded = load(tmp_path)
    agree(loaded.module.logits(Batch(source=source)), model(source).logits)  # type: ignore[operator]
    if kind is Data2VecAudioForCTC:
        assert isinstance(loaded.description.labels, Symbols)
        assert loaded.description.labels.blank_number == 2
    else:
        assert loaded.description.labels == Classes(("yes", "no"))
    save(tmp_path / "ours", loaded.module, loaded.description)
    again = open_model(tmp_path / "ours").module.eval()
    assert torch.equal(again.logits(Batch(source=source)), loaded.module.logits(Batch(source=source)))  # type: ignore[operator]


def test_symbols_of_the_vocabulary(tmp_path: Path) -> None:
    shutil.copytree(DATA / "audio_ctc", tmp_path / "model")
    names = ["<pad>", "<s>", "</s>", "<unk>", "|", *map(chr, range(65, 90))]
    (tmp_path / "model/vocab.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
    model = load(tmp_path / "model")
    labels = model.description.labels
    assert isinstance(labels, Symbols)
    assert (labels.symbols, labels.blank, labels.boundary) == (tuple(names), "<pad>", "|")
    (row,) = model.predict(Batch(source=torch.randn(1, 9000)))
    assert isinstance(row["text"], str)


@pytest.mark.parametrize("seed", range(6))
@torch.no_grad()
def test_text(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    fields = text_config(draw)
    kind = Data2VecTextModel if seed % 3 else RobertaModel
    config = Data2VecTextConfig(**fields) if seed % 3 else RobertaConfig(**fields)
    model = written(tmp_path, kind(config), pickled=seed % 2 == 1)
    ids = torch.randint(4, fields["vocab_size"], (3, 9))
    ids[1, 5:] = 1
    theirs = model(ids, attention_mask=(ids != 1).long()).last_hidden_state
    agree(load(tmp_path).encoder.encode(Batch(source=ids)).x, theirs)


@torch.no_grad()
def test_text_with_heads(tmp_path: Path) -> None:
    config = Data2VecTextConfig(**text_config(random.Random(1), num_labels=3, id2label={0: "a", 1: "b", 2: "b"}))
    model = written(tmp_path / "classes", Data2VecTextForSequenceClassification(config))
    ids = torch.randint(4, 40, (3, 9))
    found = load(tmp_path / "classes")
    agree(found.module.logits(Batch(source=ids)), model(ids).logits)  # type: ignore[operator]
    assert found.description.labels == Classes(("a", "b", "b (2)"))
    assert found.predict(Batch(source=ids))[0]["class"] in ("a", "b", "b (2)")
    model = written(tmp_path / "masked", Data2VecTextForMaskedLM(config))
    with pytest.warns(UserWarning, match="only the encoder was read.*lm_head"):
        found = load(tmp_path / "masked")
    agree(found.encoder.encode(Batch(source=ids)).x, model.data2vec_text(ids).last_hidden_state)


def test_texts_are_read_with_the_tokenizer_of_the_folder(tmp_path: Path) -> None:
    tokenizer = train_tokenizer([text for text, _ in reviews(200)], vocabulary_size=300)
    fields = text_config(random.Random(1), vocab_size=tokenizer.vocabulary_size, num_labels=2)
    written(tmp_path, Data2VecTextForSequenceClassification(Data2VecTextConfig(**fields)))
    write_tokenizer(tokenizer, tmp_path)
    model = load(tmp_path)
    assert model.features(["a moving film", "the plot"]).x.shape[0] == 2
    assert [row["class"] in ("0", "1") for row in model.predict(["a moving film"])] == [True]
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.warns(UserWarning, match="tokenizer in the folder is not used"):
        open_model(tmp_path)


@pytest.mark.parametrize("seed", range(8))
@torch.no_grad()
def test_images(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    fields = vision_config(draw)
    kind = Data2VecVisionModel if seed % 4 else BeitModel
    config = Data2VecVisionConfig(**fields) if seed % 4 else BeitConfig(**fields)
    model = written(tmp_path, kind(config, add_pooling_layer=seed % 2 == 0), pickled=seed % 3 == 1)
    images = torch.randn(2, fields["num_channels"], fields["image_size"], fields["image_size"])
    agree(load(tmp_path).encoder.encode(Batch(source=images)).x, model(images).last_hidden_state)


@pytest.mark.parametrize("pooled", [True, False])
@torch.no_grad()
def test_images_with_heads(tmp_path: Path, pooled: bool) -> None:
    labels = {number: f"LABEL_{number}" for number in range(3)} | {1: "cat"}
    config = Data2VecVisionConfig(**vision_config(random.Random(2), use_mean_pooling=pooled, id2label=labels))
    model = written(tmp_path, Data2VecVisionForImageClassification(config))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1], "image_std": [0.2]}))
    images = torch.randn(2, config.num_channels, config.image_size, config.image_size)
    found = load(tmp_path)
    agree(found.module.logits(Batch(source=images)), model(images).logits)  # type: ignore[operator]
    assert found.description.labels == Classes(("0", "cat", "2"))
    assert found.description.data["vision"]["mean"] == [0.1]


def test_an_encoder_alone_is_saved_and_trained_on(tmp_path: Path) -> None:
    found = open_model(DATA / "vision_model")
    save(tmp_path / "model", found.module, found.description)
    again = open_model(tmp_path / "model")
    assert again.description == found.description
    assert again.description.task is None
    batch = Batch(source=torch.randn(1, 3, 48, 48))
    assert torch.equal(
        load(tmp_path / "model").encoder.encode(batch).x, load(DATA / "vision_model").encoder.encode(batch).x
    )
    with pytest.raises(ValueError, match="an encoder and has no teacher"):
        load(tmp_path / "model", weights="teacher")
    with pytest.raises(ValueError, match="not fine-tuned"):
        load(tmp_path / "model").predict(batch)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("audio_model", {"add_adapter": True}, "add_adapter=True"),
        ("audio_model", {"hidden_act": "swish"}, "hidden_act='swish'"),
        ("audio_model", {"feat_extract_activation": "relu"}, "feat_extract_activation='relu'"),
        ("audio_model", {"conv_dim": [16]}, "different lengths"),
        ("audio_model", {"conv_dim": "x"}, "must be lists"),
        ("audio_model", {"conv_pos_kernel_size": 2}, "conv_pos_kernel_size=2"),
        ("audio_model", {"hidden_size": 1 << 16}, "more than"),
        ("audio_model", {"num_hidden_layers": 4}, "missing: encoder.layers.3"),
        ("text_model", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ("text_model", {"is_decoder": True}, "is_decoder=True"),
        ("text_model", {"num_attention_heads": 5}, "num_heads=5"),
        ("text_seqcls", {"problem_type": "multi_label_classification"}, "multi_label"),
        ("vision_model", {"image_size": 1 << 14}, "image_size"),
        ("vision_model", {"pruned_heads": {"0": [1]}}, "pruned_heads"),
    ],
)
def test_what_changes_the_computation_is_refused_by_name(
    tmp_path: Path, name: str, fields: dict[str, Any], message: str
) -> None:
    shutil.copytree(DATA / name, tmp_path / "model")
    path = tmp_path / "model/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    with pytest.raises(ForeignFileError, match="model: ") as caught:
        open_model(tmp_path / "model")
    assert message in str(caught.value)


def test_unknown_fields_are_mentioned(tmp_path: Path) -> None:
    shutil.copytree(DATA / "text_model", tmp_path / "model")
    path = tmp_path / "model/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"of_tomorrow": 1}))
    with pytest.warns(UserWarning, match="of_tomorrow"):
        open_model(tmp_path / "model")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cut off"),
        (b"\xff" * 8, "cut off"),
        ((1 << 40).to_bytes(8, "little") + b"{}", "cut off"),
        ((2).to_bytes(8, "little") + b"[]", "not a mapping"),
        ((2).to_bytes(8, "little") + b"[[", "Expecting"),
        (b'{"a": {"dtype": "F32", "shape": [1000000000000], "data_offsets": [0, 4000000000000]}}', "missing"),
        (b'{"a": {"dtype": "F32", "shape": [1000000000000, 0], "data_offsets": [0, 4]}}', "does not fit"),
        (b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}', "missing"),
        (b'{"a": {"dtype": "F4", "shape": [1], "data_offsets": [0, 4]}}', "unsupported type"),
        (
            b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, '
            b'"b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
            "share",
        ),
        (b'{"a": 3}', "TypeError"),
    ],
)
def test_broken_weights_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    shutil.copytree(DATA / "text_model", tmp_path / "model")
    whole = len(content).to_bytes(8, "little") + content + b"\0" * 4 if content.startswith(b"{") else content
    (tmp_path / "model/model.safetensors").write_bytes(whole)
    with pytest.raises(ForeignFileError, match=message):
        open_model(tmp_path / "model")


def test_malicious_weights_are_refused(tmp_path: Path) -> None:
    shutil.copytree(DATA / "text_model", tmp_path / "model")
    (tmp_path / "model/model.safetensors").unlink()
    shutil.copy(DATA.parent / "checkpoints/hostile_pickle.pt", tmp_path / "model/pytorch_model.bin")
    with pytest.raises(ForeignFileError, match=r"calls io\.open; nothing was run"):
        open_model(tmp_path / "model")


def test_folders_without_weights_say_what_is_missing(tmp_path: Path) -> None:
    shutil.copytree(DATA / "text_model", tmp_path / "model")
    (tmp_path / "model/model.safetensors").rename(tmp_path / "model/model-00001-of-00002.safetensors")
    with pytest.raises(ForeignFileError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        open_model(tmp_path / "model")


@pytest.mark.parametrize("pickled", [False, True])
@torch.no_grad()
def test_weights_in_several_files(tmp_path: Path, pickled: bool) -> None:
    """As the package divides them itself, or as its older versions did."""
    model = written(tmp_path, Data2VecTextModel(Data2VecTextConfig(**text_config(random.Random(3)))))
    whole = tmp_path / "model.safetensors"
    before = open_model(tmp_path).module.state_dict()
    whole.unlink()
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    assert not whole.exists()
    parts = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(parts) > 1
    if pickled:
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        for part in parts:
            torch.save(load_file(part), part.with_suffix(".bin"))
            part.unlink()
        renamed = {name: file.replace(".safetensors", ".bin") for name, file in index["weight_map"].items()}
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": renamed}))
        (tmp_path / "model.safetensors.index.json").unlink()
    after = open_model(tmp_path).module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@torch.no_grad()
def test_encoders_of_another_repository(tmp_path: Path) -> None:
    """Its files hold the encoder as a plain state dict, without a configuration."""
    fields = text_config(
        random.Random(0), hidden_size=64, num_attention_heads=1, hidden_act="gelu", layer_norm_eps=1e-5
    )
    model = written(tmp_path / "text", RobertaModel(RobertaConfig(**fields)))
    torch.save({"data2vec": {}, "encoder": model.state_dict(), "optimizer": {}}, tmp_path / "file.pt")
    ids = torch.randint(4, 40, (2, 7))
    with pytest.warns(UserWarning, match="no configuration.*64 channels"):
        found = load(tmp_path / "file.pt")
    agree(found.encoder.encode(Batch(source=ids)).x, model(ids).last_hidden_state)

    fields = text_config(random.Random(0), hidden_act="relu")
    model = written(tmp_path / "other", RobertaModel(RobertaConfig(**fields)))
    torch.save({"data2vec": {}, "encoder": model.state_dict(), "optimizer": {}}, tmp_path / "file.pt")
    with pytest.raises(ForeignFileError, match=r"number of heads.*config\.json"):
        open_model(tmp_path / "file.pt")
    shutil.copy(tmp_path / "other/config.json", tmp_path)
    agree(load(tmp_path / "file.pt").encoder.encode(Batch(source=ids)).x, model(ids).last_hidden_state)


@torch.no_grad()
def test_image_encoders_of_another_repository(tmp_path: Path) -> None:
    fields = vision_config(random.Random(1), use_relative_position_bias=True, layer_norm_eps=1e-12)
    model = written(tmp_path / "model", BeitModel(BeitConfig(**fields), add_pooling_layer=False))
    state = load_file(tmp_path / "model/model.safetensors")  # classes of later versions name them differently in memory
    torch.save({"data2vec": {}, "encoder": state, "optimizer": {}}, tmp_path / "file.pt")
    images = torch.randn(2, fields["num_channels"], fields["image_size"], fields["image_size"])
    with pytest.warns(UserWarning, match="no configuration"):
        found = load(tmp_path / "file.pt")
    agree(found.encoder.encode(Batch(source=images)).x, model(images).last_hidden_state)
