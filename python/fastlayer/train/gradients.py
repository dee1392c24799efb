"""The gradients of a network by its weights, and whether they are right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.arrays import FLOAT64, as_real
from fastlayer.report.tables import Shown, Table
from fastlayer.train.optimizers import SGD
from fastlayer.train.tape import Dense
from fastlayer.train.trainer import OnTape

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastlayer.arrays import Array
    from fastlayer.train.loss import LossLike
    from fastlayer.train.tape import Parameter


class Gradients(Shown):
    """The gradients of a mean loss: what `Network.gradients` returns.

    Attributes
    ----------
    loss : float
        The loss itself.
    weights, biases : list of ndarray or None
        One for each part that has weights, in the order in which they run: the shape of its
        ``weight`` and ``bias``, None for one that it doesn't have.
    slopes : list of ndarray or None
        The same for the slopes of a prelu.
    input : ndarray or None
        The gradient by `x` where that was asked for.
    """

    def __init__(self, loss: float, parameters: list[Parameter], dx: Array | None) -> None:
        # `Any`, where None means that there was nothing to ask for: nobody has to look for it.
        self.loss = loss
        self.input: Array | Any = dx
        self.weights: list[Array | Any] = []
        self.biases: list[Array | Any] = []
        self.slopes: list[Array | Any] = []
        places = {"weight": self.weights, "bias": self.biases, "slopes": self.slopes}
        titles: list[str] = []
        owner = None
        for p in parameters:
            if p.owner is not owner:
                owner = p.owner
                titles.append(owner._title())
                for kept in places.values():
                    kept.append(None)
            places[p.name][-1] = p.reduced()
        self._titles = titles

    def _table(self) -> Table:
        def largest(a: Array | None) -> str:
            return "" if a is None else f"{float(np.max(np.abs(a), initial=0)):.3g}"

        rows = [
            [str(i), title, largest(w), largest(b)]
            for i, (title, w, b) in enumerate(
                zip(self._titles, self.weights, self.biases, strict=True)
            )
        ]
        header = ["", "part", "largest of weights", "of biases"]
        return Table(header, rows, left=2, notes=(f"loss {self.loss:.6g}",))


def gradients(
    net: Any,
    x: Any,
    t: Any,
    loss: LossLike,
    sample_weight: ArrayLike | None,
    wrt_input: bool,
) -> Gradients:
    """Compute what `Network.gradients` returns."""
    trainer = OnTape(net, loss, SGD(lr=1.0))
    shape = None if isinstance(x, tuple) else as_real(x).shape
    first = trainer._tape.nodes[0]
    if isinstance(first, Dense):
        first.passes_back = wrt_input
    value, dx = trainer._gradients(x, t, sample_weight)
    if wrt_input and shape is not None:
        dx = dx.reshape(shape)
    return Gradients(value, trainer._trained, dx if wrt_input else None)


# Elements that are checked of each array; more of them would say no more.
_CHECKED = 64


class GradientCheck(Shown, float):
    """The largest relative difference that `fastlayer.check_gradients` found, as a number and a table."""

    _rows: list[list[str]]

    @classmethod
    def _of(cls, worst: float, rows: list[list[str]]) -> GradientCheck:
        made = cls(worst)
        made._rows = rows
        return made

    def _table(self) -> Table:
        header = [
            "part",
            "array",
            "checked",
            "largest difference",
            "at",
            "gradient",
            "difference quotient",
        ]
        verdict = "they agree" if self < 1e-5 else "they do not agree"
        notes = (f"largest relative difference {float(self):.2g}: {verdict}",)
        return Table(header, self._rows, left=2, notes=notes)


def check_gradients(
    net: Any,
    x: ArrayLike,
    t: Any,
    loss: LossLike,
    *,
    sample_weight: ArrayLike | None = None,
) -> GradientCheck:
    """Compare the gradients of a network with difference quotients, in float64.

    Each gradient is compared with ``(L(w + h) - L(w - h)) / 2h`` for up to 64 elements of each
    array. A loss of one's own, or a pair ``(f, df)``, is checked like that before it is used.

    Parameters
    ----------
    net : Network or Layer
        What is checked; a copy of it computes in float64.
    x : array_like
        Shape (m, in_features); a few samples are enough.
    t : array_like
        The targets, see `Loss`.
    loss : str, Loss or callable
        See `Trainer`.
    sample_weight : array_like, optional
        Shape (m,).

    Returns
    -------
    GradientCheck
        A float, the largest relative difference: about 1e-8 where all is right, unless an activation
        has a kink near by. Printed, it is a table.

    Raises
    ------
    ValueError, TypeError
        As for `Trainer.step`.

    Examples
    --------
    >>> import fastlayer as fl
    >>> net = fl.Network([fl.Layer(3, 4, "tanh", rng=0), fl.Layer(4, 2, "softmax", rng=1)])
    >>> check = fl.check_gradients(net, [[1.0, 2.0, 3.0], [0.0, -1.0, 1.0]], [0, 1], "cross_entropy")
    >>> check < 1e-6
    True
    """
    wide: Any = net._astype(FLOAT64)
    trainer = OnTape(wide, loss, SGD(lr=1.0))
    trainer._gradients(x, t, sample_weight)
    found = [np.array(g) for g in trainer.gradients]
    rows, worst = [], 0.0
    for p, g in zip(trainer._trained, found, strict=True):
        flat, slopes = p.value.reshape(-1), g.reshape(-1)
        chosen = np.unique(np.linspace(0, flat.size - 1, min(flat.size, _CHECKED)).astype(int))
        scale = float(np.max(np.abs(slopes), initial=0))
        largest, at, quotient = -1.0, 0, 0.0
        for i in chosen:
            slope = _quotient(trainer, flat, i, (x, t, sample_weight))
            size = max(abs(slope), abs(slopes[i]), 1e-3 * scale, 1e-10)
            difference = abs(slope - slopes[i]) / size
            if difference > largest:
                largest, at, quotient = difference, int(i), slope
        place = ", ".join(map(str, np.unravel_index(at, p.value.shape)))
        rows.append(
            [
                p.owner._title(),
                p.name,
                str(chosen.size),
                f"{largest:.1e}",
                f"[{place}]",
                f"{slopes[at]:.6g}",
                f"{quotient:.6g}",
            ]
        )
        worst = max(worst, largest)
    return GradientCheck._of(worst, rows)


def _quotient(trainer: OnTape, flat: Array, i: int, batch: tuple[Any, Any, Any]) -> float:
    """Return the symmetric difference quotient of the loss by one element of an array."""
    x, t, weights = batch
    before = float(flat[i])
    h = 6e-6 * max(1.0, abs(before))  # the cube root of eps balances truncation and rounding
    losses = []
    for value in (before + h, before - h):
        flat[i] = value
        losses.append(trainer._value_and_gradient(trainer._rows(x), t, weights)[0])
    flat[i] = before
    return (losses[0] - losses[1]) / ((before + h) - (before - h))
