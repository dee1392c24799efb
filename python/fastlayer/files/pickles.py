"""Pickles of PyTorch, read without running anything: trees of tensors, and nothing else.

The language of pickles can import and call anything. So the operations are walked first: only those
that `torch.save` uses may be there, and just so many of them. What has passed is built by
`pickle.Unpickler`, which finds stand-ins of ours under all names: those of tensors and dictionaries
make such, and any other makes an `Unread`, which does nothing and holds nothing.
"""

from __future__ import annotations

import io
import pickle
from math import prod
from pickletools import genops, markobject
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer.errors import Damaged
from fastlayer.files.reading import MOST_AXES, Stored, Unread, from_bytes, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastlayer.arrays import Array

    # Finds the bytes of a storage by its name; the number of elements is what the pickle says.
    Locate = Callable[["Kind", str, int], Callable[[], bytes]]


class Kind(NamedTuple):
    """A storage type of PyTorch: the dtype as NumPy names it, or for a message."""

    dtype: str
    itemsize: int


_KINDS = {
    "torch.FloatStorage": Kind("float32", 4),
    "torch.DoubleStorage": Kind("float64", 8),
    "torch.HalfStorage": Kind("float16", 2),
    "torch.BFloat16Storage": Kind("bfloat16", 2),
    "torch.LongStorage": Kind("int64", 8),
    "torch.IntStorage": Kind("int32", 4),
    "torch.ShortStorage": Kind("int16", 2),
    "torch.CharStorage": Kind("int8", 1),
    "torch.ByteStorage": Kind("uint8", 1),
    "torch.BoolStorage": Kind("bool", 1),
    "torch.ComplexFloatStorage": Kind("complex64", 8),
    "torch.ComplexDoubleStorage": Kind("complex128", 16),
    "torch.QInt8Storage": Kind("qint8", 1),
    "torch.QUInt8Storage": Kind("quint8", 1),
    "torch.QInt32Storage": Kind("qint32", 4),
    "torch.storage.UntypedStorage": Kind("bytes", 1),
}
_KNOWN = ", ".join(kind.dtype for kind in _KINDS.values())
KEY = "pickle"
# What to do about long lists or arrays of NumPy in a checkpoint, such as a replay buffer.
ALONE = "save the state dict alone, torch.save(module.state_dict(), path)"
_ORDERED_DICT = "collections.OrderedDict"
# Bytes beside long texts, far above those of any state dict: a tensor takes about 150.
LARGEST_PICKLE = 4 << 20
# All bytes. Arrays of NumPy are texts, which are dropped where no name can be so long.
LARGEST_WHOLE = 256 << 20
_LONGEST_TEXT = 1024
# A tensor takes about 20 operations, and one operation up to about 130 bytes of memory.
MOST_OPERATIONS = 200_000
_LONGEST_INTEGER = 64  # bytes; seeds have 8, states of random generators 16
# Constants, numbers, text, bytes, containers, the memo, objects; named as in the module pickle.
_MARK, _DICT, _SET, _FROZEN, _FRAME = b"(", b"}", b"\x8f", b"\x91", b"\x95"
_NAME = b"c"  # of a class, on two lines
_SIZES = {b"X": 4, b"T": 4, b"B": 4, b"\x8d": 8, b"\x8e": 8, b"\x96": 8}  # of texts and bytes
_TEXTS, _INTEGER, _PUT, _CALL = (b"X", b"\x8c", b"\x8d"), b"\x8a", b"r", b"R"
_PROTOCOL, _STOP, _NEW, _NEW_WITH_NAMES = b"\x80", b".", b"\x81", b"\x92"
# T and U are texts of Python 2, and what stands behind the full stop is of protocols 3 to 5.
_OPERATIONS = frozenset(
    bytes([code])
    for code in b"N\x88\x89KMJ\x8aGXTU()]}t\x85\x86\x87aesuqrhjcR\x81bQ\x80."
    b"\x8c\x8dCB\x8e\x96\x8f\x90\x91\x92\x93\x94\x95"
)
_LONGEST_NAME = 1000  # of a class
_NO_TEXT = b"X\0\0\0\0"
# The language's own dictionaries take whatever is put into them, and sets hash it, which can take
# for ever; so every one becomes one of ours, or a tuple.
_INSTEAD = {
    _DICT: b"c" + _ORDERED_DICT.replace(".", "\n").encode() + b"\n)R",
    _SET: b"cbuiltins\nset\n)R",
    _FROZEN: b"t",
    _FRAME: b"",
    # A new object is a call as well: Unpickler would insist on a class. 0 drops the named arguments.
    _NEW: _CALL,
    _NEW_WITH_NAMES: b"0" + _CALL,
}


