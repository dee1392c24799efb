"""What happens at a call: the fast path, and behind it the slow one that converts and explains.

`Module` is the base of everything that maps rows to rows: `Layer`, the norms, `Network`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer import _core
from fastlayer.arrays import as_real, as_result, cast, check_out, normalize_axis
from fastlayer.errors import ShapeMismatch
from fastlayer.run.compile import compile_steps
from fastlayer.run.steps import FlattenStep, ProgramStep

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from fastlayer.arrays import Array, DType
    from fastlayer.run.compile import Folds, Op
    from fastlayer.run.steps import Step


def _decline(x: Any, out: Any = None, /) -> Array | None:
    """Stands in for a program where there is none yet, or not a single one."""
    return None


_PLAIN = (type(None), np.ndarray)


class Module:
    """A map from rows to rows that compiles itself at the first call."""

    _run: Callable[[Any, Any], Array | None] = staticmethod(_decline)
    # Epoch, steps and folded weights: one attribute, so that threads see them change together.
    _compilation: tuple[int, list[Step], Folds] = (-1, [], {})
    _dtype: DType
    # Whether the dtype is one of arrays inside, or merely what a network is free to choose.
    _typed = True
    # Whether the features pass through where in_features and out_features are None.
    _keeps_features = True

    @property
    def dtype(self) -> DType:
        """The dtype that it computes in and returns: float32 or float64."""
        return self._dtype

    @property
    def in_features(self) -> int | None:
        """Number of features that it takes, None where any will do."""
        raise NotImplementedError

    @property
    def out_features(self) -> int | None:
        """Number of features that it gives, None where that depends on the input."""
        return self.in_features

    @property
    def num_parameters(self) -> int:
        """Number of trained parameters."""
        raise NotImplementedError

    @property
    def nbytes(self) -> int:
        """Size of the trained parameters in bytes."""
        return self.num_parameters * self._dtype.itemsize

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
        >>> fl.Network([fl.Layer(4, 3), fl.LayerNorm(3)]).flops(batch=10)
        240
        """
        return 0

    def _lower(self, dtype: DType) -> list[Op]:
        """Return the operations that this stands for, their arrays in `dtype` where it matters."""
        raise NotImplementedError

    def _astype(self, dtype: DType) -> Module:
        """Return the same thing computing in `dtype`."""
        raise NotImplementedError

    @property
    def _takes(self) -> int | None:
        """Features along the last axis that a layer in front must give, None for any."""
        return self.in_features

    def _title(self) -> str:
        """Return a short name for messages."""
        return repr(self)

    def __call__(self, x: ArrayLike, *, axis: int = -1, out: Array | None = None) -> Array:
        """Run the forward pass; the same as `forward`.

        Parameters
        ----------
        x : array_like
            Shape (..., in_features), or (in_features,) for one sample. Any real dtype; it is
            converted to `dtype` on the way in.
        axis : int
            The axis that the features lie along: -1 for rows as samples, 0 for columns.
        out : ndarray, optional
            Where the result goes: the result's shape and `dtype`. May overlap `x`.

        Returns
        -------
        ndarray
            Shape (..., out_features), the features along `axis`; `out` where that is given.

        Raises
        ------
        ValueError
            A wrong shape of `x` or `out`; the message holds both shapes.
        TypeError
            Complex, masked or non-numeric `x`; `out` of another dtype.

        Examples
        --------
        >>> import fastlayer as fl
        >>> layer = fl.Layer.from_arrays([[1.0, 1.0], [1.0, -1.0], [0.0, 2.0]])
        >>> layer([[3.0, 1.0]])
        array([[4., 2., 2.]])
        >>> layer([[3.0], [1.0]], axis=0)
        array([[4.],
               [2.],
               [2.]])
        """
        if axis == -1:
            y = self._run(x, out)
            if y is not None:
                return y
        return self._forward_slow(x, axis, out)

    def forward(self, x: ArrayLike, *, axis: int = -1, out: Array | None = None) -> Array:
        """Run the forward pass; the same as calling the object.

        Parameters
        ----------
        x : array_like
            Shape (..., in_features), or (in_features,) for one sample; any real dtype.
        axis : int
            The axis that the features lie along: -1 for rows as samples, 0 for columns.
        out : ndarray, optional
            Where the result goes.

        Returns
        -------
        ndarray
            Shape (..., out_features), the features along `axis`; `out` where that is given.

        Raises
        ------
        ValueError, TypeError
            As for a call.

        Examples
        --------
        >>> import fastlayer as fl
        >>> fl.LayerNorm(2, eps=0).forward([1.0, 3.0])
        array([-1.,  1.], dtype=float32)
        """
        return self(x, axis=axis, out=out)

    def _compiled(self) -> list[Step]:
        """Return the steps for the layers as they are now."""
        epoch = _core.epoch()
        compiled, steps, folds = self._compilation
        if compiled != epoch:
            folds = dict(folds)
            steps = compile_steps(self._lower(self._dtype), self._dtype, None, epoch, folds)
            self._compilation = (epoch, steps, folds)
        # Always: another thread may have put an older program there.
        single = steps[0] if len(steps) == 1 else None
        self._run = single.run if isinstance(single, ProgramStep) else _decline
        return steps

    def _uncompiled(self) -> dict[str, Any]:
        """Return the attributes without what compilation left, for pickle and copy."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_run", "_compilation")}

    def __getstate__(self) -> dict[str, Any]:
        return self._uncompiled()

    def __dask_tokenize__(self) -> Any:
        from fastlayer.network._content import token_of

        return token_of(self)

    def _columns(self, x: Array, out: Array | None) -> Array | None:
        """Run plain arrays whose columns are samples without further ado, or return None."""
        n = self.out_features
        if self._run is _decline or n is None:
            return None
        y = np.empty((n, x.shape[1]), self._dtype) if out is None else out
        return None if self._run(x.T, y.T) is None else y

    def _forward_slow(self, x: object, axis: int, out: Array | None) -> Array:
        if axis == 0 and type(x) is np.ndarray and x.ndim == 2 and type(out) in _PLAIN:
            y = self._columns(x, out)
            if y is not None:
                return y
        a = as_real(x)
        if a.ndim == 0:
            raise ValueError(f"{self._title()}: x is a scalar, expected {self._expected(-1)}")
        at = normalize_axis(axis, a.ndim)
        last = at == a.ndim - 1
        rows = a if last else np.moveaxis(a, at, -1)
        while True:
            steps = self._compiled()
            if not last and a.ndim > 2 and any(isinstance(s, FlattenStep) for s in steps):
                raise ValueError(
                    f"{self._title()}: Flatten takes x of more than 2 dimensions with axis=-1 only, "
                    f"got axis={axis} and shape {a.shape}"
                )
            try:
                y = self._take(steps, rows, at - a.ndim, out)
            except ShapeMismatch as error:
                raise self._shape_error(error, a, axis, rows) from None
            if y is not None:
                return y

    def _take(self, steps: list[Step], x: Array, axis: int, out: Array | None) -> Array | None:
        """Go through the steps; the result has its features along `axis`, which is negative."""
        y = x
        for step in steps[:-1]:
            following = step(y)
            if following is None:
                return None
            y = following
        last = steps[-1]
        if not isinstance(last, ProgramStep):
            following = last(y)
            return following if following is None else self._deliver(following, x, axis, out)
        if y.ndim == 0 or y.shape[-1] != last.in_features:
            raise ShapeMismatch(last.in_features, y.shape)
        lead = y.shape[:-1]
        place = len(lead) + 1 + axis
        shape = (*lead[:place], last.out_features, *lead[place:])
        target = np.empty(shape, self._dtype) if out is None else check_out(out, shape, self._dtype)
        if last(y, np.moveaxis(target, axis, -1) if axis != -1 else target) is None:
            return None
        return target if out is None else out

    def _deliver(self, y: Array, x: Array, axis: int, out: Array | None) -> Array:
        y = cast(y, self._dtype)
        if axis != -1:
            y = np.moveaxis(y, -1, axis)
        if out is None:
            # The caller owns the result: it must not be the input in another guise.
            fresh = y.copy() if np.may_share_memory(x, y) else np.ascontiguousarray(y)
            return as_result(fresh.reshape(y.shape))
        check_out(out, y.shape, self._dtype)[...] = y
        return out

    def _expected(self, axis: int) -> str:
        k = self.in_features
        text = "..." if k is None else str(k)
        return f"x of shape ({text}, ...)" if axis == 0 else f"x of shape (..., {text})"

    def _shape_error(self, error: ShapeMismatch, x: Array, axis: int, rows: Array) -> ValueError:
        if error.shape_seen != rows.shape:
            return ValueError(
                f"{self._title()}: x of shape {x.shape} reaches a layer that takes "
                f"{error.features} features as an array of shape {error.shape_seen}"
            )
        k = error.features
        want = (
            f"({k}, ...)" if axis == 0 else f"(..., {k})" if axis == -1 else f"{k} along the axis"
        )
        hint = ""
        if x.ndim > 1 and x.shape[0] == k and axis == -1:
            hint = "; where columns are samples, pass axis=0"
        elif x.ndim > 1 and x.shape[-1] == k and axis == 0:
            hint = "; where rows are samples, leave axis out"
        elif x.ndim > 1 and int(np.prod(x.shape[1:])) == k and axis == -1:
            hint = "; to flatten each sample, put fl.Flatten() first"
        return ValueError(
            f"{self._title()}: expected x of shape {want}, got {x.shape} with axis={axis}{hint}"
        )
