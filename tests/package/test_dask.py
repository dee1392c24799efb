"""`fastlayer.dask`: on Dask's own schedulers, and on a real cluster of two processes."""

from __future__ import annotations

import doctest
import os
import pickle
import signal
import subprocess
import sys
import time
from importlib import import_module

import numpy as np
import pytest
from helpers import assert_same_bits

import fastlayer as fl
from fastlayer.dask import fit, predict
from fastlayer.network.ends import Classes, Ends

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
tokenize = pytest.importorskip("dask.base").tokenize


def network(width=64):
    rng = np.random.default_rng(1)
    return fl.Network(
        [
            fl.Layer(24, width, "relu", rng=0),
            fl.BatchNorm(width, running_mean=rng.normal(size=width).astype("f4")),
            fl.Residual(fl.LayerNorm(width), fl.Layer(width, width, "gelu", rng=1)),
            fl.Layer(width, 5, "softmax", rng=2),
        ]
    )


@pytest.fixture
def x(rng):
    return rng.standard_normal((103, 24)).astype(np.float32)


CHUNKS = [(103, 24), (10, 24), (1, 24), (50, 7), ((1, 90, 12), (23, 1)), (103, 1)]


@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
def test_bits_do_not_depend_on_chunks(x, chunks):
    net = network()
    y = predict(net, da.from_array(x, chunks=chunks))
    expected = net(x)
    assert isinstance(y._meta, np.ndarray)
    assert (y.shape, y.dtype) == (expected.shape, expected.dtype)
    assert y.chunks == (da.from_array(x, chunks=chunks).chunks[0], (5,))
    assert_same_bits(y.compute(scheduler="threads", num_workers=2), expected)


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float16, np.float64, bool])
def test_any_real_dtype(x, kind):
    a = (x * 3).astype(kind)
    assert_same_bits(predict(network(), da.from_array(a, 40)).compute(), network()(a))


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ((24,), 7),
        ((24,), 24),
        ((0, 24), 5),
        ((4, 3, 24), (3, 2, 5)),
        ((2, 2, 3, 24), (1, 2, 2, 24)),
    ],
    ids=str,
)
def test_any_number_of_dimensions(rng, shape, chunks):
    a = rng.standard_normal(shape)
    y = predict(network(), da.from_array(a, chunks=chunks))
    expected = network()(a)
    assert y.shape == expected.shape
    assert_same_bits(y.compute(), expected)


def test_a_layer_and_an_activation_alone(x):
    layer = fl.Layer(24, 3, rng=0)
    assert_same_bits(predict(layer, da.from_array(x, 40)).compute(), layer(x))
    net = fl.Network(["softmax"])
    assert_same_bits(predict(net, da.from_array(x, (40, 5))).compute(), net(x))


@pytest.mark.parametrize(
    "part",
    [lambda a: a[:, :, None], lambda a: a[:, 0], lambda a: a * 2, lambda a: a[:, None, :2]],
    ids=["one axis more", "one less", "the same", "another shape"],
)
def test_python_functions_may_change_the_shape_of_a_row(x, part):
    net = fl.Network([fl.Layer(24, 6, rng=0), part])
    y = predict(net, da.from_array(x, (40, 5)))
    assert y.shape == net(x).shape
    assert_same_bits(y.compute(), net(x))


def test_flatten_brings_images_together(rng):
    images = rng.integers(0, 256, (21, 4, 6), np.uint8)
    net = fl.Network([fl.Flatten(), *network()])
    y = predict(net, da.from_array(images, chunks=(8, 3, 5)))
    assert y.chunks == ((8, 8, 5), (5,))
    assert_same_bits(y.compute(), net(images))


def test_unknown_numbers_of_rows(x):
    a = da.from_array(x, (40, 5))
    y = predict(network(), a[a[:, 0] > 0])
    assert np.isnan(y.shape[0])
    assert_same_bits(y.compute(), network()(x[x[:, 0] > 0]))


def sparse_blocks(a):
    sparse = pytest.importorskip("scipy.sparse")
    return a.map_blocks(sparse.csr_matrix, meta=sparse.csr_matrix((0, 0)))


