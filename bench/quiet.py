"""Whether the machine was ours alone: the processor time that everybody else took, measured.

Of the cores that this process may use, /proc/stat counts the time they were busy and the time that a
hypervisor took away (steal). What this process and those that it started have used, by their own
clocks, is subtracted; the rest is other people's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

SHARE = 0.03  # of one core: what others may take beside a row; a system at rest takes 0.002
GRAIN = 0.03  # seconds more: the kernel counts in ticks of 10 ms, and samples at them
TRIES = 4  # times that a row is measured until nobody disturbs it
WINDOW = 1.0  # seconds of rest that count as quiet
T = TypeVar("T")


@dataclass(frozen=True)
class Reading:
    """Seconds since some moment."""

    wall: float
    busy: float  # all cores together, whoever was at work
    steal: float
    own: float


@dataclass(frozen=True)
class Load:
    """What others took between two readings."""

    wall: float
    others: float  # seconds
    steal: float

    @property
    def share(self) -> float:
        """Of one core."""
        return (self.others + self.steal) / self.wall if self.wall else 0.0

    @property
    def disturbing(self) -> bool:
        return self.others + self.steal > SHARE * self.wall + GRAIN


def between(before: Reading, after: Reading) -> Load:
    busy, own = after.busy - before.busy, after.own - before.own
    wall, steal = after.wall - before.wall, after.steal - before.steal
    return Load(wall, max(0.0, busy - own), max(0.0, steal))


def cores_of(stat: str, cores: set[int], tick: float) -> tuple[float, float]:
    """(busy, steal) seconds of some cores, from the text of /proc/stat."""
    busy = steal = 0
    for line in stat.splitlines():
        name, *fields = line.split() or [""]
        if name[:3] == "cpu" and name[3:].isdigit() and int(name[3:]) in cores:
            user, nice, system, _, _, irq, softirq, stolen = map(int, fields[:8])
            busy += user + nice + system + irq + softirq
            steal += stolen
    return busy * tick, steal * tick


def family(parents: dict[int, int], root: int) -> set[int]:
    """`root` and all that it started, and those that they did, given each process's parent."""
    found, new = set(), {root}
    while new:
        found |= new
        new = {pid for pid, parent in parents.items() if parent in new} - found
    return found


def own_time(tick: float) -> float:
    """Seconds of this process and of all that it started, those that have ended too."""
    parents, ended = {}, {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            # the name, in parentheses, may hold anything
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        parents[int(entry)] = int(fields[1])
        ended[int(entry)] = int(fields[13]) + int(fields[14])  # of the children it waited for
    total = 0.0
    for pid in family(parents, os.getpid()):
        try:
            # the clock of a process: clock_getcpuclockid of the C library; nanoseconds, not ticks
            total += time.clock_gettime((~pid << 3) | 2) + ended.get(pid, 0) * tick
        except OSError:
            continue
    return total


def reading() -> Reading:
    tick = 1 / os.sysconf("SC_CLK_TCK")
    stat = Path("/proc/stat").read_text()
    busy, steal = cores_of(stat, os.sched_getaffinity(0), tick)
    if not busy:
        raise OSError(
            "/proc/stat has no times of these cores: the load by others can't be measured"
        )
    return Reading(time.monotonic(), busy, steal, own_time(tick))


class Quiet:
    """Waits for a machine at rest, as long as its patience lasts, and counts what was repeated."""

    def __init__(
        self,
        patience: float,
        read: Callable[[], Reading] = reading,
        sleep: Callable[[float], None] = time.sleep,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.patience, self.read, self.sleep, self.say = patience, read, sleep, say
        self.waited = 0.0
        self.again = 0  # measurements made once more

    def wait(self) -> bool:
        """Return when others rest; False where patience ends before."""
        told = False
        while self.waited < self.patience:
            before = self.read()
            self.sleep(WINDOW)
            load = between(before, self.read())
            if not load.disturbing:
                return True
            if not told:
                self.say(f"waiting: others take {load.share:.2f} of a core")
                told = True
            self.waited += load.wall
        return False

    def measure(self, call: Callable[[], T]) -> tuple[T, Load, int]:
        """What `call` returns when nobody disturbs it, the load, and how often it was made again.

        After some tries, or when patience is at its end, that with the least load; the load says
        whether it was disturbing.
        """
        best: tuple[T, Load] | None = None
        for again in range(TRIES):
            before = self.read()
            result = call()
            load = between(before, self.read())
            if best is None or load.share < best[1].share:
                best = result, load
            if not load.disturbing or again == TRIES - 1 or not self.wait():
                break
            self.again += 1
        return *best, again
