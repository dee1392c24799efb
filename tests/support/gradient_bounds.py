"""Networks written out three times: as parts, in PyTorch, and as bounds of rounding errors.

The bounds follow the arithmetic, going forward with ``(v, e)``, the values and how far computed ones
may be from the exact ones, and backward with ``(a, e)``, the size of each gradient at most and the
same distance. Every node adds its own rounding to what it passes on: sums as in `helpers.sum_bound`,
activations and derivatives within the limits of docs/numerics.md, times the largest first and second
derivative, both of which a test checks. Near a kink the derivative may come from the other side.
"""

from __future__ import annotations

import math

import numpy as np
from helpers import LIPSCHITZ, linear_bound, reference, sum_bound

import fastlayer as fl

# sup |f''| away from kinks; the kinks with the jump of f' and of f there; torch's name.
# Parameters are the defaults of both.
CURVES = {
    "identity": (0.0, (), "Identity"),
    "relu": (0.0, ((0.0, 1.0, 0.0),), "ReLU"),
    "leaky_relu": (0.0, ((0.0, 1.0, 0.0),), "LeakyReLU"),
    "relu6": (0.0, ((0.0, 1.0, 0.0), (6.0, 1.0, 0.0)), "ReLU6"),
    "hardtanh": (0.0, ((-1.0, 1.0, 0.0), (1.0, 1.0, 0.0)), "Hardtanh"),
    "elu": (1.0, (), "ELU"),
    "celu": (1.0, (), "CELU"),
    "selu": (1.7581, ((0.0, 0.7075, 0.0),), "SELU"),
    "gelu": (0.7979, (), "GELU"),
    "silu": (0.5, (), "SiLU"),
    "mish": (0.65, (), "Mish"),
    "sigmoid": (0.09623, (), "Sigmoid"),
    "log_sigmoid": (0.25, (), "LogSigmoid"),
    "hardsigmoid": (0.0, ((-3.0, 1 / 6, 0.0), (3.0, 1 / 6, 0.0)), "Hardsigmoid"),
    "hardswish": (1 / 3, ((-3.0, 0.5, 0.0), (3.0, 0.5, 0.0)), "Hardswish"),
    "tanh": (0.7699, (), "Tanh"),
    "softplus": (0.25, (), "Softplus"),
    "softsign": (2.0, (), "Softsign"),
    "sin": (1.0, (), "sin"),
    "cos": (1.0, (), "cos"),
    "hardshrink": (0.0, ((-0.5, 1.0, 0.5), (0.5, 1.0, 0.5)), "Hardshrink"),
    "softshrink": (0.0, ((-0.5, 1.0, 0.0), (0.5, 1.0, 0.0)), "Softshrink"),
    "exp": (math.inf, (), "exp"),
}


def steepness(name):
    return 1.0 if name == "hardshrink" else LIPSCHITZ[name]


def _mean(a):
    return a.mean(axis=1, keepdims=True)


def _sum(a):
    return a.sum(axis=1, keepdims=True)


class Node:
    """An operation on rows; `arrays` are trained, and `errors` bound their gradients afterwards."""

    def __init__(self, dtype):
        self.dtype = np.dtype(dtype)
        info = np.finfo(dtype)
        self.eps, self.tiny = float(info.eps), float(info.smallest_subnormal)
        self.arrays, self.errors = [], []

    def nodes(self):
        yield self


class Dense(Node):
    def __init__(self, dtype, weight, bias):
        super().__init__(dtype)
        self.arrays = [weight] if bias is None else [weight, bias]
        self.size = np.abs(weight.astype(float))

    def forward(self, v, e):
        w, *rest = (a.astype(float) for a in self.arrays)
        b = rest[0] if rest else None
        self.v, self.e = v, e
        y = v @ w.T if b is None else v @ w.T + b
        return y, e @ self.size.T + linear_bound(np.abs(v) + e, w, b, self.dtype)

    def backward(self, a, e):
        m, n = a.shape
        x = np.abs(self.v) + self.e
        products = (a + e).T @ x
        self.errors = [e.T @ x + a.T @ self.e + sum_bound(m, products, self.dtype)]
        if len(self.arrays) > 1:
            self.errors.append(e.sum(axis=0) + sum_bound(m, (a + e).sum(axis=0), self.dtype))
        passed = a @ self.size
        return passed, e @ self.size + sum_bound(n, (a + e) @ self.size, self.dtype)

    def torch(self, torch, x, w, b=None):
        return torch.nn.functional.linear(x, w, b)


