"""The forms of computation that are chosen by measurement, against the numbers of the reference."""

from pathlib import Path

import check
import pytest

from d2v.audio.extractor import ConvExtractor
from d2v.audio.positions import ConvPositions
from d2v.core.nn import Attention, ConvDecoder
from d2v.core.nn.forms import TwoForms
from d2v.core.nn.inference import PackedWeights, inferring
from d2v.core.nn.linear import Linear
from d2v.core.nn.packing import PackedRows

PARTS: dict[type[TwoForms], str] = {Linear: "", ConvDecoder: "_base", ConvExtractor: "audio", ConvPositions: "audio"}
"""Modules with two forms, and what the names of the folders have in common whose models use them."""
CASES = [
    pytest.param(path.parent, part, id=f"{path.parent.name}-{part.__name__}")
    for path in sorted((Path(__file__).parent / "data").glob("v*/*/config.json"))
    for part, name in PARTS.items()
    if name in path.parent.name
]
FOLDERS = sorted((Path(__file__).parent / "data/hf").iterdir())


@pytest.mark.parametrize(("folder", "part"), CASES)
def test_other_forms_agree(folder: Path, part: type[TwoForms], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "takes_other_form", True)
    result = check.check(folder)
    assert result["ok"], result["error"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_forms_of_inference_agree(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PackedRows, "of", lambda *_: None)  # the numbers are of padding too
    with inferring(PackedWeights(), {part.other_form for part in (*PARTS, Attention)}):
        result = check.check(folder)
    assert result["ok"], result["error"]


def test_all_modules_with_two_forms_are_compared() -> None:
    assert set(TwoForms.__subclasses__()) == {*PARTS, Attention}  # attention has another form in inference only
    assert {case.values[1] for case in CASES} == set(PARTS)
