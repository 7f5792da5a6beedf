"""Fine-tuning of text: the reference's folder, and random settings against the plain formulation."""

from pathlib import Path
from typing import Any

import check
import draw_text
import plain_text
import pytest
from compare import compare
from reading import Tensors, read
from safetensors.torch import load_file, save_file

FOLDER = Path(__file__).parent / "data/finetune/text_cls_v2"
SEEDS = 20
SLACK = 2.0  # as in test_random_settings


def test_library_agrees() -> None:
    result = check.check(FOLDER)
    assert result["ok"], result["error"]


def test_plain_formulation_agrees() -> None:
    config, tensors, io = read(FOLDER)
    problems, _ = compare({n: t for n, t in io.items() if n in plain_text.run(config, tensors, io)}, _plain(FOLDER))
    assert not problems


def _plain(folder: Path) -> Tensors:
    return plain_text.run(*read(folder))


@pytest.mark.parametrize("name", ["logits", "loss", "grad.model.blocks.0.attn.qkv.weight"])
def test_perturbed_numbers_fail(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "case"
    folder.mkdir()
    for file in FOLDER.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    io = load_file(folder / "io.safetensors")
    io[name] = io[name] + 1e-3 * io[name].abs().max()
    save_file(io, folder / "io.safetensors")
    result = check.check(folder)
    assert not result["ok"]
    assert str(result["error"]).startswith(f"{name} differs by")


def test_other_facts_fail() -> None:
    config, tensors, io = read(FOLDER)
    head = "classification_heads.sentence_classification_head.dense.bias"
    for changed, name in (({"sample_size": 2}, "sample_size"), ({"params_without_grad": [head]}, "without_gradient")):
        problems, _ = compare(*check.ran(config | changed, tensors, io))
        assert [problem.split(" differs")[0] for problem in problems] == [name]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_settings(seed: int) -> None:
    config, tensors, io = draw_text.draw(seed)
    double = [{n: t.double() if t.is_floating_point() else t for n, t in one.items()} for one in (tensors, io)]
    outputs = {n: t.float() if t.is_floating_point() else t for n, t in plain_text.run(config, *double).items()}
    expected, produced = check.ran(config, tensors, io | outputs)
    grads = [{name for name in one if name.startswith("grad.")} for one in (expected, produced)]
    assert grads[0] == grads[1]
    problems, _ = compare(expected, produced, slack=SLACK)
    assert not problems, config


def test_every_setting_is_drawn() -> None:
    seen: dict[str, set[Any]] = {}
    for seed in range(SEEDS):
        config, _, io = draw_text.draw(seed)
        facts = {"regression": config["regression"], "classes": config["num_classes"], "padding": "padding_mask" in io}
        facts["extra"] = config["model_cfg"]["modalities"]["text"]["num_extra_tokens"] > 0
        facts["first"] = config["model_cfg"]["layer_norm_first"]
        for field, value in facts.items():
            seen.setdefault(field, set()).add(value)
    assert seen.pop("classes") == {1, 2, 3, 7}
    assert all(values == {True, False} for values in seen.values()), seen


def test_a_file_without_the_configuration_of_its_encoder() -> None:
    config, tensors, io = read(FOLDER)
    with pytest.raises(ValueError, match="configuration of its encoder"):
        check.ran(config | {"model_cfg": None}, tensors, io)
