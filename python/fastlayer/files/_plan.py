"""The document of a file, and what the file says of its arrays -> a network.

Trusts nothing: every field is checked, and no name in a document chooses what code runs beyond the
parts listed here. Three steps, so that a file that is refused has cost no more than its own size:
the document against what the file says of its arrays, the arrays, and only then the packed layers.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer.arrays import FLOAT64, float_dtype
from fastlayer.errors import Damaged
from fastlayer.files.document import INFINITIES, NORMS, VERSION
from fastlayer.files.reading import Stored
from fastlayer.functions.activation import Activation, resolve_rowwise
from fastlayer.network.chain import Flatten, Part
from fastlayer.network.layer import Layer
from fastlayer.network.module import Module
from fastlayer.network.network import Network
from fastlayer.network.residual import Residual

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array, DType

    Find = Callable[[str], Stored]

# A document is a tree of networks and residuals; deeper than any real one means a hostile file.
_DEEPEST = 64
# Features of layers and norms without arrays, in all: what a file may ask for and not hold.
_MOST_BARE = 1 << 20
_LONGEST_NAME = 100


class _Outline(Module):
    """Stands in for a part while the document is checked: how many features go in and out."""

    def __init__(self, name: str, k: int | None, n: int | None, dtype: DType | None) -> None:
        self._name, self._sizes = name, (k, n)
        self._typed = dtype is not None
        self._dtype = dtype or FLOAT64

    @property
    def in_features(self) -> int | None:
        return self._sizes[0]

    @property
    def out_features(self) -> int | None:
        return self._sizes[1]

    def _title(self) -> str:
        return self._name


class _Plan(NamedTuple):
    """A part that has been checked, and how to make it."""

    outline: Part
    make: Callable[[], Part]


def from_plain(document: Any, find: Find) -> Network:
    """Make a network from a document; `find` says what the file knows of an array.

    Raises
    ------
    Damaged
        Anything that is missing, of the wrong kind or inconsistent.
    """
    planner = _Planner(_dtype(document), find)
    plans = planner.network(document)
    planner.fetch()
    return Network._of(tuple(plan.make() for plan in plans), planner.dtype)


def check(document: dict[str, Any], arrays: dict[str, Array]) -> None:
    """Raise `Damaged` for what `from_plain` would refuse, so that it is not written."""

    def find(name: str) -> Stored:
        a = arrays[name]
        return Stored(a.dtype.name, a.shape, lambda: a)

    _Planner(_dtype(document), find).network(document)


def _dtype(document: Any) -> DType:
    if not isinstance(document, dict) or document.get("format") != "fastlayer":
        raise Damaged("format", "not a network that fastlayer saved")
    version = document.get("version")
    if version != VERSION or isinstance(version, bool):
        raise Damaged(
            "version",
            f"{version!r:.40} is unknown; this version of fastlayer reads {VERSION}, and a newer "
            "one may read more",
        )
    try:
        return float_dtype(_field(document, "dtype", str, "dtype"))
    except TypeError as error:
        raise Damaged("dtype", str(error)) from None


class _Planner:
    """Checks the layers of a document, and collects the arrays that they need."""

    def __init__(self, dtype: DType, find: Find) -> None:
        self.dtype = dtype
        self._find = find
        self._wanted: dict[str, Callable[[], Array]] = {}
        self._arrays: dict[str, Array] = {}
        self._bare = 0

    def network(self, document: Any) -> list[_Plan]:
        """Check a whole document; its arrays are not read yet."""
        plans = self._chain(document, "layers", 0)
        try:
            Network._of(tuple(plan.outline for plan in plans), self.dtype)
        except ValueError as error:
            raise Damaged("layers", str(error)) from None
        return plans

    def _chain(self, spec: Any, key: str, depth: int) -> list[_Plan]:
        if depth > _DEEPEST:
            raise Damaged(key, f"nested more than {_DEEPEST} deep")
        prefix = "" if key == "layers" else f"{key}."
        layers = _field(spec, "layers", list, key)
        return [self._plan(layer, f"{prefix}{i}", depth) for i, layer in enumerate(layers)]

    def fetch(self) -> None:
        """Read all arrays, and check what could be wrong with their values."""
        for name, read in self._wanted.items():
            array = read()
            # fmin passes over NaN, which is as allowed here as in `BatchNorm`.
            if name.endswith(".running_var") and np.fmin.reduce(array, initial=0) < 0:
                raise Damaged(name, "holds a negative variance")
            self._arrays[name] = array

    def _want(self, name: str, shape: tuple[int, ...], dtype: DType) -> Callable[[], Array]:
        """Check an array and return a way to take it, once, after `fetch`."""
        found = self._find(name)
        if found.dtype != dtype.name:
            raise Damaged(name, f"has dtype {found.dtype}, expected {dtype}")
        if found.shape != shape:
            raise Damaged(name, f"has shape {found.shape}, expected {shape}")
        self._wanted[name] = found.read
        return partial(self._arrays.pop, name)

    def _plan(self, spec: Any, key: str, depth: int) -> _Plan:
        kind = _field(spec, "type", str, key)
        try:
            if kind == "Layer":
                return self._layer(spec, key)
            if kind == "Activation":
                return self._activation(spec, key)
            if kind == "Flatten":
                return _Plan(Flatten(), Flatten)
            if kind in NORMS:
                return self._norm(spec, key, *NORMS[kind])
            if kind in ("Network", "Residual"):
                plans = self._chain(spec, key, depth + 1)
                combine = self._combined if kind == "Network" else _residual
                outline = combine([plan.outline for plan in plans])
                return _Plan(outline, lambda: combine([plan.make() for plan in plans]))
        except (TypeError, ValueError, OverflowError) as error:
            if isinstance(error, Damaged):
                raise
            raise Damaged(key, str(error)) from None
        raise Damaged(key, f"unknown layer type {kind!r:.40}")

    def _combined(self, parts: list[Part]) -> Part:
        return Network._of(tuple(parts), self.dtype)

    def _layer(self, spec: Any, key: str) -> _Plan:
        n, k = (_field(spec, name, int, key) for name in ("out_features", "in_features"))
        weight = self._want(f"{key}.weight", (n, k), self.dtype)
        bias = None
        if _field(spec, "bias", bool, key):
            bias = self._want(f"{key}.bias", (n,), self.dtype)
        if not n * k:
            self._charge(key, n + k)
        chosen = _field(spec, "activation", dict, key)
        activation = self._activation(chosen, f"{key}.activation")
        outline = activation.outline
        slopes = outline.in_features if isinstance(outline, _Outline) else None
        if slopes not in (None, n):
            raise Damaged(key, f"prelu has {slopes} slopes, but the layer has {n} outputs")

        def make() -> Part:
            b = None if bias is None else bias()
            return Layer.from_arrays(weight(), b, activation.make(), dtype=self.dtype)

        return _Plan(_Outline(f"Layer({k}, {n})", k, n, self.dtype), make)

    def _activation(self, spec: dict[str, Any], key: str) -> _Plan:
        name = _field(spec, "name", str, key)
        given = _field(spec, "parameters", dict, key)
        parameters = {k: INFINITIES.get(v, v) if type(v) is str else v for k, v in given.items()}
        if name != "prelu":
            activation = resolve_rowwise(Activation(name, **parameters))
            return _Plan(activation, lambda: activation)
        if set(parameters) != {"weight"}:
            raise Damaged(key, "prelu has one parameter, weight")
        described = _field(parameters, "weight", dict, key)
        shape = tuple(_field(described, "shape", list, key))
        if len(shape) > 1 or not all(type(d) is int and d >= 0 for d in shape):
            raise Damaged(key, f"impossible shape {shape!r:.80} of prelu slopes")
        kind = float_dtype(_field(described, "dtype", str, key))
        slopes = self._want(f"{key}.slopes", shape, kind)
        n = shape[0] if shape and shape[0] != 1 else None
        return _Plan(
            _Outline(f"prelu({n} slopes)", n, n, None),
            lambda: Activation("prelu", weight=slopes()),
        )

    def _norm(self, spec: Any, key: str, norm: type[Any], names: tuple[str, ...]) -> _Plan:
        n = _field(spec, "features", int, key)
        eps = _field(spec, "eps", float, key)
        listed = _field(spec, "arrays", list, key)
        if n < 1 or not eps >= 0:
            raise Damaged(key, f"{norm.__name__} of {n} features with eps={eps} is impossible")
        taken = {
            name: self._want(f"{key}.{name}", (n,), self.dtype) for name in names if name in listed
        }
        if not taken:
            self._charge(key, n)

        def make() -> Part:
            arrays = {name: take() for name, take in taken.items()}
            part: Part = norm(n, eps=eps, dtype=self.dtype, **arrays)
            return part

        return _Plan(_Outline(f"{norm.__name__}({n})", n, n, self.dtype), make)

    def _charge(self, key: str, features: int) -> None:
        self._bare += features
        if self._bare > _MOST_BARE:
            raise Damaged(key, f"more than {_MOST_BARE} features without arrays in the file")


def _residual(parts: list[Part]) -> Part:
    return Residual(*parts)


def _field(spec: Any, name: str, kind: type[Any], key: str) -> Any:
    if not isinstance(spec, dict) or name not in spec:
        raise Damaged(key, f"the field {name!r} is missing")
    value = spec[name]
    if kind is float and type(value) is str:
        value = INFINITIES.get(value, value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    bad = isinstance(value, int) and kind is int and (isinstance(value, bool) or value < 0)
    if not isinstance(value, kind) or bad or (kind is str and len(value) > _LONGEST_NAME):
        raise Damaged(key, f"the field {name!r} holds {value!r:.40}, expected {kind.__name__}")
    return value
