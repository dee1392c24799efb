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
    from fastlayer.names import InitializerName

    Initializer: TypeAlias = Callable[[np.random.Generator, tuple[int, int]], Any]


INITIALIZERS: dict[str, Initializer] = {
    # for relu (He et al., 2015)
    "he_normal": lambda rng, shape: rng.standard_normal(shape) * sqrt(2 / shape[1]),
    # for tanh and sigmoid (Glorot & Bengio, 2010)
    "xavier_uniform": lambda rng, shape: _uniform(rng, sqrt(6 / sum(shape)), shape),
    # for selu (LeCun et al., 1998)
    "lecun_normal": lambda rng, shape: rng.standard_normal(shape) * sqrt(1 / shape[1]),
    # the columns tutorial's
    "normal": lambda rng, shape: rng.normal(0, 1 / (shape[0] * shape[1]), shape),
    "zeros": lambda rng, shape: np.zeros(shape),
}


def _uniform(rng: np.random.Generator, limit: float, shape: tuple[int, int]) -> Array:
    return rng.uniform(-limit, limit, shape)


def initialize(
    init: InitializerName | Initializer,
    rng: int | np.random.Generator | None,
    shape: tuple[int, int],
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
