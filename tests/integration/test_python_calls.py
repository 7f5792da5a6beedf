"""The calls of `d2v.core` with keywords: what they mean, what is refused, and that editors know them."""

import re
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripts import loaded

import d2v.core
from d2v.core.files import ConfigError, to_plain
from d2v.core.recipes import PretrainRecipe, read_recipe
from d2v.core.recipes.keywords import short_keys, with_keywords
from d2v.vision import ImageDataConfig

SMALL = read_recipe("vision/small", {"data.path": "digits", "out": "run"}, PretrainRecipe)


def read(overrides: dict[str, Any] | None = None, **keys: Any) -> PretrainRecipe:
    return read_recipe("vision/small", with_keywords(PretrainRecipe, overrides, keys), PretrainRecipe)


@pytest.mark.usefixtures("built_in_data")
def test_the_typed_keywords_are_current() -> None:
    tool = loaded("tools/make_keywords.py")
    assert tool.FILE.read_text() == tool.text(), "run tools/make_keywords.py"


@settings(max_examples=20)
@given(st.data())
def test_keywords_mean_the_dotted_keys(data: st.DataObject) -> None:
    plain = to_plain(SMALL)
    # Keys of the data of other modalities are not those of images.
    short = {name: key for name, key in short_keys(PretrainRecipe).items() if name in plain[key.split(".")[0]]}
    names = data.draw(st.sets(st.sampled_from(sorted(short)), min_size=1))
    values = {name: plain[short[name].split(".")[0]][name] for name in names}
    dotted = {short[name]: value for name, value in values.items()}
    assert with_keywords(PretrainRecipe, None, values) == dotted
    assert read(dotted, data="digits", out="run") == read(data="digits", out="run", **values)


def test_a_recipe_comes_back_from_its_sections() -> None:
    own = attrs.evolve(SMALL, seed=3, train=attrs.evolve(SMALL.train, keep=7), data=ImageDataConfig(path="a", size=32))
    fields = {one.name: getattr(own, one.name) for one in attrs.fields(PretrainRecipe)}
    assert read(**fields) == own
    assert read(**to_plain(own)) == own


def test_a_section_leaves_the_rest_of_it() -> None:
    found = read(
        {"model.num_masks": 3},
        data=Path("digits"),
        out=Path("run"),
        model={"student": {"encoder": {"depth": 2}}},
        optim={"schedule": {"warmup": 7}},
        clip=1.0,
    )
    assert found.model.student == attrs.evolve(
        SMALL.model.student, encoder=attrs.evolve(SMALL.model.student.encoder, depth=2)
    )
    assert found.optim == attrs.evolve(SMALL.optim, clip=1.0, schedule=attrs.evolve(SMALL.optim.schedule, warmup=7))
    assert (found.model.num_masks, found.train, found.data) == (3, SMALL.train, SMALL.data)


def test_data_by_modality() -> None:
    keys = {"data": {"image": {"path": "a", "size": 8}, "sound": ImageDataConfig(path="b")}, "sampling": {"image": 2.0}}
    found = with_keywords(PretrainRecipe, None, keys)
    assert (found["data.image.path"], found["data.sound.path"], found["sampling"]) == ("a", "b", {"image": 2.0})


@pytest.mark.parametrize(
    ("overrides", "keys", "twice"),
    [
        ({"train.max_steps": 3}, {"max_steps": 3}, "train.max_steps"),
        ({"+train.max_steps": 3}, {"max_steps": 3}, "train.max_steps"),
        ({}, {"max_steps": 3, "train": {"max_steps": 3}}, "train.max_steps"),
        ({"data.path": "a"}, {"data": "a"}, "data.path"),
        ({"train": {"max_steps": 3}}, {"max_steps": 3}, "train.max_steps"),
        ({"data.size": 8}, {"data": ImageDataConfig(path="a")}, "data.size"),
        ({"out": "run"}, {"out": "run"}, "out"),
    ],
)
def test_a_key_that_is_given_twice(overrides: dict[str, Any], keys: dict[str, Any], twice: str) -> None:
    with pytest.raises(ConfigError, match=f"{re.escape(twice)} is given twice"):
        with_keywords(PretrainRecipe, overrides, keys)


@pytest.mark.parametrize(
    ("keys", "key", "word"),
    [
        ({"max_step": 3}, "max_step", "train.max_steps"),
        ({"train": {"max_step": 3}}, "train.max_step", "train.max_steps"),
        ({"max_steps": "many"}, "train.max_steps", "integer"),
        ({"data": {"pth": "photos"}}, "data.pth", "data.path"),
        ({"data": 3}, "data", "mapping"),
        ({"model": {"student": {"kind": "unknown"}}}, "unknown", "backbone"),
        ({"model": "run"}, "model", "model"),
    ],
)
def test_a_keyword_that_means_nothing(keys: dict[str, Any], key: str, word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        d2v.core.pretrain("vision/small", **{"data": "digits", "out": "run", **keys})
    assert key in str(caught.value)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_calls_take_keywords(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = {"max_steps": 4, "log_every": 2, "checkpoint_every": 2, "device": "cpu"}
    d2v.core.pretrain("vision/small", data=made / "photos", out=tmp_path / "run", **numbers)
    said = capsys.readouterr().err
    assert said.count(f"tensorboard --logdir {tmp_path / 'run'}\n") == (tmp_path / "run/tensorboard").exists()
    numbers["progress"] = False
    assert (tmp_path / "run/config.yaml").read_text() == (made / "run/config.yaml").read_text()
    d2v.core.finetune(
        "vision/small-finetune",
        {"validation.every": 2},
        model=tmp_path / "run",
        data=str(made / "photos"),
        out=tmp_path / "classifier",
        **numbers,
    )
    assert (tmp_path / "classifier/model").is_dir()
    given = {"model": tmp_path / "classifier", "data": made / "photos", "progress": False}
    evaluated = d2v.core.evaluate(split="val", **given)
    dotted = {"model": str(tmp_path / "classifier"), "data.path": str(made / "photos"), "split": "val"}
    assert evaluated.metrics() == d2v.core.evaluate(dotted, progress=False).metrics()
    assert len(d2v.core.predict(**{**given, "data": {"path": made / "photos/test"}})) > 0
    extracted = d2v.core.extract(out=tmp_path / "features.npy", pooling="grid", num_workers=0, **given)
    assert extracted.shape[1] == 4 * 96
    figures = d2v.core.probe(baselines=False, poolings=["mean"], probes=["knn"], **given)
    assert "10-NN" in figures.table()
