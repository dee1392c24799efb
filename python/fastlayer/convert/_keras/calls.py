"""How the layers of a functional model are called, in the words of Keras 3 and of Keras 2."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer.convert._keras.given import MODELS, Given, as_dict
from fastlayer.errors import ConversionError, Damaged
from fastlayer.files.reading import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fastlayer.arrays import Array

# Far above any real model; more than that is a hostile file.
MOST_LAYERS = 2000
# Arguments are arrays, or lists of them; nobody nests them deeper.
_DEEPEST = 4
# Functions of TensorFlow in files of Keras 2, and the name of what they are called with beside the
# first array.
FUNCTIONS = {"SlicingOpLambda": "slice_spec", "TFOpLambda": "y"}
# What Keras 2 writes where the first argument of a function is a constant.
_CONSTANT = "_CONSTANT_VALUE"


class Ref(NamedTuple):
    """An output of a call: the layer's name, the number of the call, and that of its output."""

    name: str
    node: int
    output: int = 0

    @property
    def call(self) -> tuple[str, int]:
        """The call alone."""
        return self.name, self.node


class Call(NamedTuple):
    """One call of a layer.

    `args` has a `Ref`, a number, an array of constants, None, a part of an index, or a list or
    dictionary of such, for each argument; `options` are the keyword arguments that are not null.
    """

    args: list[Any]
    options: dict[str, Any]
    dtype: str = "float32"  # of the arrays, where it is told

    def refs(self) -> list[Ref]:
        """Return what the call depends on."""
        return [value for value in flat(self.args) if isinstance(value, Ref)]

    def filled(self, made: Callable[[Ref], Any]) -> Call:
        """Return the call with what `made` returns for each `Ref`."""
        return self._replace(args=_each(self.args, made))


def flat(value: Any) -> Iterator[Any]:
    """Yield what is in lists and dictionaries."""
    if isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from flat(one)
    else:
        yield value


def _each(value: Any, made: Callable[[Ref], Any]) -> Any:
    if isinstance(value, Ref):
        return made(value)
    if isinstance(value, dict):
        return {name: _each(v, made) for name, v in value.items()}
    return [_each(v, made) for v in value] if isinstance(value, list) else value


def read_call(given: Given, node: int) -> Call:
    """Return what a layer is called with, the `node`-th time.

    Raises
    ------
    ConversionError
        An argument that is no array, number or option without effect.
    Damaged
        What no Keras writes.
    """
    calls: Any = given.spec.get("inbound_nodes")
    if isinstance(calls, list) and _has_been_called(given):
        node -= 1
    known = isinstance(calls, list) and 0 <= node < len(calls)
    given.require(known, f"has no call number {node}")
    call = calls[node]
    if isinstance(call, dict):  # Keras 3
        args = call.get("args")
        kinds = [d for d in _dtypes(args) if d in ("float32", "float64")]
        options = _options(call.get("kwargs"), given)
        found = [_argument(a, given) for a in (args if isinstance(args, list | tuple) else [args])]
        return Call(found, options, *kinds[:1])
    if not isinstance(call, list):
        raise Damaged(given.place, f"is called with {call!r:.40}")
    # Keras 2: [name, node, tensor, options] for each array.
    entries = [call] if call and isinstance(call[0], str) else call
    last = entries[-1] if entries else []
    options = _options(last[3] if isinstance(last, list) and len(last) > 3 else {}, given)
    given_args: list[Any] = [_entry(entry, given) for entry in entries]
    if given.kind not in FUNCTIONS:
        return Call(given_args, options)
    if entries is call:  # the first argument was a list
        given_args = [given_args]
    if FUNCTIONS[given.kind] in options:
        given_args.append(_entry(options.pop(FUNCTIONS[given.kind]), given))
    return Call(given_args, options, given.dtype() or "float32")


def _has_been_called(given: Given) -> bool:
    """Whether the first call of a model is its own, from its input; Keras 2 leaves that out."""
    if given.kind not in MODELS or any(isinstance(c, dict) for c in given.spec["inbound_nodes"]):
        return False
    layers = given.config.get("layers")
    first = layers[0] if isinstance(layers, list) and layers else None
    return isinstance(first, dict) and first.get("class_name") == "InputLayer"


def ordered(
    key: str, named: dict[str, Given], sources: set[str], targets: list[tuple[str, int]]
) -> dict[tuple[str, int], Call | None]:
    """Return the calls that some of them need, each after those that it needs; inputs have none."""
    done: dict[tuple[str, int], Call | None] = {}
    waiting = targets[::-1]
    while waiting:
        name, node = at = waiting[-1]
        if at in done:
            waiting.pop()
            continue
        if name not in named:
            raise Damaged(key, f"layer {name!r:.40} is called, and not there")
        call = None if name in sources else read_call(named[name], node)
        missing = [] if call is None else [r.call for r in call.refs() if r.call not in done]
        waiting += missing
        forward = len(waiting) <= 8 * MOST_LAYERS
        require(forward, key, "its layers call each other in a circle")
        if not missing:
            done[at] = call
    return done


