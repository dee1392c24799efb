"""What `load` and `save` are given: a path or an open file, and the format of what is in it."""

from __future__ import annotations

import io
import os
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    File = str | PathLike[str] | IO[bytes]


class Section:
    """Some bytes of an open file, read like a file of their own."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def as_file(self) -> BinaryIO:
        """Return it as what it is used for."""
        return cast("BinaryIO", self)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("a place before the start")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        rest = max(self._size - self._at, 0)
        self._file.seek(self._start + self._at)
        data = self._file.read(rest if size < 0 else min(size, rest))
        self._at += len(data)
        return data


class ModelFile:
    """A path or an open binary file, and the suffix that stands for its format.

    Raises
    ------
    TypeError
        It is neither, or a file of text.
    ValueError
        A file that is closed.
    """

    def __init__(self, file: Any, format: str | None = None) -> None:
        self._file: Any = None
        self._content: bytes | None = None
        self._place: tuple[int, int] | None = None  # of what is read in place: start, size
        name: Any = None
        if isinstance(file, str | os.PathLike):
            name = os.fspath(file)
        elif hasattr(file, "read") or hasattr(file, "write"):
            name, self._file = getattr(file, "name", None), file
            name = name if isinstance(name, str) else "the open file"
        if not isinstance(name, str):
            hint = "; io.BytesIO(data) is a file of bytes" if isinstance(file, bytes) else ""
            raise TypeError(
                f"path must be a string, a path of strings or an open binary file, got "
                f"{file!r:.80}{hint}"
            )
        if not isinstance(format, str | None):
            raise TypeError(f"format must be a string such as 'npz', got {format!r:.80}")
        self.name: str = name
        suffix = os.path.splitext(name)[1] if format is None else f".{format.removeprefix('.')}"
        self.suffix = suffix.lower()
        if hasattr(self._file, "encoding"):  # as every file of text has
            raise TypeError(
                f"{name}: is open as text; open it with the mode 'rb', or 'wb' to write"
            )
        if getattr(self._file, "closed", False):
            raise ValueError(f"{name}: is closed; leave it open until this is done")

    def __str__(self) -> str:
        return self.name

    @property
    def is_open(self) -> bool:
        """Whether it is an open file, not a path."""
        return self._file is not None

    def unknown(self, known: str, hint: str = "") -> ValueError:
        """Return the error for a suffix that is not one of those that are known."""
        if self.is_open and not self.suffix:
            return ValueError(
                f"{self}: format= must tell its format, as its name does not; {known}"
            )
        say = "; format= chooses one for another name"
        return ValueError(f"{self}: unknown suffix {self.suffix!r}; {known}{say}{hint}")

    @contextmanager
    def rest(self) -> Iterator[BinaryIO]:
        """Return what the open file has from its position on, a second time the same.

        Behind it, the file is at its end. A file of the system is read in place, everything else
        whole: to go back in a stream that is unpacked, or comes from far, takes long.
        """
        if self._content is None and self._place is None:
            self._check("read", "readable", "rb")
            if self._in_place():
                start = self._file.tell()
                self._place = start, self._file.seek(0, os.SEEK_END) - start
            else:
                self._content = self._file.read()
                if not isinstance(self._content, bytes):
                    kind = type(self._content).__name__
                    raise TypeError(f"{self}: its read() gave {kind}, not bytes")
            if not self.size():
                raise ValueError(
                    f"{self}: has nothing to read at its position; file.seek(0) goes to its start"
                )
        if self._place is not None:
            yield Section(self._file, *self._place).as_file()
            self._file.seek(0, os.SEEK_END)
        else:
            yield io.BytesIO(self._content or b"")

    def _in_place(self) -> bool:
        buffered = isinstance(self._file, io.BufferedReader | io.BufferedRandom)
        return buffered and isinstance(self._file.raw, io.FileIO) and self._file.seekable()

    def size(self) -> int:
        """Return the size of the content in bytes."""
        if not self.is_open:
            return os.path.getsize(self.name)
        return self._place[1] if self._place else len(self._content or b"")

    def path(self) -> str | None:
        """Return a path to the content, None if there is none."""
        if not self.is_open:
            return self.name
        again = f"/dev/fd/{self._file.fileno()}" if self._place and not self._place[0] else ""
        return again if os.path.exists(again) else None

    def write(self, data: memoryview) -> None:
        """Write to the open file, at its position."""
        self._check("write", "writable", "wb")
        while data:
            count = self._file.write(data)
            waits = count is None and isinstance(self._file, io.RawIOBase)
            if waits or count == 0:
                raise BlockingIOError(f"{self}: takes no more bytes without waiting")
            # One without a buffer may take a part; one that tells no number takes all.
            data = data[count if type(count) is int else len(data) :]

    def _check(self, method: str, able: str, mode: str) -> None:
        if not (hasattr(self._file, method) and getattr(self._file, able, lambda: True)()):
            raise ValueError(f"{self}: is not {able}; open it with the mode {mode!r}")
