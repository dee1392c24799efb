"""State dicts as PyTorch saves them, .pt or .pth: read with NumPy alone, without running anything.

The file is a zip archive: ``data.pkl`` describes the tensors as views of storages, and each storage
is a member.

The language of pickles can import and call anything. So the operations are walked first: only those
that `torch.save` uses may be there, and just so many of them. What has passed is built by
`pickle.Unpickler`, which finds stand-ins of ours under all names: those of tensors and dictionaries
make such, and any other makes an `Unread`, which does nothing and holds nothing.
"""

from __future__ import annotations

import io
import pickle
from contextlib import contextmanager
from functools import cache
from math import prod
from pickletools import genops, markobject
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from fastlayer.errors import Damaged
from fastlayer.files.reading import MOST_AXES, Stored, Unread, from_bytes, reading, require
from fastlayer.files.zip import MAGIC, members

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastlayer.arrays import Array
    from fastlayer.files.zip import Member


class _Kind(NamedTuple):
    """A storage type of PyTorch: the dtype as NumPy names it, or for a message."""

    dtype: str
    itemsize: int


_KINDS = {
    "torch.FloatStorage": _Kind("float32", 4),
    "torch.DoubleStorage": _Kind("float64", 8),
    "torch.HalfStorage": _Kind("float16", 2),
    "torch.BFloat16Storage": _Kind("bfloat16", 2),
    "torch.LongStorage": _Kind("int64", 8),
    "torch.IntStorage": _Kind("int32", 4),
    "torch.ShortStorage": _Kind("int16", 2),
    "torch.CharStorage": _Kind("int8", 1),
    "torch.ByteStorage": _Kind("uint8", 1),
    "torch.BoolStorage": _Kind("bool", 1),
}
_KNOWN = ", ".join(kind.dtype for kind in _KINDS.values())
_ORDERS = {b"little": "<", b"big": ">"}
_LEGACY = (
    "was written by a PyTorch before 1.6, or with _use_new_zipfile_serialization=False; load it in "
    "PyTorch and save it again with torch.save(state_dict, path)"
)
_KEY = "data.pkl"
_ORDERED_DICT = "collections.OrderedDict"
# Bytes, far above those of any state dict: a tensor takes about 150.
_LARGEST_PICKLE = 4 << 20
# A tensor takes about 20 operations, and one operation up to about 130 bytes of memory.
_MOST_OPERATIONS = 200_000
_LONGEST_INTEGER = 64  # bytes; seeds have 8, states of random generators 16
# Constants, numbers, text, containers, the memo, objects; named as in the module pickle.
_MARK, _DICT, _TEXT, _INTEGER, _PUT, _GLOBAL = b"(", b"}", b"X", b"\x8a", b"r", b"c"
_PROTOCOL, _STOP, _NEW, _CALL = b"\x80", b".", b"\x81", b"R"
_OPERATIONS = frozenset(
    bytes([code]) for code in b"N\x88\x89KMJ\x8aGX()]}t\x85\x86\x87aesuqrhjcR\x81bQ\x80."
)
# The language's own dictionaries take whatever is put into them, so every one becomes one of ours.
_EMPTY_DICT = b"c" + _ORDERED_DICT.replace(".", "\n").encode() + b"\n)R"


@contextmanager
def stored(path: str) -> Iterator[Any]:
    """Return what `torch.save` was given, with a `Stored` for each tensor.

    The tensors are to be read while the file is open.

    Raises
    ------
    ModelFileError
        A file that is damaged or of another format.
    """
    with reading(path) as file:
        _check_format(file)
        yield _content(members(file))


def _check_format(file: BinaryIO) -> None:
    head = file.read(262)
    if head[:4] == MAGIC:
        return
    require(head[257:262] != b"ustar", "format", f"is a tar archive, which {_LEGACY}")
    require(head[:1] != b"\x80", "format", f"is a bare pickle, which {_LEGACY}")
    raise Damaged("format", "is not a zip archive, as torch.save writes")


