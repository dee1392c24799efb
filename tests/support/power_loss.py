"""What may be on a disk after a loss of power, from the calls that a program has made.

As little is promised here as any file system does. What was written to a file since it was last
synchronised may be there, missing, there by half, or zeros, each piece by itself. A name may be what
it was at any time since its folder was synchronised, whatever other names are; that a name changes
in one step, and that what is synchronised stays, is all that holds.
"""

from __future__ import annotations

import os
import re


class File:
    """The bytes of a file: what is sure to be there, and what was written since."""

    def __init__(self, sure=b""):
        self.sure, self.since = sure, []

    def synchronise(self):
        self.sure, self.since = _after(self.sure, self.since), []

    def contents(self):
        """Return everything that may be in the file."""
        pieces = self.since
        found = {self.sure, _after(self.sure, pieces)}
        for i, piece in enumerate(pieces):
            before, behind = pieces[:i], pieces[i + 1 :]
            for part in _parts(piece):
                found |= {_after(self.sure, [*before, *part, *rest]) for rest in ([], behind)}
        for kind in range(len(_parts((0, b"")))):
            found.add(_after(self.sure, [p for piece in pieces for p in _parts(piece)[kind]]))
        return found


def _parts(piece):
    """What may come of one piece that is not written as it should be."""
    at, data = piece
    if data is None:  # the file was cut to this length
        return [[], [], []]
    return [[], [(at, data[: len(data) // 2])], [(at, bytes(len(data)))]]


def _after(content, pieces):
    made = bytearray(content)
    for at, data in pieces:
        if data is None:
            del made[at:]
        made.extend(bytes(max(at - len(made), 0)))
        if data:
            made[at : at + len(data)] = data
    return bytes(made)


class Disk:
    """A folder and the files that a program has open, as its calls go by."""

    def __init__(self, folder, files):
        self.folder = folder
        # What each name may be: the last one is what the program sees.
        self.names = {name: [File(data)] for name, data in files.items()}
        self.open = {}

    def contents(self, name):
        """Return what may be under a name; None stands for no file."""
        found = set()
        for file in self.names.get(name, [None]):
            found |= {None} if file is None else file.contents()
        return found

    def _set(self, name, file):
        self.names.setdefault(name, [None]).append(file)

    def _of(self, path):
        number = re.fullmatch(r"/proc/self/fd/(\d+)", path)
        return self.open[int(number[1])] if number else self.names.get(path, [None])[-1]

    def call(self, line):
        """Follow one call: a line of failing_calls.c."""
        name, result, *rest = line.split("\t")
        number = int(result)
        if number < 0:
            return
        if name == "open":
            self._open(number, int(rest[0]), rest[1])
        elif name == "write":
            self.open[int(rest[0])].since.append((int(rest[1]), bytes.fromhex(rest[2])))
        elif name == "truncate":
            self.open[int(rest[0])].since.append((int(rest[1]), None))
        elif name == "fsync":
            self._synchronise(self.open[int(rest[0])])
        elif name in ("link", "rename"):
            self._set(rest[1], self._of(rest[0]))
        if name in ("unlink", "unlinkat", "rename"):
            self._set(rest[0], None)

    def _open(self, number, flags, path):
        file = self._of(path)
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            file = File()
        elif path == self.folder:
            file = self
        elif file is None and flags & os.O_CREAT:
            file = File()
            self._set(path, file)
        elif file is not None and flags & os.O_TRUNC:
            file.since.append((0, None))
        self.open[number] = file

    def _synchronise(self, what):
        if what is self:
            self.names = {name: files[-1:] for name, files in self.names.items()}
        else:
            what.synchronise()


def losses(lines, folder, files, name):
    """Yield what may be under a name, at the start and after each call, and the names that may be."""
    disk = Disk(folder, files)
    yield disk.contents(name), set(disk.names)
    for line in lines:
        disk.call(line)
        yield disk.contents(name), set(disk.names)
