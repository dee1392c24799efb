"""What the readers of model files share: how a file is opened, JSON without surprises, arrays to come.

A reader first checks all that a file says against the file's size, and only then reads arrays. So a
damaged or hostile file costs little time, and no memory beyond its own size and a little more.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from fastlayer.errors import Damaged, ModelFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from fastlayer.arrays import Array, DType
    from fastlayer.files.model_file import ModelFile

    Find = Callable[[str], "Stored"]

# How files begin that stand where a model was to be, and what they are.
_INSTEAD = (
    (
        b"version https://git-lfs.github.com/spec/",
        "is a pointer of Git LFS, not the model itself: `git lfs pull` in its repository fetches it",
    ),
    (b"<!doctype html", "is a page of a website (HTML), not a model: download the file itself"),
    (b"<html", "is a page of a website (HTML), not a model: download the file itself"),
)
DOCUMENT = "fastlayer"  # the name of a network's document in every format
# Bytes of a JSON text, and number of its brackets and commas. Each of those stands for one value,
# up to about 100 bytes in memory; a layer and its arrays take about 30.
LARGEST_JSON = 4 << 20
_MOST_VALUES = 200_000
# Networks in each other, 64 deep, take four levels each. Python counts levels as calls of functions.
_DEEPEST_JSON = 300
MOST_AXES = 8  # of an array in somebody else's file


class Stored(NamedTuple):
    """An array in a file: what the file says about it, and a way to read it."""

    dtype: str  # NumPy's name, or the format's own where that is not one of NumPy's
    shape: tuple[int, ...]
    read: Callable[[], Array]


class Unread:
    """What an object in somebody else's file became that is neither an array nor a container.

    It can be called, set and added to, as the file may ask for, and stays as it is.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name  # of its class or function

    def __call__(self, *arguments: Any) -> Unread:
        return self

    def _ignore(self, *arguments: Any) -> None: ...

    __setstate__ = __setitem__ = append = extend = add = _ignore


class Script(dict[str, Any]):
    """The tensors of a TorchScript program by their paths, as in its state dict."""


def require(met: bool, key: str, why: str) -> None:
    """Raise `Damaged` where a file is not as it has to be.

    For what is checked a few times a file: `why` is made in any case.
    """
    if not met:
        raise Damaged(key, why)


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Inside, an error of the system that names no file, as those of open ones don't, names this one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = path
        raise


@contextmanager
def reading(source: str | ModelFile) -> Iterator[BinaryIO]:
    """Open a regular file, or what one that is open already has from its position on.

    Inside, `Damaged` becomes `ModelFileError`, and nameless errors of the system name the file.
    """
    path = str(source)
    with naming(path), _opened(source) as file:
        head = file.read(64).lstrip().lower()
        file.seek(0)
        for start, why in _INSTEAD:
            if head.startswith(start):
                raise ModelFileError(path, "file", why)
        try:
            yield file
        except Damaged as error:
            raise ModelFileError(path, error.key, error.why) from error


def _opened(source: str | ModelFile) -> AbstractContextManager[BinaryIO]:
    if not isinstance(source, str) and source.is_open:
        return source.rest()
    path = str(source)
    # Without O_NONBLOCK, opening a named pipe would wait for somebody to write into it.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

    def regular(name: str, _: int) -> int:
        number = os.open(name, flags)
        with ExitStack() as undo:
            undo.callback(os.close, number)
            if not stat.S_ISREG(os.fstat(number).st_mode):
                raise ModelFileError(path, "file", "is not a regular file")
            undo.pop_all()
        return number

    return open(path, "rb", opener=regular)


def size_of(file: BinaryIO) -> int:
    """Return the size of an open file in bytes."""
    return file.seek(0, os.SEEK_END)


def read_bytes(file: BinaryIO, start: int, size: int, key: str) -> bytes:
    """Read exactly `size` bytes, which the caller knows to be in the file."""
    file.seek(start)
    data = file.read(size)
    if len(data) != size:
        raise Damaged(key, "is cut short")
    return data


def ordered_dtype(name: str, order: str) -> DType:
    """Return a dtype in the byte order "<" or ">"."""
    # newbyteorder keeps a mark also where the order is this machine's, and the core wants none.
    dtype: DType = np.dtype(order + np.dtype(name).str[1:])
    return dtype


def from_bytes(data: Any, name: str, order: str, count: int = -1, start: int = 0) -> Array:
    """Return numbers from byte `start` on; those of bfloat16 as float32, which has them all."""
    if name != "bfloat16":
        return np.frombuffer(data, ordered_dtype(name, order), count, start)
    halves = np.frombuffer(data, ordered_dtype("uint16", order), count, start)
    return (halves.astype(np.uint32) << 16).view(np.float32)


def check_json(text: bytes, key: str) -> None:
    """Refuse a text that would take long to parse, or much memory."""
    values = sum(map(text.count, (b"{", b"[", b",")))
    require(
        len(text) <= LARGEST_JSON and values <= _MOST_VALUES,
        key,
        f"{len(text)} bytes of JSON with {values} brackets and commas are more than a model "
        f"has; the limits are {LARGEST_JSON} and {_MOST_VALUES}",
    )


def parse_json(given: bytes | str, key: str) -> Any:
    """Parse UTF-8 JSON; the same name twice in one object is refused."""
    # Surrogates pass here, and are no UTF-8 below.
    text = given.encode("utf-8", "surrogatepass") if isinstance(given, str) else given

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = {}
        for name, value in pairs:
            if name in result:
                raise Damaged(key, f"the name {name!r:.80} is there twice")
            result[name] = value
        return result

    check_json(text, key)
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except Damaged:
        raise
    except (ValueError, RecursionError) as error:
        raise Damaged(key, f"is not JSON ({error})") from error
    level = [value]
    for _ in range(_DEEPEST_JSON):
        level = [inner for held in level for inner in _held(held)]
    require(not level, key, f"has lists and objects more than {_DEEPEST_JSON} deep in each other")
    return value


def _held(value: Any) -> Iterable[Any]:
    return value.values() if type(value) is dict else value if type(value) is list else ()
