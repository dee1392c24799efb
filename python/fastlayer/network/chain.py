"""Parts in a row: what `Network` and `Residual` accept, and whether neighbours fit each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from fastlayer.arrays import FLOAT64, as_real
from fastlayer.functions.activation import Activation, describe, resolve_rowwise
from fastlayer.network.module import Module
from fastlayer.run.compile import Call, Flat, lower_activation
from fastlayer.run.steps import flatten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import ArrayLike

    from fastlayer.arrays import Array, DType
    from fastlayer.run.compile import Op


class Flatten:
    """Make each sample one row: ``x.reshape(len(x), -1)``, as PyTorch's ``nn.Flatten()``.

    An array of one or two dimensions passes unchanged. The values follow in C order.

    Examples
    --------
    >>> import fastlayer as fl
    >>> import numpy as np
    >>> fl.Flatten()(np.zeros((5, 28, 28))).shape
    (5, 784)
    """

    def __call__(self, x: ArrayLike) -> Array:
        """Return a view of `x` where that is possible, else a copy; the dtype stays.

        Parameters
        ----------
        x : array_like
            Shape (m, ...), any real dtype. One dimension or none passes unchanged.

        Returns
        -------
        ndarray
            Shape (m, n), n the product of all dimensions but the first.

        Raises
        ------
        TypeError
            Complex, masked or non-numeric `x`.

        Examples
        --------
        >>> import fastlayer as fl
        >>> fl.Flatten()([[[1, 2], [3, 4]]])
        array([[1, 2, 3, 4]])
        """
        return flatten(as_real(x))

    def __repr__(self) -> str:
        return "Flatten()"


Part: TypeAlias = "Module | Flatten | Activation | Callable[..., Any]"


def as_parts(items: Iterable[Any], what: str) -> tuple[Part, ...]:
    """Resolve names and functions among the layers of a network."""
    if isinstance(items, str) or not hasattr(items, "__iter__"):
        raise TypeError(f"{what} takes a list of layers, got {items!r}")
    parts: list[Part] = []
    for i, item in enumerate(items):
        if isinstance(item, Module | Flatten):
            parts.append(item)
        elif isinstance(item, type):
            raise TypeError(
                f"{what}: layer {i} is the class {item.__name__}; give an object, "
                f"{item.__name__}(...)"
            )
        elif item is None:
            raise TypeError(f"{what}: layer {i} is None")
        else:
            parts.append(resolve_rowwise(item))
    if not parts:
        raise ValueError(f"{what} needs at least one layer")
    return tuple(parts)


def title(part: Part) -> str:
    """Return a short name of a part for tables and messages."""
    if isinstance(part, Module):
        return part._title()
    return repr(part) if isinstance(part, Flatten) else describe(part)


class Chain(NamedTuple):
    """What is known of parts in a row; None is unknown or any."""

    takes: int | None  # features of the last axis that must come in
    in_features: int | None  # the same, with a Flatten in front seen through
    out_features: int | None
    dtype: DType | None
    keeps: bool  # the features pass through unchanged


def _features(part: Part) -> Chain:
    if isinstance(part, Module):
        dtype = part.dtype if part._typed else None
        return Chain(part._takes, part.in_features, part.out_features, dtype, part._keeps_features)
    if isinstance(part, Activation):
        slopes = part.parameters.get("weight")
        n = None if slopes is None or slopes.size == 1 else int(slopes.size)
        return Chain(n, n, n, None, True)
    return Chain(None, None, None, None, False)


def check_chain(parts: tuple[Part, ...], what: str) -> Chain:
    """Return what the whole chain takes and gives.

    Raises
    ------
    ValueError
        Neighbours that don't fit, or parts of different dtypes; the message names both.
    """
    takes = in_features = width = dtype = None
    keeps, seen_through = True, True
    giver = typed = 0
    for i, part in enumerate(parts):
        own = _features(part)
        if own.takes is not None and width is not None and own.takes != width:
            raise ValueError(
                f"{what}: layer {i} {title(part)} takes {own.takes} features, but layer {giver} "
                f"{title(parts[giver])} gives {width}"
            )
        if own.dtype is not None and dtype is not None and own.dtype != dtype:
            raise ValueError(
                f"{what}: layer {i} {title(part)} is {own.dtype}, but layer {typed} "
                f"{title(parts[typed])} is {dtype}; a network has one dtype"
            )
        if dtype is None and own.dtype is not None:
            dtype, typed = own.dtype, i
        if keeps and takes is None:
            takes = own.takes
        if seen_through and in_features is None:
            in_features = own.in_features
        if own.out_features is not None or not own.keeps:
            width, giver = own.out_features, i
        keeps = keeps and own.keeps
        seen_through = keeps or isinstance(part, Flatten)
    return Chain(takes, in_features, width, dtype, keeps)


def lower_parts(parts: tuple[Part, ...], dtype: DType) -> list[Op]:
    """Return the operations of all parts in order."""
    ops: list[Op] = []
    for part in parts:
        if isinstance(part, Module):
            ops += part._lower(dtype)
        elif isinstance(part, Flatten):
            ops.append(Flat())
        elif isinstance(part, Activation):
            ops += lower_activation(part, dtype)
        else:
            ops.append(Call(part, keeps_shape=False))
    return ops


class Parts(Module):
    """Base of what is made of parts in a row."""

    _parts: tuple[Part, ...]
    _chain: Chain

    def _hold(self, parts: tuple[Part, ...], dtype: DType | None = None) -> None:
        """Check and keep the parts; `dtype` is for parts that bring none of their own.

        Those compute in float64 by default, which holds any input.
        """
        self._chain = check_chain(parts, type(self).__name__)
        self._parts = parts
        self._typed = self._chain.dtype is not None
        self._keeps_features = self._chain.keeps
        self._dtype = self._chain.dtype or dtype or FLOAT64

    def __getstate__(self) -> dict[str, Any]:
        return {"layers": self._parts, "dtype": self._dtype}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._hold(state["layers"], state["dtype"])

    @property
    def layers(self) -> tuple[Part, ...]:
        """The parts in order."""
        return self._parts

    @property
    def in_features(self) -> int | None:
        """Number of features that it takes; behind a Flatten in front, None for any."""
        return self._chain.in_features

    @property
    def out_features(self) -> int | None:
        """Number of features that it gives, None where that depends on the input."""
        known = self._chain.out_features
        return self.in_features if known is None and self._chain.keeps else known

    @property
    def _takes(self) -> int | None:
        return self._chain.takes

    @property
    def num_parameters(self) -> int:
        """Number of trained parameters of all parts."""
        return sum(parameters_of(part) for part in self._parts)

    def flops(self, batch: int = 1) -> int:
        """Return the floating-point operations of the matrix products for `batch` rows.

        A product and a sum count as two: ``2 * batch * n * k`` for each dense layer. Biases,
        activations and norms are not counted.

        Parameters
        ----------
        batch : int
            Number of rows.

        Returns
        -------
        int
            Number of operations.

        Examples
        --------
        >>> import fastlayer as fl
        >>> fl.Network([fl.Layer(4, 8), fl.Layer(8, 3)]).flops(batch=10)
        1120
        """
        return sum(part.flops(batch) for part in self._parts if isinstance(part, Module))

    def _parts_astype(self, dtype: DType) -> list[Part]:
        return [p._astype(dtype) if isinstance(p, Module) else p for p in self._parts]


def parameters_of(part: Part) -> int:
    """Return the number of trained parameters of a part."""
    if isinstance(part, Module):
        return part.num_parameters
    return part.num_parameters if isinstance(part, Activation) else 0
