"""`d2v plot` on real runs."""

import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch
from xml.etree import ElementTree

import pytest
import torch
from attrs import evolve
from commands import Run

from d2v.core import modalities, plot
from d2v.core.data import DataError
from d2v.core.jobs import plotting
from d2v.core.plots import style
from d2v.vision import ImageDataConfig

pytest.importorskip("matplotlib")
ALL = [f"{name}.{ending}" for name in ("curves", "masks", "features") for ending in ("svg", "png")]


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of the pretrained run."""
    return Path(shutil.copytree(made / "run", tmp_path / "run"))


def test_pictures_of_a_run(run: Path, made: Path, d2v: Run) -> None:
    code, shown, errors = d2v("plot", run, made / "classifier", "--images", 3)
    assert (code, errors.count("\n")) == (0, 1), "what the data hold, and no warning"
    assert shown.split() == [str(run / "plots" / name) for name in ALL]
    for name in ALL:
        content = (run / "plots" / name).read_bytes()
        if name.endswith(".png"):
            assert content.startswith(b"\x89PNG")
        else:
            assert ElementTree.fromstring(content).get("aria-label")
    texts = {text.strip() for text in ElementTree.fromstring((run / "plots/curves.svg").read_bytes()).itertext()}
    assert {"run", "classifier", "loss", "accuracy in validation", "decay of the teacher"} <= texts
    masks = {text.strip() for text in ElementTree.fromstring((run / "plots/masks.svg").read_bytes()).itertext()}
    assert {"image", "view 1", "view 4"} <= masks


def test_the_same_call_gives_the_same_files_and_another_seed_others(run: Path, tmp_path: Path) -> None:
    first, second = (plot([run], out=tmp_path / name, images=2) for name in ("a", "b"))
    assert [file.read_bytes() for file in first.files] == [file.read_bytes() for file in second.files]
    other = plot([run], out=tmp_path / "c", images=2, seed=1)
    assert other.files[0].read_bytes() == first.files[0].read_bytes(), "curves know no seed"
    assert other.files[2].read_bytes() != first.files[2].read_bytes()


def test_samples_come_from_what_was_not_trained_on(run: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    whole = ImageDataConfig.build

    def build(self: ImageDataConfig, split: str, **keys: object) -> object:
        seen.append(split)
        return whole(self, split, **keys)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(ImageDataConfig, "build", build)
    plot([run], images=2)
    assert seen == ["test"]


def test_samples_are_picked_from_all_over_the_data(made: Path) -> None:
    loader = ImageDataConfig(path=str(made / "photos"), size=28, resize=28, channels=1, num_workers=0).build(
        "test", batch_size=1
    )
    batch = plotting.drawn_samples(loader, 10, seed=0)
    assert batch.source.shape == (10, 1, 28, 28)
    ids = batch.ids
    assert ids is not None
    assert ids.unique().numel() == 10
    assert int(ids.max()) >= 30, "files are in the order of their classes"
    assert plotting.drawn_samples(loader, 1000, seed=0).size == len(loader)


def test_broken_samples_are_left_out(run: Path, made: Path, tmp_path: Path, d2v: Run) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(made / "photos", photos)
    files = sorted((photos / "test").rglob("*.png"))
    for file in (files[0], files[-1]):
        file.write_text("not an image")
    arguments = ["plot", run, "--data", photos, "--images", len(files)]
    code, _, errors = d2v(*arguments)
    assert code == 0
    assert f"2 of {len(files)} samples could not be read" in errors
    shown = ElementTree.fromstring((run / "plots/masks.svg").read_bytes()).get("aria-label", "")
    assert shown.startswith(f"{len(files) - 2} samples"), "none is listed twice"
    for file in files:
        file.write_text("not an image")
    code, _, errors = d2v(*arguments)
    assert code == 1
    assert "d2v: no sample can be read" in errors


def test_a_fine_tuned_run_has_no_masks(made: Path, tmp_path: Path, d2v: Run) -> None:
    code, shown, errors = d2v("plot", made / "classifier", "--out", tmp_path / "out", "--images", 2)
    assert (code, errors.count("\n")) == (0, 1)
    assert shown.splitlines()[-1] == f"{made / 'classifier'} is fine-tuned, so there are no masks"
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(ALL) - {"masks.svg", "masks.png"}


def test_a_run_without_checkpoint_has_curves(run: Path, d2v: Run) -> None:
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "checkpoints")
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 6, "lo')  # being written
    code, shown, errors = d2v("plot", run)
    assert (code, errors) == (0, "")
    assert shown.splitlines() == [
        str(run / "plots/curves.svg"),
        str(run / "plots/curves.png"),
        f"{run} has no checkpoint yet, so there are no masks and features",
    ]


def test_a_modality_without_pictures_has_curves(run: Path, d2v: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    record = evolve(modalities.load("vision"), images=None)
    load = modalities.load
    monkeypatch.setattr(modalities, "load", lambda name: record if name == "vision" else load(name))
    code, shown, errors = d2v("plot", run)
    assert (code, errors) == (0, "")
    assert shown.splitlines()[1:] == [
        str(run / "plots/curves.png"),
        "samples of vision have no images, so there are no masks and features",
    ]


def test_runs_of_one_name_are_told_apart(run: Path, tmp_path: Path) -> None:
    others = [tmp_path / "x/run", tmp_path / "y"]
    for other in others:
        shutil.copytree(run, other)
    with patch.object(plotting, "learning_curves", wraps=plotting.learning_curves) as curves:
        plot([run, *others], out=tmp_path / "pictures")
    assert list(curves.call_args.args[0]) == [str(run), str(others[0]), "y"]


def test_bad_input_is_one_line(run: Path, tmp_path: Path, d2v: Run) -> None:
    new = Path(shutil.copytree(run, tmp_path / "new"))
    (new / "metrics.jsonl").unlink()
    moved = Path(shutil.copytree(run, tmp_path / "moved"))
    text = (moved / "config.yaml").read_text()
    path = next(line for line in text.splitlines() if line.strip().startswith("path:"))
    (moved / "config.yaml").write_text(text.replace(path, "  path: gone"))
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    cases: list[tuple[list[object], int, str]] = [
        ([new], 1, f"{new} has no metrics yet"),
        ([run, tmp_path / "empty"], 1, f"{tmp_path / 'empty'} is not a run: it has no config.yaml"),
        ([tmp_path / "nowhere"], 1, "is not a run: the folder does not exist"),
        ([run, "--out", tmp_path / "file"], 1, f"{tmp_path / 'file'} is a file; out must be a folder"),
        ([run, "--out", "/dev/null/plots"], 1, "cannot be written: Not a directory; choose another out"),
        ([run, "--data", "fashion-minst"], 1, "did you mean 'fashion-mnist'?"),
        ([moved], 1, "give their new path as data (--data)"),
        ([run, "--images", 0], 1, "images"),
    ]
    for arguments, expected, message in cases:
        code, shown, errors = d2v("plot", *arguments)
        assert (code, shown, len(errors.splitlines())) == (expected, "", 1), errors
        assert errors.startswith("d2v: ")
        assert message in errors
    assert not list(tmp_path.rglob("*.svg")), "nothing is drawn by halves"


def test_a_missing_extra_is_one_line(run: Path, d2v: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "find_spec", lambda name: None)
    code, _, errors = d2v("plot", run)
    assert code == 1
    assert errors == ("d2v: plots need matplotlib, jinja2, which are not installed: pip install 'd2v[plot]'\n")


def test_data_that_were_moved_are_found_again(run: Path, made: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="if the data were moved"):
        plot([run], data=str(tmp_path / "gone"))
    assert len(plot([run], data=str(made / "photos"), images=1).files) == 6


@pytest.mark.parametrize("own", [{}, {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}])
def test_pictures_undo_the_preparation(made: Path, own: dict[str, Any]) -> None:
    from PIL import Image

    config = ImageDataConfig(path=str(made / "photos"), size=28, resize=28, channels=3, num_workers=0, **own)
    loader = config.build("test", batch_size=4)
    record = modalities.load("vision")
    assert record.images is not None
    shown = record.images(next(iter(loader)), config)
    for place in range(4):
        with Image.open(made / "photos" / loader.name(place)) as image:
            expected = torch.tensor(list(image.convert("L").tobytes())).view(28, 28) / 255
        torch.testing.assert_close(shown[place], expected.expand(3, 28, 28), rtol=0, atol=1e-6)
