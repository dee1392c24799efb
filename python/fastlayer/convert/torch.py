"""Networks from PyTorch: `from_torch`. PyTorch itself is never imported here."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.arrays import FLOAT64
from fastlayer.convert._graph import Draft, Join, Point, cuts, join
from fastlayer.convert._torch.forward import Reader
from fastlayer.convert._torch.trace import trace
from fastlayer.errors import ConversionError
from fastlayer.network.ends import Ends
from fastlayer.network.network import ANY_DTYPE, ONE_ROW

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastlayer.arrays import Array, DType
    from fastlayer.convert._torch.trace import Traced
    from fastlayer.network.network import Made

# Features of an unknown input are told apart in so many bits.
_BITS = 24
# Wrappers whose result is that of the module inside.
_WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
}


def from_torch(
    module: Any,
    *,
    verify: bool = True,
    inputs: Mapping[str, int] | Sequence[int] | None = None,
) -> Made:
    """Make a network from a module of PyTorch.

    The network does what the module does in eval mode: dropout is left out and batch norms use
    their running statistics, also where the module is in training mode, which stays as it is.
    A forward of the module's own is followed with ``torch.fx``. Weights are copied; call this
    again after more training.

    Parameters
    ----------
    module : torch.nn.Module
        Made of Linear, BatchNorm1d, LayerNorm, RMSNorm, Flatten, Dropout, Identity, the
        activations that fastlayer has, containers of these, and forwards that apply these or
        their functions, with sums, products and concatenations of branches, and slices. It may
        take several arrays, and return several as a tuple or dictionary. Parameters are all
        float32 or all float64, and so is the network. Where it names an axis, samples are single
        rows.
    verify : bool
        Run both on random and edge inputs, and refuse where they differ by more than rounding.
        A module that lives on another device is run there.
    inputs : dict of int, or list of int, optional
        The features of each input, where the layers don't tell.

    Returns
    -------
    Network
        It takes and gives as many arrays as the module. Its `verification` tells how far the two
        were apart.

    Raises
    ------
    ConversionError
        A layer or operation without an exact counterpart; the message names it.
    TypeError
        Not a module of PyTorch.

    Examples
    --------
    >>> import fastlayer as fl
    >>> import torch
    >>> module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())
    >>> fl.from_torch(module)
    Network([
        Layer(4, 3, activation='relu', dtype=float32),
    ])
    """
    torch: Any = sys.modules.get("torch")
    if torch is None or not isinstance(module, torch.nn.Module):
        raise TypeError(_not_a_module(module))
    if type(module).__module__.split(".")[0] == "keras":
        raise TypeError("this is a Keras model; use fl.from_keras")
    while type(module).__name__ in _WRAPPERS:
        module = getattr(module, _WRAPPERS[type(module).__name__])
    source = f"torch {type(module).__name__}"
    if isinstance(module, torch.jit.ScriptModule):
        raise ConversionError(
            source,
            "is compiled TorchScript, whose code is not read; convert the module that it was made from, "
            "or name the activations of a chain: fl.from_state_dict(module.state_dict(), activation=...)",
        )
    held = _dtype(torch, module)
    dtype = held or FLOAT64
    _check_hooks(module)
    with _evaluating(module):
        traced = trace(torch, module, source, dtype)
        ends, point, of_rows = _read(torch, traced, source, dtype, inputs)
        traits = (() if held else (ANY_DTYPE,)) + ((ONE_ROW,) if of_rows else ())
        draft = Draft(point, dtype, source, point.start.features, traits, ends)
        if not verify:
            return draft.network()
        widths = draft.ends[0].widths
        if widths and not any(widths):  # any do, as many as there are
            total = draft.network().in_features or len(widths)
            widths = (*(1,) * (len(widths) - 1), total - len(widths) + 1)
        return draft.proved(
            lambda x: _run(torch, module, x, widths, ends[1]),
            wide=lambda x: _run(torch, copy.deepcopy(module).double(), x, widths, ends[1]),
        )


def _read(
    torch: Any, traced: Traced, source: str, dtype: DType, inputs: Any
) -> tuple[tuple[Ends, Ends], Point, bool]:
    """Return the inputs and outputs of a module, and the point of its result."""
    names, given = traced.inputs, Ends.of(inputs, "input")
    if given.names and (
        len(given.names) != len(names)
        or (isinstance(inputs, Mapping) and set(given.names) != set(names))
    ):
        raise ConversionError(
            source, f"takes the inputs {', '.join(names)}, and inputs={inputs!r:.60} names others"
        )
    widths: tuple[int, ...] = ()
    if isinstance(inputs, Mapping):
        widths = tuple(int(inputs[name]) for name in names)
    elif given.names:
        widths = given.widths
    free = False
    if not widths and len(names) > 1:
        widths, free = _deduced(torch, traced, source, dtype)
    elif not widths and _cuts(torch, traced, source, dtype):
        # What comes first takes a part of the input, and doesn't tell how many features there are.
        found, any_will_do = _deduced(torch, traced, source, dtype)
        widths = () if any_will_do else found
    reader = Reader(torch, traced.module, source, dtype, widths)
    result = reader.results(reader.run(traced.graph))
    outputs = Ends()
    if isinstance(result, Point):
        point = result
    else:
        outputs = Ends(tuple(result), tuple(p.features or 0 for p in result.values()))
        point = join("concat", list(result.values()), source)
    ends = Ends(tuple(names), widths) if len(names) > 1 else Ends()
    if free:
        if any(map(cuts, (point.running().since(None) or ())[1:])):
            raise ConversionError(
                source,
                f"takes {len(names)} inputs, {', '.join(names)}, and its layers don't tell how many "
                "features each has; say so: "
                f"from_torch(module, inputs={{{', '.join(f'{n!r}: ...' for n in names)}}})",
            )
        ends = Ends(tuple(names), (0,) * len(names))
    return (ends, outputs), point, traced.of_rows or reader.of_rows


def _cuts(torch: Any, traced: Traced, source: str, dtype: DType) -> bool:
    """Whether a forward may look at some features of its input before a layer has taken them all."""
    reader = Reader(torch, traced.module, source, dtype)
    try:
        result = reader.run(traced.graph)
    except ConversionError:
        return True
    point = result if isinstance(result, Point) and result.runs else None
    first = () if point is None else (point.since(None) or ())[1:2]
    joins = [s for s in first if isinstance(s, Join) and s.in_features is None]
    return point is None or bool(joins) or any(map(cuts, first))


def _deduced(torch: Any, traced: Traced, source: str, dtype: DType) -> tuple[tuple[int, ...], bool]:
    """Return the features of several inputs, as layers take them; and whether any would do.

    Each input gets a number of features of which multiples can be told apart; what the layers take
    are equations.
    """
    count = len(traced.inputs)
    marks = [1 << (_BITS * (i + 2)) for i in range(count)]
    reader = Reader(torch, traced.module, source, dtype, marks)
    with suppress(ConversionError):  # the same comes again, with the right numbers
        reader.run(traced.graph)
    rows = []
    for features, takes in reader.taken:
        times, rest = [0] * count, features
        for i in reversed(range(count)):
            times[i] = (rest + marks[i] // 2) // marks[i]
            rest -= times[i] * marks[i]
        if any(times):
            rows.append([*times, takes - rest])
    equations = np.array(rows or [[0] * (count + 1)], np.float64)
    a, b = equations[:, :-1], equations[:, -1]
    solved = np.linalg.lstsq(a, b, rcond=None)[0].round()
    right = bool((a @ solved == b).all())
    if right and (solved >= 1).all() and np.linalg.matrix_rank(a) == count:
        return tuple(map(int, solved)), False
    total = next((int(row[-1]) for row in rows if row[:-1] == [1] * count), count)
    return (*(1,) * (count - 1), max(total - count + 1, 1)), True


def _not_a_module(module: object) -> str:
    hint = ""
    if isinstance(module, dict):
        hint = "; a state dict goes to fl.from_state_dict"
    elif isinstance(module, str) or hasattr(module, "__fspath__"):
        hint = "; a file of weights goes to fl.load or fl.from_state_dict"
    elif isinstance(module, type):
        hint = "; give an object, not the class"
    return f"from_torch takes a torch.nn.Module, got {type(module).__name__}{hint}"


def _dtype(torch: Any, module: Any) -> DType | None:
    """Return the dtype of all weights, in which the network will compute; None without any."""
    named = [*module.named_parameters(), *module.named_buffers()]
    lazy = [name for name, t in named if torch.nn.parameter.is_lazy(t)]
    if lazy:
        raise ConversionError(
            f"parameter {lazy[0]!r}", "has no shape yet; call the module on some rows first"
        )
    held: dict[str, str] = {}
    for name, t in named:
        if t.is_floating_point() or t.is_complex():
            held.setdefault(str(t.dtype).removeprefix("torch."), name)
    for found, name in held.items():
        if found not in ("float32", "float64"):
            raise ConversionError(
                f"parameter {name!r}",
                f"is {found}; fastlayer computes in float32 or float64: convert module.float()",
            )
    if len(held) > 1:
        (first, a), (second, b) = held.items()
        raise ConversionError(
            f"parameter {b!r}",
            f"is {second}, but {a!r} is {first}; a network has one dtype: convert module.float() "
            "or module.double()",
        )
    return np.dtype(next(iter(held))) if held else None


def _check_hooks(module: Any) -> None:
    for name, m in module.named_modules():
        hooks = [*m._forward_pre_hooks.values(), *m._forward_hooks.values()]
        if hooks:
            hook = getattr(hooks[0], "__name__", type(hooks[0]).__name__)
            raise ConversionError(
                f"module {name!r} (torch {type(m).__name__})",
                f"has a forward hook, {hook}, that may change its result; remove it first",
            )


@contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """Put the module in eval mode for a while."""
    training = [m for m in module.modules() if m.training]
    try:
        for m in training:
            m.training = False
        yield
    finally:
        for m in training:
            m.training = True


def _run(torch: Any, module: Any, x: Array, widths: Sequence[int], outputs: Ends) -> Array:
    device = next((p.device for p in module.parameters()), "cpu")
    columns = np.split(x, np.cumsum(widths)[:-1], axis=1) if widths else [x]
    with torch.no_grad():
        y = module(*(torch.from_numpy(np.ascontiguousarray(c)).to(device) for c in columns))
    if not outputs.names:
        return _rows(y, len(x), None)
    given = list(y.values()) if isinstance(y, dict) else y
    parts = [_rows(t, len(x), n) for t, n in zip(given, outputs.widths, strict=True)]
    return np.concatenate(parts, axis=1)


def _rows(y: Any, count: int, features: int | None) -> Array:
    """Return what a module gives as rows: (m,) is (m, 1) here, and a constant is in each."""
    a: Array = y.detach().cpu().numpy()
    if features is not None:
        return np.broadcast_to(a.reshape(-1, features), (count, features))
    return a.reshape(count, -1) if a.ndim == 1 else a
