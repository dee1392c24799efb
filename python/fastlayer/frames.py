"""Tables of pandas, polars and Arrow: their columns as arrays, and arrays as such tables.

None of the three is imported: who has a table has imported its library.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]

_REAL = "biuf"
_MISSING = ("NoneType", "NAType", "NaTType")
_KINDS = {"pandas": ["DataFrame"], "polars": ["DataFrame"], "pyarrow": ["Table", "RecordBatch"]}


def is_by_column(x: object) -> bool:
    """Whether `x` is a table of polars or Arrow, which give NumPy dates and more as numbers."""
    return hasattr(x, "get_columns") or (hasattr(x, "column_names") and hasattr(x, "columns"))


def is_table(x: object) -> bool:
    """Whether `x` is a table."""
    return is_by_column(x) or (hasattr(x, "iloc") and hasattr(x, "columns"))


def stacked(x: Any, what: str) -> Array:
    """Return a table whose columns are numbers and bools, which may have no common type there.

    Raises
    ------
    TypeError
        The message names the first column that is something else.
    """
    if hasattr(x, "iloc"):
        columns = [(name, x.iloc[:, i]) for i, name in enumerate(x.columns)]
    elif hasattr(x, "get_columns"):
        columns = [(column.name, column) for column in x.get_columns()]
    else:
        columns = list(zip(x.column_names, x.columns, strict=True))
    arrays = [_real(column, f"{what}: the column {name!r}") for name, column in columns]
    if not arrays:
        return np.empty((len(x), 0))
    rows: Array = np.stack(arrays).T  # column by column in memory, as they come
    return rows


def numbers(column: Any) -> Array:
    """Return a column of a table as an array; what is missing in one of numbers or bools is NaN."""
    a: Array = column.to_numpy()
    if a.dtype.kind != "O":
        return a
    dtype = _dtype(column)
    if getattr(dtype, "kind", "O") in _REAL:  # pandas' nullable types
        filled: Array = column.to_numpy(np.float64, na_value=np.nan)
        return filled
    values = a.tolist()
    if str(dtype) in ("Boolean", "bool"):  # of polars and Arrow
        values = [np.nan if value is None else value for value in values]
    return np.asarray(values)


def _dtype(column: Any) -> Any:
    return getattr(column, "dtype", getattr(column, "type", None))


def _real(column: Any, what: str) -> Array:
    try:
        a = numbers(column)
        fits = a.ndim == 1 and a.dtype.kind in _REAL and a.dtype.itemsize <= 8
    except Exception:  # noqa: BLE001  # each library has its own for what NumPy can't hold
        fits = False
    if fits:
        return a
    values = column.to_list() if hasattr(column, "to_list") else column.to_pylist()
    odd = [(i, v) for i, v in enumerate(values) if not isinstance(v, bool | int | float)]
    other = [(i, v) for i, v in odd if type(v).__name__ not in _MISSING]
    row, value = [*other, *odd, (0, None)][0]
    advice = "convert it to numbers, or leave it out"
    if not other:
        advice = "fill what is missing, and convert it to numbers"
    raise TypeError(
        f"{what} has dtype {_dtype(column)}, {value!r:.60} in row {row}; expected bool, integer, "
        f"float16, float32 or float64 ({advice})"
    )


def library_of(table: object) -> str:
    """Return the name of the library that a table is of.

    Raises
    ------
    TypeError
        It is no table of pandas, polars or Arrow.
    """
    for library, kinds in _KINDS.items():
        module = sys.modules.get(library)
        if module and isinstance(table, tuple(getattr(module, kind) for kind in kinds)):
            return library
    raise TypeError(
        f"as_frame=True gives a table of the kind of x, and x is of {type(table).__name__}; give a "
        "DataFrame of pandas or polars, or a table of Arrow"
    )


def titles_of(names: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Return the names of columns, of arrays with these names, if any, and so many columns each."""
    if not names:
        return [f"column_{i}" for i in range(sum(widths))]
    pairs = zip(names, widths, strict=True)
    return [f"{name}_{i}" if n > 1 else name for name, n in pairs for i in range(n)]


def frame(y: Any, like: Any, names: Sequence[str]) -> Any:
    """Return a result, one array or a tuple of them, as a table of the library of `like`.

    `names` are those of the arrays; a table of pandas has the index of `like`.
    """
    arrays = [a[:, None] if a.ndim == 1 else a for a in (y if isinstance(y, tuple) else (y,))]
    columns = [column for a in arrays for column in a.T]
    titles = titles_of(names, [a.shape[1] for a in arrays])
    library = library_of(like)
    module: Any = sys.modules[library]
    if library == "pandas":
        if len(arrays) == 1:  # and one block of memory
            return module.DataFrame(arrays[0], like.index, titles if names else None)
        return module.DataFrame(dict(enumerate(columns)), like.index).set_axis(titles, axis=1)
    if library == "polars":
        series = [module.Series(title, c) for title, c in zip(titles, columns, strict=True)]
        return module.DataFrame(series)
    return module.Table.from_arrays([module.array(c) for c in columns], titles)
