"""Beside other native libraries in one process, and what importing and calling leave unchanged."""

from __future__ import annotations

import importlib.util
import itertools
import platform
from pathlib import Path

import pytest
import registers
from own_process import run_python

NEIGHBOURS = ("torch", "sklearn", "onnxruntime", "lightgbm")

# What is imported first in each order of the neighbours, and where among them the package comes.
ORDERS = [
    (*order[: i % 5], "fastlayer", *order[i % 5 :])
    for i, order in enumerate(itertools.permutations(NEIGHBOURS))
]
# The package first, and last.
FEW = [ORDERS[0], ORDERS[14]]

COMPUTE = """
import numpy as np
rng = np.random.default_rng(0)
x = rng.standard_normal((512, 64)).astype(np.float32)
labels = (x.sum(axis=1) > 0).astype(int)

def fastlayer():
    net = module.Network([module.Layer(64, 256, "relu", rng=0), module.Layer(256, 8, rng=1)])
    module.set_num_threads(3)
    y = net(x)
    (first, second) = net
    hidden = np.maximum(x.astype("f8") @ first.weight.T + first.bias, 0)
    np.testing.assert_allclose(y, hidden @ second.weight.T + second.bias, atol=1e-4)
    digests.add(y.tobytes())

def torch():
    a = module.from_numpy(x)
    np.testing.assert_allclose((a @ a.T).numpy(), x @ x.T, atol=1e-3)

def sklearn():
    from sklearn.ensemble import HistGradientBoostingClassifier
    model = HistGradientBoostingClassifier(max_iter=5, min_samples_leaf=5).fit(x, labels)
    assert model.score(x, labels) > 0.7

def onnxruntime():
    from onnx import helper
    float32 = 1
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info(n, float32, s) for n, s in (("x", [512, 64]), ("w", [64, 9]))],
        [helper.make_tensor_value_info("y", float32, [512, 9])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    w = x[:9].T.copy()
    session = module.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": x, "w": w})[0], x @ w, atol=1e-3)

def lightgbm():
    data = module.Dataset(x, labels)
    model = module.train({"objective": "binary", "verbose": -1, "min_data_in_leaf": 5}, data, 5)
    assert ((model.predict(x) > 0.5) == labels).mean() > 0.7
"""


