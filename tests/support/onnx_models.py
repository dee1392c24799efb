"""ONNX models for the tests: made from the text of their nodes, run by ONNX Runtime or the reference.

Nodes are written as onnx.parser reads them, ``y = Gemm<transB=1>(x, w, b)``; the input is x, the
output is y.
"""

from __future__ import annotations

import re

import numpy as np
import onnx
from helpers import reference
from model_files import assert_round_trips
from onnx import helper, numpy_helper, parser

from fastlayer.convert._prove import prove
from fastlayer.convert.onnx import from_onnx

NEWEST = onnx.defs.onnx_opset_version()
# One hidden layer: DENSE, then the lines that make a of h, then BACK.
DENSE = "h = Gemm<transB=1>(x, w, b)\n"
BACK = "\ny = Gemm<transB=1>(a, v, c)"
WEIGHTS = {"w": (6, 4), "b": (6,), "v": (3, 6), "c": (3,)}


def make(text, opset=17, dtype=np.float32, shape=("N", 4), seed=0, **constants):
    """Return a model; a constant is an array, or a shape that random numbers fill."""
    rng = np.random.default_rng(seed)
    arrays = {
        name: value
        if isinstance(value, np.ndarray)
        else np.asarray(rng.standard_normal(value) / np.sqrt(max(value, default=1)), dtype)
        for name, value in constants.items()
    }
    lines = [line.strip() for line in text.strip().splitlines()]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [parser.parse_node(line) for line in lines],
        "graph",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(a, name) for name, a in arrays.items()],
    )
    # ONNX Runtime reads no newer version of the file format than this one.
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def number(value, dtype=np.float32):
    return np.array(value, dtype)


def integers(*values):
    return np.array(values, np.int64)


def _run(model):
    import onnxruntime
    from onnx.reference import ReferenceEvaluator

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Its optimiser puts float32 operators in the place of float64 ones.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # a type or an opset that it hasn't got, each its own class
        if not re.search("NOT_IMPLEMENTED|not implemented|opset|domain_version", str(error)):
            raise
        session = ReferenceEvaluator(model)
    return lambda x: session.run(None, {"x": x})[0]


def judge(model):
    """Return what runs the model on rows (m, features), whatever its input and batch size are."""
    run = _run(model)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    if len(dims) == 1:
        return lambda x: np.stack([np.atleast_1d(np.squeeze(run(row))) for row in x])
    sample = [d.dim_value for d in dims[1:]]
    frozen = dims[0].dim_value or None

    def rows(x):
        step = frozen or len(x)
        padded = np.concatenate([x, np.repeat(x[:1], -len(x) % step, axis=0)])
        parts = padded.reshape(-1, step, *sample)
        return np.concatenate([run(p).reshape(step, -1) for p in parts])[: len(x)]

    return rows


def check(model, shape=None):
    """Convert and prove equal, within the bound on rounding that `prove` derives."""
    net = from_onnx(model)
    assert shape is not None or net.verification.bound_share <= 1
    run = judge(model)
    rng = np.random.default_rng(1)
    if shape is None:
        prove(net, run, source="onnx", rows=24)
        assert_round_trips(net, rng.standard_normal((9, net.in_features or 5)))
        return net
    x = rng.standard_normal((9, int(np.prod(shape)))).astype(net.dtype)
    assert_round_trips(net, x.reshape(9, *shape))
    ours, theirs = net(x.reshape(9, *shape)).reshape(9, -1), run(x)
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    # Sums of at most 30 products of normal numbers, the weights scaled to keep them normal: fewer
    # than 100 roundings of numbers below 10.
    assert np.abs(ours - theirs).max() <= 1000 * np.finfo(net.dtype).eps
    return net


def check_by_hand(model, activation, **parameters):
    """Prove a hidden layer with this activation right where the judges compute it in float32."""
    w, b, v, c = (numpy_helper.to_array(t) for t in model.graph.initializer[:4])

    def run(x):
        h = x @ w.T + b
        a = reference(activation, h.ravel(), x.dtype, **parameters).astype(x.dtype)
        return a.reshape(h.shape) @ v.T + c

    net = from_onnx(model)
    prove(net, run, source="by hand", rows=24)
    return net
