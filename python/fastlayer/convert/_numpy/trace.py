"""What a forward pass does, seen by running it: each operation of NumPy on its arrays is noted.

The object is copied with arrays that note what is done with them, so that weights are found by
their use, whatever they are called. It is run twice, with other numbers and another number of
samples: what then differs, beside the numbers in the arrays, is no constant, and is refused.
"""

from __future__ import annotations

import copy
import math
from contextlib import suppress
from types import CellType, FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer.convert._numpy.arrays import MOST_SETTINGS
from fastlayer.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import Array
    from fastlayer.convert._numpy.arrays import Arrays

# Each is noted as a call of the method of plain arrays; NumPy tells the rest by itself.
_METHODS = (
    *("__getitem__", "all", "any", "argmax", "argmin", "argsort", "astype", "clip", "copy"),
    *("cumsum", "dot", "flatten", "max", "mean", "min", "prod", "ravel", "repeat", "reshape"),
    *("round", "squeeze", "std", "sum", "swapaxes", "take", "transpose", "var"),
)
_MOST_NODES = 4096  # a loop over samples or neurons is no use here


class Ref(NamedTuple):
    """The result of an earlier operation."""

    node: int


class Batch(NamedTuple):
    """The number of samples."""


class Count(NamedTuple):
    """The numbers of the samples, as np.arange gives them."""


class Fill(NamedTuple):
    """An array of one number, as np.ones gives it."""

    shape: tuple[Any, ...]
    value: Any


class Node(NamedTuple):
    """An operation: what was called, and with what. An array of the object or the input has none."""

    call: Callable[..., Any] | None
    args: Any
    kwargs: dict[str, Any]
    value: Any  # on the numbers that it was tried with


def mapped(tree: Any, function: Callable[[Any], Any]) -> Any:
    """Return arguments with what is in their tuples, lists, dicts and slices mapped."""
    if type(tree) in (tuple, list):
        return type(tree)(mapped(item, function) for item in tree)
    if type(tree) is dict:
        return {key: mapped(item, function) for key, item in tree.items()}
    if type(tree) is slice:
        return slice(*(mapped(v, function) for v in (tree.start, tree.stop, tree.step)))
    return function(tree)


