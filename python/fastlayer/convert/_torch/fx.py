"""A module of PyTorch with a forward of its own: traced by ``torch.fx``, read node by node."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert._graph import Point
from fastlayer.convert._torch import functions, layers
from fastlayer.errors import ConversionError

if TYPE_CHECKING:
    from fastlayer.arrays import DType

# What a forward asks about shapes; all that may be known is that axis 0 has the samples.
_SHAPE = object()
# Where the functions of a forward may come from.
_ORIGINS = {"torch", "_operator", "builtins", "math"}


def trace(torch: Any, module: Any, source: str) -> tuple[Any, Any]:
    """Return what was traced, and its graph, in which modules of ``torch.nn`` are nodes.

    Raises
    ------
    ConversionError
        A forward that takes several inputs, or that depends on the values of its input.
    """

    tracer = torch.fx.Tracer()
    usual = tracer.is_leaf_module
    tracer.is_leaf_module = lambda m, name: layers.known_class(m) is not None or usual(m, name)
    if layers.known_class(module) is not None:
        module = torch.nn.Sequential(module)
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())
        needed = [p.name for p in parameters if p.default is p.empty and p.kind < p.VAR_POSITIONAL]
        given = {p.name: p.default for p in parameters if p.default is not p.empty}
        if len(needed) > 1:
            raise ConversionError(source, f"takes {len(needed)} inputs, {', '.join(needed)}")
        if not needed and given:  # forward(x=None)
            given.pop(next(iter(given)))
        graph = tracer.trace(module, concrete_args=given or None)
    except ConversionError:
        raise
    except Exception as error:  # whatever the forward does with a stand-in for its input
        raise ConversionError(
            source,
            f"torch.fx can't follow its forward ({type(error).__name__}: {error}); fastlayer needs "
            "one that does the same steps for every input. Put the layers into an nn.Sequential, "
            "or convert the modules inside one by one",
        ) from error
    return module, graph


def read(torch: Any, module: Any, graph: Any, source: str, dtype: DType) -> Point:
    """Return the point that the graph of a module ends in.

    Raises
    ------
    ConversionError
        A node that has no exact counterpart.
    """
    return _Reader(torch, module, source, dtype).run(graph)


def _changes_input(node: Any, modules: dict[str, Any]) -> bool:
    if node.op == "call_module":
        return bool(getattr(modules[node.target], "inplace", False))
    if node.op not in ("call_function", "call_method"):
        return False
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    return bool(
        (name.endswith("_") and not name.startswith("_"))
        or node.kwargs.get("inplace")
        or (functions.is_activation(name) and any(a is True for a in node.args[1:]))
    )


class _Reader:
    def __init__(self, torch: Any, module: Any, source: str, dtype: DType) -> None:
        self.torch, self.source, self.dtype = torch, source, dtype
        self.module = module
        self.modules = dict(module.named_modules())
        self.values: dict[Any, Any] = {}
        self.input = Point(eps=float(np.finfo(dtype).eps))

    def run(self, graph: Any) -> Point:
        nodes = list(graph.nodes)
        last = nodes[-1]
        needed = {n for n in nodes if n is last or _changes_input(n, self.modules)}
        for node in reversed(nodes):
            if node in needed:
                needed.update(node.all_input_nodes)
        for i, node in enumerate(nodes):
            if node.op == "placeholder":
                self.values[node] = node.args[0] if i and node.args else self.input
            elif node in needed and node is not last:
                self._node(node)
        result = self._look(last.args[0])
        if not isinstance(result, Point):
            what = f"a {type(result).__name__}" if result is not _SHAPE else "a shape"
            raise ConversionError(
                self.source, f"its forward returns {what}; a network has one output, an array"
            )
        return result

    def _look(self, value: Any) -> Any:
        if isinstance(value, self.torch.fx.Node):
            return self.values[value]
        if isinstance(value, tuple | list):
            return type(value)(self._look(v) for v in value)
        return value

    def _node(self, node: Any) -> None:
        args, kwargs = self._look(node.args), {k: self._look(v) for k, v in node.kwargs.items()}
        if node.op == "get_attr":
            value: Any = self.module
            for name in node.target.split("."):
                value = getattr(value, name)
            self.values[node] = value
            return
        before = args[0] if args else kwargs.get("input")
        if node.op == "call_module":
            value = self._module(node.target, args, kwargs)
        else:
            value = self._function(node, args, kwargs)
        self.values[node] = value
        if _changes_input(node, self.modules) and isinstance(before, Point):
            for other, held in self.values.items():
                if held is before:
                    self.values[other] = value

    def _module(self, target: str, args: Any, kwargs: Any) -> Any:
        module = self.modules[target]
        place = f"layer {target!r} (torch {type(module).__name__})"
        x = args[0] if args else kwargs.get("input")
        if not isinstance(x, Point) or len(args) + len(kwargs) != 1:
            raise ConversionError(place, "is not called with one array that comes from the input")
        return x.then(layers.steps(module, place, self.dtype))

    def _function(self, node: Any, args: Any, kwargs: Any) -> Any:
        target = node.target
        name = target if node.op == "call_method" else getattr(target, "__name__", str(target))
        place = f"{node.name!r} in its forward (torch {name})"
        if not _uses_input(args) and not _uses_input(tuple(kwargs.values())):
            if _changes_input(node, self.modules):
                raise ConversionError(place, "changes the module's own values at every call")
            if node.op == "call_method":
                target = getattr(type(args[0]), name)
            with self.torch.no_grad():
                return target(*args, **kwargs)
        module = getattr(target, "__module__", None) or "torch"
        if node.op == "call_function" and module.split(".")[0] not in _ORIGINS:
            raise ConversionError(place, "is a function outside PyTorch, wrapped for torch.fx")
        if not name.startswith("_"):
            name = name.removesuffix("_")
        x = args[0] if args else kwargs.pop("input", None)
        call = functions.Call(place, name, tuple(args[1:]), kwargs, self.dtype)
        if functions.is_arithmetic(name):
            return functions.arithmetic(call, x)
        if name == "getattr" and args[1] == "shape":
            return _SHAPE
        if name == "getitem" and x is _SHAPE and args[1] == 0:
            return functions.ROWS
        if not isinstance(x, Point):
            raise call.refusal()
        if name == "size":
            dim = call.value(0, "dim", None)
            if dim in (None, 0):
                return _SHAPE if dim is None else functions.ROWS
        shaping = name in ("view", "reshape")
        if not shaping and (_uses_input(call.args) or _uses_input(tuple(kwargs.values()))):
            raise call.refusal()
        return functions.apply(call, x)


def _uses_input(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(_uses_input(v) for v in value)
    return isinstance(value, Point) or value is _SHAPE or value is functions.ROWS
