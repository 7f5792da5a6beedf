"""`d2v probe` and `d2v extract` on real images: accuracies and files of features."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import SHORT, Run
from safetensors.torch import load_file

from d2v.core import probe
from d2v.core.probes import Case


def test_probe_puts_baselines_beside_every_figure(made: Path, tmp_path: Path, d2v: Run) -> None:
    out = tmp_path / "probe.json"
    code, shown, errors = d2v(
        "probe", f"model={made / 'run'}", f"data.path={made / 'photos'}", f"out={out}", "labels=20", "draws=2"
    )
    assert code == 0, errors
    figures = json.loads(out.read_text())["scores"]
    assert set(figures) == {"raw", "untrained", "pretrained"}
    assert set(figures["pretrained"]["all"]) == {"mean", "grid"}
    assert set(figures["pretrained"]["all"]["grid"]) == {"knn", "linear", "few"}
    assert set(figures["pretrained"]["all"]["grid"]["few"]) == {"mean", "std"}
    assert "60 training samples, 60 test samples" in shown
    assert len(shown.splitlines()) == 1 + 1 + 2 + 2 + 1


def test_probe_on_a_small_folder_measures_what_it_can(made: Path, tmp_path: Path, d2v: Run) -> None:
    for name, number in {"Bag": 6, "Coat": 5, "Dress": 1}.items():
        (tmp_path / "few" / name).mkdir(parents=True)
        for image in sorted((made / "photos/train" / name).iterdir())[:number]:
            shutil.copy(image, tmp_path / "few" / name)
    given = [f"model={made / 'run'}", f"data={tmp_path / 'few'}", "baselines=false", "batch_size=8"]
    code, shown, errors = d2v("probe", *given)
    assert code == 0, errors
    assert "100 labels" in shown.partition("left out: ")[2]
    assert "linear" in shown.splitlines()[0]
    code, _, errors = d2v("probe", *given, "probes=[few]", "neighbours=3")
    assert (code, "100 labels" in errors) == (1, True)


def test_a_class_token_that_is_not_there_is_left_out(made: Path, tmp_path: Path, d2v: Run) -> None:
    given = [f"data={made / 'photos'}", f"out={tmp_path / 'run'}", *SHORT, "train.max_steps=1"]
    without = ["model.student.adapters.vision.extra_tokens=0", "model.cls_weight=0"]
    assert d2v("pretrain", "vision/small", *[one for one in given if one != "train.max_steps=4"], *without)[0] == 0
    asked = [f"model={tmp_path / 'run'}", f"data={made / 'photos'}", "probes=[knn]", "baselines=false"]
    out = tmp_path / "probe.json"
    code, shown, errors = d2v("probe", *asked, "poolings=[class-token,mean]", f"out={out}")
    assert code == 0, errors
    assert "left out: class-token: " in shown
    assert list(json.loads(out.read_text())["scores"]["pretrained"]["all"]) == ["mean"]
    code, _, errors = d2v("probe", *asked, "poolings=[class-token]")
    assert (code, "class token" in errors) == (1, True)


def test_probe_reads_any_layer_and_part(made: Path) -> None:
    """One layer alone is what `each` says of it; a folder without parts is split by names."""
    given = {"model": str(made / "run"), "data.path": str(made / "photos"), "probes": ["knn"], "baselines": False}
    each = probe({**given, "each": True, "poolings": ["class-token"]}, progress=False)
    assert [case.layers for case in each.scores] == ["0", "1", "2", "3", "all"]
    alone = probe({**given, "layers": [-1], "poolings": ["class-token"]}, progress=False)
    assert list(alone.scores.values()) == [each.scores[Case("pretrained", "3", "class-token", "knn")]]
    final = probe({**given, "layers": "final", "each": True, "poolings": ["mean"]}, progress=False)
    assert [case.layers for case in final.scores] == ["0", "1", "2", "3", "final"]
    branches = probe({**given, "layers": [0], "result": "ffn", "poolings": ["mean"]}, progress=False)
    assert [case.layers for case in branches.scores] == ["0"]
    part = probe({**given, "data.path": str(made / "photos/train"), "neighbours": 3}, progress=False)
    assert part.num_train + part.num_test == 60
    assert 10 <= part.num_test < 30
    teacher = probe({**given, "weights": "teacher"}, progress=False)
    assert {case.features for case in teacher.scores} == {"pretrained"}
    assert each.notes == teacher.notes == ()
    classifier = probe({**given, "model": str(made / "classifier")}, progress=False)
    assert len(classifier.scores) == 2


def test_probe_says_when_it_measures_on_samples_that_the_model_was_trained_on(made: Path, tmp_path: Path) -> None:
    given = {"data.path": str(made / "photos"), "probes": ["knn"], "baselines": False, "out": str(tmp_path / "p.json")}
    swapped = {**given, "model": str(made / "classifier"), "train": "test", "test": "train"}
    trained = probe(swapped, progress=False)
    assert [note.partition(" samples of train ")[0] for note in trained.notes] == ["all 60", "all 60"]
    assert trained.table().endswith("\n".join(trained.notes) + "\n")
    assert json.loads((tmp_path / "p.json").read_text())["notes"] == list(trained.notes)


@pytest.mark.parametrize(
    ("pooling", "shape"), [("mean", (60, 96)), ("grid", (60, 384)), ("class-token", (60, 96)), ("tokens", (60, 16, 96))]
)
def test_extract_writes_features_and_names(
    pooling: str, shape: tuple[int, ...], made: Path, tmp_path: Path, d2v: Run
) -> None:
    given = [f"model={made / 'run'}", f"data.path={made / 'photos/test'}", f"pooling={pooling}", "layers=[2]"]
    code, shown, errors = d2v("extract", *given, f"out={tmp_path / 'f.npy'}")
    assert code == 0, errors
    assert f"features of shape {shape} in" in shown
    features = np.load(tmp_path / "f.npy")
    assert features.shape == shape
    names = (tmp_path / "f.txt").read_text().splitlines()
    assert names == sorted(names)
    assert made / "photos/test" / names[0] == min((made / "photos/test/Ankle boot").iterdir())
    assert d2v("extract", *given, f"out={tmp_path / 'g.safetensors'}", "batch_size=7")[0] == 0
    tensors = load_file(tmp_path / "g.safetensors")
    torch.testing.assert_close(tensors["features"], torch.from_numpy(features), rtol=1e-5, atol=1e-5)
    assert tensors["labels"].tolist() == [number // 6 for number in range(60)]


@pytest.mark.parametrize("out", ["f.npy", "f.safetensors"])
def test_extract_reads_the_final_output_and_feed_forward_branches(
    out: str, made: Path, tmp_path: Path, d2v: Run
) -> None:
    given = [f"model={made / 'classifier'}", f"data.path={made / 'photos/test'}", "batch_size=7"]

    def extracted(*options: str) -> torch.Tensor:
        code, _, errors = d2v("extract", *given, f"out={tmp_path / out}", *options)
        assert code == 0, errors
        file = tmp_path / out
        return load_file(file)["features"] if out == "f.safetensors" else torch.from_numpy(np.load(file))

    final, last, branch = extracted("layers=final"), extracted("layers=[-1]"), extracted("layers=[-1]", "result=ffn")
    assert final.shape == last.shape == branch.shape == (60, 96)
    torch.testing.assert_close(final, last, atol=1e-5, rtol=1e-4)  # this model has no norm behind its last block
    assert not torch.allclose(branch, last, atol=0.1)
    code, _, errors = d2v("extract", *given, f"out={tmp_path / out}", "layers=final", "result=ffn")
    assert code == 1
    assert "no feed-forward branch" in errors


def test_extract_takes_any_size_that_the_positions_allow(made: Path, tmp_path: Path, d2v: Run) -> None:
    given = [f"model={made / 'run'}", f"data.path={made / 'photos/test'}", "pooling=tokens"]
    larger = ["data.size=56", "data.resize=56", f"out={tmp_path / 'f.npy'}"]
    code, _, errors = d2v("extract", *given, *larger)
    assert code == 0, errors
    assert np.load(tmp_path / "f.npy").shape == (60, 64, 96)
    code, _, errors = d2v("extract", *given, "data.size=30", "data.resize=30", f"out={tmp_path / 'g.npy'}")
    assert code == 1
    assert "data.size=30 does not fit the model" in errors
