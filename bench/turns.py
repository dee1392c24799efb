"""The turns that the peers take at one case: how many, how long, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import report
from processes import Neighbours, Peer, ask_all

IDLE = 0.02  # seconds of sleep before each call; the worker's
LONG = 0.02  # seconds: such calls are timed one a turn, in three turns
ONCE = 0.5  # seconds: nothing to warm up; the call that chose the form is the first turn
SLOW = 4  # times the fastest peer's: takes part in two turns only, if its calls are long


@dataclass(frozen=True)
class Settings:
    """How much is measured. Kept in the results; a run can only be resumed with the same."""

    rounds: int = 5  # turns of each peer where a call of the fastest takes less than LONG
    seconds: float = 0.015  # of a hot turn
    busy_seconds: float = 0.1  # the scheduler's periods are some milliseconds
    idle_calls: int = 16  # in a turn

    def rounds_of(self, call: float, quickest: float) -> int:
        slow = call > LONG and call > SLOW * quickest
        return min(self.rounds, 2 if slow else 3 if quickest > LONG else self.rounds)

    def turn(self, mode: str, call: float) -> dict:
        """What the worker is asked for, given the time of a call."""
        seconds = self.busy_seconds if mode == "busy" else self.seconds
        idle = min(self.idle_calls, max(3, int(self.idle_calls * 0.025 / (IDLE + call))))
        if call > LONG:
            return {"warm": 0.0 if call < ONCE else None, "seconds": 0.0, "least": 1, "most": idle}
        return {"warm": seconds / 4, "seconds": seconds, "least": 3, "most": idle}

    def cost(self, mode: str, call: float, quickest: float) -> float:
        """Seconds of all turns of one peer."""
        turn = self.turn(mode, call)
        warm = 0.0 if turn["warm"] is None else max(turn["warm"], call)
        work = max(turn["seconds"], turn["least"] * call)
        if mode == "idle":
            work = turn["most"] * (IDLE + call)
        if mode == "busy":
            warm, work = warm + call, work + call * turn["least"]
        return (self.rounds_of(call, quickest) - (call > ONCE)) * (warm + work)


def take(peers: list[Peer], calls: dict[str, float], mode: str, settings: Settings) -> dict:
    """A B C, A B C, ...: for each peer what its turns took."""
    quickest = min(calls.values(), default=0.0)
    found: dict[str, dict] = {peer.name: {"p50": [], "all": []} for peer in peers}
    for name, entry in found.items():
        if mode == "hot" and calls[name] > ONCE:
            entry |= {"p50": [calls[name]], "all": [calls[name]], "inner": 1}
    for turn in range(settings.rounds):
        for peer in peers:
            entry, call = found[peer.name], calls[peer.name]
            if "error" in entry or not len(entry["p50"]) <= turn < settings.rounds_of(
                call, quickest
            ):
                continue
            answer = peer.ask(op="turn", mode=mode, **settings.turn(mode, call))
            if "error" in answer:
                entry["error"] = answer["error"]
                continue
            entry["p50"].append(float(np.median(answer["times"])))
            entry["all"] += answer["times"]
            entry["inner"] = answer["inner"]
    for entry in found.values():
        times = entry.pop("all")
        if "error" not in entry:
            entry["time"] = float(np.median(entry["p50"]))
            entry["p99"] = float(np.quantile(times, 0.99))
            entry["samples"] = len(times)
    return found


def rows(peers: list[Peer], case, dtype: str, folder: str, relative: float, options):
    """Check all peers, then time those that compute the case; one row for each mode."""
    settings, failed, ready, calls, forms = options.settings, {}, [], {}, {}
    wanted = {"case": case.name, "dtype": dtype, "reference": folder, "bound": relative}
    for name, answer in ask_all(peers, op="prepare", **wanted).items():
        if "error" in answer:
            failed[name] = answer["error"]
        elif answer["applies"]:
            ready.append(next(peer for peer in peers if peer.name == name))
    for peer in ready:
        answer = peer.ask(op="choose")
        if "error" in answer:
            failed[peer.name] = answer["error"]
            continue
        calls[peer.name], forms[peer.name] = answer["estimate"], answer["form"]
    ready = [peer for peer in ready if peer.name in calls]
    weights, streams = case.traffic(dtype)
    row = {"case": case.name, "kind": case.kind, "reason": case.reason, "dtype": dtype}
    row |= {"batch": case.batch, "threads": peers[0].threads, "sizes": case.sizes}
    row |= {"flops": case.flops, "weights": weights, "streams": streams, "failed": failed}
    for mode in options.modes:
        if mode not in case.modes(dtype):
            continue
        if mode == "busy":
            with Neighbours():
                timed = take(ready, calls, mode, settings)
        else:
            timed = take(ready, calls, mode, settings)
        for name, entry in timed.items():
            entry["form"] = forms[name]
        yield row | {"mode": mode, "peers": timed} | report.ratio(timed)
    ask_all(peers, op="drop")


# A rough model of a call, only to tell how long a run will take: seconds for the call itself, the
# mean peer's time over that of the FMAs, seconds for a number that an activation reads or writes.
CALL, FACTOR, ELEMENT = (
    8e-6,
    {"network": 1.5, "column": 1.5, "matmul": 1.2, "linear": 1.2},
    1.2e-9,
)
BUILD, BYTE = 0.2, 3.5e-9  # seconds to prepare all peers, and each one for a byte of weights


def expected(case, dtype: str, limits: dict, peers: int, options) -> float:
    """Seconds that the case will take about, with these limits of as many threads."""
    peers -= dtype == "float64"  # OpenVINO
    weights, streams = case.traffic(dtype)
    elements = streams / (4 if dtype == "float32" else 8)
    peak = limits["flops"][dtype] if limits else 5e10
    call = CALL + FACTOR.get(case.kind, 0) * case.flops / peak + weights / 3e10
    if case.kind == "activation":
        call += ELEMENT * elements
    elif ":" in case.name and case.kind == "network":
        call += ELEMENT * case.batch * sum(case.sizes[1:])
    modes = [mode for mode in options.modes if mode in case.modes(dtype)]
    once = sum(options.settings.cost(mode, call, call) for mode in modes)
    checks = 2.5 * call + 4e-9 * elements + BYTE * weights
    return peers * (once + checks) + BUILD + 0.3 * ("busy" in modes)
