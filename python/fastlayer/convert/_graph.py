"""The points of a computation graph, each as the steps that lead there; sums become residuals.

The one way from a source to a network. A point knows the point before it, so a sum is a residual
where one of its two points lies on the way to the other. A point also knows what it is as a formula
of earlier points: where a formula is an activation or a norm that somebody wrote by hand, the point
is that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer.convert import _recognise
from fastlayer.convert._affine import Affine
from fastlayer.convert._prove import prove
from fastlayer.convert._recognise import X
from fastlayer.errors import ConversionError
from fastlayer.functions.activation import Activation
from fastlayer.network.chain import Residual
from fastlayer.network.layer import Layer
from fastlayer.network.network import Network
from fastlayer.network.norms import LayerNorm, RMSNorm
from fastlayer.network.part import Flatten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fastlayer.arrays import Array, DType
    from fastlayer.convert._recognise import Normalize, Poly

IDENTITY = Activation("identity")
# A file's word is not taken for more features than that; layers with weights have as many as they
# have, and a network of residuals in residuals is not run deeper.
_MOST_SCALED = 1 << 18
_DEEPEST = 64
# Earlier points that a formula is known of: an activation that was taken apart leaves fewer.
_MOST_VIEWS = 6
# Steps around which all residual connections of a network may lead.
_LONGEST_WALK = 1 << 16


class Dense(NamedTuple):
    """A dense layer: weight (n, k), bias (n,) or None."""

    weight: Array
    bias: Array | None = None

    @property
    def in_features(self) -> int:
        """Number of features that it takes."""
        return int(self.weight.shape[1])


class Flat(NamedTuple):
    """Each sample becomes one row, of `width` features where the source says so."""

    place: str
    width: int | None = None


class OneRow(NamedTuple):
    """The source names the features' axis by a number, so each sample must be one row here."""

    place: str
    in_features: int | None = None


class Sum(NamedTuple):
    """The input of these steps is added to their output; `depth` counts the sums in each other."""

    steps: tuple[Any, ...]
    depth: int = 1

    @property
    def in_features(self) -> int | None:
        """Number of features that the steps take, None where none of them says."""
        return _takes(self.steps)


class Formula(NamedTuple):
    """What nothing computes by itself; the error says so where nothing known comes of it."""

    error: ConversionError


class _Start:
    """What all points from one input share."""

    def __init__(self, eps: float) -> None:
        self.eps = eps  # of the constants; 0 where they are exact
        self.walked = 0


class Point:
    """A value in the graph: a step (one of these classes, an `Affine`, a part) after another point.

    The input has neither. `eps` is the machine epsilon of the source's constants.
    """

    __slots__ = ("parent", "start", "step", "views")

    def __init__(self, parent: Point | None = None, step: Any = None, eps: float = 0.0) -> None:
        self.parent = parent
        self.step = step
        self.start: _Start = _Start(eps) if parent is None else parent.start
        self.views: dict[Point, Poly] = {} if isinstance(step, Formula) else {self: X}

    @property
    def runs(self) -> bool:
        """Whether steps lead here; a formula waits for the operations around it."""
        return not isinstance(self.step, Formula)

    def running(self) -> Point:
        """Return this point.

        Raises
        ------
        ConversionError
            It is a formula of which nothing known came.
        """
        if isinstance(self.step, Formula):
            raise self.step.error
        return self

    def then(self, steps: Iterable[Any]) -> Point:
        """Return the point that some steps lead to from here; see `running`."""
        point = self
        for step in steps:
            point = point._after(step)
        return point

    def _after(self, step: Any) -> Point:
        eps = self.start.eps
        if _recognise.polynomial(step, X, eps) is None:
            return Point(self.running(), step)
        # Of a formula more of the same comes; of a point, at least the step.
        error = self.step.error if isinstance(self.step, Formula) else ConversionError("", "")
        return elementwise(
            [self],
            lambda p: _recognise.polynomial(step, p, eps),
            error,
            lambda: Point(self, step) if self.runs else None,
        )

    def since(self, other: Point | None) -> tuple[Any, ...] | None:
        """Return the steps from `other` to here, None where it does not lie on the way."""
        steps = []
        point: Point | None = self
        while point is not None and point is not other:
            steps.append(point.step)
            point = point.parent
        self.start.walked += len(steps)
        return None if point is not other else tuple(reversed(steps))


