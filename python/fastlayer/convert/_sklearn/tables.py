"""The columns of a table, and those that an estimator was fitted to."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.arrays import as_real
from fastlayer.errors import ConversionError

if TYPE_CHECKING:
    from fastlayer.arrays import Array


def names_of(x: Any) -> Array | None:
    """Return the names of a table's columns, None where they are no names or `x` is no table."""
    if isinstance(x, np.ndarray):
        return None
    names = getattr(x, "column_names", getattr(x, "columns", None))
    if names is None:
        return None
    names = np.asarray(names, object)
    text = [isinstance(name, str) for name in names]
    if any(text) and not all(text):
        raise TypeError(
            "feature names are used where all of them are text; here some are not: give the columns "
            "names with x.columns = x.columns.astype(str)"
        )
    return names if text and all(text) else None


def check_names(known: Array | None, x: Any, kind: str) -> None:
    """Refuse a table whose columns are not those of the training data, in their order.

    `known` are those; `kind` is what was fitted to them.
    """
    names = names_of(x)
    if known is None and names is None:
        return
    if known is None or names is None:
        here, there = ("no ", "with") if names is None else ("", "without")
        warnings.warn(
            f"x has {here}feature names, but this {kind} was fitted {there} feature names",
            UserWarning,
            stacklevel=5,
        )
        return
    if len(names) == len(known) and (names == known).all():
        return
    missing, unseen = [n for n in known if n not in names], [n for n in names if n not in known]
    parts = [
        f"{title} {', '.join(map(repr, found[:5]))}{', ...' if len(found) > 5 else ''}"
        for title, found in (("missing", missing), ("not seen at fit", unseen))
        if found
    ]
    what = "; ".join(parts) or (
        f"they are the same in another order, {', '.join(map(repr, names[:8]))}; take "
        "x[list(model.feature_names_in_)]"
    )
    raise ValueError(
        f"the feature names of x must be those of the training data, "
        f"{', '.join(map(repr, known[:8]))}{', ...' if len(known) > 8 else ''}: {what}"
    )


def by_name(known: Array, used: Array, x: Any) -> Array:
    """Return the rows of a table with its columns in the order of `known`, wherever they are in it.

    `used` are the numbers of those that must be there; the others are zeros.
    """
    names, wanted = list(names_of(x)), list(known[used])  # type: ignore[arg-type]  # it has names
    missing = [name for name in wanted if names.count(name) != 1]
    if missing:
        raise ValueError(f"x must have a column of each name; it has not: {missing[:8]}")
    table = as_real(x.select(wanted) if hasattr(type(x), "select") else x[wanted])
    rows = np.zeros((len(table), len(known)), table.dtype)
    rows[:, used] = table
    return rows


def table_of(x: Array, names: Array, place: str) -> Any:
    """Return rows as a table, for an estimator that looks for its columns by their names."""
    for library in ("pandas", "polars"):
        try:
            module = import_module(library)
        except ImportError:
            continue
        return module.DataFrame(dict(zip(names, x.T, strict=True)))
    raise ConversionError(
        place,
        "its ColumnTransformer takes tables alone, and neither pandas nor polars is there to try it "
        "with; install pandas or polars, or convert with verify=False",
    )
