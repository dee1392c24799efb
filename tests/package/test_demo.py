"""The command line: the demo as a user runs it, in a process of its own. No clock is asserted."""

from __future__ import annotations

import importlib.resources
import os
import re
import subprocess
import sys
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from fastlayer.cli import timing
from fastlayer.cli.main import main

INK = {"utf-8": "\u2588", "ascii": "@"}


def run(*args: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    quiet = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "fastlayer", *args],
        capture_output=True,
        check=False,
        env={**quiet, **env},
        timeout=60,
    )


def demo(encoding: str, **env: str) -> str:
    done = run("demo", PYTHONIOENCODING=encoding, **env)
    assert done.stderr == b""
    assert done.returncode == 0
    return done.stdout.decode(encoding)


@pytest.fixture(scope="module")
def data() -> Mapping[str, NDArray[np.generic]]:
    path = importlib.resources.files("fastlayer") / "data" / "digits.npz"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def read(data: Mapping[str, NDArray[np.generic]]) -> NDArray[np.intp]:
    """What the network reads, in float64 NumPy."""
    x = data["images"].reshape(-1, 64).astype(np.float64)
    for i in range(2):
        x = np.maximum(x @ data[f"weight{i}"].T + data[f"bias{i}"], 0)
    return (x @ data["weight2"].T + data["bias2"]).argmax(axis=1)


@pytest.mark.parametrize(
    ("encoding", "slowed"),
    [("utf-8", []), ("ascii", ["OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"])],
    ids=["utf-8", "ascii"],
)
def test_demo_shows_pictures_answers_accuracy_and_times(encoding, slowed, data, read) -> None:
    text = demo(encoding, **dict(zip(slowed, ("Haswell", "512"), strict=False)))
    labels = data["labels"]
    right = int((read == labels).sum())
    assert f"{right} of 360 test images read right, {100 * right / 360:.1f} %" in text

    shown = [int(d) for d in re.findall(r"reads (\d), +\d+\.\d %", text)]
    wrong = int(np.flatnonzero(read != labels)[0])
    expected = [*range(7), wrong if wrong >= 8 else 7]
    assert shown == [int(read[i]) for i in expected]
    assert f"wrong: it is {labels[wrong]}" in text

    assert text.count(INK[encoding] * 2) > 50
    assert re.search(r"one image a call +[\d.]+ us +[\d.]+ us +(?:[\d.]+x|busy)\n", text)
    assert re.search(r"360 images a call +[\d.]+ us +[\d.]+ us +(?:[\d.]+x|busy)\n", text)
    assert max(map(len, text.splitlines())) <= 80
    assert not [line for line in text.splitlines() if line != line.rstrip()]
    assert (f"slows NumPy down: {', '.join(slowed)}." in text) == bool(slowed)


def test_shipped_digits_are_documented(data, read) -> None:
    assert data["images"].shape == (360, 8, 8)
    assert data["images"].dtype == data["labels"].dtype == np.uint8
    assert data["images"].max() == 16
    assert (read == data["labels"]).mean() >= 0.97
    metadata = str(data["metadata"])
    for word in ("Alpaydin", "CC BY 4.0", "scikit-learn", "seed", "train_digits.py"):
        assert word in metadata


def test_info_prints_the_configuration() -> None:
    done = run("info")
    assert done.returncode == 0
    assert done.stderr == b""
    assert b"0.1.0" in done.stdout


@pytest.mark.parametrize("args", [["nosuch"], [], ["demo", "extra"]])
def test_wrong_usage_is_status_2_with_usage(args) -> None:
    done = run(*args)
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.startswith(b"usage: python -m fastlayer")


def test_a_reader_that_does_not_read_is_no_error() -> None:
    command = f'"{sys.executable}" -m fastlayer info | true'
    done = subprocess.run(command, shell=True, capture_output=True, check=True, timeout=60)
    assert done.stderr == b""


class Clock:
    """Time that passes while a forward pass runs, and at no other time."""

    def __init__(self, seconds: float) -> None:
        self.now, self.seconds = 100.0, seconds

    def perf_counter(self) -> float:
        return self.now

    def forward(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        self.now += self.seconds
        return x


def test_nothing_is_timed_that_gives_other_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastlayer.cli.demo.numpy_forward", lambda net: lambda x: net(x) + 1)
    with pytest.raises(RuntimeError, match=r"NumPy disagree by 1\.0e\+00; nothing was timed"):
        main(["demo"])


def test_a_turn_gives_seconds_per_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(0.5)
    monkeypatch.setattr(timing, "time", clock)
    assert timing._turn(clock.forward, np.ones(3, np.float32), 1.0, 4) == 0.5
    assert clock.now == 100.0 + 2 * 0.5 + 4 * 0.5  # two calls until it has settled


@pytest.mark.parametrize(("seconds", "steady"), [(1e-3, True), (0.5, False)])
def test_a_race_ends_early_where_turns_take_long(
    monkeypatch: pytest.MonkeyPatch, seconds: float, steady: bool
) -> None:
    clock = Clock(seconds)
    monkeypatch.setattr(timing, "time", clock)
    x = np.ones((1, 3), np.float32)
    medians, found = timing.race([clock.forward, clock.forward], x)
    assert medians == pytest.approx([seconds, seconds])
    assert found is steady
