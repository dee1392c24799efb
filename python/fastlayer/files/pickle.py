"""Pickles as `torch.save` writes them for a state dict, interpreted without `pickle`.

The language of pickles can import and call anything. Here a name is looked up in a table of the few
that a state dict needs; any other ends the reading at once, so nothing is ever imported or run.
Only the operations that `torch.save` uses are known, and a pickle may have just so many of them.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from fastlayer.errors import Damaged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# A tensor takes about 20 operations, and one operation up to about 130 bytes of memory.
_MOST_OPERATIONS = 200_000
_CONSTANTS = {b"N": None, b"\x88": True, b"\x89": False}
_INTEGERS = {b"K": "<B", b"M": "<H", b"J": "<i"}
_INDICES = {b"q": "<B", b"r": "<I", b"h": "<B", b"j": "<I"}
_TUPLES = {b"\x85": 1, b"\x86": 2, b"\x87": 3}


class Global(NamedTuple):
    """A name in a pickle that is allowed to be there; `call` None is for those never called."""

    name: str
    call: Callable[..., Any] | None


def interpret(
    data: bytes,
    allowed: Mapping[str, Callable[..., Any] | None],
    persistent: Callable[[Any], Any],
    key: str,
) -> Any:
    """Return what the pickle stands for.

    Parameters
    ----------
    data : bytes
        The pickle.
    allowed : mapping
        "module.name" to what stands for it.
    persistent : callable
        Makes an object of a persistent id.
    key : str
        What to call the pickle in errors.

    Raises
    ------
    Damaged
        Another name, another operation, or damage.
    """
    machine = _Machine(data, allowed, persistent, key)
    try:
        return machine.run()
    except Damaged:
        raise
    # Too few operands, operands of a wrong type, text that is none, an index that was never set.
    except (IndexError, KeyError, TypeError, ValueError, struct.error, AttributeError) as error:
        raise Damaged(key, f"is damaged at byte {machine.at} ({error})") from error


class _Machine:
    def __init__(
        self,
        data: bytes,
        allowed: Mapping[str, Callable[..., Any] | None],
        persistent: Callable[[Any], Any],
        key: str,
    ) -> None:
        self.at = 0
        self._data = data
        self._allowed = allowed
        self._persistent = persistent
        self._key = key
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # stacks under the marks
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(_MOST_OPERATIONS):
            operation = self._take(1)
            if operation == b".":
                if self._below or len(self._stack) != 1:
                    raise Damaged(self._key, f"ends too early, at byte {self.at - 1}")
                return self._stack[0]
            self._step(operation)
        raise Damaged(self._key, f"has more than {_MOST_OPERATIONS} operations")

    def _step(self, operation: bytes) -> None:
        stack = self._stack
        if operation in _INDICES:
            index = self._number(_INDICES[operation])
            if operation in b"qr":
                self._memo[index] = stack[-1]
            else:
                stack.append(self._memo[index])
        elif operation in _CONSTANTS:
            stack.append(_CONSTANTS[operation])
        elif operation in _INTEGERS:
            stack.append(self._number(_INTEGERS[operation]))
        elif operation in _TUPLES:
            items = tuple(stack.pop() for _ in range(_TUPLES[operation]))
            stack.append(items[::-1])
        elif operation in _STEPS:
            _STEPS[operation](self)
        else:
            raise Damaged(
                self._key,
                f"has the operation {operation!r} at byte {self.at - 1}, which torch.save doesn't "
                "write for a state dict",
            )

    def _take(self, size: int) -> bytes:
        piece = self._data[self.at : self.at + size]
        if len(piece) != size:
            raise Damaged(self._key, "is cut short")
        self.at += size
        return piece

    def _number(self, code: str) -> Any:
        return struct.unpack(code, self._take(struct.calcsize(code)))[0]

    def _line(self) -> str:
        end = self._data.index(b"\n", self.at)
        line = self._take(end - self.at)
        self.at += 1
        return line.decode("ascii")

    def _marked(self) -> list[Any]:
        """Return what lies above the last mark, and take mark and items away."""
        items, self._stack = self._stack, self._below.pop()
        return items

    def _protocol(self) -> None:
        version = self._take(1)[0]
        if version != 2:
            raise Damaged(
                self._key, f"has pickle protocol {version}; save with torch.save's default, 2"
            )

    def _global(self) -> None:
        name = f"{self._line()}.{self._line()}"
        if name not in self._allowed:
            raise Damaged(
                self._key,
                f"names {name[:200]!r}, which is not among the few names that a state dict of "
                "dense layers needs. Nothing was executed. To read the weights of a module "
                "here, save them alone: torch.save(module.state_dict(), path)",
            )
        self._stack.append(Global(name, self._allowed[name]))

    def _integer(self) -> None:
        size = self._take(1)[0]
        if size > 8:
            raise Damaged(self._key, f"has an integer of {size} bytes")
        self._stack.append(int.from_bytes(self._take(size), "little", signed=True))

    def _text(self) -> None:
        self._stack.append(self._take(self._number("<I")).decode("utf-8"))

    def _mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _tuple(self) -> None:
        items = tuple(self._marked())
        self._stack.append(items)

    def _set(self, pairs: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict or len(pairs) % 2:
            raise TypeError("items for something that is not a dictionary")
        for name, value in zip(pairs[::2], pairs[1::2], strict=True):
            if type(name) not in (str, int):
                raise TypeError("a dictionary with names that are neither text nor integers")
            if name in target:
                raise Damaged(self._key, f"the name {name!r:.80} is there twice")
            target[name] = value

    def _set_one(self) -> None:
        value, name = self._stack.pop(), self._stack.pop()
        self._set([name, value])

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise TypeError("items for something that is not a list")
        target.extend(items)

    def _reduce(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if type(function) is not Global or function.call is None or type(arguments) is not tuple:
            raise TypeError("a call of something that is no function")
        self._stack.append(function.call(*arguments))

    def _build(self) -> None:
        # Attributes of an OrderedDict: the versions of the modules, which nothing here needs.
        state, target = self._stack.pop(), self._stack[-1]
        if type(state) is not dict or type(target) is not dict:
            raise TypeError("attributes for something that has none")


_STEPS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _Machine._protocol,
    b"c": _Machine._global,
    b"\x8a": _Machine._integer,
    b"G": lambda m: m._stack.append(m._number(">d")),
    b"X": _Machine._text,
    b"(": _Machine._mark,
    b")": lambda m: m._stack.append(()),
    b"]": lambda m: m._stack.append([]),
    b"}": lambda m: m._stack.append({}),
    b"t": _Machine._tuple,
    b"s": _Machine._set_one,
    b"u": lambda m: m._set(m._marked()),
    b"a": lambda m: m._extend([m._stack.pop()]),
    b"e": lambda m: m._extend(m._marked()),
    b"R": _Machine._reduce,
    b"b": _Machine._build,
    b"Q": lambda m: m._stack.append(m._persistent(m._stack.pop())),
}
