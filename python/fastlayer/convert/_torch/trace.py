"""A module of PyTorch traced by ``torch.fx``, and the answers to what its forward decides by."""

from __future__ import annotations

import dis
import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

from fastlayer.convert._torch import layers
from fastlayer.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastlayer.arrays import DType

# Comparisons that a forward may decide by.
_DECIDES = {"eq", "ge", "gt", "is_", "is_not", "le", "lt", "ne", "not_"}


class Traced(NamedTuple):
    """What was traced, and its graph, in which modules of ``torch.nn`` are nodes."""

    module: Any
    graph: Any
    inputs: list[str]  # names
    of_rows: bool  # whether the rank of an array decided something: then it is that of rows


def trace(torch: Any, module: Any, source: str, dtype: DType) -> Traced:
    """Return the graph of a module.

    Raises
    ------
    ConversionError
        A forward that depends on the values of its input.
    """
    tracer = torch.fx.Tracer()
    usual = tracer.is_leaf_module
    tracer.is_leaf_module = lambda m, name: layers.known_class(m) is not None or usual(m, name)
    asked = _Asked(torch, module, dtype, tracer.to_bool)
    tracer.to_bool = asked.decide
    if layers.known_class(module) is not None:
        module = torch.nn.Sequential(module)
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())
        needed = [p.name for p in parameters if p.default is p.empty and p.kind < p.VAR_POSITIONAL]
        given = {p.name: p.default for p in parameters if p.default is not p.empty}
        if not needed and given:  # forward(x=None)
            needed = [next(iter(given))]
            given.pop(needed[0])
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
    return Traced(module, graph, needed, asked.rank)


class _Asked:
    """The answers to what a forward decides by: assertions, and the rank, dtype and device of rows."""

    def __init__(
        self, torch: Any, module: Any, dtype: DType, otherwise: Callable[[Any], bool]
    ) -> None:
        self.rank = False  # whether it was asked for
        self._otherwise, self._node = otherwise, torch.fx.Node
        device = next((p.device for p in module.parameters()), torch.device("cpu"))
        self._facts = {
            "ndim": 2,
            "dtype": getattr(torch, dtype.name),
            "device": device,
            "is_cuda": device.type == "cuda",
        }

    def decide(self, proxy: Any) -> bool:
        """Stand in for the tracer's ``to_bool``, which raises an error."""
        frame = inspect.currentframe()
        for _ in range(2):  # out of here, and of __bool__
            frame = frame and frame.f_back
        if frame is not None and _asserts(frame):
            return True
        try:
            return bool(self._answer(proxy.node))
        except LookupError:
            return self._otherwise(proxy)

    def _answer(self, node: Any) -> Any:
        """Return what a node has for any rows.

        Raises
        ------
        LookupError
            It has other values for other rows.
        """
        if not isinstance(node, self._node):
            return node
        name = node.target if isinstance(node.target, str) else node.target.__name__
        if node.op == "call_method" and name in ("dim", "ndimension"):
            name = "ndim"
        elif node.op == "call_function" and node.target is getattr:
            name = node.args[1]
        elif node.op == "call_function" and name in _DECIDES:
            return node.target(*map(self._answer, node.args))
        elif name != "is_floating_point":
            raise LookupError(name)
        self.rank = self.rank or name == "ndim"
        return name == "is_floating_point" or self._facts[name]


def _asserts(frame: Any) -> bool:
    """Whether a frame is in the condition of an ``assert``, at its end."""
    code = list(dis.get_instructions(frame.f_code))
    at = next((i for i, step in enumerate(code) if step.offset > frame.f_lasti), len(code))
    # Up to the error that is raised where the condition is false: a jump over it, and perhaps a cache.
    return any(
        "ASSERTION_ERROR" in step.opname or step.argval is AssertionError
        for step in code[at : at + 2]
    )
