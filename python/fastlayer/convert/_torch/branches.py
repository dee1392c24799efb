"""What a forward does with branches: it joins arrays, and takes some of the features."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

from fastlayer.convert._graph import Cut, Flat, Mix, Point, constant, join
from fastlayer.convert._torch.axes import COUNT, ROWS, VECTOR
from fastlayer.functions.activation import Activation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastlayer.arrays import Array
    from fastlayer.convert._torch.call import Branch, Call, Reads

# Pieces of the features that a call may take, each of which is an operation of its own.
_MOST_CUTS = 256
_MOST_FEATURES = 1 << 20
_MOST_SPREAD = 1 << 18


def row_axis(reader: Reads, call: Call, x: Point, dim: object) -> None:
    """See that an axis is that of the features, and note where it is so for rows alone.

    Raises
    ------
    ConversionError
        It is another one.
    """
    if dim == 1 and not isinstance(dim, bool):
        point: Point | None = x
        while point is not None and not isinstance(point.step, Flat):
            point = point.parent
        reader.of_rows = reader.of_rows or point is None
    elif dim != -1 or isinstance(dim, bool):
        raise call.refuse(f"works along dim={dim}; fastlayer joins and cuts features, dim=-1")


def _width(call: Call, x: Point) -> int:
    if x.features is None:
        raise call.refuse(
            "takes some of the features of an array, and no layer before it tells how many there are"
        )
    return x.features


def _selected(call: Call, x: Point, features: Sequence[int]) -> Point:
    runs: list[list[int]] = []
    if isinstance(features, range) and features.step == 1 and features:
        runs, features = [[features.start, features.stop]], ()
    elif len(features) > _MOST_FEATURES:
        raise call.refuse(f"takes {len(features)} features one by one")
    for i in features:
        if runs and runs[-1][1] == i:
            runs[-1][1] += 1
        else:
            runs.append([i, i + 1])
    if not 0 < len(runs) <= _MOST_CUTS:
        raise call.refuse(f"takes {len(runs)} pieces of its input; 1 to {_MOST_CUTS} are known")
    return join("concat", [Point(x.running(), Cut(*ends)) for ends in runs], call.place)


def _cat(reader: Reads, call: Call, given: Any) -> Any:
    points = given if isinstance(given, list | tuple) else []
    first = next((p for p in points if isinstance(p, Point)), None)
    if first is None:
        raise call.refuse("joins something that is not a list of arrays")
    if call.name != "hstack":
        dim = call.value(0, "dim", call.kwargs.get("axis", 0))
        if dim == 0:
            raise call.refuse("stacks samples, dim=0; fastlayer joins features, dim=-1")
        row_axis(reader, call, first, dim)
    joined = [
        p if isinstance(p, Point) else constant(reader.root, _row(reader, call, p)) for p in points
    ]
    return join("concat", joined, call.place)


def _row(reader: Reads, call: Call, value: Any) -> Array:
    """Return a tensor that is the same for each sample as one row."""
    row = reader.array(value, call.place)
    if row.size == 0 or (row.ndim and row.shape[-1] != row.size):
        raise call.refuse(f"has a constant of shape {row.shape}; expected one row")
    return row.ravel()


def _parts(reader: Reads, call: Call, x: Point, sizes: Sequence[int]) -> list[Point]:
    ends = [*accumulate(sizes)]
    return [
        _selected(call, x, range(end - size, end)) for size, end in zip(sizes, ends, strict=True)
    ]


def _split(reader: Reads, call: Call, x: Any) -> Any:
    """Return what split, chunk and tensor_split into as many parts make."""
    dim = call.value(1, "dim", 0)
    row_axis(reader, call, x, dim)
    n = _width(call, x)
    given = next(
        (
            call.kwargs[k]
            for k in ("split_size", "split_size_or_sections", "chunks")
            if k in call.kwargs
        ),
        call.args[0] if call.args else None,
    )
    if isinstance(given, list | tuple) and call.name == "split":
        sizes = [int(size) for size in given]
    elif isinstance(given, int) and given > 0:
        each = given if call.name == "split" else -(-n // given)
        sizes = [min(each, n - begin) for begin in range(0, n, each)]
    else:
        raise call.refuse(f"cuts into {given!r:.60}")
    if sum(sizes) != n or min(sizes, default=0) < 1:
        raise call.refuse(f"cuts {n} features into {sizes[:8]}")
    return _parts(reader, call, x, sizes)


def _getitem(reader: Reads, call: Call, x: Any) -> Any:
    where = call.args[0] if call.args else None
    index = where if isinstance(where, tuple) else (where,)
    rest = [i for i in index if i is not Ellipsis]
    if len(rest) == 2 and rest[0] == slice(None) and Ellipsis not in index[2:]:
        row_axis(reader, call, x, 1)
    elif len(rest) != 1 or index[0] is not Ellipsis:
        raise call.refuse(f"takes {where!r:.60}; fastlayer takes features, x[..., a:b]")
    chosen = rest[-1]
    n = _width(call, x) if x.features is not None or not _definite(chosen) else 1 << 40
    if isinstance(chosen, slice):
        return _selected(call, x, range(n)[chosen])
    if isinstance(chosen, list) and all(isinstance(i, int) and -n <= i < n for i in chosen):
        return _selected(call, x, [i % n for i in chosen])
    if isinstance(chosen, int) and -n <= chosen < n:
        reader.form = VECTOR
        return _selected(call, x, [chosen % n])
    raise call.refuse(f"takes {chosen!r:.60} of {n} features")


def _definite(chosen: Any) -> bool:
    """Whether a range is the same of any number of features that has it."""
    if not isinstance(chosen, slice):
        return isinstance(chosen, int) and chosen >= 0
    ends = (chosen.start or 0, -1 if chosen.stop is None else chosen.stop)
    return min(ends) >= 0 and (chosen.step or 1) > 0


def spread(call: Call, x: Point, sizes: tuple[Any, ...]) -> Point:
    """Return one feature as several alike, or rows as they are."""
    n = sizes[-1] if len(sizes) == 2 and (sizes[0] is COUNT or sizes[0] == -1) else None
    if not isinstance(n, int) or (n not in (-1, x.features) and x.features != 1):
        raise call.refuse(
            "spreads an array; known is one feature that becomes several, of the same rows: "
            "x.expand(-1, n)"
        )
    if n > _MOST_SPREAD:
        raise call.refuse(f"makes {n} features of one")
    return x if n in (-1, x.features) else x.then([Mix("spread", n)])


def _stack(reader: Reads, call: Call, given: Any) -> Any:
    """Return single features, whose axis is gone, as rows of them."""
    points = given if isinstance(given, list | tuple) else []
    alone = points and all(isinstance(p, Point) for p in points) and reader.form == VECTOR
    if not alone or call.value(0, "dim", 0) not in (1, -1):
        raise call.refuse(
            "stacks arrays; known are single features, x[:, i], that become rows: dim=-1"
        )
    reader.form = ROWS
    return join("concat", points, call.place)


def _narrow(reader: Reads, call: Call, x: Any) -> Any:
    row_axis(reader, call, x, call.value(0, "dim", None))
    start, length = call.value(1, "start", 0), call.value(2, "length", 0)
    return _selected(call, x, range(start, start + length))


def _index_select(reader: Reads, call: Call, x: Any) -> Any:
    row_axis(reader, call, x, call.value(0, "dim", None))
    n = _width(call, x)
    listed = [int(i) for i in call.value(1, "index", ())]
    if any(not -n <= i < n for i in listed):
        raise call.refuse(f"takes features {listed[:8]} of {n}")
    return _selected(call, x, [i % n for i in listed])


def _glu(reader: Reads, call: Call, x: Any) -> Any:
    row_axis(reader, call, x, call.value(0, "dim", -1))
    n = _width(call, x)
    if n % 2:
        raise call.refuse(f"halves {n} features")
    a, b = _parts(reader, call, x, [n // 2, n // 2])
    return join("multiply", [a, Point(b, Activation("sigmoid"))], call.place)


# Of several arrays, the first of which may be a constant.
JOINS = {"cat", "concat", "concatenate", "hstack", "stack"}
BRANCHES: dict[str, Branch] = {
    **dict.fromkeys(JOINS, _cat),
    "stack": _stack,
    **dict.fromkeys(("chunk", "split"), _split),
    "getitem": _getitem,
    "glu": _glu,
    "index_select": _index_select,
    "narrow": _narrow,
}
