"""LiteRT, once TensorFlow Lite, with XNNPACK, which it takes by itself; float32 only.

Two forms: `set_tensor` and `get_tensor`, and views of its own tensors, with the input set before. Its
newer CompiledModel runs the same kernels and took 0.5 to 1 us more a call, so it is not tried.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def available() -> str | None:
    try:
        version("flatbuffers"), version("tflite")  # write the models
        return version("ai-edge-litert")
    except PackageNotFoundError:
        return None


def prepare(case, dtype: str, threads: int):
    if dtype == "float64":
        return None
    from ai_edge_litert.interpreter import Interpreter

    from peers._tflite_graph import graph

    found = graph(case)
    if found is None:
        return None
    model, arrays = found
    interpreter = Interpreter(model_content=model, num_threads=threads)
    interpreter.allocate_tensors()
    places = [detail["index"] for detail in interpreter.get_input_details()]
    place = interpreter.get_output_details()[0]["index"]
    invoke, put, get = interpreter.invoke, interpreter.set_tensor, interpreter.get_tensor
    result = interpreter.tensor(place)

    def copied(*arrays):
        for i, array in zip(places, arrays, strict=True):
            put(i, array)
        invoke()
        return get(place)

    def views(*_):
        invoke()
        return result()

    for i, array in zip(places, arrays, strict=True):
        put(i, array)
    return {"set and get": (copied, arrays), "tensor views": (views, arrays)}
