"""Parts with branches, which all take the same rows: `Concat`, `Add` and `Multiply`; and `Slice`."""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from fastlayer.arrays import FLOAT64, as_real
from fastlayer.errors import Damaged, unfit
from fastlayer.network.chain import check_chain
from fastlayer.network.module import Module
from fastlayer.network.part import as_parts
from fastlayer.run.ops import JoinOp, SliceOp
from fastlayer.run.part import Outline, Part, Sizes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike
    from typing_extensions import Self

    from fastlayer.arrays import Array, DType
    from fastlayer.files.document import Reader
    from fastlayer.network.layer import Shown
    from fastlayer.network.part import PartLike
    from fastlayer.run.ops import Op

    Branch = Sequence[Part | Outline]
    _Form = tuple[int, int]

_MOST_BRANCHES = 1000
_NOTHING = Sizes(None, None, None, None, True)


def _one(values: Iterable[tuple[int, Any]], what: str) -> Any:
    """Return the one value that is not None, None where there is none."""
    found: tuple[int, Any] | None = None
    for i, value in values:
        if found is not None and value is not None and value != found[1]:
            raise ValueError(f"{what} {found[1]} in branch {found[0]} and {value} in branch {i}")
        found = (i, value) if found is None and value is not None else found
    return None if found is None else found[1]


def _form(sizes: Sizes) -> _Form | None:
    """Return how many times its input a branch is wide, and how much more; None is unknown."""
    if sizes.out_features is not None:
        return 0, sizes.out_features
    return (1, 0) if sizes.keeps else (sizes.copies, sizes.more) if sizes.copies else None


def _meeting(forms: Iterable[_Form | None], name: str) -> int | None:
    """Return the features of which all branches give as many, None where that are any."""
    found: int | None = None
    first, *others = dict.fromkeys(form for form in forms if form is not None) or [(1, 0)]
    for copies, more in others:
        # Where the copies are alike, the rest differs, and always will.
        x, rest = divmod(more - first[1], first[0] - copies) if copies != first[0] else (0, 0)
        if rest or x < 1 or x != (found or x):
            raise ValueError(
                f"{name} takes as many features of each branch, which never gives them"
            )
        found = x
    return found