class Short(Damaged):
    """A pickle that goes on where its bytes end."""


def load(data: bytes, locate: Locate, order: str = "<") -> Any:
    """Return what a pickle describes, with a `Stored` for each tensor; `order` is that of bytes."""
    return build(checked(data)[0], locate, order)


def checked(data: bytes, most: int = MOST_OPERATIONS) -> tuple[bytes, int]:
    """Check the operations and names of the pickle at the start of `data`, `most` of them.

    Returns
    -------
    (bytes, int)
        A pickle of the same meaning, and where the one in `data` ends.
    """
    stream, same = io.BytesIO(data), bytearray()
    operations: Iterator[tuple[Any, Any, Any]] = genops(stream)
    depth, marks = 0, list[int]()
    for _ in range(most):
        at = stream.tell()
        code = data[at : at + 1]
        # Before genops reads the argument, in ways that depend on the operation.
        if code and code not in _OPERATIONS:
            raise Damaged(
                KEY,
                f"has the operation {code!r} at byte {at}, which torch.save doesn't write for a "
                "state dict",
            )
        width = _SIZES.get(code, 0)
        size = int.from_bytes(data[at + 1 : at + 1 + width], "little")
        end = at + 1 + width + size
        if size > _LONGEST_TEXT and end <= len(data):
            stream.seek(end)
            same += _NO_TEXT
            depth += 1
            continue
        if code == _NAME and b"\\" in data[at : data.find(b"\n", data.find(b"\n", at) + 1)]:
            # genops takes what follows for an escape, of which it may warn, and Unpickler doesn't.
            raise Damaged(KEY, f"has a name with a backslash at byte {at}")
        try:
            operation, argument, _ = next(operations)
            if code in _TEXTS:
                argument.encode()  # genops lets surrogates through
            needs = operation.stack_before
            if markobject in needs:
                depth, needs = marks.pop(), needs[: needs.index(markobject)]
        except (ValueError, IndexError) as error:
            if stream.tell() == len(data):
                raise Short(KEY, "is cut short") from error
            raise Damaged(KEY, f"is damaged at byte {at} ({error})") from error
        if code == _PROTOCOL and not 2 <= argument <= 5:
            why = f"has pickle protocol {argument}; save with torch.save's default, 2"
            raise Damaged(KEY, why)
        if code == _INTEGER and data[at + 1] > _LONGEST_INTEGER:
            raise Damaged(KEY, f"has an integer of {data[at + 1]} bytes")
        if code == _PUT and argument >= MOST_OPERATIONS:
            why = f"has place {argument} of its memo before those in front of it"
            raise Damaged(KEY, why)
        if code == _STOP:
            require(not marks and depth <= 1, KEY, f"ends too early, at byte {at}")
            return bytes(same + _STOP), stream.tell()
        if code == _MARK:
            marks.append(depth)
        else:
            depth += len(operation.stack_after) - len(needs)
        same += _INSTEAD.get(code, data[at : stream.tell()])
        if len(same) > LARGEST_PICKLE:
            raise Damaged(KEY, f"has more than {LARGEST_PICKLE} bytes of names; {ALONE}")
    raise Damaged(KEY, f"has more than {most} operations; {ALONE}")


def build(same: bytes, locate: Locate, order: str = "<") -> Any:
    """Return what a pickle describes that `checked` has returned."""
    try:
        return _Unpickler(same, locate, order).load()
    except Damaged:
        raise
    # Too few operands, operands of a wrong type, an index that was never set.
    except (pickle.UnpicklingError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise Damaged(KEY, f"is damaged ({error})") from error


class _Function(NamedTuple):
    """What a pickle may call. A tuple, because a pickle can set the attributes of a function."""

    call: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)


class _Whole(int):
    """A whole number as a name, hashed as text is: a file can't choose many that collide."""

    __slots__ = ()

    def __hash__(self) -> int:
        return hash(repr(self))


class _Dictionary(dict[Any, Any]):
    __slots__ = ()

    def __setitem__(self, name: Any, value: Any) -> None:
        # Before anything is hashed, which can take for ever. Tensors are never under such names.
        if type(name) not in (str, int):
            return
        name = _Whole(name) if type(name) is int else name
        if name in self:
            raise Damaged(KEY, f"the name {name!r:.80} is there twice")
        super().__setitem__(name, value)

    def __setstate__(self, state: Any) -> None:
        # Attributes of an OrderedDict: the versions of the modules, which nothing here needs.
        if not isinstance(state, dict):
            raise TypeError("attributes for something that has none")


_Dictionary.__name__ = "dict"  # in messages about what a file holds


