"""Array arguments: what is accepted, what it becomes, and the messages for what is not.

The fast paths hand arrays to the core untouched; whatever the core declines comes here. Nothing
else in the package converts an argument.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.frames import is_by_column, is_table, numbers, stacked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TypeVar

    from numpy.typing import NDArray

    Array = NDArray[Any]
    DType = np.dtype[Any]
    F = TypeVar("F", bound=np.floating[Any])  # a result that has the dtype of its arguments

FLOAT16: DType = np.dtype(np.float16)
FLOAT32: DType = np.dtype(np.float32)
FLOAT64: DType = np.dtype(np.float64)

_HINTS = {
    "c": "take .real, or split real and imaginary parts into features",
    "O": "convert it to numbers first, e.g. with .astype(np.float64), or .toarray() if it is sparse",
    "V": "convert it first, e.g. with .astype(np.float32)",
    "f": "convert it with .astype(np.float64)",
    **dict.fromkeys("USTMm", "convert it to numbers first"),
}


def is_masked(x: object) -> bool:
    """Whether `x` is a masked array, without importing numpy.ma to find out."""
    # Another thread may be in the midst of importing it.
    kind = getattr(sys.modules.get("numpy.ma"), "MaskedArray", None)
    return kind is not None and isinstance(x, kind)


def is_array(x: object) -> bool:
    """Whether `x` is one array: an ndarray, or `__array__`, DLPack or a buffer offers one."""
    if _is_numpys(x) or hasattr(x, "__dlpack__"):
        return True
    try:
        memoryview(x).release()  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):
        return False
    return not isinstance(x, bytes)  # text, to NumPy


def _is_numpys(x: object) -> bool:
    """Whether `x` speaks one of NumPy's own array protocols."""
    return (
        hasattr(x, "__array__")
        or hasattr(x, "__array_interface__")
        or hasattr(x, "__array_struct__")
    )


def _asarray(x: object, what: str) -> Array:
    """Return `x` as NumPy reads it, through DLPack where `x` offers nothing else."""
    if _is_numpys(x) or not hasattr(x, "__dlpack__"):
        if not _is_numpys(x) and hasattr(x, "to_numpy"):
            x = x.to_numpy()
        try:
            return np.asarray(x)
        except ValueError as error:
            raise ValueError(f"{what} is not a rectangular array: {error}") from None
    try:
        return np.from_dlpack(x)
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(
            f"{what} is a {type(x).__name__} that NumPy can't read through DLPack ({error}); "
            "copy it to the CPU, in a dtype that NumPy has"
        ) from None


def _no_array(x: object) -> str:
    """Say what something is that NumPy makes no array of, and what to do."""
    if x is None:
        return "None"
    if isinstance(x, dict):
        return "a dict: np.column_stack(list(x.values())) has its columns"
    if isinstance(x, set | frozenset):
        return "a set, which has no order: make a list"
    if hasattr(x, "read"):
        return "an open file: read it first, e.g. with np.load"
    if hasattr(x, "collect"):
        return f"a {type(x).__name__}, which is not computed yet: call its collect()"
    if hasattr(x, "__next__"):
        return "a generator: make a list of it, or give it to predict, which takes batches"
    return f"an object of {type(x).__name__}"


