"""What labels are: their size, what a batch must carry, texts, and plain values."""

from typing import Any

import pytest
import torch

from d2v.core.files import ConfigError, from_plain, to_plain
from d2v.core.labels import LABELS, Classes, Labels, MultiLabel, Number, Symbols
from d2v.core.model import Batch

LETTERS = Symbols(
    ("<s>", "<pad>", "</s>", "<unk>", "|", "A", "B"),
    blank="<s>",
    specials=("<pad>", "</s>"),
    unknown="<unk>",
    boundary="|",
)
ALL: list[Labels] = [Classes(("a", "b")), MultiLabel(("a", "b", "c")), LETTERS, Number(0.0, 5.0), Number()]


def batch(labels: Any, lengths: Any = None) -> Batch:
    return Batch(source=torch.zeros(len(labels), 1), labels=labels, label_lengths=lengths)


def test_sizes() -> None:
    assert [labels.num_outputs for labels in ALL] == [2, 3, 7, 1, 1]


@pytest.mark.parametrize("labels", ALL)
def test_they_can_be_written_and_read(labels: Labels) -> None:
    plain = to_plain(labels)
    assert LABELS[plain["kind"]] is type(labels)
    assert from_plain(plain, Labels) == labels  # type: ignore[type-abstract]  # one of its forms


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'clases'.*did you mean 'classes'"):
        from_plain({"kind": "clases", "names": ["a"]}, Labels)  # type: ignore[type-abstract]  # one of its forms


@pytest.mark.parametrize(
    ("labels", "carried"),
    [
        (ALL[0], batch(torch.tensor([1, 0]))),
        (ALL[1], batch(torch.tensor([[True, False, True]]))),
        (ALL[1], batch(torch.tensor([[0.5, 0.0, 1.0]]))),
        (LETTERS, batch(torch.tensor([[5, 4, 6], [6, 0, 0]]), torch.tensor([3, 1]))),
        (LETTERS, batch(torch.zeros(2, 0).long(), torch.tensor([0, 0]))),
        (ALL[3], batch(torch.tensor([0.0, 5.0]))),
        (ALL[4], batch(torch.tensor([-7.0]))),
    ],
)
def test_what_a_batch_carries(labels: Labels, carried: Batch) -> None:
    labels.check(carried)


@pytest.mark.parametrize(
    ("labels", "carried", "message"),
    [
        (ALL[0], batch(torch.tensor([1.0])), r"Long \(1,\)"),
        (ALL[0], batch(torch.tensor([[1]])), r"Long \(1,\)"),
        (ALL[0], batch(torch.tensor([2])), "2 classes"),
        (ALL[1], batch(torch.tensor([[1, 0, 1]])), r"Bool or float \(1, 3\)"),
        (ALL[1], batch(torch.tensor([[1.0, 0.0]])), r"Bool or float \(1, 3\)"),
        (ALL[1], batch(torch.tensor([[2.0, 0.0, 0.0]])), "from 0 to 1"),
        (ALL[1], batch(torch.tensor([[float("nan"), 0.0, 0.0]])), "from 0 to 1"),
        (LETTERS, batch(torch.tensor([5])), r"Long \(1, s\)"),
        (LETTERS, batch(torch.tensor([[5]])), r"label_lengths must be Long \(1,\)"),
        (LETTERS, batch(torch.tensor([[5]]), torch.tensor([2])), "label_lengths must be from 0 to 1"),
        (LETTERS, batch(torch.tensor([[5, 7]]), torch.tensor([2])), "7 symbols"),
        (LETTERS, batch(torch.tensor([[5, 0]]), torch.tensor([2])), "blank"),
        (ALL[3], batch(torch.tensor([1])), r"float \(1,\)"),
        (ALL[3], batch(torch.tensor([5.5])), "label 5.5"),
        (ALL[4], batch(torch.tensor([float("inf")])), "label inf"),
        *[(labels, Batch(source=torch.zeros(1, 1)), "no labels") for labels in ALL],
    ],
)
def test_what_a_batch_must_not_carry(labels: Labels, carried: Batch, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        labels.check(carried)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Classes(()), "names.*0"),
        (lambda: MultiLabel(("a", "b", "a")), "'a' more than once"),
        (lambda: Symbols(("a",), blank="b"), "blank='b'"),
        (lambda: Symbols(("a",), specials=("a", "c")), "specials: 'c'"),
        (lambda: Number(1.0, 1.0), r"low=1.0 must be below high=1.0"),
        (lambda: Symbols(("a",)).blank_number, "no blank"),
        (lambda: Symbols(("a",)).numbers(["b"]), "'b'"),
    ],
)
def test_refusals(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_texts() -> None:
    assert LETTERS.numbers("AB|X") == [5, 6, 4, 3]
    assert LETTERS.text([4, 5, 6, 4, 4, 1, 5, 2, 0, 4]) == "AB A"
    assert LETTERS.text([3, 4]) == "<unk>"
    assert Symbols(("ah", "t")).text([1, 0]) == "t ah"


def test_collapsing_an_alignment() -> None:
    path = torch.tensor([0, 5, 5, 0, 5, 6, 6, 0, 0, 4])
    assert LETTERS.collapse(path) == [5, 5, 6, 4]
    assert LETTERS.collapse(path[:0]) == []


def test_sequences_leave_out_padding_and_specials() -> None:
    carried = batch(torch.tensor([[5, 2, 1, 6], [6, 5, 0, 0]]), torch.tensor([4, 2]))
    assert LETTERS.sequences(carried) == [[5, 6], [6, 5]]