class Branches(Module):
    """Base of the parts that join branches."""

    _join: ClassVar[Literal["concat", "add", "multiply"]]
    _branches: tuple[tuple[Part, ...], ...]
    _known: Sizes

    def __init__(self, branches: Iterable[PartLike | Sequence[PartLike]]) -> None:
        name = type(self).__name__
        if isinstance(branches, str) or not hasattr(branches, "__iter__"):
            raise TypeError(f"{name} takes a list of branches, got {branches!r}")
        lists = [b if isinstance(b, list | tuple) else [b] for b in branches]
        self._hold([as_parts(b, f"{name}: branch {i}") for i, b in enumerate(lists)])

    def _hold(self, branches: Sequence[Branch], dtype: DType | None = None) -> None:
        """Check and keep the branches; `dtype` is for those that bring none of their own."""
        name = type(self).__name__
        if not 0 < len(branches) <= _MOST_BRANCHES:
            raise ValueError(f"{name} takes 1 to {_MOST_BRANCHES} branches, got {len(branches)}")
        sizes = [
            check_chain(b, f"{name}: branch {i}") if b else _NOTHING for i, b in enumerate(branches)
        ]
        if any(part._sizes.flattens for b in branches for part in b):
            raise ValueError(f"{name}: a Flatten goes in front of the branches, not into them")
        takes = _one(enumerate(s.takes for s in sizes), f"{name} takes the same rows: features")
        found = _one(enumerate(s.dtype for s in sizes), f"{name} has one dtype, not")
        least = max(s.least for s in sizes)
        forms = [_form(s) for s in sizes]
        outs = [s.out_features if takes is None else s.given(takes) for s in sizes]
        out, form = self._width(outs, forms)
        keeps = all(s.keeps and s.out_features is None for s in sizes)
        keeps = keeps and self._join != "concat"
        needed = takes
        if takes is None and self._join != "concat":
            needed = _meeting(forms, name)
            out = forms[0][0] * needed + forms[0][1] if needed and forms[0] and not out else out
        if needed is not None and needed < least:
            raise ValueError(f"{name}: one branch takes {needed} features, and another {least}")
        copies, more = form if form and out is None and not keeps else (0, 0)
        self._known = Sizes(needed, takes, out, found, keeps, least=least, copies=copies, more=more)
        self._branches = cast("Any", tuple(map(tuple, branches)))
        self._dtype = found or dtype or FLOAT64

    def _width(
        self, outs: list[int | None], forms: list[_Form | None]
    ) -> tuple[int | None, _Form | None]:
        """Return how many features it gives, and how that depends on the input."""
        found = _one(enumerate(outs), f"{type(self).__name__} takes as many of each:")
        return found, forms[0] if len(set(forms)) == 1 else None

    @classmethod
    def _held(cls, branches: Sequence[Branch], dtype: DType) -> Self:
        made = cls.__new__(cls)
        made._hold(branches, dtype)
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {"branches": self.branches, "dtype": self._dtype}

    def __setstate__(self, state: dict[str, Any]) -> None:
        name = type(self).__name__
        self._hold([as_parts(b, name) for b in state["branches"]], state["dtype"])

    @property
    def branches(self) -> tuple[tuple[Shown, ...], ...]:
        """The parts of each branch in order; none where it hands on what it is given."""
        return tuple(tuple(part._given for part in b) for b in self._branches)

    @property
    def in_features(self) -> int | None:
        """Number of features that it takes, None for any."""
        return self._known.in_features

    @property
    def out_features(self) -> int | None:
        """Number of features that it gives, None where that depends on the input."""
        return self._known.out_features

    @property
    def _inside(self) -> tuple[tuple[Part, ...], ...]:
        return self._branches

    @property
    def _sizes(self) -> Sizes:
        return self._known

    @property
    def _rowwise(self) -> bool:
        return all(part._rowwise for part in self._all)

    @property
    def _all(self) -> list[Part]:
        return [part for b in self._branches for part in b]

    @property
    def num_parameters(self) -> int:
        """Number of trained parameters of all branches."""
        return sum(part._parameter_count for part in self._all)

    def flops(self, batch: int = 1) -> int:
        """Return the floating-point operations of the matrix products for `batch` rows.

        Parameters
        ----------
        batch : int
            Number of rows.

        Returns
        -------
        int
            Number of operations, as `Network.flops` counts them.

        Examples
        --------
        >>> import fastlayer as fl
        >>> fl.Concat([fl.Layer(4, 8), fl.Layer(4, 2)]).flops(batch=10)
        800
        """
        return sum(part._flops(batch) for part in self._all)

    def _lower(self, dtype: DType) -> list[Op]:
        return [
            JoinOp(self._join, [[op for p in b for op in p._lower(dtype)] for b in self._branches])
        ]

    def _astype(self, dtype: DType) -> Self:
        return self._held([[part._astype(dtype) for part in b] for b in self._branches], dtype)

    def _snapshot(self) -> Self:
        parts = tuple(tuple(part._snapshot() for part in b) for b in self._branches)
        return self._copied(_branches=parts)

    def _token(self) -> Any:
        inner = tuple(tuple(part._token() for part in b) for b in self._branches)
        return (f"fastlayer.{type(self).__name__}", str(self._dtype), *inner)

    def _describe(self, key: str, arrays: dict[str, Array]) -> dict[str, Any]:
        branches = [
            {"layers": [part._describe(f"{key}.{i}.{j}", arrays) for j, part in enumerate(b)]}
            for i, b in enumerate(self._branches)
        ]
        return {"type": type(self).__name__, "branches": branches}

    @classmethod
    def _outline(cls, spec: Any, key: str, reader: Reader) -> Outline:
        listed = reader.field(spec, "branches", list, key)
        if len(listed) > _MOST_BRANCHES:
            raise Damaged(key, f"has {len(listed)} branches")
        inner: Any = [reader.chain(b, f"{key}.{i}") for i, b in enumerate(listed)]
        with unfit(key, ValueError):
            known = cls._held(inner, reader.dtype)  # outlines fit each other as parts do
        return Outline(
            known._title(),
            known._sizes,
            lambda: cls._held([[o.make() for o in b] for b in inner], reader.dtype),
        )

    def _title(self) -> str:
        return f"{type(self).__name__}({', '.join(_text(b, '_title') for b in self._branches)})"

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}([{', '.join(_text(b, '_argument') for b in self._branches)}])"
        )


def _text(branch: tuple[Any, ...], name: str) -> str:
    texts = [getattr(part, name)() for part in branch]
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