class Traced(np.ndarray[Any, Any]):
    """An array that notes what is done with it."""

    _trace: Trace
    _node: int | None

    def __array_finalize__(self, obj: Any) -> None:
        self._trace = getattr(obj, "_trace", None)  # type: ignore[assignment]  # set by `Trace`
        self._node = None

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        call = ufunc if method == "__call__" else getattr(ufunc, method)
        return _trace_of(inputs, kwargs).note(call, inputs, kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return _trace_of(args, kwargs).note(func, args, kwargs)

    def __setitem__(self, key: Any, value: Any) -> None:
        trace = _trace_of((self, key, value), {})
        done = trace.note(_put, (self, key, value), {})
        trace.overwrite(self, done)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __deepcopy__(self, memo: Any) -> Traced:
        return self

    @property
    def T(self) -> Any:
        return self.transpose()


class Method(NamedTuple):
    """A method of arrays."""

    name: str

    def __call__(self, array: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(array, self.name)(*args, **kwargs)


def name_of(call: Any) -> str:
    """Return what a call is called."""
    return str(getattr(call, "__name__", getattr(call, "name", call)))


def _noted(name: str) -> Callable[..., Any]:
    method = Method(name)

    def call(self: Traced, *args: Any, **kwargs: Any) -> Any:
        return _trace_of((self, args), kwargs).note(method, (self, *args), kwargs)

    return call


for _name in _METHODS:
    setattr(Traced, _name, _noted(_name))


def _put(array: Array, key: Any, value: Any) -> Array:
    changed = array.copy()
    changed[key] = value
    return changed


def _trace_of(*trees: Any) -> Trace:
    found: list[Trace] = []
    mapped(trees, lambda v: found.append(v._trace) if isinstance(v, Traced) else None)
    return found[0]


class Trace:
    """The operations of one run, in their order; the first is the input.

    Parameters
    ----------
    x : ndarray
        The input.
    """

    def __init__(self, x: Array) -> None:
        self.nodes: list[Node] = []
        self._known: dict[int, int] = {}  # arrays of the object, by identity, as nodes
        self._held: list[Any] = []  # so that no other object gets such an identity
        self.input = self.leaf(x, x)

    def leaf(self, array: Array, given: Array) -> Traced:
        """Return `array` as what stands for `given`, an array of the object."""
        self._known[id(given)] = len(self.nodes)
        self._held.append(given)
        result = np.asarray(array).view(Traced)
        result._trace, result._node = self, len(self.nodes)
        self.nodes.append(Node(None, (), {}, array))
        return result

    def _add(self, call: Any, args: Any, kwargs: Any, value: Any) -> Traced:
        if len(self.nodes) == len(self._known) + _MOST_NODES:
            raise ConversionError("forward pass", f"takes more than {_MOST_NODES} steps")
        result = np.array(value).view(Traced)
        result._trace, result._node = self, len(self.nodes)
        # A copy: what is done in place later must not change it.
        self.nodes.append(Node(call, args, kwargs, np.array(value)))
        return result

    def note(self, call: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Call something on plain arrays, and note it."""
        kwargs = dict(kwargs)
        out = kwargs.pop("out", None)
        out = out[0] if isinstance(out, tuple) else out
        value = call(*mapped(args, _plain), **mapped(kwargs, _plain))
        if isinstance(value, list | tuple) and any(isinstance(v, np.ndarray) for v in value):
            refs = mapped(args, self._ref), mapped(kwargs, self._ref)
            return [self._add(_Item(call, i), *refs, v) for i, v in enumerate(value)]
        if not isinstance(value, np.ndarray | np.generic):
            return value  # a shape, or whether something holds
        result = self._add(call, mapped(args, self._ref), mapped(kwargs, self._ref), value)
        return result if out is None else self.overwrite(out, result)

    def overwrite(self, target: Any, result: Any) -> Any:
        """Give an array the value of another, in place."""
        if result.dtype != target.dtype:
            result = result.astype(target.dtype)
        _plain(target)[...] = _plain(result)
        if not isinstance(target, Traced):
            return result  # which `a += b` makes the new `a`
        target._node = result._node
        return target

    def ref_of(self, value: Any) -> Ref | None:
        """Return which node a result is, None where it is none."""
        ref = self._ref(value)
        return ref if isinstance(ref, Ref) else None

    def _ref(self, value: Any) -> Any:
        if isinstance(value, Traced) and value._node is not None:
            return Ref(value._node)
        if not isinstance(value, np.ndarray):
            return value
        if id(value) in self._known:
            return Ref(self._known[id(value)])
        plain = np.array(_plain(value))
        return self._found(plain) or plain

    def _found(self, a: Array) -> Ref | None:
        """Return the node that an array is a plain copy of, which the numbers tell.

        All are random, so that equal ones are the same.
        """
        if a.dtype.kind != "f" or a.size < 2 or (a == a.flat[0]).all():
            return None
        for i in range(len(self.nodes) - 1, -1, -1):
            value, ref = self.nodes[i].value, Ref(i)
            if value.size == a.size:
                if np.array_equal(value, a):
                    return self._as_type(ref, a)
                if np.array_equal(value.T, a):
                    return self._as_type(self._made(np.transpose, (ref,), a), a)
                if np.array_equal(value.ravel(), a.ravel()):
                    return self._as_type(self._made(np.reshape, (ref, a.shape), a), a)
            for axis in range(a.ndim) if value.ndim == a.ndim and value.size < a.size else ():
                n = a.shape[axis]
                for at, rest in ((0, range(1, n)), (n - 1, range(n - 1))):
                    put = a.take(at, axis)
                    if np.array_equal(a.take(rest, axis), value) and np.ptp(put) == 0:
                        return self._made(np.insert, (ref, at, put.flat[0], axis), a)
        return self._multiplied(a)

    def _multiplied(self, a: Array) -> Ref | None:
        """Return `a` as a product, which the method `dot` of a plain array tells nobody of.

        The shapes leave a few pairs.
        """
        close = float(np.sqrt(np.finfo(a.dtype).eps))
        for j, weight in enumerate(self.nodes):
            for i, node in enumerate(self.nodes) if np.ndim(weight.value) == 2 else ():
                x, w = node.value, weight.value
                fits = x.ndim and x.shape[-1] == len(w) and x.shape[:-1] + w.shape[1:] == a.shape
                if fits and x.dtype.kind == "f" and np.allclose(x.dot(w), a, close, close):
                    return self._made(np.dot, (Ref(i), Ref(j)), a)
        return None

    def _made(self, call: Any, args: Any, value: Array) -> Ref:
        self._add(call, args, {}, value)
        return Ref(len(self.nodes) - 1)

    def _as_type(self, ref: Ref, a: Array) -> Ref:
        if self.nodes[ref.node].value.dtype == a.dtype:
            return ref
        return self._made(Method("astype"), (ref, a.dtype), a)


class _Item(NamedTuple):
    """One of the results of a call."""

    call: Any
    which: int

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)[self.which]


def _plain(value: Any) -> Any:
    return value.view(np.ndarray) if isinstance(value, Traced) else value


def traced(obj: Any, arrays: Arrays, run: Callable[[Any, Any], Any], x: Array, seed: int) -> Any:
    """Run a copy of an object on `x`, its arrays slightly other ones.

    Parameters
    ----------
    obj : object
        The network.
    arrays : Arrays
        Those in it.
    run : callable
        Runs an object on an input.
    x : ndarray
        The input.
    seed : int
        Of the other numbers.

    Returns
    -------
    (Trace, Ref or None, result)
        What was done, which operation the result is of, and the result.
    """
    trace, rng = Trace(x), np.random.default_rng(seed)
    memo: dict[int, Any] = {}
    for i, array in enumerate(arrays.values):
        wide = np.asarray(array)
        if wide.dtype.kind == "f" and i < arrays.own:
            # Positive ones stay positive; zeros and equal numbers become different.
            wide = wide + (0.1 * np.abs(wide) + 0.01) * rng.uniform(0.1, 1, wide.shape)
        memo[id(array)] = trace.leaf(wide.astype(array.dtype), array)
    cells: list[tuple[CellType, CellType]] = []
    for function in arrays.functions:
        around = [CellType() for _ in function.__closure__ or ()]
        cells += zip(around, function.__closure__ or (), strict=True)
        memo[id(function)] = FunctionType(
            *(function.__code__, function.__globals__, function.__name__),
            *(function.__defaults__, tuple(around)),
        )
        memo[id(function)].__kwdefaults__ = function.__kwdefaults__
    try:
        copied = copy.deepcopy(obj, memo)
    except Exception as error:
        raise ConversionError(
            "copy.deepcopy", f"fails ({error}), and a copy is what is followed; keep that elsewhere"
        ) from error
    for cell, then in cells:
        with suppress(ValueError):
            cell.cell_contents = copy.deepcopy(then.cell_contents, memo)
    for owner, name, array in arrays.of_classes:
        if memo.get(id(owner), owner) is not owner:
            setattr(memo[id(owner)], name, memo[id(array)])
    with np.errstate(all="ignore"):
        result = run(copied, trace.input)
    return trace, trace.ref_of(result), result


def common(first: Trace, second: Trace, samples: tuple[int, int]) -> list[Node]:
    """Return the operations of two runs with what is the same in both.

    Raises
    ------
    ConversionError
        They did other things, or with other constants.
    """
    place = "forward pass"
    nodes = []
    same = len(first.nodes) == len(second.nodes)
    if not same or any(a.call != b.call for a, b in zip(first.nodes, second.nodes, strict=True)):
        raise ConversionError(place, "takes other steps for other numbers or samples")
    for a, b in zip(first.nodes, second.nodes, strict=True):
        try:
            args = _same((a.args, a.kwargs), (b.args, b.kwargs), samples)
        except ValueError:
            name = name_of(a.call)
            raise ConversionError(
                place,
                f"calls {name} with numbers that are neither in the arrays of the object nor "
                "always the same; are they random, or made without NumPy? Arrays are followed "
                "that are in attributes",
            ) from None
        nodes.append(a._replace(args=args[0], kwargs=args[1]))
    return nodes


def _same(a: Any, b: Any, samples: tuple[int, int]) -> Any:
    if type(a) is not type(b):
        raise ValueError
    if type(a) in (tuple, list) and len(a) == len(b):
        return type(a)(_same(v, w, samples) for v, w in zip(a, b, strict=True))
    if type(a) is dict and a.keys() == b.keys():
        return {key: _same(a[key], b[key], samples) for key in a}
    if type(a) is slice:
        return slice(
            *(_same(getattr(a, n), getattr(b, n), samples) for n in ("start", "stop", "step"))
        )
    if isinstance(a, np.ndarray):
        if a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            if a.size > MOST_SETTINGS and (a != a.flat[0]).any():
                raise ValueError  # made of a list, in which a change is not noticed
            return a
        if all(np.array_equal(v, np.arange(m)) for v, m in zip((a, b), samples, strict=True)):
            return Count()
        shape = _same(a.shape, b.shape, samples)
        if not a.size or (a != a.flat[0]).any() or (b != a.flat[0]).any():
            raise ValueError
        return Fill(shape, a.flat[0])
    if isinstance(a, int) and (a, b) == samples:
        return Batch()
    if not (a is b or a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))):
        raise ValueError
    return a
