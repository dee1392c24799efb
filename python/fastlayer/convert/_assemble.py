"""The steps of a network, and the parts that they become."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from fastlayer.convert._affine import Affine
from fastlayer.convert._recognise import Normalize
from fastlayer.errors import ConversionError
from fastlayer.functions.activation import Activation
from fastlayer.network.branches import Add, Concat, Multiply, Slice
from fastlayer.network.chain import Residual
from fastlayer.network.layer import Layer
from fastlayer.network.norms import LayerNorm, RMSNorm
from fastlayer.network.part import Flatten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fastlayer.arrays import Array, DType

IDENTITY = Activation("identity")
# A file's word is not taken for more features than that; layers with weights have as many as they
# have.
_MOST_SCALED = 1 << 18


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


class Cut(NamedTuple):
    """Features `begin` to `end` alone."""

    begin: int
    end: int
    in_features: int | None = None


class Constant(NamedTuple):
    """The same values in each row."""

    values: Array
    in_features: int | None = None


class Mix(NamedTuple):
    """A sum over the features of a row with the same number for all of them.

    The mean or the sum of each row; one feature as `features` alike, "spread".
    """

    name: Literal["mean", "sum", "spread"]
    features: int = 1
    in_features: int | None = None

    def matrix(self, k: int) -> Array:
        """Return what a row of `k` features is multiplied by, (n, k)."""
        return np.full((self.features, k), 1 / k if self.name == "mean" else 1.0)


class Join(NamedTuple):
    """What becomes of branches of steps, which all take the same rows.

    `depth` counts the joins in each other, and `total` all steps in them.
    """

    kind: Literal["concat", "add", "multiply"]
    branches: tuple[tuple[Any, ...], ...]
    depth: int = 1
    total: int = 1

    @classmethod
    def of(cls, kind: Any, branches: Iterable[Sequence[Any]]) -> Join:
        """Make one, and count."""
        given = tuple(map(tuple, branches))
        inner = [step for steps in given for step in steps]
        joins = [step for step in inner if isinstance(step, Join)]
        depth = 1 + max((step.depth for step in joins), default=0)
        return cls(kind, given, depth, 1 + len(inner) + sum(step.total for step in joins))

    @property
    def in_features(self) -> int | None:
        """Number of features that the steps take, None where none of them says."""
        return next((n for steps in self.branches if (n := _takes(steps)) is not None), None)


class Assembly:
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
            _MAKERS.get(type(step), Assembly._part)(self, step)
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
        weight, bias = (np.broadcast_to(v, (n,)) for v in (behind.scale, behind.shift))
        scale = None if behind.shifts else weight
        if step.name == "layer_norm":
            shift = bias if bias.any() else None
            self._part(LayerNorm(n, step.eps, scale, shift, self.dtype))
            return
        self._part(RMSNorm(n, step.eps, scale, self.dtype))
        if bias.any():
            self.parts += Affine.of(1.0, bias).parts(n, self.dtype)

    def _one_row(self, step: OneRow) -> None:
        if not self.flat:
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

    def _constant(self, step: Constant) -> None:
        # A layer that takes no feature gives its bias, also where the input is NaN.
        self.parts.append(Slice(0, 0))
        self._dense(Dense(np.zeros((step.values.size, 0)), step.values))

    def _cut(self, step: Cut) -> None:
        self.parts.append(Slice(step.begin, step.end))
        self.width = step.end - step.begin

    def _mix(self, step: Mix) -> None:
        n = 1 if step.name == "spread" else self._features(f"takes the {step.name} of its input")
        self._dense(Dense(step.matrix(n)))

    def _branch(self, steps: Sequence[Any]) -> Assembly:
        inner = Assembly(self.dtype, self.width, self.source)
        inner.flat, inner.one_row = self.flat, self.one_row
        inner.run(steps)
        self.one_row = inner.one_row
        return inner

    def _join(self, step: Join) -> None:
        self.width = self.width or step.in_features
        branches = [self._branch(steps) for steps in step.branches]
        widths = [b.width for b in branches]
        if step.kind == "concat":
            total = None if None in widths else sum(n for n in widths if n is not None)
            if not self._is_whole([b.parts for b in branches], total):
                self.parts.append(Concat([b.parts for b in branches]))
            self.width = total
            return
        whole = max((n for n in widths if n is not None), default=0)
        if whole == 1 and None in widths:
            raise ConversionError(
                self.source,
                "combines one feature with an array, and no layer tells how many features that has",
            )
        for b in branches:
            if b.width == 1 < whole:
                b.run([Mix("spread", whole)])
        inner = [b.parts for b in branches]
        if step.kind == "add" and len(inner) == 2 and not inner[1]:
            self._part(Residual(inner[0] or [IDENTITY]))
        else:
            self.parts.append(_JOINED[step.kind](inner))
            self.width = whole or None

    def _is_whole(self, branches: Sequence[Sequence[Any]], total: int | None) -> bool:
        """Whether branches take all features, one after the other, and do nothing."""
        cuts = [parts[0] for parts in branches if len(parts) == 1 and isinstance(parts[0], Slice)]
        begins = [0, *(cut.end for cut in cuts[:-1])]
        return (
            total == self.width
            and len(cuts) == len(branches)
            and (begins == [cut.begin for cut in cuts])
        )


_MAKERS: dict[type[Any], Callable[[Assembly, Any], None]] = {
    Activation: Assembly._activation,
    Affine: Assembly._affine,
    Dense: Assembly._dense,
    Flat: Assembly._flat,
    Constant: Assembly._constant,
    Cut: Assembly._cut,
    Join: Assembly._join,
    Mix: Assembly._mix,
    Normalize: Assembly._normalize,
    OneRow: Assembly._one_row,
}
_JOINED: dict[str, type[Add | Multiply]] = {"add": Add, "multiply": Multiply}


def _takes(steps: Iterable[Any]) -> int | None:
    """Return the number of features that some steps take, None where none of them says."""
    for step in steps:
        if isinstance(step, Constant | Cut | Flat | Mix):
            return None
        n = step._sizes.takes if isinstance(step, Activation) else step.in_features
        if n is not None:
            return int(n)
    return None


def width_after(steps: Iterable[Any], width: int | None) -> int | None:
    """Return the number of features that come out of steps where `width` go in."""
    for step in steps:
        if isinstance(step, Dense):
            width = len(step.weight)
        elif isinstance(step, Constant):
            width = step.values.size
        elif isinstance(step, Cut):
            width = step.end - step.begin
        elif isinstance(step, Mix):
            width = step.features
        elif isinstance(step, Flat):
            width = step.width
        elif isinstance(step, Join):
            widths = [width_after(steps, width) for steps in step.branches]
            known = [n for n in widths if n is not None]
            if step.kind == "concat":
                width = sum(known) if len(known) == len(widths) else None
            else:
                width = max(known, default=None)
        elif isinstance(step, Affine) and step.in_features is not None:
            width = step.in_features
    return width
