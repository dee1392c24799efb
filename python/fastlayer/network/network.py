"""`Network`: layers in a row, run by the core in one go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from fastlayer.arrays import float_dtype
from fastlayer.network._inspection import Inspection
from fastlayer.network.chain import Part, as_parts, lower_parts
from fastlayer.network.residual import repr_part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from os import PathLike

    from numpy.typing import ArrayLike, DTypeLike

    from fastlayer.arrays import Array, DType
    from fastlayer.report.verification import Proof
    from fastlayer.run.compile import Op


class Network(Inspection):
    """Layers in a row: the output of each is the input of the next.

    Calling it is stateless and may be done from many threads at once. A layer may be part of
    several networks; `Layer.update` changes all of them.

    Parameters
    ----------
    layers : iterable
        `Layer`, `Flatten`, `LayerNorm`, `RMSNorm`, `BatchNorm`, `Residual`, `Network`, an
        activation (name, function or `Activation`), or any callable from array to array.

    Raises
    ------
    ValueError
        Neighbours that don't fit, layers of different dtypes, no layers.
    TypeError
        Something that is not a layer.

    Examples
    --------
    >>> import fastlayer as fl
    >>> import numpy as np
    >>> net = fl.Network([fl.Layer(4, 8, "relu", rng=0), fl.Layer(8, 3, "softmax", rng=1)])
    >>> net(np.ones((5, 4))).shape
    (5, 3)
    >>> len(net), net.num_parameters
    (2, 67)
    """

    _verification: Proof | None = None

    def __init__(self, layers: Iterable[Any]) -> None:
        self._hold(as_parts(layers, "Network"))

    @classmethod
    def _of(cls, parts: tuple[Part, ...], dtype: DType) -> Network:
        """Make a network of some parts of another, in its dtype."""
        if not parts:
            raise ValueError("Network needs at least one layer, and the slice is empty")
        network = cls.__new__(cls)
        network._hold(parts, dtype)
        return network

    def _lower(self, dtype: DType) -> list[Op]:
        return lower_parts(self._parts, dtype)

    def __len__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[Part]:
        return iter(self._parts)

    @overload
    def __getitem__(self, index: int) -> Part: ...
    @overload
    def __getitem__(self, index: slice) -> Network: ...
    def __getitem__(self, index: int | slice) -> Part | Network:
        if isinstance(index, slice):
            return Network._of(self._parts[index], self._dtype)
        return self._parts[index]

    @property
    def verification(self) -> Proof | None:
        """How far it was from its source when it was converted, None where nothing was compared.

        It belongs to this object: copies, slices, pickles and files have none.
        """
        return self._verification

    def predict(
        self,
        x: ArrayLike | Iterable[ArrayLike],
        *,
        batch_size: int | None = None,
        out: Array | None = None,
        progress: bool | Callable[[int, int | None], object] = False,
    ) -> Array:
        """Run the forward pass over many rows, a batch at a time.

        The bits of a row do not depend on how the rows are batched.

        Parameters
        ----------
        x : array_like, memmap or iterable of arrays
            Rows are samples. An iterable (a generator, or a list of arrays with two or more
            dimensions) gives one result, its parts one after the other; a 1-D item is one row.
        batch_size : int, optional
            Rows at a time; by default all of an array at once.
        out : ndarray, optional
            Where the result goes, e.g. a writable memmap: the result's shape and `dtype`. May
            overlap an array, or a list of arrays.
        progress : bool or callable
            True shows a bar where tqdm is installed and stderr is a terminal or a notebook, and
            nothing elsewhere; a callable is given the rows done and the rows in total, None
            where that isn't known.

        Returns
        -------
        ndarray
            Shape (rows, ..., out_features); `out` where that is given.

        Raises
        ------
        ValueError
            A wrong shape of `x` or `out`, a `batch_size` below 1; an iterator whose next part
            `out` has overwritten.
        TypeError
            Complex, masked or non-numeric `x`; `out` of another dtype.

        Examples
        --------
        >>> import fastlayer as fl
        >>> import numpy as np
        >>> net = fl.Network([fl.Layer(4, 2, rng=0)])
        >>> net.predict(np.ones((1000, 4)), batch_size=256).shape
        (1000, 2)
        """
        from fastlayer.run.batches import predict

        return predict(self, x, batch_size, out, progress)

    def astype(self, dtype: DTypeLike) -> Network:
        """Return a new network that computes in `dtype`.

        Parameters
        ----------
        dtype : dtype
            One of float32 and float64.

        Returns
        -------
        Network
            Its weights are copies, rounded where `dtype` is narrower.

        Raises
        ------
        TypeError
            Another dtype.

        Examples
        --------
        >>> import fastlayer as fl
        >>> fl.Network([fl.Layer(4, 3)]).astype("float64").dtype
        dtype('float64')
        """
        return self._astype(float_dtype(dtype))

    def _astype(self, dtype: DType) -> Network:
        return Network._of(tuple(self._parts_astype(dtype)), dtype)

    def copy(self) -> Network:
        """Return a network with layers of its own.

        Returns
        -------
        Network
            With copies of the weights.

        Examples
        --------
        >>> import fastlayer as fl
        >>> net = fl.Network([fl.Layer.from_arrays([[2.0]])])
        >>> other = net.copy()
        >>> other[0].weight = [[3.0]]
        >>> float(net[0].weight[0, 0])
        2.0
        """
        from copy import deepcopy

        return deepcopy(self)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the network to a file that `load` reads; see there for the formats.

        The file appears under its name only when it is complete.

        Parameters
        ----------
        path : path
            Ends in .npz or .safetensors.

        Raises
        ------
        ValueError
            Another suffix, or an activation that is a Python function.
        ImportError
            There is no safetensors package, for that suffix.
        OSError
            The file can't be written.

        Examples
        --------
        >>> import fastlayer as fl
        >>> import os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     fl.Network([fl.Layer(4, 2)]).save(os.path.join(folder, "model.npz"))
        ...     os.listdir(folder)
        ['model.npz']
        """
        from fastlayer.files.save import save

        save(self, path)

    def _title(self) -> str:
        return f"Network({self.in_features} -> {self.out_features}, {len(self)} layers)"

    def __repr__(self) -> str:
        inner = "".join(f"\n    {line}," for p in self._parts for line in _lines(p))
        return f"Network([{inner}\n])"


def _lines(part: Part) -> list[str]:
    return ["\n    ".join(repr_part(part).splitlines())]
