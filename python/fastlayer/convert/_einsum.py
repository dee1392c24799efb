"""Equations of Einsum that are dense layers: rows and one weight, summed over the features alone."""

from __future__ import annotations

from typing import NamedTuple


class DenseEinsum(NamedTuple):
    """What an equation says of a dense layer."""

    weight_in_out: bool  # whether the weight is (k, n)
    from_columns: bool  # whether samples are columns
    to_columns: bool  # whether they become that


def dense_einsum(equation: str, first: bool, axes: int, rank: int) -> DenseEinsum | None:
    """Return what an equation of rows and a weight says, None where it is no dense layer.

    Parameters
    ----------
    equation : str
        Such as ``"...k,kn->...n"``, in any letters.
    first : bool
        Whether the weight comes first.
    axes : int
        Of the weight: 2, or 1 for a layer of one neuron.
    rank : int
        Of the rows.

    Examples
    --------
    >>> from fastlayer.convert._einsum import dense_einsum
    >>> dense_einsum("bi,oi->bo", False, 2, 2)
    DenseEinsum(weight_in_out=False, from_columns=False, to_columns=False)
    """
    operands, arrow, result = equation.replace(" ", "").partition("->")
    names = operands.split(",")
    if len(names) != 2:
        return None
    if not arrow:  # what occurs once, in alphabetical order
        letters = operands.replace(",", "").replace("...", "")
        once = sorted(c for c in letters if letters.count(c) == 1)
        result = "..." * ("..." in operands) + "".join(once)
    w, x = names if first else names[::-1]
    summed = {c for c in w if c in x} - set(result)
    if len(w) != axes or len(set(w)) < axes or len(summed) != 1:
        return None
    k = summed.pop()
    n = w.replace(k, "")
    columns = len(x) == 2 and x[0] == k
    rest = x[1:] if columns else x[:-1]
    letters = rest.replace("...", "", 1)
    every = letters + w
    if not (columns or x.endswith(k)) or not every.isalpha() or len(set(every)) < len(every):
        return None
    turned = bool(n) and len(x) == 2 and result == n + rest
    if axes > 2 or ("..." not in x and len(x) != rank) or not (turned or result == rest + n):
        return None
    return DenseEinsum(w != n + k, columns, turned)