@pytest.mark.parametrize(
    "order",
    [
        pytest.param(order, id="-".join(order), marks=() if order in FEW else pytest.mark.long)
        for order in ORDERS
    ],
)
def test_import_orders(order):
    """Each library computes right after its import and again after all others', ours the same bits."""
    for name in (*NEIGHBOURS, "onnx"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    code = f"""
import importlib, warnings
warnings.simplefilter("ignore")
{COMPUTE}
digests, modules = set(), {{}}
for name in {order!r}:
    modules[name] = importlib.import_module(name)
    for earlier, module in modules.items():
        globals()[earlier]()
for name in reversed(modules):
    module = modules[name]
    globals()[name]()
assert len(digests) == 1
"""
    run_python(code)


# --- what stays as it was

# What a library might change in the process that imports it, and what it has no business with.
STATE = """
import faulthandler, gc, locale, os, signal, sys, threading, warnings
import ctypes
import numpy as np
sys.path.insert(0, {support!r})
from registers import control_register

def status():
    wanted = ("Threads", "SigBlk", "SigIgn", "SigCgt", "Cpus_allowed", "NoNewPrivs", "Seccomp")
    with open("/proc/self/status") as file:
        return [line for line in file if line.split(":")[0] in wanted]

def variables():
    environ = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
    return list(iter(iter(environ).__next__, None))

def state():
    return {{
        "threads": sorted(os.listdir("/proc/self/task")),
        "status": status(),
        "MXCSR": control_register(),
        "affinity": os.sched_getaffinity(0),
        "handlers": {{s: signal.getsignal(s) for s in signal.valid_signals()}},
        "timers": [signal.getitimer(t) for t in (0, 1, 2)],
        "environment": dict(os.environ),
        "C environment": variables(),
        "filters": list(warnings.filters),
        "showwarning": warnings.showwarning,
        "hooks": [sys.excepthook, sys.displayhook, sys.unraisablehook, threading.excepthook],
        "importers": [list(sys.meta_path), list(sys.path_hooks), list(sys.path)],
        "tracing": [sys.gettrace(), sys.getprofile(), faulthandler.is_enabled()],
        "interpreter": [sys.getrecursionlimit(), sys.getswitchinterval(), gc.get_threshold()],
        "locale": locale.setlocale(locale.LC_ALL),
        "numpy": [np.geterr(), np.get_printoptions(), np.random.get_state()[1].tolist()],
        "folder": [os.getcwd(), os.umask(0o22)],
        "files": sorted(os.readlink(f"/proc/self/fd/{{f}}") for f in os.listdir("/proc/self/fd")[:-1]),
    }}

def differences(before, after):
    return [key for key in before if before[key] != after[key]]

os.umask(0o22)
before = state()
"""


@pytest.fixture
def observed():
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        pytest.skip("reads /proc and MXCSR")
    return STATE.format(support=str(Path(registers.__file__).parent))


def test_import_changes_nothing(observed):
    code = f"{observed}\nimport fastlayer\nprint(differences(before, state()))"
    assert run_python(code, options=["-W", "error"]) == "[]"


def test_the_state_that_is_compared_shows_changes(observed):
    """The test above can fail: every kind of change is seen."""
    code = f"""{observed}
os.environ["A"] = "B"
signal.signal(signal.SIGUSR1, lambda *_: None)
warnings.simplefilter("ignore")
os.sched_setaffinity(0, {{max(os.sched_getaffinity(0))}})
control_register(control_register() | 0x8040)
threading.Thread(target=threading.Event().wait, daemon=True).start()
np.seterr(all="raise")
print(*differences(before, state()), sep=",")
"""
    found = "threads,status,MXCSR,affinity,handlers,environment,C environment,filters,numpy"
    seen = run_python(code).split(",")
    # A machine with a single core has no other affinity.
    assert [key for key in found.split(",") if key != "affinity"] == [
        key for key in seen if key != "affinity"
    ]


def test_calls_change_nothing_but_the_number_of_threads(observed):
    code = f"""{observed}
import fastlayer as fl
fl.set_num_threads(3)
net = fl.Network([fl.Layer(256, 256, "gelu", rng=0), fl.LayerNorm(256), fl.Layer(256, 16, "softmax")])
x = np.random.RandomState(0).standard_normal((512, 256)) * 1e30
for _ in range(20):
    net(x), net.predict(x), net.activations(x[:2]), fl.matmul(x, x.T), fl.softmax(x), net(x.T, axis=0)
for wrong in (x[:, 1:], "text", x * 1j):
    try:
        net(wrong)
    except (TypeError, ValueError):
        pass
print(differences(before, state()))
"""
    assert run_python(code) in ("['threads', 'status']", "[]")


IN_A_SUB_INTERPRETER = """
import importlib, sys

inside = '''
import warnings
warnings.simplefilter("ignore")  # NumPy has one for sub-interpreters
try:
    import fastlayer
except ImportError as error:
    print(error, flush=True)
'''
try:
    interpreters = importlib.import_module("_interpreters")
except ImportError:  # before CPython 3.13
    interpreters = importlib.import_module("_xxsubinterpreters")
interpreters.run_string(interpreters.create(), f"import sys; sys.path[:] = {sys.path!r}" + inside)
import fastlayer as fl
print(fl.relu([-1.0, 2.0]).tolist())
"""


def test_a_sub_interpreter_gets_an_import_error():
    said = run_python(IN_A_SUB_INTERPRETER)
    assert "only in the main one" in said
    assert said.endswith("[0.0, 2.0]")
