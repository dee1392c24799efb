"""A network as plain data: a JSON document about its parts, and arrays by name.

What a file holds, whatever its format; docs/model_files.md describes it. Parts describe and read
themselves; which there are, a table says that the reader is given.

A reader trusts nothing: every field is checked, and no name in a document chooses what code runs
beyond that table. Three steps, so that a file that is refused has cost no more than its own size:
the document against what the file says of its arrays, the arrays, and only then the packed layers.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.arrays import FLOAT32, FLOAT64
from fastlayer.errors import Damaged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeAlias

    from fastlayer.arrays import Array, DType
    from fastlayer.files.reading import Find
    from fastlayer.run.part import Outline, Part

    Table: TypeAlias = Mapping[str, type[Part]]  # from the type of a part to its class

# The second one may have these fields, which a reader of the first would not heed.
VERSIONS = (1, 2)
_MORE = {"traits", "inputs", "outputs"}
# JSON has no infinities, but `hardtanh` may be open on one side.
_INFINITIES = {"Infinity": float("inf"), "-Infinity": float("-inf")}
# A document is a tree of networks and residuals; deeper than any real one means a hostile file.
_DEEPEST = 64
# Features of layers and norms without arrays, in all: what a file may ask for and not hold.
_MOST_BARE = 1 << 20
_LONGEST_NAME = 100
_LARGEST = int(np.finfo(np.float64).max)  # of whole numbers that are to be floats
# NumPy parses any other text as Python.
_DTYPES = {dtype.name: dtype for dtype in (FLOAT32, FLOAT64)}


def to_document(net: Any) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the document and the arrays of a network.

    Raises
    ------
    ValueError
        An activation or layer that is a Python function.
    """
    arrays: dict[str, Array] = {}
    layers = [part._describe(f"{i}", arrays) for i, part in enumerate(net._parts)]
    content = {**net._own_fields, "layers": layers}
    version = VERSIONS[_has_more(content)]
    document = {"format": "fastlayer", "version": version, "dtype": net.dtype.name}
    return _without_infinities({**document, **content}), arrays


def encode(document: dict[str, Any]) -> bytes:
    """Return the document as a file holds it."""
    import json

    return json.dumps(document, allow_nan=False).encode()


def from_document(document: Any, find: Find, table: Table) -> Any:
    """Make a network from a document; `find` says what the file knows of an array.

    Raises
    ------
    Damaged
        Anything that is missing, of the wrong kind or inconsistent.
    """
    reader = Reader(document, find, table)
    outline = reader.network(document)
    reader.fetch()
    return outline.make()


def check(document: dict[str, Any], arrays: dict[str, Array], table: Table) -> None:
    """Raise `Damaged` for what `from_document` would refuse, so that it is not written."""
    from fastlayer.files.reading import Stored

    def find(name: str) -> Stored:
        a = arrays[name]
        return Stored(a.dtype.name, a.shape, lambda: a)

    Reader(document, find, table).network(document)


class Reader:
    """Checks the parts of a document, and collects the arrays that they need."""

    def __init__(self, document: Any, find: Find, table: Table) -> None:
        self.dtype = _dtype(document)
        self._find, self._table = find, table
        self._wanted: dict[str, Callable[[], Array]] = {}
        self._arrays: dict[str, Array] = {}
        self._bare = 0
        self._depth = -1

    def network(self, document: Any) -> Outline:
        """Check a whole document; its arrays are not read yet."""
        return self.part({**document, "type": "Network"}, "layers")

    def chain(self, spec: Any, key: str) -> list[Outline]:
        """Check the parts of a network or residual."""
        self._depth += 1
        if self._depth > _DEEPEST:
            raise Damaged(key, f"nested more than {_DEEPEST} deep")
        prefix = "" if key == "layers" else f"{key}."
        layers = self.field(spec, "layers", list, key)
        outlines = [self.part(layer, f"{prefix}{i}") for i, layer in enumerate(layers)]
        self._depth -= 1
        return outlines

    def part(self, spec: Any, key: str) -> Outline:
        """Check one part."""
        kind = self.field(spec, "type", str, key)
        if kind not in self._table:
            raise Damaged(key, f"unknown layer type {kind!r:.40}")
        return self._table[kind]._outline(spec, key, self)

    def fetch(self) -> None:
        """Read all arrays, and check what could be wrong with their values."""
        for name, read in self._wanted.items():
            array = read()
            # fmin passes over NaN, which is as allowed here as in `BatchNorm`.
            if name.endswith(".running_var") and np.fmin.reduce(array, initial=0) < 0:
                raise Damaged(name, "holds a negative variance")
            self._arrays[name] = array

    def want(
        self, name: str, shape: Sequence[int], dtype: DType | None = None
    ) -> Callable[[], Array]:
        """Check an array and return a way to take it, once, after `fetch`.

        `dtype` is that of the network by default.
        """
        found = self._find(name)
        wanted = self.dtype if dtype is None else dtype
        if found.dtype != wanted.name:
            raise Damaged(name, f"has dtype {found.dtype}, expected {wanted}")
        if found.shape != shape:
            raise Damaged(name, f"has shape {found.shape}, expected {shape}")
        self._wanted[name] = found.read
        return partial(self._arrays.pop, name)

    def charge(self, key: str, features: int) -> None:
        """Count features that no array in the file vouches for."""
        self._bare += features
        if self._bare > _MOST_BARE:
            raise Damaged(key, f"more than {_MOST_BARE} features without arrays in the file")

    def numbers(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return a dictionary with the infinities that JSON writes as text."""
        return {k: _INFINITIES.get(v, v) if type(v) is str else v for k, v in given.items()}

    @staticmethod
    def field(spec: Any, name: str, kind: type[Any], key: str) -> Any:
        """Return a field of a part, which must be of this kind."""
        if not isinstance(spec, dict) or name not in spec:
            raise Damaged(key, f"the field {name!r} is missing")
        value = spec[name]
        if kind is float and type(value) is str:
            value = _INFINITIES.get(value, value)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value) if abs(value) <= _LARGEST else None
        bad = isinstance(value, int) and kind is int and (isinstance(value, bool) or value < 0)
        if not isinstance(value, kind) or bad or (kind is str and len(value) > _LONGEST_NAME):
            raise Damaged(key, f"the field {name!r} holds {value!r:.40}, expected {kind.__name__}")
        return value

    @staticmethod
    def float_dtype(spec: Any, key: str) -> DType:
        """Return the dtype that the field "dtype" names."""
        name = Reader.field(spec, "dtype", str, key)
        if name not in _DTYPES:
            raise Damaged(key, f"the dtype is {name!r:.40}, expected {' or '.join(_DTYPES)}")
        return _DTYPES[name]


def _dtype(document: Any) -> DType:
    if not isinstance(document, dict) or document.get("format") != "fastlayer":
        raise Damaged("format", "not a network that fastlayer saved")
    version = document.get("version")
    if version not in VERSIONS or isinstance(version, bool):
        raise Damaged(
            "version",
            f"{version!r:.40} is unknown; this version of fastlayer reads {VERSIONS[0]} to "
            f"{VERSIONS[-1]}, and a newer one may read more",
        )
    return Reader.float_dtype(document, "dtype")


def _has_more(spec: dict[str, Any]) -> bool:
    inner = [*spec.get("layers", ()), *spec.get("branches", ())]
    return not _MORE.isdisjoint(spec) or any(map(_has_more, inner))


def _without_infinities(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_infinities(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_infinities(v) for v in value]
    return next((name for name, infinity in _INFINITIES.items() if value == infinity), value)