def as_real(x: object, what: str = "x") -> Array:
    """Return `x` as a plain, aligned, native-endian array of a real dtype, copying if it must.

    `x` is an array, nested sequences of numbers, a table of pandas, polars or Arrow, or an object
    that offers an array through ``__array__``, DLPack, the buffer protocol or ``to_numpy``.

    Raises
    ------
    TypeError
        Masked arrays, dtypes other than bool, integers, float16, float32 and float64, and arrays
        that DLPack can't hand over, such as those on a GPU.
    ValueError
        Nested sequences that are not rectangular.
    """
    if is_masked(x):
        raise TypeError(
            f"{what} is a masked array, and a mask has no meaning in a layer; "
            "fill it first with .filled(value)"
        )
    a = stacked(x, what) if is_by_column(x) else _asarray(x, what)
    if a.dtype.kind == "O" and a.ndim == 0 and not isinstance(x, np.ndarray):
        raise TypeError(f"{what} is {_no_array(x)}; expected an array of numbers")
    if a.dtype.kind not in "biuf" and is_table(x):
        a = stacked(x, what)
    elif a.dtype.kind == "O" and hasattr(x, "to_numpy"):  # one column, perhaps with missing values
        a = numbers(x)
    if a.dtype.kind not in "biuf" or a.dtype.itemsize > 8:
        hint = _HINTS.get(a.dtype.kind, "convert it first")
        raise TypeError(
            f"{what} has dtype {a.dtype}; expected bool, integer, float16, float32 or float64 "
            f"({hint})"
        )
    if a.dtype.byteorder in "<>":  # newbyteorder leaves a mark on native dtypes too
        native = a.dtype.newbyteorder("=")
        a = a.view(native) if a.dtype.isnative else copied(a, native)
    return a if a.flags.aligned else copied(a, a.dtype)


def is_weak(x: object) -> bool:
    """Whether `x` is a Python number, which takes the dtype of the arrays beside it (NEP 50)."""
    return type(x) in (bool, int, float)


def promote(*dtypes: DType) -> tuple[DType, DType]:
    """Return the dtype to compute in and that of the result: NumPy's, integers as float64."""
    common = np.result_type(*dtypes)
    if common == FLOAT16:
        return FLOAT32, FLOAT16
    return (FLOAT32, FLOAT32) if common == FLOAT32 else (FLOAT64, FLOAT64)


def promoted(*pairs: tuple[Array | None, object]) -> tuple[DType, DType]:
    """`promote` for arrays beside what was given for them, of which Python numbers are weak."""
    strong = [a.dtype for a, given in pairs if a is not None and not is_weak(given)]
    return promote(*strong) if strong else (FLOAT64, FLOAT64)


def float_dtype(dtype: object, what: str = "dtype") -> DType:
    """Return `dtype` as float32 or float64, the two that layers compute in."""
    try:
        if dtype is None:  # float64 to NumPy, which nobody means
            raise TypeError
        d = np.dtype(dtype)  # type: ignore[call-overload]
    except TypeError:
        raise TypeError(f"{what} must be float32 or float64, got {dtype!r}") from None
    for known in (FLOAT32, FLOAT64):
        if d == known:
            return known
    raise TypeError(f"{what} must be float32 or float64, got {d}")


def cast(a: Array, dtype: DType) -> Array:
    """Return `a` as `dtype`; a value out of range becomes inf without a warning."""
    if a.dtype == dtype:
        return a
    return copied(a, dtype)


def copied(a: Array, dtype: DType) -> Array:
    """``a.astype(dtype)``; of a large array in pieces, so that Ctrl-C need not wait for the end."""
    if a.size <= _PIECE:
        with np.errstate(all="ignore"):
            return a.astype(dtype)
    y = np.empty_like(a, dtype)
    put(y, a)
    return y


# Elements between two chances for a signal; some 10 ms where all of the memory is new.
_PIECE = 1 << 20


def put(target: Array, y: Array) -> None:
    """Write `y`, of the same shape, into `target`, cast as `cast` does."""
    with np.errstate(all="ignore"):
        # A piece must not overwrite what a later one reads.
        shared = target.size > _PIECE and may_share(target, y)
        for piece in [(...,)] if shared else _pieces(target):
            target[piece] = y[piece]


