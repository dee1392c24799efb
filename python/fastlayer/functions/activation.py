"""`Activation`, and what `activation=` accepts everywhere: names, functions, objects, callables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.arrays import as_real, cast, frozen
from fastlayer.functions import elementwise

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from numpy.typing import ArrayLike

    from fastlayer.arrays import Array, DType

    Fused: TypeAlias = tuple[str, float, float]
    ActivationLike: TypeAlias = "str | Activation | Callable[..., Any] | None"

IDENTITY: Fused = ("identity", 0.0, 0.0)

_NAMES = """
    identity relu leaky_relu prelu relu6 hardtanh hardsigmoid hardswish elu celu selu gelu silu mish
    softplus sigmoid log_sigmoid tanh softsign exp softmax log_softmax
"""
_FUNCTIONS: dict[str, Callable[..., Array]] = {
    name: getattr(elementwise, name) for name in _NAMES.split()
}
_ALIASES = {"swish": "silu", "logistic": "sigmoid"}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "leaky_relu": {"negative_slope": 0.01},
    "hardtanh": {"min_val": -1.0, "max_val": 1.0},
    "elu": {"alpha": 1.0},
    "celu": {"alpha": 1.0},
    "gelu": {"approximate": "none"},
    "softplus": {"beta": 1.0, "threshold": 20.0},
    "softmax": {"axis": -1},
    "log_softmax": {"axis": -1},
    "prelu": {},
}


def _lower(name: str, p: dict[str, Any]) -> Fused | None:
    """Check the parameters of an activation; return its name and numbers in the core, if any."""
    if name in ("softmax", "log_softmax"):
        return (name, 0.0, 0.0) if p["axis"] == -1 else None
    if name == "prelu":
        return ("leaky_relu", float(p["weight"]), 0.0) if p["weight"].size == 1 else None
    if name == "gelu":
        return (elementwise.gelu_kernel(p["approximate"]), 0.0, 0.0)
    if name == "relu6":
        return ("hardtanh", 0.0, 6.0)
    values = [float(v) for v in p.values()]
    if name == "hardtanh":
        elementwise.check_range(*values)
    elif name == "celu":
        elementwise.check_nonzero(*values)
    elif name == "softplus":
        elementwise.check_positive(values[0])
    p0, p1 = (*values, 0.0, 0.0)[:2]
    return (name, p0, p1)


class Activation:
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
    _name: str
    _parameters: dict[str, Any]
    _fused: Fused | None  # name and numbers of the core's kernel, where there is a single one
    _key: tuple[Any, ...]

    def __init__(self, name: str, **parameters: Any) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name must be a string, got {name!r}")
        name = canonical_name(name)
        known = _DEFAULTS.get(name, {})
        allowed = ["weight"] if name == "prelu" else list(known)
        for key in parameters:
            if key not in allowed:
                takes = f"takes {', '.join(allowed)}" if allowed else "takes no parameters"
                raise TypeError(f"activation {name!r} has no parameter {key!r}; it {takes}")
        if name == "prelu" and "weight" not in parameters:
            raise TypeError(
                "prelu needs its slopes: fl.Activation('prelu', weight=...) with a number "
                "or one slope for each feature"
            )
        values = {key: _parameter(key, v) for key, v in {**known, **parameters}.items()}
        put = object.__setattr__
        put(self, "_name", name)
        put(self, "_parameters", values)
        put(self, "_fused", _lower(name, values))
        put(self, "_key", (name, *(_hashable(v) for v in values.values())))

    @property
    def name(self) -> str:
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
            return elementwise.apply_prelu(x, self._parameters["weight"], out, weak=True)
        return _FUNCTIONS[self._name](x, **self._parameters, out=out)

    def _slopes(self, dtype: DType) -> Array | None:
        """Return the slopes, one for each feature, of a prelu that has several; else None."""
        if self._name != "prelu" or self._fused is not None:
            return None
        return np.ascontiguousarray(cast(self._parameters["weight"], dtype))

    def __repr__(self) -> str:
        chosen = "".join(
            f", {key}={v.tolist() if isinstance(v, np.ndarray) else v!r}"
            for key, v in self._parameters.items()
            if key == "weight" or v != _DEFAULTS[self._name][key]
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
        return _rebuild, (self._name, self._parameters)


def _rebuild(name: str, parameters: dict[str, Any]) -> Activation:
    return Activation(name, **parameters)


def _parameter(key: str, value: Any) -> Any:
    if key == "approximate":
        return value
    if key == "axis":
        if not hasattr(value, "__index__"):
            raise TypeError(f"axis must be an integer, got {value!r}")
        return int(value.__index__())
    if key != "weight":
        return elementwise.number(key, value)
    slopes = as_real(value, "weight")
    elementwise.check_slope(slopes)
    slopes = slopes.reshape(()) if slopes.size == 1 else slopes
    return frozen(slopes.astype(np.float64))  # exact for both kinds of layer


def _hashable(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return (value.shape, value.dtype.str, value.tobytes())
    return value


def canonical_name(name: str) -> str:
    """Return the name that `name` stands for, or raise with the known ones and a guess."""
    known = _ALIASES.get(name, name)
    if known in _FUNCTIONS:
        return known
    from difflib import get_close_matches  # slow to import, and needed for mistakes only

    names = [*_FUNCTIONS, *_ALIASES]
    close = get_close_matches(name.lower().replace("-", "_"), names, n=1, cutoff=0.5)
    guess = f"; did you mean {close[0]!r}?" if close else "."
    raise ValueError(f"unknown activation {name!r}{guess} Known: {', '.join(names)}")


_RESOLVED: dict[object, Activation] = {n: Activation(n) for n in _FUNCTIONS if n != "prelu"}
_RESOLVED |= {alias: _RESOLVED[name] for alias, name in _ALIASES.items()}
_RESOLVED |= {_FUNCTIONS[n]: a for n, a in _RESOLVED.items() if n in _FUNCTIONS}
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
    if isinstance(activation, str) or activation is elementwise.prelu:
        return Activation(activation if isinstance(activation, str) else "prelu")
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


def describe(activation: Activation | Callable[..., Any]) -> str:
    """Return a short text for tables and messages: 'relu', or the name of a function."""
    if not isinstance(activation, Activation):
        return getattr(activation, "__name__", type(activation).__name__)
    if activation.num_parameters > 1:
        return f"{activation.name}({activation.num_parameters} slopes)"
    inner = repr(activation).removeprefix(f"Activation({activation.name!r}")[:-1]
    return f"{activation.name}({inner.removeprefix(', ')})" if inner else activation.name
