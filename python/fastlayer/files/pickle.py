"""Pickles as `torch.save` writes them for a state dict, read without importing or running anything.

The language of pickles can import and call anything. So the operations are walked first: only those
that `torch.save` uses may be there, just so many of them, and no names but the few that are allowed.
What has passed is built by `pickle.Unpickler`, which finds stand-ins of ours under those names.
"""

from __future__ import annotations

import io
import pickle
from pickletools import genops, markobject
from typing import TYPE_CHECKING, Any, NamedTuple

from fastlayer.errors import Damaged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# A tensor takes about 20 operations, and one operation up to about 130 bytes of memory.
_MOST_OPERATIONS = 200_000
_LONGEST_INTEGER = 8  # bytes
# Constants, numbers, text, containers, the memo, objects; named as in the module pickle.
_MARK, _DICT, _TEXT, _INTEGER, _PUT, _GLOBAL = b"(", b"}", b"X", b"\x8a", b"r", b"c"
_PROTOCOL, _STOP = b"\x80", b"."
_OPERATIONS = frozenset(
    bytes([code]) for code in b"N\x88\x89KMJ\x8aGX()]}t\x85\x86\x87aesuqrhjcRbQ\x80."
)
_ORDERED_DICT = "collections.OrderedDict"
# The language's own dictionaries take whatever is put into them, so every one becomes one of ours.
_EMPTY_DICT = b"c" + _ORDERED_DICT.replace(".", "\n").encode() + b"\n)R"


class Function(NamedTuple):
    """What a pickle may call. A tuple, because a pickle can set the attributes of a function."""

    call: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)


def interpret(
    data: bytes, allowed: Mapping[str, Any], persistent: Callable[[Any], Any], key: str
) -> Any:
    """Return what the pickle stands for.

    Parameters
    ----------
    data : bytes
        The pickle.
    allowed : mapping
        "module.name" to what stands for it: a `Function`, or something without any attribute that
        can be set. Dictionaries of either kind come as dictionaries.
    persistent : callable
        Makes an object of a persistent id.
    key : str
        What to call the pickle in errors.

    Raises
    ------
    Damaged
        Another name, another operation, or damage.
    """
    known = {**allowed, _ORDERED_DICT: Function(lambda: _Dictionary(key))}

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return known[f"{module}.{name}"]

        def persistent_load(self, identity: Any) -> Any:
            return persistent(identity)

    checked = _walk(data, known, key)
    try:
        return Unpickler(io.BytesIO(checked)).load()
    except Damaged:
        raise
    # Too few operands, operands of a wrong type, an index that was never set.
    except (pickle.UnpicklingError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise Damaged(key, f"is damaged ({error})") from error


def _walk(data: bytes, known: Mapping[str, Any], key: str) -> bytes:
    """Return a pickle of the same meaning whose operations and names have been checked."""
    stream, checked = io.BytesIO(data), bytearray()
    operations: Iterator[tuple[Any, Any, Any]] = genops(stream)
    depth, marks = 0, list[int]()
    for _ in range(_MOST_OPERATIONS):
        at = stream.tell()
        code = data[at : at + 1]
        # Before genops reads the argument, in ways that depend on the operation.
        if code and code not in _OPERATIONS:
            raise Damaged(
                key,
                f"has the operation {code!r} at byte {at}, which torch.save doesn't write for a "
                "state dict",
            )
        if code == _GLOBAL:
            _check_name(data, at + 1, known, key)
        try:
            operation, argument, _ = next(operations)
            if code == _TEXT:
                argument.encode()  # genops lets surrogates through
            needs = operation.stack_before
            if markobject in needs:
                depth, needs = marks.pop(), needs[: needs.index(markobject)]
        except (ValueError, IndexError) as error:
            if stream.tell() == len(data):
                raise Damaged(key, "is cut short") from error
            raise Damaged(key, f"is damaged at byte {at} ({error})") from error
        if code == _PROTOCOL and argument != 2:
            raise Damaged(key, f"has pickle protocol {argument}; save with torch.save's default, 2")
        if code == _INTEGER and data[at + 1] > _LONGEST_INTEGER:
            raise Damaged(key, f"has an integer of {data[at + 1]} bytes")
        if code == _PUT and argument >= _MOST_OPERATIONS:
            raise Damaged(key, f"has place {argument} of its memo before those in front of it")
        if code == _STOP:
            if marks or depth > 1:
                raise Damaged(key, f"ends too early, at byte {at}")
            return bytes(checked + _STOP)
        if code == _MARK:
            marks.append(depth)
        else:
            depth += len(operation.stack_after) - len(needs)
        checked += _EMPTY_DICT if code == _DICT else data[at : stream.tell()]
    raise Damaged(key, f"has more than {_MOST_OPERATIONS} operations")


def _check_name(data: bytes, start: int, known: Mapping[str, Any], key: str) -> None:
    end = data.find(b"\n", data.find(b"\n", start) + 1)
    name = data[start:end].decode("utf-8", "replace").replace("\n", ".")
    if end >= start and name not in known:
        raise Damaged(
            key,
            f"names {name[:200]!r}, which is not among the few names that a state dict of "
            "dense layers needs. Nothing was executed. To read the weights of a module "
            "here, save them alone: torch.save(module.state_dict(), path)",
        )


class _Dictionary(dict[Any, Any]):
    __slots__ = ("_key",)

    def __init__(self, key: str) -> None:
        self._key = key

    def __setitem__(self, name: Any, value: Any) -> None:
        # Before anything is hashed, which can take for ever.
        if type(name) not in (str, int):
            raise TypeError("a dictionary with names that are neither text nor integers")
        if name in self:
            raise Damaged(self._key, f"the name {name!r:.80} is there twice")
        super().__setitem__(name, value)

    def __setstate__(self, state: Any) -> None:
        # Attributes of an OrderedDict: the versions of the modules, which nothing here needs.
        if not isinstance(state, dict):
            raise TypeError("attributes for something that has none")


_Dictionary.__name__ = "dict"  # in messages about what a file holds