def _pieces(a: Array, at: tuple[slice, ...] = ()) -> Iterator[Any]:
    """Yield indices that take `a` apart, in the order of its memory as far as that is easy."""
    part = a[at] if at else a
    if part.size <= _PIECE:
        yield at or (...,)
        return
    axis = max(range(a.ndim), key=lambda d: (part.shape[d] > 1, abs(a.strides[d])))
    n, first = part.shape[axis], at[axis].start if at else 0
    step = max(1, n * _PIECE // part.size)
    whole = at or tuple(slice(0, n) for n in a.shape)
    for i in range(first, first + n, step):
        piece = slice(i, min(i + step, first + n))
        yield from _pieces(a, (*whole[:axis], piece, *whole[axis + 1 :]))


def frozen(a: Array) -> Array:
    """Return a copy of `a` that can't be written to, not even by turning its flag on."""
    base = a.copy()
    base.flags.writeable = False
    view: Array = base.view()
    return view


def may_share(a: Array, b: Array) -> bool:
    """Whether an element of `a` and one of `b` share memory; also where that is hard to tell."""
    return np.may_share_memory(a, b, max_work=10_000)  # type: ignore[arg-type]  # any int


def _overlaps_itself(a: Array) -> bool:
    """Whether two elements of `a` share memory."""
    if a.flags.forc:
        return False
    # Two elements differ first along some axis: shift the later one back to where that is 0.
    for axis in range(a.ndim):
        first = a[(0,) * axis]
        if may_share(first[:1], first[1:]):
            return True
    return False


def check_out(out: object, shape: tuple[int, ...], dtype: DType) -> Array:
    """Return `out` as a plain array that a result of this shape and dtype can be written to."""
    if not isinstance(out, np.ndarray) or is_masked(out):
        raise TypeError(f"out must be a NumPy array, got {type(out).__name__}")
    if out.dtype != dtype:
        raise TypeError(f"out has dtype {out.dtype}, but the result is {dtype}")
    if out.shape != shape:
        raise ValueError(f"out has shape {out.shape}, but the result has shape {shape}")
    if not out.flags.writeable:
        raise ValueError("out is read-only")
    plain = out.view(np.ndarray)
    if plain.size and _overlaps_itself(plain):
        raise ValueError("out is a broadcast or overlapping view, in which elements share memory")
    return plain


def as_result(y: Array) -> Array:
    """Return `y`, or a NumPy scalar where `y` is 0-d, as NumPy's own functions do."""
    result: Array = y[()] if y.ndim == 0 else y
    return result


def declined() -> RuntimeError:
    """Return the error for a core that declines arguments which were made to fit it."""
    return RuntimeError("the compiled core declined valid arguments; please report this as a bug")


def evaluate(
    run: Callable[[Array, Array | None], Array | None],
    a: Array,
    dtypes: tuple[DType, DType],
    shape: tuple[int, ...],
    out: object,
) -> Array:
    """Call ``run(a, target)`` in the compute dtype and deliver in the result dtype.

    `run` returns None where it can't write into the target; the result is then copied there.
    """
    compute, result = dtypes
    a = cast(a, compute)
    target = None if out is None else check_out(out, shape, result)
    if target is None or compute != result or run(a, target) is None:
        y = run(a, None)
        if y is None:
            raise declined()
        if target is None:
            return as_result(cast(y, result))
        put(target, y)
    return out  # type: ignore[return-value]  # check_out made sure


def normalize_axis(axis: object, ndim: int) -> int:
    """Return `axis` as a number in ``0 .. ndim - 1``."""
    try:
        index = axis.__index__()  # type: ignore[attr-defined]
    except AttributeError:
        raise TypeError(f"axis must be an integer, got {axis!r}") from None
    if not -ndim <= index < ndim:
        raise np.exceptions.AxisError(index, ndim)
    return int(index % ndim)


def count(name: str, value: object) -> int:
    """Return how many of something there are to be as an int, at least 1."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    number = int(value.__index__())
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number}")
    return number


def digest(arrays: Iterable[Array | None]) -> str:
    """Return a hash of what arrays hold, their dtypes and shapes included."""
    from hashlib import blake2b

    found = blake2b(digest_size=16)
    for a in arrays:
        # What describes an array has no fixed length, so it ends in a byte that it can't contain.
        found.update(b"none\0" if a is None else f"{a.dtype.str}{a.shape}\0".encode())
        if a is not None:
            found.update(np.ascontiguousarray(a).view(np.uint8).data)
    return found.hexdigest()
