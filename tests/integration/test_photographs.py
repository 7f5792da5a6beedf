"""From a folder of JPEG photographs to a classifier by the recipes for photographs, made small."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import Run
from PIL import Image

TINY = {
    "model.student.encoder.block": "{embed_dim: 32, num_heads: 2, norm_eps: 1e-6}",
    "model.student.encoder.depth": "3",
    "model.student.adapters.vision.image_size": "64",
    "model.student.adapters.vision.context.depth": "1",
    "model.predictors.vision.decoder_dim": "32",
    "model.predictors.vision.num_layers": "2",
    "model.targets.layers": "3",
    "model.num_masks": "2",
    "data.size": "64",
}
BRIEF = ["train.max_steps=3", "train.batch_size=2", "train.log_every=1", "data.num_workers=0", "device=cpu"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of two colours in JPEG files of all shapes, in the splits that a classifier needs."""
    root, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split in ("train", "val"):
        for colour, name in enumerate(("red", "green")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number, size in enumerate([(90, 70), (64, 120), (101, 77)]):
                pixels = generator.integers(0, 80, (*size, 3), dtype=np.uint8)
                pixels[..., colour] += 150
                Image.fromarray(pixels).save(folder / f"{number}.jpg", quality=90)
    return root


def test_photographs_are_learned_from_and_classified(photos: Path, tmp_path: Path, d2v: Run) -> None:
    run, classifier = tmp_path / "run", tmp_path / "classifier"
    small = [f"{key}={value}" for key, value in TINY.items()]
    code, _, errors = d2v("pretrain", "vision/photos", f"data.path={photos}", f"out={run}", *small, *BRIEF)
    assert code == 0, errors
    decays = [json.loads(line)["decay"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert decays[-1] == pytest.approx(0.9998), "the teacher's annealing is a fraction of the run"

    code, shown, errors = d2v("probe", f"model={run}", f"data.path={photos}", "labels=4", "device=cpu")
    assert code == 0, errors
    assert "pretrained" in shown
    given = [f"model={run}", f"data.path={photos}", f"out={classifier}", "validation.every=3"]
    code, _, errors = d2v("finetune", "vision/finetune", *given, *BRIEF)
    assert code == 0, errors
    config = (classifier / "config.yaml").read_text()
    assert "size: 64" in config, "as the model was pretrained, not as the recipe's class says"
    code, shown, errors = d2v("evaluate", f"model={classifier}", f"data.path={photos}", "device=cpu")
    assert code == 0, errors
    assert "accuracy" in shown
