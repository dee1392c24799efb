"""One call in a forward, and what its conversion asks of the reader of the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from fastlayer.convert._advice import advice
from fastlayer.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastlayer.arrays import Array, DType
    from fastlayer.convert._graph import Point

    # Which axes an array has where the module runs; see `axes`.
    Form: TypeAlias = tuple[str | int, ...]
    Branch = Callable[["Reads", "Call", Any], Any]


class Reads(Protocol):
    """The reader of a forward."""

    torch: Any
    root: Point
    of_rows: bool
    form: Form

    def then(self, x: Point, steps: Sequence[Any]) -> Point:
        """Return the point that steps lead to."""

    def array(self, tensor: Any, place: str) -> Array:
        """Return the values of a tensor, or of a number."""


class Call:
    """One call of a function or method; `args` come after the input."""

    def __init__(
        self,
        place: str,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        dtype: DType,
        node: Any,
    ) -> None:
        self.place, self.name, self.args, self.kwargs = place, name, args, kwargs
        self.dtype, self.node = dtype, node

    def value(self, at: int, name: str, default: Any) -> Any:
        """Return an argument by place or name."""
        return self.args[at] if at < len(self.args) else self.kwargs.get(name, default)

    def refuse(self, why: str = "") -> ConversionError:
        """Return the error for what can't be converted, by default because nothing is like it."""
        return ConversionError(self.place, why or advice(self.name))

    def getter(self, names: list[str]) -> Callable[[str, Any], Any]:
        """Return what looks up arguments that have these names, where there are no others."""
        extra = [v for v in self.args[len(names) :] if not isinstance(v, int | type(None))]
        unknown = [
            name
            for name, v in self.kwargs.items()
            if name not in (*names, "inplace", "_stacklevel")
            and v is not None
            and (name, str(v)) != ("dtype", f"torch.{self.dtype}")
        ]
        if extra or unknown:
            raise self.refuse(f"has arguments that change it: {extra or unknown}")
        return lambda name, default: self.value(names.index(name), name, default)
