"""Files of PyTorch, .pt or .pth: read with NumPy alone, without running anything.

What `torch.save` and `torch.jit.save` write is a zip archive: ``data.pkl`` describes the tensors as
views of storages, and each storage is a member. Before version 1.6 PyTorch wrote pickles one after
the other, and the storages behind them.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, BinaryIO

from fastlayer.errors import Damaged
from fastlayer.files import pickles
from fastlayer.files.reading import (
    Script,
    Stored,
    Unread,
    read_bytes,
    reading,
    require,
    size_of,
)
from fastlayer.files.zip import MAGIC, members

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastlayer.files.model_file import ModelFile
    from fastlayer.files.zip import Member

_ORDERS = {b"little": "<", b"big": ">"}
_KEY = "data.pkl"
_LEGACY = "legacy format"
# The number that stands for the format, and lies in a pickle of its own; and the format's version.
_NUMBER, _VERSION = 0x1950A86A20F9469CFC6C, 1001
# Bytes of one of them that are read at first.
_SHORT = 1 << 20
_SCRIPT = "TorchScript"
_SAVE = "save module.state_dict() with torch.save, of the module that it was made from"


@contextmanager
def stored(source: str | ModelFile) -> Iterator[Any]:
    """Return what `torch.save` was given, with a `Stored` for each tensor, or a `Script`.

    The tensors are to be read while the file is open.

    Raises
    ------
    ModelFileError
        A file that is damaged or of another format.
    """
    with reading(source) as file:
        yield content(file)


def content(file: BinaryIO) -> Any:
    """Return what a file of PyTorch holds, which `file` is from its start to its end."""
    file.seek(0)
    head = file.read(262)
    if head[:4] == MAGIC:
        return _archive(members(file, unread="code"))
    if head[:1] == b"\x80" and _NUMBER.to_bytes(10, "little") in head[:32]:
        return _legacy(file)
    require(
        head[257:262] != b"ustar",
        "format",
        "is a tar archive, as the first PyTorch wrote; load it in PyTorch and save it again with "
        "torch.save(state_dict, path)",
    )
    require(
        head[:1] != b"\x80",
        "format",
        "is a bare pickle, and not of torch.save; load it where it was written, and save its "
        "arrays with torch.save(state_dict, path)",
    )
    raise Damaged("format", "is not a zip archive, as torch.save writes")


def _archive(archive: dict[str, Member]) -> Any:
    found = [n for n in archive if n.count("/") == 1 and n.endswith("/data.pkl")]
    first = any(n.endswith("/model.json") for n in archive)
    require(not first, _SCRIPT, f"is TorchScript of a PyTorch before 1.4; {_SAVE}")
    require(len(found) == 1, _KEY, "is missing; this is not a file of torch.save")
    root = found[0].removesuffix("data.pkl")
    # A PyTorch before 2.1 wrote no byte order, and was little-endian.
    written = archive.get(f"{root}byteorder")
    order = b"little" if written is None else written.head(7)
    require(order in _ORDERS, "byteorder", f"is {order!r}, expected little or big")
    described = archive[found[0]]
    small = described.size <= pickles.LARGEST_WHOLE
    require(small, _KEY, f"has more than {pickles.LARGEST_WHOLE} bytes; {pickles.ALONE}")
    reads: dict[str, Callable[[], bytes]] = {}

    def locate(kind: pickles.Kind, name: str, size: int) -> Callable[[], bytes]:
        member = archive.get(f"{root}data/{name}")
        if member is None:
            raise Damaged(f"data/{name:.40}", "is missing")
        if member.size != size * kind.itemsize:
            raise Damaged(f"data/{name}", f"has another size than data.pkl says, for {kind.dtype}")
        return reads.setdefault(name, cache(member.read))  # tensors may share a storage

    scripted = f"{root}constants.pkl" in archive
    try:
        held = pickles.load(described.read(), locate, _ORDERS[order])
        return _script(held, archive, root) if scripted else held
    except Damaged as error:
        if not scripted:
            raise
        raise Damaged(f"{_SCRIPT} {error.key}", f"{error.why}; {_SAVE}") from error


def _script(root: Any, archive: dict[str, Member], folder: str) -> Script:
    """Return the tensors in a tree of objects, under the paths of their attributes."""
    found, waiting, spent = Script(), [("", root)], 0
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, pickles.Record) and value.state is not None:
            inner = [(f"{path}.{n}" if path else str(n), v) for n, v in value.state.items()]
            # Objects that hold each other have paths without end.
            spent += sum(len(name) + 20 for name, _ in inner)
            if spent > pickles.LARGEST_PICKLE:
                raise Damaged("objects", "hold each other, or are more than a module has")
            waiting.extend(reversed(inner))
        elif isinstance(value, Stored | Unread) and not _plain(value):
            require(path not in found, path[:80], "is there twice")
            found[path] = value
    frozen = not found and any(n.startswith(f"{folder}constants/") for n in archive)
    why = "are frozen: the weights have become constants of the code, without names"
    require(not frozen, "weights", why)
    return found


def _plain(value: Stored | Unread) -> bool:
    """Tell whether an attribute is no part of a module: a list of numbers or text, or a device."""
    return isinstance(value, Unread) and value.name.startswith(
        ("torch.jit._pickle.", "torch.device")
    )


def _legacy(file: BinaryIO) -> Any:
    """Return what a PyTorch before 1.6 wrote: five pickles, then each storage behind its size."""
    at, whole = 0, size_of(file)
    kinds: dict[str, tuple[int, int]] = {}  # elements, bytes of one
    places: dict[str, int] = {}

    def following(most: int, limit: int = pickles.LARGEST_PICKLE) -> bytes:
        nonlocal at
        there = min(whole - at, limit)
        # Few are long, and none is read to the end of the file to see where it ends.
        for room in (_SHORT, _SHORT << 6, there):
            data = read_bytes(file, at, min(there, room), _LEGACY)
            try:
                same, size = pickles.checked(data, most)
            except pickles.Short:
                if room >= there:
                    raise
                continue
            at += size
            break
        return same

    def locate(kind: pickles.Kind, name: str, size: int) -> Callable[[], bytes]:
        alike = kinds.setdefault(name, (size, kind.itemsize)) == (size, kind.itemsize)
        require(alike, _LEGACY, f"the storage {name!r:.40} is described in two ways")
        key = f"storage {name:.40}"
        return lambda: read_bytes(file, places[name], size * kind.itemsize, key)

    for expected in (_NUMBER, _VERSION):
        same = pickles.build(following(10), locate) == expected
        require(same, _LEGACY, "is of an unknown version")
    system = pickles.build(following(100), locate)
    little = isinstance(system, dict) and system.get("little_endian") is True
    require(little, _LEGACY, "was written by a machine that is not little-endian")
    held = pickles.build(following(pickles.MOST_OPERATIONS, pickles.LARGEST_WHOLE), locate)
    names = pickles.build(following(4 * len(kinds) + 20), locate)
    listed = type(names) is list and all(type(name) is str for name in names)
    complete = listed and sorted(names) == sorted(kinds)
    require(complete, _LEGACY, "lists other storages than it describes")
    for name in names:
        count, itemsize = kinds[name]
        same = int.from_bytes(read_bytes(file, at, 8, _LEGACY), "little") == count
        require(same, f"storage {name:.40}", f"has another size than the {count} of its tensors")
        places[name] = at + 8
        at += 8 + count * itemsize
        require(at <= whole, f"storage {name:.40}", "claims more bytes than the file has")
    return held
