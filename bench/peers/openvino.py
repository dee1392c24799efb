"""OpenVINO on the CPU, in float32: the default would round to bfloat16 where there is hardware.

Two forms: `infer` on shared NumPy arrays, and a request whose tensors were set before.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from peers._onnx_graph import file_of, graph


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
    core = openvino.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    if case.kind == "load" and case.layout == "onnx":
        path = str(file_of(case, dtype))

        def load(x):
            return core.compile_model(path, "CPU", settings)(x)[0]

        return {"compile": (load, case.inputs(dtype))}
    found = graph(case, dtype)
    if found is None:
        return None
    model, feed = found
    compiled = core.compile_model(core.read_model(model), "CPU", settings)
    arrays, names = tuple(feed.values()), tuple(feed)
    request, bound = compiled.create_infer_request(), compiled.create_infer_request()

    def shared(*arrays):  # shared inputs and outputs spare it two copies
        return request.infer(dict(zip(names, arrays, strict=True)), True, True)[0]

    for name, array in feed.items():
        bound.set_tensor(name, openvino.Tensor(array, shared_memory=True))
    bound.infer()
    start, wait, out = bound.start_async, bound.wait, bound.get_output_tensor(0).data

    def tensors(*_):
        start()
        wait()
        return out

    return {"infer": (shared, arrays), "bound tensors": (tensors, arrays)}
