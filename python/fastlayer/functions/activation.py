"""`Activation`, and what `activation=` accepts everywhere: names, functions, objects, callables."""

from __future__ import annotations

import typing
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.arrays import as_real, cast, frozen
from fastlayer.errors import Damaged, unfit
from fastlayer.functions import elementwise
from fastlayer.functions.calls import apply_prelu, check_slope, number
from fastlayer.run.ops import CallOp, RowsOp
from fastlayer.run.part import Outline, Part, Sizes

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal, TypeAlias

    from numpy.typing import ArrayLike

    from fastlayer.arrays import Array, DType
    from fastlayer.files.document import Reader
    from fastlayer.names import ActivationName
    from fastlayer.run.ops import Fused, Op

    Name: TypeAlias = ActivationName | Literal["prelu"]
    # An `Activation` is a callable, too. Beside it in a union, pyright would take the parameter of a
    # lambda for that of `Activation.__call__`.
    ActivationLike: TypeAlias = ActivationName | Callable[[Array], Any] | None

_REQUIRED: Any = object()  # the default of a parameter that has none


class _Kind:
    """A line of the table: an activation function, and the defaults of its parameters.

    `kernel` makes of their values what the core is called with, None where no single kernel does it.
    By default that is the kernel of the function's name, with the values that `check` lets pass.
    """

    def __init__(
        self,
        function: Callable[..., Array],
        *,
        kernel: Callable[..., Fused | None] | None = None,
        check: Callable[..., None] = lambda *values: None,
        **defaults: Any,
    ) -> None:
        self.function, self.check, self.defaults = function, check, defaults
        self.kernel = kernel or self._plain

    def _plain(self, *values: float) -> Fused:
        self.check(*values)
        p0, p1 = (*values, 0.0, 0.0)[:2]
        return (self.function.__name__, p0, p1)


def _one_slope(weight: Array) -> Fused | None:
    return ("leaky_relu", float(weight), 0.0) if weight.size == 1 else None


def _gelu(form: object) -> Fused:
    return (elementwise.gelu_kernel(form), 0.0, 0.0)


def _rowwise(name: str) -> Callable[[int], Fused | None]:
    return lambda axis: (name, 0.0, 0.0) if axis == -1 else None


_KINDS = {
    kind.function.__name__: kind
    for kind in (
        _Kind(elementwise.identity),
        _Kind(elementwise.relu),
        _Kind(elementwise.leaky_relu, negative_slope=0.01),
        _Kind(elementwise.prelu, kernel=_one_slope, weight=_REQUIRED),
        _Kind(elementwise.relu6, kernel=lambda: ("hardtanh", 0.0, 6.0)),
        _Kind(elementwise.hardtanh, check=elementwise.check_range, min_val=-1.0, max_val=1.0),
        _Kind(elementwise.hardsigmoid),
        _Kind(elementwise.hardswish),
        _Kind(elementwise.elu, alpha=1.0),
        _Kind(elementwise.celu, check=elementwise.check_nonzero, alpha=1.0),
        _Kind(elementwise.selu),
        _Kind(elementwise.gelu, kernel=_gelu, approximate="none"),
        _Kind(elementwise.silu),
        _Kind(elementwise.mish),
        _Kind(elementwise.softplus, check=elementwise.check_positive, beta=1.0, threshold=20.0),
        _Kind(elementwise.sigmoid),
        _Kind(elementwise.log_sigmoid),
        _Kind(elementwise.tanh),
        _Kind(elementwise.softsign),
        _Kind(elementwise.exp),
        _Kind(elementwise.sin),
        _Kind(elementwise.cos),
        _Kind(elementwise.sqrt),
        _Kind(elementwise.threshold, threshold=0.0, value=0.0),
        _Kind(elementwise.hardshrink, lambd=0.5),
        _Kind(elementwise.softshrink, check=elementwise.check_lambd, lambd=0.5),
        _Kind(elementwise.softmax, kernel=_rowwise("softmax"), axis=-1),
        _Kind(elementwise.log_softmax, kernel=_rowwise("log_softmax"), axis=-1),
    )
}
_ALIASES = {"swish": "silu", "logistic": "sigmoid", "linear": "identity"}


