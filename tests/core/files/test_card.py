"""Model cards: what is known, what is not, and nothing of the machine."""

from typing import Any

import pytest
from torch import nn

from d2v.core.files.card import model_card

TENSORS = nn.Linear(2, 3).state_dict()
STUDENT: dict[str, Any] = {
    "kind": "backbone",
    "encoder": {"kind": "transformer", "depth": 3, "block": {"embed_dim": 8, "num_heads": 2, "norm": "post"}},
    "adapters": {"odour": {"kind": "odour/grains", "width": 3}},
}


def section(card: str, title: str) -> str:
    return card.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_an_encoder() -> None:
    card = model_card(TENSORS, {"model": STUDENT})
    assert card.splitlines()[4] == "# data2vec model (encoder), input: `odour`"
    assert "`depth` `3`" in section(card, "Architecture")
    assert "parameters and buffers: 9" in section(card, "Architecture")
    assert "none: features only" in section(card, "Task")
    for title in ("Training", "Data", "Metrics", "Licence"):
        assert "unknown" in section(card, title), title
    assert "d2v.core.load" in section(card, "Use")
    assert "features(items)" in section(card, "Use")


def test_a_pretrained_and_a_fine_tuned_model() -> None:
    model = {
        "student": STUDENT,
        "targets": {"layers": 2, "kind": "ffn"},
        "teacher": {"schedule": {"start": 0.999}},
        "maskers": {"odour": {"kind": "random", "mask_prob": 0.5}},
    }
    seen = [{"how": "pretrain", "modality": "odour", "split": "train", "samples": 12345, "digest": "x"}]
    module = nn.ModuleDict({"student": nn.Linear(2, 3), "teacher": nn.Linear(2, 3)})
    card = model_card(module.state_dict(), {"model": model, "seen": seen})
    assert "(pretrained)" in card
    assert "18 (student 9, teacher 9)" in section(card, "Architecture")
    for part in ("`layers` `2`", "`start` `0.999`", "`mask_prob` `0.5`", "12,345 of split `train`"):
        assert part in section(card, "Training")
    task = {"kind": "odour/smelling", "dropout": 0.1}
    card = model_card(
        TENSORS, {"model": STUDENT, "task": task, "labels": {"kind": "classes", "names": [*"abcdefghijklm"]}}
    )
    assert "`classes`, 13: `a`, `b`" in section(card, "Task")
    assert "and 3 more" in section(card, "Task")
    assert "predict(items)" in card


@pytest.mark.parametrize("path", ["/home/someone/data", "C:\\Users\\someone", "below/someone"])
def test_paths_stay_out(path: str) -> None:
    data = {"odour": {"kind": "odour/grains", "tokenizer": path, "size": 4}}
    card = model_card(TENSORS, {"model": STUDENT, "data": data})
    assert "someone" not in card
    assert "`size` `4`" in section(card, "Data")
    assert "`odour/grains`" in section(card, "Data")


def test_text_of_a_file_is_no_markup() -> None:
    labels = {"kind": "classes", "names": ["a`\n# title\n<script>", "b" * 500]}
    card = model_card(TENSORS, {"model": STUDENT, "task": {"kind": "x"}, "labels": labels})
    assert "`a' # title <script>`" in card
    assert max(map(len, card.splitlines())) < 400


@pytest.mark.parametrize("own", [{}, {"encoder": 3}, {"adapters": [1]}, {"adapters": {"odour": "grains"}}])
def test_kinds_of_plug_ins_may_have_any_fields(own: dict[str, Any]) -> None:
    card = model_card(TENSORS, {"model": {"kind": "odour/nose"} | own, "data": {"odour": 3}})
    assert "encoder: unknown" in section(card, "Architecture")
