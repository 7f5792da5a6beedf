"""Fine-tuned speech models of the original toolkit: tasks, labels, preparation and refusals."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from building import changed
from recordings import LIBRIVOX
from safetensors.torch import load_file

from d2v.audio import CTC, AudioTagging
from d2v.audio.convert import converters
from d2v.audio.recordings.dictionary import librispeech_dictionary, parse_dictionary, toolkit_symbols
from d2v.core import load
from d2v.core.files import open_model, save
from d2v.core.foreign import Converted, convert
from d2v.core.labels import MultiLabel, Symbols
from d2v.core.masks import SpanMasker
from d2v.core.model import BackboneConfig, Batch

DATA = Path(__file__).parents[1] / "parity/data"
SYMBOLS = ("<s>", "<pad>", "</s>", "<unk>", "|", *map(str, range(27)))


def stored(folder: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The configuration of a run as in a checkpoint, and the tensors."""
    config = json.loads((DATA / "finetune" / folder / "config.json").read_text())
    task = config["ctc_cfg"] if "ctc_cfg" in config else config["classification_cfg"]
    run = {
        "model": {**task, "w2v_args": {"model": config["model_cfg"]}},
        "task": {"normalize": True},
        "dictionaries": {"target_dictionary": SYMBOLS},
    }
    return run, load_file(DATA / "finetune" / folder / "model.safetensors")


def converted(folder: str, path: str = "model", value: Any = None) -> Converted:
    run, tensors = stored(folder)
    return convert(converters, run if value is None else changed(run, path, value), tensors)


def test_a_file_holds_the_task_with_its_settings() -> None:
    run, tensors = stored("ctc_v2")
    settings = {
        "apply_mask": True,
        "mask_prob": 0.3,
        "mask_length": 4,
        "mask_channel_prob": 0.2,
        "mask_channel_length": 8,
        "mask_channel_before": True,
        "dropout": 0.11,
        "attention_dropout": 0.12,
        "activation_dropout": 0.13,
        "dropout_input": 0.14,
        "final_dropout": 0.15,
        "layerdrop": 0.16,
        "feature_grad_mult": 0.5,
        "update_alibi": False,
        "blank_weight": 2.0,
        "blank_mode": "set",
    }
    for name, value in settings.items():
        run = changed(run, f"model.{name}", value)
    one = convert(converters, run | {"criterion": {"sentence_avg": False}}, tensors)
    task = one.description.task
    assert task == CTC(
        dropout=0.11,
        attention_dropout=0.12,
        activation_dropout=0.13,
        input_dropout=0.14,
        final_dropout=0.15,
        layer_drop=0.16,
        mask=SpanMasker(mask_prob=0.3, mask_length=4),
        channel_mask=SpanMasker(mask_prob=0.2, mask_length=8, min_masks=0),
        channels_first=True,
        gradient_scale=0.5,
        learned_alibi=False,
        blank_weight=2.0,
        blank_mode="set",
        average="symbols",
    )
    student = one.description.student
    assert isinstance(student, BackboneConfig)
    assert student == task.adapt(student), "the settings of the task are those of the encoder"
    assert not student.visible_only


def test_zeros_instead_of_noise() -> None:
    task = converted("ctc_v2", "model.zero_mask", True).description.task
    assert isinstance(task, CTC)
    assert task.mask_noise_std == 0.0
    assert task.mask is None, "apply_mask is false"


def test_labels_are_the_dictionary_of_the_file() -> None:
    labels = converted("ctc_v2").description.labels
    assert labels == Symbols(SYMBOLS, blank="<s>", specials=("<pad>", "</s>"), unknown="<unk>", boundary="|")
    assert toolkit_symbols(("<s>", "<pad>", "</s>", "<ctc_blank>", "ah")) == Symbols(
        ("<s>", "<pad>", "</s>", "<ctc_blank>", "ah"), blank="<ctc_blank>", specials=("<pad>", "</s>")
    )


def test_classes_have_numbers_for_names() -> None:
    one = converted("audio_cls_v1")
    assert one.description.labels == MultiLabel(tuple("012345"))
    assert one.description.task == AudioTagging(mask_noise_std=0.0, pooling="linear-softmax", mixup=0.5)
    other = converted("audio_cls_v1", "model.source_mixup", -1).description.task
    assert isinstance(other, AudioTagging)
    assert other.mixup is None


