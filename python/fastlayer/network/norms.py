"""LayerNorm, RMSNorm and BatchNorm; training alone changes their arrays."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer import _core
from fastlayer.arrays import FLOAT32, as_real, cast, count, digest, float_dtype, frozen, promote
from fastlayer.errors import Damaged
from fastlayer.network.module import Module
from fastlayer.run.ops import AffineOp, RowsOp
from fastlayer.run.part import Outline, Sizes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, DTypeLike
    from typing_extensions import Self

    from fastlayer.arrays import Array, DType
    from fastlayer.files.document import Reader
    from fastlayer.run.ops import Op


class _Norm(Module):
    """What the norms share: the number of features, and arrays of that size."""

    _names: tuple[str, ...]  # of the arrays
    _features: int
    _arrays: dict[str, Array]  # those that were given
    _eps: float
    _version: _core.Version  # of the arrays
    _digest: str | None = None

    def __init__(
        self,
        features: int,
        eps: float | None,
        dtype: DTypeLike | None,
        **given: ArrayLike | None,
    ) -> None:
        self._features = n = count("the number of features", features)
        arrays = {k: as_real(value, k) for k, value in given.items() if value is not None}
        for name, a in arrays.items():
            if a.shape != (n,):
                raise ValueError(f"{name} must have shape ({n},), got {a.shape}")
        if dtype is not None:
            self._dtype = float_dtype(dtype)
        else:
            self._dtype = promote(*(a.dtype for a in arrays.values()))[0] if arrays else FLOAT32
        self._eps = float(np.finfo(self._dtype).eps) if eps is None else float(eps)
        if not self._eps >= 0:
            raise ValueError(f"eps must not be negative, got {eps}")
        self._version = _core.Version()
        self._become(self._renewed(arrays))

    def _renewed(self, arrays: dict[str, Array]) -> dict[str, Array]:
        return {name: frozen(cast(a, self._dtype)) for name, a in arrays.items()}

    def _become(self, arrays: dict[str, Array]) -> None:
        """Replace the arrays as a whole, in every network that holds the norm."""
        self._arrays = arrays
        self._digest = None
        self._version.advance()

    def _taking(self, arrays: dict[str, Array]) -> Callable[[], None]:
        return partial(self._become, self._renewed({**self._arrays, **arrays}))

    def _snapshot(self) -> Self:
        return self._copied(_version=_core.Version())

    def _rows_op(self, method: str, *names: str) -> RowsOp:
        """Return the operation with these arrays, None for one that there isn't, and eps."""
        # The version before the arrays: a change between the two is seen by whoever watches it.
        watch = ((self._version, self._version.value),)
        held = self._arrays
        args = (*(held.get(name) for name in names), self._eps)
        return RowsOp(method, args, self._features, owner=self, watch=watch)

    @property
    def in_features(self) -> int:
        """Number of features, in and out."""
        return self._features

    @property
    def eps(self) -> float:
        """What is added to the variance or mean square."""
        return self._eps

    @property
    def weight(self) -> Array | None:
        """Read-only factors, one for each feature, or None."""
        return self._arrays.get("weight")

    @property
    def num_parameters(self) -> int:
        """Number of elements of weight and bias."""
        return sum(a.size for name, a in self._arrays.items() if name in ("weight", "bias"))

    def _again(self, dtype: DType) -> partial[Self]:
        """Return a call without arguments that makes this norm once more."""
        return partial(type(self), self._features, eps=self._eps, dtype=dtype, **self._arrays)

    def _astype(self, dtype: DType) -> Self:
        return self._again(dtype)()

    def __reduce__(self) -> tuple[Any, ...]:
        return self._again(self._dtype), ()

    def _token(self) -> Any:
        if self._digest is None:
            self._digest = digest(self._arrays.get(name) for name in self._names)
        kind = f"fastlayer.{type(self).__name__}"
        return (kind, self._features, self._eps, str(self._dtype), self._digest)

    def _describe(self, key: str, arrays: dict[str, Array]) -> dict[str, Any]:
        arrays.update({f"{key}.{name}": a for name, a in self._arrays.items()})
        return {
            "type": type(self).__name__,
            "features": self._features,
            "eps": self._eps,
            "arrays": sorted(self._arrays),
        }

    @classmethod
    def _outline(cls, spec: Any, key: str, reader: Reader) -> Outline:
        n = reader.field(spec, "features", int, key)
        eps = reader.field(spec, "eps", float, key)
        listed = reader.field(spec, "arrays", list, key)
        if n < 1 or not eps >= 0:
            raise Damaged(key, f"{cls.__name__} of {n} features with eps={eps} is impossible")
        taken = {name: reader.want(f"{key}.{name}", (n,)) for name in cls._names if name in listed}
        if not taken:
            reader.charge(key, n)

        def make() -> Any:
            arrays = {name: take() for name, take in taken.items()}
            return cls(n, eps=eps, dtype=reader.dtype, **arrays)

        return Outline(f"{cls.__name__}({n})", Sizes(n, n, n, reader.dtype, True), make)

    def _title(self) -> str:
        return f"{type(self).__name__}({self._features})"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._features}, eps={self._eps}, dtype={self._dtype})"


