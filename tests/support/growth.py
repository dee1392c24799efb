"""How work and memory grow with an input, counted: no clock is asked."""

from __future__ import annotations

import sys
import tracemalloc
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import fastlayer as fl

if TYPE_CHECKING:
    from collections.abc import Callable

REFUSED = (fl.ModelFileError, fl.ConversionError)


def calls(run: Callable[[], object]) -> int:
    """Return how many functions are called, those written in C among them."""
    count = 0

    def tick(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(tick)
    try:
        with suppress(*REFUSED):
            run()
    finally:
        sys.setprofile(None)
    return count


def peak(run: Callable[[], object]) -> int:
    """Return how many bytes are taken at once, at most."""
    tracemalloc.start()
    try:
        with suppress(*REFUSED):
            run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def assert_no_faster(
    cost: Callable[[Callable[[], object]], int], runs: list[Callable[[], object]], spare: int
) -> None:
    """Assert that a cost grows no faster than the input, but for what a reader takes in any case.

    `runs` are for inputs of 1, 2 and 4 times a size: from the first step to the second, what is
    as fast doubles, and what is quadratic is fourfold.
    """
    with suppress(*REFUSED):
        runs[0]()  # what is imported and compiled once
    small, middle, large = (max(cost(run), spare) for run in runs)
    assert large - middle <= 2.5 * (middle - small) + spare, (small, middle, large)
