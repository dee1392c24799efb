"""PyTorch in inference mode, on tensors: its users don't convert at every call.

Networks: `nn.Sequential` of `nn.Linear` and modules, the same parameters through `nn.functional`,
without the modules' hooks, and compiled ahead of time by AOTInductor. `torch.compile` makes the same
kernels and checks guards at each call; with it, 784-512-512-10 took longer than eager at 1, 8 and 256
rows, so it is not tried. Functions: plain, and `out=` where there is one.
"""

from __future__ import annotations

from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise

from peers import _torch_compiled
from peers._files import state_dict_file

NAMES = {  # where torch.nn.functional has another name than fastlayer
    "log_sigmoid": "logsigmoid",
}
LIMITS = {"relu6": (0, 6), "hardtanh": (-1, 1)}


def available() -> str | None:
    try:
        return version("torch")
    except PackageNotFoundError:
        return None


def prepare(case, dtype: str, threads: int):
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(threads)
    torch.inference_mode().__enter__()  # for the life of the process

    def function(act: str):
        if "softmax" in act:
            return lambda x: getattr(functional, act)(x, dim=-1)
        if act in ("exp", "tanh", "sigmoid", "relu", "sin", "cos"):
            return getattr(torch, act)
        return getattr(functional, NAMES.get(act, act))

    inputs = tuple(torch.from_numpy(array) for array in case.inputs(dtype))
    if case.kind == "accelerate":
        return None
    if case.kind == "load":
        return _load(case, dtype, inputs)
    if case.kind == "activation":
        return _with_out(case.hidden, function(case.hidden), inputs)
    if case.kind == "matmul":
        into = partial(torch.matmul, out=torch.empty(case.sizes[::2], dtype=inputs[0].dtype))
        return {"matmul": (torch.matmul, inputs), "matmul, out=": (into, inputs)}
    if case.kind == "linear":
        out, addmm = torch.empty(case.sizes[::2], dtype=inputs[0].dtype), torch.addmm
        forms = {"linear": functional.linear}
        forms["addmm, out="] = lambda x, weight, bias: addmm(bias, x, weight.t(), out=out)
        return {name: (form, inputs) for name, form in forms.items()}
    if case.kind == "column":
        tensors = [
            (torch.from_numpy(w), torch.from_numpy(b)[:, None], function(act) if act else None)
            for w, b, act in case.layers(dtype)
        ]

        def column(a):
            for weight, bias, act in tensors:
                a = weight @ a + bias
                if act:
                    a = act(a)
            return a

        return {"weight @ a + bias": (column, inputs)}

    if case.kind == "critic":
        (first, *others) = [
            (torch.from_numpy(w), torch.from_numpy(b), function(act) if act else lambda z: z)
            for w, b, act in case.layers(dtype)
        ]

        def critic(x, u):
            weight, bias, act = first
            h = torch.cat([act(functional.linear(x, weight, bias)), u], dim=1)
            for weight, bias, act in others:
                h = act(functional.linear(h, weight, bias))
            return h

        return {"nn.functional": (critic, inputs)}

    kinds = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU}
    kinds["softmax"] = partial(nn.Softmax, dim=-1)
    modules, steps = [], []
    for w, b, act in case.layers(dtype):
        layer = nn.Linear(*w.shape[::-1], dtype=inputs[0].dtype).requires_grad_(False)
        layer.weight.copy_(torch.from_numpy(w))
        layer.bias.copy_(torch.from_numpy(b))
        modules.append(layer)
        steps.append((layer.weight, layer.bias, function(act) if act else None))
        if act:
            modules.append(kinds[act]())
    linear = functional.linear

    def forward(h):
        for weight, bias, act in steps:
            h = linear(h, weight, bias)
            if act:
                h = act(h)
        return h

    net = nn.Sequential(*modules).eval()
    forms = {"nn.Sequential": (net, inputs), "nn.functional": (forward, inputs)}
    compiled = _torch_compiled.compiled(case, dtype, threads, net, inputs)
    return forms if compiled is None else forms | {"AOTInductor": (compiled, inputs)}


def _load(case, dtype: str, inputs):
    """From a state dict's file to the first result, the module built anew."""
    import torch
    from torch import nn

    if case.layout not in ("pt", "safetensors"):
        return None
    path = state_dict_file(case, dtype)
    if path is None:
        return None
    if case.layout == "safetensors":
        from safetensors.torch import load_file as read
    else:
        read = partial(torch.load, weights_only=True, mmap=False)
    pairs = list(pairwise(case.sizes))

    def load(x):
        modules = []
        with torch.device("meta"):  # spares the random weights
            for i, (k, n) in enumerate(pairs):
                modules += [nn.Linear(k, n), *([nn.ReLU()] if i < len(pairs) - 1 else [])]
            net = nn.Sequential(*modules).eval()
        net.load_state_dict(read(path), assign=True)
        net.requires_grad_(False)
        return net(x)

    return {"load_state_dict": (load, inputs)}


def _with_out(name: str, plain, inputs):
    import torch

    out = torch.empty_like(inputs[0])
    if name in ("exp", "tanh", "sigmoid", "sin", "cos"):
        into = partial(getattr(torch, name), out=out)
    elif name == "relu":
        into = partial(torch.clamp_min, min=0, out=out)
    elif "softmax" in name:
        into = partial(getattr(torch, name), dim=-1, out=out)
    elif name in LIMITS:
        low, high = LIMITS[name]
        into = partial(torch.clamp, min=low, max=high, out=out)
    else:
        return {"plain": (plain, inputs)}
    return {"plain": (plain, inputs), "out=": (into, inputs)}


def learners(task):
    """The usual loop, with the optimiser's loops over tensors, its lists of them, and fused."""
    from peers import _torch_training

    ways = {"foreach": {"foreach": True}, "fused": {"fused": True}, "loop": {"foreach": False}}
    return {name: _torch_training.learner(task, **how) for name, how in ways.items()}
