"""ONNX Runtime: a session with constant weights, default graph optimizations, default spinning.

Two forms: `run` on NumPy arrays, and `run_with_iobinding` on buffers that were bound before.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import numpy as np

from peers._onnx_graph import file_of, graph, result_shape


def available() -> str | None:
    try:
        version("onnx")  # writes the models
        return version("onnxruntime")
    except PackageNotFoundError:
        return None


def _options(threads: int):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return options


def _load(case, dtype: str, threads: int):
    """From the file to the first result."""
    import onnxruntime

    path, options = str(file_of(case, dtype)), _options(threads)

    def load(x):
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        return session.run(["y"], {"x": x})[0]

    return {"session": (load, case.inputs(dtype))}


def prepare(case, dtype: str, threads: int):
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import InvalidGraph, NotImplemented

    if case.kind == "load" and case.layout == "onnx":
        return _load(case, dtype, threads)
    found = graph(case, dtype)
    if found is None:
        return None
    model, feed = found
    options = _options(threads)
    try:
        session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    except (InvalidGraph, NotImplemented):
        return None  # some operators have no float64 form
    run, names, arrays = session.run, ["y"], tuple(feed.values())
    if len(feed) == 1:

        def plain(x):
            return run(names, {"x": x})[0]

    else:

        def plain(*arrays):
            return run(names, dict(zip(feed, arrays, strict=True)))[0]

    binding, out = session.io_binding(), np.empty(result_shape(case, arrays), dtype)
    for name, array in feed.items():
        binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    binding.bind_output("y", "cpu", 0, out.dtype, out.shape, out.ctypes.data)
    run_bound = session.run_with_iobinding

    def bound(*_):
        run_bound(binding)
        return out

    return {"run": (plain, arrays), "IO binding": (bound, arrays)}
