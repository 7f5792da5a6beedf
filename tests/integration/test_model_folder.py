"""Configurations and models survive being written and read, and broken files are reported in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from building import with_student

import d2v.core.files.folder as folder_module
from d2v.audio import WaveformAdapterConfig
from d2v.core import (
    Batch,
    Data2Vec,
    EMASchedule,
    InverseBlockMasker,
    RandomMasker,
    RegressionLoss,
    SpanMasker,
    load,
    save,
)
from d2v.core.files import ConfigError, from_plain, to_plain
from d2v.core.masks import ChannelMasker
from d2v.core.model import (
    AlibiConfig,
    BackboneConfig,
    BlockConfig,
    ContextConfig,
    ConvDecoderConfig,
    Data2VecConfig,
    MaskedHeadConfig,
    TargetsConfig,
    TeacherConfig,
    TransformerConfig,
)
from d2v.text import TextAdapterConfig
from d2v.vision import ImageAdapterConfig

SPEECH_MASKS = ChannelMasker(
    positions=SpanMasker(mask_prob=0.5, mask_length=3),
    channels=SpanMasker(mask_prob=0.2, mask_length=2, min_masks=0),
    embed_dim=16,
)
CONFIG = Data2VecConfig(
    student=BackboneConfig(
        encoder=TransformerConfig(block=BlockConfig(embed_dim=16, num_heads=2), depth=2, drop_path_rate=(0.0, 0.1)),
        adapters={
            "vision": ImageAdapterConfig(image_size=(8, 16), patch_size=4, context=ContextConfig(depth=1)),
            "audio": WaveformAdapterConfig(
                conv_layers=((8, 10, 5), (8, 3, 2)), positions_groups=4, alibi=AlibiConfig(per_layer=True)
            ),
            "text": TextAdapterConfig(vocabulary_size=20, max_length=10),
        },
    ),
    predictors={
        "vision": ConvDecoderConfig(decoder_dim=8, num_layers=1, kernel_size=3, groups=2),
        "audio": MaskedHeadConfig(num_layers=2),
        "text": ConvDecoderConfig(decoder_dim=8, num_layers=1, kernel_size=3, groups=2, init="normal"),
    },
    maskers={
        "vision": InverseBlockMasker(mask_prob=0.5, mask_length=2),
        "audio": SPEECH_MASKS,
        "text": RandomMasker(mask_prob=0.5),
    },
    targets=TargetsConfig(layers=(0, 1), each=("instance",), after=("layer",)),
    teacher=TeacherConfig(
        schedule=EMASchedule(0.9, end=0.99, anneal=0.5, total=10), leave_out=("adapters.audio.front",)
    ),
    loss=RegressionLoss(beta=1.0),
)


def written(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(to_plain(CONFIG)))
    change(plain)
    return plain


def test_a_configuration_survives_json() -> None:
    assert from_plain(written(lambda plain: None), Data2VecConfig) == CONFIG


def test_defaults_may_be_left_out_and_sizes_may_be_one_number() -> None:
    plain = written(lambda plain: (plain.pop("loss"), plain["student"]["adapters"]["vision"].update(image_size=8)))
    read = from_plain(plain, Data2VecConfig)
    assert read.loss == RegressionLoss()
    assert read.student.adapters["vision"].image_size == (8, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p["student"]["encoder"].update(depht=3), "'student.encoder.depht'.*'depth'"),
        (lambda p: p["student"]["encoder"].pop("depth"), "missing .*'student.encoder.depth'"),
        (lambda p: p["student"]["encoder"].update(depth="two"), "encoder.depth: .*'two'"),
        (lambda p: p["student"]["encoder"].update(depth=True), "encoder.depth: .*True"),
        (lambda p: p["student"]["encoder"].update(norm_in=1), "encoder.norm_in: .* 1"),
        (lambda p: p["student"]["encoder"].update(depth=-1), "encoder: .*depth.* -1"),
        (lambda p: p["student"]["encoder"]["block"].update(norm="pst"), "encoder.block.norm: pst"),
        (lambda p: p["maskers"]["text"].update(kind="randm"), "maskers.text: .*'randm'"),
        (lambda p: p["maskers"]["text"].update(kind="os:system"), "maskers.text: .*'os:system'"),
        (lambda p: p["maskers"]["text"].pop("kind"), "maskers.text: .*None"),
        (lambda p: p["teacher"].update(schedule=0.9), "teacher.schedule: .*mapping"),
        (lambda p: p["teacher"]["schedule"].update(start=2.0), "teacher.schedule: .*start.* 2.0"),
    ],
)
def test_a_mistake_is_told_by_its_key(change: Callable[[dict[str, Any]], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        from_plain(written(change), Data2VecConfig)
    assert "\n" not in str(caught.value)


def test_all_mistakes_are_told_together() -> None:
    plain = written(lambda p: (p.update(num_mask=2), p["student"]["encoder"].update(depth="two")))
    with pytest.raises(ConfigError, match=r"encoder\.depth.*num_masks|num_masks.*encoder\.depth"):
        from_plain(plain, Data2VecConfig)


def test_a_model_comes_back_as_it_was(tmp_path: Path) -> None:
    model = CONFIG.build()
    model.update_teacher(1)
    save(tmp_path / "deep" / "model", model, CONFIG)
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["model"]
    again = load(tmp_path / "deep" / "model").module
    assert isinstance(again, Data2Vec)
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in again.state_dict().items())
    batch = Batch(source=torch.randn(2, 3, 8, 16), modality="vision")
    for one in (model, again):
        one.eval()
    assert torch.equal(model.student.encode(batch).x, again.student.encode(batch).x)


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(FileExistsError, match=r"/model .*already"):
        save(tmp_path / "model", CONFIG.build(), CONFIG)


def test_a_crash_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder_module, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path / "model", CONFIG.build(), CONFIG)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "model", CONFIG.build(), CONFIG)
    return tmp_path / "model"


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing"):
        load(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_weights_that_are_cut_off(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"model\.safetensors.*broken"):
        load(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1}', "\udcff"])
def test_a_configuration_that_is_none(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, errors="surrogateescape")
    with pytest.raises(ValueError, match=r"config\.json.*not a configuration"):
        load(folder)


def test_a_newer_format_is_refused(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(ValueError, match="format 99"):
        load(folder)


def test_weights_of_another_model(folder: Path) -> None:
    other = with_student(CONFIG, encoder=TransformerConfig(block=BlockConfig(embed_dim=16, num_heads=2), depth=3))
    (folder / "config.json").write_text(json.dumps({"format": 1, "model": to_plain(other)}))
    with pytest.raises(ValueError, match=r"missing: student\.encoder\.blocks\.2"):
        load(folder)