def test_several_outputs_and_labels(x):
    """Each is an array of its own, lazily, in the blocks of the rows."""
    heads = fl.Concat([fl.Layer(24, 3, "softmax", rng=3), fl.Layer(24, 2, rng=4)])
    net = fl.Network([heads], inputs=[20, 4], outputs={"p": 3, "v": 2})
    given = predict(net, da.from_array(x, chunks=(25, 24)))
    for lazy, right in zip(given, net(x), strict=True):
        assert lazy.chunks[0] == (25, 25, 25, 25, 3)
        assert_same_bits(lazy.compute(), right)
    for keepdims in (False, True):
        classes = Classes(("a", "bc", "d"), keepdims)
        net = net.copy()
        net._end(net._in, Ends(("label", "v"), (3, 2), (classes, None)))
        labels, values = predict(net, da.from_array(x, chunks=(25, 7)))
        assert labels.shape == ((103, 1) if keepdims else (103,))
        assert (labels.compute() == net(x)[0]).all()
        assert labels.dtype == net(x)[0].dtype
        assert_same_bits(values.compute(), net(x)[1])


def test_refuses(x):
    a = da.from_array(x, 40)
    net = network()
    for error, message, call in (
        (ValueError, r"got \(103, 23\)", lambda: predict(net, a[:, 1:])),
        (ValueError, "scalar", lambda: predict(net, a.sum())),
        (ValueError, "compute_chunk_sizes", lambda: predict(net, a[:, a[0] > 0])),
        (ValueError, "told apart", lambda: predict(fl.Network([lambda a: a.sum(axis=0)]), a)),
        (TypeError, "must be a dask.array.Array, got ndarray", lambda: predict(net, x)),
        (TypeError, "complex", lambda: predict(net, a.astype(complex))),
        (TypeError, "masked", lambda: predict(net, da.ma.masked_equal(a, 0))),
        (
            TypeError,
            "blocks of NumPy arrays, not csr_matrix",
            lambda: predict(net, sparse_blocks(a)),
        ),
        (TypeError, "Network or Layer, got function", lambda: predict(lambda a: a, a)),
    ):
        with pytest.raises(error, match=message):
            call()


def test_without_dask_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask.array", None)
    with pytest.raises(ImportError, match=r"pip install 'dask\[array\]'"):
        predict(network(), np.ones((3, 24)))


def test_the_example_of_the_docstring():
    failed, tried = doctest.testmod(import_module("fastlayer.dask"))
    assert tried
    assert not failed


def test_part_of_the_package_but_loaded_when_asked_for():
    assert fl.dask.predict is predict
    code = "import fastlayer as fl; print(fl.dask.predict.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "predict\n"


# --- tokens


def test_equal_networks_have_equal_tokens():
    net = network()
    for same in (network(), net.copy(), pickle.loads(pickle.dumps(net)), net[:]):
        assert tokenize(same) == tokenize(net)
    assert tokenize(net[0]) == tokenize(network()[0])


def test_whatever_changes_results_changes_the_token():
    seen = {tokenize(network())}

    def expect_new(net):
        token = tokenize(net)
        assert token not in seen
        seen.add(token)

    net = network()
    net[0].weight = net[0].weight * 2
    expect_new(net)
    net[0].bias = None
    expect_new(net)
    net[0].activation = "tanh"
    expect_new(net)
    net[0].activation = fl.Activation("leaky_relu", negative_slope=0.1)
    expect_new(net)
    net[0].activation = fl.Activation("leaky_relu", negative_slope=0.2)
    expect_new(net)
    net[2].layers[1].bias = np.ones(64)
    expect_new(net)
    expect_new(net[:3])
    expect_new(net[2])
    expect_new(net.astype("f8"))
    for norm in (fl.BatchNorm(4), fl.BatchNorm(5), fl.BatchNorm(4, 0.1), fl.LayerNorm(4)):
        expect_new(norm)
    for arrays in ({"weight": [1.0, 2.0]}, {"bias": [1.0, 2.0]}, {"weight": [2.0, 1.0]}):
        expect_new(fl.LayerNorm(2, **arrays))


