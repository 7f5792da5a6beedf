"""The samples that results are reported on: held out by one rule; training samples among them are always named."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from d2v.core.cli import main
from d2v.core.data import Batches, DataConfig
from d2v.core.files import ConfigError, open_model
from d2v.core.jobs import evaluate, finetune, pretrain, probe
from d2v.core.jobs.evaluation import Evaluated

KEYS = {"device": "cpu", "train.max_steps": 2, "train.log_every": 1, "train.batch_size": 4, "train.precision": "fp32"}
CLASSES = ("Bag", "Sandal", "Trouser")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain folder of class folders, another one of other images with the same names, and models of the first."""
    root = tmp_path_factory.mktemp("made")
    assert main(["data", "export-images", "fashion-mnist", str(root / "photos"), "--per-class", "20"]) == 0
    for name, split in (("plain", "train"), ("other", "test")):
        for label in CLASSES:
            (root / name / label).mkdir(parents=True)
            for number, image in enumerate(sorted((root / "photos" / split / label).iterdir())):
                shutil.copy(image, root / name / label / f"{number}.png")
    pretrain("vision/small", {**KEYS, "data.path": str(root / "plain"), "out": str(root / "run")}, progress=False)
    tuned(root, "classifier")
    return root


def tuned(root: Path, out: str, data: str = "plain", **more: Any) -> None:
    keys = {key.replace("__", "."): value for key, value in more.items()}
    given = {"model": str(root / "run"), "data.path": str(root / data), "out": str(root / out), **KEYS, **keys}
    finetune("vision/small-finetune", given, progress=False)


def measured(model: Path, data: Path, **more: Any) -> Evaluated:
    keys = {key.replace("__", "."): value for key, value in more.items()}
    return evaluate({"model": str(model), "data.path": str(data), "device": "cpu", **keys}, progress=False)


def notes(result: Evaluated, of: str) -> list[str]:
    return [note for said in result.notes.values() for note in said if of in note]


def samples(batches: Batches) -> set[str]:
    found = set()
    for batch in batches:
        assert batch.ids is not None
        found |= {batches.name(id) for id in batch.ids.tolist()}
    return found


def test_all_commands_hold_out_the_same(made: Path) -> None:
    seen = {one.how: one for one in open_model(made / "classifier").description.seen if one.split != "train+test"}
    data = data_of(made / "classifier", made / "plain")
    train, test = (samples(data.build(split, batch_size=8)) for split in ("train", "test"))
    assert len(train) + len(test) == 60
    assert not train & test
    assert (seen["finetune"].identity.samples, seen["report"].identity.samples) == (len(train), len(test))
    figures = probe(
        {"model": str(made / "run"), "data.path": str(made / "plain"), "device": "cpu", "probes": ["knn"],
         "neighbours": 3, "baselines": False},
        progress=False,
    )  # fmt: skip
    assert (figures.num_train, figures.num_test) == (len(train), len(test))
    (pretrained,) = open_model(made / "run").description.seen
    assert pretrained.identity.samples == 60, "pretraining reads no labels, and uses all"


def data_of(model: Path, path: Path) -> DataConfig:
    from d2v.core.files import from_plain

    stored = open_model(model).description.data["vision"]
    made: DataConfig = from_plain({**stored, "path": str(path)}, DataConfig)  # type: ignore[type-abstract]
    return made


def test_pretraining_leaves_out_what_is_held_out_where_that_is_asked_for(made: Path) -> None:
    keys = {**KEYS, "data.path": str(made / "plain"), "data.hold_out": 0.3, "data.hold_out_seed": 5}
    pretrain("vision/small", {**keys, "out": str(made / "partly")}, progress=False)
    (seen,) = open_model(made / "partly").description.seen
    assert seen.identity.samples is not None
    assert 20 < seen.identity.samples < 60
    tuned(made, "inherits", model=str(made / "partly"))
    result = measured(made / "inherits", made / "plain")
    assert list(result.splits) == ["test"]
    assert not result.notes["test"], "neither trained nor pretrained on"


def test_the_default_is_the_part_that_was_held_out(made: Path, tmp_path: Path) -> None:
    result = measured(made / "classifier", made / "plain", out=str(tmp_path / "e.json"))
    assert list(result.splits) == ["test"]
    assert not notes(result, "model was trained on")
    assert len(notes(result, "pretrained")) == 1
    assert json.loads((tmp_path / "e.json").read_text())["notes"] == list(result.notes["test"])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"split": "train"}, "all"),
        ({"data__hold_out_seed": 1}, "of"),
        ({"split": "train+test"}, "of 60"),
        ({"data__hold_out": 0}, "of 60"),
    ],
)
def test_trained_samples_are_named(made: Path, keys: dict[str, Any], message: str) -> None:
    (note,) = notes(measured(made / "classifier", made / "plain", **keys), "model was trained on")
    assert message in note
    assert f"note: {note}" in measured(made / "classifier", made / "plain", **keys).text()


def test_a_copy_of_the_folder_is_the_same_and_a_change_is_said(made: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(made / "plain", tmp_path / "copy")
    result = measured(made / "classifier", copy)
    assert list(result.splits) == ["test"]
    assert not notes(result, "changed")
    held = len(samples(data_of(made / "classifier", copy).build("test", batch_size=8)))
    next((copy / "Bag").iterdir()).unlink()
    (note,) = notes(measured(made / "classifier", copy), "train+test has changed")
    assert "60 samples then, 59 now" in note
    assert held


def test_other_images_of_the_same_names_are_all_reported_on(made: Path) -> None:
    result = measured(made / "classifier", made / "other")
    assert list(result.splits) == ["train+test"]
    assert not notes(result, "among those")


def test_a_folder_with_splits(made: Path) -> None:
    tuned(made, "split", "photos", validation__every=1)
    result = measured(made / "split", made / "photos")
    assert list(result.splits) == ["test"]
    assert not result.notes["test"]
    assert notes(measured(made / "split", made / "photos/train", split="train+test"), "all 200 samples")
    both = measured(made / "split", made / "photos", split=["train", "val"])
    assert any("model was trained on" in note for note in both.notes["train"])
    assert any("chosen on" in note for note in both.notes["val"])


def test_what_is_reported_on_chooses_nothing_unasked(made: Path) -> None:
    tuned(made, "watched", validation__every=1)
    lines = (made / "watched/metrics.jsonl").read_text()
    assert "val_accuracy" in lines
    assert not notes(measured(made / "watched", made / "plain"), "chosen on")
    with pytest.raises(ConfigError, match=r"validation.patience.*validation.split=test"):
        tuned(made, "refused", validation__every=1, validation__patience=2)
    tuned(made, "chosen", validation__every=1, validation__split="test")
    assert len(notes(measured(made / "chosen", made / "plain"), "chosen on")) == 1


def test_a_model_that_says_nothing_of_its_samples(made: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(made / "classifier/model", tmp_path / "old"))
    values = json.loads((model / "config.json").read_text())
    del values["seen"], values["files"]
    (model / "config.json").write_text(json.dumps(values))
    result = measured(model, made / "plain")
    assert list(result.splits) == ["train+test"]
    assert len(notes(result, "no record")) == 1
    values["seen"] = [{"how": "finetune"}]
    (model / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="seen"):
        measured(model, made / "plain")
