"""`Layer`: a dense layer whose weights are packed once for the kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

import numpy as np

from fastlayer.arrays import as_real, cast, float_dtype, promote
from fastlayer.functions.activation import IDENTITY, Activation, describe
from fastlayer.network._layer_state import as_bias, count, make_state
from fastlayer.network._preactivation import forward_with_sums
from fastlayer.network._weights import Weights
from fastlayer.network.initializers import initialize
from fastlayer.run.compile import Dense, lower_activation

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

    from fastlayer.arrays import Array, DType
    from fastlayer.functions.activation import ActivationLike
    from fastlayer.network.initializers import Initializer
    from fastlayer.run.compile import Op


class Layer(Weights):
    """Dense layer: ``activation(x @ weight.T + bias)``.

    Parameters
    ----------
    in_features, out_features : int
        Number of inputs (k) and of neurons (n), at least 1.
    activation : str, Activation, function or callable, optional
        See `Activation`. A callable that isn't fastlayer's sees an array whose last axis is the
        features, and returns one of the same shape.
    bias : bool
        Whether there is a bias; it starts at zero.
    init : str or callable
        "he_normal" (standard deviation ``sqrt(2/k)``; He et al., 2015), "xavier_uniform" (within
        ``+- sqrt(6/(n+k))``; Glorot & Bengio, 2010), "lecun_normal" (standard deviation
        ``sqrt(1/k)``; LeCun et al., 1998), "normal" (standard deviation ``1/(n*k)``), "zeros", or
        ``(rng, shape) -> array``.
    rng : int or numpy.random.Generator, optional
        Seed; the same seed gives the same layer.
    dtype : dtype
        What it computes in and returns: float32 or float64.

    Raises
    ------
    ValueError
        Sizes that are not positive, an unknown `init` or `activation`.
    TypeError
        Another dtype.

    See Also
    --------
    Layer.from_arrays : Make a layer from trained weights.

    Examples
    --------
    >>> import fastlayer as fl
    >>> layer = fl.Layer(784, 128, "relu", rng=0)
    >>> layer
    Layer(784, 128, activation='relu', dtype=float32)
    >>> import numpy as np
    >>> layer(np.ones((5, 784))).shape
    (5, 128)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: ActivationLike = None,
        *,
        bias: bool = True,
        init: str | Initializer = "he_normal",
        rng: int | np.random.Generator | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        shape = (count("out_features", out_features), count("in_features", in_features))
        self._dtype = float_dtype(dtype)
        weight = cast(initialize(init, rng, shape), self._dtype)
        zeros = np.zeros(shape[0], self._dtype) if bias else None
        self._state = make_state(weight, zeros, activation)

    @classmethod
    def from_arrays(
        cls,
        weight: ArrayLike,
        bias: ArrayLike | None = None,
        activation: ActivationLike = None,
        *,
        layout: str = "out_in",
        dtype: DTypeLike | None = None,
    ) -> Layer:
        """Make a layer from weights; the arrays are copied.

        Parameters
        ----------
        weight : array_like
            Shape (n, k), or (k, n) with ``layout="in_out"``.
        bias : array_like, optional
            Shape (n,), (1, n) or (n, 1).
        activation : str, Activation, function or callable, optional
            See `Layer`.
        layout : {"out_in", "in_out"}
            Which axis of `weight` is which; never guessed from shapes.
        dtype : dtype, optional
            By default that of the arrays: integers become float64, float16 becomes float32. Else
            float32 or float64.

        Returns
        -------
        Layer
            Its weights are copies, in `dtype`.

        Raises
        ------
        ValueError
            Shapes that don't fit, an unknown `layout`.
        TypeError
            Complex, masked or non-numeric arrays, another dtype.

        Examples
        --------
        >>> import fastlayer as fl
        >>> layer = fl.Layer.from_arrays([[1.0, 1.0], [1.0, -1.0]], [0.5, 0.0], "relu")
        >>> layer([1.0, 2.0])
        array([3.5, 0. ])
        """
        w = as_real(weight, "weight")
        if w.ndim != 2:
            raise ValueError(f"weight must have 2 dimensions, got shape {w.shape}")
        if layout not in ("out_in", "in_out"):
            raise ValueError(
                f"layout must be 'out_in' for (n, k) or 'in_out' for (k, n), got {layout!r}"
            )
        w = w if layout == "out_in" else w.T
        b = None if bias is None else as_bias(bias, w.shape[0])
        if dtype is None:
            # A bias that is not an array takes the dtype of the weight.
            given = [w, b] if b is not None and isinstance(bias, np.ndarray) else [w]
            wanted = promote(*(a.dtype for a in given))[0]
        else:
            wanted = float_dtype(dtype)
        layer = cls.__new__(cls)
        layer._dtype = wanted
        layer._state = make_state(
            cast(w, wanted), None if b is None else cast(b, wanted), activation
        )
        return layer

    @overload
    def forward(
        self,
        x: ArrayLike,
        *,
        axis: int = ...,
        out: Array | None = ...,
        return_preactivation: Literal[False] = ...,
    ) -> Array: ...
    @overload
    def forward(
        self,
        x: ArrayLike,
        *,
        axis: int = ...,
        out: Array | None = ...,
        return_preactivation: Literal[True],
    ) -> tuple[Array, Array]: ...
    def forward(
        self,
        x: ArrayLike,
        *,
        axis: int = -1,
        out: Array | None = None,
        return_preactivation: bool = False,
    ) -> Array | tuple[Array, Array]:
        """Run the forward pass, as calling the layer does.

        Parameters
        ----------
        x : array_like
            Shape (..., in_features), or (in_features,) for one sample. Any real dtype; it is
            converted to `dtype` on the way in.
        axis : int
            The axis that the features lie along: -1 for rows as samples, 0 for columns.
        out : ndarray, optional
            Where `a` goes: the result's shape and `dtype`. May overlap `x`.
        return_preactivation : bool
            Whether the sum is returned too.

        Returns
        -------
        a : ndarray
            Shape (..., out_features), the features along `axis`; `out` where that is given. The
            same bits as ``layer(x)``.
        z : ndarray
            ``x @ weight.T + bias``, a new array; only with `return_preactivation`.

        Raises
        ------
        ValueError
            A wrong shape of `x` or `out`; the message holds both shapes.
        TypeError
            Complex, masked or non-numeric `x`; `out` of another dtype.

        Examples
        --------
        >>> import fastlayer as fl
        >>> layer = fl.Layer.from_arrays([[1.0], [-1.0]], activation="relu")
        >>> layer.forward([2.0], return_preactivation=True)
        (array([2., 0.]), array([ 2., -2.]))
        """
        if not return_preactivation:
            return self(x, axis=axis, out=out)
        return forward_with_sums(self, repr(self), self._state, x, axis, out)

    def _lower(self, dtype: DType) -> list[Op]:
        state = self._state
        if isinstance(state.activation, Activation) and state.activation._fused is not None:
            return [Dense(state.packed, state.activation._fused)]
        return [Dense(state.packed, IDENTITY), *lower_activation(state.activation, dtype)]

    def _astype(self, dtype: DType) -> Layer:
        return Layer.from_arrays(self.weight, self.bias, self.activation, dtype=dtype)

    def _title(self) -> str:
        return f"Layer({self.in_features}, {self.out_features})"

    def __repr__(self) -> str:
        activation, bias = self.activation, "" if self._state.packed.has_bias else ", bias=False"
        name = describe(activation)
        plain = isinstance(activation, Activation) and activation.name == name
        chosen = f", activation={name!r}" if plain else f", activation={name}"
        if plain and name == "identity":
            chosen = ""
        return f"Layer({self.in_features}, {self.out_features}{chosen}{bias}, dtype={self._dtype})"
