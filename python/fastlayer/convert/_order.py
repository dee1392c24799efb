"""The order of the layers in a state dict, and whether they are those of one network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from fastlayer.convert._agents import networks
from fastlayer.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    Sizes = dict[str, tuple[int, int]]  # k inputs and n outputs of each layer

_DIGITS = re.compile("([0-9]+)")


def check_one_network(layers: Mapping[str, Any], content: Mapping[Any, Any], place: str) -> None:
    """Refuse layers below several modules: their sizes may fit, and yet they are two networks.

    `layers` are the shapes of each.
    """
    names = list(layers)
    modules = dict.fromkeys(map(_module, names))
    # fc1, fc2, target_fc1, target_fc2
    pieces = [_DIGITS.split(name) for name in names]
    numbers = [tuple(p[1::2]) for p in pieces if len(p) > 1]
    twice = len({tuple(p[::2]) for p in pieces}) > 1 and len(set(numbers)) < len(numbers)
    if len(modules) > 1 or twice or _copies(layers):
        one = next((name.partition(".")[0] for name in names if _module(name)), None)
        choice = "" if one is None else f", or prefix={one!r} one of them"
        agent = listed(networks(content))
        choice = choice if agent == "none" else f", or network= one of {agent}"
        raise ConversionError(
            place,
            f"its layers {listed(names)} may be those of more than one network; layers=[...] "
            f"tells which make yours, from first to last{choice}",
        )


def _copies(layers: Mapping[str, Any]) -> bool:
    """Whether modules that differ in a number have the same layers, several each: q1.0, q1.2, q2.0, q2.2."""
    modules: dict[str, dict[str, Any]] = {}
    for name, shapes in layers.items():
        above, _, last = name.rpartition("." if "." in name else "_")
        modules.setdefault(above, {})[last] = shapes
    first, *others = modules.values()
    alike = len({_DIGITS.sub("#", above) for above in modules}) == 1
    return alike and len(first) > 1 and bool(others) and all(other == first for other in others)


def _module(layer: str) -> str:
    """Return what a layer's path says of the module around it, without numbers."""
    path = layer.split(".")
    above = path if path[-1].isdigit() else path[:-1]
    return ".".join(_DIGITS.sub("#", part) for part in above if not part.isdigit())


def listed(content: Any) -> str:
    """Return a few of the names in a mapping or list."""
    several = isinstance(content, Mapping | list)
    names = [f"{name!r:.60}" for name in content] if several else []
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "none"


def ordered(keys: list[str], sizes: Sizes, wanted: Sequence[str] | None, place: str) -> list[str]:
    """Return the names of the layers from first to last.

    `keys` are all names of arrays, in the order of the mapping or file.
    """
    names = _found_order(keys, sizes, place) if wanted is None else list(wanted)
    if len(set(names)) < len(names):
        raise ConversionError(place, f"layers={names} names a layer twice")
    for before, after in pairwise(names):
        if sizes[before][1] != sizes[after][0]:
            raise ConversionError(
                f"{place}: layer {after!r}",
                f"takes {sizes[after][0]} features, but layer {before!r} in front of it gives "
                f"{sizes[before][1]}; layers=[...] tells another order, and layers that are not "
                "one after the other are for fl.from_torch",
            )
    return names


def _found_order(keys: list[str], sizes: Sizes, place: str) -> list[str]:
    names = list(sizes)
    numbered = _by_number(names)
    # A file of safetensors sorts its tensors by name, and so does what was read from one. Real
    # state dicts are never sorted where there is a bias: it comes after the weight.
    if keys == sorted(keys):
        found = numbered or _by_size(sizes)
        why = (
            f"the layers {names} are sorted by name, which is not their order in the network; "
            "tell it with layers=[...]"
        )
    else:
        found = names if numbered in (None, names) else None
        why = (
            f"its layers are in the order {names}, but their numbers say {numbered}; tell "
            "which with layers=[...]"
        )
    if found is None:
        raise ConversionError(place, why)
    return found


def _by_number(names: list[str]) -> list[str] | None:
    """Return the names sorted by the numbers in them, where only numbers distinguish them."""
    pieces = {name: _DIGITS.split(name) for name in names}
    if len({tuple(p[::2]) for p in pieces.values()}) != 1:
        return None
    # As numbers, but of any length: the shorter one is the smaller one.
    digits = {name: [p.lstrip("0") for p in pieces[name][1::2]] for name in names}
    return sorted(names, key=lambda name: [(len(d), d) for d in digits[name]])


def _by_size(sizes: Sizes) -> list[str] | None:
    """Return the only order in which the sizes fit, None where there are several or none."""
    by_input = {k: name for name, (k, _) in sizes.items()}
    outputs = {n for _, n in sizes.values()}
    chain = [name for name, (k, _) in sizes.items() if k not in outputs]
    if len(by_input) != len(sizes) or len(chain) != 1:
        return None
    while sizes[chain[-1]][1] in by_input:
        chain.append(by_input.pop(sizes[chain[-1]][1]))
    return chain if len(chain) == len(sizes) else None
