"""What a call costs beside arithmetic: parallel regions, allocations, copies."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastlayer as fl
from fastlayer import _core

SIZES = [784, 512, 512, 10]
# Array objects, tuples and the tracer's own bookkeeping beside the data of the result.
SMALL = 2048


@pytest.fixture
def net():
    rng = np.random.default_rng(0)
    activations = ["relu", "relu", "softmax"]
    shapes = zip(SIZES[:-1], SIZES[1:], activations, strict=True)
    return fl.Network([fl.Layer(k, n, act, rng=rng) for k, n, act in shapes])


@pytest.fixture
def two_threads():
    threads = fl.get_num_threads()
    fl.set_num_threads(2)
    yield
    fl.set_num_threads(threads)


def traced(call):
    """The result of `call` and the most memory it had allocated at one time."""
    tracemalloc.start()
    try:
        result = call()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_one_parallel_region_and_no_allocation_but_the_result(net, two_threads):
    # Not on the main thread: there a long call ends a region now and then, to look for signals.
    with ThreadPoolExecutor(1) as executor:
        executor.submit(count_regions_and_allocations, net).result()


def count_regions_and_allocations(net):
    x = np.random.default_rng(1).standard_normal((512, 784), dtype=np.float32)
    expected = net(x)
    before = _core.stats()
    y, peak = traced(lambda: net(x))
    after = _core.stats()
    # Without OpenMP there is no region to start.
    regions = 1 if _core.config()["openmp"] else 0
    assert after["parallel_regions"] == before["parallel_regions"] + regions
    assert after["workspace_allocations"] == before["workspace_allocations"]
    assert y.nbytes <= peak < y.nbytes + SMALL
    np.testing.assert_array_equal(y, expected)

    out = np.empty_like(y)
    result, peak = traced(lambda: net(x, out=out))
    assert result is out
    assert peak < SMALL
    assert _core.stats()["workspace_allocations"] == before["workspace_allocations"]
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.int64, np.float64])
def test_other_dtypes_are_converted_without_a_copy_of_the_array(net, dtype):
    x = np.random.default_rng(2).integers(0, 256, (512, 784)).astype(dtype)
    out = np.empty((512, 10), np.float32)
    net(x, out=out)
    before = _core.stats()["workspace_allocations"]
    _, peak = traced(lambda: net(x, out=out))
    assert peak < SMALL
    assert _core.stats()["workspace_allocations"] == before
    np.testing.assert_array_equal(out, net(x.astype(np.float32)))


def test_networks_share_the_packed_weights_of_their_layers(net):
    weights = sum(layer.weight.nbytes for layer in net)
    again, peak = traced(lambda: fl.Network(net.layers))
    assert peak < weights / 10
    x = np.ones((3, 784), np.float32)
    np.testing.assert_array_equal(again(x), net(x))
