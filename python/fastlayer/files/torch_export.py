"""`Network.to_torch`: the parts of a network, as a document has them, as modules of PyTorch.

What ``torch.nn`` has no module for is a graph of ``torch.fx``, which can be pickled and printed like
any other module, and needs nothing of this package.
"""

from __future__ import annotations

import operator
from importlib import import_module
from itertools import accumulate, pairwise
from keyword import iskeyword
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastlayer.arrays import Array

# Modules, whose parameters are called as ours.
_SAME = {
    "identity": "Identity", "relu": "ReLU", "relu6": "ReLU6", "leaky_relu": "LeakyReLU",
    "hardtanh": "Hardtanh", "hardsigmoid": "Hardsigmoid", "hardswish": "Hardswish", "elu": "ELU",
    "celu": "CELU", "selu": "SELU", "gelu": "GELU", "silu": "SiLU", "mish": "Mish",
    "softplus": "Softplus", "sigmoid": "Sigmoid", "log_sigmoid": "LogSigmoid", "tanh": "Tanh",
    "softsign": "Softsign", "threshold": "Threshold", "hardshrink": "Hardshrink",
    "softshrink": "Softshrink",
}  # fmt: skip
_ROWWISE = {"softmax": "Softmax", "log_softmax": "LogSoftmax"}
# What the code of a graph may name itself.
_TAKEN = {
    "self", "torch", "device", "inf", "nan", "NoneType", "fx_pytree", "pytree", "slice", "Ellipsis",
}  # fmt: skip
_FUNCTIONS = ("exp", "sin", "cos", "sqrt")


def to_torch(net: Any) -> Any:
    """Return a network as a module; see `Network.to_torch`."""
    try:
        torch = import_module("torch")
    except ImportError as error:
        raise ImportError("to_torch needs PyTorch: pip install torch") from error
    if any(net._out.classes):
        raise ConversionError(net._title(), "gives labels, which to_torch does not write")
    arrays: dict[str, Array] = {}
    try:
        specs = [part._describe(f"{i}", arrays) for i, part in enumerate(net._parts)]
    except ValueError as error:
        raise ConversionError(
            net._title(),
            "holds a Python function, which no module stands for; use one of fastlayer's "
            "activations, or convert the layers around it",
        ) from error
    module = _Modules(torch, net.dtype.name, arrays).network(specs, net._in, net._out)
    return module.eval()


