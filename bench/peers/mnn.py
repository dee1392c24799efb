"""MNN: a session for shapes that are fixed, of a model that its converter makes from ONNX; float32.

The input is set before; the result is copied to an array, as it lies in a layout of MNN's own. The
newer Module takes 0.8 us more a call and the same time for the rest, so it is not tried.
"""

from __future__ import annotations

import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from peers._onnx_graph import graph, result_shape


def available() -> str | None:
    try:
        version("onnx")
        return version("MNN")
    except PackageNotFoundError:
        return None


def prepare(case, dtype: str, threads: int):
    if dtype == "float64" or case.hidden in ("gelu", "mish"):
        return None  # it has no Mish, and for GELU the approximation by tanh
    found = graph(case, dtype)
    if found is None:
        return None
    # its converter; not by MNN.tools, which installs packages when imported, and reports its use
    import _tools
    import MNN

    model, feed = found
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "model.onnx", Path(folder) / "model.mnn"
        source.write_bytes(model)
        names = ["--modelFile", str(source), "--MNNModel", str(target), "--bizCode", "bench"]
        _tools.mnnconvert(["mnnconvert", "-f", "ONNX", *names])
        net = MNN.Interpreter(str(target))
    settings = {"backend": "CPU", "numThread": threads, "precision": "high"}  # float32 throughout
    session = net.createSession(settings)
    net.resizeSession(session)
    inputs = net.getSessionInputAll(session)

    def tensor(array: np.ndarray) -> MNN.Tensor:
        kind = MNN.Halide_Type_Float
        return MNN.Tensor(array.shape, kind, array, MNN.Tensor_DimensionType_Caffe)

    for name, array in feed.items():
        inputs[name].copyFrom(tensor(np.ascontiguousarray(array)))
    arrays = tuple(feed.values())
    result = tensor(np.empty(result_shape(case, arrays), np.float32))
    run, copy = net.runSession, net.getSessionOutput(session).copyToHostTensor
    read = result.getNumpyData

    def call(*_):
        run(session)
        copy(result)
        return read()

    return {"session": (call, arrays)}
