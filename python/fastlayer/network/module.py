"""`Module`: what maps rows to rows, and what happens at a call.

The fast path is one built-in call; behind it is the slow one, which converts and explains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer import _core
from fastlayer.arrays import as_real, normalize_axis
from fastlayer.errors import ShapeMismatch
from fastlayer.run import renewal
from fastlayer.run.compile import compile_steps
from fastlayer.run.ops import decline
from fastlayer.run.part import Part, Sizes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike
    from typing_extensions import Self

    from fastlayer.arrays import Array, DType
    from fastlayer.run.compile import Folds
    from fastlayer.run.ops import Step

_PLAIN = (type(None), np.ndarray)


class Module(Part):
    """A map from rows to rows that compiles itself at the first call."""

    _run: Callable[[Any, Any], Array | None] = staticmethod(decline)
    # Steps, None where they have to be made, folded weights, and the features that the steps take
    # where any will do: one attribute, so that threads see them change together.
    _compilation: tuple[list[Step] | None, Folds, int | None] = (None, {}, None)
    _dtype: DType

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if cls.__call__ is Module.__call__:
            _core.call_directly(cls, Module.__call__)

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

    @property
    def _sizes(self) -> Sizes:
        return Sizes(self.in_features, self.in_features, self.out_features, self._dtype, True)

    @property
    def _parameter_count(self) -> int:
        return self.num_parameters

    def _flops(self, batch: int) -> int:
        return self.flops(batch)

    def __call__(
        self, x: ArrayLike, *others: ArrayLike, axis: int = -1, out: Array | None = None
    ) -> Array:
        """Run the forward pass; the same as `forward`.

        Parameters
        ----------
        x : array_like
            Shape (..., in_features), or (in_features,) for one sample. Any real dtype; it is
            converted to `dtype` on the way in.
        *others : array_like
            The other inputs of a network that has several.
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
            Complex, masked or non-numeric `x`; `out` of another dtype; another number of inputs.

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
        given = self._together(x, others) if others else x
        while True:
            try:
                if axis == -1:
                    y = self._run(given, out)
                    if y is not None:
                        return y
                return self._forward_slow(given, axis, out)
            except _core.Stale:  # a layer was updated after this was compiled
                self._run = decline
                self._compilation = (None, self._compilation[1], None)

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

    def _together(self, x: Any, others: tuple[Any, ...]) -> Any:
        """Return several inputs as what the rest of a call takes."""
        raise TypeError(f"{self._title()} takes one array, and got {1 + len(others)}")

    @property
    def _ends(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The features of each input and of each output, where there may be several arrays."""
        return (), ()

    def _compiled(self, width: int | None = None) -> list[Step]:
        """Return the steps for the layers as they are now, and for rows of `width` features.

        That counts where any number will do: then the core can run what it is told.
        """
        steps, folds, made_for = self._compilation
        if steps is None or (made_for is not None and width not in (None, made_for)):
            folds = dict(folds)
            with renewal.lock():
                ops = self._lower(self._dtype)
            steps, made_for = compile_steps(ops, self._dtype, folds, width, self._ends)
            self._compilation = (steps, folds, made_for)
        # Always: another thread may have put an older program there.
        self._run = steps[0].run if len(steps) == 1 else decline
        return steps

    def _uncompiled(self) -> dict[str, Any]:
        """Return the attributes without what compilation left, for pickle and copy."""
        made = ("_run", "_compilation", "_rows")
        return {k: v for k, v in self.__dict__.items() if k not in made}

    def _copied(self, **changes: Any) -> Self:
        """Return another object of the same class that differs in these attributes."""
        same = type(self).__new__(type(self))
        same.__dict__.update(self._uncompiled(), **changes)
        return same

    def _repr_html_(self) -> str | None:
        """Return what a notebook shows: a diagram of what has parts inside, else its repr."""
        from fastlayer.report.diagram import diagram

        return diagram(self) if self._inside else None

    def __getstate__(self) -> dict[str, Any]:
        return self._uncompiled()

    def __dask_tokenize__(self) -> Any:
        return self._token()

    def _columns(self, x: Array, out: Array | None) -> Array | None:
        """Run plain arrays whose columns are samples without further ado, or return None."""
        n = self.out_features
        if self._run is decline or n is None:
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
        steps = self._compiled(rows.shape[-1])
        if not last and a.ndim > 2 and any(step.flattens for step in steps):
            raise ValueError(
                f"{self._title()}: Flatten takes x of more than 2 dimensions with axis=-1 only, "
                f"got axis={axis} and shape {a.shape}"
            )
        y = rows
        try:
            for step in steps[:-1]:
                y = step(y)
            return steps[-1].last(y, rows, at - a.ndim, out, self._dtype)
        except ShapeMismatch as error:
            raise self._shape_error(error, a, axis, rows) from None

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
