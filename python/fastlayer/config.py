"""Threads and configuration: how many threads calls use, where that number came from, `show_config`."""

from __future__ import annotations

from threading import local
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from fastlayer import _core, _limits

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

_source = "not set"


def set_num_threads(n: int) -> None:
    """Set how many threads calls may use, in the whole process.

    Parameters
    ----------
    n : int
        At least 1. Small calls use fewer. The bits of the results do not depend on it.

    Raises
    ------
    ValueError
        Less than 1.
    TypeError
        Not an integer.

    Notes
    -----
    Limits that others put on OpenMP in the calling thread, such as ``threadpoolctl``'s, hold
    beside it. Where a thread could not be started, as a `RuntimeWarning` has told, this has the
    next call try again.

    Examples
    --------
    >>> import fastlayer as fl
    >>> before = fl.get_num_threads()
    >>> fl.set_num_threads(1)
    >>> fl.get_num_threads()
    1
    >>> fl.set_num_threads(before)
    """
    global _source
    _core.set_num_threads(_checked(n))
    _source = "fastlayer.set_num_threads"


def get_num_threads() -> int:
    """Return how many threads a call from the current thread may use.

    The process-wide number or that of `num_threads`, and no more than OpenMP's number for this
    thread where that was changed, as ``threadpoolctl.threadpool_limits`` does.

    Returns
    -------
    int
        The number of `num_threads` where the current thread is inside one, else that of the
        process.

    Examples
    --------
    >>> import fastlayer as fl
    >>> fl.get_num_threads() >= 1
    True
    """
    return _core.get_num_threads()


class num_threads:
    """Context manager: the number of threads for calls from the current thread.

    Parameters
    ----------
    n : int
        At least 1. It takes the place of the process-wide number, be it more or less; calls from
        other threads of the process are not affected.

    Raises
    ------
    ValueError
        Less than 1.
    TypeError
        Not an integer.

    Examples
    --------
    >>> import fastlayer as fl
    >>> with fl.num_threads(1):
    ...     fl.get_num_threads()
    1
    """

    def __init__(self, n: int) -> None:
        self._n = _checked(n)
        self._before = local()  # a thread restores what it found itself

    def __enter__(self) -> Self:
        self._before.stack = [
            *getattr(self._before, "stack", ()),
            _core.set_own_num_threads(self._n),
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _core.set_own_num_threads(self._before.stack.pop())


def _checked(n: object) -> int:
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"the number of threads must be an integer, got {n!r}")
    number = int(n.__index__())
    if number < 1:
        raise ValueError(f"the number of threads must be at least 1, got {number}")
    return min(number, _limits.MOST)


def start() -> None:
    """Set the default number of threads; called once, at import."""
    global _source
    n, _source = _limits.default_threads()
    _core.set_num_threads(n)
    _core.set_openmp_default(_limits.openmp_threads() or 0)


def _threads_source() -> str:
    limited = _core.openmp_limits()
    return "OpenMP's limit of this thread" if limited else _source


@overload
def show_config(mode: Literal["stdout"] = ...) -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> dict[str, Any]: ...
def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Print, or return, what the package was built with and what it uses, as `numpy.show_config`.

    Parameters
    ----------
    mode : {"stdout", "dicts"}
        Print, or return a dictionary.

    Returns
    -------
    dict or None
        Keys "version", "build", "isa" (with "built", "supported" and "active"), "caches",
        "threads" (with "count" and "source") and "python".

    Raises
    ------
    ValueError
        Another `mode`.

    Examples
    --------
    >>> import fastlayer as fl
    >>> sorted(fl.show_config(mode="dicts"))
    ['build', 'caches', 'isa', 'python', 'threads', 'version']
    """
    if mode not in ("stdout", "dicts"):
        raise ValueError(f"mode must be 'stdout' or 'dicts', got {mode!r}")
    import platform

    core = _core.config()
    found: dict[str, Any] = {
        "version": core["version"],
        "build": {"compiler": core["compiler"], "openmp": core["openmp"]},
        "isa": {name: core[f"isa_{name}"] for name in ("built", "supported", "active")},
        "caches": {level: f"{size // 1024} KiB" for level, size in core["caches"].items()},
        "threads": {"count": get_num_threads(), "source": _threads_source()},
        "python": {"version": platform.python_version(), "numpy": np.__version__},
    }
    if mode == "dicts":
        return found
    for key, value in found.items():
        if not isinstance(value, dict):
            print(f"{key}: {value}")
            continue
        print(f"{key}:")
        for name, item in value.items():
            text = ", ".join(item) if isinstance(item, list) else item
            print(f"  {name}: {text}")
    return None
