"""Calls with keywords as a type checker sees them: `nox -s typecheck` reads this file, nothing runs it.

Each comment `type: ignore[...]` is an expectation: mypy complains of one that is not needed.
"""

from pathlib import Path

import d2v.core
from d2v.core.recipes import TrainConfig
from d2v.vision import ImageDataConfig


def calls() -> None:
    """Never called."""
    # What people type.
    d2v.core.pretrain("vision/small", data="photos", out="run", max_steps=2000, lr=1e-3, size=64, num_workers=2)
    d2v.core.pretrain("vision/small", {"model.student.encoder.depth": 6}, data=Path("photos"), out=Path("run"))
    d2v.core.pretrain(
        "vision/small", data={"path": "photos", "size": 64}, train={"keep": 5}, optim={"betas": [0.9, 0.95]}
    )
    d2v.core.pretrain("vision/small", data=ImageDataConfig(path="photos"), train=TrainConfig(max_steps=9, batch_size=4))
    d2v.core.finetune("vision/small-finetune", model="run", data="photos", out="classifier", freeze={"updates": 100})
    d2v.core.evaluate(model="classifier", data="photos", split=["val", "test"])
    d2v.core.predict(model="classifier", data="photos", split="test", out="predictions.csv")
    d2v.core.probe(model="run", data="photos", layers=[0, -1], poolings=["mean"], weights="teacher")
    d2v.core.probe({"model": "run", "data.path": "photos"}, progress=False)
    d2v.core.extract(model="run", data="photos", out="features.npy", layers="final", pooling="tokens")

    # Names that do not exist, and values of a wrong type.
    d2v.core.pretrain("vision/small", data="photos", max_step=2000)  # type: ignore[call-arg]
    d2v.core.pretrain("vision/small", data="photos", max_steps="many")  # type: ignore[arg-type]
    d2v.core.pretrain("vision/small", data=3)  # type: ignore[arg-type]
    d2v.core.finetune("vision/small-finetune", precision="fp8")  # type: ignore[arg-type]
    d2v.core.evaluate(model="classifier", data="photos", max_steps=3)  # type: ignore[call-arg]
    d2v.core.probe(model="run", data="photos", layers="last")  # type: ignore[arg-type]
    d2v.core.probe(model="run", data="photos", poolings=["max"])  # type: ignore[list-item]
    d2v.core.extract(model="run", data="photos", out=None)  # type: ignore[arg-type]
