"""`Flatten`, a user's function as a part, and what a network takes for parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlayer.arrays import as_real
from fastlayer.functions.activation import Activation, resolve_rowwise
from fastlayer.run.ops import CallOp, FlattenOp
from fastlayer.run.part import Outline, Part, Sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeAlias

    from numpy.typing import ArrayLike

    from fastlayer.arrays import Array, DType
    from fastlayer.files.document import Reader
    from fastlayer.names import ActivationName
    from fastlayer.run.ops import Op

    Pair: TypeAlias = tuple[Callable[[Array], Any], Callable[[Array], Any]]  # (f, df)
    # What networks are made of: parts, and what stands for one.
    PartLike: TypeAlias = Part | ActivationName | Callable[[Array], Any] | Pair


class Flatten(Part):
    """Make each sample one row: ``x.reshape(len(x), -1)``, as PyTorch's ``nn.Flatten()``.

    An array of one or two dimensions passes unchanged. The values follow in C order.

    Examples
    --------
    >>> import fastlayer as fl
    >>> import numpy as np
    >>> fl.Flatten()(np.zeros((5, 28, 28))).shape
    (5, 784)
    """

    _rowwise = False

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
        return FlattenOp()(as_real(x))

    @property
    def _sizes(self) -> Sizes:
        return Sizes(None, None, None, None, False, flattens=True, multiple=0)

    def _lower(self, dtype: DType) -> list[Op]:
        return [FlattenOp()]

    def _token(self) -> Any:
        return "fastlayer.Flatten"

    def _describe(self, key: str, arrays: dict[str, Array]) -> dict[str, Any]:
        return {"type": "Flatten"}

    @classmethod
    def _outline(cls, spec: Any, key: str, reader: Reader) -> Outline:
        made = cls()
        return Outline(repr(made), made._sizes, lambda: made)

    def __repr__(self) -> str:
        return "Flatten()"


class Function(Part):
    """A function of the user's; where it is an activation, it keeps the shape.

    With a derivative it was given as a pair, and can be trained through.
    """

    _rowwise = False
    function: Callable[..., Any]
    keeps_shape: bool
    derivative: Callable[..., Any] | None

    def __init__(
        self,
        function: Callable[..., Any],
        keeps_shape: bool = False,
        derivative: Callable[..., Any] | None = None,
    ) -> None:
        self.function, self.keeps_shape, self.derivative = function, keeps_shape, derivative

    @property
    def _given(self) -> Any:
        return self.function if self.derivative is None else (self.function, self.derivative)

    @property
    def _sizes(self) -> Sizes:
        return Sizes(None, None, None, None, False)

    def _lower(self, dtype: DType) -> list[Op]:
        return [CallOp(self.function, dtype, self.keeps_shape, self.derivative)]

    def _token(self) -> Any:
        return self._given  # as it is, for dask to look at

    def _title(self) -> str:
        name: str = getattr(self.function, "__name__", type(self.function).__name__)
        return name

    def _argument(self) -> str:
        return repr(self._given)

    def _describe(self, key: str, arrays: dict[str, Array]) -> dict[str, Any]:
        raise ValueError(
            f"layer {key}: {self._title()} is a Python function, and a file can't hold code; use "
            "one of fastlayer's activations, or save the layers around it"
        )


def as_part(activation: Any) -> Part:
    """Resolve what `activation=` takes for use inside a layer, where rows are samples."""
    if isinstance(activation, tuple):
        return Function(*_pair(activation))
    resolved = resolve_rowwise(activation)
    return resolved if isinstance(resolved, Activation) else Function(resolved, keeps_shape=True)


def as_parts(items: Iterable[Any], what: str) -> tuple[Part, ...]:
    """Resolve names and functions among the layers of a network."""
    if isinstance(items, str) or not hasattr(items, "__iter__"):
        raise TypeError(f"{what} takes a list of layers, as in [first, second], got {items!r}")
    parts: list[Part] = []
    for i, item in enumerate(items):
        if isinstance(item, type):
            raise TypeError(
                f"{what}: layer {i} is the class {item.__name__}; give an object, "
                f"{item.__name__}(...)"
            )
        if item is None:
            raise TypeError(f"{what}: layer {i} is None")
        if isinstance(item, tuple):
            parts.append(Function(*_pair(item)))
            continue
        resolved = resolve_rowwise(item)
        parts.append(resolved if isinstance(resolved, Part) else Function(resolved))
    return tuple(parts)


def _pair(given: tuple[Any, ...]) -> tuple[Callable[..., Any], bool, Callable[..., Any]]:
    """Return the arguments of a `Function` for an activation and its derivative."""
    if len(given) != 2 or not all(map(callable, given)):
        raise TypeError(f"a pair of an activation holds two callables (f, df), got {given!r}")
    return given[0], True, given[1]
