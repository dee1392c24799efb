"""Run by test_memory.py with failing_malloc.c preloaded: out of memory at every allocation.

``out_of_memory.py SHIM`` makes each call with its first allocation failing, then its second, and
so on until none fails. Each time it must raise MemoryError, or give the right bits where somebody
could do without the memory; and the call after it must give the right bits.
"""

import ctypes
import sys

import numpy as np

import fastlayer as fl

shim = ctypes.CDLL(sys.argv[1])
until_failure = ctypes.c_long.in_dll(shim, "allocations_until_failure")
failed = ctypes.c_long.in_dll(shim, "allocations_failed")

rng = np.random.default_rng(0)
x, w, b = (rng.standard_normal(s).astype("f4") for s in ((40, 30), (20, 30), 20))
layer = fl.Layer.from_arrays(w, b, "relu")
net = fl.Network([layer, fl.LayerNorm(20), fl.Layer.from_arrays(w[:, :20].copy(), b, "tanh")])
out = np.empty((40, 20), "f4")
turned = np.empty((20, 40), "f4").T
ints = np.arange(1200).reshape(40, 30)


def build():
    inner = fl.Layer.from_arrays(w[:, :20], b, fl.Activation("elu", alpha=0.5))
    made = fl.Network([fl.Layer.from_arrays(w, b, "relu"), fl.Residual([inner])])
    return made(x)


def update():
    layer.update(weight=w, bias=b)
    return net(x)


CALLS = {
    "linear": lambda: fl.linear(x, w, b, "gelu"),
    "linear, bias of rows": lambda: fl.linear(x, w, np.ones((40, 20), "f4"), "softmax"),
    "linear of lists": lambda: fl.linear([[1.0, 2.0]], [[3.0, 4.0]], [0.5]),
    "linear to a turned out": lambda: fl.linear(x, w, b, out=turned),
    "matmul": lambda: fl.matmul(x, w.T),
    "matmul over its input": lambda: fl.matmul(x[:, :20], w[:, :20].copy(), out=out),
    "dot": lambda: fl.dot(x, w[0]),
    "dense_forward": lambda: fl.dense_forward(x.T, w, b[:, None], "tanh")[0],
    "bias_add": lambda: fl.bias_add(x, x[0]),
    "tanh": lambda: fl.tanh(x[:, ::-2]),
    "softmax": lambda: fl.softmax(x, axis=0),
    "a backward pass": lambda: fl.activation_backward(x, x[:, ::-1], "tanh"),
    "a backward pass of softmax": lambda: fl.activation_backward(x, x, "softmax"),
    "gradients": lambda: fl.linear_backward(x[:, :20], x, w)[1],
    "a layer": lambda: layer(x),
    "a layer on integers": lambda: layer(ints),
    "a network": lambda: net(x),
    "a network on columns": lambda: net(x.T, axis=0),
    "a network with out": lambda: net(x, out=out),
    "predict": lambda: net.predict(x, batch_size=7),
    "predict of a stream": lambda: net.predict([x[:7], x[7:]]),
    "building": build,
    "updating": update,
}


def same(a, c):
    return a.dtype == c.dtype and a.shape == c.shape and bytes(a.data) == bytes(c.data)


fl.set_num_threads(1)
for name, call in CALLS.items():
    for _ in range(3):
        expected = np.array(call())
    failures = 0
    while True:
        nth, before = failures + 1, failed.value
        y = None
        until_failure.value = nth
        try:  # noqa: SIM105  # suppress() would itself allocate
            y = call()
        except MemoryError:
            pass
        until_failure.value = 0
        if y is None and failed.value == before:
            sys.exit(f"{name}: MemoryError without a failure")
        if y is not None and not same(np.asarray(y), expected):
            sys.exit(f"{name}: a wrong result, allocation {nth} failing")
        if not same(np.asarray(call()), expected):
            sys.exit(f"{name}: wrong after allocation {nth} failed")
        if failed.value == before:
            break
        failures += 1
    print(f"{name}: {failures} failures")
    # A network's call with `out` is one without allocations.
    if (failures == 0) != (name == "a network with out"):
        sys.exit(f"{name}: {failures} failures")
