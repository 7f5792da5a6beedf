"""Results of the calls in a pickle: containers as such, anything else as a record of the call."""

import sys
from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen

# Far above the needs of any file of weights; without these limits, a small file could ask for unlimited memory or time.
_MOST_COPIED, _LONGEST_KEY = 1 << 26, 64


class UnpicklingError(ValueError):
    """A pickle is broken, or requests something that no file of weights needs."""


@frozen
class Name:
    """The name of a class or a function, such as "argparse.Namespace"."""

    path: str


@frozen(eq=False)
class Persistent:
    """An object stored outside the pickle, by the id in the pickle."""

    id: Any


@define(eq=False)
class StandIn:
    """A record of an object that a pickle would create by a call; nothing is run.

    Args:
        kind: name of the class or the function.
        args: of the call.
        state: state that the object would be given, or None.
        items: items that would be appended to it.
        entries: entries that would be set in it by key.
    """

    kind: str
    args: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(factory=list)
    entries: list[tuple[Any, Any]] = field(factory=list)

    def __repr__(self) -> str:
        return f"<stand-in for {self.kind}>"


class Calls:
    """The calls of one pickle.

    >>> calls = Calls()
    >>> calls.answer(Name("collections.OrderedDict"), ([("a", 1)],))
    {'a': 1}
    >>> calls.answer(Name("fairseq.data.dictionary.Dictionary"), ())
    <stand-in for fairseq.data.dictionary.Dictionary>
    >>> calls.answer(Name("os.system"), ("touch here",))
    Traceback (most recent call last):
    d2v.core.foreign.stand_ins.UnpicklingError: the pickle calls os.system; nothing was run
    """

    def __init__(self) -> None:
        self._copied = 0

    def answer(self, target: Any, args: Any, keywords: Any = None) -> Any:
        """The result of a call.

        Raises:
            UnpicklingError: if it is a call of the standard library that does not create a value.
        """
        if type(target) is not Name or type(args) is not tuple:
            raise UnpicklingError("the pickle calls something that is not a name")
        if target.path in _CONTAINERS:
            self._copied += sum(len(arg) for arg in args if type(arg) in _SIZED)
            if self._copied > _MOST_COPIED:
                raise UnpicklingError("the pickle creates the same containers over and over")
            return _CONTAINERS[target.path](*args)
        if target.path in _INDIRECT:
            return self.answer(*_INDIRECT[target.path](*args))
        if target.path.partition(".")[0] in _STANDARD and target.path not in _HARMLESS:
            raise UnpicklingError(f"the pickle calls {target.path}; nothing was run")
        return StandIn(target.path, args if not keywords else (*args, keywords))


def as_key(key: Any) -> Any:
    """Check a key or a member of a set: it must be a plain value or a short tuple of plain values.

    Raises:
        UnpicklingError: if it is not, since its hash could take forever.
    """
    parts = key if type(key) is tuple and len(key) <= _LONGEST_KEY else (key,)
    if not all(type(part) in _KEYS for part in parts):
        raise UnpicklingError(f"the pickle has a {type(key).__name__} as a key")
    return key


def _mapping(first: Any = (), *rest: Any) -> dict[Any, Any]:
    del rest
    if type(first) is dict:
        return dict(first)
    # Any other argument is the factory of a defaultdict, which is left out.
    return {as_key(key): value for key, value in first} if type(first) is list else {}


def _bytes(content: str | bytes = b"", encoding: str = "latin1") -> bytes:
    # Protocols below 3 store bytes as text.
    if type(content) is bytes:
        return content
    if type(content) is not str or encoding not in ("latin1", "latin-1"):
        raise UnpicklingError("the pickle has bytes that are neither bytes nor text in Latin-1")
    return content.encode("latin-1")


def _under_both(table: dict[str, Any]) -> dict[str, Any]:
    """Add the Python 2 names of standard library modules that were renamed."""
    former = {"builtins": "__builtin__", "copyreg": "copy_reg"}
    split = [(*name.split(".", 1), value) for name, value in table.items()]
    return table | {f"{former[module]}.{name}": value for module, name, value in split if module in former}


_CONTAINERS: dict[str, Callable[..., Any]] = _under_both(
    {
        "collections.OrderedDict": _mapping,
        "collections.defaultdict": lambda factory=None, entries=(): _mapping(entries),
        "collections.Counter": _mapping,
        "builtins.dict": _mapping,
        "builtins.list": lambda items=(): [*items],
        "builtins.tuple": lambda items=(): (*items,),
        "builtins.set": lambda items=(): {*map(as_key, items)},
        "builtins.frozenset": lambda items=(): frozenset(map(as_key, items)),
        **dict.fromkeys(("builtins.bytes", "builtins.bytearray", "_codecs.encode"), _bytes),
    }
)
# Indirect calls: how to get the real target and its arguments.
_INDIRECT: dict[str, Callable[..., tuple[Any, tuple[Any, ...]]]] = _under_both(
    {
        "copyreg._reconstructor": lambda cls, base, state: (cls, ()),
        "copyreg.__newobj__": lambda cls, *args: (cls, args),
        "copyreg.__newobj_ex__": lambda cls, args, keywords: (cls, args),
        "builtins.getattr": lambda cls, name: (cls, (name,)),  # members of enumerations
    }
)
# The only names of the standard library that create values; a file of weights needs no others.
_HARMLESS = _under_both(
    dict.fromkeys(
        [
            *("argparse.Namespace", "types.SimpleNamespace", "collections.deque", "decimal.Decimal", "uuid.UUID"),
            *("pathlib.Path", "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePath"),
            *("pathlib.PurePosixPath", "pathlib.PureWindowsPath", "fractions.Fraction", "functools.partial"),
            *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
            *(f"builtins.{name}" for name in ("object", "slice", "range", "complex")),
        ]
    )
)
_STANDARD = sys.stdlib_module_names | {"__builtin__", "copy_reg", "exceptions", "commands", "cPickle"}
_SIZED = (str, bytes, list, tuple, dict, set, frozenset)
_KEYS = frozenset({str, bytes, int, float, complex, bool, type(None), Name, Persistent, StandIn})
