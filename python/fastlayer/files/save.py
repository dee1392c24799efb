"""`Network.save`: the network as a document and arrays, written to a file in one step."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import sys
from contextlib import ExitStack, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, BinaryIO

from fastlayer.files.model_file import ModelFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.files.document import Table
    from fastlayer.files.model_file import File


_fcntl: Any = None
with suppress(ImportError):  # Windows
    _fcntl = import_module("fcntl")

# What systems answer that can't open folders, and file systems that can't synchronise them.
_UNABLE = {
    errno.EACCES, errno.EPERM, errno.EISDIR, errno.EBADF, errno.EINVAL, errno.ENOSYS,
    errno.ENOTSUP, errno.EOPNOTSUPP,
}  # fmt: skip
# What they answer where no file can be put.
_PLACE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM}
OWN = {".npz": "fastlayer.files.npz", ".safetensors": "fastlayer.files.safetensors"}


def save(net: Any, file: File, table: Table, format: str | None) -> None:
    """Write a network; see `Network.save`. `table` has the classes that a file may name."""
    from fastlayer.files.document import check, encode, to_document
    from fastlayer.files.reading import DOCUMENT, check_json

    given = ModelFile(file, format)
    if given.suffix not in OWN:
        raise given.unknown(f"networks are saved as {' or '.join(OWN)}")
    document, arrays = to_document(net)
    check(document, arrays, table)
    text = encode(document)
    check_json(text, DOCUMENT)
    write = import_module(OWN[given.suffix]).write
    write_to(given, lambda file: write(file, text, arrays))


def write_to(given: ModelFile, write: Callable[[BinaryIO], None]) -> None:
    """Let `write` fill a new file of the given name, or one in memory that the open one gets whole."""
    if given.is_open:
        room = io.BytesIO()
        write(room)
        given.write(room.getbuffer())
    else:
        write_atomically(given.name, write)


def write_atomically(path: str, write: Callable[[BinaryIO], None]) -> None:
    """Let `write` fill a new file, then give it the name `path` in one step.

    A reader sees the old file or the whole new one, also after a crash or a loss of power. What
    saves under this name have left behind because they were killed goes first.

    Raises
    ------
    OSError
        What the system refused, under the name `path`. The old file is still there, or, where the
        last steps failed, the whole new one, which a loss of power might then undo.
    """
    folder, name = os.path.split(os.path.abspath(path))
    outer, foreign = sys.exc_info()[1], None

    def fill(file: BinaryIO) -> None:
        nonlocal foreign
        try:
            write(file)
        except OSError as error:  # of the new file, if it has no name
            foreign = None if error.filename is None else error
            raise

    _clear(folder, name)
    try:
        _replace(path, folder, name, fill)
        _synchronise(folder)
    except OSError as error:
        cause = _first(error, outer)
        if cause.errno is None or cause is foreign:
            raise
        # It names the folder, a file that is gone, or none: the caller knows this name.
        system = getattr(cause, "winerror", None)
        why = cause.strerror
        if cause.errno in _PLACE:
            why = wrong_place(path) or why
        raise OSError(cause.errno, why, path, system) from error


def wrong_place(path: str) -> str:
    """Tell why no file can be put there; nothing where it can."""
    folder = os.path.dirname(os.path.abspath(path))
    try:
        is_folder = stat.S_ISDIR(os.stat(folder).st_mode)
    except FileNotFoundError:
        return f"the folder {folder!r} does not exist"
    except OSError as error:  # a part of its path is a file, or nobody may look into it
        is_folder = error.errno != errno.ENOTDIR
    if not is_folder:
        return f"{folder!r} is no folder"
    if os.path.isdir(path):
        return "is a folder; give the name of a file in it"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"no permission to write into the folder {folder!r}"
    return ""


def _first(error: OSError, outer: BaseException | None) -> OSError:
    """Return the error of the system that others followed, when files were closed after it."""
    found, before = error, error.__context__
    while before is not None and before is not outer:
        found = before if isinstance(before, OSError) else found
        before = before.__context__
    return found


def _replace(path: str, folder: str, name: str, write: Callable[[BinaryIO], None]) -> None:
    with ExitStack() as undo:
        unnamed = _unnamed(folder, name)
        temporary, file = unnamed or _named(folder, name)
        undo.callback(_remove, temporary)
        with file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            if unnamed:
                # With a folder given, the link is to what the other one in /proc points to.
                os.link(f"/proc/self/fd/{file.fileno()}", temporary, src_dir_fd=file.fileno())
            if _fcntl is not None:  # before the lock goes with the file
                os.replace(temporary, path)
        if _fcntl is None:  # Windows renames no open file
            os.replace(temporary, path)
        undo.pop_all()


def _synchronise(folder: str) -> None:
    """Wait until the new name is on the disk, where the system can tell."""
    try:
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
    except OSError as error:
        if error.errno not in _UNABLE:
            raise


def _temporary(folder: str, name: str) -> str:
    return os.path.join(folder, f".{name}.{os.urandom(6).hex()}.tmp")


def _unnamed(folder: str, name: str) -> tuple[str, BinaryIO] | None:
    """Open a file that is gone if the process is, and choose a name for later; None: no such files."""
    flag = getattr(os, "O_TMPFILE", 0)
    if not flag or not os.path.isdir("/proc/self/fd"):
        return None

    def opener(folder: str, _: int) -> int:
        number = os.open(folder, flag | os.O_RDWR, 0o666)
        _lock(number)  # for the moment between the two names
        return number

    try:
        # Not fdopen, which leaves the number open where it fails.
        return _temporary(folder, name), open(folder, "w+b", opener=opener)
    except OSError:
        return None


def _named(folder: str, name: str) -> tuple[str, BinaryIO]:
    """Open a new file, locked as long as it is open: a save that is under way."""
    while True:
        # Not tempfile: its files are private, and a model gets the permissions of any other file.
        temporary = _temporary(folder, name)
        file = open(temporary, "x+b")  # noqa: SIM115 - the caller closes it
        with ExitStack() as undo:
            undo.callback(_remove, temporary)
            undo.enter_context(file)
            # Another process may take it for left behind before the lock is there.
            if _lock(file.fileno()) is not False and _is_there(temporary):
                undo.pop_all()
                return temporary, file


def _is_there(path: str) -> bool:
    # Not exists, which takes every failure for a no.
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    return True


def _remove(path: str) -> None:
    """Remove a file after a failure, which matters more than this; the next save clears it."""
    with suppress(OSError):
        os.unlink(path)


def _clear(folder: str, name: str) -> None:
    """Remove files that saves under this name began, and that no living process has locked."""
    if _fcntl is None:
        return
    ours = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{12}}\.tmp")
    with suppress(OSError):  # a folder may be written to, and not be listed
        for found in os.listdir(folder):
            if ours.fullmatch(found):
                _remove_unlocked(os.path.join(folder, found))


def _remove_unlocked(path: str) -> None:
    with suppress(OSError):
        number = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if _lock(number):
                os.unlink(path)
        finally:
            os.close(number)


def _lock(number: int) -> bool | None:
    """Whether the file is locked for us now; None where the system can't tell."""
    if _fcntl is None:
        return None
    try:
        _fcntl.flock(number, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
