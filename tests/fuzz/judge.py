"""What a reader may do with a file that a fuzzer made, whatever it holds; anything else is a finding.

It may refuse it by an error of ours that names the file. It may give a network, which then runs, and is
the same network after it was saved and loaded. Reading takes a second of processor time and the memory
that SECURITY.md promises, and causes no event that executes, imports or opens anything else.
"""

from __future__ import annotations

import codecs
import importlib
import os
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from helpers import assert_same_bits
from hostile import SECONDS, SPARE, address_space, breaks_out
from readers import Reader

import fastlayer as fl
from fastlayer.files.document import to_document

REFUSED = (fl.ModelFileError, fl.ConversionError)
LONGEST_MESSAGE = 4096
# Of networks that are run: features without arrays take no bytes of a file.
_MOST_FEATURES = 1 << 14


class Finding(Exception):
    """Something that no file may bring about."""


class Judge:
    """Tries files on a reader, in this process, which gets a hook that is never removed."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._folder = os.path.realpath(tempfile.mkdtemp())
        self._path = os.path.join(self._folder, f"model{reader.suffix}")
        own = ".safetensors" if reader.suffix == ".safetensors" else ".npz"
        self._copy = os.path.join(self._folder, f"copy{own}")
        for name, data in reader.beside.items():
            Path(self._folder, name).write_bytes(data)
        self._watched = False
        self._breach = ""
        self._warm()
        warnings.simplefilter("error")
        sys.addaudithook(self._watch)

    def _warm(self) -> None:
        """Have everything imported that readers import once."""
        importlib.import_module("difflib")  # for the guess in a message
        codecs.lookup("cp437")  # names in zip archives
        self.strangers = []  # seeds that no door takes
        for name, data in self._reader.seeds().items():
            Path(self._path).write_bytes(self._reader.wrap(data))
            errors = []
            for door in self._reader.doors:
                try:
                    _run(door(self._path))
                except REFUSED as error:
                    errors.append(error)
            if len(errors) == len(self._reader.doors):
                self.strangers.append((name, errors))

    def _watch(self, event: str, arguments: tuple[object, ...]) -> None:
        if self._watched and breaks_out(event, arguments, self._path, self._folder):
            self._breach = f"{event} {arguments!r:.200}"
            raise Finding(self._breach)  # before it comes to pass

    def attempt(self, data: bytes) -> int:
        """Return how many doors took a file; raise `Finding` for what none may do."""
        content = self._reader.wrap(data)
        with open(self._path, "wb") as file:
            file.write(content)
        taken = 0
        for door in self._reader.doors:
            net = self._read(door, len(content))
            if net is not None:
                taken += 1
                self._try(net)
        return taken

    def _read(self, door: object, size: int) -> fl.Network | None:
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        most = address_space() + size * self._reader.memory + SPARE
        net, error = None, None
        start = time.process_time()
        try:
            resource.setrlimit(resource.RLIMIT_AS, (most, hard))
            self._breach, self._watched = "", True
            net = door(self._path)  # type: ignore[operator]
        except Exception as caught:  # noqa: BLE001  # which one it is, is judged below
            error = caught
        finally:
            self._watched = False
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        spent = time.process_time() - start
        if self._breach:
            raise Finding(f"the reader did {self._breach}")
        if error is not None and not isinstance(error, REFUSED):
            raise Finding(f"{type(error).__name__}: {error}") from error
        if spent > SECONDS:
            raise Finding(f"reading took {spent:.1f} s of processor time")
        if isinstance(error, fl.ModelFileError) and error.path != self._path:
            raise Finding(f"the error names another file: {error}")
        if error is not None and len(str(error)) > LONGEST_MESSAGE:
            raise Finding(f"a message of {len(str(error))} characters")
        if error is None and type(net) is not fl.Network:
            raise Finding(f"the reader gave a {type(net).__name__}")
        return net

    def _try(self, net: fl.Network) -> None:
        """Run a network that was read, save it, and compare it with what is read back."""
        try:
            with np.errstate(all="ignore"):
                results = _run(net)
            net.save(self._copy)
            back = fl.load(self._copy)
            (mine, arrays), (theirs, others) = to_document(net), to_document(back)
            assert repr(mine) == repr(theirs), "another document"
            assert arrays.keys() == others.keys(), "other arrays"
            for name, array in arrays.items():
                assert_same_bits(others[name], array)
            with np.errstate(all="ignore"):
                for one, other in zip(results, _run(back), strict=True):
                    if one.dtype.kind == "U":
                        assert (one == other).all(), "other labels"
                    else:
                        assert_same_bits(other, one)
        except Exception as error:
            raise Finding(f"{net!r:.300}: {type(error).__name__}: {error}") from error


def _run(net: fl.Network) -> list[np.ndarray]:
    """Return what a network gives for three rows, one by one where it takes no more at a time."""
    features = net.in_features
    if max(features or 0, net.out_features or 0) > _MOST_FEATURES:
        return []
    m = 1 if "one row" in net._traits else 3
    x = np.linspace(-2, 2, m * (features or 4), dtype=net.dtype).reshape(m, -1)
    widths = net._ends[0]
    if len(widths) > 1:
        widths = widths if any(widths) else (x.shape[1] - len(widths) + 1, *[1] * (len(widths) - 1))
        given = np.split(x, np.cumsum(widths)[:-1], axis=1)
    else:
        given = [x]
    try:
        y = net(*given)
    except ValueError:
        if features is None:  # behind a Flatten or a Slice, a network does not tell what it takes
            return []
        raise
    if net.output_names:
        found = list(y) if isinstance(y, tuple) else [y]
        assert len(found) == len(net.output_names), "another number of outputs than of names"
        return [np.asarray(a) for a in found]
    assert y.dtype == net.dtype, f"{y.dtype} of a network of {net.dtype}"
    told = y.shape[:-1] == (m,) and net.out_features in (None, y.shape[-1])
    assert told, f"a result of shape {y.shape} for {m} rows, and out_features {net.out_features}"
    return [y]