def _content(archive: dict[str, Member]) -> Any:
    found = [n for n in archive if n.count("/") == 1 and n.endswith("/data.pkl")]
    require(len(found) == 1, _KEY, "is missing; this is not a file of torch.save")
    root = found[0].removesuffix("data.pkl")
    require(
        f"{root}constants.pkl" not in archive,
        "constants.pkl",
        "shows a TorchScript program; load it with torch.jit.load, and save "
        "module.state_dict() with torch.save",
    )
    # A PyTorch before 2.1 wrote no byte order, and was little-endian.
    written = archive.get(f"{root}byteorder")
    order = b"little" if written is None else written.head(7)
    require(order in _ORDERS, "byteorder", f"is {order!r}, expected little or big")
    described = archive[found[0]]
    small = described.size <= _LARGEST_PICKLE
    require(small, _KEY, f"has more than {_LARGEST_PICKLE} bytes")
    checked = _checked(described.read())
    try:
        return _Unpickler(checked, archive, f"{root}data/", _ORDERS[order]).load()
    except Damaged:
        raise
    # Too few operands, operands of a wrong type, an index that was never set.
    except (pickle.UnpicklingError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise Damaged(_KEY, f"is damaged ({error})") from error


def _checked(data: bytes) -> bytes:
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
                _KEY,
                f"has the operation {code!r} at byte {at}, which torch.save doesn't write for a "
                "state dict",
            )
        try:
            operation, argument, _ = next(operations)
            if code == _TEXT:
                argument.encode()  # genops lets surrogates through
            needs = operation.stack_before
            if markobject in needs:
                depth, needs = marks.pop(), needs[: needs.index(markobject)]
        except (ValueError, IndexError) as error:
            if stream.tell() == len(data):
                raise Damaged(_KEY, "is cut short") from error
            raise Damaged(_KEY, f"is damaged at byte {at} ({error})") from error
        if code == _PROTOCOL and argument != 2:
            why = f"has pickle protocol {argument}; save with torch.save's default, 2"
            raise Damaged(_KEY, why)
        if code == _INTEGER and data[at + 1] > _LONGEST_INTEGER:
            raise Damaged(_KEY, f"has an integer of {data[at + 1]} bytes")
        if code == _PUT and argument >= _MOST_OPERATIONS:
            why = f"has place {argument} of its memo before those in front of it"
            raise Damaged(_KEY, why)
        if code == _STOP:
            require(not marks and depth <= 1, _KEY, f"ends too early, at byte {at}")
            return bytes(checked + _STOP)
        if code == _MARK:
            marks.append(depth)
        else:
            depth += len(operation.stack_after) - len(needs)
        # A new object is a call as well: Unpickler would insist on a class.
        same = data[at : stream.tell()]
        checked += {_DICT: _EMPTY_DICT, _NEW: _CALL}.get(code, same)
    raise Damaged(_KEY, f"has more than {_MOST_OPERATIONS} operations")


class _Function(NamedTuple):
    """What a pickle may call. A tuple, because a pickle can set the attributes of a function."""

    call: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)


class _Dictionary(dict[Any, Any]):
    __slots__ = ()

    def __setitem__(self, name: Any, value: Any) -> None:
        # Before anything is hashed, which can take for ever. Tensors are never under such names.
        if type(name) not in (str, int):
            return
        if name in self:
            raise Damaged(_KEY, f"the name {name!r:.80} is there twice")
        super().__setitem__(name, value)

    def __setstate__(self, state: Any) -> None:
        # Attributes of an OrderedDict: the versions of the modules, which nothing here needs.
        if not isinstance(state, dict):
            raise TypeError("attributes for something that has none")


_Dictionary.__name__ = "dict"  # in messages about what a file holds


class _Storage(NamedTuple):
    kind: _Kind
    size: int  # elements
    order: str
    read: Callable[[], bytes]


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Stored | Unread:
    """Stand in for ``torch._utils._rebuild_tensor_v2``."""
    if type(storage) is Unread:
        return storage
    if type(storage) is not _Storage or not _sizes((offset,), shape, strides):
        raise Damaged(_KEY, "describes a tensor with impossible sizes")
    alike = len(shape) == len(strides) and len(shape) <= MOST_AXES
    require(alike, _KEY, f"has shape {shape} beside strides {strides}")
    last = offset + sum((d - 1) * s for d, s in zip(shape, strides, strict=True))
    require(
        not prod(shape) or last < storage.size,
        _KEY,
        f"a tensor of shape {shape} and strides {strides} from element {offset} on reaches "
        f"beyond its storage of {storage.size}",
    )
    require(
        prod(shape) <= storage.size,
        _KEY,
        f"a tensor of shape {shape} repeats the {storage.size} elements of its storage; "
        "save it with .contiguous()",
    )

    def view() -> Array:
        flat = from_bytes(storage.read() if prod(shape) else b"", storage.kind.dtype, storage.order)
        steps = [s * flat.itemsize for s in strides]
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


# What makes something. A dictionary without arguments: pairs in a call would pass by __setitem__.
_NAMES = {
    **_KINDS,
    "torch._utils._rebuild_tensor_v2": _Function(_tensor),
    "torch._utils._rebuild_parameter": _Function(_parameter),
    "torch._utils._rebuild_parameter_with_state": _Function(_parameter),
    _ORDERED_DICT: _Function(lambda: _Dictionary()),
}


class _Unpickler(pickle.Unpickler):
    """Builds what a checked pickle describes; the storages are members below a folder."""

    def __init__(self, checked: bytes, archive: dict[str, Member], folder: str, order: str) -> None:
        super().__init__(io.BytesIO(checked))
        self._archive, self._folder, self._order = archive, folder, order
        self._reads: dict[str, Callable[[], bytes]] = {}

    def find_class(self, module: str, name: str) -> Any:
        known = f"{module}.{name}"
        return _NAMES.get(known) or Unread(known)

    def persistent_load(self, identity: Any) -> _Storage | Unread:
        """Find what ("storage", type, name, device, number of elements) stands for."""
        # Objects of a pickle are never printed here: a few bytes can describe an endless text.
        word, kind, name, _, size = identity
        if type(kind) is Unread:
            return kind
        if type(kind) is not _Kind or type(name) is not str:
            raise Damaged(_KEY, f"refers to something that is no storage of {_KNOWN}")
        member = self._archive.get(f"{self._folder}{name}")
        if word != "storage" or member is None:
            raise Damaged(f"data/{name:.40}", "is missing")
        if type(size) is not int or member.size != size * kind.itemsize:
            raise Damaged(f"data/{name}", f"has another size than data.pkl says, for {kind.dtype}")
        read = self._reads.setdefault(name, cache(member.read))  # tensors may share a storage
        return _Storage(kind, size, self._order, read)
