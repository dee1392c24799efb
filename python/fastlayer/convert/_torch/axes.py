"""Axes of length one that a forward puts into arrays and takes away again, and what it asks of shapes.

The network's rows stay as they are. A form says which axes an array has where the module runs: "m" is
that of the samples, "n" that of the features, and 1 has one element.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.convert._graph import Point
    from fastlayer.convert._torch.call import Call, Form

ROWS: Form = ("m", "n")
VECTOR: Form = ("m",)  # of one feature, whose axis is gone
COUNT = object()  # the number of samples
_MOST_AXES = 8


class Shape(NamedTuple):
    """The shape of an array."""

    point: Point
    form: Form

    def axes(self, call: Call, which: Any) -> Any:
        """Return the length of an axis, or of some, where it is known."""
        if isinstance(which, slice):
            return tuple(self._axis(call, a) for a in self.form[which])
        if not isinstance(which, int) or not -len(self.form) <= which < len(self.form):
            raise call.refuse(f"asks for axis {which!r:.20} of an array of {len(self.form)}")
        return self._axis(call, self.form[which])

    def _axis(self, call: Call, axis: str | int) -> Any:
        if axis == "m":
            return COUNT
        if axis == "n" and self.point.features is None:
            raise call.refuse("asks for the number of features, which no layer before it tells")
        return self.point.features if axis == "n" else axis


def reshaped(call: Call, x: Point, form: Form) -> Form | None:
    """Return the form after a call that does nothing but put axes in or take them away.

    None where the call does something else.

    Raises
    ------
    ConversionError
        An axis that isn't there.
    """
    change = _CHANGES.get(call.name)
    found = None if change is None else change(call, x, form)
    if found and "n" not in found and found[-1] == 1:
        return (*found[:-1], "n")  # a feature's axis is there again
    return found


def _unsqueeze(call: Call, x: Point, form: Form) -> Form:
    dim, rank = call.value(0, "dim", None), len(form) + 1
    if not isinstance(dim, int) or not -rank <= dim < rank or rank > _MOST_AXES:
        raise call.refuse(f"puts in axis {dim!r:.20}")
    at = dim % rank
    return (*form[:at], 1, *form[at:])


def _squeeze(call: Call, x: Point, form: Form) -> Form:
    dim, rank = call.value(0, "dim", None), len(form)
    given = range(rank) if dim is None else dim if isinstance(dim, tuple | list) else [dim]
    if dim is not None and not all(isinstance(d, int) and -rank <= d < rank for d in given):
        raise call.refuse(f"takes away axis {dim!r:.20}")
    axes = {d % rank for d in given}
    if dim is not None and form.index("m") in axes:
        raise call.refuse("takes the axis of the samples away")
    one = {1, "n"} if x.features in (1, None) else {1}
    return tuple(a for i, a in enumerate(form) if i not in axes or a not in one)


def _getitem(call: Call, x: Point, form: Form) -> Form | None:
    where = call.args[0] if call.args else None
    index = list(where) if isinstance(where, tuple) else [where]
    taken = [i for i in index if i is not None and i is not Ellipsis]
    if not any(i is Ellipsis for i in index):
        index.append(Ellipsis)
    left: list[str | int] = list(form)
    found: list[str | int] = []
    for i in index:
        if i is None:
            found.append(1)
        elif i is Ellipsis:
            count = len(form) - len(taken)
            found += left[: max(count, 0)]
            left = left[max(count, 0) :]
        elif left and isinstance(i, slice) and i == slice(None):
            found.append(left.pop(0))
        elif not (left and left.pop(0) == 1 and isinstance(i, int) and i in (0, -1)):
            return None
    return None if left or len(found) > _MOST_AXES else tuple(found)


def _view(call: Call, x: Point, form: Form) -> Form | None:
    shape = call.value(0, "shape", None)
    if isinstance(shape, Shape):
        if shape.form == form and shape.point.features == x.features:
            return form
        shape = shape.axes(call, slice(None))
    dims = shape if isinstance(shape, tuple | list) else call.args
    left, found = [a for a in form if a != 1], []
    for i, d in enumerate(dims):
        n = dims[-1] if x.features is None and i == len(dims) - 1 else x.features
        fits = bool(left) and (d is COUNT if left[0] == "m" else d == n)
        if not fits and d != 1 and not (left and d == -1):
            return None
        found.append(1 if d == 1 and not fits else left.pop(0))
    known = not left or (left == ["n"] and x.features == 1)
    # Rows of rows are flattened by others.
    return None if not known or tuple(found) == ROWS == form else tuple(found)


def _flatten(call: Call, x: Point, form: Form) -> Form | None:
    whole = call.value(0, "start_dim", 0) == 1 and call.value(1, "end_dim", -1) == -1
    return ROWS if whole and form != ROWS and form[0] == "m" and "n" in form else None


_CHANGES: dict[str, Callable[[Call, Point, Form], Form | None]] = {
    "flatten": _flatten,
    "getitem": _getitem,
    "reshape": _view,
    "squeeze": _squeeze,
    "unsqueeze": _unsqueeze,
    "view": _view,
}
