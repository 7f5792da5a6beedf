"""Image models for the timm package, which loads them and computes the same."""

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

from d2v.core.description import Description
from d2v.core.exports import export_folder, form_of
from d2v.core.files import open_model
from d2v.core.jobs import convert
from d2v.core.labels import Classes
from d2v.core.model import Batch
from d2v.core.registry import UnknownNameError
from d2v.vision import ImageClassification

CHECKPOINTS = Path(__file__).parents[1] / "parity/data/checkpoints"
PRETRAINED, FINE_TUNED = "vision_v1_pretrained_checkpoint-799.pth", "vision_v1_finetuned_mp_rank_00_model_states.pt"
pytestmark = pytest.mark.filterwarnings(
    "ignore:the file does not say how images:UserWarning",
    "ignore:arguments.target_layers:UserWarning",
    "ignore:only the encoder is written:UserWarning",
)


def agree(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def images(student: Any) -> torch.Tensor:
    adapter = student.adapters["vision"]
    return torch.randn(2, adapter.channels, *adapter.image_size)


@torch.no_grad()
def test_the_package_computes_the_same(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    done = convert(CHECKPOINTS / PRETRAINED, tmp_path / "model", to="timm")
    stored = open_model(CHECKPOINTS / PRETRAINED)
    x = images(stored.description.student)
    ours = stored.student.eval().encode(Batch(source=x)).x  # type: ignore[operator]
    folder = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).eval()
    agree(ours, folder.forward_features(x))
    values = json.loads((tmp_path / "model/config.json").read_text())
    weights = tmp_path / "model/model.safetensors"
    file = timm.create_model(values["architecture"], checkpoint_path=weights, **values["model_args"]).eval()
    agree(ours, file.forward_features(x))
    assert done.text().startswith("an encoder of vision, ")


@torch.no_grad()
@pytest.mark.parametrize("mean", [True, False])
def test_classifiers_with_their_heads(tmp_path: Path, mean: bool) -> None:
    timm = pytest.importorskip("timm")
    student: Any = open_model(CHECKPOINTS / PRETRAINED).description.student
    student = attrs.evolve(student, encoder=attrs.evolve(student.encoder, norm_out=not mean))
    task = ImageClassification(pooling="mean" if mean else "class-token", norm=mean)
    labels = Classes(("crane", "heron", "stork"))
    described = Description(model=task.adapt(student), task=task, labels=labels, data={"vision": {"mean": [0.1] * 3}})
    module: Any = described.build().eval()
    for one in module.parameters():
        one.add_(torch.randn_like(one) * 0.1)
    export_folder(tmp_path / "model", form_of("timm", "vision"), module, described)
    theirs = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).eval()
    x = images(student)
    agree(module.logits(Batch(source=x)), theirs(x))
    assert tuple(theirs.pretrained_cfg["label_names"]) == labels.names
    assert tuple(theirs.pretrained_cfg["mean"]) == (0.1, 0.1, 0.1)


def test_what_differs_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no class of timm computes the same: norm=post, .*context=ContextConfig"):
        convert(CHECKPOINTS / "image_pretrain.pt", tmp_path / "model", to="timm")
    with pytest.raises(UnknownNameError, match="text models have no form 'timm'"):
        convert(CHECKPOINTS / "text_pretrain.pt", tmp_path / "model", to="timm")
    assert not list(tmp_path.iterdir())


def test_a_published_classifier(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    done = convert(CHECKPOINTS / FINE_TUNED, tmp_path / "model", to="timm")
    assert done.description.task is not None
    x = images(done.description.student)
    with torch.no_grad():
        theirs = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).eval()(x)
        agree(open_model(CHECKPOINTS / FINE_TUNED).module.eval().logits(Batch(source=x)), theirs)  # type: ignore[operator]
