"""ONNX Runtime: a session with constant weights, default graph optimizations, default spinning."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from peers._onnx_graph import graph


def available() -> str | None:
    try:
        version("onnx")  # writes the models
        return version("onnxruntime")
    except PackageNotFoundError:
        return None


def prepare(case, dtype: str, threads: int):
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import InvalidGraph, NotImplemented

    found = graph(case, dtype)
    if found is None:
        return None
    model, feed = found
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    except (InvalidGraph, NotImplemented):
        return None  # some operators have no float64 form
    run, names = session.run, ["y"]
    if len(feed) == 1:
        return lambda x: run(names, {"x": x})[0], tuple(feed.values())
    return lambda *arrays: run(names, dict(zip(feed, arrays, strict=True)))[0], tuple(feed.values())