def test_weights_are_hashed_once(monkeypatch):
    from fastlayer.network import layer, norms

    hashed = []
    for module in (layer, norms):
        digest = module.digest
        monkeypatch.setattr(module, "digest", lambda a, d=digest: hashed.append(1) or d(a))
    net = network()
    tokenize(net)
    assert len(hashed) == 5  # three layers, two norms
    tokenize(net)
    tokenize(net[1:3])
    assert len(hashed) == 5
    net[0].bias = np.ones(64)
    tokenize(net)
    assert len(hashed) == 6


def test_a_result_is_of_the_weights_at_the_call(x):
    net = network()
    expected = net(x)
    y = predict(net, da.from_array(x, 40))
    net[0].weight = np.zeros((64, 24))
    assert_same_bits(y.compute(scheduler="threads"), expected)
    later = predict(net, da.from_array(x, 40))
    assert later.name != y.name
    assert_same_bits(later.compute(scheduler="threads"), net(x))


# --- the graph


def test_the_graph_holds_the_network_once(x):
    net = network(512)
    a = da.from_array(x, chunks=(1, 24))
    y = predict(net, a)
    before, after = dict(a.__dask_graph__()), dict(y.__dask_graph__())
    assert len(after) - len(before) == 103 + 1
    added = len(pickle.dumps(after)) - len(pickle.dumps(before))
    assert net.nbytes < added < net.nbytes + 103 * 400 + 4000
    # Fusion may join a block with what makes it, never the network with a block.
    (optimized,) = dask.optimize(y)
    tasks = [len(pickle.dumps(task)) for task in dict(optimized.__dask_graph__()).values()]
    assert len(tasks) <= 2 * 103 + 2  # blocks of x, blocks of y
    assert sum(size > net.nbytes / 2 for size in tasks) == 1


@pytest.mark.parametrize("shift", [0, 1, 4])
def test_weights_may_arrive_out_of_band_at_any_address(x, shift):
    buffers = []
    data = pickle.dumps(network(), protocol=5, buffer_callback=buffers.append)
    assert buffers
    arrived = []
    for buffer in buffers:
        raw = buffer.raw()
        room = np.empty(len(raw) + 64, np.uint8)
        low = -room.ctypes.data % 64 + shift
        room[low : low + len(raw)] = raw
        arrived.append(room[low : low + len(raw)].data.toreadonly())
    assert_same_bits(pickle.loads(data, buffers=arrived)(x), network()(x))


class Threads:
    """A part of a network that puts the number of threads in the place of the features."""

    def __call__(self, a):
        return np.full_like(a, fl.get_num_threads())


class Unpickled:
    """A part that leaves the number of the process that unpickles it in a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, a):
        return a

    def __setstate__(self, state):
        self.__dict__.update(state)
        with open(os.path.join(self.folder, str(os.getpid())), "a") as file:
            file.write("once\n")


class Stuck:
    """Passes blocks on; the first one to arrive waits, its process told in a file, until released."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, block):
        try:
            with open(os.path.join(self.folder, "first"), "x") as file:
                file.write(f"{os.getpid()}\n")
        except FileExistsError:
            return block
        while not os.path.exists(os.path.join(self.folder, "released")):
            time.sleep(0.01)
        return block


def test_tasks_use_one_thread_each(x):
    net = fl.Network([fl.Layer(24, 2), Threads()])
    assert (predict(net, da.from_array(x, 40)).compute(scheduler="threads") == 1).all()


