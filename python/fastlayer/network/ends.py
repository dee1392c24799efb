"""The ends of a network: several inputs or outputs, each some features of one row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from operator import index
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlayer.arrays import as_real, cast, normalize_axis
from fastlayer.errors import ConversionError, Damaged, unfit

if TYPE_CHECKING:
    from fastlayer.arrays import Array, DType
    from fastlayer.files.document import Reader

_MOST = 1000
_LONGEST_NAME = 200


class Classes(NamedTuple):
    """The labels of the classes that features are the scores of, numbers or texts.

    `keepdims` has the labels keep the axis of the scores.
    """

    labels: tuple[Any, ...]
    keepdims: bool

    def of(self, scores: Array, axis: int) -> Array:
        """Return the label of the largest score."""
        found = np.argmax(scores, axis=axis, keepdims=self.keepdims)
        labels: Array = np.array(self.labels)[found]
        return labels


class Ends(NamedTuple):
    """The names of inputs or outputs, and how many features each has; none where there is one row.

    All features are 0 where only their sum matters, as of inputs that are joined first of all.
    Outputs may be labels; `single` has one output come by itself, and not in a tuple.
    """

    names: tuple[str, ...] = ()
    widths: tuple[int, ...] = ()
    classes: tuple[Classes | None, ...] = ()
    single: bool = False

    @property
    def views(self) -> bool:
        """Whether all outputs are views of one array, in a tuple."""
        return not self.single and not any(self.classes)

    @classmethod
    def of(cls, given: Any, what: str) -> Ends:
        """Check what a caller gives: features by name, or a list of features.

        Raises
        ------
        TypeError, ValueError
            Anything else; no name, or one that is there twice; features below 1.
        """
        if given is None:
            return cls()
        if isinstance(given, Mapping):
            names, widths = [*given], [*given.values()]
        elif isinstance(given, Sequence) and not isinstance(given, str):
            names, widths = [f"{what}_{i}" for i in range(len(given))], [*given]
        else:
            raise TypeError(f"{what}s: expected a list or a dict of features, got {given!r:.60}")
        numbers = tuple(map(index, widths))
        if not 0 < len(numbers) <= _MOST or min(numbers) < 1:
            raise ValueError(f"{what}s: expected 1 to {_MOST} of at least 1 feature, got {numbers}")
        for name in names:
            if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
                raise ValueError(f"{what}s: {name!r:.60} is no name")
        return cls(tuple(names), numbers)

    def check(self, features: int | None, what: str) -> None:
        """Refuse ends that have not all of the features, or more."""
        if any(self.widths) and features is not None and sum(self.widths) != features:
            raise ValueError(
                f"Network: the {what}s have {' + '.join(map(str, self.widths))} = "
                f"{sum(self.widths)} features, and the network {features}"
            )

    @classmethod
    def read(cls, spec: dict[str, Any], what: str, key: str, reader: Reader) -> Ends:
        """Return the ends that a document holds.

        Raises
        ------
        Damaged
            They are none.
        """
        single = spec.get("single", False)
        if type(single) is not bool:
            raise Damaged(key, f"the field 'single' holds {single!r:.40}, expected bool")
        if f"{what}s" not in spec:
            if single and what == "output":
                raise Damaged(key, "the field 'single' is there without 'outputs'")
            return cls()
        listed = reader.field(spec, f"{what}s", list, key)
        entries = [entry for entry in listed if isinstance(entry, list) and len(entry) in (2, 3)]
        given = {name: width for name, width, *_ in entries if isinstance(name, str)}
        if len(given) != len(listed) or not all(type(width) is int for width in given.values()):
            raise Damaged(
                key, f"the field '{what}s' holds {listed!r:.40}, expected names and features"
            )
        if what == "input" and given and not any(given.values()):
            return cls(tuple(given), (0,) * len(given))
        with unfit(key, ValueError):
            ends = cls.of(given, what)
        classes = tuple(_classes(entry, key) for entry in entries)
        if what == "input":
            return ends
        if single and len(classes) != 1:
            raise Damaged(key, f"the field 'single' is there beside {len(classes)} outputs")
        if not (single or any(classes)):
            return ends
        return ends._replace(classes=classes, single=single)

    def described(self) -> list[list[Any]]:
        """Return what `read` takes."""
        entries: list[list[Any]] = [
            list(pair) for pair in zip(self.names, self.widths, strict=True)
        ]
        for entry, classes in zip(entries, self.classes, strict=False):
            if classes is not None:
                entry.append({"labels": list(classes.labels), "keepdims": classes.keepdims})
        return entries

    def joined(self, arrays: Sequence[Any], axis: int, dtype: DType) -> Array:
        """Return inputs as one array of `dtype`, their features beside each other along `axis`.

        Raises
        ------
        ValueError
            Another number of features, or axes that differ.
        """
        rows = []
        for name, width, given in zip(self.names, self.widths, arrays, strict=True):
            a = as_real(given, f"input {name!r}")
            at = normalize_axis(axis, a.ndim) if a.ndim else 0
            if a.ndim == 0 or width not in (0, a.shape[at]):
                raise ValueError(
                    f"input {name!r}: expected {width} features along axis {axis}, got shape {a.shape}"
                )
            rows.append(a)
        shapes = [a.shape for a in rows]
        if any(_without(s, axis) != _without(shapes[0], axis) for s in shapes):
            raise ValueError(
                f"the inputs {', '.join(self.names)} have shapes {', '.join(map(str, shapes))}; all "
                "axes but that of the features have to be alike"
            )
        return np.concatenate([cast(a, dtype) for a in rows], axis=axis)

    def parted(self, y: Array, axis: int) -> tuple[Array, ...] | Array:
        """Return the outputs: views of one array, and labels."""
        outputs = [
            part if classes is None else classes.of(part, axis)
            for part, classes in self.parts(y, axis)
        ]
        return outputs[0] if self.single else tuple(outputs)

    def parts(self, y: Any, axis: int = -1) -> list[tuple[Any, Classes | None]]:
        """Return the features of each output, and of what classes they are the scores."""
        ends = accumulate(self.widths)
        before = (slice(None),) * (axis % y.ndim)
        classes = self.classes or (None,) * len(self.widths)
        return [
            (y[(*before, slice(end - width, end))], c)
            for end, width, c in zip(ends, self.widths, classes, strict=True)
        ]


def selected(outputs: str | Sequence[str] | None, names: Sequence[str], place: str) -> list[str]:
    """Return the outputs that are wanted, all of them by default.

    Raises
    ------
    ConversionError
        One is not there, or there are none.
    """
    wanted = [outputs] if isinstance(outputs, str) else list(names if outputs is None else outputs)
    missing = [name for name in wanted if name not in names]
    if missing or not wanted or len(set(wanted)) < len(wanted):
        there = ", ".join(map(repr, names[:16])) or "none"
        given = "outputs=" if outputs is None else f"outputs={outputs!r:.60}"
        raise ConversionError(
            place, f"it has the outputs {there}; {given} has to name some of them, each once"
        )
    return wanted


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    at = axis % len(shape)
    return shape[:at] + shape[at + 1 :]


def _classes(entry: list[Any], key: str) -> Classes | None:
    """Return the classes that a document has of an output."""
    if len(entry) == 2:
        return None
    given = entry[2]
    labels = given.get("labels") if isinstance(given, dict) else None
    kinds = {type(label) for label in labels} if isinstance(labels, list) else set()
    if len(kinds) != 1 or not kinds <= {int, float, str} or len(labels or ()) != entry[1]:
        raise Damaged(key, f"the classes {given!r:.40} are not one for each of {entry[1]} features")
    if kinds == {int} and any(abs(label) >> 63 for label in labels or ()):
        raise Damaged(key, "a label is no 64-bit integer")
    keepdims = given.get("keepdims", False)
    if type(keepdims) is not bool:
        raise Damaged(key, f"the field 'keepdims' holds {keepdims!r:.40}, expected bool")
    return Classes(tuple(labels or ()), keepdims)
