"""The notebook of the quickstart: its cells run, and it is stored without outputs."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import d2v.core

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("IPython")
pytest.importorskip("matplotlib")

FILE = Path(__file__).parents[2] / "examples/quickstart.ipynb"
SMALL = {r'DATA = "[^"]+"': 'DATA = "digits"', r"STEPS = \d+": "STEPS = 6"}


@pytest.fixture(scope="module")
def notebook() -> Any:
    return nbformat.read(FILE, as_version=4)


def test_it_is_valid_and_has_no_outputs(notebook: Any) -> None:
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell for cell in code if cell.outputs or cell.execution_count is not None] == []


def test_its_cells_run(
    notebook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, with few updates on small images, and the fastest of the probes."""
    shown: list[Any] = []
    fast = {"probes": ["knn"], "poolings": ["mean"], "baselines": False}
    monkeypatch.setattr(d2v.core, "probe", partial(d2v.core.probe, fast))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("IPython.display.display", shown.append)
    names: dict[str, Any] = {}
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        text = cell.source
        if "DATA =" in text:
            for pattern, small in SMALL.items():
                text, count = re.subn(pattern, small, text)
                assert count, f"the first cell has no {pattern}"
        exec(compile(text, f"{FILE.name}, {cell.id}", "exec"), names)
    assert [one.data.count("<svg") for one in shown] == [1, 1, 1]
    printed = capsys.readouterr().out
    assert re.search(r"pretrained\s+all\s+mean", printed)
    assert re.search(r"pretrained [\d.]+ %, from scratch [\d.]+ %", printed)


@pytest.mark.long
def test_it_runs_as_it_is(notebook: Any, tmp_path: Path) -> None:
    """In a kernel of its own, as a reader runs it: pretraining helps."""
    client = pytest.importorskip("nbclient").NotebookClient
    pytest.importorskip("ipykernel")
    done = client(notebook.copy(), timeout=1200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(
        output.get("text", "") for cell in done.cells if cell.cell_type == "code" for output in cell.outputs
    )
    found = re.search(r"pretrained ([\d.]+) %, from scratch ([\d.]+) %", printed)
    assert found
    assert float(found[1]) > float(found[2]) + 3  # two standard errors of a difference on 2,000 images