# --- a cluster


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    distributed = pytest.importorskip("distributed")
    folder = str(tmp_path_factory.mktemp("workers"))
    # It leaves OMP_NUM_THREADS=1 behind, which PyTorch would hand to everybody when it is imported.
    environment = dict(os.environ)
    with (
        dask.config.set({"temporary-directory": folder}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client
    os.environ.clear()
    os.environ.update(environment)


def test_cluster_gives_the_bits_of_one_process(client, x):
    net = network()
    expected = net(x)
    for chunks in CHUNKS[:5]:
        y = predict(net, da.from_array(x, chunks=chunks)).compute(scheduler=client)
        assert_same_bits(y, expected)


def test_workers_unpickle_the_network_once_and_use_one_thread(client, x, tmp_path):
    net = fl.Network([fl.Layer(24, 2), Unpickled(str(tmp_path)), Threads()])
    y = predict(net, da.from_array(x, chunks=(2, 24)))
    assert (y.compute(scheduler=client) == 1).all()
    workers = {str(pid) for pid in client.run(os.getpid).values()}
    seen = {name: (tmp_path / name).read_text().count("once") for name in os.listdir(tmp_path)}
    assert seen.keys() & workers
    assert all(count == 1 for name, count in seen.items() if name in workers), seen


def test_read_only_blocks(client, x):
    a = da.from_array(x, 40).map_blocks(read_only)
    assert_same_bits(predict(network(), a).compute(scheduler=client), network()(x))


def read_only(block):
    block = block.copy()
    block.flags.writeable = False
    return block


def test_a_killed_worker_is_survived(client, x, tmp_path):
    net = network()
    a = da.from_array(x, chunks=(5, 24)).map_blocks(Stuck(str(tmp_path)), meta=x[:0])
    future = client.compute(predict(net, a))
    deadline = time.monotonic() + 60
    first = tmp_path / "first"
    while not (first.exists() and first.read_text().endswith("\n")):
        assert time.monotonic() < deadline, "no worker took a block"
        time.sleep(0.01)
    os.kill(int(first.read_text()), signal.SIGKILL)
    (tmp_path / "released").touch()
    assert_same_bits(future.result(timeout=60), net(x))


# --- training

SAMPLES = 700  # two blocks of 256 rows and a rest


def learner():
    slopes = fl.Activation("prelu", weight=0.25)
    ones = np.ones(16, np.float32)
    return fl.Network(
        [
            fl.Layer(24, 16, slopes, rng=0),
            fl.LayerNorm(16, weight=ones, bias=0 * ones),
            fl.Residual(fl.Layer(16, 16, "gelu", rng=1)),
            fl.Layer(16, 3, "softmax", rng=2),
        ]
    )


@pytest.fixture
def samples(rng):
    return rng.standard_normal((SAMPLES, 24)).astype(np.float32), rng.integers(0, 3, SAMPLES)


OPTIONS = {"epochs": 2, "batch_size": 600, "rng": 0, "max_norm": 1.0}


def assert_trained_alike(one, other, histories):
    assert histories[0].loss == histories[1].loss
    assert histories[0].val_loss == histories[1].val_loss
    for a, b in zip(one, other, strict=True):
        assert pickle.dumps(a) == pickle.dumps(b)


@pytest.mark.parametrize("chunks", [None, (700, 24), (90, 24), (300, 10)], ids=str)
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_training_has_the_bits_of_one_machine(samples, rng, chunks, loss):
    x, t = samples
    if loss == "mse":
        t = np.eye(3)[t]
    options = {**OPTIONS, "sample_weight": rng.random(SAMPLES), "validation": 0.1}
    one, other = learner(), learner()
    rows = x if chunks is None else da.from_array(x, chunks=chunks)
    histories = one.fit(x, t, loss, **options), fit(other, rows, t, loss, **options)
    assert_trained_alike(one, other, histories)
    assert one[0].activation != learner()[0].activation


def test_training_on_a_cluster_survives_a_killed_worker(client, samples):
    x, t = samples

    def kill(net, history):
        if history.epochs == 1:
            os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)

    one, other = learner(), learner()
    options = {**OPTIONS, "epochs": 4}
    histories = (
        one.fit(x, t, **options),
        fit(other, da.from_array(x, chunks=(100, 24)), t, callback=kill, **options),
    )
    assert_trained_alike(one, other, histories)


def test_a_loss_of_ones_own_is_refused(samples):
    x, t = samples
    with pytest.raises(TypeError, match="name one"):
        fit(learner(), x, t, lambda y, t: (0.0, y))
