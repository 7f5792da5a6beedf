"""Read pickles without running them.

A pickle is a program for a stack machine, and some of its instructions call any function that the file names. The
machine in this module has the same instructions but calls nothing: a name stays text, a call becomes a record of name
and arguments. Nothing is imported, so a file can be read even if its classes are not installed.
"""

import pickletools
from collections.abc import Callable
from io import BytesIO
from typing import Any

from d2v.core.foreign.stand_ins import Calls, Name, Persistent, StandIn, UnpicklingError, as_key

_PROTOCOLS = range(6)
_WIDEST_NUMBER = 1 << 13  # bits; arithmetic on larger numbers takes too long


def unpickle(stream: BytesIO, persistent: Callable[[Any], Any] = Persistent) -> Any:
    """The value of the pickle at the stream's position: containers, plain values, `Name`, `Persistent`, `StandIn`.

    Args:
        stream: in memory, so that a request for too many bytes costs nothing; it is left after the pickle.
        persistent: creates the value for an object outside the pickle, from its id.

    Raises:
        UnpicklingError: if the pickle is broken, or calls a function of the standard library that creates no value.

    >>> import io, pickle
    >>> from argparse import Namespace
    >>> found = unpickle(io.BytesIO(pickle.dumps([Namespace(depth=3)])))
    >>> found, found[0].state
    ([<stand-in for argparse.Namespace>], {'depth': 3})
    >>> unpickle(io.BytesIO(b"cos\\nsystem\\n(Vtouch here\\ntR."))
    Traceback (most recent call last):
    d2v.core.foreign.stand_ins.UnpicklingError: the pickle calls os.system; nothing was run
    """
    machine = _Machine(persistent)
    try:
        for instruction, argument, _ in pickletools.genops(stream):
            if instruction.name == "STOP":
                return machine.stack.pop()
            machine.run(instruction.name, argument)
    except UnpicklingError:
        raise
    except Exception as error:  # for example a missing value or mark, or a key that cannot be hashed
        raise UnpicklingError(f"the pickle is broken: {type(error).__name__}: {error}") from error
    raise UnpicklingError("the pickle ends before its last instruction")


class _Machine:
    """The stack, its marks, and the memo of the pickle; their sizes are limited by the pickle's length."""

    def __init__(self, persistent: Callable[[Any], Any]) -> None:
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.call = Calls().answer

    def run(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            if type(argument) is int and argument.bit_length() > _WIDEST_NUMBER:
                raise UnpicklingError(f"the pickle has a number of {argument.bit_length()} bits")
            self.stack.append(argument)
        elif name in _MADE:
            self.stack.append(_MADE[name]())
        elif name in _INSTRUCTIONS:
            _INSTRUCTIONS[name](self, argument)
        else:
            raise UnpicklingError(f"the pickle has an instruction that no file of weights needs: {name}")

    def above_mark(self) -> list[Any]:
        """Pop all values above the newest mark."""
        mark = self.marks.pop()
        found = self.stack[mark:]
        del self.stack[mark:]
        return found

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def replace(self, count: int, make: Callable[..., Any]) -> None:
        """Replace values on top of the stack by the result of a function of them."""
        if count > len(self.stack):
            raise IndexError("pop from an empty stack")
        self.stack[-count:] = [make(*self.stack[-count:])]

    def protocol(self, number: int) -> None:
        if number not in _PROTOCOLS:
            raise UnpicklingError(f"the pickle has protocol {number}, which is not supported")

    def pop(self, _: None) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def put(self, number: int | None) -> None:
        self.memo[len(self.memo) if number is None else number] = self.stack[-1]

    def get(self, number: int) -> None:
        self.push(self.memo[number])

    def append(self, _: None) -> None:
        item = self.stack.pop()
        self._extend([item])

    def appends(self, _: None) -> None:
        self._extend(self.above_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is list:
            target.extend(items)
        elif type(target) is set:
            target.update(map(as_key, items))
        elif type(target) is StandIn:
            target.items.extend(items)
        else:
            raise TypeError(f"items for a {type(target).__name__}")

    def set_item(self, _: None) -> None:
        value = self.stack.pop()
        self._set([self.stack.pop(), value])

    def set_items(self, _: None) -> None:
        self._set(self.above_mark())

    def _set(self, flat: list[Any]) -> None:
        target, entries = self.stack[-1], _pairs(flat)
        if type(target) is dict:
            target.update(entries)
        elif type(target) is StandIn:
            target.entries.extend(entries)
        else:
            raise TypeError(f"entries for a {type(target).__name__}")

    def build(self, _: None) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if type(target) is StandIn:
            target.state = state
        elif type(target) is not dict:  # attributes of an ordered dictionary are not needed
            raise TypeError(f"a state for a {type(target).__name__}")

    def instance(self, path: str | None) -> None:
        called = self.above_mark()
        target = called.pop(0) if path is None else _name(path)
        self.push(self.call(target, tuple(called)))


def _pairs(flat: list[Any]) -> list[tuple[Any, Any]]:
    return [(as_key(key), value) for key, value in zip(flat[::2], flat[1::2], strict=True)]


def _name(module_and_name: str) -> Name:
    return Name(module_and_name.replace(" ", "."))


def _name_of(module: Any, name: Any) -> Name:
    if type(module) is not str or type(name) is not str:
        raise UnpicklingError("the pickle has a name that is not text")
    return Name(f"{module}.{name}")


def _tuple(*items: Any) -> tuple[Any, ...]:
    return items


_VALUES = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
)
_MADE: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine.protocol,
    "FRAME": lambda machine, _: None,
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "POP": _Machine.pop,
    "POP_MARK": lambda machine, _: machine.above_mark().clear(),
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "BYTEARRAY8": lambda machine, content: machine.push(bytes(content)),
    "LIST": lambda machine, _: machine.push(machine.above_mark()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.above_mark())),
    "TUPLE1": lambda machine, _: machine.replace(1, _tuple),
    "TUPLE2": lambda machine, _: machine.replace(2, _tuple),
    "TUPLE3": lambda machine, _: machine.replace(3, _tuple),
    "DICT": lambda machine, _: machine.push(dict(_pairs(machine.above_mark()))),
    "FROZENSET": lambda machine, _: machine.push(frozenset(map(as_key, machine.above_mark()))),
    "APPEND": _Machine.append,
    **dict.fromkeys(("APPENDS", "ADDITEMS"), _Machine.appends),
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "BUILD": _Machine.build,
    "GLOBAL": lambda machine, path: machine.push(_name(path)),
    "STACK_GLOBAL": lambda machine, _: machine.replace(2, _name_of),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda machine, _: machine.replace(2, machine.call)),
    "NEWOBJ_EX": lambda machine, _: machine.replace(3, machine.call),
    **dict.fromkeys(("INST", "OBJ"), _Machine.instance),
    "PERSID": lambda machine, number: machine.push(machine.persistent(number)),
    "BINPERSID": lambda machine, _: machine.replace(1, machine.persistent),
}
