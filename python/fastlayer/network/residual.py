"""Parts of networks beside dense layers; norms are in `_norms`, `Flatten` in `_chain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlayer.network.chain import Flatten, Part, Parts, as_parts, lower_parts, title
from fastlayer.network.norms import BatchNorm, LayerNorm, RMSNorm
from fastlayer.run.compile import Residual as ResidualOp

if TYPE_CHECKING:
    from fastlayer.arrays import DType
    from fastlayer.run.compile import Op

__all__ = ["BatchNorm", "Flatten", "LayerNorm", "RMSNorm", "Residual"]


class Residual(Parts):
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

    def __init__(self, *layers: Any) -> None:
        one = layers[0] if len(layers) == 1 else None
        self._hold(as_parts(one if isinstance(one, list | tuple) else layers, "Residual"))
        k, n = self._chain.in_features, self._chain.out_features
        if k is not None and n is not None and k != n:
            first, last = title(self._parts[0]), title(self._parts[-1])
            raise ValueError(
                f"Residual: the layers take {k} features ({first}) and give {n} ({last}); a sum "
                "needs both alike"
            )

    @property
    def out_features(self) -> int | None:
        """Number of features that it gives: as many as it takes."""
        known = self._chain.out_features
        return self.in_features if known is None else known

    def _lower(self, dtype: DType) -> list[Op]:
        return [ResidualOp(lower_parts(self._parts, dtype))]

    def _astype(self, dtype: DType) -> Residual:
        return Residual(*self._parts_astype(dtype))

    def _title(self) -> str:
        return f"Residual({', '.join(title(part) for part in self._parts)})"

    def __repr__(self) -> str:
        return f"Residual({', '.join(repr_part(part) for part in self._parts)})"


def repr_part(part: Part) -> str:
    """Return the repr of a part; a plain activation by its name."""
    text = title(part)
    return repr(text) if repr(part) == f"Activation({text!r})" else repr(part)
