"""How a hand-written network is run: which axis is which, which activation is where, proven."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer.convert._numpy.live import Live, check_dtypes
from fastlayer.convert._numpy.objects import APPLY, FORWARD, find, method_of, undisturbed
from fastlayer.convert._numpy.recognise import apply, guesses, match, probe, recognise, same
from fastlayer.convert._numpy.stages import Dense, Found
from fastlayer.convert._prove import prove
from fastlayer.errors import ConversionError
from fastlayer.functions.activation import Activation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastlayer.arrays import Array
    from fastlayer.convert._numpy.live import Chosen, Step
    from fastlayer.network.network import Network
    from fastlayer.report.verification import Proof

WHOLE = (*FORWARD, "predict_proba", "predict")


class Plan(NamedTuple):
    """What `accelerate` found out."""

    found: Found
    live: Live
    form: str  # of two-dimensional input: "rows" or "columns"; or "vector", one sample alone
    vector: bool  # whether a single sample may come as (k,)
    proof: Proof

    def run(self, x: Array) -> Array | None:
        """Run the forward pass of a plain array, None where its shape is not among the proven."""
        live = self.live
        if x.ndim == 2:
            if self.form == "rows" and x.shape[1] == live.in_features:
                return live(x)
            if self.form == "columns" and x.shape[0] == live.in_features:
                columns: Array = live(x.T).T
                return columns
        elif x.ndim == 1 and self.vector and x.shape[0] == live.in_features:
            return live(x)
        return None


class Oriented:
    """A function of the user's, given arrays the way round that it expects."""

    def __init__(self, function: Callable[..., Any], form: str) -> None:
        self.function = function
        self.form = form
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __call__(self, a: Array) -> Any:
        """Call it with `a`, whose last axis is the features."""
        if self.form == "columns":
            return np.asarray(self.function(a.T)).T
        if self.form == "vector" and a.ndim > 1:
            return np.stack([self.function(row) for row in a])
        return self.function(a)


def original_of(obj: Any) -> tuple[Callable[..., Any], str]:
    """Return the forward pass of an object as it is, and its name."""
    if isinstance(obj, list | tuple):
        return lambda x: _through(obj, x), "calling one layer after the other"
    name = method_of(obj, WHOLE)
    if name is None:
        raise ConversionError(
            type(obj).__name__, f"it has no method {', '.join(FORWARD[:4])}, and can't be called"
        )
    return lambda *args, **kwargs: getattr(obj, name)(*args, **kwargs), name


def _through(items: Any, x: Any) -> Any:
    for item in items:
        if isinstance(item, list | tuple):
            x = _through(item, x)
        else:
            name = method_of(item, (*FORWARD, *APPLY))
            x = item(x) if name is None else getattr(item, name)(x)
    return x


def make_plan(obj: Any) -> Plan:
    """Find out what `obj` computes.

    Raises
    ------
    ConversionError
        What is not understood, or the worst row where the result is not the same.
    """
    found = find(obj)
    call, name = original_of(obj)
    place = type(obj).__name__
    check_dtypes(found.dense)
    refusal = None
    with undisturbed(found.objects):
        for layout, form in _ways(call, name, place, found.dense):
            for steps in _steps(found, layout, form, call):
                if isinstance(steps, ConversionError):
                    refusal = refusal or steps
                    continue
                live = Live(steps, layout, form == "columns")
                try:
                    net = live.network()
                    proof = _prove(net, call, form, place)
                except ConversionError as error:
                    refusal = refusal or error
                    continue
                vector = form == "vector" or _takes_vectors(net, call, place)
                return Plan(found, live, form, vector, proof)
    raise refusal or ConversionError(place, "no activations were found that give its results")


def _prove(net: Network, call: Callable[[Any], Any], form: str, place: str, n: int = 64) -> Proof:
    def reference(x: Array) -> Any:
        if form == "vector":
            return np.stack([call(row) for row in x])
        return call(x) if form == "rows" else np.asarray(call(np.ascontiguousarray(x.T))).T

    return prove(net, reference, source=place, rows=n)


def _takes_vectors(net: Network, call: Callable[[Any], Any], place: str) -> bool:
    try:
        _prove(net, call, "vector", place, 8)
    except ConversionError:
        return False
    return True


def _layouts(dense: list[Dense], place: str) -> list[str]:
    """Return the ways in which the shapes of the weights fit each other."""
    shapes = [stage.weight.read().shape for stage in dense]
    fits = {
        "out_in": all(b[1] == a[0] for a, b in pairwise(shapes)),
        "in_out": all(b[0] == a[1] for a, b in pairwise(shapes)),
    }
    if not any(fits.values()):
        listed = ", ".join(f"{d.name} {s}" for d, s in zip(dense, shapes, strict=True))
        raise ConversionError(
            place, f"the weights do not follow from each other, as they do in a network: {listed}"
        )
    return [layout for layout, right in fits.items() if right]


def _ends(dense: list[Dense], layout: str) -> tuple[int, int]:
    first, last = (dense[i].weight.read().shape for i in (0, -1))
    return (first[1], last[0]) if layout == "out_in" else (first[0], last[1])