def elementwise(
    points: list[Point],
    make: Callable[..., Any],
    error: ConversionError,
    direct: Callable[[], Point | None] = lambda: None,
) -> Point:
    """Return what an operation on each element, or a mean of each row, makes of some points.

    Parameters
    ----------
    points : list of Point
        The operands.
    make : callable
        Returns the polynomial for polynomials of the operands, all over one earlier point.
    error : ConversionError
        Raised where nothing known comes of it.
    direct : callable, optional
        Returns what the operation is by itself, where it is something.

    Returns
    -------
    Point

    Raises
    ------
    ConversionError
        The operands have no point in common.
    """
    first = points[0]
    views: dict[Point, Poly] = {}
    for root in list(first.views)[-_MOST_VIEWS:]:
        if all(root in p.views for p in points):
            poly = make(*(p.views[root] for p in points))
            if _recognise.small(poly):
                views[root] = poly
    for root, poly in views.items():
        steps = _recognise.recognise(poly, first.start.eps)
        if steps is None:
            continue
        point = root
        for step in steps:
            point = Point(point, step)
        if point is root:  # the formula is that earlier point itself
            return point
        break
    else:
        made = direct()
        if made is None and not views:
            raise error
        point = made or Point(first, Formula(error))
        if point is first:
            return point
    point.views = {**views, **point.views}
    return point


def add(a: Point, b: Point, place: str, sign: float = 1.0) -> Point:
    """Return ``a + sign * b``: part of a formula, or a residual connection.

    Raises
    ------
    ConversionError
        Neither lies on the way to the other.
    """
    error = ConversionError(
        place,
        "adds two branches that both have layers, and fastlayer's Residual adds the input of a "
        "branch to its output; convert the branches as networks of their own, and add their "
        "results with NumPy",
    )
    return elementwise(
        [a, b], lambda p, q: _recognise.add(p, q, sign), error, lambda: _residual(a, b, sign, place)
    )


def _residual(a: Point, b: Point, sign: float, place: str) -> Point | None:
    # With a computed from b, a - b is -(b - a).
    for far, near, outside in ((a, b, sign), (b, a, 1.0)):
        steps = far.since(near) if far.runs and near.runs else None
        if far.start.walked > _LONGEST_WALK:
            raise ConversionError(place, "has residual connections around too many layers")
        if steps is None:
            continue
        if sign != 1:
            steps = (*steps, Affine.of(sign))
        depth = 1 + max((s.depth for s in steps if isinstance(s, Sum)), default=0)
        if depth > _DEEPEST:
            raise ConversionError(place, f"has residuals more than {_DEEPEST} deep in each other")
        whole = Point(near, Sum(steps, depth) if steps else Affine.of(2.0))
        return whole if outside == 1 else Point(whole, Affine.of(outside))
    return None


class Draft(NamedTuple):
    """A network that is to be made: the steps from the input to `point`."""

    point: Point
    dtype: DType
    source: str  # what it is made from, for messages
    features: int | None = None  # of the input, where the source tells

    @property
    def steps(self) -> tuple[Any, ...]:
        """The steps from the input to `point`."""
        return (self.point.running().since(None) or ())[1:]  # the input has no step

    def network(self) -> Network:
        """Make the network.

        Raises
        ------
        ConversionError
            Steps that do not fit each other.
        """
        try:
            parts = _Assembly(self.dtype, self.features, self.source).run(self.steps)
            return Network._of(tuple(parts or [IDENTITY]), self.dtype)
        except ConversionError:
            raise
        except (TypeError, ValueError) as error:
            raise ConversionError(self.source, str(error)) from error

    def proved(self, reference: Callable[[Array], Array], computes: DType | None = None) -> Network:
        """Make the network, and see that it does what its source does on rows of all kinds.

        `computes` is the dtype that the source computes in, where that is not its weights'.
        """
        made = self.network()
        same = made if computes in (None, self.dtype) else made.astype(computes)
        if not _takes_rows(made):
            raise ConversionError(
                self.source,
                "works on the last of several axes before it flattens them, so there are no "
                "rows to try it with; convert with verify=False, and compare on your own data "
                "with net.verify",
            )
        made._verification = prove(same, reference, source=self.source)
        return made


def _takes_rows(net: Network) -> bool:
    """Whether a network takes single rows, and not samples of several axes alone."""
    if net.in_features is None:
        return True
    try:
        net(np.zeros((1, net.in_features), net.dtype))
    except ValueError:
        return False
    return True


