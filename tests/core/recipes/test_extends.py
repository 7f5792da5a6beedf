"""A recipe may be written as the differences from another one."""

from pathlib import Path

import pytest

from d2v.core.files import ConfigError
from d2v.core.recipes import PretrainRecipe, recipe_values
from d2v.core.registry import UnknownNameError


def written(folder: Path, name: str, text: str) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return str(path)


def test_only_the_differences_are_written(tmp_path: Path) -> None:
    name = written(tmp_path, "own", "extends: vision/small\noptim: {lr: 5e-4}\ntrain: {max_steps: 100}\n")
    (kind, values), (_, base) = recipe_values(name), recipe_values("vision/small")
    assert kind is PretrainRecipe
    assert values["optim"] == {**base["optim"], "lr": 5e-4}
    assert values["train"] == {**base["train"], "max_steps": 100}
    assert values["model"]["student"] == base["model"]["student"]
    assert values["model"]["teacher"]["schedule"]["total"] == 100, "derived from the merged values"
    assert "extends" not in values


def test_a_section_of_another_kind_replaces_that_of_the_base(tmp_path: Path) -> None:
    name = written(tmp_path, "own", "extends: vision/small\nmask: {kind: random, mask_prob: 0.5}\n")
    assert recipe_values(name)[1]["mask"] == {"kind": "random", "mask_prob": 0.5}


def test_null_and_lists_replace(tmp_path: Path) -> None:
    text = (
        "extends: vision/base\noptim: {betas: [0.9, 0.99]}\nmodel: {student: {adapters: {vision: {context: null}}}}\n"
    )
    values = recipe_values(written(tmp_path, "own", text))[1]
    assert values["optim"]["betas"] == [0.9, 0.99]
    assert values["model"]["student"]["adapters"]["vision"]["context"] is None


def test_bases_may_extend_others(tmp_path: Path) -> None:
    below = written(tmp_path, "below", "extends: vision/small\nseed: 3\noptim: {lr: 5e-4}\n")
    values = recipe_values(written(tmp_path, "above", f"extends: {below}\nseed: 4\n"))[1]
    assert (values["seed"], values["optim"]["lr"]) == (4, 5e-4)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="vision/smalll"):
        recipe_values(written(tmp_path, "a", "extends: vision/smalll\n"))
    with pytest.raises(ConfigError, match="another recipe"):
        recipe_values(written(tmp_path, "b", "extends: [vision/small]\n"))
    itself = tmp_path / "c.yaml"
    with pytest.raises(ConfigError, match="another recipe"):
        recipe_values(written(tmp_path, "c", f"extends: {itself}\n"))
    first = written(tmp_path, "first", f"extends: {tmp_path / 'second.yaml'}\n")
    written(tmp_path, "second", f"extends: {first}\n")
    with pytest.raises(ConfigError, match="another recipe"):
        recipe_values(first)
