"""Fixtures for the tests of the commands."""

from pathlib import Path

import pytest
from commands import SHORT, Run

from d2v.core.cli import main


@pytest.fixture
def d2v(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command; gives exit code, output and errors."""
    monkeypatch.delenv("D2V_DEBUG", raising=False)

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        shown = capfd.readouterr()
        return code, shown.out, shown.err

    return run


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, a pretrained run on them and a classifier on that."""
    root = tmp_path_factory.mktemp("made")
    photos = root / "photos"
    assert main(["data", "export-images", "fashion-mnist", str(photos), "--per-class", "6"]) == 0
    assert main(["pretrain", "vision/small", f"data.path={photos}", f"out={root / 'run'}", *SHORT]) == 0
    arguments = [f"model={root / 'run'}", f"data.path={photos}", f"out={root / 'classifier'}", "validation.every=2"]
    assert main(["finetune", "vision/small-finetune", *arguments, *SHORT]) == 0
    return root


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of models, in an empty working folder."""
    monkeypatch.setenv("D2V_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("D2V_OFFLINE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache/models"
