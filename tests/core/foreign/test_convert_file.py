"""Files that become models: pretrained and fine-tuned ones, through converters of a made-up format."""

import re
from typing import ClassVar

import attrs
import pytest
import torch
from attrs import frozen
from building import NEW, randomise, toy_batch
from torch import nn

from d2v.core.description import Description
from d2v.core.foreign import (
    ForeignConfig,
    ForeignFileError,
    KeyTable,
    Layout,
    Rename,
    Unpacked,
    convert_file,
    tensors_below,
)
from d2v.core.labels import Classes


class Counter(nn.Module):
    def __init__(self, encoder, width, labels):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(width, labels.num_outputs)

    def logits(self, batch):
        return self.head(self.encoder.encode(batch).x.mean(1))


@frozen(kw_only=True)
class Counting:
    """A task that a model was fine-tuned for."""

    modality: ClassVar[str] = "toy"

    def build(self, encoder, *, embed_dim, labels):
        return Counter(encoder, embed_dim, labels)


@frozen
class Pretrained:
    name: str = "pretrained toys"

    def unpack(self, contents):
        found = contents.get("about")
        return (
            Unpacked({"model": found}, tensors_below(contents["weights"])) if found and "labels" not in found else None
        )

    def accepts(self, foreign):
        return True

    def config(self, foreign, shapes):
        own = ForeignConfig(foreign["model"], "model")
        encoder = attrs.evolve(NEW.student.encoder, depth=own.count("depth"))
        encoder = attrs.evolve(encoder, block=attrs.evolve(encoder.block, embed_dim=own.get("width", 16)))
        return Description(model=attrs.evolve(NEW, student=attrs.evolve(NEW.student, encoder=encoder)))

    def layout(self, description, shapes):
        return Layout(table=KeyTable([Rename(f"x.{n}", n) for n in names(NEW.build())]), teacher_prefixes=("ema.",))


@frozen
class FineTuned:
    name: str = "fine-tuned toys"

    def unpack(self, contents):
        found = contents.get("about")
        return Unpacked({"model": found}, tensors_below(contents["weights"])) if found and "labels" in found else None

    def accepts(self, foreign):
        return True

    def config(self, foreign, shapes):
        labels = foreign["model"]["labels"]
        return Description(
            model=NEW.student,
            task=Counting(),
            labels=Classes(tuple(labels)),
            files={"labels.txt": "\n".join(labels).encode()},
        )

    def layout(self, description, shapes):
        inside = [n for n in description.build().state_dict() if n.startswith("encoder.")]
        rules = [Rename(n.removeprefix("encoder."), n) for n in inside]
        return Layout(
            table=KeyTable([*rules, *(Rename(f"proj.{part}", f"head.{part}") for part in ("weight", "bias"))]),
            prefixes=("wrapper.body.", "module.wrapper.body.", "module."),
        )


CONVERTERS = (FineTuned(), Pretrained())


def names(model):
    return [name for name in model.state_dict() if not name.startswith("teacher.")]


def pretrained(path, dtype=torch.float32, **about):
    model = randomise(NEW.build())
    weights = {f"x.{name}": model.state_dict()[name].to(dtype) for name in names(model)}
    torch.save({"about": {"depth": 3} | about, "weights": weights, "optimizer": {"step": torch.ones(5)}}, path)
    return model, weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_of_half_precision_become_whole(tmp_path, dtype):
    _, weights = pretrained(tmp_path / "file.pt", dtype)
    one = convert_file(CONVERTERS, tmp_path / "file.pt")
    for name, tensor in one.model.state_dict().items():
        assert tensor.dtype == torch.float32
        ours = name.replace("teacher.module.", "student.")
        assert torch.equal(tensor, weights[f"x.{ours}"].float()), name


@pytest.mark.parametrize("prefix", ["wrapper.body.", "module.wrapper.body."])
def test_a_fine_tuned_file_gives_the_tasks_module(tmp_path, prefix):
    model = randomise(Description(model=NEW.student, task=Counting(), labels=Classes(("a", "b"))).build())
    state = {
        name.replace("encoder.", prefix, 1) if name.startswith("encoder.") else name.replace("head.", "proj."): tensor
        for name, tensor in model.state_dict().items()
    }
    torch.save({"about": {"labels": ["a", "b"]}, "weights": state}, tmp_path / "file.pt")
    one = convert_file(CONVERTERS, tmp_path / "file.pt")
    assert isinstance(one.model, Counter)
    assert one.description.labels == Classes(("a", "b"))
    assert one.description.files == {"labels.txt": b"a\nb"}
    batch = toy_batch()
    assert torch.equal(one.model.eval().logits(batch), model.eval().logits(batch))
    with pytest.raises(ValueError, match=r"Counter .*teacher"):
        one.load_teacher({})


def refused(path):
    with pytest.raises(ForeignFileError) as caught:
        convert_file(CONVERTERS, path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def test_all_that_does_not_fit_is_told_together(tmp_path):
    path = tmp_path / "file.pt"
    _, weights = pretrained(path)
    weights = weights | {"x.predictors.toy.decoder.proj.0.bias": torch.ones(3), "stray": torch.ones(1)}
    del weights["x.student.encoder.blocks.0.norm1.bias"]
    torch.save({"about": {"depth": 3}, "weights": weights | {"ema.nowhere": torch.ones(1)}}, path)
    message = refused(path)
    assert re.search(r"missing: x\.student\.encoder\.blocks\.0\.norm1\.bias\b", message)
    assert "unexpected: stray, teacher's nowhere" in message
    assert "predictors.toy.decoder.proj.0.bias (3,)" in message


def test_nobody_knows_the_format(tmp_path):
    torch.save({"weights": {}}, tmp_path / "file.pt")
    assert "tried fine-tuned toys, pretrained toys" in refused(tmp_path / "file.pt")


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"depth": 10**9}, "model.depth=1000000000 "),
        ({"depth": "3"}, "model.depth='3' "),
        ({"depth": True}, "model.depth=True "),
        ({"width": 1 << 24}, "more than"),
        ({"width": "wide"}, "TypeError"),
        ({"width": [1]}, "TypeError"),
        ({"width": -16}, ""),
    ],
)
def test_a_configuration_that_asks_for_too_much_is_refused_before_memory_is(tmp_path, about, message):
    pretrained(tmp_path / "file.pt", **about)
    assert message in refused(tmp_path / "file.pt")
