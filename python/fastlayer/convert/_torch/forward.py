"""A module of PyTorch with a forward of its own, as `trace` gives it, read node by node.

What the functions and methods are that it may call is in `functions`; modules are in `layers`.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.convert._activations import TORCH
from fastlayer.convert._graph import Cut, Point, constant
from fastlayer.convert._torch import layers
from fastlayer.convert._torch.axes import COUNT, ROWS, VECTOR, Shape, reshaped
from fastlayer.convert._torch.branches import BRANCHES, JOINS, spread
from fastlayer.convert._torch.call import Call
from fastlayer.convert._torch.functions import (
    SHORT,
    apply,
    arithmetic,
    check_form,
    check_steps,
    einsum,
)
from fastlayer.convert._torch.selections import SELECTIONS
from fastlayer.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastlayer.arrays import Array, DType
    from fastlayer.convert._torch.call import Form

# Where the functions of a forward may come from.
_ORIGINS = {"torch", "_operator", "builtins", "math"}


class Reader:
    """The points of one graph of nodes, by node; `widths` are the features of several inputs."""

    def __init__(
        self, torch: Any, module: Any, source: str, dtype: DType, widths: Sequence[int] = ()
    ) -> None:
        self.torch, self.source, self.dtype = torch, source, dtype
        self.module = module
        self.modules = dict(module.named_modules())
        self.values: dict[Any, Any] = {}
        self.root = Point(eps=float(np.finfo(dtype).eps), features=sum(widths) or None)
        cuts = [Cut(e - n, e) for n, e in zip(widths, accumulate(widths), strict=True)]
        self.inputs = [Point(self.root, cut) for cut in cuts] if len(cuts) > 1 else [self.root]
        self._made: dict[Any, Point] = {}  # of modules, what they are called with and its form
        self.of_rows = False  # whether it works along axis 1 of what may have several
        self.form = ROWS  # of what a node takes, and then of what it gives
        self._forms: dict[Any, Form] = {}  # of nodes, where it isn't that of rows
        self.taken: list[tuple[int, int]] = []  # features of arrays, and of the layers they go into

    def run(self, graph: Any) -> Any:
        """Return the point that the graph ends in, or what it has several in.

        Raises
        ------
        ConversionError
            A node that has no exact counterpart.
        """
        nodes = list(graph.nodes)
        last = nodes[-1]
        needed = {n for n in nodes if n is last or _changes_input(n, self.modules)}
        for node in reversed(nodes):
            if node in needed:
                needed.update(node.all_input_nodes)
        inputs = iter(self.inputs)
        for i, node in enumerate(nodes):
            if node.op == "placeholder":
                self.values[node] = node.args[0] if i and node.args else next(inputs)
            elif node in needed and node is not last:
                self._node(node)
        if {*map(self._forms.get, last.all_input_nodes)} - {None, VECTOR}:
            raise ConversionError(
                self.source, "its forward returns an array with an axis of length one; squeeze it"
            )
        return self._look(last.args)[0]

    def results(self, given: Any) -> dict[str, Point] | Point:
        """Return the point that a forward returns, or several by name.

        Raises
        ------
        ConversionError
            Something else, or an array of which nothing tells how many features it has.
        """
        if isinstance(given, Point):
            return given
        if isinstance(given, dict):
            named = given
        elif isinstance(given, tuple | list):
            names = getattr(given, "_fields", [f"output_{i}" for i in range(len(given))])
            named = dict(zip(names, given, strict=True))
        else:
            named = {}
        if not named or not any(isinstance(value, Point) for value in named.values()):
            what = f"a {type(given).__name__.lower()}"
            raise ConversionError(
                self.source, f"its forward returns {what}; expected an array, or several"
            )
        return {str(name): self._result(str(name), value) for name, value in named.items()}

    def _result(self, name: str, value: Any) -> Point:
        place = f"output {name!r} of its forward"
        if hasattr(value, "detach"):
            row = layers.array(value, place)
            if row.size and (row.ndim == 0 or row.shape[-1] == row.size):
                return constant(self.root, row.ravel())
        if not isinstance(value, Point):
            raise ConversionError(
                place,
                f"is a {type(value).__name__.lower()}, and not an array of rows; return arrays only, or convert the module that makes them",
            )
        if value.running().features is None:
            raise ConversionError(
                place,
                "has a number of features that no layer tells; several outputs need it: put a "
                "linear layer before it, or convert its module alone",
            )
        return value

    def _look(self, given: Any) -> Any:
        """Return arguments with the values of nodes in their places."""
        return self.torch.fx.node.map_arg(given, self.values.__getitem__)

    def _node(self, node: Any) -> None:
        args, kwargs = self._look(node.args), dict(self._look(node.kwargs))
        if node.op == "get_attr":
            value: Any = self.module
            for name in node.target.split("."):
                value = getattr(value, name)
            self.values[node] = value
            return
        before = args[0] if args else kwargs.get("input")
        forms = {
            self._forms.get(n, ROWS)
            for n in node.all_input_nodes
            if isinstance(self.values[n], Point)
        }
        if len(forms) > 1:
            raise ConversionError(
                f"{node.name!r} in its forward", "takes arrays of different numbers of axes"
            )
        form = self.form = forms.pop() if forms else ROWS
        if node.op == "call_module":
            value = self._module(node.target, args, kwargs)
        else:
            value = self._function(node, args, kwargs)
        self.values[node] = value
        if self.form != ROWS:
            self._forms[node] = self.form
        if self.form != form and _changes_input(node, self.modules):
            raise ConversionError(
                f"{node.name!r} in its forward", "changes the axes of an array in place"
            )
        if _changes_input(node, self.modules) and isinstance(before, Point):
            for other, held in self.values.items():
                if held is before:
                    self.values[other] = value

    def _module(self, target: str, args: Any, kwargs: Any) -> Any:
        module = self.modules[target]
        place = f"layer {target!r} (torch {type(module).__name__})"
        x = args[0] if args else kwargs.get("input")
        if (module, x, self.form) in self._made:
            return self._made[module, x, self.form]
        made = self._made_of(module, place, x, len(args) + len(kwargs))
        self._made[module, x, self.form] = made
        return made

    def _made_of(self, module: Any, place: str, x: Any, count: int) -> Point:
        if not isinstance(x, Point) or count != 1:
            raise ConversionError(place, "is not called with one array that comes from the input")
        if layers.known_class(module) is None and type(module) is self.torch.nn.GLU:
            call = Call(place, "glu", (), {"dim": module.dim}, self.dtype, None)
            if self.form != ROWS:
                check_form(call)
            gated: Point = BRANCHES["glu"](self, call, x)
            return gated
        return self.then(x, layers.steps(module, place, self.dtype))

    def then(self, x: Point, steps: Sequence[Any]) -> Point:
        """Return the point that steps lead to, and note how many features they take."""
        if self.form != ROWS:
            check_steps(steps, self.form, self.source)
        takes = next((n for s in steps if (n := getattr(s, "in_features", None)) is not None), None)
        if takes is not None and x.features is not None:
            self.taken.append((x.features, takes))
        return x.then(steps)

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
        if isinstance(target, type) and issubclass(target, tuple) and hasattr(target, "_fields"):
            return target(*args, **kwargs)
        module = getattr(target, "__module__", None) or "torch"
        if node.op == "call_function" and module.split(".")[0] not in _ORIGINS:
            raise ConversionError(place, "is a function outside PyTorch, wrapped for torch.fx")
        if not name.startswith("_"):
            name = name.removesuffix("_")
        x = args[0] if args else kwargs.pop("input", None)
        call = Call(place, name, tuple(args[1:]), kwargs, self.dtype, node)
        if isinstance(x, Shape):
            if name != "getitem":
                raise call.refuse()
            return self._axes(call, x, args[1])
        if isinstance(x, Point):
            form = reshaped(call, x, self.form)
            if form is not None:
                self.of_rows = self.of_rows or (name != "squeeze" and form != self.form)
                self.form = form
                return x
            if (name, call.value(0, "name", None)) == ("getattr", "shape") or name == "size":
                shape, dim = Shape(x, self.form), call.value(0, "dim", None)
                return shape if name == "getattr" or dim is None else self._axes(call, shape, dim)
        if self.form != ROWS:
            check_form(call)
        if name in SHORT:
            return arithmetic(self, call, x)
        if name == "einsum":
            return einsum(self, call, x)
        if name == "getitem" and isinstance(x, tuple | list | dict):
            return x[args[1]]
        if name in BRANCHES and (isinstance(x, Point) or name in JOINS):
            return BRANCHES[name](self, call, x)
        if name in ("expand", "expand_as") and hasattr(x, "detach"):
            return x  # spread over the rows as anything beside it is
        if name in SELECTIONS:
            return SELECTIONS[name](self, call, x)
        if name == "getattr" and isinstance(x, tuple) and args[1] == "values":
            return x[0]
        if not isinstance(x, Point):
            raise call.refuse()
        if name == "getattr" and args[1] in ("dtype", "device"):
            return getattr(self.torch, self.dtype.name) if args[1] == "dtype" else None
        if name == "type_as" and isinstance(call.value(0, "other", None), Point):
            return x  # all of them have the network's dtype
        shaping = name in ("expand", "reshape", "view")
        other = call.value(0, "other", None)
        if name == "expand_as" and isinstance(other, Point):
            return x if other is x else spread(call, x, (COUNT, other.features))
        if not shaping and (_uses_input(call.args) or _uses_input(tuple(kwargs.values()))):
            raise call.refuse()
        if name == "expand":
            sizes = call.value(0, "size", ())
            return spread(call, x, tuple(sizes) if isinstance(sizes, tuple | list) else call.args)
        return apply(self, call, x)

    def _axes(self, call: Call, shape: Shape, which: Any) -> Any:
        """Return lengths of a shape, and note where they are those of rows alone."""
        last = which == -1 or which == 0 or (isinstance(which, slice) and which.start == -1)
        self.of_rows = self.of_rows or not last
        return shape.axes(call, which)

    def array(self, tensor: Any, place: str) -> Array:
        """Return the values of a tensor, or of a number."""
        return layers.array(
            tensor if hasattr(tensor, "detach") else self.torch.tensor(tensor), place
        )


def _uses_input(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(_uses_input(v) for v in value)
    return isinstance(value, Point | Shape) or value is COUNT


def _changes_input(node: Any, modules: dict[str, Any]) -> bool:
    if node.op == "call_module":
        return bool(getattr(modules[node.target], "inplace", False))
    if node.op not in ("call_function", "call_method"):
        return False
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    return bool(
        (name.endswith("_") and not name.startswith("_"))
        or node.kwargs.get("inplace")
        or (layers.key(name) in TORCH and any(a is True for a in node.args[1:]))
    )
