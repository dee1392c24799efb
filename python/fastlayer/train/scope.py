"""What of a network is trained, and whether a loss belongs behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fastlayer.train.loss import Loss
    from fastlayer.train.tape import Parameter


def layers_of(part: Any) -> list[Any]:
    """Return everything inside a part that has weights, in the order in which it runs."""
    found = []
    seen = set()
    for op in _flat(part._lower(part.dtype)):
        owner = getattr(op, "owner", None)
        if owner is not None and id(owner) not in seen and hasattr(owner, "_version"):
            seen.add(id(owner))
            found.append(owner)
    return found


def _flat(ops: Sequence[Any]) -> Iterable[Any]:
    for op in ops:
        yield op
        for branch in getattr(op, "branches", ()):
            yield from _flat(branch)


def owners_of(train: Any, net: Any) -> set[int]:
    """Return the identities of the parts that are to be trained."""
    parts = [train] if hasattr(train, "_lower") or not hasattr(train, "__iter__") else list(train)
    chosen: set[int] = set()
    known = {id(part) for part in layers_of(net)}
    for part in parts:
        if not hasattr(part, "_lower"):
            raise TypeError(
                f"train takes parts of the network, such as net[-2:], got {type(part).__name__}"
            )
        inside = {id(owner) for owner in layers_of(part)} if hasattr(part, "dtype") else set()
        if not inside <= known:
            raise ValueError(f"train holds {part._title()}, which is no part of the network")
        chosen |= inside
    return chosen


def check_shared(parameters: Sequence[Parameter]) -> None:
    """Refuse a layer that the network goes through twice."""
    seen: set[tuple[int, str]] = set()
    for p in parameters:
        key = (id(p.owner), p.name)
        if key in seen:
            raise ValueError(
                f"{p.owner._title()} is in the network twice, and its weights can't be trained; "
                "make a layer for each place"
            )
        seen.add(key)


def check_end(loss: Loss, net: Any, seen: str | None) -> None:
    """Refuse a loss that makes no sense behind the last layer."""
    n = net.out_features
    if loss.name == "cross_entropy" and n == 1:
        raise ValueError(
            "cross_entropy needs an output for each class, and the network has 1; for two classes "
            "and one output use binary_cross_entropy"
        )
    if seen is not None:
        return
    last = net._lower(net.dtype)[-1]
    name = (getattr(last, "fused", None) or ("identity",))[0]
    wrong = {"binary_cross_entropy": ("softmax", "log_softmax"), "cross_entropy": ("sigmoid",)}
    if name in wrong.get(loss.name, ()):
        other = {"cross_entropy": "softmax", "binary_cross_entropy": "sigmoid"}[loss.name]
        raise ValueError(
            f"{loss.name} belongs behind {other}, or behind a layer without an activation, and "
            f"the network ends in {name}"
        )