class Record(Unread):
    """An object of a TorchScript program: the attributes that were saved, and no code."""

    __slots__ = ("state",)

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.state: dict[Any, Any] | None = None

    def __call__(self, *arguments: Any) -> Record:
        return Record(self.name)

    def __setstate__(self, state: Any) -> None:
        self.state = state if type(state) is _Dictionary else None


class _Storage(NamedTuple):
    kind: Kind
    size: int  # elements
    order: str
    read: Callable[[], bytes]


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Stored | Unread:
    """Stand in for ``torch._utils._rebuild_tensor_v2``."""
    if isinstance(storage, Unread):
        return storage
    if type(storage) is not _Storage or not _sizes((offset,), shape, strides):
        raise Damaged(KEY, "describes a tensor with impossible sizes")
    alike = len(shape) == len(strides) and len(shape) <= MOST_AXES
    require(alike, KEY, f"has shape {shape} beside strides {strides}")
    last = offset + sum((d - 1) * s for d, s in zip(shape, strides, strict=True))
    require(
        not prod(shape) or last < storage.size,
        KEY,
        f"a tensor of shape {shape} and strides {strides} from element {offset} on reaches "
        f"beyond its storage of {storage.size}",
    )

    def view() -> Array:
        require(
            prod(shape) <= storage.size,
            KEY,
            f"a tensor of shape {shape} repeats the {storage.size} elements of its storage; "
            "save it with .contiguous()",
        )
        flat = from_bytes(storage.read() if prod(shape) else b"", storage.kind.dtype, storage.order)
        # Steps that are never taken may be any numbers.
        taken = (d > 1 and flat.size for d in shape)
        steps = [s * flat.itemsize if t else 0 for t, s in zip(taken, strides, strict=True)]
        return np.lib.stride_tricks.as_strided(flat[offset:], shape, steps, writeable=False)

    return Stored(storage.kind.dtype, shape, view)


def _sizes(*several: Any) -> bool:
    # Products of a few of these stay short enough to print.
    return all(
        type(sizes) is tuple and all(type(v) is int and 0 <= v < 1 << 62 for v in sizes)
        for sizes in several
    )


def _parameter(data: Any, *_: Any) -> Any:
    """Stand in for ``torch._utils._rebuild_parameter``."""
    return data


# What makes a tensor.
_MAKERS = {
    "torch._utils._rebuild_tensor": _Function(_tensor),  # of the first versions
    "torch._utils._rebuild_tensor_v2": _Function(_tensor),
    "torch._utils._rebuild_parameter": _Function(_parameter),
    "torch._utils._rebuild_parameter_with_state": _Function(_parameter),
}


def _with_attributes(function: Any, kind: Any, arguments: Any, *_: Any) -> Any:
    """Stand in for ``torch._tensor._rebuild_from_type_v2``: a tensor that somebody put more into."""
    known = any(function is maker for maker in _MAKERS.values())
    if not known or type(arguments) is not tuple:
        raise Damaged(KEY, "describes a tensor with attributes in an unknown way")
    return function(*arguments)


# What makes something. A dictionary without arguments: pairs in a call would pass by __setitem__.
_NAMES = {
    **_KINDS,
    **_MAKERS,
    "torch._tensor._rebuild_from_type_v2": _Function(_with_attributes),
    _ORDERED_DICT: _Function(lambda: _Dictionary()),
}


class _Unpickler(pickle.Unpickler):
    """Builds what a checked pickle describes."""

    def __init__(self, same: bytes, locate: Locate, order: str) -> None:
        super().__init__(io.BytesIO(same), encoding="utf-8", errors="replace")
        self._locate, self._order = locate, order

    def find_class(self, module: str, name: str) -> Any:
        if len(module) + len(name) > _LONGEST_NAME:
            raise Damaged(KEY, f"has a class with a name of {len(module) + len(name)} characters")
        known = f"{module}.{name}"
        if known.startswith("__torch__."):
            return Record(known)
        return _NAMES.get(known) or Unread(known)

    def persistent_load(self, identity: Any) -> _Storage | Unread:
        """Find what ("storage", type, name, device, number of elements) stands for."""
        # Objects of a pickle are never printed here: a few bytes can describe an endless text.
        word, kind, name, _, *sizes = identity
        if isinstance(kind, Unread):
            return kind
        if type(kind) is not Kind or type(name) is not str:
            raise Damaged(KEY, f"refers to something that is no storage of {_KNOWN}")
        # Behind the size stood, long ago, which part of another storage this is.
        size = sizes[0] if sizes and sizes[1:] in ([], [None]) else None
        if word != "storage" or type(size) is not int:
            raise Damaged(KEY, "refers to a storage of an impossible size")
        return _Storage(kind, size, self._order, self._locate(kind, name, size))
