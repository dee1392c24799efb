"""Networks from PyTorch: `from_torch`. PyTorch itself is never imported here."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlayer.arrays import FLOAT64
from fastlayer.convert._graph import Draft
from fastlayer.convert._torch.forward import Reader
from fastlayer.convert._torch.trace import trace
from fastlayer.errors import ConversionError
from fastlayer.network.network import ANY_DTYPE, ONE_ROW

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastlayer.arrays import Array, DType
    from fastlayer.network.network import Network

# Wrappers whose result is that of the module inside.
_WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
}


def from_torch(module: Any, *, verify: bool = True) -> Network:
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
        their functions one after the other, with residual sums. Parameters are all float32 or
        all float64, and so is the network. Where it names an axis, samples are single rows.
    verify : bool
        Run both on random and edge inputs, and refuse where they differ by more than rounding.
        A module that lives on another device is run there.

    Returns
    -------
    Network
        Its `verification` tells how far the two were apart.

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
            source, "is compiled TorchScript; convert the module that it was made from"
        )
    held = _dtype(torch, module)
    dtype = held or FLOAT64
    _check_hooks(module)
    with _evaluating(module):
        traced, graph, of_rows = trace(torch, module, source, dtype)
        traits = () if held else (ANY_DTYPE,)
        point = Reader(torch, traced, source, dtype).run(graph)
        if of_rows:
            traits = (*traits, ONE_ROW)
        draft = Draft(point, dtype, source, traits=traits)
        return draft.proved(lambda x: _run(torch, module, x)) if verify else draft.network()


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


def _run(torch: Any, module: Any, x: Array) -> Array:
    device = next((p.device for p in module.parameters()), "cpu")
    with torch.no_grad():
        y: Array = module(torch.from_numpy(x).to(device)).cpu().numpy()
    return y.reshape(len(x), -1) if y.ndim == 1 else y  # (m,) is (m, 1) here
