"""Which operations of a forward pass are layers, activations and branches."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer.arrays import FLOAT32, FLOAT64
from fastlayer.convert._affine import Affine
from fastlayer.convert._assemble import Cut, Dense, Join
from fastlayer.convert._numpy.fused import Activated, Summed
from fastlayer.convert._numpy.operations import PLAIN_PRODUCTS, as_rows, behind, refused
from fastlayer.convert._numpy.recognise import recognise
from fastlayer.convert._numpy.trace import Method, Ref
from fastlayer.errors import ConversionError
from fastlayer.functions.activation import Activation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fastlayer.arrays import Array
    from fastlayer.convert._numpy.operations import Operations, Values

_JOINS = {np.add: "add", np.subtract: "add", np.multiply: "multiply"}
_CONCATENATIONS = (np.concatenate, np.hstack, np.vstack, np.column_stack, np.append)
# What may give the same numbers in another shape.
_MOVES = (
    *(np.transpose, np.reshape, np.ravel, np.squeeze, np.copy, np.atleast_2d, np.expand_dims),
    *map(Method, ("transpose", "reshape", "ravel", "flatten", "squeeze", "copy", "astype")),
    Method("__getitem__"),
)
_AFFINES: dict[Any, Callable[[Any, bool], Affine | None]] = {
    np.add: lambda c, _: Affine.of(1.0, c),
    np.subtract: lambda c, first: Affine.of(-1.0, c) if first else Affine.of(1.0, -c),
    np.multiply: lambda c, _: Affine.of(c),
    np.true_divide: lambda c, first: None if first else Affine.of(1 / c),
    np.negative: lambda c, _: Affine.of(-1.0),
}
# Operations in a row that are tried as one activation: a stable softplus has about 8.
_LONGEST = 24


class Product(NamedTuple):
    """A layer's sums; the weight is (n, k) or, turned, (k, n)."""

    weight: Any
    bias: Any
    turned: bool


class Scale(NamedTuple):
    """``x * c``, ``x + c`` and so on; `first` where the constant is the first operand."""

    call: Any
    constant: Any
    first: bool
    width: int


class Extend(NamedTuple):
    """A feature that is one number, in front or at the end: its weights are a bias."""

    at: int
    value: float


class Branches(NamedTuple):
    """What is made of the results of branches."""

    call: Any
    branches: list[list[Any]]


class Applied:
    """What the user's own operations make of rows.

    Parameters
    ----------
    make : callable
        Returns the operations as a function, for the values of all other arrays in them.
    forms : (str, str)
        What the samples are in its argument and result.
    out_features : int
        Width of the result.
    """

    in_features = None

    def __init__(self, make: Callable[..., Any], forms: tuple[str, str], out_features: int) -> None:
        self._run, self._make, self._forms = make(), make, forms
        self.out_features = out_features

    def with_constants(self, values: Values) -> Applied:
        """Return the same with arrays that stay as they are."""
        return Applied(partial(self._make, values), self._forms, self.out_features)

    def __call__(self, a: Array) -> Array:
        """Call it with rows."""
        form, result = self._forms
        if form == "vector":
            return np.stack([np.reshape(self._run(row), -1) for row in a])
        z = {"columns": a.T, "single": a[:, 0]}.get(form, a)
        return as_rows(np.asarray(self._run(z)), result)


