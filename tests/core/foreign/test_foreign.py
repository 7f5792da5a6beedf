"""Third-party configurations: fields are used, ignored or reported; and the conversion of a made-up format."""

import re

import attrs
import pytest
import torch
from attrs import frozen
from building import DIM, FORMER, NEW, converted_back, randomise

from d2v.core.description import Description
from d2v.core.foreign import ForeignConfig, KeyTable, Layout, Rename, Unpacked, convert, tensors_below


def test_unknown_fields_are_named_in_one_warning():
    config = ForeignConfig({"depth": 3, "zeta": 1, "alpha": 2, "_name": None, "used": 1, "noise": 0}, "model")
    assert config.get("depth") == 3
    config.ignore("used")
    config.refuse_unless("noise", 0)
    with pytest.warns(UserWarning, match="model .*alpha, zeta") as caught:
        config.finish()
    assert len(caught) == 1


def test_no_warning_without_unknown_fields():
    config = ForeignConfig({"depth": 3, "_name": "x"}, "model")
    assert "depth" in config
    config.get("depth")
    config.finish()  # a warning would be an error


def test_missing_fields_name_the_nearest():
    config = ForeignConfig({"num_head": 3}, "model")
    with pytest.raises(ValueError, match=r"model .*'num_heads'.*'num_head'"):
        config.get("num_heads")
    assert config.get("num_heads", None) is None


def test_sections_are_called_by_their_path():
    model = ForeignConfig({"modalities": {"audio": {"depth": 1}}, "flat": 3}, "model")
    with pytest.raises(ValueError, match=r"model\.modalities\.audio .*'width'"):
        model.section("modalities").section("audio").get("width")
    with pytest.raises(ValueError, match=r"model\.flat .*mapping"):
        model.section("flat")


@pytest.mark.parametrize("value", [True, 1, "yes", [1], {"a": 1}])
def test_refusals_name_field_and_value(value):
    with pytest.raises(ValueError, match=rf"model\.quantize={re.escape(repr(value))} "):
        ForeignConfig({"quantize": value}, "model").refuse_unless("quantize", False)
    with pytest.raises(ValueError, match="because of this"):
        ForeignConfig({"quantize": value}, "model").refuse_unless("quantize", False, why="because of this")
    ForeignConfig({}, "model").refuse_unless("quantize", False)


@frozen
class ToyFormat:
    """A made-up format: our names with "x." in front, the teacher's below "ema."."""

    base: object = NEW
    name: str = "toys"

    def unpack(self, contents):
        return Unpacked(contents["about"], tensors_below(contents["tensors"])) if "about" in contents else None

    def accepts(self, foreign):
        return foreign["model"].get("format") == "toy"

    def config(self, foreign, shapes):
        return Description(model=attrs.evolve(self.base, seed=ForeignConfig(foreign["model"], "model").get("seed")))

    def layout(self, description, shapes):
        names = [n for n in description.build().state_dict() if not n.startswith("teacher.")]
        table = KeyTable([Rename(f"x.{n}", n) for n in names])
        return Layout(table=table, prefixes=("wrapper.s.", "s."), teacher_prefixes=("averaged.", "ema."))


FOREIGN = {"model": {"format": "toy", "seed": 5}}


@pytest.mark.parametrize("base", [NEW, FORMER], ids=["2.0", "1.0"])
def test_a_converted_model_has_every_tensor(base):
    assert converted_back([ToyFormat(base)], FOREIGN["model"], {}).description.model.seed == 5


def test_an_unknown_configuration_names_what_was_tried():
    with pytest.raises(ValueError, match="tried toys, others"):
        convert([ToyFormat(), ToyFormat(name="others")], {"model": {"format": "else"}}, {})


def file_of(model):
    student = {f"s.x.{n}": t for n, t in model.state_dict().items() if not n.startswith("teacher.")}
    teacher = {f"ema.x.student.{n}": t for n, t in model.teacher.module.state_dict().items()}
    return student, teacher


def test_without_a_teacher_it_starts_as_built():
    student, _ = file_of(randomise(NEW.build()))
    one = convert([ToyFormat()], FOREIGN, student)
    assert torch.equal(
        one.model.student.encoder.blocks[0].norm1.weight, student["s.x.student.encoder.blocks.0.norm1.weight"]
    )


def test_tensors_that_do_not_fit_are_named_together():
    student, teacher = file_of(NEW.build())
    first, second = "s.x.student.encoder.blocks.0.norm1.weight", "s.x.student.encoder.blocks.1.norm1.bias"
    broken = {n: t for n, t in student.items() if n not in (first, second)} | {"s.stray": torch.ones(1)}
    with pytest.raises(ValueError, match=r"missing: .*norm1.weight, .*norm1.bias.*unexpected: stray"):
        convert([ToyFormat()], FOREIGN, broken | teacher)
    with pytest.raises(ValueError, match=rf"shape: student.encoder.blocks.0.norm1.weight \(3,\) for \({DIM},\)"):
        convert([ToyFormat()], FOREIGN, student | {first: torch.ones(3)})
    del teacher["ema.x.student.encoder.blocks.0.norm1.weight"]
    with pytest.raises(ValueError, match=r"teacher's x.student.encoder.blocks.0.norm1.weight"):
        convert([ToyFormat()], FOREIGN, student | teacher)
