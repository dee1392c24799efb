"""Random weights for new layers. Each function takes a generator and the shape (n, k)."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.arrays import as_real

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from fastlayer.arrays import Array

    Initializer: TypeAlias = Callable[[np.random.Generator, tuple[int, int]], Any]


def he_normal(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Normal with standard deviation ``sqrt(2 / k)``, for relu (He et al., 2015)."""
    return rng.standard_normal(shape) * sqrt(2 / shape[1])


def xavier_uniform(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Uniform within ``+- sqrt(6 / (n + k))``, for tanh and sigmoid (Glorot & Bengio, 2010)."""
    limit = sqrt(6 / (shape[0] + shape[1]))
    return rng.uniform(-limit, limit, shape)


def lecun_normal(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Normal with standard deviation ``sqrt(1 / k)``, for selu (LeCun et al., 1998)."""
    return rng.standard_normal(shape) * sqrt(1 / shape[1])


def normal(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Normal with standard deviation ``1 / (n * k)``, the columns tutorial's."""
    return rng.normal(0, 1 / (shape[0] * shape[1]), shape)


def zeros(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """All zeros; `rng` is left alone."""
    return np.zeros(shape)


INITIALIZERS: dict[str, Initializer] = {
    f.__name__: f for f in (he_normal, xavier_uniform, lecun_normal, normal, zeros)
}


def initialize(
    init: str | Initializer, rng: int | np.random.Generator | None, shape: tuple[int, int]
) -> Array:
    """Return weights of this shape in whatever real dtype the initializer gives.

    Raises
    ------
    ValueError
        An unknown name, or a callable that returns another shape.
    """
    if isinstance(init, str):
        if init not in INITIALIZERS:
            raise ValueError(
                f"unknown init {init!r}; known: {', '.join(INITIALIZERS)}, or a callable "
                "(rng, shape) -> array"
            )
        init = INITIALIZERS[init]
    elif not callable(init):
        raise TypeError(f"init must be a name or a callable (rng, shape) -> array, got {init!r}")
    weight = as_real(init(np.random.default_rng(rng), shape), "the result of init")
    if weight.shape != shape:
        raise ValueError(f"init returned shape {weight.shape}, expected {shape}")
    return weight