class Curve(Node):
    """An elementwise activation: errors by its first two derivatives, and its kinks."""

    def __init__(self, dtype, name):
        super().__init__(dtype)
        self.name = name

    def forward(self, v, e):
        second, kinks, _ = CURVES[self.name]
        y = reference(self.name, v, np.float32)
        top = np.exp(v + e)  # of exp alone
        self.first = top if self.name == "exp" else steepness(self.name)
        self.second = top if self.name == "exp" else second
        self.e, self.jump, f_jump = e, np.zeros_like(v), np.zeros_like(v)
        for at, jump, height in kinks:
            near = np.abs(v - at) <= e
            self.jump, f_jump = self.jump + near * jump, f_jump + near * height
        return y, self.first * e + f_jump + 4 * self.eps * np.abs(y) + self.tiny

    def backward(self, a, e):
        own = self.second * self.e + self.jump + 4 * self.eps * np.maximum(self.first, 1.0)
        passed = self.first * a
        return passed, self.first * e + (a + e) * own + self.eps * passed + self.tiny

    def torch(self, torch, x):
        if self.name == "hardsigmoid":  # whose gradient is 1/6 in float32 there, in float64 too
            return torch.clamp(x + 3, 0, 6) / 6
        name = CURVES[self.name][2]
        return getattr(torch.nn, name)()(x) if name[0].isupper() else getattr(torch, name)(x)


class Prelu(Node):
    def __init__(self, dtype, slopes):
        super().__init__(dtype)
        self.arrays = [slopes]

    def forward(self, v, e):
        s = self.arrays[0].astype(float)
        self.v, self.e = v, e
        self.first = np.maximum(1.0, np.abs(s))
        y = np.where(v > 0, v, s * v)
        return y, self.first * e + self.eps * np.abs(y) + self.tiny

    def backward(self, a, e):
        jump = (np.abs(self.v) <= self.e) * np.abs(1 - self.arrays[0].astype(float))
        x = np.maximum(-self.v, 0) + self.e
        size = x * (a + e)
        one = self.arrays[0].ndim == 0
        terms = e * x + a * self.e + self.eps * size
        error = terms.sum(axis=0) + sum_bound(len(a), size.sum(axis=0), self.dtype)
        # The slope of all neurons: added up over them in float64, and rounded.
        self.errors = [error.sum() + self.eps * size.sum() if one else error]
        passed = self.first * a
        return passed, self.first * e + (a + e) * jump + self.eps * passed + self.tiny

    def torch(self, torch, x, s):
        return torch.nn.functional.prelu(x, s.reshape(-1))


class Softmax(Node):
    def __init__(self, dtype, log=False):
        super().__init__(dtype)
        self.log = log

    def forward(self, v, e):
        n = v.shape[1]
        y = reference("log_softmax" if self.log else "softmax", v, np.float32)
        self.p = np.exp(y) if self.log else y
        spread = 2 * e.max(axis=1, keepdims=True)
        own = (4 + math.log2(n)) * self.eps
        self.e = self.p * (np.expm1(spread) + own) + self.tiny
        if self.log:
            return y, spread + own * np.abs(y) + self.tiny
        return y, self.e

    def backward(self, a, e):
        n = a.shape[1]
        p, e_p = self.p, self.e
        if self.log:
            s = _sum(a)
            e_s = _sum(e) + (n + 2) * self.eps * s
            passed = a + p * s
            own = e + e_p * (s + e_s) + p * e_s
        else:
            s = _sum(a * p)
            e_s = _sum(e * (p + e_p) + a * e_p) + (n + 2) * self.eps * s
            passed = p * (a + s)
            own = e_p * (a + s) + (p + e_p) * (e + e_s)
        return passed, own + 4 * self.eps * passed + self.tiny

    def torch(self, torch, x):
        return (torch.log_softmax if self.log else torch.softmax)(x, dim=1)


