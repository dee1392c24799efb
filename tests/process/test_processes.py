"""Networks that travel: every pickle protocol, cloudpickle, copies, and workers that start anew."""

from __future__ import annotations

import copy
import io
import pickle
import pickletools
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_same_bits
from own_process import finish

import fastlayer as fl

DATA = Path(__file__).parents[1] / "data"
PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)


def grid(*shape, step=1):
    """Small multiples of 1/8, whose products and sums are exact."""
    return ((np.arange(np.prod(shape)) * step) % 17 - 8).reshape(shape) / 8


def network(dtype):
    """One part of every kind; the weights do not come from a random generator."""
    leaky = fl.Activation("leaky_relu", negative_slope=0.25)
    prelu = fl.Activation("prelu", weight=grid(6, step=3))
    parts = [
        fl.Flatten(),
        fl.Layer.from_arrays(grid(8, 12), grid(8), "relu", dtype=dtype),
        fl.BatchNorm(8, 1e-5, grid(8), grid(8), grid(8, step=3), grid(8) + 2, dtype),
        fl.Layer.from_arrays(grid(6, 8, step=5), None, prelu, dtype=dtype),
        fl.LayerNorm(6, weight=grid(6) + 2, bias=grid(6), dtype=dtype),
        fl.Residual([fl.Layer.from_arrays(grid(6, 6, step=7), grid(6), leaky, dtype=dtype)]),
        fl.RMSNorm(6, dtype=dtype),
        fl.Network([fl.Layer.from_arrays(grid(4, 6), grid(4), "softmax", dtype=dtype)]),
    ]
    return fl.Network(parts)


X = grid(9, 3, 4, step=11)
DTYPES = ["float32", "float64"]


def assert_alike(twin, net):
    assert repr(twin) == repr(net)
    assert twin.dtype == net.dtype
    assert_same_bits(twin(X), net(X))
    for part, other in zip(twin, net, strict=True):
        if isinstance(other, fl.Layer):
            assert_same_bits(part.weight, other.weight)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol(dtype, protocol):
    net = network(dtype)
    fresh = pickle.dumps(net, protocol)
    y = net(X)
    assert pickle.dumps(net, protocol) == fresh  # what a call has compiled does not go along
    assert_alike(pickle.loads(fresh), net)
    assert_same_bits(pickle.loads(fresh)(X), y)


@pytest.mark.parametrize("dtype", DTYPES)
def test_copies_and_cloudpickle(dtype):
    cloudpickle = pytest.importorskip("cloudpickle")
    net = network(dtype)
    for twin in (copy.copy(net), copy.deepcopy(net), pickle.loads(cloudpickle.dumps(net))):
        assert_alike(twin, net)
    scale = 0.5
    closure = fl.Network([net, lambda y: y * scale])
    assert_same_bits(pickle.loads(cloudpickle.dumps(closure))(X), closure(X))
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(closure)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_holds_plain_arrays_and_public_classes(protocol):
    """Nothing of the core: neither its classes nor its layout of the weights."""
    net = fl.Network([fl.Layer(300, 17, "relu", rng=0), fl.Layer(17, 3, rng=1)])
    net(np.ones((5, 300), np.float32))
    data = pickle.dumps(net, protocol)
    text = [arg for _, arg, _ in pickletools.genops(data) if isinstance(arg, str)]
    assert not [
        word for word in text if "fastlayer._core" in word or "Packed" in word or "Program" in word
    ]
    for layer in net:
        if protocol > 2:  # which writes bytes as text
            assert layer.weight.tobytes() in data
    # The packed form would pad 17 neurons to 32.
    plain = sum(layer.weight.nbytes + layer.bias.nbytes for layer in net)
    assert len(data) < (2 if protocol == 2 else 1) * plain + 1500


def bent(z):
    return z**3 + z


class ByHand:
    """A layer of columns, with an activation that fastlayer does not have."""

    def __init__(self, k, n):
        self.W, self.b, self.activation = grid(n, k), grid(n, 1), bent

    def forward(self, x):
        return self.activation(self.W @ x + self.b)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_names_public_places(protocol):
    """Modules inside the package can be moved without a pickle's noticing."""
    named = set()

    class Names(pickle.Unpickler):
        def find_class(self, module, name):
            named.add((module, name))
            return super().find_class(module, name)

    net, x = network("float32"), X.astype("f4")
    results = [net.summary(), net.profile(x, repeat=1), net.verify(net, x)]
    fast = fl.accelerate([ByHand(3, 4), ByHand(4, 2)])
    held = [net, fl.relu, fl.Layer(2, 2), *results, fast.verification, fast.network]
    Names(io.BytesIO(pickle.dumps(held, protocol))).load()
    ours = {name for module, name in named if module.split(".")[0] == "fastlayer"}
    returned = {"Summary", "Profile", "Verification", "Proof", "Oriented"}
    assert ours <= {*fl.__all__, *returned}
    assert returned <= ours
    assert {module for module, name in named if name in ours} == {"fastlayer"}
    assert {"Network", "Layer", "Activation", "BatchNorm", "Residual", "relu"} <= ours


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("protocol", [2, 5])
def test_a_pickle_of_the_first_version_is_read(dtype, protocol):
    """Files of 0.1.0, made by `network`; later versions have to go on reading them."""
    path = DATA / f"version1_{dtype}_protocol{protocol}.pickle"
    with path.open("rb") as file:
        assert_alike(pickle.load(file), network(dtype))


WORKERS = """
import multiprocessing, sys
import numpy as np
import fastlayer as fl

def work(net, rows):
    return net(rows).tobytes()

if __name__ == "__main__":
    net = fl.Network([fl.Layer(64, 256, "relu", rng=0), fl.Layer(256, 16, "softmax", rng=1)])
    x = np.random.default_rng(0).standard_normal((600, 64), dtype=np.float32)
    whole = net(x)
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        parts = pool.starmap(work, [(net, x[i : i + 100]) for i in range(0, 600, 100)])
    print(b"".join(parts) == whole.tobytes())
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_that_start_anew(tmp_path, method):
    """A used network as an argument: the same bits from every worker and for every part."""
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    code = f"import runpy, sys; sys.argv = [{str(script)!r}, {method!r}]; runpy.run_path(sys.argv[0], run_name='__main__')"
    if method == "forkserver" and sys.platform == "win32":
        pytest.skip("no forkserver on Windows")
    done = finish(code)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "True", "")
