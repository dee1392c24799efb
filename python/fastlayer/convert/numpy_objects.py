"""Networks written by hand in NumPy: `accelerate`.

What an object computes is guessed from the names and shapes of its arrays (`_numpy.objects`) and
from what its functions return (`_numpy.recognise`), and then proven (`_numpy.candidates`): a guess
counts when object and network agree on the probe but for rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert._numpy.candidates import Search
from fastlayer.errors import ConversionError
from fastlayer.network.module import Module

if TYPE_CHECKING:
    from fastlayer.network.network import Network
    from fastlayer.report.verification import Proof

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
    rounding. It holds no weights: each call reads the original's arrays with `linear`, so a change
    in place or of an attribute counts from the next call on.

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
        search = Search(original)
        self._call, self._method = search.original, search.method
        self._live = search.run()

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
            live = self._live = Search(self._original).run()
        try:
            y = live(a)
        except (AttributeError, LookupError, TypeError, ValueError):
            y = None  # arrays of another kind than they were: the original knows, or says why not
        return self._call(x) if y is None else y

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
        return f"Accelerated({type(self._original).__name__}, samples={self._live.form})"


def accelerate(obj: Any) -> Accelerated:
    """Make a fast forward pass of a network that was written by hand in NumPy.

    The object stays as it is, and goes on being trained: the next call sees its new weights.
    Understood are objects with a method `forward_pass`, `forward`, `feedforward` or a call, that
    are

    - a layer: a 2-D array `_W`, `W`, `weights` or `weight`, a bias `_b`, `b`, `bias` or
      `biases`, and mostly an activation: a function or object in an attribute such as
      `act_function` or `activation`, or part of the layer's own forward pass;
    - a network: a list of layers and activations, in `layers`, `_layers` or alone; attributes
      that are layers and activations, in their order; or lists `weights` and `biases`, arrays
      `W1`, `b1`, `W2`, `b2`, also in a dict.

    Weights may be (n, k) or (k, n); samples rows, columns or single vectors. What is what is
    proven by running both. Activations may be any functions; those that fastlayer has are
    recognised by what they return, when `accelerate` is called.

    Parameters
    ----------
    obj : object
        The network, or a list of layers.

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
    """
    kind = type(obj)
    name = kind.__name__
    roots = (base.__module__.split(".")[0] for base in kind.__mro__)  # of the user's class too
    converter = next((_FRAMEWORKS[root] for root in roots if root in _FRAMEWORKS), None)
    if converter is not None:
        why = f"for this there is {converter}"
    elif isinstance(obj, Accelerated):
        return obj
    elif isinstance(obj, Module):
        why = "it is fastlayer's own, and as fast as it gets"
    elif isinstance(obj, type):
        name = obj.__name__
        why = f"this is the class; give an object, {name}(...)"
    elif hasattr(obj, "__name__"):
        name = obj.__name__
        why = (
            "a function hides its arrays; give the object that holds them, or write the layers "
            "with fl.linear or fl.dense_forward, which read their arrays at each call"
        )
    else:
        return Accelerated(obj)
    raise ConversionError(name, why)


accelerate.__module__ = "fastlayer"  # a pickle of an Accelerated names it