class _Modules:
    """Makes modules of parts, in a dtype."""

    def __init__(self, torch: Any, dtype: str, arrays: dict[str, Array]) -> None:
        self._torch, self._arrays = torch, arrays
        self._dtype = getattr(torch, dtype)

    def network(self, specs: Sequence[Any], inputs: Any, outputs: Any) -> Any:
        body = self._chain(specs, "")
        if not inputs.names and not outputs.names:
            return body

        def forward(graph: Any) -> Any:
            named = [graph.placeholder(name) for name in _arguments(inputs.names or ("x",))]
            x = named[0]
            if len(named) > 1:
                x = graph.call_function(self._torch.cat, (named,), {"dim": -1})
            y = graph.call_module("layers", (x,))
            if len(outputs.names) < 2:
                return (y,) if outputs.names and not outputs.single else y
            ends = [0, *accumulate(outputs.widths)]
            return tuple(self._slice(graph, y, *of) for of in pairwise(ends))

        return self._graph("Network", {"layers": body}, forward)

    def _chain(self, specs: Sequence[Any], key: str) -> Any:
        parts = [m for i, spec in enumerate(specs) for m in self._part(spec, f"{key}{i}")]
        return self._torch.nn.Sequential(*parts)

    def _part(self, spec: dict[str, Any], key: str) -> list[Any]:
        nn, kind = self._torch.nn, spec["type"]
        match kind:
            case "Layer":
                sizes = spec["in_features"], spec["out_features"]
                # Elsewhere it would draw weights, from the generator that everybody shares.
                linear = nn.Linear(*sizes, spec["bias"], "meta", self._dtype)
                self._fill(linear, key, ["weight", "bias"][: 1 + spec["bias"]])
                return [linear, *self._activation(spec["activation"], f"{key}.activation")]
            case "Activation":
                return self._activation(spec, key) or [nn.Identity()]
            case "Network":
                return [self._chain(spec["layers"], f"{key}.")]
            case "Flatten":
                return [nn.Flatten()]
            case "Slice":
                ends = spec["begin"], spec["end"]
                return [self._graph(kind, {}, lambda g: self._slice(g, g.placeholder("x"), *ends))]
            case "Residual":
                inner = self._chain(spec["layers"], f"{key}.")
                return [self._join(kind, [inner, None])]
            case "Concat" | "Add" | "Multiply":
                branches = [b["layers"] for b in spec["branches"]]
                inner = [self._chain(b, f"{key}.{i}.") for i, b in enumerate(branches)]
                return [self._join(kind, inner)]
        return [self._norm(kind, spec, key)]

    def _norm(self, kind: str, spec: dict[str, Any], key: str) -> Any:
        nn, n, eps, held = self._torch.nn, spec["features"], spec["eps"], spec["arrays"]
        affine = {"weight", "bias"} & set(held)
        options: dict[str, Any] = {"eps": eps, "dtype": self._dtype}
        if kind == "BatchNorm":
            norm = nn.BatchNorm1d(n, affine=bool(affine), **options)
        elif kind == "RMSNorm":
            norm = nn.RMSNorm(n, elementwise_affine=bool(affine), **options)
        else:
            bias = "bias" in affine
            norm = nn.LayerNorm(n, elementwise_affine=bool(affine), bias=bias, **options)
        self._fill(norm, key, held)  # what is not there is 1 or 0, as it has been made
        return norm

    def _activation(self, spec: dict[str, Any], key: str) -> list[Any]:
        nn, torch, name, given = self._torch.nn, self._torch, spec["name"], spec["parameters"]
        if name == "identity":
            return []
        if name == "prelu":
            slopes = self._arrays[f"{key}.slopes"].reshape(-1)
            module = nn.PReLU(slopes.size, dtype=self._dtype)
            module.weight = self._parameter(slopes)
            return [module]
        if name in _FUNCTIONS:
            function = getattr(torch, name)
            return [
                self._graph(
                    name.capitalize(),
                    {},
                    lambda g: g.call_function(function, (g.placeholder("x"),)),
                )
            ]
        if name in _ROWWISE:
            return [getattr(nn, _ROWWISE[name])(dim=-1)]
        try:
            return [getattr(nn, _SAME[name])(**given)]
        except (AssertionError, ValueError) as error:  # of a range, say
            raise ConversionError(f"layer {key}: {name}", f"PyTorch refuses {given}") from error

    def _fill(self, module: Any, key: str, names: Sequence[str]) -> None:
        """Put copies of arrays in the place of a module's own."""
        for name in names:
            values = self._parameter(self._arrays[f"{key}.{name}"])
            setattr(module, name, values.data if name.startswith("running") else values)

    def _parameter(self, array: Array) -> Any:
        values = self._torch.tensor(np.asarray(array), dtype=self._dtype)
        return self._torch.nn.Parameter(values)

    def _graph(self, name: str, modules: dict[str, Any], build: Callable[[Any], Any]) -> Any:
        graph = self._torch.fx.Graph()
        graph.output(build(graph))
        return self._torch.fx.GraphModule(modules, graph, name)

    def _join(self, kind: str, branches: Sequence[Any]) -> Any:
        """Return what joins branches; None is one that does nothing."""
        modules = {f"branch_{i}": b for i, b in enumerate(branches) if b is not None}

        def build(graph: Any) -> Any:
            x = graph.placeholder("x")
            parts = [
                x if b is None else graph.call_module(f"branch_{i}", (x,))
                for i, b in enumerate(branches)
            ]
            if kind == "Concat":
                return graph.call_function(self._torch.cat, (parts,), {"dim": -1})
            join = self._torch.mul if kind == "Multiply" else self._torch.add
            y = parts[0]
            for other in parts[1:]:
                y = graph.call_function(join, (y, other))
            return y

        return self._graph(kind, modules, build)

    def _slice(self, graph: Any, x: Any, begin: int, end: int) -> Any:
        return graph.call_function(operator.getitem, (x, (..., slice(begin, end))))


def _arguments(names: Sequence[str]) -> list[str]:
    """Return the names of inputs as those of arguments, where they can be that."""
    fit = [n.isascii() and n.isidentifier() and not iskeyword(n) and n not in _TAKEN for n in names]
    if all(fit):
        return list(names)
    return [f"input_{i}" for i in range(len(names))]