class _Assembly:
    """The parts for some steps, put together one after the other."""

    def __init__(self, dtype: DType, width: int | None, source: str) -> None:
        self.dtype, self.source = dtype, source
        self.width = width  # features that the next step gets
        self.flat = False
        self.one_row: str | None = None  # the place that took it for granted
        self.parts: list[Any] = []
        self.todo: list[Any] = []

    def run(self, steps: Iterable[Any]) -> list[Any]:
        """Return the parts."""
        self.todo = list(steps)[::-1]
        while self.todo:
            step = self.todo.pop()
            _JOIN.get(type(step), _Assembly._part)(self, step)
        return self.parts

    def _next(self, *kinds: type[Any]) -> bool:
        return bool(self.todo) and isinstance(self.todo[-1], kinds)

    def _plain(self) -> bool:
        """Whether the last part is a dense layer without an activation."""
        last = self.parts[-1] if self.parts else None
        return isinstance(last, Layer) and last.activation == IDENTITY

    def _part(self, part: Any) -> None:
        self.parts.append(part)
        if part.out_features is not None or not isinstance(part, Residual):
            self.width = part.out_features

    def _dense(self, step: Dense) -> None:
        bias = step.bias
        if bias is None and self._next(Affine) and self.todo[-1].shifts:
            bias = np.broadcast_to(self.todo.pop().shift, len(step.weight))
        self._part(Layer.from_arrays(step.weight, bias, dtype=self.dtype))

    def _activation(self, step: Activation) -> None:
        if self._plain():
            self.parts[-1].activation = step
        else:
            self.parts.append(step)

    def _affine(self, step: Affine) -> None:
        step = self._merged(step)
        if step.in_features is None and self._next(Flat):  # numbers are the same on both sides
            flat = self.todo.pop()
            self.todo += [step, flat]
            return
        n = step.in_features or self._features("scales its input by a number")
        self.parts += step.parts(n, self.dtype, self._next(Dense, Layer) and not self._plain())
        self.width = n

    def _merged(self, step: Affine) -> Affine:
        """Return an affine with those that follow it worked in."""
        while self._next(Affine):
            both = step.then(self.todo[-1])
            if both is None:
                break
            step = both
            self.todo.pop()
        return step

    def _features(self, what: str) -> int:
        n = self.width or _takes(reversed(self.todo))
        if n is None or n > _MOST_SCALED:
            raise ConversionError(self.source, f"{what}, and no layer tells how many features")
        return n

    def _normalize(self, step: Normalize) -> None:
        n = step.in_features or self._features("normalises its input")
        behind = self._merged(self.todo.pop()) if self._next(Affine) else Affine.of()
        weight, bias = (np.broadcast_to(v, (n,)) for v in behind)
        scale = None if behind.shifts else weight
        if step.name == "layer_norm":
            shift = bias if bias.any() else None
            self._part(LayerNorm(n, step.eps, scale, shift, self.dtype))
            return
        self._part(RMSNorm(n, step.eps, scale, self.dtype))
        if bias.any():
            self.parts += Affine.of(1.0, bias).parts(n, self.dtype)

    def _one_row(self, step: OneRow) -> None:
        self.one_row = step.place

    def _flat(self, step: Flat) -> None:
        after = _takes(reversed(self.todo))
        self._check_flat(step, after)
        if not self.flat:
            self.parts.append(Flatten())
            self.width, self.flat = (after if step.width is None else step.width), True

    def _check_flat(self, step: Flat, after: int | None) -> None:
        n, width = step.width, self.width
        if n is not None and after is not None and after != n:
            raise ConversionError(
                step.place, f"makes rows of {n} features, and the next layer takes {after}"
            )
        if n is not None and width is not None and (n != width if self.flat else n % width):
            raise ConversionError(
                step.place,
                f"makes rows of {n} features out of rows of {width}, which is not one row a sample",
            )
        if not self.flat and self.one_row is not None and (after is None or after != width):
            raise ConversionError(
                step.place,
                f"comes after {self.one_row}, which works along axis 1: with samples of more than "
                "one axis that is not the last; flatten first",
            )

    def _sum(self, step: Sum) -> None:
        self.width = self.width or step.in_features
        inner = _Assembly(self.dtype, self.width, self.source).run(step.steps)
        self._part(Residual(inner or [IDENTITY]))


_JOIN: dict[type[Any], Callable[[_Assembly, Any], None]] = {
    Activation: _Assembly._activation,
    Affine: _Assembly._affine,
    Dense: _Assembly._dense,
    Flat: _Assembly._flat,
    _recognise.Normalize: _Assembly._normalize,
    OneRow: _Assembly._one_row,
    Sum: _Assembly._sum,
}


def _takes(steps: Iterable[Any]) -> int | None:
    """Return the number of features that some steps take, None where none of them says."""
    for step in steps:
        if isinstance(step, Flat):
            return None
        if isinstance(step, Activation):
            slopes = step.parameters.get("weight")
            n = int(slopes.size) if slopes is not None and slopes.size > 1 else None
        else:
            n = step.in_features
        if n is not None:
            return int(n)
    return None
