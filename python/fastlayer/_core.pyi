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

class Trainer:
    """Trains a chain of dense layers: add layers, `finish`, then take steps. One call at a time.

    Everything that a step needs stays in the trainer. `scalars` is a float64 array of 15 numbers,
    for all kinds of optimisers: learning rate, momentum, weight decay, beta1, beta2, eps, the largest
    norm of the gradient (0 for any), and the powers of beta1 and beta2 so far, 1 in the beginning;
    how often the loss counts, and its gradient; the penalty of the weights; 1 for the other forms of
    momentum and Adam, else 0; and the bounds of a cross entropy. Steps of adam and adamw advance the
    powers in place.

    Samples are rows of `x`, of any real dtype. Targets are rows of the trainer's dtype, or for
    "cross_entropy" class numbers in int64; `sample_weight` is float64, one for each row, or None.
    Class numbers or indices out of range are a ValueError, before anything changes.
    """

    def __init__(self, dtype: RowDType, in_features: int) -> None: ...
    def dense(
        self,
        weight: FloatArray,
        bias: FloatArray | None,
        activation: str = "identity",
        p0: float = 0.0,
        p1: float = 0.0,
        trained: bool = True,
    ) -> None: ...
    def finish(self, loss: str, p0: float, optimizer: str) -> None:
        """`p0` is delta of "huber" or the smoothing of "cross_entropy"; "" is no loss.

        Optimisers are "sgd", "momentum", "nesterov", "adam" and "adamw".
        """

    def step(
        self, x: object, t: object, sample_weight: object, scalars: object
    ) -> float | None: ...
    def steps(
        self,
        x: object,
        t: object,
        sample_weight: object,
        batch_size: int,
        order: object,
        scalars: object,
    ) -> FloatArray | None:
        """Losses of steps on batches of the rows `order`, or on all rows as they stand for None.

        An exception, which a signal handler may raise, ends the call between two steps;
        `steps_done` and `losses` have what was done.
        """

    @property
    def steps_done(self) -> int: ...
    def losses(self) -> FloatArray: ...
    def forward(self, x: object) -> FloatArray | None: ...
    def backward(self, dy: object, wrt_input: bool = True) -> FloatArray | None:
        """The gradient by the rows of the last `forward`, where it is wanted; None also without."""

    def update(self, scalars: object) -> bool:
        """A step of the optimiser with the gradient of the last `backward`; False is "not mine"."""

    @property
    def layers(self) -> int: ...
    def weight(self, layer: int) -> FloatArray: ...
    def bias(self, layer: int) -> FloatArray | None: ...
    def gradient_weight(self, layer: int) -> FloatArray | None: ...
    def gradient_bias(self, layer: int) -> FloatArray | None: ...
    def first_moment_weight(self, layer: int) -> FloatArray | None: ...
    def first_moment_bias(self, layer: int) -> FloatArray | None: ...
    def second_moment_weight(self, layer: int) -> FloatArray | None: ...
    def second_moment_bias(self, layer: int) -> FloatArray | None: ...
    def set_weights(self, layer: int, weight: FloatArray, bias: FloatArray | None) -> None: ...
    def set_first_moments(
        self, layer: int, weight: FloatArray, bias: FloatArray | None
    ) -> None: ...
    def set_second_moments(
        self, layer: int, weight: FloatArray, bias: FloatArray | None
    ) -> None: ...

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
