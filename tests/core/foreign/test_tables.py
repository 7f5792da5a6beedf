"""Key tables, used both ways."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d2v.core.foreign import Constant, Join, KeyTable, Rename, Reshape, Split
from d2v.core.state_dict import shapes_of

sizes = st.lists(st.integers(1, 3), min_size=1, max_size=3)


@st.composite
def rules(draw, i):
    """A rule with names of its own, and the shapes of its foreign tensors."""
    shape = tuple(draw(sizes))
    kind = draw(st.sampled_from(["rename", "join", "split", "reshape", "constant"]))
    if kind == "rename":
        return Rename(f"their.{i}", f"our.{i}"), {f"their.{i}": shape}
    if kind == "join":
        names = tuple(f"their.{i}.{part}" for part in range(draw(st.integers(1, 3))))
        return Join(names, f"our.{i}"), dict.fromkeys(names, shape)
    if kind == "split":
        axis, cuts = draw(st.integers(0, len(shape) - 1)), tuple(draw(sizes))
        whole = (*shape[:axis], sum(cuts), *shape[axis + 1 :])
        return Split(f"their.{i}", tuple(f"our.{i}.{j}" for j in range(len(cuts))), cuts, axis), {f"their.{i}": whole}
    if kind == "reshape":
        return Reshape(f"their.{i}", f"our.{i}", shape, (math.prod(shape), 1)), {f"their.{i}": shape}
    return Constant(f"their.{i}"), {f"their.{i}": shape}


@st.composite
def tables(draw):
    found = [draw(rules(i)) for i in range(draw(st.integers(1, 6)))]
    shapes = {name: shape for _, part in found for name, shape in part.items()}
    carried = {name for rule, part in found if not isinstance(rule, Constant) for name in part}
    return KeyTable(rule for rule, _ in found), {n: torch.randn(shape) for n, shape in shapes.items()}, carried


@given(case=tables())
@settings(max_examples=100, deadline=None)
def test_every_tensor_comes_back_and_every_key_is_used_once(case):
    table, theirs, carried = case
    ours = table.to_ours(theirs)
    shapes, expected = shapes_of(theirs), shapes_of(ours)
    assert not any(table.misfits(shapes, expected).values())
    assert sorted(ours) == sorted(name for rule in table.rules for name in rule.ours)
    assert table.their_names == theirs.keys()
    back = table.to_theirs(ours)
    assert back.keys() == carried
    for name, tensor in back.items():
        assert torch.equal(tensor, theirs[name]), name
    assert sum(t.numel() for t in ours.values()) == sum(theirs[name].numel() for name in carried)
    again = table.to_ours({**theirs, **back})
    assert all(torch.equal(again[name], tensor) for name, tensor in ours.items())


@given(case=tables(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_missing_and_unexpected_are_named_together(case, data):
    table, theirs, carried = case
    gone = data.draw(st.sets(st.sampled_from(sorted(carried)), max_size=3)) if carried else set()
    broken = {name: tensor for name, tensor in theirs.items() if name not in gone} | {"stray": torch.ones(1)}
    with pytest.raises(ValueError, match="unexpected: stray") as caught:
        table.to_ours(broken)
    assert all(name in str(caught.value) for name in gone)
    assert ("missing" in str(caught.value)) == bool(gone)


def test_constants_may_be_missing():
    assert KeyTable([Constant("version"), Rename("a", "b")]).to_ours({"a": torch.ones(1)}).keys() == {"b"}


def test_partial_tables_take_whole_rules_only():
    table = KeyTable([Join(("q", "k"), "qk"), Rename("a", "b")])
    assert table.to_ours({"a": torch.ones(1)}, partial=True).keys() == {"b"}
    with pytest.raises(ValueError, match="missing: k"):
        table.to_ours({"q": torch.ones(1)}, partial=True)
    assert table.to_theirs({"b": torch.ones(1)}).keys() == {"a"}


def test_our_tensors_need_a_rule():
    with pytest.raises(ValueError, match="rule: x, y"):
        KeyTable([Rename("a", "b")]).to_theirs({"x": torch.ones(1), "b": torch.ones(1), "y": torch.ones(1)})


def test_long_lists_are_cut():
    table = KeyTable([Rename(f"a{i}", f"b{i}") for i in range(12)])
    with pytest.raises(ValueError, match=r"12 .*a0, a1, .* 4 more"):
        table.to_ours({})


@pytest.mark.parametrize(
    "rules",
    [
        [Rename("a", "x"), Rename("a", "y")],
        [Rename("a", "x"), Constant("a")],
        [Join(("a", "a"), "x")],
        [Rename("b", "a"), Split("c", ("a", "d"), (1, 1), 0)],
    ],
)
def test_duplicates_are_refused(rules):
    with pytest.raises(ValueError, match="names a twice"):
        KeyTable(rules)


def test_misfits_are_found_by_shapes_alone():
    table = KeyTable(
        [Join(("q", "k"), "qk"), Split("p", ("first", "rest"), (1, 4), 0), Reshape("s", "t", (4,), (2, 2))]
    )
    expected = {"qk": (4, 2), "first": (1,), "rest": (4,), "t": (2, 2)}
    assert not any(table.misfits({"q": (2, 2), "k": (2, 2), "p": (5,), "s": (4,)}, expected).values())
    found = table.misfits({"q": (2, 3), "k": (2, 2), "p": (6,), "s": (5,), "z": (1,)}, expected)
    assert found["missing"] == []
    assert found["unexpected"] == ["z"]
    assert [line.split()[0] for line in found["of another shape"]] == ["q,", "p", "s"]
    assert table.misfits({"q": (3, 2), "k": (3, 2), "p": (5,)}, expected) == {
        "missing": ["s"],
        "unexpected": [],
        "of another shape": ["qk (6, 2) for (4, 2)"],
    }