class Norm(Node):
    """Layer or root-mean-square normalisation."""

    def __init__(self, dtype, eps, weight=None, bias=None, centred=True):
        super().__init__(dtype)
        self.constant, self.centred = eps, centred
        self.held = {"weight": weight, "bias": bias}
        self.arrays = [a for a in self.held.values() if a is not None]

    def forward(self, v, e):
        n = v.shape[1]
        w = 1.0 if self.held["weight"] is None else self.held["weight"].astype(float)
        b = 0.0 if self.held["bias"] is None else self.held["bias"].astype(float)
        size = np.abs(v)
        c, e_c = v, e
        if self.centred:
            c, e_c = v - _mean(v), e + _mean(e)
            size = size + _mean(size)
        e_c = e_c + (n + 2) * self.eps * size
        constant = float(self.dtype.type(self.constant))
        self.inverse = 1 / np.sqrt(_mean(c * c) + constant)
        # d(1 / s) <= rms(dc) / s^2; twice that, for what is of second order, and less than a third.
        relative = 2 * np.sqrt(_mean(e_c * e_c)) * self.inverse + (n + 4) * self.eps
        assert (relative < 0.3).all()
        self.relative, self.w = relative, np.abs(w)
        self.x = c * self.inverse
        self.e = (e_c * self.inverse + np.abs(self.x) * relative) * 1.3
        y = self.x * w + b
        own = 3 * self.eps * (np.abs(self.x * w) + np.abs(b)) + self.tiny
        return y, self.e * self.w + own

    def backward(self, a, e):
        m, n = a.shape
        x = np.abs(self.x)
        self.errors = []
        terms = e * (x + self.e) + a * self.e
        size = ((a + e) * (x + self.e)).sum(axis=0)
        if self.held["weight"] is not None:
            self.errors.append(terms.sum(axis=0) + sum_bound(m, size, self.dtype))
        if self.held["bias"] is not None:
            self.errors.append(e.sum(axis=0) + sum_bound(m, (a + e).sum(axis=0), self.dtype))
        a, e = a * self.w, e * self.w + self.eps * a * self.w
        along = _mean((a + e) * (x + self.e))
        e_along = _mean(e * (x + self.e) + a * self.e)
        inner = a + x * along + (_mean(a) if self.centred else 0)
        e_inner = e + x * e_along + self.e * along + (_mean(e) if self.centred else 0)
        passed = inner * self.inverse
        own = e_inner * self.inverse + passed * (self.relative + (n + 8) * self.eps)
        return passed, own * 1.3 + self.tiny

    def torch(self, torch, x, *arrays):
        named = [name for name, a in self.held.items() if a is not None]
        given = dict(zip(named, arrays, strict=True))
        constant = float(self.dtype.type(self.constant))
        if self.centred:
            return torch.nn.functional.layer_norm(
                x, x.shape[1:], given.get("weight"), given.get("bias"), constant
            )
        return torch.nn.functional.rms_norm(x, x.shape[1:], given.get("weight"), constant)


class Affine(Node):
    """A BatchNorm, frozen: ``x * scale + shift`` with both rounded to the dtype."""

    def __init__(self, dtype, scale, shift):
        super().__init__(dtype)
        self.scale, self.shift = scale, shift

    def forward(self, v, e):
        y = v * self.scale + self.shift
        size = np.abs(v * self.scale) + np.abs(self.shift)
        return y, np.abs(self.scale) * e * (1 + self.eps) + 4 * self.eps * size + self.tiny

    def backward(self, a, e):
        passed = a * np.abs(self.scale)
        return passed, e * np.abs(self.scale) + 3 * self.eps * passed + self.tiny

    def torch(self, torch, x):
        return x * torch.tensor(self.scale) + torch.tensor(self.shift)


