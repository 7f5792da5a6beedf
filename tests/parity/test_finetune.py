"""Fine-tuning of speech: the reference's folders, and random settings against the plain formulation."""

import re
import shutil
from pathlib import Path
from typing import Any

import check
import draw_finetune
import plain_finetune
import pytest
from compare import compare
from reading import Tensors, read
from safetensors.torch import load_file, save_file

FOLDERS = sorted(
    folder for folder in (Path(__file__).parent / "data/finetune").iterdir() if folder.name.startswith(("audio", "ctc"))
)
SEEDS = 40
SLACK = 2.0  # as in test_random_settings
CTC = next(folder for folder in FOLDERS if folder.name == "ctc_v2")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_library_agrees(folder: Path) -> None:
    result = check.check(folder)
    assert result["ok"], result["error"]


def test_there_are_two_folders() -> None:
    assert [folder.name for folder in FOLDERS] == ["audio_cls_v1", "ctc_v2"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_plain_formulation_agrees(folder: Path) -> None:
    """Without the gradients of CTC: over 124 frames the recorded ones are only accurate to 1e-4, see below."""
    config, tensors, io = read(folder)
    expected, produced = check.ran(config, tensors, io)[0], plain_finetune.run(config, tensors, io)
    kept = {name: t for name, t in expected.items() if name in produced}
    if folder == CTC:
        kept = {name: t for name, t in kept.items() if not name.startswith("grad.")}
    problems, _ = compare(kept, produced)
    assert not problems


def test_accuracy_of_the_recorded_gradients_of_ctc() -> None:
    """Torch's single-precision CTC: these gradients agree only where the forward pass agrees almost bit for bit."""
    config, tensors, io = read(CTC)
    exact = plain_finetune.run(
        config, *({n: t.double() if t.is_floating_point() else t for n, t in one.items()} for one in (tensors, io))
    )
    name = "grad.w2v_encoder.proj.bias"
    error = (exact[name] - io[name]).abs().max() / io[name].abs().max()
    assert 2e-5 < error < 2e-4


@pytest.mark.parametrize("name", ["log_probs", "grad.w2v_encoder.proj.weight", "ctc_loss", "input_lengths"])
def test_perturbed_numbers_fail(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "case"
    shutil.copytree(CTC, folder)
    io = load_file(folder / "io.safetensors")
    finite = io[name][io[name].isfinite()]
    io[name] = io[name] + (1 if name == "input_lengths" else 1e-3 * finite.abs().max())
    save_file(io, folder / "io.safetensors")
    result = check.check(folder)
    assert not result["ok"]
    assert str(result["error"]).startswith(f"{name} differs by")


def test_other_facts_fail() -> None:
    config, tensors, io = read(CTC)
    for changed, name in (
        ({"sample_size_tokens": 8}, "sample_size.tokens"),
        ({"params_without_grad": ["w2v_encoder.proj.bias"]}, "without_gradient"),
    ):
        problems, _ = compare(*check.ran(config | changed, tensors, io))
        assert [re.split(" differs", problem)[0] for problem in problems] == [name]


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_learning_rates_by_layer(decay: float) -> None:
    """One prenet block and two blocks; other parameters have the whole rate."""
    config, tensors, io = read(CTC)
    body = "w2v_encoder.w2v_model."
    blocks = [f"{body}modality_encoders.AUDIO.context_encoder.blocks.0.", f"{body}blocks.0.", f"{body}blocks.1."]
    rates = {name: {"lr_scale": 1.0} for name in tensors}
    rates |= {n: {"lr_scale": decay ** (3 - i)} for i, at in enumerate(blocks) for n in tensors if n.startswith(at)}
    changed = config | {"ctc_cfg": config["ctc_cfg"] | {"layer_decay": decay}, "optim_overrides": rates}
    expected, produced = check.ran(changed, tensors, io)
    assert sum(name.startswith("lr_scale.") for name in expected) == len(tensors)
    problems, _ = compare(expected, produced)
    assert not problems


def _hold(case: tuple[dict[str, Any], Tensors, Tensors]) -> None:
    config, tensors, io = case
    double = [{n: t.double() if t.is_floating_point() else t for n, t in one.items()} for one in (tensors, io)]
    outputs = {n: t.float() if t.is_floating_point() else t for n, t in plain_finetune.run(config, *double).items()}
    expected, produced = check.ran(config, tensors, io | outputs)
    grads = [{name for name in one if name.startswith("grad.")} for one in (expected, produced)]
    assert grads[0] == grads[1]
    # Zero but for rounding: the bias of separate keys adds the same to all scores of a query.
    expected = {name: t for name, t in expected.items() if not name.endswith("k_proj.bias")}
    problems, _ = compare(expected, produced, slack=SLACK)
    assert not problems, config


@pytest.mark.parametrize("seed", range(SEEDS))
def test_speech_recognition(seed: int) -> None:
    _hold(draw_finetune.ctc(seed))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_audio_classification(seed: int) -> None:
    _hold(draw_finetune.tagging(seed))


def test_every_setting_is_drawn() -> None:
    seen: dict[str, set[Any]] = {}
    for seed in range(SEEDS):
        for config, _, io in (draw_finetune.ctc(seed), draw_finetune.tagging(seed)):
            cfg = config["ctc_cfg"] if "ctc_cfg" in config else config["classification_cfg"]
            facts = {"padding": "padding_mask" in io, "channels": "channel_mask" in io}
            facts["first"] = config["model_cfg"]["layer_norm_first"]
            facts["generation"] = "modalities" in config["model_cfg"]
            if "target" in io:
                counts = (io["target"] > 2).sum(1)
                facts["empty"], facts["too_long"] = bool((counts == 0).any()), bool((counts > 30).any())
            for field, value in (cfg | facts).items():
                seen.setdefault(field, set()).add(value)
    both = {True, False}
    for field in ("padding", "channels", "first", "generation", "apply_mask", "mask_channel_before", "update_alibi"):
        assert seen[field] == both, field
    assert seen["label_mixup"] == seen["empty"] == seen["too_long"] == both
    assert seen["blank_weight"] == {0.0, 1.5, -2.0}
    assert seen["blank_mode"] == {"add", "set"}
    assert seen["feature_grad_mult"] == {0.0, 0.5, 1.0}
    assert seen["prediction_mode"] == set(draw_finetune.POOLINGS)
    assert seen["eval_prediction_mode"] == {None, *draw_finetune.POOLINGS}
