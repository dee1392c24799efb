"""`Layer`: a dense layer whose weights are packed once for the kernels."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload
from weakref import ref

import numpy as np

from fastlayer import _core
from fastlayer.arrays import as_real, cast, check_out, count, digest, float_dtype, promote
from fastlayer.errors import Damaged
from fastlayer.functions.activation import Activation
from fastlayer.network.initializers import initialize
from fastlayer.network.module import Module
from fastlayer.network.part import Function, as_part
from fastlayer.run import renewal
from fastlayer.run.ops import IDENTITY, CallOp, DenseOp, RowsOp
from fastlayer.run.part import Outline, Sizes

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from numpy.typing import ArrayLike, DTypeLike
    from typing_extensions import Self

    from fastlayer.arrays import Array, DType
    from fastlayer.files.document import Reader
    from fastlayer.functions.activation import ActivationLike
    from fastlayer.names import InitializerName, Layout
    from fastlayer.network.initializers import Initializer
    from fastlayer.network.part import Pair
    from fastlayer.run.ops import Op
    from fastlayer.run.part import Part

    # What shows a part of a network: mostly a layer, and else nobody knows it but who made it.
    Shown: TypeAlias = "Layer | Any"


class _Keep:
    """Stands for an argument that was not given, where None means something."""

    def __repr__(self) -> str:
        return "<as it is>"


_KEEP: Any = _Keep()


class _State:
    """Weights and activation, replaced as a whole by an update: no thread sees a mixture."""

    __slots__ = ("_arrays", "activation", "digest", "packed")

    def __init__(self, packed: _core.PackedWeights, activation: Part) -> None:
        self.packed = packed
        self.activation = activation
        self.digest: str | None = None  # of weight and bias, once someone asks
        # Weak references to the arrays last handed out: no copy of the weights stays behind.
        self._arrays: dict[str, ref[Array]] = {}

    def array(self, name: str) -> Array | None:
        """Return the weight or bias: the same read-only array while someone holds it."""
        known = self._arrays.get(name)
        found = None if known is None else known()
        if found is None:
            base = self.packed.weight() if name == "weight" else self.packed.bias()
            if base is None:
                return None
            base.flags.writeable = False
            found = base.view()  # of a read-only base: its flag can't be turned back on
            self._arrays[name] = ref(found)
        return found


# What people assign who mean something else; nothing would read it.
_MISTAKEN = {
    **dict.fromkeys(("weights", "W", "w", "kernel", "coef_"), "weight"),
    **dict.fromkeys(("biases", "b", "intercept_"), "bias"),
    **dict.fromkeys(("act", "activation_function"), "activation"),
}


class Layer(Module):
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

    _state: _State
    _version: _core.Version

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: ActivationLike | Pair = None,
        *,
        bias: bool = True,
        init: InitializerName | Initializer = "he_normal",
        rng: int | np.random.Generator | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        shape = (count("out_features", out_features), count("in_features", in_features))
        self._dtype = float_dtype(dtype)
        weight = cast(initialize(init, rng, shape), self._dtype)
        zeros = np.zeros(shape[0], self._dtype) if bias else None
        self._hold(weight, zeros, activation)

    @classmethod
    def from_arrays(
        cls,
        weight: ArrayLike,
        bias: ArrayLike | None = None,
        activation: ActivationLike | Pair = None,
        *,
        layout: Layout = "out_in",
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
        b = None if bias is None else as_real(bias, "bias")
        if b is not None and b.size == w.shape[1] != w.shape[0]:
            other = "in_out" if layout == "out_in" else "out_in"
            raise ValueError(
                f"bias has {b.size} entries, but with layout={layout!r} a weight of shape "
                f"{np.shape(weight)} has {w.shape[0]} neurons; layout={other!r} takes its other axis"
            )
        b = None if b is None else _as_bias(b, w.shape[0])
        if dtype is None:
            # A bias that is not an array takes the dtype of the weight.
            given = [w, b] if b is not None and isinstance(bias, np.ndarray) else [w]
            wanted = promote(*(a.dtype for a in given))[0]
        else:
            wanted = float_dtype(dtype)
        layer = cls.__new__(cls)
        layer._dtype = wanted
        layer._hold(cast(w, wanted), None if b is None else cast(b, wanted), activation)
        return layer

    def _hold(self, weight: Array, bias: Array | None, activation: ActivationLike | Pair) -> None:
        """Pack arrays of the layer's dtype, (n, k) and (n,)."""
        chosen = _as_activation(activation, weight.shape[0])
        self._state = _State(_core.PackedWeights(weight, bias), chosen)
        self._version = _core.Version()

    @property
    def in_features(self) -> int:
        """Number of inputs, k."""
        return self._state.packed.in_features

    @property
    def out_features(self) -> int:
        """Number of neurons, n."""
        return self._state.packed.out_features

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _MISTAKEN:
            right = _MISTAKEN[name]
            raise AttributeError(
                f"a Layer has no {name!r} that counts: assign layer.{right}, or call "
                f"layer.update({right}=...)"
            )
        super().__setattr__(name, value)

    @property
    def weight(self) -> Array:
        """Read-only array (n, k), one row for each neuron. Assign to replace it."""
        weight = self._state.array("weight")
        assert weight is not None
        return weight

    @weight.setter
    def weight(self, weight: ArrayLike) -> None:
        self.update(weight=weight)

    @property
    def bias(self) -> Array | Any:  # who made the layer knows whether it is None
        """Read-only array (n,), or None. Assign to replace it."""
        return self._state.array("bias")

    @bias.setter
    def bias(self, bias: ArrayLike | None) -> None:
        self.update(bias=bias)

    @property
    def activation(self) -> Activation | Any:  # any callable, where one was given
        """The `Activation`, or the callable that was given. Assign to replace it."""
        return self._state.activation._given

    @activation.setter
    def activation(self, activation: ActivationLike | Pair) -> None:
        self.update(activation=activation)

    @property
    def num_parameters(self) -> int:
        """Number of weights and biases, and of the slopes of a prelu."""
        n, k = self.out_features, self.in_features
        return n * k + n * self._state.packed.has_bias + self._state.activation._parameter_count

    def flops(self, batch: int = 1) -> int:
        """Return the floating-point operations of the product, ``2 * batch * n * k``.

        A product and a sum count as two. The bias and the activation are not counted.

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
        >>> fl.Layer(4, 3).flops(batch=10)
        240
        """
        return 2 * batch * self.out_features * self.in_features

    def update(
        self,
        *,
        weight: ArrayLike = _KEEP,
        bias: ArrayLike | None = _KEEP,
        activation: ActivationLike | Pair = _KEEP,
    ) -> None:
        """Replace weights, bias or activation, in every network that holds the layer.

        Parameters
        ----------
        weight : array_like, optional
            Shape (n, k) as before; converted to the layer's dtype.
        bias : array_like or None, optional
            Shape (n,), (1, n) or (n, 1); None takes the bias away.
        activation : str, Activation, function, callable or None, optional
            See `Layer`.

        Raises
        ------
        ValueError
            Other shapes.
        TypeError
            Complex, masked or non-numeric arrays.

        Examples
        --------
        >>> import fastlayer as fl
        >>> layer = fl.Layer(2, 1, init="zeros")
        >>> layer.update(weight=[[1.0, 2.0]], bias=[0.5])
        >>> layer([1.0, 1.0])
        array([3.5], dtype=float32)
        """
        with renewal.lock():
            self._become(self._renewed(weight, bias, activation))

    def _renewed(
        self, weight: ArrayLike = _KEEP, bias: Any = _KEEP, activation: Any = _KEEP
    ) -> _State:
        """Return the state that `update` puts in the place of the one that there is."""
        state = self._state
        shape = (self.out_features, self.in_features)
        packed = state.packed
        if weight is not _KEEP or bias is not _KEEP:
            w = packed.weight() if weight is _KEEP else as_real(weight, "weight")
            if w.shape != shape:
                raise ValueError(f"weight of {self} has shape {shape}, got {w.shape}")
            b = packed.bias() if bias is _KEEP else bias
            b = None if b is None else cast(_as_bias(b, shape[0]), self._dtype)
            packed = _core.PackedWeights(cast(w, self._dtype), b)
        chosen = state.activation
        if activation is not _KEEP:
            chosen = _as_activation(activation, shape[0])
        return _State(packed, chosen)

    def _become(self, state: _State) -> None:
        self._state = state
        self._version.advance()

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
        state = self._state
        z = _Sums(self._dtype, state)(x, axis=axis)
        a = np.empty(z.shape, z.dtype) if out is None else check_out(out, z.shape, z.dtype)
        rows, target = np.moveaxis(z, axis, -1), np.moveaxis(a, axis, -1)
        if isinstance(state.activation, Function):
            # A copy: the function may write into what it is given.
            call = CallOp(state.activation.function, z.dtype, passes=True)
            target[...] = call(rows.copy())
        else:
            state.activation._given(rows, out=target)
        return (a if out is None else out), z

    def _lower(self, dtype: DType) -> list[Op]:
        # The version before the state: an update between the two is seen by whoever watches it.
        version = (self._version, self._version.value)
        state = self._state
        after = state.activation._lower(dtype)
        first = after[0]
        if isinstance(first, RowsOp) and first.fused is not None:
            return [DenseOp(state.packed, first.fused, (version,), self)]
        for op in after:
            if isinstance(op, RowsOp):  # a prelu
                op.owner = self
        return [DenseOp(state.packed, IDENTITY, (version,), self), *after]

    @property
    def _slopes(self) -> Array | None:
        """The slopes of a prelu, which are trained too."""
        act = self._state.activation
        if not isinstance(act, Activation) or act.name != "prelu":
            return None
        slopes: Array = act.parameters["weight"]
        return slopes

    def _taking(self, arrays: dict[str, Array]) -> Callable[[], None]:
        given: dict[str, Any] = {name: a for name, a in arrays.items() if name != "slopes"}
        if "slopes" in arrays:
            given["activation"] = Activation("prelu", weight=arrays["slopes"])
        return partial(self._become, self._renewed(**given))

    def _astype(self, dtype: DType) -> Layer:
        return Layer.from_arrays(self.weight, self.bias, self.activation, dtype=dtype)

    def _snapshot(self) -> Self:
        return self._copied(_version=_core.Version())

    def _pair(self, x: Array, alone: Any) -> tuple[Array, Array]:
        return self.forward(x, return_preactivation=True)

    @property
    def _activation_title(self) -> str:
        return self._state.activation._title()

    def _token(self) -> Any:
        state = self._state
        if state.digest is None:
            state.digest = digest([state.packed.weight(), state.packed.bias()])
        return ("fastlayer.Layer", state.digest, state.activation._token())

    def __getstate__(self) -> dict[str, Any]:
        # Plain arrays: the packed form belongs to the version of the package that made it.
        attributes = self._uncompiled()
        del attributes["_version"]
        held = attributes.pop("_state")
        plain = {key: held.array(key) for key in ("weight", "bias")}
        return {**attributes, **plain, "activation": held.activation._given}

    def __setstate__(self, state: dict[str, Any]) -> None:
        weight, bias, activation = (state.pop(key) for key in ("weight", "bias", "activation"))
        self.__dict__.update(state)
        # Buffers out of band (PEP 574) may lie anywhere in a message: as_real aligns them.
        bias = None if bias is None else as_real(bias, "bias")
        self._hold(as_real(weight, "weight"), bias, activation)

    def _describe(self, key: str, arrays: dict[str, Array]) -> dict[str, Any]:
        arrays[f"{key}.weight"] = self.weight
        bias = self.bias
        if bias is not None:
            arrays[f"{key}.bias"] = bias
        return {
            "type": "Layer",
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bias": bias is not None,
            "activation": self._state.activation._describe(f"{key}.activation", arrays),
        }

    @classmethod
    def _outline(cls, spec: Any, key: str, reader: Reader) -> Outline:
        n, k = (reader.field(spec, name, int, key) for name in ("out_features", "in_features"))
        weight = reader.want(f"{key}.weight", (n, k))
        bias = None
        if reader.field(spec, "bias", bool, key):
            bias = reader.want(f"{key}.bias", (n,))
        if not n * k:
            reader.charge(key, n + k)
        chosen = reader.field(spec, "activation", dict, key)
        activation = Activation._outline(chosen, f"{key}.activation", reader)
        slopes = activation.sizes.in_features
        if slopes not in (None, n):
            raise Damaged(key, f"prelu has {slopes} slopes, but the layer has {n} outputs")

        def make() -> Layer:
            b = None if bias is None else bias()
            return cls.from_arrays(weight(), b, activation.make(), dtype=reader.dtype)

        return Outline(f"Layer({k}, {n})", Sizes(k, k, n, reader.dtype, True), make)

    def _title(self) -> str:
        return f"Layer({self.in_features}, {self.out_features})"

    def __repr__(self) -> str:
        activation = self._state.activation
        bias = "" if self._state.packed.has_bias else ", bias=False"
        name = activation._title()
        chosen = name if activation._argument() != repr(name) else repr(name)
        chosen = "" if name == "identity" and chosen == repr(name) else f", activation={chosen}"
        return f"Layer({self.in_features}, {self.out_features}{chosen}{bias}, dtype={self._dtype})"


class _Sums(Layer):
    """A layer without its activation, as it is at one moment; only for a single call."""

    def __init__(self, dtype: DType, state: _State) -> None:
        self._dtype, self._state = dtype, state

    def _lower(self, dtype: DType) -> list[Op]:
        return [DenseOp(self._state.packed, IDENTITY, ())]

    def _title(self) -> str:
        return repr(self)


def _as_activation(activation: ActivationLike | Pair, n: int) -> Part:
    """Resolve the activation of a layer with `n` neurons."""
    chosen = as_part(activation)
    slopes = chosen._sizes.takes
    if slopes not in (None, n):
        raise ValueError(
            f"prelu: weight of shape ({slopes},) holds {slopes} slopes, "
            f"but the layer has {n} outputs"
        )
    return chosen


def _as_bias(bias: object, n: int) -> Array:
    """Return a bias given as (n,), (1, n) or (n, 1) as (n,)."""
    b = as_real(bias, "bias")
    if b.shape not in ((n,), (1, n), (n, 1)):
        raise ValueError(
            f"bias must have shape ({n},), (1, {n}) or ({n}, 1) beside a weight with {n} "
            f"{'row' if n == 1 else 'rows'}, got {b.shape}"
        )
    return b.reshape(n)
