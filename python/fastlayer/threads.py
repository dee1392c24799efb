"""Threads: how many calls may use, and how many the environment, affinity and control group allow."""

from __future__ import annotations

import os
from contextvars import ContextVar
from typing import TYPE_CHECKING

from fastlayer import _core
from fastlayer.arrays import count

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

_source = "not set"

# Of each context, the innermost last: the number, and the `num_threads` whose it is. The core reads
# it for calls that may use threads.
_limits: ContextVar[tuple[tuple[int, num_threads], ...]] = ContextVar(
    "fastlayer.num_threads", default=()
)


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
    """Context manager: the number of threads for calls of the current thread or task.

    Parameters
    ----------
    n : int
        At least 1. It takes the place of the process-wide number, be it more or less; calls from
        other threads and tasks of the process are not affected.

    Raises
    ------
    ValueError
        Less than 1.
    TypeError
        Not an integer.

    Notes
    -----
    The limit belongs to the context of ``contextvars``, so the block may hold an ``await``: each task
    of asyncio, and each greenlet of gevent, has its own. What starts inside the block in a copy of
    the context has it too and keeps it: tasks, ``asyncio.to_thread``, and new threads where Python
    hands them the context (``sys.flags.thread_inherit_context``, on in free-threaded builds from
    3.14). Blocks may end in any order, as those of generators do; each takes away its own limit.

    Examples
    --------
    >>> import fastlayer as fl
    >>> with fl.num_threads(1):
    ...     fl.get_num_threads()
    1
    """

    def __init__(self, n: int) -> None:
        self._n = _checked(n)

    def __enter__(self) -> Self:
        _core.follow_limits(_limits)
        _limits.set((*_limits.get(), (self._n, self)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Not the variable's `reset`: blocks that overlap would bring back each other's limits.
        limits = _limits.get()
        for i in reversed(range(len(limits))):
            if limits[i][1] is self:
                _limits.set((*limits[:i], *limits[i + 1 :]))
                return


def _checked(n: object) -> int:
    return min(count("the number of threads", n), MOST)


def start() -> None:
    """Set the default number of threads; called once, at import."""
    global _source
    n, _source = default_threads()
    _core.set_num_threads(n)
    _core.set_openmp_default(openmp_threads() or 0)


def source() -> str:
    """Return where the number of threads of this thread's calls came from."""
    limited = _core.openmp_limits()
    return "OpenMP's limit of this thread" if limited else _source


# More threads than any machine that runs this has cores: a typing error in a variable must not
# start them.
MOST = 4096


def default_threads() -> tuple[int, str]:
    """Return the smallest of all limits, and which one it is.

    Raises
    ------
    ValueError
        FASTLAYER_NUM_THREADS is set to something that is not a positive integer.
    """
    own = os.environ.get("FASTLAYER_NUM_THREADS", "").strip()
    if own and not _is_count(own):
        raise ValueError(f"FASTLAYER_NUM_THREADS must be a positive integer, got {own!r}")
    found = (  # of equal ones the first is named
        (int(own) if own else None, "FASTLAYER_NUM_THREADS"),
        (openmp_threads(), "OMP_NUM_THREADS"),
        (cgroup_quota(), "CPU quota of the control group"),
        (processors(), "cores in the affinity mask"),
    )
    limits = [(limit, source) for limit, source in found if limit is not None]
    n, source = min(limits, key=lambda limit: limit[0])
    return min(max(n, 1), MOST), source


def openmp_threads() -> int | None:
    """Return what OMP_NUM_THREADS says for regions that are not nested, None where it is not set.

    None, too, where it is no list of positive integers: OpenMP reports that itself.
    """
    omp = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(omp) if _is_count(omp) else None


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0


def processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # no such call on this system
        return os.cpu_count() or 1


def cgroup_quota(root: str = "/") -> int | None:
    """Return the CPU quota of this process' control group in whole CPUs, rounded up.

    None where there is no limit. Version 2 limits hold for every group on the way to the root of
    the hierarchy, so the smallest counts; a container may see its own group as that root.
    """
    try:
        with open(os.path.join(root, "proc/self/cgroup")) as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return None
    found: list[float] = []
    for fields in lines:
        if len(fields) == 3:
            for mount in _mounts(fields[1]):
                found += _quotas(os.path.join(root, "sys/fs/cgroup", mount), fields[2])
    return max(1, -int(-min(found) // 1)) if found else None


def _mounts(controllers: str) -> list[str]:
    """Where the hierarchy of these controllers may be: that of version 2 has none of its own."""
    if not controllers:
        return [""]
    return ["cpu", controllers] if "cpu" in controllers.split(",") else []


def _quotas(mount: str, path: str) -> list[float]:
    """Return the quotas of a group and of all above it."""
    parts = [p for p in path.split("/") if p and p != ".."]
    found = []
    for depth in range(len(parts), -1, -1):
        folder = os.path.join(mount, *parts[:depth])
        quota, _, period = _read(os.path.join(folder, "cpu.max")).partition(" ")
        if not quota:  # version 1
            quota = _read(os.path.join(folder, "cpu.cfs_quota_us"))
            period = _read(os.path.join(folder, "cpu.cfs_period_us"))
        if _is_count(quota) and _is_count(period):  # "max" and -1 stand for no limit
            found.append(int(quota) / int(period))
    return found


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""
