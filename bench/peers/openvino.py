"""OpenVINO on the CPU, in float32: the default would round to bfloat16 where there is hardware."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from peers._onnx_graph import graph


def available() -> str | None:
    try:
        version("onnx")
        return version("openvino")
    except PackageNotFoundError:
        return None


def prepare(case, dtype: str, threads: int):
    import openvino

    if dtype == "float64":
        return None  # its CPU plugin computes in float32 then
    found = graph(case, dtype)
    if found is None:
        return None
    model, feed = found
    core = openvino.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    compiled = core.compile_model(core.read_model(model), "CPU", settings)
    request = compiled.create_infer_request()
    # shared inputs and outputs spare it two copies
    if len(feed) == 1:
        return lambda x: _first(request.infer({"x": x}, True, True)), tuple(feed.values())
    names = tuple(feed)

    def call(*arrays):
        return _first(request.infer(dict(zip(names, arrays, strict=True)), True, True))

    return call, tuple(feed.values())


def _first(results):
    return results[0]
