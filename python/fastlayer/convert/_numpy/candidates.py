"""What a hand-written network may compute: which axis is which, which activation is where.

A candidate counts when it gives what the object gives but for rounding.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert._numpy.live import Live, read_arrays
from fastlayer.convert._numpy.objects import Found, original_of
from fastlayer.convert._numpy.recognise import GUESSES, Oriented, match, recognise, same
from fastlayer.errors import ConversionError
from fastlayer.functions.activation import Activation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastlayer.arrays import Array
    from fastlayer.convert._numpy.live import Arrays, Step
    from fastlayer.convert._numpy.objects import Stage


class Search:
    """The search for a forward pass that does what an object does.

    Raises
    ------
    ConversionError
        The object holds something that is not understood.
    """

    def __init__(self, obj: Any) -> None:
        self._name = type(obj).__name__
        self._original, self._method = original_of(obj)
        self._found = Found(obj)
        self._arrays, self._dtype = read_arrays(self._found.stages)
        self._refusals: list[ConversionError] = []

    def live(self) -> Live:
        """Return the first candidate that is proven.

        Raises
        ------
        ConversionError
            There is none; it tells why the first was refused, such as the worst row.
        """
        with self._found.undisturbed():
            for layout, form in self._ways():
                for steps in self._candidates(layout, form):
                    live = Live(self._found, steps, layout, form)
                    try:
                        live.prove(self._original, self._name)
                    except ConversionError as error:
                        self._refusals.append(error)
                    else:
                        return live
        nothing = ConversionError(self._name, "no activations were found that give its results")
        raise (*self._refusals, nothing)[0]

    def _ways(self) -> list[tuple[str, str]]:
        """Return the layouts of weights and forms of input for which the original runs.

        A batch comes before a vector, where it takes both.
        """
        ways, failed, odd = [], "", ""
        shapes = [own[0].shape for own in self._arrays if own is not None]
        sizes = {size for shape in shapes for size in shape}
        m = min(set(range(5, len(sizes) + 7)) - sizes)  # mistaken for no other axis
        layouts = {"out_in": shapes, "in_out": [shape[::-1] for shape in shapes]}
        fitting = [t for t in layouts.items() if all(b[1] == a[0] for a, b in pairwise(t[1]))]
        for layout, turned in fitting:
            k, n = turned[0][1], turned[-1][0]
            forms = {"rows": ((m, k), (m, n)), "columns": ((k, m), (n, m)), "vector": ((k,), (n,))}
            for form, (shape, result) in forms.items():
                x = np.random.default_rng(2).standard_normal(shape).astype(self._dtype)
                try:
                    with np.errstate(all="ignore"):
                        y = self._original(x)
                except Exception as error:  # noqa: BLE001  # whatever it raises for a wrong shape
                    failed = failed or f"{self._method} takes no {form} of shape {shape}: {error}"
                    continue
                if isinstance(y, tuple | list):
                    raise ConversionError(
                        self._name,
                        f"{self._method} returns a {type(y).__name__}; accelerate takes networks "
                        "that return one array (for (a, z) there is fl.dense_forward)",
                    )
                if np.shape(y) == result:
                    ways.append((layout, form))
                    break
                got = f"{self._method} gives shape {np.shape(y)} for {shape}, expected {result}"
                odd = odd or got
        if not fitting:
            dense = zip(self._found.dense, shapes, strict=True)
            listed = ", ".join(f"{stage.name} {shape}" for stage, shape in dense)
            failed = f"the weights do not follow from each other, as they do in a network: {listed}"
        if not ways:
            raise ConversionError(self._name, odd or failed)
        return ways

    def _candidates(self, layout: str, form: str) -> Iterator[list[Step]]:
        """Yield what may come behind each stage: what the stages say themselves, then guesses."""
        stages, dense = self._found.stages, self._found.dense
        # From here on weights are (n, k).
        arrays = [a and (a[0].T if layout == "in_out" else a[0], a[1]) for a in self._arrays]
        try:
            yield [(s, self._behind(s, a, form)) for s, a in zip(stages, arrays, strict=True)]
        except ConversionError as error:
            self._refusals.append(error)
        if any(stage.function is None for stage in dense):
            for activations in self._guesses([a for a in arrays if a is not None], form):
                yield list(zip(dense, activations, strict=True))

    def _behind(self, stage: Stage, arrays: Arrays | None, form: str) -> Any:
        """Return what a stage does after the sum: its activation, if that is what it does."""
        function = stage.function
        chosen = None if function is None else recognise(function, form, stage.name)
        if arrays is None or stage.forward is None:
            return chosen or Activation("identity")
        k = arrays[0].shape[1]
        x = np.random.default_rng(6).standard_normal((67, k))
        x = (x * np.resize([1, 0.1, 4, 0.01], (67, 1))).astype(self._dtype)
        y = Oriented(stage.forward, form).attempt(x)
        if y is not None:
            z, size = _sums(x, *arrays)
            error = (k + 2) * float(np.finfo(self._dtype).eps) * size
            if isinstance(chosen, Activation) and same(chosen, z, y, error):
                return chosen
            chosen = match(z, y, error) or chosen
        if chosen is None:
            raise ConversionError(
                stage.name,
                "what it does after x @ W + b is none of fastlayer's activations; keep the "
                "function in an attribute called activation, and any will do",
            )
        return chosen

    def _guesses(self, layers: list[Arrays], form: str) -> Iterator[list[Activation]]:
        """Yield one activation for all hidden layers and one for the last that give this result."""
        k = layers[0][0].shape[1]
        x = np.random.default_rng(7).standard_normal((16, k)).astype(self._dtype)
        y = Oriented(self._original, form).attempt(x)
        if y is None:
            return
        loose = float(np.sqrt(np.finfo(self._dtype).eps))  # a first look; the proof comes after it
        given = [recognise(s.function, form, s.name) for s in self._found.dense if s.function]
        known = [a for a in given if isinstance(a, Activation)]
        *hidden, end = layers
        for guess in dict.fromkeys([*known, *GUESSES]):
            a = x
            for layer in hidden:
                a = np.asarray(guess(_sums(a, *layer)[0]))
            z, size = _sums(a, *end)
            last = match(z, y, loose * (1 + size))
            if last is not None:
                yield [guess] * len(hidden) + [last]
            if not hidden:
                return


def _sums(x: Array, weight: Array, bias: Array | None) -> tuple[Array, Array]:
    """Return the sums of a layer, and those of the absolute values."""
    wide, w = x.astype(np.float64), weight.T.astype(np.float64)
    b = np.zeros(1) if bias is None else bias.astype(np.float64).reshape(-1)
    return wide @ w + b, np.abs(wide) @ np.abs(w) + np.abs(b)