def _ways(
    call: Callable[[Any], Any], name: str, place: str, dense: list[Dense]
) -> list[tuple[str, str]]:
    """Return the layouts of weights and forms of input for which the original runs.

    A batch comes before a vector, where it takes both.
    """
    ways, failed, odd = [], "", ""
    sizes = {s for stage in dense for s in stage.weight.read().shape}
    m = next(i for i in range(5, len(sizes) + 7) if i not in sizes)  # mistaken for no other axis
    for layout in _layouts(dense, place):
        k, n = _ends(dense, layout)
        forms = {"rows": ((m, k), (m, n)), "columns": ((k, m), (n, m)), "vector": ((k,), (n,))}
        for form, (shape, result) in forms.items():
            x = np.random.default_rng(2).standard_normal(shape).astype(dense[0].weight.read().dtype)
            try:
                with np.errstate(all="ignore"):
                    y = call(x)
            except Exception as error:  # noqa: BLE001  # whatever it raises for a wrong shape
                failed = failed or f"{name} takes no {form} of shape {shape}: {error}"
                continue
            if isinstance(y, tuple | list):
                raise ConversionError(
                    place,
                    f"{name} returns a {type(y).__name__}; accelerate takes networks that return "
                    "one array (for (a, z) there is fl.dense_forward)",
                )
            if np.shape(y) == result:
                ways.append((layout, form))
                break
            odd = odd or f"{name} gives shape {np.shape(y)} for {shape}, expected {result}"
    if not ways:
        raise ConversionError(place, odd or failed)
    return ways


def _steps(
    found: Found, layout: str, form: str, call: Callable[[Any], Any]
) -> Iterator[list[Step] | ConversionError]:
    """Yield what the network may be, what its parts say first."""
    try:
        yield [
            (stage, _behind(stage, layout, form))
            if isinstance(stage, Dense)
            else (None, _chosen(stage.function, form, stage.name))
            for stage in found.stages
        ]
    except ConversionError as error:
        yield error
    if any(stage.function is None for stage in found.dense):
        yield from _guessed(found.dense, layout, form, call)


def _chosen(function: Callable[..., Any], form: str, name: str) -> Chosen:
    known = recognise(function, form)
    if known is not None:
        return known
    z = probe()
    y = apply(function, z, form)
    if y is None or y.shape != z.shape:
        raise ConversionError(
            name,
            "it is neither a dense layer with an array called W or weights nor a function that "
            "takes an array of any size and returns one of the same shape",
        )
    return Oriented(function, form)


def _behind(stage: Dense, layout: str, form: str) -> Chosen:
    """Return what a layer does after the sum: its activation, if that is what it does."""
    chosen = None if stage.function is None else _chosen(stage.function, form, stage.name)
    if stage.forward is None:
        return chosen or Activation("identity")
    weight = stage.weight.read()
    k = weight.shape[layout == "out_in"]
    x = np.random.default_rng(6).standard_normal((67, k)) * np.resize([1, 0.1, 4, 0.01], (67, 1))
    x = x.astype(weight.dtype)
    y = apply(stage.forward, x, form)
    if y is None:
        return _known(chosen, stage)
    z, size = _sums(x, stage, layout)
    error = (k + 2) * float(np.finfo(x.dtype).eps) * size
    if isinstance(chosen, Activation) and same(chosen, z, y, error):
        return chosen
    return match(z, y, error) or _known(chosen, stage)


def _known(chosen: Chosen | None, stage: Dense) -> Chosen:
    if chosen is None:
        raise ConversionError(
            stage.name,
            "what it does after x @ W + b is none of fastlayer's activations; keep the function "
            "in an attribute called activation, and any will do",
        )
    return chosen


def _sums(x: Array, stage: Dense, layout: str) -> tuple[Array, Array]:
    """Return the sums of a layer, and those of the absolute values."""
    w = np.asarray(stage.weight.read(), np.float64)
    w = w.T if layout == "out_in" else w
    b = np.zeros(1) if stage.bias is None else np.asarray(stage.bias.read(), np.float64).reshape(-1)
    wide = x.astype(np.float64)
    return wide @ w + b, np.abs(wide) @ np.abs(w) + np.abs(b)


def _guessed(
    dense: list[Dense], layout: str, form: str, call: Callable[[Any], Any]
) -> Iterator[list[Step]]:
    """Yield one activation for all hidden layers and one for the last that give this result."""
    k = _ends(dense, layout)[0]
    x = np.random.default_rng(7).standard_normal((16, k)).astype(dense[0].weight.read().dtype)
    y = apply(call, x, form)
    if y is None:
        return
    loose = float(np.sqrt(np.finfo(x.dtype).eps))  # a first look; the proof comes after it
    given = [_chosen(s.function, form, s.name) for s in dense if s.function is not None]
    known = [a for a in given if isinstance(a, Activation)]
    for hidden in dict.fromkeys([*known, *guesses()]):
        a = x
        for stage in dense[:-1]:
            a = np.asarray(hidden(_sums(a, stage, layout)[0]))
        z, size = _sums(a, dense[-1], layout)
        last = match(z, y, loose * (1 + size))
        if last is not None:
            yield [(stage, hidden) for stage in dense[:-1]] + [(dense[-1], last)]
        if len(dense) == 1:
            return