class Activation(Part):
    """An activation function with its parameters chosen; immutable, hashable and picklable.

    Parameters
    ----------
    name : str
        One of the activation functions of fastlayer, or an alias ("swish", "logistic").
    **parameters
        The keyword parameters of that function, e.g. ``negative_slope``.

    Raises
    ------
    ValueError
        Unknown name (the message lists the known ones), or a parameter out of its range.
    TypeError
        A parameter that the function doesn't have, or that it needs and did not get.

    Examples
    --------
    >>> import fastlayer as fl
    >>> act = fl.Activation("leaky_relu", negative_slope=0.1)
    >>> act
    Activation('leaky_relu', negative_slope=0.1)
    >>> act([-1.0, 2.0])
    array([-0.1,  2. ])
    >>> act == fl.Activation("leaky_relu", negative_slope=0.1)
    True
    """

    __slots__ = ("_fused", "_key", "_name", "_parameters")
    _name: Name
    _parameters: dict[str, Any]
    _fused: Fused | None  # name and numbers of the core's kernel, where there is a single one
    _key: tuple[Any, ...]

    def __init__(self, name: Name, **parameters: Any) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name must be a string, got {name!r}")
        name = canonical_name(name)
        kind = _KINDS[name]
        for key in parameters:
            if key not in kind.defaults:
                known = ", ".join(kind.defaults) or "no parameters"
                raise TypeError(f"activation {name!r} has no parameter {key!r}; it takes {known}")
        given = {**kind.defaults, **parameters}
        if any(value is _REQUIRED for value in given.values()):
            raise TypeError(
                "prelu needs its slopes: fl.Activation('prelu', weight=...) with a number "
                "or one slope for each feature"
            )
        values = {key: _parameter(key, v) for key, v in given.items()}
        put = object.__setattr__
        put(self, "_name", name)
        put(self, "_parameters", values)
        put(self, "_fused", kind.kernel(*values.values()))
        put(self, "_key", (name, *(_hashable(v) for v in values.values())))

    @property
    def name(self) -> Name:
        """Name of the function; an alias is replaced by what it stands for."""
        return self._name

    @property
    def parameters(self) -> dict[str, Any]:
        """Copy of the parameters by name, defaults included."""
        return dict(self._parameters)

    @property
    def num_parameters(self) -> int:
        """Number of trained parameters: the slopes of a prelu."""
        return self._parameters["weight"].size if self._name == "prelu" else 0

    _parameter_count = num_parameters

    def __call__(self, x: ArrayLike, *, out: Array | None = None) -> Array:
        """Apply to an array; the parameters, slopes of a prelu too, take its dtype.

        Parameters
        ----------
        x : array_like
            Any shape, any real dtype; integers and bools become float64.
        out : ndarray, optional
            Where the result goes; the result's shape and dtype. May be `x` itself.

        Returns
        -------
        ndarray or scalar
            The shape of `x`, a NumPy scalar where `x` is one.

        Raises
        ------
        TypeError
            `x` is complex, masked or not numeric; `out` has another dtype.
        ValueError
            `out` has another shape; `x` has no such axis, or not one feature for each slope.

        Examples
        --------
        >>> import fastlayer as fl
        >>> fl.Activation("hardtanh", min_val=0.0, max_val=255.0)([-3.0, 99.0, 300.0])
        array([  0.,  99., 255.])
        """
        if self._name == "prelu":
            return apply_prelu(x, self._parameters["weight"], out, weak=True)
        return _KINDS[self._name].function(x, **self._parameters, out=out)

    @property
    def _sizes(self) -> Sizes:
        slopes = self._parameters.get("weight")
        n = None if slopes is None or slopes.size == 1 else int(slopes.size)
        return Sizes(n, n, n, None, True)

    def _lower(self, dtype: DType) -> list[Op]:
        if self._fused is not None:
            call = CallOp(self, dtype, passes=True)
            return [RowsOp("activation", self._fused, None, self._fused, call)]
        if self._name != "prelu":
            raise TypeError(f"{self!r} can't be part of a layer")
        slopes = np.ascontiguousarray(cast(self._parameters["weight"], dtype))
        return [RowsOp("prelu", (slopes,), slopes.size)]

    def _token(self) -> Any:
        return ("fastlayer.Activation", self._key)

    def _title(self) -> str:
        """Return a short text for tables and messages: 'relu', or with its parameters."""
        if self.num_parameters > 1:
            return f"{self._name}({self.num_parameters} slopes)"
        inner = repr(self).removeprefix(f"Activation({self._name!r}")[:-1]
        return f"{self._name}({inner.removeprefix(', ')})" if inner else self._name

    def _argument(self) -> str:
        return repr(self._name) if self._title() == self._name else repr(self)

    def _describe(self, key: str, arrays: dict[str, Array]) -> dict[str, Any]:
        plain = self.parameters
        slopes = plain.pop("weight", None)
        if slopes is not None:
            arrays[f"{key}.slopes"] = slopes
            plain["weight"] = {"shape": list(slopes.shape), "dtype": slopes.dtype.name}
        return {"type": "Activation", "name": self._name, "parameters": plain}

    @classmethod
    def _outline(cls, spec: Any, key: str, reader: Reader) -> Outline:
        name = reader.field(spec, "name", str, key)
        parameters = reader.numbers(reader.field(spec, "parameters", dict, key))
        if name != "prelu":
            with unfit(
                key, TypeError, ValueError, OverflowError
            ):  # no such name, parameter or number
                made = cls(name, **parameters)
                resolve_rowwise(made)
            return Outline(made._title(), made._sizes, lambda: made)
        if set(parameters) != {"weight"}:
            raise Damaged(key, "prelu has one parameter, weight")
        stored = reader.field(parameters, "weight", dict, key)
        shape = tuple(reader.field(stored, "shape", list, key))
        if len(shape) > 1 or not all(type(d) is int and d >= 0 for d in shape):
            raise Damaged(key, f"impossible shape {shape!r:.80} of prelu slopes")
        slopes = reader.want(f"{key}.slopes", shape, reader.float_dtype(stored, key))
        n = shape[0] if shape and shape[0] != 1 else None
        sizes = Sizes(n, n, n, None, True)
        return Outline(f"prelu({n} slopes)", sizes, lambda: cls("prelu", weight=slopes()))

    def __repr__(self) -> str:
        chosen = "".join(
            f", {key}={v.tolist() if isinstance(v, np.ndarray) else v!r}"
            for key, v in self._parameters.items()
            if key == "weight" or v != _KINDS[self._name].defaults[key]
        )
        return f"Activation({self._name!r}{chosen})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Activation) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("an Activation can't be changed; make another one")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("an Activation can't be changed; make another one")

    def __copy__(self) -> Activation:
        return self

    def __deepcopy__(self, memo: object) -> Activation:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Activation, self._name, **self._parameters), ()


