"""What people decide on beside the time of a call: how large a library is where it is installed, how
long its import takes, whether a row has the same bits alone and in a batch, whether it works in a
forked process, and pickles.

    python bench/comparison.py

writes results-comparison.json beside it, which publish.py puts into the README's table. Every library
is tried in a process of its own, with ReLUs, float32.
"""

from __future__ import annotations

import datetime
import json
import os
import pickle
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from importlib.metadata import distribution
from itertools import pairwise
from pathlib import Path

import numpy as np
from quiet import Quiet

HERE = Path(__file__).resolve().parent
SIZES = (784, 512, 512, 10)
OTHERS = ((64, 100, 10), (300, 200, 100, 8), (13, 7, 3), (50, 256, 256, 1))  # for the bits
PATIENCE = 20  # seconds for a call of 2 ms in a forked process
IMPORTS = 11  # processes, of which the median counts
# The distribution, the module.
LIBRARIES = {
    "fastlayer": ("fastlayer-nn", "fastlayer"),
    "numpy": ("numpy", "numpy"),
    "torch": ("torch", "torch"),
    "onnxruntime": ("onnxruntime", "onnxruntime"),
    "sklearn": ("scikit-learn", "sklearn.neural_network"),
}
IMPORT = """
import time
{first}
start = time.perf_counter()
import {module}
print(time.perf_counter() - start)
"""
Sizes = tuple[int, ...]


def weights(sizes: Sizes) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        ((rng.normal(size=(n, k)) / k**0.5).astype(np.float32), np.zeros(n, np.float32))
        for k, n in pairwise(sizes)
    ]


def fastlayer(sizes: Sizes):
    import fastlayer as fl

    *hidden, last = weights(sizes)
    layers = [fl.Layer.from_arrays(w, b, "relu") for w, b in hidden]
    net = fl.Network([*layers, fl.Layer.from_arrays(*last)])
    return net, net


def numpy(sizes: Sizes):
    layers = weights(sizes)

    def call(x):
        for w, b in layers[:-1]:
            x = np.maximum(x @ w.T + b, 0)
        return x @ layers[-1][0].T + layers[-1][1]

    return call, layers


def torch(sizes: Sizes):
    import torch
    from torch import nn

    parts: list[nn.Module] = []
    for w, b in weights(sizes):
        linear = nn.Linear(w.shape[1], w.shape[0])
        linear.load_state_dict({"weight": torch.from_numpy(w), "bias": torch.from_numpy(b)})
        parts += [linear, nn.ReLU()]
    model = nn.Sequential(*parts[:-1]).eval()

    def call(x):
        with torch.inference_mode():
            return model(torch.from_numpy(x)).numpy()

    return call, model


def onnxruntime(sizes: Sizes):
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        _, net = fastlayer(sizes)
        net.to_onnx(f"{folder}/model.onnx")
        session = onnxruntime.InferenceSession(f"{folder}/model.onnx")
    (given,) = session.get_inputs()
    return lambda x: session.run(None, {given.name: x})[0], session


def sklearn(sizes: Sizes):
    from sklearn.neural_network import MLPRegressor

    model = MLPRegressor(sizes[1:-1])
    model.coefs_ = [w.T for w, _ in weights(sizes)]
    model.intercepts_ = [b for _, b in weights(sizes)]
    model.n_layers_, model.n_outputs_, model.n_features_in_ = len(sizes), sizes[-1], sizes[0]
    model.out_activation_ = "identity"
    return model.predict, model


def same_bits(call, x: np.ndarray) -> bool:
    """Alone, in blocks, in another order, as in one batch."""
    y = call(x)
    blocks = [np.concatenate([call(x[i : i + n]) for i in range(0, len(x), n)]) for n in (1, 3, 50)]
    backwards = call(x[::-1].copy())[::-1]
    return all(np.array_equal(other, y) for other in (*blocks, backwards))


def after_fork(call, x: np.ndarray) -> str:
    """What becomes of a call in a child of a process that has used the library's threads."""
    y = call(x)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.allclose(call(x), y) else 3)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "works" if status == 0 else "crashes"
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hangs"


def pickles(thing) -> bool:
    try:
        pickle.loads(pickle.dumps(thing))
    except (TypeError, pickle.PicklingError):
        return False
    return True


def tried(name: str) -> dict:
    """In this process."""
    make, rng = globals()[name], np.random.default_rng(1)
    bits = True
    for sizes in OTHERS:
        call, _ = make(sizes)
        bits &= same_bits(call, rng.normal(size=(300, sizes[0])).astype(np.float32))
    call, thing = make(SIZES)
    x = rng.normal(size=(300, SIZES[0])).astype(np.float32)
    return {
        "same_bits": bits and same_bits(call, x),
        "fork": after_fork(call, x),
        "pickles": pickles(thing),
    }


def size(name: str) -> int:
    """Bytes of the files of a distribution and of what it needs, but for NumPy's."""
    seen, wanted, total = {"numpy"} - {name}, [name], 0
    while wanted:
        one = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        if one in seen:
            continue
        seen.add(one)
        found = distribution(one)
        paths = [Path(found.locate_file(file)) for file in found.files or []]
        total += sum(p.stat().st_size for p in paths if p.suffix != ".pyc" and p.is_file())
        for text in found.requires or []:
            need, _, marker = text.partition(";")
            if not marker.strip():  # the rest is for other systems, or extras
                wanted.append(re.match(r"[\w.-]+", need)[0])
    return total


def imported(module: str) -> float:
    """Seconds beside NumPy's, of a library that is compiled and in the cache of files."""
    first = "" if module == "numpy" else "import numpy"
    with tempfile.TemporaryDirectory() as folder:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = folder
        command = [sys.executable, "-c", IMPORT.format(first=first, module=module)]
        times = [
            float(subprocess.check_output(command, env=environment)) for _ in range(IMPORTS + 1)
        ]
    return statistics.median(times[1:])


def main() -> None:
    if len(sys.argv) == 2:
        print(json.dumps(tried(sys.argv[1])))
        return
    found = {}
    quiet = Quiet(600, say=lambda text: print(text, file=sys.stderr))
    for name, (of, module) in LIBRARIES.items():
        print(name, file=sys.stderr)
        command = [sys.executable, __file__, name]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
        found[name] |= {"version": distribution(of).version, "bytes": size(of)}
        seconds, load, _ = quiet.measure(partial(imported, module))
        found[name] |= {"import": round(seconds, 4), "disturbed": load.disturbing}
    results = {"date": datetime.date.today().isoformat(), "libraries": found}
    path = HERE / "results-comparison.json"
    path.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