class Reading:
    """The steps of a network that operations are.

    Parameters
    ----------
    ops : Operations
        From the input to the result.

    Attributes
    ----------
    steps : list
        Those of the longest network at the start that has all weights.
    end : int
        The node that they lead to.
    fused : dict
        What computes a node faster than its operation and those before it.

    Raises
    ------
    ConversionError
        Operations that no network does.
    """

    def __init__(self, ops: Operations) -> None:
        self.ops = ops
        self.fused: dict[int, Summed | Activated] = {}
        self.steps, self.end = self._longest()

    def _longest(self) -> tuple[list[Any], int]:
        """Return the steps of the longest network at the start that has all weights, and its end."""
        cuts = self._cuts(0, self.ops.result)
        steps, at = [], 0
        while at < len(cuts) - 1:
            before = dict(self.fused)
            try:
                step, at = self._step(cuts, at)
            except ConversionError:
                if any(self.ops.is_product(i) for i in self.ops.moving if i > cuts[at]):
                    raise
                self.fused = before
                break
            steps.append(step)
        steps = [s for s in steps if s is not None]
        if not _has_product(steps):
            raise refused("multiplies its input by none of the object's arrays")
        return steps, cuts[at]

    def _cuts(self, start: int, end: int) -> list[int]:
        """Return the nodes that all ways from one node to another lead through, both among them."""
        between = {start}
        for i in sorted(self.ops.moving & behind([end], self.ops.uses)):
            if i > start and between.intersection(self.ops.uses[i]):
                between.add(i)
        inner = sorted(between)
        for i in inner[1:]:
            if self.ops.moving.intersection(self.ops.uses[i]) - between:
                raise refused(
                    f"{self.ops.named(i)} joins branches in a way that no network here does"
                )
        cuts, reach = [], start
        for i in inner:
            if reach <= i:
                cuts.append(i)
            reach = max([reach, *(j for j in inner if i in self.ops.uses[j])])
        return cuts

    def _chain(self, start: int, end: int) -> list[Any]:
        cuts, at, steps = self._cuts(start, end), 0, []
        while at < len(cuts) - 1:
            step, at = self._step(cuts, at)
            steps.append(step)
        return [s for s in steps if s is not None]

    def _step(self, cuts: list[int], at: int) -> tuple[Any, int]:
        """Return the step that begins at a cut, and the cut where it ends; None does nothing."""
        a, b = cuts[at], cuts[at + 1]
        operands = [i for i in self.ops.uses[b] if i in self.ops.moving]
        node = self.ops.nodes[b]
        alone = operands == [a]
        if alone and self.ops.is_product(b):
            return self._product(cuts, at)
        if self.ops.form(b) is None or self.ops.form(a) is None:
            raise refused(f"{self.ops.named(b)} gives no rows")
        if alone and node.call in _MOVES:
            x, y = self.ops.rows(a), self.ops.rows(b)
            if np.array_equal(x, y) and y.dtype.kind == "f":
                return None, at + 1
            if node.call == Method("__getitem__") and x.ndim == y.ndim and len(x) == len(y):
                for low in range(x.shape[1] - y.shape[1] + 1):
                    if np.array_equal(x[:, low : low + y.shape[1]], y):
                        return Cut(low, low + y.shape[1]), at + 1
        found = self._activation(cuts, at)
        if found is not None:
            return found
        if alone and node.call in _AFFINES:
            scale = self._scale(b, a)
            if scale is not None:
                return scale, at + 1
        extended = self._extended(a, b)
        if extended is not None:
            return extended, at + 1
        if node.call in (*_JOINS, *_CONCATENATIONS) and len(operands) > 1:
            return Branches(node.call, [self._chain(a, i) for i in operands]), at + 1
        if self.ops.rows(b).dtype.kind == "f" and not any(
            map(self.ops.is_product, self.ops.inside(a, b))
        ):
            forms = self.ops.form(a) or "", self.ops.form(b) or ""
            width = self.ops.rows(b).shape[-1]
            return Applied(partial(self.ops.region, a, b), forms, width), at + 1
        raise refused(f"{self.ops.named(b)} is nothing that a network here does")

    def _product(self, cuts: list[int], at: int) -> tuple[Any, int]:
        """Return the layer whose sums begin at a cut, with its bias and activation."""
        a, i = cuts[at], cuts[at + 1]
        node = self.ops.nodes[i]
        given = (v for v in node.args if isinstance(v, Ref) and v.node not in self.ops.moving)
        weight = next(given, None)
        w = np.empty(0, int) if weight is None else self.ops.nodes[weight.node].value
        if weight is None or w.ndim not in (1, 2) or w.dtype not in (FLOAT32, FLOAT64):
            raise refused(
                f"{self.ops.named(i)} takes weights that are no floating-point array of the object; "
                "keep them in an attribute, as np.array makes them"
            )
        turned = weight is not node.args[0]
        if node.call not in PLAIN_PRODUCTS:
            x, y = self.ops.rows(a), self.ops.rows(i)
            ways = [v for v in (False, True) if _makes(y, x, w if v else w.T)]
            if self.ops.form(i) != self.ops.form(a) or len(ways) != 1:
                raise refused(f"{self.ops.named(i)} is no product of rows with a matrix")
            turned = ways[0]
        columns = node.call in PLAIN_PRODUCTS and not turned
        end, at = i, at + 1
        bias = None
        if at + 1 < len(cuts) and self.ops.nodes[cuts[at + 1]].call is np.add:
            scale = self._scale(cuts[at + 1], i)
            if scale is not None:
                bias, at, end = scale.constant, at + 1, cuts[at + 1]
        self.fused[end] = Summed(a, weight, bias, turned, columns)
        return Product(weight, bias, turned), at

    def _scale(self, i: int, a: int) -> Scale | None:
        """Return the operation on each feature that node `i` does to node `a`, None for others."""
        node = self.ops.nodes[i]
        if node.kwargs or [j for j in self.ops.uses[i] if j in self.ops.moving] != [a]:
            return None
        n = self.ops.rows(i).shape[-1]
        if len(node.args) == 1:
            return Scale(node.call, 0.0, False, n) if node.call in _AFFINES else None
        first = not (isinstance(node.args[0], Ref) and node.args[0].node == a)
        constant = node.args[0 if first else 1]
        c = self.ops.nodes[constant.node].value if isinstance(constant, Ref) else constant
        if not isinstance(c, int | float | np.generic | np.ndarray | list):
            return None
        shape = np.shape(c)
        along = shape[-2:-1] if self.ops.form(i) == "columns" else shape[-1:]
        fits = np.size(c) == 1 or (np.size(c) == n and along == (n,))
        known = node.call in _AFFINES and _AFFINES[node.call](np.asarray(1.0), first) is not None
        return Scale(node.call, constant, first, n) if fits and known else None

    def _activation(self, cuts: list[int], at: int) -> tuple[Any, int] | None:
        """Return the longest row of operations that is an activation, and where it ends."""
        a = cuts[at]
        for end in range(min(len(cuts) - 1, at + _LONGEST), at, -1):
            b = cuts[end]
            inside = self.ops.inside(a, b)
            if any(map(self.ops.is_product, inside)) or self.ops.nodes[b].call in _MOVES:
                continue
            constants = {j for i in inside for j in self.ops.uses[i]} - self.ops.moving
            if any(np.size(self.ops.nodes[j].value) > 1 for j in constants):
                continue
            if self.ops.rows(a).shape != self.ops.rows(b).shape:
                continue
            form = self.ops.form(a) or ""
            try:
                act = recognise(self.ops.region(a, b), "vector" if form == "single" else form, "")
            except ConversionError:
                continue
            mixes = isinstance(act, Activation) and act.name in ("softmax", "log_softmax")
            if isinstance(act, Activation) and not (mixes and form == "single"):
                self._activate(a, b, act, form == "columns")
                return act, end
        return None

    def _activate(self, a: int, b: int, act: Activation, turned: bool) -> None:
        """Note that an activation leads from one node to another, done by the layer before it."""
        layer = self.fused.get(a)
        alone = {j for j in self.ops.needed if a in self.ops.uses[j]} <= self.ops.inside(a, b)
        if isinstance(layer, Summed) and layer.activation is None and alone:
            self.fused[b] = layer._replace(activation=act)
        else:
            self.fused[b] = Activated(a, act, turned)

    def _extended(self, a: int, b: int) -> Extend | None:
        x, y = self.ops.rows(a), self.ops.rows(b)
        if y.shape != (len(x), x.shape[-1] + 1):
            return None
        for at, rest, put in ((0, y[:, 1:], y[:, 0]), (-1, y[:, :-1], y[:, -1])):
            if np.array_equal(rest, x) and np.ptp(put) == 0:
                return Extend(at, float(put[0]))
        return None


