"""Kinds: two of each in one modality, and parts of other packages, written, read back, trained and resumed.

The package of the test is installed as pip would do it and used in separate processes: declarations are read once.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import plugin_odour
import pytest
from building import NEW, with_student

from d2v.core.files import ConfigError, from_plain, to_plain
from d2v.core.files.kinds import role_of
from d2v.core.masks import Masker
from d2v.core.model import BackboneConfig, BlockConfig, Data2VecConfig, StudentConfig, TransformerConfig
from d2v.core.registry import PluginError, Registry

RECIPE = """
model:
  student:
    {student}
  predictors: {{odour: {{kind: {predictor}}}}}
  targets: {{layers: 1}}
  teacher: {{schedule: {{start: 0.9}}}}
mask: {{kind: {mask}}}
data: {{kind: {data}, path: "-"}}
optim: {{lr: 1e-2}}
train: {{max_steps: 4, batch_size: 4, checkpoint_every: 2, log_every: 2}}
"""
TWO = """
model:
  student:
    encoder: {block: {embed_dim: 8, num_heads: 2}, depth: 2}
    adapters: {a: {kind: odour/grains}, b: {kind: odour/plumes}}
    visible_only: false
  predictors: {a: {kind: masked-head}, b: {kind: masked-head}}
  targets: {layers: 1}
  teacher: {schedule: {start: 0.9}}
mask:
  a: {kind: random, mask_prob: 0.5}
  b: {kind: random, mask_prob: 0.25}
data:
  a: {kind: odour/jars, path: "-"}
  b: {kind: odour/bottles, path: "-"}