class Square(Node):
    """x * x: a pair of Python functions."""

    def forward(self, v, e):
        self.v, self.e = v, e
        return v * v, (2 * np.abs(v) + e) * e + self.eps * v * v + self.tiny

    def backward(self, a, e):
        passed = 2 * np.abs(self.v) * a
        own = 2 * (np.abs(self.v) + self.e) * e + 2 * a * self.e
        return passed, own + 2 * self.eps * passed + self.tiny

    def torch(self, torch, x):
        return x * x


class Slice(Node):
    def __init__(self, dtype, begin, end):
        super().__init__(dtype)
        self.at = slice(begin, end)

    def forward(self, v, e):
        self.shape = v.shape
        return v[:, self.at], e[:, self.at]

    def backward(self, a, e):
        passed, own = np.zeros(self.shape), np.zeros(self.shape)
        passed[:, self.at], own[:, self.at] = a, e
        return passed, own

    def torch(self, torch, x):
        return x[:, self.at]


class Chain(Node):
    def __init__(self, dtype, inner):
        super().__init__(dtype)
        self.inner = inner

    def nodes(self):
        for node in self.inner:
            yield from node.nodes()

    def forward(self, v, e):
        for node in self.inner:
            v, e = node.forward(v, e)
        return v, e

    def backward(self, a, e):
        for node in reversed(self.inner):
            a, e = node.backward(a, e)
        return a, e

    def run(self, torch, x, leaves):
        """Run it in PyTorch; `leaves` are the arrays of each node."""
        for node in self.inner:
            x = (
                node.run(torch, x, leaves)
                if hasattr(node, "run")
                else node.torch(torch, x, *leaves[id(node)])
            )
        return x


class Join(Node):
    def __init__(self, dtype, how, branches):
        super().__init__(dtype)
        self.how, self.branches = how, branches

    def nodes(self):
        for branch in self.branches:
            yield from branch.nodes()

    def forward(self, v, e):
        self.results = [branch.forward(v, e) for branch in self.branches]
        (y, own), *others = self.results
        if self.how == "concat":
            return tuple(np.concatenate(each, axis=1) for each in zip(*self.results, strict=True))
        for other, e_other in others:
            if self.how == "add":
                y, own = y + other, own + e_other
                own = own + self.eps * (np.abs(y) + own)
            else:
                own = own * (np.abs(other) + e_other) + np.abs(y) * e_other
                y = y * other
                own = own + self.eps * (np.abs(y) + own) + self.tiny
        return y, own

    def backward(self, a, e):
        parts, at = [], 0
        for i, (v, _) in enumerate(self.results):
            part = (a, e)
            if self.how == "concat":
                part = (a[:, at : at + v.shape[1]], e[:, at : at + v.shape[1]])
                at += v.shape[1]
            elif self.how == "multiply":
                for k, (other, e_other) in enumerate(self.results):
                    if k != i:
                        size, own = part
                        own = own * (np.abs(other) + e_other) + size * e_other
                        size = size * np.abs(other)
                        part = size, own + self.eps * (size + own) + self.tiny
            parts.append(part)
        passed = own = 0.0
        for branch, part in zip(self.branches, parts, strict=True):
            more, e_more = branch.backward(*part)
            passed, own = passed + more, own + e_more
            own = own + self.eps * (passed + own)
        return passed, own

    def run(self, torch, x, leaves):
        results = [branch.run(torch, x, leaves) for branch in self.branches]
        if self.how == "concat":
            return torch.cat(results, dim=1)
        y = results[0]
        for other in results[1:]:
            y = y + other if self.how == "add" else y * other
        return y


