"""In which order the layers of a state dict follow each other."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from fastlayer.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Sequence

_DIGITS = re.compile("([0-9]+)")


def ordered(
    keys: list[str],
    sizes: dict[str, tuple[int, int]],
    wanted: Sequence[str] | None,
    place: str,
) -> list[str]:
    """Return the names of the layers from first to last.

    Parameters
    ----------
    keys : list of str
        All names of arrays, in the order of the mapping or file.
    sizes : dict of (int, int)
        Inputs and outputs of each layer, in the same order.
    wanted : sequence of str, optional
        The order that the user gave.
    place : str
        What to call the source in errors.

    Raises
    ------
    ConversionError
        No order that is certain, or one in which the sizes don't fit.
    """
    names = list(sizes)
    if wanted is not None:
        names = list(wanted)
        if sorted(names) != sorted(sizes):
            raise ConversionError(
                place, f"layers={names} are not its layers, which are {sorted(sizes)}"
            )
    elif len(names) > 1:
        names = _found(keys, sizes, place)
    for before, after in pairwise(names):
        if sizes[before][1] != sizes[after][0]:
            raise ConversionError(
                f"{place}: layer {after!r}",
                f"takes {sizes[after][0]} features, but layer {before!r} in front of it gives "
                f"{sizes[before][1]}; layers=[...] tells another order, and layers that are not "
                "one after the other are for fl.from_torch",
            )
    return names


def _found(keys: list[str], sizes: dict[str, tuple[int, int]], place: str) -> list[str]:
    names = list(sizes)
    numbered = _by_number(names)
    # A file of safetensors sorts its tensors by name, and so does what was read from one. Real
    # state dicts are never sorted where there is a bias: it comes after the weight.
    if keys != sorted(keys):
        if numbered not in (None, names):
            raise ConversionError(
                place,
                f"its layers are in the order {names}, but their numbers say {numbered}; tell "
                "which with layers=[...]",
            )
        return names
    found = numbered or _by_size(sizes)
    if found is None:
        raise ConversionError(
            place,
            f"the layers {names} are sorted by name, which is not their order in the network; "
            "tell it with layers=[...]",
        )
    return found


def _by_number(names: list[str]) -> list[str] | None:
    """Return the names sorted by the numbers in them, where only numbers distinguish them."""
    pieces = {name: _DIGITS.split(name) for name in names}
    if len({tuple(p[::2]) for p in pieces.values()}) != 1:
        return None
    # As numbers, but of any length: the shorter one is the smaller one.
    digits = {name: [p.lstrip("0") for p in pieces[name][1::2]] for name in names}
    return sorted(names, key=lambda name: [(len(d), d) for d in digits[name]])


def _by_size(sizes: dict[str, tuple[int, int]]) -> list[str] | None:
    """Return the only order in which the sizes fit, None where there are several or none."""
    by_input = {k: name for name, (k, _) in sizes.items()}
    outputs = {n for _, n in sizes.values()}
    firsts = [name for name, (k, _) in sizes.items() if k not in outputs]
    if len(by_input) != len(sizes) or len(firsts) != 1:
        return None
    chain = [firsts[0]]
    while len(chain) <= len(sizes) and sizes[chain[-1]][1] in by_input:
        chain.append(by_input[sizes[chain[-1]][1]])
    return chain if len(chain) == len(sizes) else None
