"""A module of PyTorch traced by ``torch.fx``, and the answers to what its forward decides by."""

from __future__ import annotations

import dis
import inspect
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from fastlayer.convert._torch import layers
from fastlayer.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
    stand_in, create = _stand_in(torch, asked), tracer.create_arg
    tracer.proxy = lambda node: stand_in(node, tracer)
    tracer.create_arg = lambda a: _argument(torch, a, create)
    if layers.known_class(module) is not None:
        module = torch.nn.Sequential(module)
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())
        needed = [p.name for p in parameters if p.default is p.empty and p.kind < p.VAR_POSITIONAL]
        given = {p.name: p.default for p in parameters if p.default is not p.empty}
        if not needed and given:  # forward(x=None)
            needed = [next(iter(given))]
            given.pop(needed[0])
        with _tensors(torch, module):
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


def _stand_in(torch: Any, asked: _Asked) -> Any:
    """Return the class of what stands in for arrays, whose shapes have as many axes as those of rows."""

    class Shape(torch.fx.proxy.Attribute):  # type: ignore[misc]
        def __len__(self) -> int:
            asked.rank = True
            return 2

    class Array(torch.fx.Proxy):  # type: ignore[misc]
        def __getattr__(self, name: str) -> Any:
            return Shape(self, name) if name == "shape" else super().__getattr__(name)

    return Array


def _argument(torch: Any, given: Any, create: Callable[[Any], Any]) -> Any:
    """Return what a node is called with; ``torch.FloatTensor`` is a dtype."""
    return create(given.dtype if isinstance(given, type(torch.FloatTensor)) else given)


@contextmanager
def _tensors(torch: Any, module: Any) -> Iterator[None]:
    """Let what stands in for arrays be tensors to the forwards of a module, for a while."""

    def asks(value: Any, kinds: Any) -> bool:
        given = kinds if isinstance(kinds, tuple) else (kinds,)
        stands_in = isinstance(value, torch.fx.Proxy) and torch.Tensor in given
        return stands_in or isinstance(value, kinds)

    forwards = [type(m).forward for m in module.modules()]
    scopes = {id(f.__globals__): f.__globals__ for f in forwards if hasattr(f, "__globals__")}
    own = [s for s in scopes.values() if s.get("__name__", "").split(".")[0] != "torch"]
    free = [scope for scope in own if "isinstance" not in scope]
    try:
        for scope in free:
            scope["isinstance"] = asks
        yield
    finally:
        for scope in free:
            scope.pop("isinstance", None)


class _Asked:
    """The answers to what a forward decides by: errors, and the rank, dtype and device of rows."""

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
        fine, alone = (None, False) if frame is None else _without_error(frame)
        if fine is not None and alone:
            return fine
        try:
            return bool(self._answer(proxy.node))
        except LookupError:
            return self._otherwise(proxy) if fine is None else fine

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


def _without_error(frame: Any) -> tuple[bool | None, bool]:
    """Return what a condition has to be, for the frame that it is in raises an error where it isn't.

    And whether that is right behind it: else there may be other conditions.
    """
    code = list(dis.get_instructions(frame.f_code))
    at = next((i for i, step in enumerate(code) if step.offset >= frame.f_lasti), len(code))
    # The jump itself, or what comes right before it.
    ends = ("IF_FALSE", "IF_TRUE")
    jump = next((i for i in range(at, len(code))[:4] if code[i].opname.endswith(ends)), None)
    if jump is None:
        return None, False
    when = code[jump].opname.endswith("IF_TRUE")
    there = next((i for i, step in enumerate(code) if step.offset == code[jump].argval), len(code))
    if _raises(code[jump + 1 :]):
        return when, True
    return (not when if _raises(code[there:]) else None), False


def _raises(code: list[Any]) -> bool:
    """Whether instructions go straight to an error."""
    for step in code:
        if step.opname == "RAISE_VARARGS":
            return True
        if "JUMP" in step.opname or step.opname.startswith(("RETURN", "STORE", "FOR_ITER")):
            return False
    return False
