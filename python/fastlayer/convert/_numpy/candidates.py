"""What a hand-written network may compute, tried until one is proven, and run on its live arrays.

A candidate says which axis is which and which activation is where. It counts when it gives what the
object gives but for rounding.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.arrays import FLOAT32, FLOAT64, as_real, is_weak
from fastlayer.convert._numpy.objects import Found, original_of
from fastlayer.convert._numpy.recognise import GUESSES, Oriented, match, recognise, same
from fastlayer.convert._prove import prove
from fastlayer.errors import ConversionError
from fastlayer.functions.activation import Activation
from fastlayer.functions.products import linear
from fastlayer.network.layer import Layer
from fastlayer.network.network import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastlayer.arrays import Array, DType
    from fastlayer.convert._numpy.objects import Stage

    Step = tuple[Stage, Activation | Callable[..., Any]]
    Arrays = tuple[Array, Array | None]  # weight and bias


class Search:
    """The search for a forward pass that does what an object does.

    Raises
    ------
    ConversionError
        The object holds something that is not understood.
    """

    def __init__(self, obj: Any) -> None:
        self._name = type(obj).__name__
        self.original, self.method = original_of(obj)
        self._found = Found(obj)
        self._arrays, self._dtype = _read_arrays(self._found.dense)
        self._refusals: list[ConversionError] = []

    def run(self) -> Candidate:
        """Return the first candidate that is proven.

        Raises
        ------
        ConversionError
            There is none; it tells why the first was refused, such as the worst row.
        """
        with self._found.undisturbed():
            for layout, form in self._ways():
                for steps in self._candidates(layout, form):
                    candidate = Candidate(self._found, steps, layout, form)
                    try:
                        candidate.prove(self.original, self._name)
                    except ConversionError as error:
                        self._refusals.append(error)
                    else:
                        return candidate
        nothing = ConversionError(self._name, "no activations were found that give its results")
        raise (*self._refusals, nothing)[0]

    def _ways(self) -> list[tuple[str, str]]:
        """Return the layouts of weights and forms of input for which the original runs.

        A batch comes before a vector, where it takes both.
        """
        ways, failed, odd = [], "", ""
        shapes = [weight.shape for weight, _ in self._arrays]
        sizes = {size for shape in shapes for size in shape}
        m = min(set(range(5, len(sizes) + 7)) - sizes)  # mistaken for no other axis
        for layout, turned in (("out_in", shapes), ("in_out", [shape[::-1] for shape in shapes])):
            if any(after[1] != before[0] for before, after in pairwise(turned)):
                continue
            k, n = turned[0][1], turned[-1][0]
            forms = {"rows": ((m, k), (m, n)), "columns": ((k, m), (n, m)), "vector": ((k,), (n,))}
            for form, (shape, result) in forms.items():
                x = np.random.default_rng(2).standard_normal(shape).astype(self._dtype)
                try:
                    with np.errstate(all="ignore"):
                        y = self.original(x)
                except Exception as error:  # noqa: BLE001  # whatever it raises for a wrong shape
                    failed = failed or f"{self.method} takes no {form} of shape {shape}: {error}"
                    continue
                if isinstance(y, tuple | list):
                    raise ConversionError(
                        self._name,
                        f"{self.method} returns a {type(y).__name__}; accelerate takes networks "
                        "that return one array (for (a, z) there is fl.dense_forward)",
                    )
                if np.shape(y) == result:
                    ways.append((layout, form))
                    break
                got = f"{self.method} gives shape {np.shape(y)} for {shape}, expected {result}"
                odd = odd or got
        if not ways:
            dense = zip(self._found.dense, shapes, strict=True)
            listed = ", ".join(f"{stage.name} {shape}" for stage, shape in dense)
            unfit = f"the weights do not follow from each other, as they do in a network: {listed}"
            raise ConversionError(self._name, odd or failed or unfit)
        return ways

    def _candidates(self, layout: str, form: str) -> Iterator[list[Step]]:
        """Yield what may come behind each stage: what the stages say themselves, then guesses."""
        stages, dense = self._found.stages, self._found.dense
        # From here on weights are (n, k).
        arrays = [(w.T if layout == "in_out" else w, b) for w, b in self._arrays]
        left = iter(arrays)
        try:
            yield [(s, self._behind(s, next(left) if s.weight else None, form)) for s in stages]
        except ConversionError as error:
            self._refusals.append(error)
        if any(stage.function is None for stage in dense):
            for activations in self._guesses(arrays, form):
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
        y = Oriented(self.original, form).attempt(x)
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


class Candidate:
    """A network that knows where the arrays of a hand-written one are, and holds none of them.

    Parameters
    ----------
    found : Found
        What was found in the hand-written network.
    steps : list of (Stage, activation)
        What comes behind the arrays of each stage; without arrays the activation alone.
    layout : {"out_in", "in_out"}
        Which axis of the weights is which.
    form : {"rows", "columns", "vector"}
        What the samples are in two-dimensional input; or one sample alone.
    """

    def __init__(self, found: Found, steps: list[Step], layout: str, form: str) -> None:
        self.found, self.form = found, form
        self._steps, self._layout = steps, layout
        self._turned, self._columns = layout == "in_out", form == "columns"
        self._dimensions = {1 if form == "vector" else 2}  # of input that is proven
        # Looked up at every call, so what is inside of the named tuples is laid out here.
        self._places = [(stage.weight, stage.bias, activation) for stage, activation in steps]

    def prove(self, original: Callable[[Array], Any], name: str) -> None:
        """Run both on the same samples, where both take them on single vectors too.

        Raises
        ------
        ConversionError
            They differ by more than rounding, or the arrays are of several dtypes.
        """
        net = self.network()
        self.proof = prove(net, Oriented(original, self.form).of_copy, source=name)
        try:
            prove(net, Oriented(original, "vector").of_copy, source=name, rows=8)
        except ConversionError:
            return
        self._dimensions.add(1)

    def __call__(self, x: Array) -> Array | None:
        """Run the forward pass of a plain array, None where it has other dimensions than proven.

        Raises
        ------
        AttributeError, LookupError, TypeError, ValueError
            An array is gone, or is nothing that `linear` takes; or `x` has another width.
        """
        if x.ndim not in self._dimensions:
            return None
        columns = self._columns and x.ndim == 2
        a = x.T if columns else x
        for weight, bias, activation in self._places:
            if weight is None:
                a = activation(a)
                continue
            w, b = weight(), None
            if self._turned:
                w = w.T if type(w) is np.ndarray else np.transpose(w)
            if bias is not None:
                b = bias()
                if b is None:
                    raise LookupError("there is no bias any more")
                if a.ndim == 2:
                    b = self._beside_rows(b)
            a = linear(a, w, b, activation)
        return a.T if columns else a

    def _beside_rows(self, bias: Any) -> Any:
        """Return a bias as one number for each neuron, where it is; the core takes those at once.

        NumPy broadcasts it against columns where those are samples.
        """
        if type(bias) is np.ndarray and bias.ndim == 2:
            b = bias.T if self._columns else bias
            return b[0] if len(b) == 1 else b
        return bias if is_weak(bias) or not self._columns else np.atleast_2d(bias).T

    def network(self) -> Network:
        """Return a network of its own with the weights as they are now.

        Raises
        ------
        ConversionError
            The arrays are not all float32 or all float64.
        """
        arrays, dtype = _read_arrays([stage for stage, _ in self._steps if stage.weight])
        left = iter(arrays)
        parts: list[Any] = []
        for stage, activation in self._steps:
            if stage.weight is None:
                parts.append(activation)
                continue
            w, b = next(left)
            if b is not None and b.size == 1:
                b = np.broadcast_to(b.reshape(()), w.shape[1:] if self._turned else w.shape[:1])
            parts.append(Layer.from_arrays(w, b, activation, layout=self._layout, dtype=dtype))
        return Network(parts)


def _read_arrays(dense: list[Stage]) -> tuple[list[Arrays], DType]:
    """Return the arrays of the stages that have weights as they are now, and their dtype.

    Raises
    ------
    ConversionError
        The arrays are not all float32 or all float64.
    """
    arrays: list[Arrays] = []
    for name, _, weight, bias, _ in dense:
        w = as_real(weight and weight(), f"the weight of {name}")
        b = bias and bias()
        b = None if b is None else as_real(b, f"the bias of {name}")
        arrays.append((w, b))
        if w.dtype not in (FLOAT32, FLOAT64):
            raise ConversionError(
                name, f"its weights are {w.dtype}; make them float64 with .astype(np.float64)"
            )
        # A Python number, which is read as an array without dimensions, takes the dtype.
        whole = w.dtype if b is None or b.ndim == 0 else np.result_type(w, b)
        first, dtype = dense[0].name, arrays[0][0].dtype
        if {w.dtype, whole} != {dtype}:
            raise ConversionError(
                name, f"it computes in {whole} and {first} in {dtype}; make all arrays one dtype"
            )
    return arrays, dtype


def _sums(x: Array, weight: Array, bias: Array | None) -> tuple[Array, Array]:
    """Return the sums of a layer, and those of the absolute values."""
    wide, w = x.astype(np.float64), weight.T.astype(np.float64)
    b = np.zeros(1) if bias is None else bias.astype(np.float64).reshape(-1)
    return wide @ w + b, np.abs(wide) @ np.abs(w) + np.abs(b)