def _parameter(key: str, value: Any) -> Any:
    if key == "approximate":
        return value
    if key == "axis":
        if not hasattr(value, "__index__"):
            raise TypeError(f"axis must be an integer, got {value!r}")
        return int(value.__index__())
    if key != "weight":
        return number(key, value)
    slopes = as_real(value, "weight")
    check_slope(slopes)
    slopes = slopes.reshape(()) if slopes.size == 1 else slopes
    return frozen(slopes.astype(np.float64))  # exact for both kinds of layer


def _hashable(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return (value.shape, value.dtype.str, value.tobytes())
    return value


def canonical_name(name: str) -> Name:
    """Return the name that `name` stands for, or raise with the known ones and a guess."""
    known = _ALIASES.get(name, name)
    if known in _KINDS:
        return typing.cast("Name", known)
    from difflib import get_close_matches  # slow to import, and needed for mistakes only

    names = [*_KINDS, *_ALIASES]
    close = get_close_matches(name.lower().replace("-", "_"), names, n=1, cutoff=0.5)
    guess = f"; did you mean {close[0]!r}?" if close else "."
    raise ValueError(f"unknown activation {name!r}{guess} Known: {', '.join(names)}")


def named(name: str, **parameters: Any) -> Activation:
    """Return the activation of a name that is only known now: from a file, or another library."""
    return Activation(canonical_name(name), **parameters)


_RESOLVED: dict[object, Activation] = {n: named(n) for n in _KINDS if n != "prelu"}
_RESOLVED |= {_KINDS[str(n)].function: a for n, a in _RESOLVED.items()}
_RESOLVED |= {alias: _RESOLVED[name] for alias, name in _ALIASES.items()}
_RESOLVED[None] = _RESOLVED["identity"]


def resolve(activation: ActivationLike) -> Activation | Callable[..., Any]:
    """Return what `activation=` means: an `Activation`, or an opaque callable as it is.

    Raises
    ------
    ValueError
        An unknown name.
    TypeError
        Not callable, or ``prelu`` without its slopes.
    """
    if isinstance(activation, Activation):
        return activation
    try:
        known = _RESOLVED.get(activation)
    except TypeError:  # an unhashable callable
        known = None
    if known is not None:
        return known
    if isinstance(activation, str):
        return Activation(activation)
    if activation is _KINDS["prelu"].function:
        return Activation("prelu")
    if not callable(activation):
        hint = "; pass its method .f" if callable(getattr(activation, "f", None)) else ""
        raise TypeError(
            "activation must be None, a name, an fl.Activation, a fastlayer function or a "
            f"callable, got {type(activation).__name__}{hint}"
        )
    return activation


def resolve_rowwise(activation: ActivationLike) -> Activation | Callable[..., Any]:
    """Resolve an activation for use inside a layer or network, where rows are samples."""
    resolved = resolve(activation)
    if isinstance(resolved, Activation) and resolved.parameters.get("axis", -1) != -1:
        raise ValueError(
            f"{resolved!r} can't be part of a layer: there {resolved.name} runs over the "
            "features, axis=-1, also where the call has axis=0"
        )
    return resolved
