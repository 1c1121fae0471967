"""What a pickle would do, read from its opcodes: what it names, calls and stores. Nothing is built or imported.

A stack machine over `pickletools`, in which a tuple is a `Made` of its items and what a call returns is a `Made` of the
call. Opcodes that torch's safe reader does not know leave `UNKNOWN` values: that reader refuses them.
"""

from __future__ import annotations

import _compat_pickle
import pickletools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, Any

TUPLE = "tuple"
UNKNOWN = object()
_MARK = object()
_MOST_OPCODES = 1_000_000  # a value of one byte takes up to 216 in memory
_DEEPEST, _LARGEST = 50, 1_000_000  # of tuples in tuples: the depth, and the leaves with every path to them counted
_LITERALS = {"INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"}
_TEXTS = {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class OpcodeError(Exception):
    """A pickle that no writer makes; the message says why."""


@dataclass(frozen=True)
class Named:
    """A class or function, by its dotted name."""

    name: str


@dataclass(frozen=True, eq=False)
class Made:
    """A tuple, where `function` is `TUPLE`, else what a call returns."""

    function: Any
    items: tuple[Any, ...]
    depth: int
    size: int


@dataclass(frozen=True, eq=False)
class Stored:
    """What a persistent id stands for: numbers outside the pickle."""

    identifier: Any


@dataclass
class Traced:
    """What a pickle names, calls, fills and stores, in order."""

    names: dict[str, None] = field(default_factory=dict)
    calls: list[tuple[Any, Any]] = field(default_factory=list)  # function, arguments (a tuple's Made, if any writer's)
    filled: list[Any] = field(default_factory=list)  # objects whose state is set
    stored: list[Stored] = field(default_factory=list)


def traced(file: IO[bytes], found: Traced | None = None) -> Traced:
    """Follow one pickle, up to the byte after it; what it does is added to `found`.

    Raises `OpcodeError`, and whatever `pickletools` raises of bytes that are no pickle.
    """
    machine = _Machine(found if found is not None else Traced())
    for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if number >= _MOST_OPCODES:
            raise OpcodeError(f"a pickle of more than {_MOST_OPCODES:,} steps")
        machine.step(opcode, argument)
    return machine.found


class _Machine:
    def __init__(self, found: Traced) -> None:
        self.found = found
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        name = opcode.name
        if name in _LITERALS:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _TEXTS:
            self._stack.append(str(argument))
        elif name in _TUPLES:
            self._stack.append(_made(TUPLE, self._take(_TUPLES[name])))
        elif name == "MARK":
            self._stack.append(_MARK)
        elif name == "TUPLE":
            self._stack.append(_made(TUPLE, self._to_mark()))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memo[len(self._memo) if argument is None else int(argument)] = self._take(1, keep=True)[0]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[int(argument)])
        else:
            self._act(opcode, argument)

    def _act(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        name = opcode.name
        if name == "GLOBAL":
            self._name(*str(argument).split(" ", 1))
        elif name == "STACK_GLOBAL":
            module, attribute = self._take(2)
            self._name(str(module), str(attribute))
        elif name in ("REDUCE", "NEWOBJ"):
            function, arguments = self._take(2)
            self._call(function, arguments)
        elif name in ("INST", "OBJ"):
            arguments = self._to_mark()
            if name == "INST":
                self._name(*str(argument).split(" ", 1))
                arguments = (self._stack.pop(), *arguments)
            self._call(arguments[0], _made(TUPLE, arguments[1:]))
        elif name == "BUILD":
            target, _ = self._take(2)
            self.found.filled.append(target)
            self._stack.append(target)
        elif name in ("BINPERSID", "PERSID"):
            stored = Stored(self._take(1)[0] if name == "BINPERSID" else argument)
            self.found.stored.append(stored)
            self._stack.append(stored)
        else:
            self._other(opcode)

    def _other(self, opcode: pickletools.OpcodeInfo) -> None:
        """By what pickletools says of the stack before and after."""
        if pickletools.markobject in opcode.stack_before:
            self._to_mark()
            target = self._take(1) if opcode.stack_before[0] is not pickletools.markobject else ()
        else:
            target = self._take(len(opcode.stack_before))
        if opcode.name in ("DUP", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS"):
            self._stack.extend(target[:1] * len(opcode.stack_after))  # the container stays what it is
        else:
            self._stack.extend(UNKNOWN for _ in opcode.stack_after)

    def _name(self, module: str, name: str) -> None:
        named = Named(_modern(module, name))
        self.found.names[named.name] = None
        self._stack.append(named)

    def _call(self, function: Any, arguments: Any) -> None:
        self.found.calls.append((function, arguments))
        self._stack.append(_made(function, (arguments,)))

    def _take(self, count: int, *, keep: bool = False) -> tuple[Any, ...]:
        found = tuple(self._stack[len(self._stack) - count :]) if count else ()
        if len(found) < count or any(value is _MARK for value in found):
            raise OpcodeError("a pickle that takes more than it has")
        if count and not keep:
            del self._stack[-count:]
        return found

    def _to_mark(self) -> tuple[Any, ...]:
        place = len(self._stack) - 1
        while self._stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise OpcodeError("a pickle that takes more than it has")
        found = tuple(self._stack[place + 1 :])
        del self._stack[place:]
        return found


def _made(function: Any, items: Sequence[Any]) -> Made:
    """A tuple or the result of a call, refused where hashing or printing it would take for ever."""
    inner = [item for item in items if isinstance(item, Made)]
    depth = 1 + max((item.depth for item in inner), default=0)
    size = 1 + len(items) - len(inner) + sum(item.size for item in inner)
    if depth > _DEEPEST or size > _LARGEST:
        raise OpcodeError("a pickle of tuples within tuples without end")
    return Made(function, tuple(items), depth, size)


def _modern(module: str, name: str = "") -> str:
    """The name in Python 3 of what a pickle of protocol 2 names as Python 2 did."""
    if (module, name) in _compat_pickle.NAME_MAPPING:
        module, name = _compat_pickle.NAME_MAPPING[(module, name)]
    else:
        module = _compat_pickle.IMPORT_MAPPING.get(module, module)
    return f"{module}.{name}"