def _makes(y: Array, x: Array, w: Array) -> bool:
    """Whether `y` is ``x @ w`` but for rounding."""
    fits = w.ndim == 2 and x.shape[1:] == w.shape[:1] and y.shape == (len(x), w.shape[1])
    close = float(np.sqrt(np.finfo(w.dtype).eps))
    return fits and np.allclose(x @ w, y, close, close)


def _has_product(steps: Iterable[Any]) -> bool:
    return any(
        isinstance(s, Product) or (isinstance(s, Branches) and any(map(_has_product, s.branches)))
        for s in steps
    )


def written(steps: list[Any], now: Values) -> list[Any]:
    """Return the steps that parts of a network are made of; `now` has the values of constants."""
    found: list[Any] = []
    for before, step in pairwise([None, *steps]):
        if isinstance(step, Product):
            found.append(_dense(before, step, now))
        elif isinstance(step, Scale):
            c = np.asarray(_value(step.constant, now), np.float64).reshape(-1)
            found.append(_AFFINES[step.call](np.broadcast_to(c, (step.width,)), step.first))
        elif isinstance(step, Branches):
            branches = [written(branch, now) for branch in step.branches]
            if step.call is np.subtract:
                branches[1].append(Affine.of(-1.0))
            if step.call in _JOINS:
                branches.sort(key=len, reverse=True)  # a residual has its input last
            found.append(Join.of(_JOINS.get(step.call, "concat"), branches))
        elif not isinstance(step, Extend):
            found.append(step.with_constants(now) if isinstance(step, Applied) else step)
    return found


def _value(constant: Any, now: Values) -> Any:
    return now[constant.node] if isinstance(constant, Ref) else constant


def _dense(before: Any, step: Product, now: Values) -> Dense:
    w = np.asarray(_value(step.weight, now))
    w = w[None] if w.ndim == 1 else w.T if step.turned else w
    b = _value(step.bias, now)
    if b is not None:
        b = np.broadcast_to(np.asarray(b).reshape(-1), (len(w),))
    if isinstance(before, Extend):
        own = before.value * w[:, before.at]
        w = w[:, 1:] if before.at == 0 else w[:, :-1]
        b = own if b is None else own + b
    return Dense(w, b)
