"""`Network`: layers in a row, run by the core in one go."""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, overload

import numpy as np

from fastlayer.arrays import FLOAT32, as_real, float_dtype, promote
from fastlayer.errors import Damaged, unfit
from fastlayer.frames import frame, library_of
from fastlayer.functions.activation import Activation
from fastlayer.network.branches import Add, Concat, Multiply, Slice
from fastlayer.network.chain import Chain, Residual, check_chain
from fastlayer.network.ends import Ends
from fastlayer.network.layer import Layer
from fastlayer.network.norms import BatchNorm, LayerNorm, RMSNorm
from fastlayer.network.part import Flatten, as_parts
from fastlayer.run.ops import OneRowOp, check_one_row, decline
from fastlayer.run.part import Outline, Sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from os import PathLike
    from typing import IO, TypeAlias

    from numpy.typing import ArrayLike, DTypeLike
    from typing_extensions import Self, TypeVar

    from fastlayer.arrays import Array, DType
    from fastlayer.errors import ShapeMismatch
    from fastlayer.files.document import Reader
    from fastlayer.network.layer import Shown
    from fastlayer.network.part import PartLike
    from fastlayer.report.profile import Profile
    from fastlayer.report.summary import Summary
    from fastlayer.report.verification import Proof, Verification
    from fastlayer.run.ops import Op, Step
    from fastlayer.run.part import Part
    from fastlayer.train.gradients import Gradients
    from fastlayer.train.history import History
    from fastlayer.train.loss import LossLike
    from fastlayer.train.optimizers import OptimizerLike
    from fastlayer.train.schedules import ScheduleLike

    Features: TypeAlias = Mapping[str, int] | Sequence[int]
    # What a call gives: an array, or a tuple of arrays where there are several outputs.
    Result_co = TypeVar("Result_co", default=Array, covariant=True)
    Several: TypeAlias = tuple[Array, ...]
    Names: TypeAlias = list[str] | tuple[str, ...]  # for a str is a Sequence[str], too
    # A network that was made elsewhere: only who made it knows how many outputs it has.
    Made: TypeAlias = "Network[Array | Any]"
else:
    Result_co = typing.TypeVar("Result_co", covariant=True)  # a default takes Python 3.13

# Samples of more than one axis are refused: the source works along axis 1.
ONE_ROW = "one row"
# Nothing in it has weights: it computes in float32 where its input fits that, else in float64.
ANY_DTYPE = "any dtype"


