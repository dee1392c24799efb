"""Parts in a row: whether neighbours fit each other, and `Residual`, which adds its input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlayer.arrays import FLOAT64
from fastlayer.errors import unfit
from fastlayer.network.module import Module
from fastlayer.network.part import as_parts
from fastlayer.run.ops import JoinOp
from fastlayer.run.part import Outline, Sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Self

    from fastlayer.arrays import DType
    from fastlayer.files.document import Reader
    from fastlayer.network.layer import Shown
    from fastlayer.network.part import PartLike
    from fastlayer.run.ops import Op
    from fastlayer.run.part import Part


def check_chain(parts: Sequence[Part | Outline], what: str) -> Sizes:
    """Return what the whole chain takes and gives.

    Raises
    ------
    ValueError
        Neighbours that don't fit, or parts of different dtypes; the message names both.
    """
    if not parts:
        raise ValueError(f"{what} needs at least one layer")
    takes = in_features = width = dtype = None
    keeps, seen_through = True, True
    giver = typed = least = 0
    multiple: int | None = 0  # where the width is not known, it is one of this
    # And as long as that can be told, so many times what the chain is given, and so many more.
    copies, more = 1, 0
    for i, part in enumerate(parts):
        own = part._sizes
        if own.takes is not None and width is not None and own.takes != width:
            raise ValueError(
                f"{what}: layer {i} {part._title()} takes {own.takes} features, but layer {giver} "
                f"{parts[giver]._title()} gives {width}"
            )
        if own.takes is not None and width is None and multiple and own.takes % multiple:
            raise ValueError(
                f"{what}: layer {i} {part._title()} takes {own.takes} features, and what comes of "
                f"layer {giver} {parts[giver]._title()} is a multiple of {multiple}"
            )
        if own.takes is not None and width is None and copies and not keeps:
            needed, rest = divmod(own.takes - more, copies)
            if rest or needed < max(least, 1) or needed != (takes or needed):
                raise ValueError(
                    f"{what}: layer {i} {part._title()} takes {own.takes} features, and layer "
                    f"{giver} {parts[giver]._title()} never gives as many"
                )
            takes = needed
        if width is not None and own.least > width:
            raise ValueError(
                f"{what}: layer {i} {part._title()} takes {own.least} features or more, but layer "
                f"{giver} {parts[giver]._title()} gives {width}"
            )
        if own.dtype is not None and dtype is not None and own.dtype != dtype:
            raise ValueError(
                f"{what}: layer {i} {part._title()} is {own.dtype}, but layer {typed} "
                f"{parts[typed]._title()} is {dtype}; a network has one dtype"
            )
        if dtype is None and own.dtype is not None:
            dtype, typed = own.dtype, i
        if keeps and takes is None:
            takes = own.takes
        if seen_through and in_features is None:
            in_features = own.in_features
        if copies and width is None:
            least = max(least, -(-(own.least - more) // copies))
        if own.out_features is not None:
            width, multiple, giver, copies = own.out_features, None, i, 0
        elif own.copies:
            width, multiple, giver = None if width is None else own.given(width), None, i
            copies, more = own.copies * copies, own.copies * more + own.more
        elif not own.keeps:
            # A Flatten hands on that it is a multiple; so the layer before is the one to name.
            passed = own.multiple == 0 and (width or multiple)
            giver = giver if passed else i
            multiple = (width or multiple) if own.multiple == 0 else own.multiple
            width, copies = None, 0
        keeps = keeps and own.keeps
        seen_through = keeps or own.flattens
    if takes is not None and takes < least:
        raise ValueError(f"{what} takes {takes} features, and one of its layers {least} or more")
    known = Sizes(takes, in_features, width, dtype, keeps, multiple=multiple, least=least)
    return known if keeps or width is not None else known._replace(copies=copies, more=more)


class Chain(Module):
    """Base of what is made of parts in a row."""

    _join = ""
    _parts: tuple[Part, ...]
    _known: Sizes

    def _hold(self, parts: Sequence[Part], dtype: DType | None = None) -> None:
        """Check and keep the parts; `dtype` is for parts that bring none of their own.

        Those compute in float64 by default, which holds any input.
        """
        self._known = check_chain(parts, type(self).__name__)
        self._parts = tuple(parts)
        self._dtype = self._known.dtype or dtype or FLOAT64

    @classmethod
    def _held(cls, parts: Sequence[Part], dtype: DType) -> Self:
        """Make a chain without its `__init__`."""
        chain = cls.__new__(cls)
        chain._hold(parts, dtype)
        return chain

    def __getstate__(self) -> dict[str, Any]:
        return {"layers": self.layers, "dtype": self._dtype}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._hold(as_parts(state["layers"], type(self).__name__), state["dtype"])

    @property
    def _inside(self) -> tuple[tuple[Part, ...], ...]:
        return (self._parts,)

    @property
    def layers(self) -> tuple[Shown, ...]:
        """The parts in order."""
        return tuple(part._given for part in self._parts)

    @property
    def in_features(self) -> int | Any:  # who knows the network knows whether it is None
        """Number of features that it takes; behind a Flatten in front, None for any."""
        return self._known.in_features

    @property
    def out_features(self) -> int | Any:
        """Number of features that it gives, None where that depends on the input."""
        features = self.in_features
        return self._known.out_features if features is None else self._known.given(features)

    @property
    def _sizes(self) -> Sizes:
        return self._known._replace(out_features=self.out_features)

    @property
    def _rowwise(self) -> bool:
        return all(part._rowwise for part in self._parts)

    @property
    def num_parameters(self) -> int:
        """Number of trained parameters of all parts."""
        return sum(part._parameter_count for part in self._parts)

    def flops(self, batch: int = 1) -> int:
        """Return the floating-point operations of the matrix products for `batch` rows.

        A product and a sum count as two: ``2 * batch * n * k`` for each dense layer. Biases,
        activations and norms are not counted.

        Parameters
        ----------
        batch : int
            Number of rows.

        Returns
        -------
        int
            Number of operations.

        Examples
        --------
        >>> import fastlayer as fl
        >>> fl.Network([fl.Layer(4, 8), fl.Layer(8, 3)]).flops(batch=10)
        1120
        """
        return sum(part._flops(batch) for part in self._parts)

    def _snapshot(self) -> Self:
        return self._copied(_parts=tuple(part._snapshot() for part in self._parts))

    def _token(self) -> Any:
        kind = f"fastlayer.{type(self).__name__}"
        return (kind, str(self._dtype), *(part._token() for part in self._parts))

    def _describe(self, key: str, arrays: dict[str, Any]) -> dict[str, Any]:
        inner = [part._describe(f"{key}.{i}", arrays) for i, part in enumerate(self._parts)]
        return {"type": type(self).__name__, "layers": inner}

    @classmethod
    def _outline(cls, spec: Any, key: str, reader: Reader) -> Outline:
        inner: Any = reader.chain(spec, key)
        with unfit(key, ValueError):
            known = cls._held(inner, reader.dtype)  # outlines fit each other as parts do
        return Outline(known._title(), known._sizes, cls._maker(inner, spec, key, reader))

    @classmethod
    def _maker(
        cls, inner: Sequence[Outline], spec: Any, key: str, reader: Reader
    ) -> Callable[[], Any]:
        """Return how to make it of the outlines of its parts."""
        return lambda: cls._held([outline.make() for outline in inner], reader.dtype)


class Residual(Chain):
    """Residual connection: ``layers(x) + x`` (He et al., 2016).

    Parameters
    ----------
    *layers
        What a `Network` takes, as arguments or as one list; or one `Network`.

    Raises
    ------
    ValueError
        The layers give another number of features than they take.

    Examples
    --------
    >>> import fastlayer as fl
    >>> double = fl.Residual(fl.Layer.from_arrays([[1.0, 0.0], [0.0, 1.0]]))
    >>> double([[1.0, -2.0]])
    array([[ 2., -4.]])
    """

    _join = "add"

    def __init__(self, *layers: PartLike | Sequence[PartLike]) -> None:
        one = layers[0] if len(layers) == 1 else None
        self._hold(as_parts(one if isinstance(one, list | tuple) else layers, "Residual"))

    def _hold(self, parts: Sequence[Part], dtype: DType | None = None) -> None:
        super()._hold(parts)  # in a file or pickle, too, of parts without a dtype
        k, n = self._known.in_features, self._known.out_features
        if k is not None and n is not None and k != n:
            first, last = parts[0]._title(), parts[-1]._title()
            raise ValueError(
                f"Residual: the layers take {k} features ({first}) and give {n} ({last}); a sum "
                "needs both alike"
            )
        if self._known.copies and (self._known.copies, self._known.more) != (1, 0):
            raise ValueError(
                "Residual: the layers never give as many features as they take; a sum needs both alike"
            )
        if k is None:
            self._known = self._known._replace(takes=n)

    @property
    def _inside(self) -> tuple[tuple[Part, ...], ...]:
        return (self._parts, ())

    @property
    def out_features(self) -> int | None:
        """Number of features that it gives: as many as it takes."""
        return self._known.out_features or self.in_features

    def _lower(self, dtype: DType) -> list[Op]:
        return [JoinOp("add", [[op for part in self._parts for op in part._lower(dtype)], []])]

    def _astype(self, dtype: DType) -> Residual:
        return Residual(*(part._astype(dtype)._given for part in self._parts))

    def _title(self) -> str:
        return f"Residual({', '.join(part._title() for part in self._parts)})"

    def __repr__(self) -> str:
        return f"Residual({', '.join(part._argument() for part in self._parts)})"
