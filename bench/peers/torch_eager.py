"""PyTorch eager, without gradients, on tensors: its users don't convert at every call."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

NAMES = {  # where torch.nn.functional has another name than fastlayer
    "log_sigmoid": "logsigmoid",
}


def available() -> str | None:
    try:
        return version("torch")
    except PackageNotFoundError:
        return None


def prepare(case, dtype: str, threads: int):
    import torch
    from torch.nn import functional

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)

    def function(act: str):
        if "softmax" in act:
            return lambda x: getattr(functional, act)(x, dim=-1)
        if act in ("exp", "tanh", "sigmoid", "relu"):
            return getattr(torch, act)
        return getattr(functional, NAMES.get(act, act))

    inputs = tuple(torch.from_numpy(array) for array in case.inputs(dtype))
    if case.kind == "activation":
        return function(case.hidden), inputs
    if case.kind == "matmul":
        return torch.matmul, inputs
    if case.kind == "linear":
        return functional.linear, inputs
    tensors = [
        (torch.from_numpy(w), torch.from_numpy(b), function(act) if act else None)
        for w, b, act in case.layers(dtype)
    ]
    if case.kind == "column":
        tensors = [(w, b[:, None], act) for w, b, act in tensors]

        def column(a):
            for weight, bias, act in tensors:
                a = weight @ a + bias
                if act:
                    a = act(a)
            return a

        return column, inputs

    linear = functional.linear

    def forward(h):
        for weight, bias, act in tensors:
            h = linear(h, weight, bias)
            if act:
                h = act(h)
        return h

    return forward, inputs  # faster than nn.Sequential, whose hooks cost some microseconds
