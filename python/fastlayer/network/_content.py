"""What a network holds at one moment: a snapshot that later updates leave alone, and a token of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from fastlayer.functions.activation import Activation
from fastlayer.network._weights import Weights
from fastlayer.network.chain import Flatten, Parts
from fastlayer.network.module import Module
from fastlayer.network.norms import _Norm

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastlayer.arrays import Array
    from fastlayer.network._layer_state import State

T = TypeVar("T")


def snapshot(part: T) -> T:
    """Return the same layers with the weights that they have now; no weight is copied."""
    if not isinstance(part, Weights | Parts):
        return part  # nothing of it changes
    held = part._uncompiled()
    if isinstance(part, Parts):
        held["_parts"] = tuple(snapshot(p) for p in part.layers)
    same = type(part).__new__(type(part))
    same.__dict__.update(held)
    return same


def token_of(part: Any) -> Any:
    """Return nested tuples that are equal where type, structure and weights are equal.

    Bytes of weights are hashed once. A Python function stays as it is, for dask to look at.
    """
    kind = f"{type(part).__module__}.{type(part).__qualname__}"
    if isinstance(part, Parts):
        return (kind, str(part.dtype), *(token_of(p) for p in part.layers))
    if isinstance(part, Weights):
        return (kind, _state_digest(part._state), token_of(part.activation))
    if isinstance(part, _Norm):
        return (kind, part.in_features, part.eps, str(part.dtype), _norm_digest(part))
    if isinstance(part, Activation):
        return (kind, part._key)
    return kind if isinstance(part, Flatten) else part


def is_rowwise(part: Any) -> bool:
    """Whether it maps the last axis to a last axis and leaves all others as they are."""
    if isinstance(part, Parts):
        return all(is_rowwise(p) for p in part.layers)
    return isinstance(part, Module | Activation)


def _state_digest(state: State) -> str:
    if state.digest is None:
        state.digest = _digest([state.packed.weight(), state.packed.bias()])
    return state.digest


def _norm_digest(norm: _Norm) -> str:
    if norm._digest is None:
        norm._digest = _digest(norm._arrays.values())
    return norm._digest


def _digest(arrays: Iterable[Array | None]) -> str:
    from hashlib import blake2b

    found = blake2b(digest_size=16)
    for a in arrays:
        # What describes an array has no fixed length, so it ends in a byte that it can't contain.
        found.update(b"none\0" if a is None else f"{a.dtype.str}{a.shape}\0".encode())
        if a is not None:
            found.update(np.ascontiguousarray(a).view(np.uint8).data)
    return found.hexdigest()
