"""Settings of fine-tuning on encoders of both generations, and as plain values."""

from typing import Any

import attrs
import pytest
import torch
from speech import DIM, LETTERS, encoder, student

from d2v.audio import CTC, AudioClassification, AudioTagging
from d2v.core.files import from_plain, to_plain
from d2v.core.labels import Classes, MultiLabel
from d2v.core.masks import SpanMasker
from d2v.core.modality import modalities
from d2v.core.model import BackboneConfig
from d2v.core.task import Task

RATES: dict[str, Any] = {
    "dropout": 0.11,
    "attention_dropout": 0.12,
    "activation_dropout": 0.13,
    "input_dropout": 0.14,
    "layer_drop": 0.15,
}
BEFORE = {"attention_dropout": 0.5, "projection_dropout": 0.5, "activation_dropout": 0.5, "dropout": 0.5}


def pretrained(*, former: bool) -> BackboneConfig:
    config = student(former=former)
    block = attrs.evolve(config.encoder.block, **BEFORE, branch_dropout=0.5)  # type: ignore[attr-defined]
    return attrs.evolve(config, encoder=attrs.evolve(config.encoder, block=block, dropout=0.5, layer_drop=0.5))


def places(config: Any) -> dict[str, float]:
    block, adapter = config.encoder.block, config.adapters["audio"]
    found = {name: getattr(block, name) for name in (*BEFORE, "branch_dropout")}
    found |= {"encoder": config.encoder.dropout, "layer_drop": config.encoder.layer_drop, "features": adapter.dropout}
    if adapter.context is not None:
        found |= {"context": adapter.context.dropout, "context drop": adapter.context.layer_drop}
    return found


def test_dropouts_of_2_0() -> None:
    assert places(CTC(**RATES).adapt(pretrained(former=False))) == {
        "attention_dropout": 0.12,
        "projection_dropout": 0.11,
        "activation_dropout": 0.13,
        "branch_dropout": 0.13,
        "dropout": 0.11,
        "encoder": 0.14,
        "layer_drop": 0.15,
        "features": 0.0,
        "context": 0.11,
        "context drop": 0.15,
    }


def test_dropouts_of_1_0() -> None:
    assert places(CTC(**RATES).adapt(pretrained(former=True))) == {
        "attention_dropout": 0.12,
        "projection_dropout": 0.11,
        "activation_dropout": 0.13,
        "branch_dropout": 0.0,
        "dropout": 0.11,
        "encoder": 0.11,
        "layer_drop": 0.15,
        "features": 0.14,
    }


@pytest.mark.parametrize("former", [False, True])
def test_dropouts_of_pretraining_are_switched_off(former: bool) -> None:
    assert set(places(CTC().adapt(pretrained(former=former))).values()) == {0.0}


def test_the_adapter() -> None:
    task = CTC(mask_noise_std=0.2, gradient_scale=0.3, learned_alibi=False, channels_first=True)
    new, former = (task.adapt(student(former=one)).adapters["audio"] for one in (False, True))  # type: ignore[attr-defined]
    assert (new.noise_std, new.gradient_scale, new.channels_first, new.alibi.learned) == (0.2, 0.3, True, False)
    assert (former.noise_std, former.gradient_scale, former.channels_first, former.alibi) == (0.0, 0.3, True, None)


def test_a_fixed_alibi_keeps_its_weights() -> None:
    config = CTC(learned_alibi=False).adapt(student())
    fixed, learned = config.build(), student().build()
    fixed.load_state_dict(learned.state_dict())
    assert not fixed.adapters["audio"].bias.scale.requires_grad  # type: ignore[union-attr, index]


@attrs.frozen
class Foreign:
    """A student of another package."""


def test_an_encoder_of_another_package_is_unchanged() -> None:
    config: Any = Foreign()
    assert CTC(**RATES).adapt(config) is config
    other: Any = BackboneConfig(encoder=Foreign(), adapters={})  # type: ignore[arg-type]
    assert CTC(**RATES).adapt(other) is other


@attrs.frozen(kw_only=True)
class LogMel:
    """A front end with fewer settings."""

    gradient_scale: float = 1.0


def test_a_front_end_with_fewer_settings() -> None:
    config: Any = attrs.evolve(student(), adapters={"audio": LogMel()})
    assert CTC(gradient_scale=0.5).adapt(config).adapters["audio"] == LogMel(gradient_scale=0.5)  # type: ignore[attr-defined]


TASKS = (
    CTC(mask=SpanMasker(mask_prob=0.5, mask_length=3), channel_mask=SpanMasker(mask_prob=0.2, mask_length=4)),
    AudioClassification(pooling="max", metrics=("mcc",)),
    AudioTagging(mixup=0.5, eval_pooling="mean", gain_mode="rms"),
)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
def test_as_plain_values(task: Any) -> None:
    plain = to_plain(task, Task)
    assert plain["kind"].startswith("audio/")
    assert from_plain(plain, Task) == task  # type: ignore[type-abstract]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
def test_tasks_keep_what_the_protocol_promises(task: Any) -> None:
    names = {one.name for one in attrs.fields(type(task))}
    assert task.use_options <= names
    assert type(task) in modalities.load("audio").tasks.values()
    labels = {"Symbols": LETTERS, "Classes": Classes(("a", "b")), "MultiLabel": MultiLabel(("a", "b"))}
    own = labels[task.labels.__name__]
    module = task.build(encoder(task.adapt(student())), embed_dim=DIM, labels=own)
    assert isinstance(module, torch.nn.Module)
    assert hasattr(module, "encoder")
    assert task.scorer(own).labels == own


@pytest.mark.parametrize(("field", "value"), [("dropout", 1.0), ("layer_drop", -0.1), ("mask_noise_std", -1.0)])
def test_values_out_of_range(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        CTC(**{field: value})  # type: ignore[arg-type]
