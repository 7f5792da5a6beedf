"""Kinds: two of each in one modality, and parts of other packages, written, read back, trained and resumed.

The package of the test is installed as pip would do it and used in a process of its own: declarations are read once.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
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
data: {{kind: {data}}}
optim: {{lr: 1e-2}}
train: {{max_steps: 4, batch_size: 4, checkpoint_every: 2, log_every: 2}}
"""
OURS = "encoder: {block: {embed_dim: 8, num_heads: 2}, depth: 2}"
FORMS = {
    "grains": {"student": OURS, "adapter": "odour/grains", "data": "odour/jars"},
    "plumes": {"student": OURS, "adapter": "odour/plumes", "data": "odour/bottles"},
    "bare names": {"student": OURS, "adapter": "odour", "data": "odour"},
    "another encoder": {"student": "encoder: {kind: wide}", "adapter": "odour", "data": "odour"},
    "another student": {"student": "kind: recurrent", "data": "odour", "predictor": "odour-head"},
    "another masker and predictor": {
        "student": OURS, "adapter": "odour", "data": "odour", "mask": "every-second", "predictor": "odour-head",
    },
}  # fmt: skip
PROGRAM = """
import shutil, sys
from pathlib import Path
from d2v.core import pretrain
from d2v.core.files import open_model, to_plain
run, cut = Path(sys.argv[1], "run"), Path(sys.argv[1], "cut")
given = {"data.path": "-", "device": "cpu"}
pretrain("recipe.yaml", given | {"out": str(run)}, progress=False)
shutil.copytree(run, cut)
shutil.rmtree(cut / "checkpoints/step-4"); shutil.rmtree(cut / "model")
pretrain("recipe.yaml", given | {"out": str(cut), "resume": True}, progress=False)
for folder in (run, cut):
    stored = open_model(folder)
    print(type(stored.description.student).__name__, *sorted(stored.description.files))
print((run / "model/model.safetensors").read_bytes() == (cut / "model/model.safetensors").read_bytes())
print((run / "config.yaml").read_text() == (cut / "config.yaml").read_text())
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


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with the package, as pip would install it."""
    folder = tmp_path / "site"
    info = folder / "d2v_odour-1.0.dist-info"
    info.mkdir(parents=True)
    shutil.copy(plugin_odour.__file__, folder / "plugin_odour.py")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: d2v-odour\nVersion: 1.0\n")
    lines = []
    for group, entries in plugin_odour.ENTRY_POINTS.items():
        lines += [f"[{group}]", *(f"{name} = plugin_odour:{value}" for name, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder


def run(program: str, site: Path, *arguments: object) -> str:
    paths = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", dedent(program), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=site, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def recipe(site: Path, *, student: str, data: str, adapter: str = "", predictor: str = "", mask: str = "") -> None:
    if adapter:
        student += f"\n    adapters: {{odour: {{kind: {adapter}}}}}\n    visible_only: false"
    text = RECIPE.format(
        student=student, data=data, predictor=predictor or "masked-head", mask=mask or "random, mask_prob: 0.5"
    )
    (site / "recipe.yaml").write_text(text)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_trained_written_read_and_resumed(form: str, site: Path, tmp_path: Path) -> None:
    recipe(site, **FORMS[form])
    lines = run(PROGRAM, site, tmp_path).splitlines()
    student = "RecurrentConfig" if form == "another student" else "BackboneConfig"
    assert lines == [f"{student} nose.txt", f"{student} nose.txt", "True", "True"]
    model = json.loads((tmp_path / "run/model/config.json").read_text())["model"]
    kind = FORMS[form].get("adapter", "")
    if kind:
        assert model["student"]["adapters"]["odour"]["kind"] == ("odour/grains" if kind == "odour" else kind)
        assert model["student"]["encoder"]["kind"] == ("wide" if "wide" in FORMS[form]["student"] else "transformer")


def test_a_recipe_of_two_modalities_is_resumed_too(site: Path, tmp_path: Path) -> None:
    (site / "recipe.yaml").write_text(TWO)
    program = PROGRAM.replace('given = {"data.path": "-", "device": "cpu"}', 'given = {"device": "cpu"}')
    assert run(program, site, tmp_path).splitlines()[-2:] == ["True", "True"]
    metrics = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    names = {name for line in metrics for name in line}
    assert {"loss", "a/loss", "b/loss"} <= names
    described = json.loads((tmp_path / "run/model/config.json").read_text())
    assert {name: data["kind"] for name, data in described["data"].items()} == {"a": "odour/jars", "b": "odour/bottles"}


def test_two_modalities_may_not_bring_different_files_of_one_name(site: Path, tmp_path: Path) -> None:
    (site / "recipe.yaml").write_text(TWO.replace("odour/bottles, ", "odour/bottles, scale: 2.0, "))
    program = """
    import sys
    from d2v.core import pretrain
    try:
        pretrain("recipe.yaml", {"device": "cpu", "out": sys.argv[1]}, progress=False)
    except ValueError as error:
        print(error)
    """
    told = run(program, site, tmp_path / "run")
    assert "data.b" in told
    assert "nose.txt" in told


# --- what is refused --------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Nameless:
    """A configuration that nobody has given a kind."""

    embed_dim: int = 8
    depth: int = 1
    num_heads: int = 1


@pytest.mark.parametrize("place", ["encoder", "masker", "student", "adapter"])
def test_what_has_no_kind_is_refused_when_it_is_written(place: str) -> None:
    broken: dict[str, Any] = {
        "encoder": lambda: with_student(NEW, encoder=Nameless()),
        "student": lambda: attrs.evolve(NEW, student=Nameless()),
        "masker": lambda: attrs.evolve(NEW, maskers={"toy": Nameless()}),
        "adapter": lambda: with_student(NEW, adapters={"toy": Nameless()}),
    }
    with pytest.raises(ConfigError, match=r"Nameless.*kind"):
        to_plain(broken[place]())


def test_a_function_in_place_of_a_masker_is_refused_when_it_is_written() -> None:
    with pytest.raises(ConfigError, match="kind"):
        to_plain(attrs.evolve(NEW, maskers={"toy": lambda *_: None}))


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
    assert role is not None
    with pytest.raises(ConfigError, match=r"spans.*did you mean 'spans'"):
        role.find("span")


def test_a_plugin_that_takes_the_name_of_one_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    role = role_of(Masker)
    assert role is not None
    assert role.plugins is not None
    monkeypatch.setattr(Registry, "names", lambda self: ["spans"])
    with pytest.raises(PluginError, match="spans"):
        role.find("spans")