class LayerNorm(_Norm):
    """Layer normalisation: ``(x - mean) / sqrt(var + eps) * weight + bias`` (Ba et al., 2016).

    Mean and variance are those of each row.

    Parameters
    ----------
    normalized_shape : int
        Number of features n, the last axis.
    eps : float
        Added to the variance.
    weight, bias : array_like, optional
        Shape (n,); ones and zeros where they are not given.
    dtype : dtype, optional
        By default that of the arrays, or float32 without any; else float32 or float64.

    Raises
    ------
    ValueError
        Arrays of another shape, a negative `eps`.
    TypeError
        Complex, masked or non-numeric arrays, another dtype.

    Examples
    --------
    >>> import fastlayer as fl
    >>> fl.LayerNorm(2, eps=0)([[1.0, 3.0], [0.0, -4.0]])
    array([[-1.,  1.],
           [ 1., -1.]], dtype=float32)
    """

    _names = ("weight", "bias")

    def __init__(
        self,
        normalized_shape: int,
        eps: float = 1e-5,
        weight: ArrayLike | None = None,
        bias: ArrayLike | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(normalized_shape, eps, dtype, weight=weight, bias=bias)

    @property
    def bias(self) -> Array | None:
        """Read-only summands, one for each feature, or None."""
        return self._arrays.get("bias")

    def _lower(self, dtype: DType) -> list[Op]:
        return [self._rows_op("layer_norm", "weight", "bias")]


class RMSNorm(_Norm):
    """Root-mean-square norm: ``x / sqrt(mean(x**2) + eps) * weight`` (Zhang & Sennrich, 2019).

    Parameters
    ----------
    normalized_shape : int
        Number of features n, the last axis.
    eps : float, optional
        Added to the mean square; by default the dtype's machine epsilon, as in PyTorch.
    weight : array_like, optional
        Shape (n,); ones where it is not given.
    dtype : dtype, optional
        By default that of the array, or float32 without one; else float32 or float64.

    Raises
    ------
    ValueError
        An array of another shape, a negative `eps`.
    TypeError
        A complex, masked or non-numeric array, another dtype.

    Examples
    --------
    >>> import fastlayer as fl
    >>> fl.RMSNorm(2, eps=0)([3.0, -3.0])
    array([ 1., -1.], dtype=float32)
    """

    _names = ("weight",)

    def __init__(
        self,
        normalized_shape: int,
        eps: float | None = None,
        weight: ArrayLike | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(normalized_shape, eps, dtype, weight=weight)

    def _lower(self, dtype: DType) -> list[Op]:
        return [self._rows_op("rms_norm", "weight")]


class BatchNorm(_Norm):
    """Batch normalisation as in inference (Ioffe & Szegedy, 2015).

    ``(x - running_mean) / sqrt(running_var + eps) * weight + bias``. In a `Network` it costs
    nothing beside a `Layer`: compilation folds it, in float64, into the layer before it where
    that has no activation, else into the layer after it. The folded weights are rounded once to
    the network's dtype; the layers keep their own.

    Parameters
    ----------
    num_features : int
        Number of features n, the last axis.
    eps : float
        Added to the variance.
    weight, bias, running_mean, running_var : array_like, optional
        Shape (n,); ones, zeros, zeros and ones where they are not given.
    dtype : dtype, optional
        By default that of the arrays, or float32 without any; else float32 or float64.

    Raises
    ------
    ValueError
        Arrays of another shape, a negative variance or `eps`.
    TypeError
        Complex, masked or non-numeric arrays, another dtype.

    Examples
    --------
    >>> import fastlayer as fl
    >>> norm = fl.BatchNorm(2, eps=0, running_mean=[1.0, 0.0], running_var=[4.0, 1.0])
    >>> norm([[3.0, 2.0]])
    array([[1., 2.]])
    """

    _names = ("weight", "bias", "running_mean", "running_var")

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        weight: ArrayLike | None = None,
        bias: ArrayLike | None = None,
        running_mean: ArrayLike | None = None,
        running_var: ArrayLike | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        stored = {"running_mean": running_mean, "running_var": running_var}
        super().__init__(num_features, eps, dtype, weight=weight, bias=bias, **stored)
        var = self.running_var
        if var is not None and (var < 0).any():
            raise ValueError(f"running_var must not be negative, got {var.min()}")
        with np.errstate(all="ignore"):
            root = np.sqrt(self._wide("running_var", 1) + self._eps)
            self._scale = self._wide("weight", 1) / root
            bias, moved = self._wide("bias", 0), self._wide("running_mean", 0) * self._scale
            self._shift, self._summands = bias - moved, np.abs(bias) + np.abs(moved)

    def _wide(self, name: str, default: int) -> Array:
        a = self._arrays.get(name)
        return np.full(self._features, float(default)) if a is None else a.astype(np.float64)

    @property
    def bias(self) -> Array | None:
        """Read-only summands, one for each feature, or None."""
        return self._arrays.get("bias")

    @property
    def running_mean(self) -> Array | None:
        """Read-only means of the training data, or None."""
        return self._arrays.get("running_mean")

    @property
    def running_var(self) -> Array | None:
        """Read-only variances of the training data, or None."""
        return self._arrays.get("running_var")

    def _lower(self, dtype: DType) -> list[Op]:
        return [AffineOp(self._scale, self._shift, self, self._summands)]
