"""The turns that the peers take at one case: how many, how long, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass

import errors
import numpy as np
import report
from processes import Neighbours, Peer, ask_all
from quiet import Quiet

LONG = 0.02  # seconds: such calls are timed one a turn, in three turns
ONCE = 0.5  # seconds: nothing to warm up, two turns
SLOW = 2.5  # times the fastest peer's: takes part in two turns only, for the table
MOST = 1e30  # ULP: JSON has no infinity
FAR = 10  # the same after a rest or beside neighbours, where all come closer to each other


def rest_of(mode: str) -> float:
    """Seconds of sleep before each call; 0 where calls follow each other."""
    return float(mode.removeprefix("idle")) / 1000 if mode.startswith("idle") else 0.0


@dataclass(frozen=True)
class Settings:
    """How much is measured. Kept in the results; a run can only be resumed with the same."""

    rounds: int = 5  # turns of each peer where a call of the fastest takes less than LONG
    seconds: float = 0.015  # of a hot turn
    busy_seconds: float = 0.1  # the scheduler's periods are some milliseconds
    idle_calls: int = 10  # in a turn after 20 ms of rest; fewer after more

    def rounds_of(self, mode: str, call: float, quickest: float) -> int:
        slow = call > (SLOW if mode == "hot" else FAR) * quickest or call > ONCE
        return min(self.rounds, 2 if slow else 3 if quickest > LONG else self.rounds)

    def turn(self, mode: str, call: float) -> dict:
        """What the worker is asked for, given the time of a call."""
        seconds = self.busy_seconds if mode == "busy" else self.seconds
        room = self.idle_calls * 0.025  # seconds
        idle = min(2 * self.idle_calls, max(3, int(room / (rest_of(mode) + call))))
        if call > LONG:
            return {"warm": 0.0 if call < ONCE else None, "seconds": 0.0, "least": 1, "most": idle}
        return {"warm": seconds / 4, "seconds": seconds, "least": 3, "most": idle}

    def cost(self, mode: str, call: float, quickest: float) -> float:
        """Seconds of all turns of one peer."""
        turn = self.turn(mode, call)
        warm = 0.0 if turn["warm"] is None else max(turn["warm"], call)
        work = max(turn["seconds"], turn["least"] * call)
        if rest_of(mode):
            work = turn["most"] * (rest_of(mode) + call)
        if mode == "busy":
            warm, work = warm + call, work + call * turn["least"]
        return self.rounds_of(mode, call, quickest) * (warm + work)


def take(peers: list[Peer], calls: dict[str, float], mode: str, settings: Settings) -> dict:
    """A B C, A B C, ...: for each peer what its turns took."""
    others = [v for k, v in calls.items() if not k.startswith("fastlayer")]
    quickest = min(others or calls.values(), default=0.0)
    found: dict[str, dict] = {peer.name: {"p50": [], "all": []} for peer in peers}
    for turn in range(settings.rounds):
        for peer in peers:
            entry, call = found[peer.name], calls[peer.name]
            if peer.name.startswith("fastlayer"):
                call = min(call, quickest)  # ours stay to the end, however slow
            few = settings.rounds_of(mode, call, quickest)
            if "error" in entry or not len(entry["p50"]) <= turn < few:
                continue
            answer = peer.ask(op="turn", mode=mode, **settings.turn(mode, calls[peer.name]))
            if "error" in answer:
                entry["error"] = answer["error"]
                continue
            entry["p50"].append(float(np.median(answer["times"])))
            entry["all"] += answer["times"]
    for entry in found.values():
        times = entry.pop("all")
        if "error" not in entry:
            entry["time"] = float(np.median(entry["p50"]))
            entry["p99"] = float(np.quantile(times, 0.99))
    return found


def judge(peers: list[Peer], case, dtype: str, folder: str, relative: float) -> dict[str, float]:
    """The errors of an activation in ULP, of each peer that has it."""
    wanted = {"case": case.name, "dtype": dtype, "reference": folder, "bound": relative}
    found = ask_all(peers, op="prepare", **wanted)
    ask_all(peers, op="drop")
    return {name: _ulp(answer) for name, answer in found.items() if "ulp" in answer}


def _ulp(answer: dict) -> float:
    return float(f"{min(answer['ulp'], MOST):.3g}")


def rows(
    peers: list[Peer],
    case,
    dtype: str,
    folder: str,
    relative: float,
    ulps: dict[str, float],
    options,
    quiet: Quiet,
):
    """Check all peers, then time those that compute the case; one (row, forms) for each mode.

    `ulps` has the errors of a network's activation, where they are judged.
    """
    failed, ready, calls, forms, ulps = {}, [], {}, {}, dict(ulps)
    wanted = {"case": case.name, "dtype": dtype, "reference": folder, "bound": relative}
    for name, answer in ask_all(peers, op="prepare", **wanted).items():
        if "error" in answer:
            failed[name] = answer["error"]
        elif answer["applies"]:
            ready.append(next(peer for peer in peers if peer.name == name))
            if "ulp" in answer:
                ulps[name] = _ulp(answer)
    for peer in ready:
        answer = peer.ask(op="choose")
        if "error" in answer:
            failed[peer.name] = answer["error"]
            continue
        calls[peer.name], forms[peer.name] = answer["estimate"], answer["form"]
    ready = [peer for peer in ready if peer.name in calls]
    row = {"case": case.name, "dtype": dtype, "threads": peers[0].threads}
    row |= {"ulp": ulps} if ulps else {}
    apart = errors.loose(row, case.hidden, case.width) if ulps else set()
    for mode in options.modes:
        if mode not in case.modes(dtype):
            continue

        def measure(mode=mode):
            if mode == "busy":
                with Neighbours():
                    return take(ready, calls, mode, options.settings)
            return take(ready, calls, mode, options.settings)

        timed, load, again = quiet.measure(measure)
        found = row | {"mode": mode} | report.ratios(timed, apart, mode)
        if failed or "failed" in found:
            found["failed"] = failed | found.get("failed", {})
        found |= {"load": round(load.share, 3)} | ({"again": again} if again else {})
        if load.disturbing:
            found["disturbed"] = True
        yield found, forms
    ask_all(peers, op="drop")


# A rough model of a call, only to tell how long a run will take: seconds for the call itself, the
# mean peer's time over that of the FMAs, seconds for a number that an activation reads or writes.
CALL, ELEMENT = 8e-6, 1.2e-9
FACTOR = {"network": 1.5, "column": 1.5, "accelerate": 1.5, "train": 3.0}
FACTOR |= {"matmul": 1.2, "linear": 1.2}
BUILD, BYTE = 0.5, 3.5e-9  # seconds to prepare all peers, and each one for a byte of weights
COMPILE = 6.0  # seconds that PyTorch compiles a network, before the cache has it
LOAD = 3e-3  # seconds to load a model


def expected(case, dtype: str, limits: dict, peers: int, options) -> float:
    """Seconds that the case will take about, with these limits of as many threads."""
    peers -= 3 * (dtype == "float64")  # OpenVINO, LiteRT, MNN
    if case.kind in ("load", "accelerate", "column"):
        peers = min(peers, 4)
    weights, streams = case.traffic(dtype)
    elements = streams / (4 if dtype == "float32" else 8)
    peak = limits["flops"][dtype] if limits else 5e10
    call = CALL + FACTOR.get(case.kind, 0) * case.flops / peak + weights / 3e10
    if case.kind == "activation":
        call += ELEMENT * elements
    elif case.kind == "load":
        call = LOAD
    elif ":" in case.name and case.kind == "network":
        call += ELEMENT * case.batch * sum(case.sizes[1:])
    modes = [mode for mode in options.modes if mode in case.modes(dtype)]
    once = sum(options.settings.cost(mode, call, call) for mode in modes)
    checks = 2.5 * call + 4e-9 * elements + BYTE * weights
    compiled = COMPILE * (case.kind in ("network", "train") and dtype == "float32")
    return peers * (once + checks) + BUILD + compiled + 0.3 * ("busy" in modes)
