"""`Schedule`: how the learning rate goes over a training run."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from fastlayer import _core
from fastlayer.functions.calls import number

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.names import ScheduleName

    ScheduleLike: TypeAlias = (
        "ScheduleName | Literal['warmup'] | Schedule | Callable[[float], float] | None"
    )

_KINDS: dict[str, dict[str, float]] = {
    "constant": {},
    "step": {"every": 0.25, "factor": 0.1},
    "cosine": {"final": 0.0},
    "one_cycle": {"warmup": 0.3, "initial": 0.04, "final": 4e-6},
}


def _half_cosine(fraction: float) -> float:
    """From 1 to 0 along half a wave, by a kernel of our own: the C library's differ."""
    wave = _core.activation("cos", np.array([math.pi * fraction]), 0.0, 0.0, None)
    assert wave is not None
    return 0.5 * (1.0 + float(wave[0]))


class Schedule:
    """How the learning rate goes over a run: its factor at a fraction of all steps.

    Parameters
    ----------
    name : str
        ``"constant"``; ``"step"``, times `factor` after each `every` of the run; ``"cosine"``, from 1
        to `final` along half a wave (Loshchilov & Hutter, 2017); ``"one_cycle"``, from `initial` to 1
        during `warmup`, then to `final`, both along half a wave (Smith & Topin, 2019).
    **parameters
        ``every=0.25, factor=0.1`` of step; ``final=0`` of cosine; ``warmup=0.3, initial=0.04,
        final=4e-6`` of one_cycle; and of all others ``warmup=0``: the fraction of the run during which
        the rate rises in a line.

    Raises
    ------
    ValueError
        An unknown name, a number out of its range.
    TypeError
        A parameter that it doesn't have.

    Examples
    --------
    >>> import fastlayer as fl
    >>> cosine = fl.Schedule("cosine")
    >>> [round(cosine(fraction), 2) for fraction in (0.0, 0.25, 0.5, 0.75)]
    [1.0, 0.85, 0.5, 0.15]
    >>> fl.Schedule("step", every=0.5)(0.75)
    0.1
    """

    __slots__ = ("_name", "_parameters")
    _name: ScheduleName
    _parameters: dict[str, float]

    def __init__(self, name: ScheduleName, **parameters: float) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name must be a string, got {name!r}")
        if name not in _KINDS:
            raise ValueError(f"unknown schedule {name!r}; known: {', '.join(_KINDS)}")
        chosen = {"warmup": 0.0, **_KINDS[name]}
        for key, value in parameters.items():
            if key not in chosen:
                raise TypeError(
                    f"schedule {name!r} has no parameter {key!r}; it takes {', '.join(chosen)}"
                )
            chosen[key] = number(key, value)
        for key, value in chosen.items():
            least = 1e-9 if key == "every" else 0.0
            if not least <= value <= 1:
                raise ValueError(f"{key} must be from 0 to 1, got {value}")
        put = object.__setattr__
        put(self, "_name", name)
        put(self, "_parameters", chosen)

    @property
    def name(self) -> ScheduleName:
        """Name of the schedule."""
        return self._name

    @property
    def parameters(self) -> dict[str, float]:
        """The parameters by name, defaults included."""
        return dict(self._parameters)

    def __call__(self, fraction: float) -> float:
        """Return the factor of the learning rate.

        Parameters
        ----------
        fraction : float
            How much of the run is behind, from 0 to less than 1.

        Returns
        -------
        float
            What the learning rate is multiplied by.

        Examples
        --------
        >>> import fastlayer as fl
        >>> fl.Schedule("constant", warmup=0.5)(0.25)
        0.5
        """
        p = self._parameters
        warmup = p["warmup"]
        if fraction < warmup:
            if self._name == "one_cycle":
                return p["initial"] + (1.0 - p["initial"]) * (1.0 - _half_cosine(fraction / warmup))
            return fraction / warmup
        behind = (fraction - warmup) / (1.0 - warmup) if warmup < 1 else 1.0
        if self._name == "step":
            factor = 1.0
            for _ in range(int(behind / p["every"])):  # powers of the C library differ
                factor *= p["factor"]
            return factor
        if self._name == "constant":
            return 1.0
        return p["final"] + (1.0 - p["final"]) * _half_cosine(behind)

    def __repr__(self) -> str:
        defaults = {"warmup": 0.0, **_KINDS[self._name]}
        chosen = (f", {k}={v}" for k, v in self._parameters.items() if v != defaults[k])
        return f"Schedule({self._name!r}{''.join(chosen)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Schedule can't be changed; make another one")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a Schedule can't be changed; make another one")

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Schedule, self._name, **self._parameters), ()


def as_schedule(schedule: ScheduleLike) -> Callable[[float], float]:
    """Return a schedule given by name, as an object or as a callable."""
    if schedule is None:
        return Schedule("constant")
    if isinstance(schedule, str):
        return Schedule("constant", warmup=0.1) if schedule == "warmup" else Schedule(schedule)
    if not callable(schedule):
        raise TypeError(
            "schedule must be a name, an fl.Schedule or a callable from the fraction of the run to "
            f"a factor, got {type(schedule).__name__}"
        )
    return schedule
