"""`Trainer`: weights on their way, a step at a time."""

from __future__ import annotations

import math
import typing
from contextlib import suppress
from itertools import groupby
from operator import index
from typing import TYPE_CHECKING, Any, Generic

import numpy as np

from fastlayer.arrays import as_real, cast, count, declined
from fastlayer.functions.activation import Activation
from fastlayer.functions.calls import number
from fastlayer.run import renewal
from fastlayer.train import sums
from fastlayer.train.batches import Samples
from fastlayer.train.core import CoreSteps
from fastlayer.train.loss import Loss, as_loss, check_weights
from fastlayer.train.optimizers import as_optimizer
from fastlayer.train.scope import check_end, check_shared, layers_of, owners_of
from fastlayer.train.tape import Tape, as_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import ArrayLike
    from typing_extensions import TypeVar

    from fastlayer.arrays import Array
    from fastlayer.names import ActivationName
    from fastlayer.run.part import Part
    from fastlayer.train.loss import LossLike
    from fastlayer.train.optimizers import Optimizer, OptimizerLike

    Net = TypeVar("Net", bound=Part, default=Any)
else:
    Net = typing.TypeVar("Net")  # a default takes Python 3.13


class Trainer(Generic[Net]):
    """Trains a network: holds weights, what the optimiser keeps, and the count of steps.

    The weights are its own until `network` is asked for: only then do the layers, and with them
    every network that shares them, get what was learned. From the same weights, rows and numbers come
    the same bits, on any number of threads and any instruction set.

    Parameters
    ----------
    net : Network or Layer
        What is trained: `Layer`, `Residual`, `Concat`, `Add`, `Multiply`, `Slice`, `Flatten`,
        `LayerNorm`, `RMSNorm`, activations, and functions given as a pair ``(f, df)``. A `BatchNorm`
        stays as it is.
    loss : str, Loss, callable or None
        See `Loss`; or a function ``(y, t) -> (value, dy)``, which gets the output and the targets as
        they were given. None where `backward` alone is to be called.
    optimizer : str, SGD, Adam or AdamW
        ``"adam"`` and ``"adamw"`` stand for those with their defaults.
    train : Network or iterable of parts, optional
        The parts that learn, such as ``net[-2:]``; the others stay as they are. All by default.
    max_norm : float, optional
        Gradients whose norm, over all parameters, is larger are scaled down to it in each step.

    Raises
    ------
    ValueError
        Nothing to train; a loss that does not fit the last layer.
    TypeError
        A part without a derivative, or an argument of another kind.

    Examples
    --------
    >>> import fastlayer as fl
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(64, 2))
    >>> t = x.prod(axis=1) > 0
    >>> net = fl.Network([fl.Layer(2, 16, "tanh", rng=0), fl.Layer(16, 1, "sigmoid", rng=1)])
    >>> trainer = fl.Trainer(net, "binary_cross_entropy", fl.Adam(lr=0.05))
    >>> losses = [trainer.step(x, t) for _ in range(200)]
    >>> losses[-1] < 0.1 * losses[0]
    True
    >>> bool(np.mean((trainer.network(x)[:, 0] > 0.5) == t) > 0.95)
    True
    """

    def __init__(
        self,
        net: Net,
        loss: LossLike | None,
        optimizer: OptimizerLike,
        *,
        train: Part | Iterable[Any] | None = None,
        max_norm: float | None = None,
    ) -> None:
        if not hasattr(net, "_lower") or not hasattr(net, "dtype"):
            raise TypeError(f"Trainer takes a Network or a Layer, got {type(net).__name__}")
        self._net: Any = net
        self._loss = as_loss(loss)
        self._optimizer = as_optimizer(optimizer)
        self._lr = self._optimizer.lr
        self._max_norm = None if max_norm is None else number("max_norm", max_norm)
        if self._max_norm is not None and not self._max_norm > 0:
            raise ValueError(f"max_norm must be positive, got {max_norm}")
        self._build(None if train is None else owners_of(train, net))

    def _build(self, chosen: set[int] | None) -> None:
        """Make the tape for the weights that the layers have now."""
        net = self._net
        self._ops = net._lower(net.dtype)
        self._tape = Tape(self._ops, net.dtype)
        self._seen: ActivationName | None = None
        if isinstance(self._loss, Loss):
            self._seen = self._tape.look_behind(self._loss._kind.behind)
            check_end(self._loss, net, self._seen)
        held = [p for p in self._tape.parameters if p.owner is not None]
        self._trained = [p for p in held if chosen is None or id(p.owner) in chosen]
        if not self._trained:
            raise ValueError("nothing to train: the network has no weights, or train= names none")
        check_shared(self._trained)
        count = self._optimizer._moments
        self._moments = [[np.zeros_like(p.value) for _ in range(count)] for p in self._trained]
        self._progress = self._optimizer._begin()
        self._steps = 0
        # Steps of a plain chain of layers are the core's; its weights may then be newer.
        self._core = None
        if type(self) is Trainer and isinstance(self._loss, Loss):
            self._core = CoreSteps.of(
                self._tape, self._trained, self._loss, self._optimizer, self._max_norm
            )
        self._core_is_newer = False
        self._pull = 0.0  # of a penalty: times the weights, added to their gradients
        # Of the last `forward`, None where `backward` has nothing to go back through.
        self._shape: tuple[int, int] | None = None

    @property
    def lr(self) -> float:
        """The learning rate of the next step. Assign to change it."""
        return self._lr

    @lr.setter
    def lr(self, lr: float) -> None:
        self._lr = _rate(lr)

    @property
    def steps_done(self) -> int:
        """How many steps have been taken."""
        return self._steps

    @property
    def optimizer(self) -> Optimizer:
        """The optimiser, with the learning rate that it was given."""
        return self._optimizer

    @property
    def loss(self) -> Loss | Callable[..., Any] | None:
        """The `Loss` or callable, None where there is none."""
        return self._loss

    @property
    def network(self) -> Net:
        """The network, whose layers get the weights as they are now.

        All layers are updated together, in every network that holds them. Calls that other threads
        are in the middle of go on with the weights from before.
        """
        self._publish()
        net: Net = self._net
        return net

    def _on_tape(self) -> None:
        """Bring weights and moments to the tape, before they are looked at there."""
        if self._core is not None and self._core_is_newer:
            self._core.pull(self._moments, self._progress)
            self._core_is_newer = False

    def _off_tape(self) -> None:
        """Bring them to the core, once they have changed on the tape."""
        if self._core is not None:
            self._core.push(self._moments, self._progress)

    def _publish(self) -> None:
        self._on_tape()
        owners: dict[int, tuple[Any, dict[str, Array]]] = {}
        for p in self._trained:
            owners.setdefault(id(p.owner), (p.owner, {}))[1][p.name] = p.value
        with renewal.lock():
            renewed = [owner._taking(arrays) for owner, arrays in owners.values()]
            for renew in renewed:
                renew()

    def step(self, x: ArrayLike, t: Any, sample_weight: ArrayLike | None = None) -> float:
        """Take one step on a batch, and return the loss that it had before.

        Parameters
        ----------
        x : array_like
            Shape (m, in_features), or one sample (in_features,); any real dtype.
        t : array_like
            The targets, see `Loss`.
        sample_weight : array_like, optional
            Shape (m,): how much each sample counts.

        Returns
        -------
        float
            The mean loss of the batch.

        Raises
        ------
        ValueError
            Shapes that don't fit, targets out of range, an empty batch. Nothing has changed then.
        TypeError
            Arrays that are no real numbers.

        Examples
        --------
        >>> import fastlayer as fl
        >>> layer = fl.Layer(1, 1, init="zeros", bias=False)
        >>> trainer = fl.Trainer(layer, "mse", fl.SGD(lr=0.5))
        >>> trainer.step([[1.0]], [[3.0]])
        9.0
        >>> trainer.network.weight
        array([[3.]], dtype=float32)
        """
        value = None if self._core is None else self._core_step(self._core, x, t, sample_weight)
        if value is None:
            value, _ = self._gradients(x, t, sample_weight)
            self.update()
        return value

    def _core_step(self, core: CoreSteps, x: Any, t: Any, sample_weight: Any) -> float | None:
        """Take a step in the core, after the same checks as on the tape."""
        loss = self._loss
        assert isinstance(loss, Loss)
        value = None
        if sample_weight is None and loss._is_ready(t, self._net.dtype):
            with suppress(ValueError):  # class numbers out of range, which is explained below
                value = core.step(x, t, None, self._lr)
        if value is None:
            rows = self._rows(x)
            m = rows.shape[0]
            weights = check_weights(sample_weight, m)
            if m == 0:
                raise ValueError("the batch is empty")
            n = self._net.out_features
            targets = loss._targets(t, (m, n), rows.dtype, one=m == 1)
            value = core.step(rows, targets, weights, self._lr)
        if value is not None:
            self._stepped(1)
        return value

    def _stepped(self, steps: int) -> None:
        """Note that the core has taken steps."""
        self._steps += steps
        self._core_is_newer = self._core_is_newer or steps > 0
        self._shape = None
        self._clear()

    def _gradients(self, x: Any, t: Any, sample_weight: Any) -> tuple[float, Array]:
        """Compute the gradients of a batch alone; return its loss, and the gradient by its rows."""
        if self._loss is None:
            raise ValueError("this trainer has no loss: call forward, backward and update")
        self._on_tape()
        rows = self._rows(x)
        self._shape = None
        value, dy = self._value_and_gradient(rows, t, sample_weight)
        self._clear()
        penalty = getattr(self._loss, "_penalty", 0.0)
        if penalty:
            weights = check_weights(sample_weight, rows.shape[0])
            whole = float(rows.shape[0]) if weights is None else sums.total(weights)
            value = value + 0.5 * penalty * self._squares() / whole
            self._pull = penalty / whole
        return value, self._back(dy)

    def _squares(self) -> float:
        """Return the sum of the squares of all weights that are trained, without biases."""
        squares = 0.0
        for p in self._trained:
            if p.name == "weight":
                squares = squares + sums.total(sums.row_dots(p.value, p.value))
        return squares

    def _back(self, dy: Array) -> Array:
        """Add to the gradients; to none where a function of the user's fails in the midst."""
        before = [p.gradient for p in self._tape.parameters]
        try:
            return self._tape.backward(dy)
        except BaseException:
            for p, gradient in zip(self._tape.parameters, before, strict=True):
                p.gradient = gradient
            raise

    def steps(
        self,
        x: Any,
        t: Any,
        batch_size: int,
        order: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Array:
        """Take one step on each batch of some samples, as an epoch of `Network.fit` does.

        Parameters
        ----------
        x : array_like
            Shape (N, in_features); a memory-mapped array is read a batch at a time.
        t : array_like
            The targets of all.
        batch_size : int
            Samples in a batch; the last one may have fewer.
        order : array_like of int, optional
            Indices of the samples, in the order in which they are taken. By default all, one after
            the other.
        sample_weight : array_like, optional
            Shape (N,).

        Returns
        -------
        ndarray
            Shape (number of batches,), float64: the loss of each batch before its step.

        Raises
        ------
        ValueError, TypeError
            As for `step`; an index that there isn't. Before the first step.

        Examples
        --------
        >>> import fastlayer as fl
        >>> layer = fl.Layer(1, 1, init="zeros", bias=False)
        >>> trainer = fl.Trainer(layer, "mse", fl.SGD(lr=0.5))
        >>> trainer.steps([[1.0], [0.0], [1.0]], [3.0, 0.0, 3.0], batch_size=2)
        array([4.5 , 2.25])
        """
        samples = self._samples(x, t, sample_weight)
        chosen, size = samples.order(order), count("batch_size", batch_size)
        samples.check_batches(chosen, size)
        return self._epoch(samples, chosen, size, [self._lr] * -(-chosen.size // size))

    def _epoch(self, samples: Samples, order: Array, size: int, rates: list[float]) -> Array:
        """Take a step on each batch, with a learning rate for each."""
        if self._core is not None and rates and (given := samples.for_core()) is not None:
            return self._core_epoch(self._core, given, order, size, rates)
        losses = []
        for batch, lr in zip(samples.batches(order, size), rates, strict=True):
            self._lr = lr
            losses.append(self.step(*batch))
        return np.array(losses)

    def _core_epoch(
        self,
        core: CoreSteps,
        given: tuple[Array, Array, Array | None],
        order: Array,
        size: int,
        rates: list[float],
    ) -> Array:
        """Take them in the core: one call for all batches in a row that have the same rate."""
        order = order.astype(np.int64, copy=False)
        losses: list[Array] = []
        begin = 0
        for lr, some in groupby(rates):
            end = begin + sum(1 for _ in some) * size
            self._lr = lr
            try:
                found = core.steps(*given, size, order[begin:end], lr)
            except BaseException:
                self._stepped(core.steps_done)  # Ctrl-C ends the call between two steps
                raise
            if found is None:
                raise declined()
            self._stepped(found.size)
            losses.append(found)
            begin = end
        return np.concatenate(losses)

    def _samples(self, x: Any, t: Any, sample_weight: Any) -> Samples:
        """Check all samples before the first step."""
        net = self._net
        samples = Samples(x, t, sample_weight, self._loss, net.out_features, net.dtype)
        # One row tells whether the shape is right.
        self._rows(samples.inputs_at(np.arange(1)), samples.inputs[0].shape)
        return samples

    def forward(self, x: ArrayLike) -> Array | Any:
        """Return what the network gives with the weights as they are now, and keep it for `backward`.

        Parameters
        ----------
        x : array_like
            Shape (m, in_features), or one sample; any real dtype. A tuple of several inputs.

        Returns
        -------
        ndarray
            Shape (m, out_features), or a tuple of these where the network has several outputs.

        Raises
        ------
        ValueError, TypeError
            As for a call of the network.

        Examples
        --------
        >>> import fastlayer as fl
        >>> import numpy as np
        >>> net = fl.Network([fl.Layer(3, 2, rng=0)])
        >>> trainer = fl.Trainer(net, None, fl.SGD(lr=0.1))
        >>> y = trainer.forward(np.ones((4, 3)))
        >>> dx = trainer.backward(2 * y / y.size)
        >>> trainer.update()
        >>> dx.shape
        (4, 3)
        """
        self._on_tape()
        rows = self._rows(x).copy()  # `backward` needs them as they are now
        self._shape = None
        y = self._run(rows)
        self._shape = y.shape
        return self._parted(y)

    def _parted(self, y: Array) -> Any:
        """Return several outputs as a tuple."""
        ends = getattr(self._net, "_out", None)
        return ends.parted(y, -1) if ends is not None and ends.names and ends.views else y

    def backward(self, dy: Any) -> Array:
        """Add to the gradients, given that of the loss by what `forward` returned.

        It may be called several times before `update`, for several losses or batches.

        Parameters
        ----------
        dy : array_like
            The shape of the result of `forward`; a tuple where that is one.

        Returns
        -------
        ndarray
            Shape (m, in_features): the gradient by `x`.

        Raises
        ------
        ValueError
            Another shape; `forward` was not called.

        Examples
        --------
        >>> import fastlayer as fl
        >>> layer = fl.Layer.from_arrays([[2.0, 3.0]])
        >>> trainer = fl.Trainer(layer, None, fl.SGD(lr=0.1))
        >>> y = trainer.forward([[1.0, 1.0]])
        >>> trainer.backward([[1.0]])
        array([[2., 3.]])
        """
        shape = self._shape
        if shape is None:
            raise ValueError("call forward first: backward goes back through what it computed")
        d = self._joined(dy, "dy")
        if d.ndim == 1 and shape[0] == 1:
            d = d[None]
        if d.shape != shape:
            raise ValueError(f"dy has shape {d.shape}, but forward gave {shape}")
        d = cast(d, self._net.dtype)
        if self._seen is not None:
            d = self._behind_backward(d)
        return self._back(d)

    def _joined(self, dy: Any, what: str) -> Array:
        """Return the gradients by several outputs as one array."""
        if not isinstance(dy, tuple):
            return as_real(dy, what)
        parts = [np.atleast_1d(as_real(part, what)) for part in dy]
        widths = self._net._out.widths if hasattr(self._net, "_out") else ()
        if [part.shape[-1] for part in parts] != list(widths):
            shapes = ", ".join(str(part.shape) for part in parts)
            raise ValueError(f"{what} has shapes {shapes}, and the outputs have {widths} features")
        return np.concatenate(parts, axis=-1)

    def update(self) -> None:
        """Take a step of the optimiser with the gradients that `backward` has added up.

        Raises
        ------
        ValueError
            There are none.

        Examples
        --------
        >>> import fastlayer as fl
        >>> layer = fl.Layer.from_arrays([[2.0]])
        >>> trainer = fl.Trainer(layer, None, fl.SGD(lr=0.5))
        >>> y = trainer.forward([[1.0]])
        >>> dx = trainer.backward([[1.0]])
        >>> trainer.update()
        >>> trainer.network.weight
        array([[1.5]])
        """
        gradients = [p.reduced() for p in self._trained]
        if any(g is None for g in gradients):
            raise ValueError("there are no gradients: call backward first")
        found = [g for g in gradients if g is not None]
        with np.errstate(all="ignore"):
            if self._max_norm is not None:
                found = _clipped(found, self._max_norm)
            scalars = self._optimizer._advance(self._progress, self._lr)
            for p, g, moments in zip(self._trained, found, self._moments, strict=True):
                pull = p.value.dtype.type(self._pull if p.name == "weight" else 0.0)
                g = g + pull * p.value if pull else g
                self._optimizer._apply(p.value, g, moments, scalars)
        self._off_tape()
        self._steps += 1
        self._clear()

    @property
    def gradients(self) -> list[Array]:
        """The gradients that `backward` has added up: of each trained layer weight, bias, slopes."""
        found = [(p.value, p.reduced()) for p in self._trained]
        return [np.zeros_like(value) if g is None else g for value, g in found]

    @property
    def state(self) -> dict[str, Any]:
        """Weights, moments, learning rate and counters as plain data; assign it to go on from there.

        A trainer that is made of an equal network and is given this goes on bit for bit as if it had
        never stopped. Pickles of a trainer hold the same.
        """
        self._on_tape()
        return {
            "values": [p.value.copy() for p in self._trained],
            "moments": [[a.copy() for a in moments] for moments in self._moments],
            "progress": dict(self._progress),
            "steps": self._steps,
            "lr": self._lr,
        }

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        keys = {"values", "moments", "progress", "steps", "lr"}
        if not keys <= getattr(state, "keys", set)():
            raise TypeError(f"state is what the state of a Trainer was: a dict with {sorted(keys)}")
        dtype = self._net.dtype

        def taken(a: Any) -> Array:
            return np.array(cast(as_real(a, "state"), dtype), order="C")

        values = [taken(a) for a in state["values"]]
        moments = [[taken(a) for a in each] for each in state["moments"]]
        progress = {key: float(v) for key, v in state["progress"].items()}
        steps, lr = index(state["steps"]), _rate(state["lr"])
        shapes = [p.value.shape for p in self._trained]
        found = [a.shape for a in values]
        if found != shapes:
            raise ValueError(
                f"the state is that of another trainer: it has arrays of shapes {found}, and this "
                f"one {shapes}"
            )
        own = [[a.shape for a in each] for each in self._moments]
        given = [[a.shape for a in each] for each in moments]
        if given != own or progress.keys() != self._progress.keys():
            raise ValueError(
                f"the state is that of another optimizer than {self._optimizer!r}: it has other "
                "moments"
            )
        for p, a in zip(self._trained, values, strict=True):
            p.value = a
        self._moments, self._progress, self._steps, self._lr = moments, progress, steps, lr
        self._core_is_newer = False
        self._off_tape()
        self._clear()
        self._shape = None

    def _clear(self) -> None:
        for p in self._tape.parameters:
            p.gradient = None
        self._pull = 0.0

    def _rows(self, x: Any, whole: tuple[int, ...] = ()) -> Array:
        """Return samples as rows in the dtype of the network.

        They may be some of an array of the shape `whole`.
        """
        net = self._net
        together = getattr(net, "_row", None)  # of several inputs
        a = as_real(x if together is None else together(x))
        if a.ndim == 0:
            raise ValueError(f"{net._title()}: x is a scalar, expected {net._expected(-1)}")
        rows = as_rows(self._ops, a)
        k = net.in_features
        if k is not None and rows.shape[1] != k:
            raise ValueError(
                f"{net._title()}: expected x of shape (m, {k}), got {whole or a.shape}"
            )
        return np.ascontiguousarray(cast(rows, net.dtype))

    def _run(self, rows: Array) -> Array:
        """Run the tape, with the activation at the end that the loss would look behind."""
        z = self._z = self._tape.forward(rows)
        return z if self._seen is None else np.asarray(Activation(self._seen)(z))

    def _behind_backward(self, dy: Array) -> Array:
        from fastlayer.functions.backward import activation_backward

        return activation_backward(dy, self._z, self._seen)

    def _value_and_gradient(self, rows: Array, t: Any, sample_weight: Any) -> tuple[float, Array]:
        loss = self._loss
        m = rows.shape[0]
        if m == 0:
            raise ValueError("the batch is empty")
        weights = check_weights(sample_weight, m)
        if isinstance(loss, Loss):
            z = self._z = self._tape.forward(rows)
            targets = loss._targets(t, (m, z.shape[1]), z.dtype, one=m == 1)
            return loss._of(z, targets, weights)
        if weights is not None:
            raise ValueError("a loss of one's own has to see to the weights of samples itself")
        assert callable(loss)
        y = self._run(rows)
        returned = loss(self._parted(y), t)
        try:
            value, dy = returned
            value = float(value)
        except (TypeError, ValueError):
            raise TypeError(
                f"the loss returned {returned!r:.60}; it returns a number and the gradient by y: "
                "(value, dy)"
            ) from None
        d = self._joined(dy, "dy of the loss")
        if d.shape != y.shape:
            raise ValueError(f"the loss returned dy of shape {d.shape} for y of shape {y.shape}")
        return value, cast(d, y.dtype)

    def __getstate__(self) -> dict[str, Any]:
        owners = [id(p.owner) for p in self._trained]
        parts = layers_of(self._net)
        return {
            "net": self._net,
            "loss": self._loss,
            "optimizer": self._optimizer,
            "max_norm": self._max_norm,
            "trained": [i for i, part in enumerate(parts) if id(part) in owners],
            "state": self.state,
        }

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self._net, self._loss = saved["net"], saved["loss"]
        self._optimizer, self._max_norm = saved["optimizer"], saved["max_norm"]
        self._lr = self._optimizer.lr
        parts = layers_of(self._net)
        self._build({id(parts[i]) for i in saved["trained"]})
        self.state = saved["state"]

    def __repr__(self) -> str:
        return (
            f"Trainer({self._net._title()}, {self._loss!r}, {self._optimizer!r}, "
            f"steps_done={self._steps})"
        )


class OnTape(Trainer):
    """A trainer of which gradients are wanted, and no steps: it makes nothing ready for the core."""


def _rate(lr: Any) -> float:
    value = number("lr", lr)
    if not 0 < value < math.inf:
        raise ValueError(f"lr must be positive, got {lr}")
    return value


def _clipped(gradients: list[Array], max_norm: float) -> list[Array]:
    squares = 0.0
    for g in gradients:
        flat = g.reshape(-1)
        squares += sums.dot(flat, flat)
    share = max_norm / (math.sqrt(squares) + 1e-6)
    return [g * g.dtype.type(share) for g in gradients] if share < 1 else gradients
