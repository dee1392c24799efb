"""fastlayer: `Network` where weights stay the same, the functions on plain arrays elsewhere."""

from __future__ import annotations

import fastlayer as fl


def available() -> str | None:
    return fl.__version__


def prepare(case, dtype: str, threads: int):
    fl.set_num_threads(threads)
    inputs = case.inputs(dtype)
    if case.kind == "network":
        return fl.Network([fl.Layer.from_arrays(*layer) for layer in case.layers(dtype)]), inputs
    if case.kind == "column":
        layers = [(w, b[:, None], act) for w, b, act in case.layers(dtype)]

        def forward(a):
            for weight, bias, act in layers:
                a, _ = fl.dense_forward(a, weight, bias, act)
            return a

        return forward, inputs
    return getattr(fl, case.hidden if case.kind == "activation" else case.kind), inputs