def ref_of(value: Any, place: str) -> Ref:
    """Return the output of a call that ``["name", 0, 0]`` says."""
    match value:
        case [str(name), int(node), int(index), *_] if type(node) is int and type(index) is int:
            if node >= 0 and index >= 0:
                return Ref(name, node, index)
    raise Damaged(place, f"is connected to {value!r:.40}")


def refs_of(value: Any, key: str) -> dict[str, Ref]:
    """Return the inputs or outputs of a model: one, a list, or a dictionary, in its keys' order.

    Those of a dictionary have its names, others those of their layers.
    """
    if isinstance(value, dict):
        return {name: _single(value[name], key) for name in sorted(value)}
    many = isinstance(value, list | tuple) and not (value and isinstance(value[0], str))
    refs = [_single(one, key) for one in value] if many else [ref_of(value, key)]
    return dict(zip(unique([ref.name for ref in refs]), refs, strict=True))


def unique(names: Sequence[str]) -> list[str]:
    """Return names of which none is there twice: "a", "a_1", ..."""
    result: dict[str, None] = {}
    following: dict[str, int] = {}  # numbers, of which all before are taken
    for name in names:
        free, number = name, following.get(name, 1)
        while free in result:
            free, number = f"{name}_{number}", number + 1
        following[name] = number
        result[free] = None
    return [*result]


def _single(value: Any, key: str) -> Ref:
    """Return an input or output, which may be in a list of one."""
    if isinstance(value, list | tuple) and value and not isinstance(value[0], str):
        if len(value) > 1:
            raise ConversionError(
                key, "has inputs or outputs in lists or dictionaries of their own"
            )
        value = value[0]
    return ref_of(value, key)


def constant(value: Any, given: Given) -> Array:
    """Return a constant as float64, rounded to the dtype that it says it has."""
    config = value.get("config") if isinstance(value, dict) else {"value": value}
    config = as_dict(config, given.place)
    dtype = config.get("dtype", "float64")
    if not isinstance(dtype, str) or not dtype.startswith(("float", "bfloat", "int", "uint")):
        raise given.refusal(f"has a constant of {dtype!r:.40}")
    try:
        a = np.asarray(config.get("value"), np.float64)
    except (TypeError, ValueError, OverflowError):
        a = np.array(math.nan)
    if np.isnan(a).any():
        raise Damaged(given.place, f"has the constant {config.get('value')!r:.40}")
    return a.astype(np.float32).astype(np.float64) if dtype == "float32" else a


def _dtypes(value: Any, depth: int = 0) -> Iterator[Any]:
    """Yield the dtypes of the arrays in arguments of Keras 3."""
    if isinstance(value, list | tuple) and depth < _DEEPEST:
        for one in value:
            yield from _dtypes(one, depth + 1)
    elif isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        yield as_dict(value.get("config"), "config").get("dtype")
    elif isinstance(value, dict) and depth < _DEEPEST:
        yield from _dtypes(list(value.values()), depth + 1)


def _argument(value: Any, given: Given, depth: int = 0) -> Any:
    kind = value.get("class_name") if isinstance(value, dict) else None
    if kind == "__keras_tensor__":
        return ref_of(as_dict(value.get("config"), given.place).get("keras_history"), given.place)
    if kind in ("__numpy__", "__tensor__"):
        return constant(value, given)
    if kind == "__slice__" or (isinstance(value, dict) and set(value) == {"start", "stop", "step"}):
        config = as_dict(value.get("config", value), given.place)
        bounds = [config.get(k) for k in ("start", "stop", "step")]
        given.require(all(type(b) in (int, type(None)) for b in bounds), f"has the slice {bounds}")
        return slice(*bounds)
    if kind == "__ellipsis__" or value is None:
        return None if value is None else ...
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if abs(value) < 1e300 else math.inf
    if isinstance(value, list | tuple) and depth < _DEEPEST:
        if value and all(isinstance(v, int | float | list | tuple) for v in value):
            return constant(value, given)
        return [_argument(v, given, depth + 1) for v in value]
    if isinstance(value, dict) and kind is None and depth < _DEEPEST:
        return {name: _argument(v, given, depth + 1) for name, v in sorted(value.items())}
    raise given.refusal(f"is called with {value!r:.60}, which is not an array or number")


def _entry(entry: Any, given: Given) -> Any:
    if isinstance(entry, list) and len(entry) > 2 and entry[0] == _CONSTANT:
        return _argument(entry[2], given)
    named = isinstance(entry, list) and entry and isinstance(entry[0], str)
    if given.kind in FUNCTIONS and not named:
        return _argument(entry, given)
    return ref_of(entry, given.place)


def _options(value: Any, given: Given) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise Damaged(given.place, f"is called with {value!r:.40}")
    options = {k: v for k, v in (value or {}).items() if not _is_null(v)}
    if options.pop("training", False):
        raise given.refusal(
            "is called with training=True, which makes its result random; leave that out"
        )
    return options


def _is_null(value: Any) -> bool:
    """Whether an option is null, for each array where there are several."""
    if isinstance(value, list | tuple | dict):
        return all(v is None for v in (value.values() if isinstance(value, dict) else value))
    return value is None
