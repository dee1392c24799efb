"""The named cases: what is computed, on which numbers, and why it is measured at all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np

Arrays = tuple[np.ndarray, ...]


@cache
def _normals() -> np.ndarray:
    """A prime number of them: repeated, they start elsewhere in each row and each array."""
    return np.random.default_rng(1).standard_normal(1_000_003, np.float32)


def _normal(shape: tuple[int, ...], dtype: str, skip: int = 0) -> np.ndarray:
    """Float32 numbers in every dtype; large arrays repeat them, which is quicker by far."""
    return np.resize(np.roll(_normals(), -skip), shape).astype(dtype)


@dataclass(frozen=True)
class Case:
    """One computation; the same for every peer, dtype and number of threads."""

    name: str
    kind: str  # network, critic, column, accelerate, load, train, matmul, linear or activation
    reason: str
    sizes: tuple[int, ...]  # widths of a network; m, k, n of a product; bytes of an activation
    batch: int = 1
    hidden: str = "relu"  # of every layer but the last; or the activation itself
    end: str | None = None
    layout: str = (
        "nn"  # of a product: which operands are transposed; rows, columns; a file's suffix
    )
    deviation: float = 1.0  # of an activation's inputs
    width: int = 125  # of the rows of a softmax

    @property
    def quick(self) -> bool:
        return self.name in QUICK

    @property
    def layered(self) -> bool:
        return self.kind in ("network", "critic", "column", "accelerate", "load", "train")

    @property
    def joined(self) -> int:
        """Features of a second input, which joins the result of the first layer."""
        return ACTION if self.kind == "critic" else 0

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(n, k) of each layer's weight."""
        pairs = [(n, k) for k, n in pairwise(self.sizes)]
        return [(n, k + self.joined * (i == 1)) for i, (n, k) in enumerate(pairs)]

    @property
    def judged(self) -> str | None:
        """The case that tells how accurate a network's peers are, where its activation rounds."""
        return f"activation:{self.hidden}@1e6" if self.layered and self.hidden != "relu" else None

    def applies(self, dtype: str, threads: int) -> bool:
        """1e8 bytes are at the mercy of memory in either type, and files are mostly float32; one
        thread reads them.
        """
        if self.kind == "load":
            return dtype == "float32" and threads == 1
        return dtype == "float32" or self.kind != "activation" or self.sizes[0] < 10**8

    def modes(self, dtype: str) -> tuple[str, ...]:
        """Those after a rest and beside neighbours take long: for some cases only."""
        if self.name not in (LATENCY if dtype == "float32" else LATENCY[:1]):
            return ("hot",)
        rests = IDLE if self.name in RESTS and dtype == "float32" else ("idle20",)
        return ("hot", *rests, "busy")

    def layers(self, dtype: str) -> list[tuple[np.ndarray, np.ndarray, str | None]]:
        """(weight (n, k), bias (n,), activation) of each layer, scaled so that nothing grows."""
        found = []
        for i, (n, k) in enumerate(self.shapes):
            weight = _normal((n, k), dtype, skip=1000 * i + 1)
            weight *= np.float32(math.sqrt(2 / k))
            bias = _normal((n,), dtype, skip=1000 * i) * np.float32(0.1)
            found.append((weight, bias.astype(dtype), self.hidden))
        return [*found[:-1], (*found[-1][:2], self.end)]

    def inputs(self, dtype: str) -> Arrays:
        """What is passed to each call. Float32 numbers in every dtype."""
        if self.kind == "column" or self.layout == "columns":
            return (_normal((self.sizes[0], self.batch), dtype),)
        if self.layered:
            x = _normal((self.batch, self.sizes[0]), dtype)
            return (x, _normal((self.batch, self.joined), dtype, 5)) if self.joined else (x,)
        if self.kind == "activation":
            count = self.sizes[0] // np.dtype(dtype).itemsize
            shape = (count // self.width, self.width) if "softmax" in self.hidden else (count,)
            x = _normal(shape, dtype)
            return (x if self.deviation == 1 else x * np.dtype(dtype).type(self.deviation),)
        m, k, n = self.sizes
        if self.kind == "linear":
            return _normal((m, k), dtype), _normal((n, k), dtype, 1), _normal((n,), dtype, 2)
        a = _normal((k, m) if self.layout[0] == "t" else (m, k), dtype)
        b = _normal((n, k) if self.layout[1] == "t" else (k, n), dtype, 1)
        return a.T if self.layout[0] == "t" else a, b.T if self.layout[1] == "t" else b

    @property
    def flops(self) -> int:
        """Useful ones, of products alone: an activation has no agreed count."""
        if self.kind == "load":
            return 0
        if (
            self.kind == "train"
        ):  # forward, by the weights, and but for the first layer by the input
            products = [k * n for n, k in self.shapes]
            return 2 * STEPS * self.batch * (3 * sum(products) - products[0])
        if self.layered:
            return 2 * self.batch * sum(k * n for n, k in self.shapes)
        return 0 if self.kind == "activation" else 2 * math.prod(self.sizes)

    def traffic(self, dtype: str) -> tuple[int, int]:
        """(bytes of weights, bytes of inputs and results): each has to be moved once a call."""
        size = np.dtype(dtype).itemsize
        if self.kind == "activation":
            return 0, 2 * self.sizes[0]
        if self.kind == "load":
            return 0, 0
        if self.kind == "train":
            return 0, size * STEPS * self.batch * self.sizes[0]
        if self.layered:
            weights = sum((k + 1) * n for n, k in self.shapes)
            ends = self.sizes[0] + self.joined + self.sizes[-1]
            return size * weights, size * self.batch * ends
        m, k, n = self.sizes
        return 0, size * (m * k + k * n + m * n)


NETWORKS = (
    ((3, 8, 8, 3), (1, 4), "tiny: all of it is the cost of the call"),
    ((64, 100, 10), (1, 32, 1797), "scikit-learn's digits; 1797 is the whole data set"),
    ((784, 128, 10), (1, 32, 1024), "the textbook MNIST network: a narrow last layer"),
    ((784, 512, 512, 10), (1, 8, 32, 256, 4096), "weights beyond L2: bandwidth at 1, FMA at 4096"),
    ((50, 256, 256, 256, 1), (1, 64, 4096, 65536), "a single output, and many rows"),
    ((768, 3072, 768), (1, 8, 128, 512), "the feed-forward block of a small transformer"),
    ((4096, 4096, 4096), (1, 16, 256), "weights beyond L3: memory decides at few rows"),
    ((16, 64, 32, 32, 5), (1, 10, 128, 100000), "jet tagging: narrow layers only"),
)
# Other activations only where they could change who wins: little work, weights beyond L2 at one, some
# and many rows, many rows of a narrow network. Elsewhere the products outweigh them.
VARIANTS = (
    ("tanh", "tanh", None, "with tanh"),
    ("sigmoid", "sigmoid", None, "with sigmoid"),
    ("gelu", "gelu", None, "with the exact GELU"),
    ("softmax", "relu", "softmax", "ends in softmax"),
)
VARIED = (
    *("64-100-10@32", "784-512-512-10@1", "784-512-512-10@32", "784-512-512-10@256"),
    *("50-256-256-256-1@4096", "16-64-32-32-5@128"),
)
SQUARES = (64, 256, 1024, 2048, 4096)
PRODUCTS = (
    ("tall", (65536, 64, 64), "nn", "many rows, a small right side"),
    ("wide", (64, 64, 65536), "nn", "few rows, many columns: the split must be by columns"),
    ("deep", (64, 65536, 64), "nn", "a long sum, a small result"),
    ("1024-ta", (1024, 1024, 1024), "tn", "columns of a are contiguous"),
    ("1024-tb", (1024, 1024, 1024), "nt", "as x @ weight.T"),
    ("1024-tatb", (1024, 1024, 1024), "tt", "both operands are transposed views"),
)
LINEAR = (
    ((1, 784, 128), "one sample; packing the weights can't pay"),
    ((1, 768, 768), "one sample; rows 3 KB apart"),
    ((1, 1024, 1024), "one sample; rows 4 KB apart fall into few sets of a cache"),
    ((1, 2048, 2048), "one sample; the same, weights beyond L2"),
    ((1, 4096, 4096), "one sample; the same, weights from memory"),
    ((32, 784, 512), "a small batch on plain arrays"),
    ((256, 768, 3072), "large enough to pack on the fly"),
    ((1024, 1024, 1024), "a large square one"),
)
# Of reinforcement learning: a state goes through a layer, and an action joins the result.
ACTION = 6
CRITICS = (((17, 64, 64, 1), (1, 32, 1024)), ((17, 256, 256, 1), (1, 256)))
ACCELERATED = ((64, 100, 10), (784, 512, 512, 10))
FILES = (
    ("onnx", "a model file, to its first result, as a server that starts does"),
    ("npz", "the project's own file, beside NumPy's"),
    ("safetensors", "a state dict in the commonest file without code"),
    ("pt", "a state dict as torch.save writes it"),
)
ACTIVATIONS = (
    *("relu", "leaky_relu", "relu6", "hardtanh", "hardsigmoid", "hardswish", "softsign"),
    *("exp", "tanh", "sigmoid", "log_sigmoid", "silu", "softplus", "elu", "selu", "celu"),
    *("gelu", "mish", "softmax", "log_softmax", "sin", "cos"),
)
# The smallest and the largest size say more about calls and memory than about the function.
BYTES = (
    (1000, "1e3", "the call", ("relu", "exp", "tanh", "sigmoid", "gelu", "softmax")),
    (10**6, "1e6", "in cache", ACTIVATIONS),
    (
        10**8,
        "1e8",
        "memory decides",
        ("relu", "exp", "tanh", "sigmoid", "gelu", "softmax", "log_softmax"),
    ),
)
DEVIATIONS = (0.5, 3, 10)  # and 1: a short way for small inputs must not end in a cliff
SPREAD = ("tanh", "sigmoid", "gelu", "softmax")
ROWS = (64, 128)  # widths of a softmax, beside 125, which no vector divides
QUICK = (
    *("3-8-8-3@1", "64-100-10@32", "784-512-512-10@1", "784-512-512-10@32:gelu"),
    *("784-512-512-10@256", "784-128-10@1:column", "matmul:256", "linear:32x784x512"),
    "activation:tanh@1e6",
)
# Steps in a call: batches of rows that an index picks, as an epoch does it.
STEPS = 16
LEARNING_RATE = {"adam": 1e-4, "sgd": 1e-3}
TRAINED = (
    ((4, 8, 3), (1, 16), "tiny: all of it is the cost of a step"),
    ((3, 64, 64, 2), (64,), "a policy of reinforcement learning"),
    ((64, 100, 10), (1, 32, 200), "scikit-learn's digits, and its own batch of 200"),
    ((784, 128, 10), (1, 32, 128), "the textbook MNIST network; one row: all is the optimiser"),
    ((50, 256, 256, 256, 1), (1, 64, 1024), "a table, regression"),
    ((784, 512, 512, 10), (128, 256), "weights and their moments beyond L2"),
)
LATENCY = (  # float64: the first alone
    *("784-512-512-10@1", "3-8-8-3@1", "64-100-10@32", "784-512-512-10@32"),
    *("784-512-512-10@256", "784-512-512-10@4096", "50-256-256-256-1@64", "768-3072-768@8"),
)
IDLE = ("idle1", "idle5", "idle20", "idle100")  # milliseconds
# When a team sleeps, and how deeply a core does, depends on the rest: a call for one thread, and one
# for all.
RESTS = ("784-512-512-10@1", "784-512-512-10@256")


def _networks():
    for sizes, batches, reason in NETWORKS:
        for batch in batches:
            name = f"{'-'.join(map(str, sizes))}@{batch}"
            yield Case(name, "network", reason, sizes, batch)
    for suffix, hidden, end, more in VARIANTS:
        for sizes, batches, _ in NETWORKS:
            for batch in batches:
                name = f"{'-'.join(map(str, sizes))}@{batch}"
                if name in VARIED:
                    yield Case(f"{name}:{suffix}", "network", more, sizes, batch, hidden, end)
    reason = "two inputs: one joins behind the first layer"
    for sizes, batches in CRITICS:
        for batch in batches:
            name = f"critic:{'-'.join(map(str, sizes))}@{batch}"
            yield Case(name, "critic", reason, sizes, batch)
    for sizes in ((3, 8, 8, 3), (784, 128, 10)):
        name = f"{'-'.join(map(str, sizes))}@1:column"
        yield Case(name, "column", "W @ x + b on a column, as courses write it", sizes)
    reason = "a class of NumPy code behind fl.accelerate, against itself"
    for sizes in ACCELERATED:
        for layout in ("rows", "columns"):
            for batch in (1, 16, 256, 1024):
                name = f"accelerate:{'-'.join(map(str, sizes))}@{batch}:{layout}"
                yield Case(name, "accelerate", reason, sizes, batch, layout=layout)
    for suffix, reason in FILES:
        yield Case(f"load:{suffix}", "load", reason, (784, 512, 512, 10), layout=suffix)


def _trained():
    for sizes, batches, reason in TRAINED:
        for batch in batches:
            for optimizer in LEARNING_RATE:
                name = f"train:{'-'.join(map(str, sizes))}@{batch}:{optimizer}"
                yield Case(name, "train", reason, sizes, batch, layout=optimizer)


def _activations():
    for size, label, reason, names in BYTES:
        for act in names:
            name = f"activation:{act}@{label}"
            yield Case(name, "activation", reason, (size,), hidden=act)
    for act in SPREAD:
        for deviation in DEVIATIONS:
            name = f"activation:{act}@1e6/sd{deviation:g}"
            reason = f"inputs with a standard deviation of {deviation:g}"
            yield Case(name, "activation", reason, (10**6,), hidden=act, deviation=deviation)
    for act in ("softmax", "log_softmax"):
        for width in ROWS:
            name = f"activation:{act}@1e6/{width}"
            reason = f"rows of {width}, the sum along each of them"
            yield Case(name, "activation", reason, (10**6,), hidden=act, width=width)


def _all():
    yield from _networks()
    yield from _trained()
    for n in SQUARES:
        yield Case(f"matmul:{n}", "matmul", "a square product", (n, n, n))
    for name, sizes, layout, reason in PRODUCTS:
        yield Case(f"matmul:{name}", "matmul", reason, sizes, layout=layout)
    for sizes, reason in LINEAR:
        yield Case(f"linear:{'x'.join(map(str, sizes))}", "linear", reason, sizes)
    yield from _activations()


@cache
def cases() -> dict[str, Case]:
    """All of them by name."""
    return {case.name: case for case in _all()}


def reference(case: Case, dtype: str) -> tuple[np.ndarray, np.ndarray | float, float]:
    """NumPy's result y in float64, and how far another may be from it: an absolute and a relative
    bound, of which the larger counts.

    A product alone: an element is a sum of k terms, and any order of rounding stays within
    (k + 2) * eps * sum |a||b| (eps is twice the unit roundoff, so this covers a float64 reference
    that rounds too). Whole networks: relative to the largest sum |h||w| of the last layer, as the
    bound of a sum grows beyond use over several layers; and a lone output may cancel to almost 0.
    """
    from peers import _training, numpy_plain

    eps = float(np.finfo(dtype).eps)
    if numpy_plain.erf is None:  # scipy is missing
        numpy_plain.erf = np.vectorize(math.erf, otypes=[float])
    arrays = [array.astype(np.float64) for array in case.inputs(dtype)]
    if case.kind == "activation":
        return numpy_plain.FORMULAS[case.hidden](arrays[0]), 64 * eps, 64 * eps
    if case.kind in ("matmul", "linear"):
        a, b = arrays[0], arrays[1].T if case.kind == "linear" else arrays[1]
        bias = arrays[2] if case.kind == "linear" else np.zeros(1)
        bound = np.abs(a) @ np.abs(b) + np.abs(bias)
        return a @ b + bias, (case.sizes[1] + 2) * eps * bound, 0.0
    if case.kind == "train":
        # Rounding grows from step to step, but not far in so few. A loss of one row may be almost 0.
        losses = _training.reference(case)
        share = 2e-4 if dtype == "float32" else 1e-9
        return losses, share * float(losses.mean()), share
    turned = case.kind == "column" or case.layout == "columns"
    h = arrays[0].T if turned else arrays[0]
    scale = 1.0
    for i, (weight, bias, act) in enumerate(case.layers(dtype)):
        wide = weight.T.astype(np.float64)
        if i == len(case.sizes) - 2:
            scale = float((np.abs(h) @ np.abs(wide)).max())
        h = numpy_plain.FORMULAS[act](h @ wide + bias)
        if i == 0 and case.joined:
            h = np.concatenate([h, arrays[1]], axis=1)
    limit = (1e-5 if dtype == "float32" else 1e-13) * (1.0 if case.end else scale)
    return np.ascontiguousarray(h.T if turned else h), limit, 0.0
