"""Pickles are read and nothing in them is run."""

import collections
import contextlib
import enum
import io
import pickle
import sys
import types
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2v.core.foreign.plain import to_values
from d2v.core.foreign.stand_ins import StandIn, UnpicklingError
from d2v.core.foreign.unpickling import unpickle

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


def read(content: bytes) -> object:
    return to_values(unpickle(io.BytesIO(content)), lambda id: pytest.fail("no tensor was pickled"))


@given(value=plain, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
@settings(max_examples=150, deadline=None)
def test_plain_values_come_back(value, protocol):
    assert read(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Namespace(depth=3, layers=[1, 2]), {"depth": 3, "layers": [1, 2]}),
        (types.SimpleNamespace(depth=3), {"depth": 3}),
        (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        ({"numbers": {1}}, {"numbers": [1]}),
        (frozenset([1]), [1]),
        (np.float64(0.5), 0.5),
        (np.float32(0.5), 0.5),
        (np.int64(-3), -3),
        (np.bool_(True), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_known_objects_become_plain(value, expected, protocol):
    assert read(pickle.dumps(value, protocol)) == expected


@pytest.fixture
def package(monkeypatch):
    """Makes classes of a module of this name, which no longer exists when their pickles are read."""

    def make(module: str, name: str, *bases: type, **members: object) -> type:
        made = type(name, bases, {"__module__": module, **members})
        parts = module.split(".")
        for i in range(len(parts)):
            monkeypatch.setitem(sys.modules, ".".join(parts[: i + 1]), types.ModuleType(parts[i]))
        setattr(sys.modules[module], name, made)
        return made

    return make


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_omegaconf_containers_become_dicts_and_lists(package, protocol):
    nodes, containers = "omegaconf.nodes", "omegaconf.dictconfig"
    node, mapping, sequence = (
        package(nodes, "AnyNode"),
        package(containers, "DictConfig"),
        package("omegaconf.listconfig", "ListConfig"),
    )

    def made(cls, **state):
        one = cls.__new__(cls)
        one.__dict__.update(state)
        return one

    root = made(mapping, _content={}, _parent=None)
    root._content["depth"] = made(node, _val=3, _parent=root)
    root._content["lr"] = made(sequence, _content=[made(node, _val=0.1, _parent=root)], _parent=root)
    root._content["nothing"] = made(mapping, _content=None, _parent=root)
    content = pickle.dumps({"cfg": root}, protocol)
    for module in (nodes, containers, "omegaconf.listconfig"):
        del sys.modules[module]
    assert read(content) == {"cfg": {"depth": 3, "lr": [0.1], "nothing": None}}


class Size(enum.Enum):
    SMALL = "small"


@pytest.mark.parametrize(("value", "expected"), [(Size.SMALL, "small"), (Path("a"), "a")])
def test_what_is_made_of_one_value_is_that_value(value, expected):
    assert read(pickle.dumps([value, value], 2)) == [expected, expected]


def test_other_objects_stay_stand_ins(package):
    made = package("fairseq.data.dictionary", "Dictionary")()
    made.symbols, made.me = ["<s>", "a"], made
    found = read(pickle.dumps({"dictionary": made, "again": made}, 2))
    assert isinstance(found["dictionary"], StandIn)
    assert found["dictionary"] is found["again"]
    assert found["dictionary"].kind == "fairseq.data.dictionary.Dictionary"
    assert found["dictionary"].state["symbols"] == ["<s>", "a"]
    assert repr(found["dictionary"]) == "<stand-in for fairseq.data.dictionary.Dictionary>"


def test_shared_parts_stay_shared():
    part = [1]
    found = read(pickle.dumps({"a": part, "b": (part, part)}))
    assert found["a"] is found["b"][0] is found["b"][1]


def test_values_that_hold_themselves_are_refused():
    loop: list = [1]
    loop.append({"inside": loop})
    with pytest.raises(ValueError, match="itself"):
        read(pickle.dumps(loop))


def test_nesting_is_bounded():
    deep: list = []
    for _ in range(5000):
        deep = [deep]
    content = b"]" * 5000 + b"a" * 4999 + b"."
    assert unpickle(io.BytesIO(content))
    with pytest.raises(ValueError, match="nested"):
        read(content)


def test_what_grows_beyond_all_bounds_when_written_out_is_refused():
    laughs: list = ["ha"] * 10
    for _ in range(30):
        laughs = [laughs] * 10
    with pytest.raises(ValueError, match="10000000"):
        read(pickle.dumps(laughs))


@pytest.mark.parametrize("cut", range(0, 120, 7))
def test_cut_pickles_are_reported(cut):
    content = pickle.dumps({"model": [1.5, "text" * 20, Namespace(a=(1, 2))]}, 2)
    assert cut < len(content)
    with pytest.raises(UnpicklingError):
        unpickle(io.BytesIO(content[:cut]))


@given(content=st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_or_refused(content):
    with contextlib.suppress(ValueError):
        read(content)
