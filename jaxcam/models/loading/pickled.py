"""Pickles read as data: plain values, and what a table of names says; nothing in a pickle is ever run.

A pickle is a program for a small machine with a stack. Its instructions are taken apart by the standard library's
`pickletools`, which only reads; the few that make plain values are carried out here. What a pickle calls by name is
looked up in the reader's own table, and what is not in it is refused by its name: there is no import, no attribute, no
method of an object.

Contract: numbers, text, bytes, lists, tuples, sets and dictionaries, in any order and as often as one likes, one inside
itself too. Memory stays within a small multiple of `MOST_BYTES`, whatever lengths the pickle claims. Keys of
dictionaries are plain values: to hash tuples of tuples can take longer than anyone lives.
"""

import io
import pickletools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

MOST_BYTES = 2**26
MOST_STEPS = 2_000_000
"""Of the machine: thirty or so make a tensor."""


class ForeignError(ValueError):
    """Something is called that is not in the table. Its text is the name."""


@dataclass(frozen=True)
class Callee:
    """What a pickle may call: a function of plain values that raises ValueError, TypeError or LookupError at worst."""

    function: Callable[..., Any]


class Ordered(dict[Any, Any]):
    """A dictionary that takes a state, as the OrderedDict of a state dict has one, and forgets it."""


def unpickled(data: bytes, names: Mapping[str, Any], *, persistent: Callable[[Any], Any]) -> tuple[Any, int]:
    """The value that a pickle makes, and where the pickle ends.

    Args:
        data: begins with the pickle; what follows it is left alone.
        names: what the pickle may refer to, as "module name": values, and `Callee`s.
        persistent: what stands for an object that is stored elsewhere, from its id.

    Raises:
        ForeignError: the pickle refers to something else.
        ValueError: it is damaged, too long, or no pickle.
    """
    stream = io.BytesIO(data)
    machine = _Machine(names, persistent)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about text with escapes that mean nothing
            for opcode, argument, _ in pickletools.genops(stream):
                machine.do(opcode.name, argument)
        value = machine.pop()
    except ForeignError:
        raise
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None
    return value, stream.tell()


_PLAIN = {
    "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": set}
_KEYS = (str, bytes, int, float, type(None))


@dataclass
class _Machine:
    names: Mapping[str, Any]
    persistent: Callable[[Any], Any]
    stack: list[Any] = field(default_factory=list[Any])
    below: list[list[Any]] = field(default_factory=list[list[Any]])
    """The stacks under each mark."""
    memo: dict[int, Any] = field(default_factory=dict[int, Any])
    steps: int = 0

    def pop(self) -> Any:
        return self.stack.pop()

    def marked(self) -> list[Any]:
        """What stands above the last mark."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def do(self, name: str, argument: Any) -> None:
        """One step."""
        stack = self.stack
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise ValueError(f"it has more than {MOST_STEPS:,} steps")
        if name in _PLAIN:
            stack.append(argument)
            return
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
            return
        if name in _EMPTY:
            stack.append(_EMPTY[name]())
            return
        match name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                self.below.append(stack)
                self.stack = []
            case "POP":
                self.pop()
            case "POP_MARK":
                self.marked()
            case "DUP":
                stack.append(stack[-1])
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                if argument not in self.memo:
                    raise ValueError("something is taken up again that was never there")
                stack.append(self.memo[argument])
            case "TUPLE" | "LIST" | "DICT" | "FROZENSET":
                items = self.marked()
                made: dict[str, Callable[[list[Any]], Any]]
                made = {"TUPLE": tuple, "LIST": list, "DICT": _dictionary, "FROZENSET": _frozen}
                self.stack.append(made[name](items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = _TUPLES[name]
                if len(stack) < count:
                    raise ValueError("a tuple of more than there is")
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND":
                item = self.pop()
                _of_kind(list, stack).append(item)
            case "APPENDS":
                items = self.marked()
                _of_kind(list, self.stack).extend(items)
            case "ADDITEMS":
                items = self.marked()
                _of_kind(set, self.stack).update(_keys(items))
            case "SETITEM":
                value, key = self.pop(), self.pop()
                _of_kind(dict, stack).update(_dictionary([key, value]))
            case "SETITEMS":
                items = self.marked()
                _of_kind(dict, self.stack).update(_dictionary(items))
            case "GLOBAL":
                stack.append(self.find(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                attribute, module = self.pop(), self.pop()
                stack.append(self.find(module, attribute))
            case "BINPERSID":
                stack.append(self.persistent(self.pop()))
            case "REDUCE":
                arguments, callee = self.pop(), self.pop()
                stack.append(_of_kind(Callee, [callee]).function(*_of_kind(tuple, [arguments])))
            case "BUILD":
                self.pop()
                _of_kind(Ordered, stack)
            case _:
                raise ForeignError(f"the instruction {name}")

    def find(self, module: Any, name: Any) -> Any:
        """What a name of the pickle stands for."""
        known = self.names.get(f"{module} {name}", _MISSING) if isinstance(module, str) else _MISSING
        if known is _MISSING:
            raise ForeignError(f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else "no name")
        return known


_MISSING = object()


def _of_kind(kind: type, stack: list[Any]) -> Any:
    if not isinstance(stack[-1], kind):
        raise ValueError(f"{type(stack[-1]).__name__} in the place of {kind.__name__}")  # noqa: TRY004
    return stack[-1]


def _keys(items: Any) -> list[Any]:
    for item in items:
        if not isinstance(item, _KEYS):
            raise ForeignError(f"{type(item).__name__} as a key")
    return items


def _frozen(items: list[Any]) -> frozenset[Any]:
    return frozenset(_keys(items))


def _dictionary(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise ValueError("a key without a value")
    return dict(zip(_keys(items[::2]), items[1::2], strict=True))


def _ordered(pairs: Any = ()) -> Ordered:
    found = Ordered()
    for key, value in pairs:
        found.update(_dictionary([key, value]))
    return found


def _encoded(text: Any, encoding: Any) -> bytes:
    """Bytes, as the pickles of Python 2 write them."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("bytes that are none")
    return text.encode("latin-1")


PLAIN_NAMES: Mapping[str, Any] = {
    "collections OrderedDict": Callee(_ordered),
    "_codecs encode": Callee(_encoded),
    **{f"{module} bytes": Callee(lambda: b"") for module in ("builtins", "__builtin__")},
    **{f"{module} set": Callee(lambda items=(): set(_keys(items))) for module in ("builtins", "__builtin__")},
}
"""What plain values are made of that have no instruction of their own."""