def loss_gradient(loss, v, e, t, weights, dtype):
    """The size and the error of the gradient of a mean loss by ``(v, e)``."""
    eps = float(np.finfo(dtype).eps)
    m, n = v.shape
    r = (np.full(m, 1 / m) if weights is None else weights / weights.sum())[:, None]
    delta = loss.parameters.get("delta", 0.0)
    if loss.name == "cross_entropy":
        value, e_p = Softmax(dtype).forward(v, e)
        return (value + 1) * r, (e_p + 6 * eps * (value + 1)) * r
    t = t.reshape(v.shape).astype(float)
    if loss.name == "binary_cross_entropy":
        return np.full(v.shape, 2.0) * r / n, (0.25 * e + 6 * eps) * r / n
    if loss.name == "poisson":
        size = np.exp(v + e) + np.abs(t)
        return size * r / n, (np.exp(v + e) * e + 6 * eps * size) * r / n
    d = np.abs(v - t)
    if loss.name == "mse":
        return 2 * d * r / n, 2 * (e + 4 * eps * (d + e)) * r / n
    if loss.name == "mae":
        return np.ones_like(d) * r / n, ((d <= e + eps * d) * 2 + 4 * eps) * r / n
    size = np.minimum(d, delta)
    return size * r / n, (e + 6 * eps * (size + e)) * r / n


def torch_loss(torch, loss, y, t, weights):
    """The same mean in PyTorch, of the sum before the last activation."""
    functional = torch.nn.functional
    smoothing = loss.parameters.get("label_smoothing", 0.0)
    if loss.name == "cross_entropy":
        rows = functional.cross_entropy(y, t, reduction="none", label_smoothing=smoothing)
    else:
        t = t.reshape(y.shape)
        each = {
            "mse": lambda: (y - t) ** 2,
            "mae": lambda: (y - t).abs(),
            "huber": lambda: functional.huber_loss(
                y, t, reduction="none", delta=loss.parameters["delta"]
            ),
            "binary_cross_entropy": lambda: functional.binary_cross_entropy_with_logits(
                y, t, reduction="none"
            ),
            "poisson": lambda: torch.exp(y) - t * y,
        }
        rows = each[loss.name]().mean(dim=1)
    return rows.mean() if weights is None else (rows * weights).sum() / weights.sum()


# --- networks at random

BEHIND = {"cross_entropy": ["softmax", "log_softmax"], "binary_cross_entropy": ["sigmoid"]}
BEHIND["poisson"] = ["exp"]


