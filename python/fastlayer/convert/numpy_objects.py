"""Networks written by hand in NumPy: `accelerate`.

What an object computes is guessed from the names and shapes of its arrays (`_numpy.objects`) and
from what its functions return (`_numpy.recognise`). A guess, a `Candidate`, says which axis is which
and which activation is where; it is proven when object and network agree on the probe but for
rounding, and run on the object's arrays from then on. Where no guess is right, the object is
followed through its operations (`_numpy.use`).
"""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from types import MethodType
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer import _core
from fastlayer.arrays import FLOAT32, FLOAT64, as_real
from fastlayer.convert._numpy.objects import Found, name_of, original_of, title
from fastlayer.convert._numpy.recognise import GUESSES, Oriented, beside_rows, match, recognise
from fastlayer.convert._numpy.use import Used
from fastlayer.convert._prove import prove
from fastlayer.errors import ConversionError
from fastlayer.functions.activation import Activation
from fastlayer.functions.products import linear
from fastlayer.network.layer import Layer
from fastlayer.network.module import Module
from fastlayer.network.network import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastlayer.arrays import Array, DType
    from fastlayer.convert._numpy.objects import Stage
    from fastlayer.report.verification import Proof

    Step = tuple[Stage, Activation | Callable[..., Any]]
    Arrays = tuple[Array, Array | None]  # weight and bias

_FRAMEWORKS = {
    "torch": "fl.from_torch",
    "keras": "fl.from_keras",
    "tensorflow": "fl.from_keras",
    "sklearn": "fl.from_sklearn",
    "onnx": "fl.from_onnx",
}