def test_preparation_is_that_of_the_file() -> None:
    expected = {"audio": {"kind": "audio/recordings", "sample_rate": 16000, "normalize": True}}
    assert converted("ctc_v2").description.data == expected
    assert converted("ctc_v2", "task", {"normalize": False}).description.data["audio"]["normalize"] is False
    for name in ("audio_ctc", "audio_v1_ctc_finetuned", "audio_pretrain", "audio_v1_pretrained"):
        assert open_model(DATA / f"checkpoints/{name}.pt").description.data == expected


def test_a_converted_model_is_saved_and_read_back(tmp_path: Path) -> None:
    first = open_model(DATA / "checkpoints/audio_ctc.pt")
    save(tmp_path / "model", first.module, first.description)
    again = open_model(tmp_path / "model")
    assert again.description == first.description
    batch = Batch(source=torch.randn(1, 4000))
    assert torch.equal(again.module.eval().logits(batch), first.module.eval().logits(batch))


def test_greedy_reading_of_a_published_file() -> None:
    """As the original reads the stored inputs."""
    model = open_model(DATA / "checkpoints/audio_ctc.pt")
    io = load_file(DATA / "checkpoints/audio_ctc.io.safetensors")
    batch = Batch(source=io["source"], padding=io["padding_mask"].bool())
    assert model.description.task is not None
    assert model.description.labels is not None
    with torch.no_grad():
        found = model.description.task.outputs(model.module.eval(), batch, labels=model.description.labels)
    assert [list(one) for one in found] == [[30, 12, 30, 12, 30, 12, 30, 12, 24, 12, 30], [12]]


@pytest.mark.parametrize(
    ("folder", "field", "value"),
    [
        ("ctc_v2", "layer_type", "conformer"),
        ("ctc_v2", "adp_num", 2),
        ("audio_cls_v1", "prediction_mode", "proj_avg_proj"),
        ("audio_cls_v1", "prediction_mode", "cls"),
        ("audio_cls_v1", "eval_prediction_mode", "cls"),
        ("audio_cls_v1", "gain_mode", "loud"),
        ("audio_cls_v1", "two_convs", True),
        ("audio_cls_v1", "conv_kernel", 5),
        ("audio_cls_v1", "conv_feature_layers", "[(8, 3, 2)]"),
    ],
)
def test_refusals_by_name(folder: str, field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"model\.{field}={re.escape(repr(value))} "):
        converted(folder, f"model.{field}", value)


def test_a_file_without_a_dictionary_has_the_published_letters() -> None:
    with pytest.warns(UserWarning, match="letters of LibriSpeech"):
        labels = converted("ctc_v2", "dictionaries", {}).description.labels
    assert labels == parse_dictionary(librispeech_dictionary(), "")
    run, tensors = stored("ctc_v2")
    head = {name: tensor[:7] for name, tensor in tensors.items() if name.startswith("w2v_encoder.proj.")}
    with pytest.raises(ValueError, match=r"no dictionary.* 7 symbols"):
        convert(converters, changed(run, "dictionaries", {}), tensors | head)


def test_other_refusals() -> None:
    run, tensors = stored("audio_cls_v1")
    with pytest.raises(ValueError, match=r"proj\.weight"):
        convert(converters, run, {name: t for name, t in tensors.items() if name != "proj.weight"})
    run, tensors = stored("ctc_v2")
    with pytest.raises(ValueError, match=r"proj\.bias"):
        convert(converters, run, {name: t for name, t in tensors.items() if name != "w2v_encoder.proj.bias"})
    with pytest.raises(ValueError, match="no converter"):
        convert(converters, changed(run, "model._name", "wav2vec_seq2seq"), tensors)
    with pytest.warns(UserWarning, match="zeal"):
        convert(converters, changed(run, "model.zeal", 1), tensors)


@pytest.mark.parametrize("folder", ["ctc_v2", "audio_cls_v1"])
def test_every_field_is_known(folder: str) -> None:
    converted(folder)  # an unknown field warns, and warnings are errors here


@pytest.mark.parametrize("file", ["audio_pretrain.pt", "audio_ctc.pt"])
def test_a_published_file_takes_recordings(file: str) -> None:
    """Its input is prepared as in training: paths, and pairs of samples and rate, give the same features."""
    model = load(DATA / "checkpoints" / file)
    path = sorted(LIBRIVOX.glob("*.flac"))[0]
    features = model.features([path], pooling="mean").x
    assert torch.equal(features, model.features([soundfile.read(path, dtype="float32")], pooling="mean").x)
    assert torch.equal(features, model.features(model.prepare([path]), pooling="mean").x)