class Made:
    """A network at random, as parts, and as a chain of nodes."""

    def __init__(self, rng, dtype):
        self.rng, self.dtype = rng, np.dtype(dtype)
        self.parts, self.inner = [], []

    def draw(self, *shape):
        return self.rng.standard_normal(shape).astype(self.dtype)

    def act(self, n):
        """An activation: what a part takes, and its node."""
        kind = self.rng.integers(8)
        if kind == 0:
            many = bool(self.rng.integers(2))
            slopes = self.draw(n) if many else self.draw(1)[0]
            return fl.Activation("prelu", weight=slopes), Prelu(self.dtype, np.asarray(slopes))
        if kind == 1:
            log = bool(self.rng.integers(2))
            return ("log_softmax" if log else "softmax"), Softmax(self.dtype, log)
        if kind == 2:
            return (lambda z: z * z, lambda z: 2 * z), Square(self.dtype)
        names = [name for name in CURVES if name != "exp"]
        name = names[self.rng.integers(len(names))]
        return name, Curve(self.dtype, name)

    def dense(self, k, n, given=None):
        bias = self.draw(n) if self.rng.integers(4) else None
        weight = self.draw(n, k) / self.dtype.type(math.sqrt(k))
        act, node = given or self.act(n)
        return fl.Layer.from_arrays(weight, bias, act), [Dense(self.dtype, weight, bias), node]

    def norm(self, n):
        kind = self.rng.integers(3)
        weight = self.draw(n) if self.rng.integers(2) else None
        bias = self.draw(n) if self.rng.integers(2) else None
        if kind == 0:
            part = fl.LayerNorm(n, eps=0.1, weight=weight, bias=bias, dtype=self.dtype)
            return part, [Norm(self.dtype, 0.1, weight, bias)]
        if kind == 1:
            part = fl.RMSNorm(n, eps=0.1, weight=weight, dtype=self.dtype)
            return part, [Norm(self.dtype, 0.1, weight, centred=False)]
        mean, var = self.draw(n), self.rng.uniform(0.5, 2, n).astype(self.dtype)
        w = np.ones(n) if weight is None else weight.astype(float)
        b = np.zeros(n) if bias is None else bias.astype(float)
        scale = w / np.sqrt(var.astype(float) + 0.1)
        part = fl.BatchNorm(n, 0.1, weight, bias, mean, var, dtype=self.dtype)
        return part, [Affine(self.dtype, scale, b - mean.astype(float) * scale)]

    def branches(self, k, n, count):
        made = [self.dense(k, n) for _ in range(count)]
        return [part for part, _ in made], [Chain(self.dtype, inner) for _, inner in made]

    def block(self, k):
        """One more part on `k` features; returns it, its nodes and the features that it gives."""
        kind, n = self.rng.integers(8), int(self.rng.integers(2, 9))
        if kind == 0:
            return (*self.norm(k), k)
        if kind == 1:
            parts, chains = self.branches(k, k, 1)
            join = Join(self.dtype, "add", [*chains, Chain(self.dtype, [])])
            return fl.Residual(*parts), [join], k
        if kind == 2:
            parts, chains = self.branches(k, n, 2)
            join = Join(self.dtype, "concat", [*chains, Chain(self.dtype, [])])
            return fl.Concat([*parts, []]), [join], 2 * n + k
        if kind == 3:
            parts, chains = self.branches(k, n, 3)
            return fl.Add(parts), [Join(self.dtype, "add", chains)], n
        if kind == 4:
            parts, chains = self.branches(k, n, int(self.rng.integers(2, 4)))
            return fl.Multiply(parts), [Join(self.dtype, "multiply", chains)], n
        if kind == 5 and k > 2:
            begin = int(self.rng.integers(0, k - 1))
            return fl.Slice(begin, k), [Slice(self.dtype, begin, k)], k - begin
        return (*self.dense(k, n), n)

    def add(self, part, inner):
        self.parts.append(part)
        self.inner += inner


def random_case(seed):
    """A network, a batch, targets and a loss; all that the test of gradients needs."""
    rng = np.random.default_rng(seed)
    dtype = [np.float64, np.float32][seed % 2]
    made = Made(rng, dtype)
    k = first = int(rng.integers(1, 9))
    flatten = seed % 7 == 3
    if flatten:
        made.parts.append(fl.Flatten())
    for _ in range(rng.integers(0, 4)):
        part, inner, k = made.block(k)
        made.add(part, inner)
    loss = [
        fl.Loss("mse"),
        fl.Loss("mae"),
        fl.Loss("huber", delta=0.5),
        fl.Loss("cross_entropy"),
        fl.Loss("cross_entropy", label_smoothing=0.2),
        fl.Loss("binary_cross_entropy"),
        fl.Loss("poisson"),
    ][seed % 7]
    n = int(rng.integers(2, 6)) if loss.name == "cross_entropy" else int(rng.integers(1, 5))
    behind = rng.integers(2) and BEHIND.get(loss.name)
    name = behind[rng.integers(len(behind))] if behind else "identity"
    part, inner = made.dense(k, n, (name, Curve(dtype, "identity")))
    made.add(part, inner[:1])
    m = [1, 2, 5, 33, 300][rng.integers(5)]
    x = made.draw(m, first)
    t = {
        "cross_entropy": lambda: rng.integers(0, n, m),
        "binary_cross_entropy": lambda: rng.integers(0, 2, (m, n)).astype(dtype),
        "poisson": lambda: rng.poisson(2, (m, n)).astype(dtype),
    }.get(loss.name, lambda: made.draw(m, n))()
    weights = rng.uniform(0.1, 1, m) if rng.integers(2) else None
    net = fl.Network(made.parts)
    return net, Chain(dtype, made.inner), x, t, loss, weights
