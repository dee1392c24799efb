"""A jail for readers of model files: what they may spend on a file, and what they may not do at all.

`Jail` runs a reader in a fresh process of its own for each file: at most one second of processor
time, the file's size plus 64 MB of memory, no file opened but the one that was named, and nothing
executed. A test makes one jail for its module and calls `refuse` and `accept`.
"""

from __future__ import annotations

import codecs
import contextlib
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = int(os.environ.get("TESTS_SLOWER", "1"))  # an emulator says how many times
SPARE = 64 << 20
# Audit events that end the child: code, processes, libraries and connections.
FORBIDDEN = (
    "exec", "compile", "import", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork",
    "subprocess.", "socket.", "ctypes.dlopen", "pickle.find_class", "marshal.", "shutil.",
    "os.remove", "os.rename", "os.mkdir", "os.symlink", "os.link", "os.truncate", "urllib.",
)  # fmt: skip
# It keeps what was freed for a while, and red zones around all there is: more than files may take.
SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")
BROKEN = 99  # exit status of a child that did what it must not


class Jail:
    """A process that has imported the reader and forks a child for each file.

    `reader` is "module:function", called with the path; `warm` are sound files, read once outside
    of the limits so that everything which readers import lazily is there, by `warmer` where the
    reader is not the one for that. Files that may be opened beside the named one are given by
    `beside`, a folder; `seconds` is for readers that read many files.
    """

    def __init__(
        self,
        reader: str,
        warm: list[Path],
        beside: Path | None = None,
        seconds: int = SECONDS,
        warmer: str | None = None,
    ) -> None:
        paths = json.dumps([str(w) for w in warm])
        one_file = bool(warm) and seconds == SECONDS
        self._traced = _function(reader) if one_file and "COVERAGE_RUN" in os.environ else None
        arguments = [reader, warmer or reader, paths, str(beside or ""), str(seconds)]
        path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._read() == "ready"

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")

    def run(self, path: Path) -> tuple[str, str]:
        """Return the name and the message of the error, or "" and the result's type."""
        assert self._process.stdin is not None
        if self._traced:  # the child leaves by os._exit, and tells no tracer what it ran
            with contextlib.suppress(Exception):
                self._traced(str(path))
        print(json.dumps(str(path)), file=self._process.stdin, flush=True)
        answer = json.loads(self._read())
        assert answer["status"] == 0, f"{path.name}: {answer}"
        if SANITIZED and answer["error"] == "MemoryError":
            importlib.import_module("pytest").skip("the sanitizer's own memory is over the limit")
        return answer["error"], answer["text"]

    def refuse(self, path: Path, *errors: str) -> str:
        """Assert that the file is refused with one of these errors, by default ModelFileError."""
        error, text = self.run(path)
        assert error in (errors or ("ModelFileError",)), f"{path.name}: {error or 'read'}: {text}"
        return text

    def accept(self, path: Path) -> str:
        """Assert that the file is read."""
        error, text = self.run(path)
        assert not error, f"{path.name}: {error}: {text}"
        return text


def address_space() -> int:
    """Return how many bytes of addresses this process has."""
    pages = Path("/proc/self/statm").read_text("ascii").split()[0]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def breaks_out(event: str, arguments: tuple[object, ...], path: str, beside: str = "") -> bool:
    """Tell whether an audit event is one that no reader of the file at `path` may cause.

    `beside` is the folder of files that may be opened too.
    """
    if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        opened = os.fsdecode(arguments[0])
        if opened == path:
            return False
        home = os.path.realpath(beside) + os.sep
        return not beside or not os.path.realpath(opened).startswith(home)
    return event.startswith(FORBIDDEN)


def _watch(path: str, beside: str) -> None:
    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if breaks_out(event, arguments, path, beside):
            os.write(2, f"{path}: the reader did {event} {arguments!r:.200}\n".encode())
            os._exit(BROKEN)

    sys.addaudithook(hook)


def _child(read: Callable[[str], object], path: str, beside: str, seconds: int, pipe: int) -> None:
    import resource

    limit = address_space() + os.stat(path).st_size + SPARE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    _watch(path, beside)
    try:
        error, text = "", type(read(path)).__name__
    except Exception as caught:  # noqa: BLE001  # which one it is, is the result
        error, text = type(caught).__name__, str(caught)[:2000]
    os.write(pipe, json.dumps([error, text]).encode())
    os._exit(0)


def _function(named: str) -> Callable[[str], object]:
    module, function = named.split(":")
    found: Callable[[str], object] = getattr(importlib.import_module(module), function)
    return found


def _keep(reader: str, warmer: str, warm: list[str], beside: str, seconds: int) -> None:
    read = _function(reader)
    importlib.import_module("difflib")  # for the guess in a message
    codecs.lookup("cp437")  # names in zip archives
    for path in warm:
        _function(warmer)(path)
    print("ready", flush=True)
    for line in sys.stdin:
        path = json.loads(line)
        mine, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            _child(read, path, beside, seconds, theirs)
        os.close(theirs)
        with os.fdopen(mine, "rb") as pipe:
            answer = pipe.read()
        status = os.waitpid(child, 0)[1]
        error, text = json.loads(answer) if status == 0 else ("", "")
        print(json.dumps({"status": status, "error": error, "text": text}), flush=True)


if __name__ == "__main__":
    _keep(*sys.argv[1:3], json.loads(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
