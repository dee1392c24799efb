"""What a network is made of: the protocol of parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from fastlayer.arrays import cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from fastlayer.arrays import Array, DType
    from fastlayer.run.ops import Op

_LONGEST_TITLE = 200


class Sizes(NamedTuple):
    """What is known of the features of a part; None is unknown or any."""

    takes: int | None  # features of the last axis that must come in
    in_features: int | None  # the same, with a Flatten in front seen through
    out_features: int | None
    dtype: DType | None  # of arrays inside
    keeps: bool  # the features pass through unchanged
    flattens: bool = False  # all axes but the first become features
    # The features that it gives are a multiple of this, or where it is 0, of those that come in.
    multiple: int | None = None
    least: int = 0  # features that have to come in at least
    # The features that it gives are `copies` times those that come in and `more`; 0 is unknown.
    copies: int = 0
    more: int = 0

    def given(self, features: int) -> int | None:
        """Return how many features it gives of so many, None where that can't be told."""
        if self.out_features is not None or self.keeps:
            return features if self.out_features is None else self.out_features
        return self.copies * features + self.more if self.copies else None


class Outline:
    """A part that has been checked, and how to make it."""

    title: str
    sizes: Sizes
    make: Callable[[], Any]

    def __init__(self, title: str, sizes: Sizes, make: Callable[[], Any]) -> None:
        # A title lists those of the parts inside, and parts may be 64 deep in each other.
        self.title, self.sizes, self.make = title[:_LONGEST_TITLE], sizes, make

    # What is asked of a part in a chain.
    def _title(self) -> str:
        return self.title

    @property
    def _sizes(self) -> Sizes:
        return self.sizes


class Part:
    """Base of what `Network` and `Residual` can be made of.

    What lowers to operations that there are takes part in everything: calls, tables, proofs of
    conversions, Dask; and files, once it describes itself and stands in the reader's table.
    """

    __slots__ = ()
    # How the branches inside are joined: "add", "multiply", "concat"; "" where they are one chain.
    _join: ClassVar[str]

    @property
    def _inside(self) -> tuple[tuple[Part, ...], ...]:
        """The branches of parts that it is made of; none where it is made of no others."""
        return ()

    @property
    def _rowwise(self) -> bool:
        """Whether it maps the last axis to a last axis and leaves all others as they are."""
        return True

    @property
    def _parameter_count(self) -> int:
        """Number of trained parameters."""
        return 0

    @property
    def _activation_title(self) -> str:
        """The activation inside, for the summary."""
        return ""

    @property
    def _given(self) -> Any:
        """What `layers` shows: the part, or what the user gave for it."""
        return self

    @property
    def _sizes(self) -> Sizes:
        """The features that it takes and gives, and its dtype."""
        raise NotImplementedError

    def _lower(self, dtype: DType) -> list[Op]:
        """Return the operations that this stands for, their arrays in `dtype` where it matters."""
        raise NotImplementedError

    def _astype(self, dtype: DType) -> Part:
        """Return the same thing computing in `dtype`."""
        return self

    def _snapshot(self) -> Self:
        """Return the same with the weights that it has now; no weight is copied."""
        return self

    def _taking(self, arrays: dict[str, Array]) -> Callable[[], None]:
        """Return what replaces arrays by those that training has made of them.

        They have the names that it was told. The caller holds the lock of renewals; all that can
        fail has been done when this returns.
        """
        raise NotImplementedError

    def _flops(self, batch: int) -> int:
        """Return the floating-point operations of its matrix products."""
        return 0

    def _pair(self, x: Array, alone: Any) -> tuple[Array, Array]:
        """Return what it gives for `x`, and its weighted sum, or the input where it has none.

        `alone` is a network of this part only.
        """
        z = cast(x, alone.dtype)
        return alone(z), z

    def _token(self) -> Any:
        """Return nested tuples that are equal where type, structure and weights are equal."""
        raise NotImplementedError

    def _title(self) -> str:
        """Return a short name for tables and messages."""
        return repr(self)

    def _argument(self) -> str:
        """Return it as the repr of what holds it shows it."""
        return repr(self)

    def _describe(self, key: str, arrays: dict[str, Array]) -> dict[str, Any]:
        """Return it as plain data, and put its arrays into `arrays`, each under a name of `key`.

        Raises
        ------
        ValueError
            A file can't hold it.
        """
        raise NotImplementedError

    @classmethod
    def _outline(cls, spec: Any, key: str, reader: Any) -> Outline:
        """Check plain data that `_describe` may have made, and return how to make the part.

        `reader` is the `files.document.Reader` at work.
        """
        raise NotImplementedError