sampling: {b: 2.0}
optim: {lr: 1e-2}
train: {max_steps: 4, batch_size: 4, checkpoint_every: 2, log_every: 1}
"""
OURS = "encoder: {block: {embed_dim: 8, num_heads: 2}, depth: 2}"


def recipe(
    *, student: str = OURS, data: str = "odour", adapter: str | None = "odour", predictor: str = "masked-head",
    mask: str = "random, mask_prob: 0.5",
) -> str:  # fmt: skip
    if adapter:
        student += f"\n    adapters: {{odour: {{kind: {adapter}}}}}\n    visible_only: false"
    return RECIPE.format(student=student, data=data, predictor=predictor, mask=mask)


FORMS = {
    "another student": recipe(student="kind: recurrent", adapter=None, predictor="odour-head"),
    "grains": recipe(adapter="odour/grains", data="odour/jars"),
    "another masker and predictor": recipe(mask="every-second", predictor="odour-head"),
    "bare names": recipe(),
    "plumes": recipe(adapter="odour/plumes", data="odour/bottles"),
    "another encoder": recipe(student="encoder: {kind: wide}"),
    "two modalities": TWO,
    "two files of one name": TWO.replace("odour/bottles, ", "odour/bottles, scale: 2.0, "),
}
# The first form of each finds the package in a way of its own: by its data, by bare names, by whole ones.
PROCESSES = (("another student", 3), ("bare names", 3), ("two modalities", 2))
PROGRAM = """
import json, shutil, sys
from pathlib import Path
from d2v.core import pretrain
from d2v.core.files import open_model
for form in sys.argv[1:]:
    run, cut = Path(form, "run"), Path(form, "cut")
    try:
        pretrain(f"{form}.yaml", {"device": "cpu", "out": str(run)}, progress=False)
        shutil.copytree(run, cut)
        shutil.rmtree(cut / "checkpoints/step-4"); shutil.rmtree(cut / "model")
        pretrain(f"{form}.yaml", {"device": "cpu", "out": str(cut), "resume": True}, progress=False)
        described = [open_model(folder).description for folder in (run, cut)]
        found = [[type(one.student).__name__, *sorted(one.files)] for one in described]
        for name in ("model/model.safetensors", "config.yaml"):
            found.append((run / name).read_bytes() == (cut / name).read_bytes())
    except Exception as error:
        found = [type(error).__name__, str(error)]
    Path(form, "found.json").write_text(json.dumps(found))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package, as pip would install it, in which every form was trained, broken off and resumed."""
    folder = tmp_path_factory.mktemp("site")
    info = folder / "d2v_odour-1.0.dist-info"
    info.mkdir()
    shutil.copy(plugin_odour.__file__, folder / "plugin_odour.py")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: d2v-odour\nVersion: 1.0\n")
    lines = []
    for group, entries in plugin_odour.ENTRY_POINTS.items():
        lines += [f"[{group}]", *(f"{name} = plugin_odour:{value}" for name, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for form, text in FORMS.items():
        (folder / f"{form}.yaml").write_text(text)
        (folder / form).mkdir()
    paths = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    forms = list(FORMS)
    for first, count in PROCESSES:
        some = forms[forms.index(first) :][:count]
        subprocess.run([sys.executable, "-c", PROGRAM, *some], cwd=folder, env=environment, check=True)
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize("form", [form for form in FORMS if form != "two files of one name"])
def test_every_form_is_trained_written_read_and_resumed(form: str, site: Path) -> None:
    student = "RecurrentConfig" if form == "another student" else "BackboneConfig"
    assert read(site / form / "found.json") == [[student, "nose.txt"], [student, "nose.txt"], True, True]


@pytest.mark.parametrize(
    ("form", "adapter", "encoder"),
    [
        ("grains", "grains", "transformer"),
        ("another masker and predictor", "grains", "transformer"),
        ("bare names", "grains", "transformer"),
        ("plumes", "plumes", "transformer"),
        ("another encoder", "grains", "wide"),
    ],
)
def test_kinds_are_written_whole(form: str, adapter: str, encoder: str, site: Path) -> None:
    student = read(site / form / "run/model/config.json")["model"]["student"]
    assert student["adapters"]["odour"]["kind"] == f"odour/{adapter}"
    assert student["encoder"]["kind"] == encoder


def test_a_recipe_of_two_modalities_measures_and_describes_both(site: Path) -> None:
    run = site / "two modalities/run"
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", "a/loss", "b/loss"} <= {name for line in metrics for name in line}
    kinds = {name: data["kind"] for name, data in read(run / "model/config.json")["data"].items()}
    assert kinds == {"a": "odour/jars", "b": "odour/bottles"}


def test_two_modalities_may_not_bring_different_files_of_one_name(site: Path) -> None:
    kind, message = read(site / "two files of one name/found.json")
    assert kind == "ValueError"
    assert "data.b" in message
    assert "nose.txt" in message


@attrs.frozen(kw_only=True)
class Nameless:
    """A configuration without a kind."""

    embed_dim: int = 8
    depth: int = 1
    num_heads: int = 1


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda: with_student(NEW, encoder=Nameless()), "Nameless.*kind"),
        (lambda: attrs.evolve(NEW, student=Nameless()), "Nameless.*kind"),
        (lambda: attrs.evolve(NEW, maskers={"toy": Nameless()}), "Nameless.*kind"),
        (lambda: with_student(NEW, adapters={"toy": Nameless()}), "Nameless.*kind"),
        (lambda: attrs.evolve(NEW, maskers={"toy": print}), "kind"),
    ],
)
def test_what_has_no_kind_is_refused_when_it_is_written(broken: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        to_plain(broken())


def test_what_is_written_is_read_back() -> None:
    for config in (
        NEW,
        with_student(NEW, encoder=TransformerConfig(block=BlockConfig(embed_dim=8, num_heads=2), depth=1)),
    ):
        assert from_plain(json.loads(json.dumps(to_plain(config))), Data2VecConfig) == config


def test_a_student_is_a_backbone_where_nothing_else_is_said() -> None:
    values = to_plain(NEW.student)
    assert values.pop("kind") == "backbone"
    assert values["encoder"].pop("kind") == "transformer"
    made: Any = from_plain(values, StudentConfig)  # type: ignore[type-abstract]
    assert isinstance(made, BackboneConfig)


def test_an_unknown_kind_lists_the_known_ones() -> None:
    role = role_of(Masker)
    with pytest.raises(ConfigError, match=r"'span' .*random.*'spans'"):
        role.find("span")


def test_a_plugin_that_takes_the_name_of_one_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    role = role_of(Masker)
    monkeypatch.setattr(Registry, "names", lambda self: ["spans"])
    with pytest.raises(PluginError, match="spans"):
        role.find("spans")
