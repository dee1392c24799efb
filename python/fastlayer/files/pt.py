"""State dicts as PyTorch saves them, .pt or .pth: read with NumPy alone, without running anything.

The file is a zip archive: ``data.pkl`` describes the tensors as views of storages, and each storage
is a member. `pickle` reads the description.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer.errors import Damaged
from fastlayer.files.pickle import Function, interpret
from fastlayer.files.reading import Stored, ordered_dtype, reading
from fastlayer.files.zip import MAGIC, Archive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from fastlayer.arrays import Array


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
# Bytes, far above those of any state dict: a tensor takes about 150.
_LARGEST_PICKLE = 4 << 20
_MOST_AXES = 8
_ORDERS = {b"little": "<", b"big": ">"}
_LEGACY = (
    "was written by a PyTorch before 1.6, or with _use_new_zipfile_serialization=False; load it in "
    "PyTorch and save it again with torch.save(state_dict, path)"
)


class _Storage(NamedTuple):
    dtype: str
    itemsize: int
    member: str
    size: int  # elements


@contextmanager
def stored(path: str) -> Iterator[Any]:
    """Return what `torch.save` was given, with a `Stored` for each tensor.

    The tensors are to be read while the file is open.

    Raises
    ------
    ModelFileError
        A file that is damaged, of another format, or holds more than tensors, numbers and text in
        dictionaries and lists.
    """
    with reading(path) as file:
        _check_format(file)
        yield _File(Archive(file)).content()


def _check_format(file: BinaryIO) -> None:
    head = file.read(262)
    if head[:4] == MAGIC:
        return
    if head[257:262] == b"ustar":
        raise Damaged("format", f"is a tar archive, which {_LEGACY}")
    if head[:1] == b"\x80":
        raise Damaged("format", f"is a bare pickle, which {_LEGACY}")
    raise Damaged("format", "is not a zip archive, as torch.save writes")


class _File:
    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._read: dict[str, bytes] = {}
        names = archive.names()
        found = [n for n in names if n.count("/") == 1 and n.endswith("/data.pkl")]
        if len(found) != 1:
            raise Damaged("data.pkl", "is missing; this is not a file of torch.save")
        self._root = found[0].removesuffix("data.pkl")
        if f"{self._root}constants.pkl" in archive:
            raise Damaged(
                "constants.pkl",
                "shows a TorchScript program; load it with torch.jit.load, and save "
                "module.state_dict() with torch.save",
            )
        # A PyTorch before 2.1 wrote no byte order, and was little-endian.
        name = f"{self._root}byteorder"
        order = archive.head(name, 7) if name in archive else b"little"
        if order not in _ORDERS:
            raise Damaged("byteorder", f"is {order!r}, expected little or big")
        self._order = _ORDERS[order]

    def content(self) -> Any:
        name = f"{self._root}data.pkl"
        if self._archive.size(name) > _LARGEST_PICKLE:
            raise Damaged("data.pkl", f"has more than {_LARGEST_PICKLE} bytes")
        allowed = {**_KINDS, "torch._utils._rebuild_tensor_v2": Function(self._tensor)}
        return interpret(self._archive.read(name), allowed, self._storage, "data.pkl")

    def _storage(self, identity: Any) -> _Storage:
        """Find what ("storage", type, name, device, number of elements) stands for."""
        # Objects of a pickle are never printed here: a few bytes can describe an endless text.
        word, kind, name, _, size = identity
        if type(kind) is not _Kind or type(name) is not str:
            raise Damaged("data.pkl", f"refers to something that is no storage of {_KNOWN}")
        member = f"{self._root}data/{name}"
        if word != "storage" or member not in self._archive:
            raise Damaged(f"data/{name:.40}", "is missing")
        if type(size) is not int or self._archive.size(member) != size * kind.itemsize:
            raise Damaged(f"data/{name}", f"has another size than data.pkl says, for {kind.dtype}")
        return _Storage(*kind, member, size)

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Stored:
        """Stand in for ``torch._utils._rebuild_tensor_v2``."""
        if type(storage) is not _Storage or not _sizes((offset,), shape, strides):
            raise Damaged("data.pkl", "describes a tensor with impossible sizes")
        if len(shape) != len(strides) or len(shape) > _MOST_AXES:
            raise Damaged("data.pkl", f"has shape {shape} beside strides {strides}")
        last = offset + sum((d - 1) * s for d, s in zip(shape, strides, strict=True))
        if prod(shape) and last >= storage.size:
            raise Damaged(
                "data.pkl",
                f"a tensor of shape {shape} and strides {strides} from element {offset} on reaches "
                f"beyond its storage of {storage.size}",
            )
        if prod(shape) > storage.size:
            raise Damaged(
                "data.pkl",
                f"a tensor of shape {shape} repeats the {storage.size} elements of its storage; "
                "save it with .contiguous()",
            )
        return Stored(storage.dtype, shape, partial(self._view, storage, offset, shape, strides))

    def _view(
        self, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> Array:
        dtype = ordered_dtype(storage.dtype, self._order)
        if not prod(shape):
            return np.empty(shape, dtype)
        if storage.member not in self._read:
            self._read[storage.member] = self._archive.read(storage.member)
        flat = np.frombuffer(self._read[storage.member], dtype)[offset:]
        steps = [s * storage.itemsize for s in strides]
        return np.lib.stride_tricks.as_strided(flat, shape, steps, writeable=False)


def _sizes(*several: Any) -> bool:
    # Products of a few of these stay short enough to print.
    return all(
        type(sizes) is tuple and all(type(v) is int and 0 <= v < 1 << 62 for v in sizes)
        for sizes in several
    )