class Network(Chain, Generic[Result_co]):
    """Layers in a row: the output of each is the input of the next.

    Calling it is stateless and may be done from many threads at once. A layer may be part of
    several networks; `Layer.update` changes all of them.

    Several inputs are one row of features, and so are several outputs: ``net(x, u)`` reads both
    where they lie, as if they were beside each other, and a network of several outputs gives a
    tuple of views of one array.

    Parameters
    ----------
    layers : iterable
        `Layer`, `Flatten`, `LayerNorm`, `RMSNorm`, `BatchNorm`, `Residual`, `Concat`, `Add`,
        `Multiply`, `Slice`, `Network`, an activation (name, function or `Activation`), or any
        callable from array to array.
    *more
        Nothing: the layers are one list.
    inputs, outputs : dict of int, or list of int, optional
        The features of each, in their order, by name or without.

    Raises
    ------
    ValueError
        Neighbours that don't fit, layers of different dtypes, no layers; inputs or outputs that
        are not all of the features.
    TypeError
        Something that is not a layer.

    Examples
    --------
    >>> import fastlayer as fl
    >>> import numpy as np
    >>> net = fl.Network([fl.Layer(4, 8, "relu", rng=0), fl.Layer(8, 3, "softmax", rng=1)])
    >>> net(np.ones((5, 4))).shape
    (5, 3)
    >>> len(net), net.num_parameters
    (2, 67)

    A critic takes states of 4 features and actions of 2; another network gives two things:

    >>> critic = fl.Network([fl.Layer(6, 8, "relu", rng=0), fl.Layer(8, 1, rng=1)], inputs=[4, 2])
    >>> critic(np.ones((5, 4)), np.ones((5, 2))).shape
    (5, 1)
    >>> heads = fl.Concat([fl.Layer(8, 3, "softmax", rng=1), fl.Layer(8, 1, rng=2)])
    >>> net = fl.Network([fl.Layer(4, 8, rng=0), heads], outputs={"policy": 3, "value": 1})
    >>> policy, value = net(np.ones((5, 4)))
    >>> policy.shape, value.shape
    ((5, 3), (5, 1))
    """

    _verification: Proof | None = None
    # What a converted network has of its source: ONE_ROW, ANY_DTYPE.
    _traits: tuple[str, ...] = ()
    _single: Network | None = None  # that of ANY_DTYPE for float32
    _rows: Network[Any] | None = None  # the same without outputs, which gives the rows they are in
    _parted: tuple[int, ...] = ()  # and what those are to be parted into
    _in = _out = Ends()

    @overload
    def __init__(
        self: Network[Array],
        layers: Iterable[PartLike],
        *more: NoReturn,
        inputs: Features | None = ...,
        outputs: None = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: Network[Several],
        layers: Iterable[PartLike],
        *more: NoReturn,
        inputs: Features | None = ...,
        outputs: Features,
    ) -> None: ...
    def __init__(
        self,
        layers: Iterable[PartLike],
        *more: NoReturn,
        inputs: Features | None = None,
        outputs: Features | None = None,
    ) -> None:
        if more:
            raise TypeError(
                f"Network takes one list of layers, got {1 + len(more)} arguments: "
                "fl.Network([first, second])"
            )
        self._hold(as_parts(layers, "Network"))
        self._end(Ends.of(inputs, "input"), Ends.of(outputs, "output"))

    @classmethod
    def _of(
        cls,
        parts: Sequence[Any],
        dtype: DType,
        traits: Iterable[str] = (),
        ends: tuple[Ends, Ends] = (Ends(), Ends()),
    ) -> Network[Any]:
        """Make a network of some parts of another, in its dtype."""
        if not parts:
            raise ValueError("Network needs at least one layer, and the slice is empty")
        net = cls._held(as_parts(parts, "Network"), dtype)
        net._traits = tuple(traits)
        net._end(*ends)
        return net

    def _end(self, inputs: Ends, outputs: Ends) -> None:
        inputs.check(super().in_features, "input")
        self._in, self._out = inputs, outputs
        outputs.check(self.out_features, "output")
        if any(inputs.widths) or outputs.widths:
            before, behind = (
                _stand_in("of the inputs", inputs),
                _stand_in("of the outputs", outputs),
            )
            check_chain((*before, *self._parts, *behind), "Network")

    @property
    def in_features(self) -> int | Any:
        """Number of features that it takes; behind a Flatten in front, None for any."""
        told = super().in_features
        return (sum(self._in.widths) or None) if told is None else told

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of its inputs, none where it takes one array."""
        return self._in.names

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of its outputs, which a call gives as a tuple; none where it is one array."""
        return self._out.names

    @property
    def _ends(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self._in.widths, self._parted

    @property
    def _plain(self) -> Network[Any]:
        """The network that gives the rows that its outputs are in."""
        if not self._out.names:
            return self
        if self._rows is None:
            self._rows = self._copied(_out=Ends(), _parted=self._out.widths)
        return self._rows

    def _only(self, name: str) -> Network:
        """Return the network that gives the rows of one output."""
        at = self._out.names.index(name)
        begin = sum(self._out.widths[:at])
        parts = (*self.layers, Slice(begin, begin + self._out.widths[at]))
        return Network._of(parts, self._dtype, self._traits, (self._in, Ends()))

    def _together(self, x: Any, others: tuple[Any, ...]) -> Any:
        if 1 + len(others) != len(self._in.names):
            names = ", ".join(self._in.names)
            takes = f"{len(self._in.names)} arrays ({names})" if names else "one array"
            raise TypeError(f"{self._title()} takes {takes}, and got {1 + len(others)}")
        return (x, *others)

    def _row(self, x: Any, axis: int = -1) -> Any:
        """Return what a call was given as one array, where it is a tuple of several inputs."""
        if self._each(x) is not x:
            return x
        dtype = self._dtype
        if ANY_DTYPE in self._traits and all(promote(as_real(a).dtype)[0] == FLOAT32 for a in x):
            dtype = FLOAT32
        return self._in.joined(x, axis, dtype)

    def _lower(self, dtype: DType) -> list[Op]:
        ops = [op for part in self._parts for op in part._lower(dtype)]
        return [OneRowOp(), *ops] if ONE_ROW in self._traits else ops

    def _compiled(self, width: int | None = None) -> list[Step]:
        steps = super()._compiled(sum(self._in.widths) or width)
        if ANY_DTYPE in self._traits:
            self._run = decline
        return steps

    def _forward_slow(self, x: object, axis: int, out: Array | None) -> Array:
        if self._plain is not self:
            y = self._plain(*self._each(x), axis=axis, out=out)
            steps = self._plain._compilation[0] or []
            views = self._out.views and len(steps) == 1
            self._run = steps[0].run_parts if views else decline
            return self._out.parted(y, axis)  # type: ignore[return-value]  # that of one array
        x = self._row(x, axis)
        if ANY_DTYPE not in self._traits:
            return super()._forward_slow(x, axis, out)
        a = as_real(x)
        if promote(a.dtype)[0] == self._dtype:
            return super()._forward_slow(a, axis, out)
        if self._single is None:
            traits = [trait for trait in self._traits if trait != ANY_DTYPE]
            parts = [part._astype(FLOAT32)._given for part in self._parts]
            self._single = Network._of(parts, FLOAT32, traits, (self._in, Ends()))
        return self._single(a, axis=axis, out=out)

    def _each(self, x: Any) -> tuple[Any, ...]:
        """Return the arguments of a call for what a call was given."""
        several = isinstance(x, tuple) and len(x) == len(self._in.names) > 1
        return x if several and any(np.ndim(a) for a in x) else (x,)

    def _shape_error(self, error: ShapeMismatch, x: Array, axis: int, rows: Array) -> ValueError:
        found = super()._shape_error(error, x, axis, rows)
        if len(self._in.names) < 2:
            return found
        return ValueError(f"{found}; its inputs one by one are net({', '.join(self._in.names)})")

    def __getstate__(self) -> dict[str, Any]:
        ends = {"inputs": tuple(self._in), "outputs": tuple(self._out)}
        return {"layers": self.layers, "dtype": self._dtype, "traits": self._traits, **ends}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._traits = state.get("traits", ())
        self._end(*(Ends(*state.get(name, ())) for name in ("inputs", "outputs")))

    def _token(self) -> Any:
        ends = (self._in, self._out) if self._in.names or self._out.names else ()
        return (*super()._token(), *self._traits, *ends)

    def _describe(self, key: str, arrays: dict[str, Array]) -> dict[str, Any]:
        return {**super()._describe(key, arrays), **self._own_fields}

    @property
    def _own_fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "traits": list(self._traits),
            "inputs": self._in.described(),
            "outputs": self._out.described(),
            "single": self._out.single,
        }
        return {name: value for name, value in fields.items() if value}

    @classmethod
    def _maker(cls, inner: Sequence[Outline], spec: Any, key: str, reader: Reader) -> Any:
        traits = spec.get("traits", [])
        if not isinstance(traits, list) or not all(t in (ONE_ROW, ANY_DTYPE) for t in traits):
            raise Damaged(key, f"the field 'traits' holds {traits!r:.40}, which is unknown")
        ends = tuple(Ends.read(spec, what, key, reader) for what in ("input", "output"))
        outlines: Any = inner  # which fit each other as parts do
        with unfit(key, ValueError):
            cls._held(outlines, reader.dtype)._end(*ends)
        plain = super()._maker(inner, spec, key, reader)

        def make() -> Network:
            net: Network = plain()
            net._traits = tuple(traits)
            net._end(*ends)
            return net

        return make

    if TYPE_CHECKING:

        def __call__(  # type: ignore[override]  # which may be a tuple
            self, x: ArrayLike, *others: ArrayLike, axis: int = -1, out: Array | None = None
        ) -> Result_co: ...

    def forward(  # type: ignore[override]
        self, x: ArrayLike, *others: ArrayLike, axis: int = -1, out: Array | None = None
    ) -> Result_co:
        """Run the forward pass; the same as calling the network.

        Parameters
        ----------
        x : array_like
            Shape (..., in_features), or (in_features,) for one sample; any real dtype.
        *others : array_like
            The other inputs of a network that has several.
        axis : int
            The axis that the features lie along: -1 for rows as samples, 0 for columns.
        out : ndarray, optional
            Where the result goes.

        Returns
        -------
        ndarray
            Shape (..., out_features), the features along `axis`; `out` where that is given. A
            tuple of views of it where there are several outputs.

        Raises
        ------
        ValueError, TypeError
            As for a call.

        Examples
        --------
        >>> import fastlayer as fl
        >>> net = fl.Network([fl.Layer.from_arrays([[1.0, 2.0]])], inputs=[1, 1])
        >>> net.forward([[3.0]], [[5.0]])
        array([[13.]])
        """
        return self(x, *others, axis=axis, out=out)

    def __len__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[Shown]:
        return iter(self.layers)

    @overload
    def __getitem__(self, index: int) -> Shown: ...
    @overload
    def __getitem__(self, index: slice) -> Network[Result_co | Array]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            kept = range(len(self))[index]
            first, last = (kept[:1] == range(1), kept[-1:] == range(len(self) - 1, len(self)))
            forward = kept.step == 1
            ends = (
                self._in if first and forward else Ends(),
                self._out if last and forward else Ends(),
            )
            return Network._of(self.layers[index], self._dtype, self._traits, ends)
        return self._parts[index]._given

    def gradients(
        self,
        x: Any,
        t: Any,
        loss: LossLike,
        *,
        sample_weight: ArrayLike | None = None,
        wrt_input: bool = False,
    ) -> Gradients:
        """Return the gradients of a mean loss by all weights; the network stays as it is.

        Parameters
        ----------
        x : array_like, or tuple of these
            Shape (m, in_features), or one sample; or all inputs.
        t : array_like
            The targets, see `Loss`.
        loss : str, Loss or callable
            See `Trainer`.
        sample_weight : array_like, optional
            Shape (m,): how much each sample counts.
        wrt_input : bool
            Whether the gradient by `x` is wanted too.

        Returns
        -------
        Gradients
            Its `loss`, `weights[i]`, `biases[i]`, and `input`.

        Raises
        ------
        ValueError, TypeError
            As for `Trainer` and its `step`.

        Examples
        --------
        >>> import fastlayer as fl
        >>> net = fl.Network([fl.Layer.from_arrays([[2.0, 1.0]], [0.5])])
        >>> found = net.gradients([[1.0, 1.0]], [[3.0]], "mse", wrt_input=True)
        >>> found.loss, found.weights[0], found.biases[0], found.input
        (0.25, array([[1., 1.]]), array([1.]), array([[2., 1.]]))
        """
        from fastlayer.train.gradients import gradients

        return gradients(self, x, t, loss, sample_weight, wrt_input)

    def fit(
        self,
        x: Any,
        t: Any = None,
        loss: LossLike | None = None,
        *,
        optimizer: OptimizerLike = "adam",
        epochs: int = 10,
        batch_size: int = 32,
        rng: int | np.random.Generator | None = None,
        validation: Any = None,
        patience: int | None = None,
        sample_weight: ArrayLike | None = None,
        class_weight: Mapping[int, float] | Literal["balanced"] | None = None,
        schedule: ScheduleLike = None,
        callback: Callable[[Network[Result_co], History], Any] | None = None,
        progress: bool | Callable[[int, int | None], object] = False,
        train: Network[Any] | Iterable[Any] | None = None,
        max_norm: float | None = None,
    ) -> History:
        """Train the network; its layers have the new weights after each epoch.

        From the same weights, samples, arguments and seed come the same weights, bit for bit, on
        any number of threads and any instruction set. Other threads may call the network meanwhile:
        its layers change together. Where anything is raised, Ctrl-C included, the network has the
        weights of the last whole epoch.

        Parameters
        ----------
        x : array_like, tuple of these, callable or iterator
            Shape (N, in_features), any real dtype; a memory-mapped array is read a batch at a
            time. A tuple for several inputs. Or a function that returns the batches of an epoch,
            tuples ``(x, t)`` or ``(x, t, sample_weight)``; or an iterator of these for one epoch.
        t : array_like, optional
            The targets, see `Loss`; none beside a stream of batches.
        loss : str, Loss or callable, optional
            See `Trainer`. By default what belongs to the last activation: cross entropy to a
            softmax, binary cross entropy to a sigmoid, Poisson's to exp, else the mean square.
        optimizer : str, SGD, Adam or AdamW
            ``"adam"`` and ``"adamw"`` stand for those with their defaults.
        epochs : int
            How often all samples are gone through.
        batch_size : int
            Samples in a step.
        rng : int or numpy.random.Generator, optional
            Seed of the order of the samples, which changes from epoch to epoch.
        validation : float or tuple, optional
            The share of the samples that is held back, drawn at random; or samples ``(x, t)`` or
            ``(x, t, sample_weight)``.
        patience : int, optional
            So many epochs without a lower validation loss end the run. The weights of the best
            epoch come back.
        sample_weight : array_like, optional
            Shape (N,): how much each sample counts. There is no step for a batch in which all are 0.
        class_weight : dict or "balanced", optional
            How much the samples of each class count; "balanced" makes classes count alike.
        schedule : str, Schedule or callable, optional
            How the learning rate goes: ``"step"``, ``"cosine"``, ``"one_cycle"``, ``"warmup"``, a
            `Schedule`, or a function of the fraction of the run that gives a factor.
        callback : callable, optional
            Called as ``callback(net, history)`` after each epoch; True ends the run.
        progress : bool or callable, optional
            True shows a bar where tqdm is installed and stderr is a terminal or a notebook; a
            callable is told ``(epochs done, epochs)``.
        train : Network or iterable of parts, optional
            The parts that learn, such as ``net[-2:]``; all by default.
        max_norm : float, optional
            Gradients of a larger norm are scaled down to it.

        Returns
        -------
        History
            The losses, epoch by epoch; a picture in a notebook.

        Raises
        ------
        ValueError
            Shapes that don't fit, targets out of range, a loss that doesn't fit the last layer.
            Before anything has changed.
        TypeError
            Arrays that are no real numbers; a part that has no derivative.
        FloatingPointError
            The loss has become infinite or NaN; the message says in which step.

        Examples
        --------
        >>> import fastlayer as fl
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(200, 2))
        >>> net = fl.Network([fl.Layer(2, 16, "relu", rng=0), fl.Layer(16, 2, "softmax", rng=1)])
        >>> history = net.fit(x, x[:, 0] > x[:, 1], epochs=20, rng=0, optimizer=fl.Adam(lr=0.01))
        >>> history.epochs, history.loss[-1] < 0.2
        (20, True)
        """
        from fastlayer.train.fit import fit
        from fastlayer.train.sources import Options

        options = Options(
            optimizer=optimizer,
            epochs=epochs,
            batch_size=batch_size,
            rng=rng,
            validation=validation,
            patience=patience,
            sample_weight=sample_weight,
            class_weight=class_weight,
            schedule=schedule,
            callback=callback,
            progress=progress,
            train=train,
            max_norm=max_norm,
        )
        return fit(self, x, t, loss, options)

    @property
    def verification(self) -> Proof | None:
        """How far it was from its source when it was converted, None where nothing was compared.

        It belongs to this object: copies, slices, pickles and files have none.
        """
        return self._verification

    def activations(self, x: ArrayLike) -> list[tuple[Array, Array]]:
        """Return ``(a, z)`` for every layer: what it gives, and what its activation got.

        For parts that are not a `Layer`, `z` is their input. The layers are run one by one, as
        they are: without the folding of `BatchNorm` that a call of the network does.

        Parameters
        ----------
        x : array_like, or tuple of these
            Shape (..., in_features); or all inputs.

        Returns
        -------
        list of (ndarray, ndarray)
            One pair for each layer, of shape (..., out_features) of that layer and `dtype`.

        Raises
        ------
        ValueError
            A wrong shape of `x`.
        TypeError
            Complex, masked or non-numeric `x`.

        Examples
        --------
        >>> import fastlayer as fl
        >>> net = fl.Network([fl.Layer.from_arrays([[2.0]]), "relu"])
        >>> net.activations([-1.0])
        [(array([-2.]), array([-2.])), (array([0.]), array([-2.]))]
        """
        pairs = []
        a = as_real(self._row(x))
        if ONE_ROW in self._traits:
            check_one_row(a)
        for i, part in enumerate(self._parts):
            a, z = part._pair(a, self[i : i + 1]._plain)
            pairs.append((a, z))
        return pairs

    def summary(self) -> Summary:
        """Return a table of the layers; print it, or read its `rows`.

        Returns
        -------
        Summary
            Layers, shapes, activations, kernels, parameters, bytes, and floating-point operations
            for one row.

        Examples
        --------
        >>> import fastlayer as fl
        >>> summary = fl.Network([fl.Layer(4, 2, "relu")]).summary()
        >>> summary.rows[0]["parameters"], summary.rows[0]["flops"]
        (10, 16)
        """
        from fastlayer.report.summary import Summary

        return Summary(self)

    def profile(self, x: ArrayLike, *, repeat: int = 10) -> Profile:
        """Measure the time of each layer on `x`; print the result, or read its `rows`.

        Each layer runs on its own, `repeat` times, and the fastest counts; the network as a
        whole, which keeps activations in cache between layers, is measured beside them.

        Parameters
        ----------
        x : array_like, or tuple of these
            Shape (..., in_features); or all inputs.
        repeat : int
            How often each layer runs, at least 1.

        Returns
        -------
        Profile
            Seconds of each layer and of the whole, shares, and GFLOP/s (10^9 floating-point
            operations a second).

        Raises
        ------
        ValueError
            A wrong shape of `x`, a `repeat` below 1.
        TypeError
            Complex, masked or non-numeric `x`.

        Examples
        --------
        >>> import fastlayer as fl
        >>> import numpy as np
        >>> profile = fl.Network([fl.Layer(4, 8, "relu"), fl.Layer(8, 3)]).profile(np.ones((5, 4)))
        >>> [row["layer"] for row in profile.rows], profile.samples
        (['Layer(4, 8)', 'Layer(8, 3)'], 5)
        """
        from fastlayer.report.profile import Profile

        return Profile(self._plain, self._row(x), repeat)

    def verify(self, reference: Callable[[Any], Any], x: ArrayLike) -> Verification:
        """Compare with another implementation of the same network on `x`.

        Parameters
        ----------
        reference : callable
            Called with `x`; returns an array of the same shape as ``net(x)``, or several where
            the network has several outputs, as a tuple, list or dict.
        x : array_like, or tuple of these
            The input for both; or all inputs, which the reference is given one by one.

        Returns
        -------
        Verification
            Largest absolute and relative error, largest error in units of the last place of
            `dtype`, share of rows whose argmax agrees. Prints as a table.

        Raises
        ------
        ValueError
            The results have different shapes.

        Examples
        --------
        >>> import fastlayer as fl
        >>> import numpy as np
        >>> layer = fl.Layer(8, 3, rng=0, dtype=np.float64)
        >>> report = fl.Network([layer]).verify(lambda x: x @ layer.weight.T, np.ones((5, 8)))
        >>> report.argmax_agreement
        1.0
        """
        from fastlayer.report.verification import Verification

        return Verification(self, reference, x)

    @overload
    def predict(
        self,
        x: ArrayLike | Iterable[ArrayLike],
        *,
        batch_size: int | None = None,
        out: Array | None = None,
        progress: bool | Callable[[int, int | None], object] = False,
        as_frame: Literal[False] = False,
    ) -> Result_co: ...
    @overload
    def predict(
        self,
        x: Any,
        *,
        batch_size: int | None = None,
        out: Array | None = None,
        progress: bool | Callable[[int, int | None], object] = False,
        as_frame: bool,
    ) -> Any: ...
    def predict(
        self,
        x: ArrayLike | Iterable[ArrayLike],
        *,
        batch_size: int | None = None,
        out: Array | None = None,
        progress: bool | Callable[[int, int | None], object] = False,
        as_frame: bool = False,
    ) -> Any:
        """Run the forward pass over many rows, a batch at a time.

        The bits of a row do not depend on how the rows are batched.

        Parameters
        ----------
        x : array_like, memmap or iterable of arrays
            Rows are samples; or a tuple of all inputs of a network that has several. An iterable (a generator, or a list of arrays with two or more
            dimensions) gives one result, its parts one after the other; a 1-D item is one row.
        batch_size : int, optional
            Rows at a time; by default all of an array at once.
        out : ndarray, optional
            Where the result goes, e.g. a writable memmap: the result's shape and `dtype`. May
            overlap an array, or a list of arrays.
        progress : bool or callable
            True shows a bar where tqdm is installed and stderr is a terminal or a notebook, and
            nothing elsewhere; a callable is given the rows done and the rows in total, None
            where that isn't known.
        as_frame : bool
            Give a table of the kind of `x`, which is one of pandas, polars or Arrow, or has one
            first: with the index of a DataFrame of pandas, and the dtype of the network. Columns
            are named by `output_names` ("value", or "policy_0", "policy_1" where there are
            several features), else 0, 1, ... in pandas and "column_0", "column_1", ... elsewhere.

        Returns
        -------
        ndarray, or tuple of these, or table
            Shape (rows, ..., out_features); `out` where that is given. Views of that one array
            where the network has several outputs. A table has all of them.

        Raises
        ------
        ValueError
            A wrong shape of `x` or `out`, a `batch_size` below 1; an iterator whose next part
            `out` has overwritten.
        TypeError
            Complex, masked or non-numeric `x`, or a column of a table that is so; `out` of another
            dtype; `as_frame` where `x` is no table.

        Examples
        --------
        >>> import fastlayer as fl
        >>> import numpy as np
        >>> net = fl.Network([fl.Layer(4, 2, rng=0)])
        >>> net.predict(np.ones((1000, 4)), batch_size=256).shape
        (1000, 2)
        """
        from fastlayer.network.batches import predict

        like = x[0] if isinstance(x, tuple) and x else x
        if as_frame:
            library_of(like)  # refused before anything is computed
        y = predict(self._plain, self._row(x), batch_size, out, progress)
        result = y if self._plain is self else self._out.parted(y, -1)
        return frame(result, like, self.output_names) if as_frame else result

    def astype(self, dtype: DTypeLike) -> Network[Result_co]:
        """Return a new network that computes in `dtype`.

        Parameters
        ----------
        dtype : dtype
            One of float32 and float64.

        Returns
        -------
        Network
            Its weights are copies, rounded where `dtype` is narrower.

        Raises
        ------
        TypeError
            Another dtype.

        Examples
        --------
        >>> import fastlayer as fl
        >>> fl.Network([fl.Layer(4, 3)]).astype("float64").dtype
        dtype('float64')
        """
        return self._astype(float_dtype(dtype))

    def _astype(self, dtype: DType) -> Network[Result_co]:
        parts = [part._astype(dtype)._given for part in self._parts]
        traits = [t for t in self._traits if t != ANY_DTYPE]
        return Network._of(parts, dtype, traits, (self._in, self._out))

    def copy(self) -> Self:
        """Return a network with layers of its own.

        Returns
        -------
        Network
            With copies of the weights.

        Examples
        --------
        >>> import fastlayer as fl
        >>> net = fl.Network([fl.Layer.from_arrays([[2.0]])])
        >>> other = net.copy()
        >>> other[0].weight = [[3.0]]
        >>> float(net[0].weight[0, 0])
        2.0
        """
        from copy import deepcopy

        return deepcopy(self)

    def save(self, path: str | PathLike[str] | IO[bytes], *, format: str | None = None) -> None:
        """Write the network to a file that `load` reads; see there for the formats.

        The file appears under its name only when it is complete. An open file gets the same
        bytes at its position, in one piece, and is left open; nobody makes sure that they all
        arrive.

        Parameters
        ----------
        path : path or open binary file
            Its name ends in .npz or .safetensors.
        format : {"npz", "safetensors"}, optional
            The format where the name does not tell it, such as that of an ``io.BytesIO``.

        Raises
        ------
        ValueError
            Another suffix, an activation that is a Python function, a file that is closed or not
            for writing.
        TypeError
            Neither a path nor an open binary file.
        ImportError
            There is no safetensors package, for that suffix.
        OSError
            The file can't be written.

        Examples
        --------
        >>> import fastlayer as fl
        >>> import os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     fl.Network([fl.Layer(4, 2)]).save(os.path.join(folder, "model.npz"))
        ...     os.listdir(folder)
        ['model.npz']
        """
        from fastlayer.files.save import save

        save(self, path, PARTS, format)

    def to_onnx(self, path: str | PathLike[str] | IO[bytes]) -> None:
        """Write the network as an ONNX model, opset 20, which ONNX Runtime and others run.

        The model takes rows (N, in_features), or one array for each input, in the dtype of the network,
        and names inputs and outputs as the network does, else ``x`` and ``y``. Its results differ from
        those of the network by what sums in another order and other activations do.

        Parameters
        ----------
        path : path or open binary file
            A path ends in .onnx.

        Raises
        ------
        ConversionError
            A Python function, a network that takes any number of features, labels as outputs.
        ImportError
            There is no onnx package.
        OSError
            The file can't be written.

        Examples
        --------
        >>> import fastlayer as fl
        >>> import onnx
        >>> import os, tempfile
        >>> net = fl.Network([fl.Layer(4, 8, "relu", rng=0), fl.Layer(8, 2, "softmax", rng=1)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     net.to_onnx(os.path.join(folder, "model.onnx"))
        ...     model = onnx.load(os.path.join(folder, "model.onnx"))
        >>> [node.op_type for node in model.graph.node]
        ['Gemm', 'Relu', 'Gemm', 'Softmax', 'Identity']
        """
        from fastlayer.files.onnx_export import to_onnx

        to_onnx(self, path)

    def to_torch(self) -> Any:
        """Return the network as a module of PyTorch, in eval mode, with copies of its weights.

        The module takes rows (N, in_features), or one tensor for each input, in the dtype of the
        network, and gives a tuple where the network does. Its results differ from those of the
        network by what sums in another order and other activations do; `from_torch` makes a
        network with equal bits of it.

        Returns
        -------
        torch.nn.Module
            A `torch.nn.Sequential`; a `torch.fx.GraphModule` where there are several inputs or
            outputs, and for each part in it that has branches.

        Raises
        ------
        ConversionError
            A Python function, labels as outputs, a parameter that PyTorch refuses.
        ImportError
            There is no PyTorch.

        Examples
        --------
        >>> import fastlayer as fl
        >>> import torch
        >>> net = fl.Network([fl.Layer(4, 8, "relu", rng=0), fl.Layer(8, 2, rng=1)])
        >>> net.to_torch()
        Sequential(
          (0): Linear(in_features=4, out_features=8, bias=True)
          (1): ReLU()
          (2): Linear(in_features=8, out_features=2, bias=True)
        )
        """
        from fastlayer.files.torch_export import to_torch

        return to_torch(self)

    def _title(self) -> str:
        return f"Network({self.in_features} -> {self.out_features}, {len(self)} layers)"

    def __repr__(self) -> str:
        lines = ("\n    ".join(part._argument().splitlines()) for part in self._parts)
        inner = "".join(f"\n    {line}," for line in lines)
        named = {"inputs": self._in, "outputs": self._out}
        ends = [
            f", {what}={dict(zip(e.names, e.widths, strict=True))}"
            for what, e in named.items()
            if e.names
        ]
        return f"Network([{inner}\n]{''.join(ends)})"


def _stand_in(title: str, ends: Ends) -> list[Outline]:
    """Return a part that takes and gives as many features as the ends have, where that is known."""
    n = sum(ends.widths)
    return [Outline(title, Sizes(n, n, n, None, True), lambda: None)] if n else []


# What a file may hold: a document names no class but these.
PARTS: dict[str, type[Part]] = {
    kind.__name__: kind
    for kind in (
        *(Activation, Add, BatchNorm, Concat, Flatten, Layer, LayerNorm, Multiply, Network),
        *(RMSNorm, Residual, Slice),
    )
}
