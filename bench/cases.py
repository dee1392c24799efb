"""The named cases: what is computed, on which numbers, and why it is measured at all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

Arrays = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Case:
    """One computation; the same for every peer, dtype and number of threads."""

    name: str
    kind: str  # network, column, matmul, linear or activation
    reason: str
    sizes: tuple[int, ...]  # widths of a network; m, k, n of a product; bytes of an activation
    batch: int = 1
    hidden: str = "relu"  # of every layer but the last; or the activation itself
    end: str | None = None
    layout: str = "nn"  # of a product: which operands are transposed views
    quick: bool = False
    latency: bool = False  # also measured after idle and beside busy neighbours

    def layers(self, dtype: str) -> list[tuple[np.ndarray, np.ndarray, str | None]]:
        """(weight (n, k), bias (n,), activation) of each layer, scaled so that nothing grows."""
        rng = np.random.default_rng(self.sizes)
        found = []
        for i, (k, n) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            weight = rng.standard_normal((n, k), np.float32) * np.float32(math.sqrt(2 / k))
            bias = rng.standard_normal(n, np.float32) * np.float32(0.1)
            last = i == len(self.sizes) - 2
            act = self.end if last else self.hidden
            found.append((weight.astype(dtype), bias.astype(dtype), act))
        return found

    def inputs(self, dtype: str) -> Arrays:
        """What is passed to each call. Float32 numbers in every dtype."""
        rng = np.random.default_rng(1)

        def normal(*shape: int) -> np.ndarray:
            return rng.standard_normal(shape, np.float32).astype(dtype)

        if self.kind == "network":
            return (normal(self.batch, self.sizes[0]),)
        if self.kind == "column":
            return (normal(self.sizes[0], 1),)
        if self.kind == "activation":
            count = self.sizes[0] // np.dtype(dtype).itemsize
            softmax = "softmax" in self.hidden
            return (normal(count // 125, 125) if softmax else normal(count),)
        m, k, n = self.sizes
        if self.kind == "linear":
            return normal(m, k), normal(n, k), normal(n)
        a, b = normal(*((k, m) if self.layout[0] == "t" else (m, k))), None
        b = normal(*((n, k) if self.layout[1] == "t" else (k, n)))
        return a.T if self.layout[0] == "t" else a, b.T if self.layout[1] == "t" else b

    @property
    def flops(self) -> int:
        """Useful ones, of products alone: an activation has no agreed count."""
        if self.kind in ("network", "column"):
            pairs = zip(self.sizes, self.sizes[1:], strict=False)
            return 2 * self.batch * sum(k * n for k, n in pairs)
        return 0 if self.kind == "activation" else 2 * math.prod(self.sizes)

    def traffic(self, dtype: str) -> int:
        """The bytes that must be read at least once, and written for an activation."""
        size = np.dtype(dtype).itemsize
        if self.kind == "activation":
            return 2 * self.sizes[0]
        if self.kind in ("network", "column"):
            pairs = zip(self.sizes, self.sizes[1:], strict=False)
            return size * (sum((k + 1) * n for k, n in pairs) + self.batch * self.sizes[0])
        m, k, n = self.sizes
        return size * (m * k + k * n)


NETWORKS = (
    ((3, 8, 8, 3), (1, 4), "tiny: all of it is the cost of the call"),
    ((64, 100, 10), (1, 32, 1797), "scikit-learn's digits; 1797 is the whole data set"),
    ((784, 128, 10), (1, 32, 1024), "the textbook MNIST network: a narrow last layer"),
    ((784, 512, 512, 10), (1, 8, 32, 256, 4096), "weights beyond L2: bandwidth at 1, FMA at 4096"),
    ((50, 256, 256, 256, 1), (1, 64, 4096, 65536), "a single output, and many rows"),
    ((768, 3072, 768), (1, 8, 128, 512), "the feed-forward block of a small transformer"),
    ((4096, 4096, 4096), (1, 16, 256), "weights beyond L3: memory decides at few rows"),
    ((16, 64, 32, 32, 5), (1, 128, 100000), "jet tagging: narrow layers only"),
)
VARIANTS = (
    ("", "relu", None, ""),
    (":tanh", "tanh", None, "; with tanh"),
    (":sigmoid", "sigmoid", None, "; with sigmoid"),
    (":gelu", "gelu", None, "; with the exact GELU"),
    (":softmax", "relu", "softmax", "; ends in softmax"),
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
    ((32, 784, 512), "a small batch on plain arrays"),
    ((256, 768, 3072), "large enough to pack on the fly"),
    ((1024, 1024, 1024), "a large square one"),
)
ACTIVATIONS = (
    *("relu", "leaky_relu", "relu6", "hardtanh", "hardsigmoid", "hardswish", "softsign"),
    *("exp", "tanh", "sigmoid", "log_sigmoid", "silu", "softplus", "elu", "selu", "celu"),
    *("gelu", "mish", "softmax", "log_softmax"),
)
BYTES = ((1000, "1e3", "the call"), (10**6, "1e6", "in cache"), (10**8, "1e8", "memory decides"))
QUICK = (
    *("3-8-8-3@1", "64-100-10@32", "784-512-512-10@1", "784-512-512-10@32:gelu"),
    *("784-512-512-10@256", "784-128-10@1:column", "matmul:256", "linear:32x784x512"),
    "activation:tanh@1e6",
)


def _all():
    for suffix, hidden, end, more in VARIANTS:
        for sizes, batches, reason in NETWORKS:
            for batch in batches:
                name = f"{'-'.join(map(str, sizes))}@{batch}{suffix}"
                # idle and busy cost 20 ms a call; the activation changes nothing there
                latency = not suffix
                yield Case(
                    name, "network", reason + more, sizes, batch, hidden, end, latency=latency
                )
    for sizes in ((3, 8, 8, 3), (784, 128, 10)):
        name = f"{'-'.join(map(str, sizes))}@1:column"
        yield Case(name, "column", "W @ x + b on a column, as courses write it", sizes)
    for n in SQUARES:
        yield Case(f"matmul:{n}", "matmul", "a square product", (n, n, n))
    for name, sizes, layout, reason in PRODUCTS:
        yield Case(f"matmul:{name}", "matmul", reason, sizes, layout=layout)
    for sizes, reason in LINEAR:
        yield Case(f"linear:{'x'.join(map(str, sizes))}", "linear", reason, sizes)
    for act in ACTIVATIONS:
        for size, label, reason in BYTES:
            name = f"activation:{act}@{label}"
            yield Case(name, "activation", reason, (size,), hidden=act)


@cache
def cases() -> dict[str, Case]:
    """All of them by name."""
    found = {}
    for case in _all():
        quick = case.name in QUICK
        found[case.name] = Case(**{**case.__dict__, "quick": quick})
    return found


def reference(case: Case, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """NumPy's result in float64 and how far another may be from it.

    A product alone: an element is a sum of k terms, and any order of rounding stays within
    (k + 2) * eps * sum |a||b| (eps is twice the unit roundoff, so this covers a float64 reference
    that rounds too). Whole networks: relative to the largest sum |h||w| of the last layer, as the
    bound of a sum grows beyond use over several layers; and a lone output may cancel to almost 0.
    """
    from peers import numpy_plain

    eps = np.finfo(dtype).eps
    if numpy_plain.erf is None:  # scipy is missing
        numpy_plain.erf = np.vectorize(math.erf, otypes=[float])
    wide = Case(**{**case.__dict__, "kind": "network"}) if case.kind == "column" else case
    arrays = [array.astype(np.float64) for array in case.inputs(dtype)]
    if case.kind == "activation":
        y = numpy_plain.FORMULAS[case.hidden](arrays[0])
        return y, 64 * eps * np.maximum(np.abs(y), 1)
    if case.kind in ("matmul", "linear"):
        a, b = arrays[0], arrays[1].T if case.kind == "linear" else arrays[1]
        bias = arrays[2] if case.kind == "linear" else np.zeros(1)
        bound = np.abs(a) @ np.abs(b) + np.abs(bias)
        return a @ b + bias, (case.sizes[1] + 2) * eps * bound
    h = arrays[0].T if case.kind == "column" else arrays[0]
    scale = 1.0
    for weight, bias, act in wide.layers(dtype):
        scale = (np.abs(h) @ np.abs(weight.T)).max()
        h = h @ weight.T.astype(np.float64) + bias
        h = numpy_plain.FORMULAS[act](h)
    limit = (1e-5 if dtype == "float32" else 1e-13) * (1.0 if case.end else scale)
    y = h.T if case.kind == "column" else h
    return y, np.full(y.shape, limit)