class Accelerated:
    """The forward pass of a hand-written network, run by fastlayer; made by ``fl.accelerate``.

    Calling it, or its method of the original's name, gives what the original gives but for
    rounding. It holds no weights: each call reads the original's arrays with ``fl.linear``, so a
    change in place or of an attribute counts from the next call on.

    Attributes
    ----------
    original : object
        The network as it was written.
    network : Network
        A copy with the weights as they are now, packed for the kernels, and so faster. Rows are
        samples; call it with ``axis=0`` where columns are.
    verification : Proof
        How far the two were apart on the probe.
    """

    __module__ = "fastlayer"  # what a pickle names, whichever way it was imported

    def __init__(self, original: Any) -> None:
        self._original = original
        self._call, self._method = original_of(original)
        self._live = self._search()

    @property
    def original(self) -> Any:
        """The network as it was written."""
        return self._original

    @property
    def network(self) -> Network:
        """A network of its own with the weights as they are now, for rows as samples."""
        return self._live.network()

    @property
    def verification(self) -> Proof:
        """How far the two were apart on the probe."""
        return self._live.proof

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the forward pass.

        Parameters
        ----------
        x : array_like
            As the original takes it: rows, columns or a vector. What accelerate has not proven,
            such as arrays of three dimensions, goes to the original.
        *args, **kwargs
            Further arguments of the original, which then runs itself.

        Returns
        -------
        ndarray
            As the original returns it.

        Raises
        ------
        ConversionError
            The original was changed, beyond its weights, to something that is not understood.
        """
        if args or kwargs:
            return self._call(x, *args, **kwargs)
        a = np.asarray(x) if isinstance(x, list | tuple) else x
        if type(a) is not np.ndarray or a.dtype.kind not in "biuf" or a.dtype.itemsize > 8:
            return self._call(x)
        live = self._live
        if live.found.moved():
            live = self._live = self._search()
        try:
            y = live(a)
        except (AttributeError, LookupError, TypeError, ValueError):
            y = None  # arrays of another kind than they were: the original knows, or says why not
        return self._call(x) if y is None else y

    def _search(self) -> Candidate | Used:
        """Return what is found by names, and proven; else by running it and seeing what it does."""
        given = self._original, self._call, self._method
        if isinstance(self._original, MethodType):
            return Used(*given)
        if isinstance(getattr(self, "_live", None), Used):  # the guesses failed before
            with suppress(ConversionError):
                return Used(*given)
        try:
            return Search(*given).run()
        except ConversionError as error:
            return Used(*given, error)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and name == self._method:
            return self.__call__
        raise AttributeError(
            f"{type(self).__name__!r} object has no attribute {name!r}; the network that was "
            "accelerated is its .original"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return accelerate, (self._original,)

    def __repr__(self) -> str:
        return f"Accelerated({name_of(self._original)}, samples={self._live.form})"


def accelerate(obj: Any) -> Accelerated:
    """Make a fast forward pass of a network that was written by hand in NumPy.

    The object stays as it is, and goes on being trained: the next call sees its new weights.
    Understood are objects with a method such as `forward_pass`, `forward`, `feedforward`,
    `predict` or a call, which computes with NumPy on arrays in the object. Some names of arrays
    and lists of layers are known; with others, a copy of the object is run, and its arrays note
    what is done with them. So they may be called anything, and be in lists, dicts and objects
    inside each other. The input may be normalised before the first layer, and the result be
    scaled, or labels; layers may be in residual and other branches.

    Weights may be (n, k) or (k, n), with a row or column for a bias unit; samples rows, columns
    or single vectors. What is what is proven by running both. Activations may be any functions;
    those that fastlayer has are recognised by what they return, when `accelerate` is called.

    Parameters
    ----------
    obj : object
        The network, a list of layers, or the method that runs it: ``network.predict``.

    Returns
    -------
    Accelerated
        A callable that takes and returns what the object's forward pass does. It does not store
        inputs for a backward pass, as the original may do.

    Raises
    ------
    ConversionError
        Something that is not understood, by name; or results that differ, with the worst row.

    Examples
    --------
    >>> import fastlayer as fl
    >>> import numpy as np
    >>> class Dense:
    ...     def __init__(self, rng, k, n):
    ...         self.W, self.b = rng.standard_normal((n, k)), np.zeros(n)
    ...     def forward(self, x):
    ...         return np.maximum(0, x @ self.W.T + self.b)
    >>> rng = np.random.default_rng(0)
    >>> layers = [Dense(rng, 4, 8), Dense(rng, 8, 2)]
    >>> fast = fl.accelerate(layers)
    >>> x = np.ones((5, 4))
    >>> np.allclose(fast(x), layers[1].forward(layers[0].forward(x)))
    True
    >>> layers[1].W *= 0
    >>> float(fast(x).max())
    0.0

    The input is normalised, and the result are labels:

    >>> class Classifier:
    ...     def __init__(self, rng):
    ...         self.mean, self.std = np.full(4, 0.5), np.full(4, 2.0)
    ...         self.weights_hidden = rng.standard_normal((4, 8))
    ...         self.weights_out = rng.standard_normal((8, 3))
    ...     def predict(self, x):
    ...         hidden = np.tanh((x - self.mean) / self.std @ self.weights_hidden)
    ...         return np.argmax(hidden @ self.weights_out, axis=1)
    >>> classifier = Classifier(rng)
    >>> x = rng.standard_normal((5, 4))
    >>> np.array_equal(fl.accelerate(classifier)(x), classifier.predict(x))
    True
    """
    owner = obj.__self__ if isinstance(obj, MethodType) else obj
    roots = (
        base.__module__.split(".")[0] for base in type(owner).__mro__
    )  # of the user's class too
    converter = next((_FRAMEWORKS[root] for root in roots if root in _FRAMEWORKS), None)
    if converter is not None:
        why = f"for this there is {converter}"
    elif isinstance(obj, Accelerated):
        return obj
    elif isinstance(owner, Module | Accelerated):
        why = "it is fastlayer's own, and as fast as it gets"
    elif isinstance(obj, type):
        why = f"this is the class; give an object, {obj.__name__}(...)"
    elif hasattr(obj, "__name__") and not isinstance(obj, MethodType):
        why = (
            "a function hides its arrays; give the object that holds them, or write the layers "
            "with fl.linear or fl.dense_forward, which read their arrays at each call"
        )
    else:
        return Accelerated(obj)
    raise ConversionError(title(obj), why)


accelerate.__module__ = "fastlayer"  # a pickle of an Accelerated names it


class Search:
    """The search for a forward pass that does what an object does.

    Raises
    ------
    ConversionError
        The object holds something that is not understood.
    """

    def __init__(self, obj: Any, original: Callable[..., Any], method: str) -> None:
        self._name = type(obj).__name__
        self.original, self.method = original, method
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
            for turned, form in self._ways():
                for steps in self._candidates(turned, form):
                    try:
                        candidate = Candidate(self._found, steps, turned, form)
                        return candidate.proven(self.original, self._name)
                    except ConversionError as error:
                        self._refusals.append(error)
        nothing = ConversionError(self._name, "no activations were found that give its results")
        raise (*self._refusals, nothing)[0]

    def _ways(self) -> list[tuple[bool, str]]:
        """Return whether weights are (k, n), and the form of input, for which the original runs.

        A batch comes before a vector, where it takes both.
        """
        ways, odd, failed = [], [], []
        shapes = [weight.shape for weight, _ in self._arrays]
        for stage, shape in zip(self._found.dense, shapes, strict=True):
            if len(shape) != 2:
                raise ConversionError(self._name, f"{stage.name} has shape {shape}, and no weight")
        known = {size for shape in shapes for size in shape}
        m = min(set(range(5, len(known) + 7)) - known)  # mistaken for no other axis
        for turned in (False, True):
            sizes = [shape[::-1] if turned else shape for shape in shapes]
            if any(after[1] != before[0] for before, after in pairwise(sizes)):
                continue
            k, n = sizes[0][1], sizes[-1][0]
            forms = {"rows": ((m, k), (m, n)), "columns": ((k, m), (n, m)), "vector": ((k,), (n,))}
            for form, (shape, result) in forms.items():
                x = np.random.default_rng(2).standard_normal(shape).astype(self._dtype)
                try:
                    with np.errstate(all="ignore"):
                        y = self.original(x)
                except Exception as error:  # noqa: BLE001  # whatever it raises for a wrong shape
                    failed.append(f"{self.method} takes no {form} of shape {shape}: {error}")
                    continue
                if isinstance(y, tuple | list):
                    raise ConversionError(
                        self._name,
                        f"{self.method} returns a {type(y).__name__}; accelerate takes networks "
                        "that return one array (for (a, z) there is fl.dense_forward)",
                    )
                got = np.shape(y)
                if got == result:
                    ways.append((turned, form))
                    break
                odd.append(f"{self.method} gives shape {got} for {shape}, expected {result}")
        if not ways:
            dense = zip(self._found.dense, shapes, strict=True)
            listed = ", ".join(f"{stage.name} {shape}" for stage, shape in dense)
            unfit = f"the weights do not follow from each other, as they do in a network: {listed}"
            raise ConversionError(self._name, (*odd, *failed, unfit)[0])
        return ways

    def _candidates(self, turned: bool, form: str) -> Iterator[list[Step]]:
        """Yield what may come behind each stage: what the stages say themselves, then guesses."""
        stages, dense = self._found.stages, self._found.dense
        # From here on weights are (n, k).
        arrays = [(w.T if turned else w, b) for w, b in self._arrays]
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
            z, size = _sums(x.astype(np.float64), *_wide(*arrays))
            error = (k + 2) * float(np.finfo(self._dtype).eps) * size
            known = [chosen] if isinstance(chosen, Activation) else []
            chosen = match(z, y, error, known) or chosen
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
        *hidden, end = (_wide(*arrays) for arrays in layers)
        wide = x.astype(np.float64)
        for guess in dict.fromkeys([*known, *GUESSES]):
            a = wide
            for weight, bias in hidden:
                a = np.asarray(guess(a @ weight + bias))
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
    turned : bool
        Whether weights are (k, n).
    form : {"rows", "columns", "vector"}
        What the samples are in two-dimensional input; or one sample alone.
    """

    proof: Proof

    def __init__(self, found: Found, steps: list[Step], turned: bool, form: str) -> None:
        self.found, self.form = found, form
        self._turned, self._columns = turned, form == "columns"
        self._dimensions = {1 if form == "vector" else 2}  # of input that is proven
        # Looked up at every call, so what is inside of the named tuples is laid out here.
        self._places = [
            (stage.weight, stage.bias, act, act._fused if isinstance(act, Activation) else None)
            for stage, act in steps
        ]

    def proven(self, original: Callable[[Array], Any], name: str) -> Candidate:
        """Return itself, after both ran on the same samples; if both take vectors, on these too.

        Raises
        ------
        ConversionError
            They differ by more than rounding, or the arrays are of several dtypes.
        """
        net = self.network()
        self.proof = prove(net, Oriented(original, self.form).of_copy, source=name)
        with suppress(ConversionError):
            prove(net, Oriented(original, "vector").of_copy, source=name, rows=8)
            self._dimensions.add(1)
        return self

    def __call__(self, x: Array) -> Array | None:
        """Run the forward pass of a plain array.

        None where it has other dimensions than proven, or a bias is not there any more.

        Raises
        ------
        AttributeError, LookupError, TypeError, ValueError
            An array is gone, or is nothing that `linear` takes; or `x` has another width.
        """
        if x.ndim not in self._dimensions:
            return None
        columns = self._columns and x.ndim == 2
        a = x.T if columns else x
        for weight, bias, activation, fused in self._places:
            if weight is None:
                a = activation(a)
                continue
            w, b = weight(), None
            if self._turned:
                w = w.T
            if bias is not None:
                b = bias()
                if b is None:
                    return None
                if columns:
                    b = beside_rows(b)
            y = None if fused is None else _core.linear(a, w, b, *fused, None, False)
            a = linear(a, w, b, activation) if y is None else y
        return a.T if columns else a

    def network(self) -> Network:
        """Return a network of its own with the weights as they are now.

        Raises
        ------
        ConversionError
            The arrays are not all float32 or all float64.
        """
        arrays, dtype = _read_arrays(self.found.dense)
        left = iter(arrays)
        parts: list[Any] = []
        for weight, _, activation, _ in self._places:
            if weight is None:
                parts.append(activation)
                continue
            w, b = next(left)
            w = w.T if self._turned else w
            if b is not None and b.size == 1:
                b = np.broadcast_to(b.reshape(()), len(w))
            parts.append(Layer.from_arrays(w, b, activation, dtype=dtype))
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


def _wide(weight: Array, bias: Array | None) -> tuple[Array, Array]:
    """Return weight (k, n) and bias in float64."""
    b = np.zeros(1) if bias is None else bias.astype(np.float64).reshape(-1)
    return weight.T.astype(np.float64), b


def _sums(x: Array, w: Array, b: Array) -> tuple[Array, Array]:
    """Return the sums of a layer, and those of the absolute values."""
    return x @ w + b, np.abs(x) @ np.abs(w) + np.abs(b)
