"""What people write at first who know other libraries: the error says what they want, and that works."""

from __future__ import annotations

import io

import numpy as np
import pytest

import fastlayer as fl


@pytest.mark.parametrize("name", ["weights", "W", "kernel", "coef_"])
def test_weights_that_nothing_reads_are_refused(name):
    layer = fl.Layer(3, 2, rng=0)
    with pytest.raises(AttributeError, match=rf"'{name}'.*layer\.weight.*layer\.update\(weight="):
        setattr(layer, name, np.ones((2, 3)))
    layer.weight = np.ones((2, 3))
    layer.update(weight=np.zeros((2, 3)))
    assert not layer.weight.any()


@pytest.mark.parametrize("name", ["biases", "b", "intercept_"])
def test_biases_too(name):
    with pytest.raises(AttributeError, match=r"layer\.bias"):
        setattr(fl.Layer(3, 2, rng=0), name, np.ones(2))


def test_attributes_of_ones_own_stay_possible():
    layer = fl.Layer(3, 2, rng=0)
    layer.note = "the first"
    assert layer.note == "the first"


def test_a_network_takes_one_list():
    first, second = fl.Layer(3, 2, rng=0), fl.Layer(2, 1, rng=1)
    with pytest.raises(
        TypeError, match=r"one list of layers, got 2 .*fl\.Network\(\[first, second"
    ):
        fl.Network(first, second)
    with pytest.raises(TypeError, match=r"a list of layers, as in \[first, second\], got Layer"):
        fl.Network(first)
    assert len(fl.Network([first, second])) == 2


def test_linear_is_no_activation():
    assert fl.Layer(3, 2, "linear").activation == fl.Layer(3, 2, "identity").activation
    assert fl.Activation("linear").name == "identity"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Linear", "fl.Layer"),
        ("Dense", "fl.Layer"),
        ("Sequential", "fl.Network"),
        ("ReLU", "fl.relu"),
        ("Softmax", "fl.softmax"),
        ("from_pytorch", "fl.from_torch"),
        ("from_tensorflow", "fl.from_keras"),
        ("from_numpy", "fl.accelerate"),
        ("load_model", "fl.load"),
        ("MLPClassifier", "fastlayer.sklearn"),
        ("save", "net.save"),
        ("fit", "fl.Trainer"),
    ],
)
def test_names_of_other_libraries_point_the_way(name, hint):
    with pytest.raises(AttributeError, match=f"no attribute '{name}'; you may want .*{hint}"):
        getattr(fl, name)
    assert not hasattr(fl, name)
    module, _, wanted = hint.partition(".")
    if module == "fl":
        assert hasattr(fl, wanted)


def test_every_pointer_leads_somewhere():
    for name, hint in fl._ELSEWHERE.items():
        assert name not in fl.__all__
        for word in hint.replace("(", " ").replace(",", " ").split():
            if word.startswith("fl."):
                found = fl
                for part in word.split(".")[1:]:
                    found = getattr(found, part)


def test_another_name_gets_no_hint():
    with pytest.raises(AttributeError, match=r"no attribute 'nothing'$"):
        fl.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("layout", "other", "shape"), [("out_in", "in_out", (3, 5)), ("in_out", "out_in", (5, 3))]
)
def test_a_transposed_weight_names_the_layout(layout, other, shape):
    weight, bias = np.ones(shape), np.ones(5)
    with pytest.raises(ValueError, match=f"layout='{layout}'.*3 neurons; layout='{other}'"):
        fl.Layer.from_arrays(weight, bias, layout=layout)
    assert fl.Layer.from_arrays(weight, bias, layout=other).out_features == 5


def test_a_bias_that_fits_neither_axis_gets_no_such_advice():
    with pytest.raises(ValueError, match=r"bias must have shape \(3,\)"):
        fl.Layer.from_arrays(np.ones((3, 5)), np.ones(4))


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (None, "x is None"),
        ({"a": [1.0], "b": [2.0], "c": [3.0]}, "a dict: np.column_stack"),
        ({1.0, 2.0, 3.0}, "a set, which has no order"),
        ((i for i in range(3)), "a generator: make a list of it, or give it to predict"),
        (io.BytesIO(b"123"), "an open file: read it first"),
        (object(), "an object of object"),
    ],
)
@pytest.mark.parametrize("call", [fl.Network([fl.Layer(3, 2, rng=0)]), fl.relu])
def test_what_is_no_array_is_called_by_its_kind(call, x, words):
    with pytest.raises(TypeError, match=words):
        call(x)


def test_the_advice_for_a_dict_works():
    x = {"a": [1.0], "b": [2.0], "c": [3.0]}
    assert fl.Layer(3, 2, rng=0)(np.column_stack(list(x.values()))).shape == (1, 2)


@pytest.mark.parametrize("suffix", ["h5", "hdf5"])
def test_a_file_that_is_no_hdf5_is_called_that(tmp_path, suffix):
    path = tmp_path / f"model.{suffix}"
    path.write_bytes(b"anything but that" * 9)
    with pytest.raises(fl.ModelFileError, match="is not HDF5"):
        fl.load(path)