class Concat(Branches):
    """The results of branches one beside the other: ``concatenate([f(x), g(x), ...], axis=-1)``.

    Parameters
    ----------
    branches : iterable
        Each is a part, or a list of what a `Network` takes; an empty list hands its rows on.

    Raises
    ------
    ValueError
        Branches that take different numbers of features, or have different dtypes.
    TypeError
        Something that is no part.

    Examples
    --------
    >>> import fastlayer as fl
    >>> skip = fl.Concat([[], fl.Layer.from_arrays([[1.0, 1.0]])])
    >>> skip([[3.0, 4.0]])
    array([[3., 4., 7.]])
    """

    _join = "concat"

    def _width(
        self, outs: list[int | None], forms: list[_Form | None]
    ) -> tuple[int | None, _Form | None]:
        known = [form for form in forms if form is not None]
        total = sum(copies for copies, _ in known), sum(more for _, more in known)
        widths = [n for n in outs if n is not None]
        return (
            sum(widths) if len(widths) == len(outs) else None,
            total if len(known) == len(forms) else None,
        )


class Add(Branches):
    """The sum of the results of branches: ``f(x) + g(x) + ...``, from the left.

    Parameters
    ----------
    branches : iterable
        Each is a part, or a list of what a `Network` takes; an empty list hands its rows on.

    Raises
    ------
    ValueError
        Branches that take or give different numbers of features, or have different dtypes.
    TypeError
        Something that is no part.

    See Also
    --------
    Residual : The sum of layers and their input.

    Examples
    --------
    >>> import fastlayer as fl
    >>> both = fl.Add([fl.Layer.from_arrays([[2.0]]), "relu"])
    >>> both([[-1.0], [3.0]])
    array([[-2.],
           [ 9.]])
    """

    _join = "add"


class Multiply(Branches):
    """The product of the results of branches, element by element: a gate.

    Parameters
    ----------
    branches : iterable
        Each is a part, or a list of what a `Network` takes; an empty list hands its rows on.

    Raises
    ------
    ValueError
        Branches that take or give different numbers of features, or have different dtypes.
    TypeError
        Something that is no part.

    Examples
    --------
    >>> import fastlayer as fl
    >>> glu = fl.Multiply([fl.Slice(0, 2), [fl.Slice(2, 4), "sigmoid"]])
    >>> glu([[1.0, 2.0, 0.0, 0.0]])
    array([[0.5, 1. ]])
    """

    _join = "multiply"


class Slice(Part):
    """Some of the features: ``x[..., begin:end]``.

    Parameters
    ----------
    begin, end : int
        The first one, and the one behind the last.

    Raises
    ------
    ValueError
        Numbers that are not ``0 <= begin <= end``.

    Examples
    --------
    >>> import fastlayer as fl
    >>> fl.Slice(1, 3)([[5.0, 6.0, 7.0]])
    array([[6., 7.]])
    """

    begin: int
    end: int

    def __init__(self, begin: int, end: int) -> None:
        self.begin, self.end = index(begin), index(end)
        if not 0 <= self.begin <= self.end:
            raise ValueError(f"Slice takes 0 <= begin <= end, got {begin} and {end}")

    def __call__(self, x: ArrayLike) -> Array:
        """Return a view of `x` where that is possible.

        Parameters
        ----------
        x : array_like
            Shape (..., k) with k of at least `end`; any real dtype.

        Returns
        -------
        ndarray
            Shape (..., end - begin), the dtype of `x`.

        Raises
        ------
        ValueError
            Fewer features.

        Examples
        --------
        >>> import fastlayer as fl
        >>> fl.Slice(0, 1)([5, 6])
        array([5])
        """
        return SliceOp(self.begin, self.end).step()(as_real(x))

    @property
    def _sizes(self) -> Sizes:
        return Sizes(None, None, self.end - self.begin, None, False, least=self.end)

    def _lower(self, dtype: DType) -> list[Op]:
        return [SliceOp(self.begin, self.end)]

    def _token(self) -> Any:
        return ("fastlayer.Slice", self.begin, self.end)

    def _describe(self, key: str, arrays: dict[str, Array]) -> dict[str, Any]:
        return {"type": "Slice", "begin": self.begin, "end": self.end}

    @classmethod
    def _outline(cls, spec: Any, key: str, reader: Reader) -> Outline:
        begin, end = (reader.field(spec, name, int, key) for name in ("begin", "end"))
        with unfit(key, ValueError):
            made = cls(begin, end)
        return Outline(repr(made), made._sizes, lambda: made)

    def __repr__(self) -> str:
        return f"Slice({self.begin}, {self.end})"
