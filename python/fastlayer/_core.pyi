"""The compiled core. Strict: exact arrays in, no conversions; the Python modules are the friendly side.

`None` from a function that takes arrays means "not mine": the caller converts the arguments, or
raises the error that explains what is wrong with them.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeAlias

from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[Any]  # float32 or float64
RowDType: TypeAlias = str  # "float32" or "float64"

class PackedWeights:
    """Weight and bias of a dense layer in the layout of the kernels; immutable."""

    def __init__(self, weight: FloatArray, bias: FloatArray | None) -> None: ...
    @property
    def in_features(self) -> int: ...
    @property
    def out_features(self) -> int: ...
    @property
    def dtype(self) -> RowDType: ...
    @property
    def has_bias(self) -> bool: ...
    @property
    def nbytes(self) -> int: ...
    def weight(self) -> FloatArray: ...
    def bias(self) -> FloatArray | None: ...

class Version:
    """How often something has changed that programs are made from: a layer's weights.

    Whoever changes it calls `advance` afterwards; whoever reads it takes `value` before.
    """

    def __init__(self) -> None: ...
    @property
    def value(self) -> int: ...
    def advance(self) -> None: ...

class Stale(Exception):
    """Raised by `Program.run`: a version that the program watches has another value now."""

class Program:
    """A network compiled to a list of row operations. Add operations, `finish`, then `run`."""

    def __init__(self, dtype: RowDType, in_features: int) -> None: ...
    def dense(
        self, weights: PackedWeights, activation: str = "identity", p0: float = 0.0, p1: float = 0.0
    ) -> None: ...
    def activation(self, name: str, p0: float = 0.0, p1: float = 0.0) -> None: ...
    def prelu(self, slope: FloatArray) -> None: ...
    def affine(self, scale: FloatArray, shift: FloatArray) -> None: ...
    def layer_norm(
        self, weight: FloatArray | None, bias: FloatArray | None, eps: float
    ) -> None: ...
    def rms_norm(self, weight: FloatArray | None, eps: float) -> None: ...
    def slice(self, begin: int, end: int) -> None: ...
    def begin_branches(self, join: str, total: int = 0) -> None:
        """Begin the first of some branches, which all take the rows that are there now.

        `join` is "concat", "add" or "multiply"; `total` the features of all, for "concat".
        """

    def next_branch(self) -> None: ...
    def end_branches(self) -> None: ...
    def watch(self, version: Version, value: int) -> None:
        """Have `run` raise `Stale` once `version` has another value than `value`.

        `value` is what it was before the weights were read. Before `finish`; a version that is
        watched twice counts once, with the older value.
        """

    def set_inputs(self, widths: tuple[int, ...]) -> None:
        """Have `run` take a tuple of arrays, too, of so many features each; 8 at most.

        Where all of them are 0, any numbers will do that are as many together as there must be.
        """

    def set_outputs(self, widths: tuple[int, ...]) -> None:
        """Say of how many features each part is that `run_parts` gives."""

    def set_one_row(self) -> None:
        """Have `run` decline arrays of more than two dimensions."""

    def finish(self) -> None: ...
    @property
    def one_row(self) -> bool: ...
    @property
    def in_features(self) -> int: ...
    @property
    def out_features(self) -> int: ...
    @property
    def dtype(self) -> RowDType: ...
    @property
    def run_parts(self) -> Callable[..., Any]:
        """run_parts(x, out=None, /): what `run` gives as a tuple of views, by `set_outputs`."""

    @property
    def run(self) -> Callable[..., FloatArray | None]:
        """run(x, out=None, /): the result, or None: not mine. Raises `Stale` before anything else."""

    def describe(self, m: int) -> str: ...

def call_directly(type: type, call: Callable[..., FloatArray], /) -> None:
    """Have instances of `type`, whose `__call__` is `call`, run their `_run` without a Python frame.

    Everything that `_run` does not take goes to `call`.
    """

def linear(
    x: object,
    weight: object,
    bias: object,
    activation: str,
    p0: float,
    p1: float,
    out: object,
    accumulate: bool,
    /,
) -> FloatArray | None: ...
def dense_forward(
    inputs: object,
    weights: object,
    biases: object,
    activation: str,
    p0: float,
    p1: float,
    /,
) -> tuple[FloatArray | None, FloatArray] | None: ...
def matmul(a: object, b: object, out: object, /) -> FloatArray | None: ...
def dot(a: object, b: object, out: object, /) -> FloatArray | None: ...
def activation(name: str, x: object, p0: float, p1: float, out: object, /) -> FloatArray | None: ...
def activation_backward(
    name: str, da: object, z: object, p0: float, p1: float, out: object, /
) -> FloatArray | None: ...
def prelu(x: object, slope: object, out: object, /) -> FloatArray | None: ...
def bias_add(z: object, bias: object, out: object, /) -> FloatArray | None: ...
def set_num_threads(n: int, /) -> None: ...
def get_num_threads() -> int: ...
def follow_limits(limits: ContextVar[Any], /) -> None: ...
def set_openmp_default(n: int, /) -> None: ...
def openmp_limits() -> bool: ...
def config() -> dict[str, Any]: ...
def isa_speeds() -> dict[str, float]: ...
def stats() -> dict[str, int]: ...
