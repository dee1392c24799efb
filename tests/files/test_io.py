"""Saving and loading: round trips, every version of the formats, damage, and what is left behind."""

import io
import json
import os
import pickle
import stat
import zipfile

import numpy as np
import pytest
from helpers import assert_same_bits
from model_files import (
    DATA,
    edit_document,
    every_part,
    first_network,
    header_of,
    members,
    npy,
    zipped,
)

import fastlayer as fl


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.npz"


@pytest.fixture(params=[".npz", ".safetensors"])
def either(request, tmp_path):
    if request.param == ".safetensors":
        pytest.importorskip("safetensors")
    return tmp_path / f"model{request.param}"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_trip(rng, either, dtype):
    net = every_part(dtype)
    net.save(either)
    back = fl.load(str(either))
    x = rng.standard_normal((5, 3, 4)).astype(dtype)
    assert repr(back) == repr(net)
    assert_same_bits(back(x), net(x))
    assert_same_bits(back[1].weight, net[1].weight)
    assert back[3].bias is None
    assert back.dtype == dtype
    with pytest.raises(ValueError, match="read-only"):
        back[1].weight[0] = 1


def test_no_slopes_for_no_features(path):
    net = fl.Network([fl.Activation("prelu", weight=np.empty(0))])
    net.save(path)
    assert fl.load(path)(np.ones((3, 0))).shape == (3, 0)


ACTIVATIONS = [
    "identity", "relu", ("leaky_relu", {"negative_slope": -0.5}), "relu6", "elu", "celu", "selu",
    ("hardtanh", {"min_val": -np.inf, "max_val": 3.0}), "gelu", ("gelu", {"approximate": "tanh"}),
    "silu", "mish", "sigmoid", "log_sigmoid", "hardsigmoid", "hardswish", "tanh", "softsign",
    ("softplus", {"beta": 2.0, "threshold": 1e9}), "exp", "softmax", "log_softmax",
    "sin", "cos", "sqrt", ("threshold", {"threshold": 1.0, "value": -7.0}),
    "hardshrink", ("hardshrink", {"lambd": 2.0}), ("softshrink", {"lambd": 0.25}),
    ("prelu", {"weight": 0.1}), ("prelu", {"weight": [0.1, 0.2, -0.3]}),
]  # fmt: skip


@pytest.mark.parametrize("chosen", ACTIVATIONS, ids=str)
def test_every_activation_keeps_its_parameters(either, chosen):
    name, parameters = (chosen, {}) if isinstance(chosen, str) else chosen
    activation = fl.Activation(name, **parameters)
    net = fl.Network([fl.Layer(2, 3, activation, rng=0), activation])
    net.save(either)
    back = fl.load(either)
    assert back[0].activation == back[1] == activation
    assert_same_bits(back([0.5, -2.0]), net([0.5, -2.0]))


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("version", ["version1", "version1_bare_infinity"])
def test_files_of_every_version_are_read(version, suffix):
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    net = first_network()
    back = fl.load(DATA / f"{version}{suffix}")
    assert repr(back) == repr(net)
    x = np.random.default_rng(1).standard_normal((7, 4)).astype(np.float32)
    assert_same_bits(back(x), net(x))
    assert [type(part) for part in back] == [type(part) for part in net]


def with_traits():
    inner = fl.Network([fl.Layer.from_arrays(np.eye(2)), "softmax"])
    inner._traits = ("one row",)
    return fl.Network([inner, "relu"])


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_traits_are_of_version_2(tmp_path, suffix):
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    path, kept = tmp_path / f"model{suffix}", DATA / f"version2{suffix}"
    with_traits().save(path)
    if suffix == ".npz":
        assert members(path) == members(kept)
    else:
        assert header_of(path.read_bytes()) == header_of(kept.read_bytes())
    net = fl.load(kept)
    assert_same_bits(net([[1.0, 2.0]]), with_traits()([[1.0, 2.0]]))
    with pytest.raises(ValueError, match="takes rows"):
        net(np.ones((2, 2, 2)))


@pytest.mark.parametrize("traits", [["wide"], "one row", [1], {}, [["one row"]], None])
def test_unknown_traits_are_refused(path, traits):
    net = fl.Network(["relu"])
    net._traits = ("one row",)
    net.save(path)
    content = members(path)
    text = content["fastlayer.npy"].replace(b'["one row"]', json.dumps(traits).ljust(11).encode())
    path.write_bytes(zipped({**content, "fastlayer.npy": text}))
    with pytest.raises(fl.ModelFileError, match="traits"):
        fl.load(path)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_the_format_of_files_does_not_change_by_accident(tmp_path, suffix):
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    path = tmp_path / f"model{suffix}"
    first_network().save(path)
    if suffix == ".npz":
        assert members(path) == members(DATA / "version1.npz")
    else:
        assert header_of(path.read_bytes()) == header_of(
            (DATA / "version1.safetensors").read_bytes()
        )


@pytest.mark.parametrize("special", [np.nan, np.inf, -0.0, 5e-324])
def test_special_weights_keep_their_bits(either, special):
    fl.Network([fl.Layer.from_arrays([[special, 1.0]], [special])]).save(either)
    assert_same_bits(fl.load(either)[0].weight, np.array([[special, 1.0]]))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_empty_layers_and_networks_without_weights(either, shape):
    fl.Network([fl.Layer.from_arrays(np.ones(shape))]).save(either)
    assert fl.load(either)[0].weight.shape == shape
    fl.Network(["relu"]).save(either)
    assert fl.load(either)([-1.0, 2.0]).tolist() == [0, 2]


def test_the_document_is_strict_json(either):
    def refuse(name):
        raise AssertionError(name)

    parts = [
        fl.Activation("hardtanh", min_val=-np.inf),
        fl.Activation("softplus", threshold=np.inf),
    ]
    net = fl.Network([fl.LayerNorm(3, eps=np.inf), *parts])
    net.save(either)
    if either.suffix == ".npz":
        with np.load(either) as archive:
            text = archive["fastlayer"].tobytes()
    else:
        text = header_of(either.read_bytes())[0]["__metadata__"]["fastlayer"]
    document = json.loads(text, parse_constant=refuse)
    assert document["layers"][1]["parameters"]["min_val"] == "-Infinity"
    assert repr(fl.load(either)) == repr(net)


def test_the_file_is_plain_numpy(path):
    net = every_part()
    net.save(path)
    with np.load(path, allow_pickle=False) as archive:
        assert archive["1.weight"].dtype == "<f8"
        assert_same_bits(archive["1.weight"].astype(np.float64), net[1].weight)
        document = json.loads(archive["fastlayer"].tobytes())
    assert (document["format"], document["version"]) == ("fastlayer", 1)
    assert [layer["type"] for layer in document["layers"]][:2] == ["Flatten", "Layer"]
    first = path.read_bytes()
    net.save(path)
    assert path.read_bytes() == first


@pytest.mark.parametrize("name", ["model", "model.npz.bak", "model.pkl", "model.json", ".npz"])
def test_other_suffixes(tmp_path, name):
    with pytest.raises(ValueError, match=r"unknown suffix.*\.npz or \.safetensors"):
        fl.Network(["relu"]).save(tmp_path / name)
    with pytest.raises(ValueError, match=r"unknown suffix.*\.npz, \.safetensors, \.onnx"):
        fl.load(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".onnx", ".keras", ".h5", ".pt"])
def test_formats_of_others_are_not_written(tmp_path, suffix):
    with pytest.raises(ValueError, match=r"saved as \.npz or \.safetensors"):
        fl.Network(["relu"]).save(tmp_path / f"model{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_weights_without_architecture_are_for_from_state_dict(suffix):
    with pytest.raises(ValueError, match=r"from_state_dict\(path, activation=\.\.\.\)"):
        fl.load(f"weights{suffix}")


@pytest.mark.parametrize("suffix", [".npz", ".onnx", ".keras", ".h5"])
def test_only_safetensors_can_be_mapped(tmp_path, suffix):
    with pytest.raises(ValueError, match=r"only \.safetensors can be mapped"):
        fl.load(tmp_path / f"model{suffix}", mmap=True)


def test_other_refusals(path):
    with pytest.raises(FileNotFoundError):
        fl.load(path)
    with pytest.raises(TypeError, match="path"):
        fl.load(b"model.npz")


@pytest.mark.parametrize("make", [lambda: [fl.Layer(2, 2, np.cos)], lambda: ["relu", np.cos], lambda: [fl.Residual(np.cos)]])  # fmt: skip
def test_functions_can_not_be_saved(path, make):
    with pytest.raises(ValueError, match=r"layer .*cos is a Python function"):
        fl.Network(make()).save(path)
    assert not path.exists()


# --- writing


def test_a_failed_save_leaves_the_old_file_and_no_other(path, monkeypatch):
    fl.Network(["relu"]).save(path)
    before = path.read_bytes()

    def fail(*arguments, **keywords):
        raise OSError("disk full")

    monkeypatch.setattr(np.lib.format, "write_array", fail)
    with pytest.raises(OSError, match="disk full"):
        every_part().save(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_permissions_follow_the_umask(path):
    before = os.umask(0o027)
    try:
        fl.Network(["relu"]).save(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(path.parent) == [path.name]


# --- reading what is damaged or hostile


def write(path, content):
    path.write_bytes(zipped(content))


def refuse(path, key=None):
    with pytest.raises(fl.ModelFileError) as caught:
        fl.load(path)
    error = caught.value
    assert isinstance(error, ValueError)
    assert error.path == str(path)
    assert str(path) in str(error)
    assert error.key in str(error)
    assert key is None or error.key == key
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    return str(error)


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip archive at all" * 9, npy(np.ones(3))])
def test_not_an_archive(path, content):
    path.write_bytes(content)
    refuse(path, "archive")


DOCUMENTS = {
    "no layers": lambda d: d.pop("layers"),
    "empty": lambda d: d.update(layers=[]),
    "layers not a list": lambda d: d.update(layers={"0": 1}),
    "layer not a dict": lambda d: d.update(layers=[3]),
    "format": lambda d: d.update(format="other"),
    "version": lambda d: d.update(version=3),
    "no version": lambda d: d.pop("version"),
    "dtype": lambda d: d.update(dtype="float16"),
    "dtype object": lambda d: d.update(dtype=["O"]),
    "type": lambda d: d["layers"][1].update(type="os.system"),
    "no type": lambda d: d["layers"][1].pop("type"),
    "features": lambda d: d["layers"][1].update(in_features=11),
    "negative": lambda d: d["layers"][1].update(in_features=-1),
    "huge": lambda d: d["layers"][1].update(in_features=10**18),
    "true": lambda d: d["layers"][1].update(in_features=True),
    "text": lambda d: d["layers"][1].update(in_features="12"),
    "bias": lambda d: d["layers"][1].update(bias=1),
    "bias that is not there": lambda d: d["layers"][3].update(bias=True),
    "activation": lambda d: d["layers"][1]["activation"].update(name="rellu"),
    "activation parameter": lambda d: d["layers"][1]["activation"].update(parameters={"slope": 1}),
    "activation axis": lambda d: d["layers"][7]["activation"].update(parameters={"axis": 0}),
    "activation text": lambda d: d["layers"][1].update(activation="relu"),
    "slopes": lambda d: d["layers"][3]["activation"]["parameters"]["weight"].update(shape=[7]),
    "slopes shape": lambda d: d["layers"][3]["activation"]["parameters"]["weight"].update(shape=["a"]),
    "eps": lambda d: d["layers"][2].update(eps=-1),
    "eps text": lambda d: d["layers"][2].update(eps="small"),
    "norm": lambda d: d["layers"][2].update(features=9),
    "prelu's slopes": lambda d: d["layers"][3]["activation"]["parameters"].update(weight=0.5),
    "prelu's other parameter": lambda d: d["layers"][3]["activation"]["parameters"].update(a=1),
    "too many slopes": lambda d: d["layers"][3].update(out_features=7),
    "long name": lambda d: d["layers"][1]["activation"].update(name="relu" * 99),
    "eps not a number": lambda d: d["layers"][2].update(eps=float("nan")),
    "no features": lambda d: d["layers"][2].update(features=0),
    "norms without arrays": lambda d: d.update(layers=[dict(d["layers"][2], features=2**19, arrays=[])] * 3),
    "neighbours": lambda d: d["layers"].reverse(),
    "residual": lambda d: d["layers"][4].update(layers=[]),
}  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_that_make_no_sense(path, name):
    every_part().save(path)
    write(path, edit_document(members(path), DOCUMENTS[name]))
    refuse(path)


def test_a_document_nested_too_deep(path):
    every_part().save(path)
    content = members(path)

    def nest(document):
        for _ in range(200):
            document["layers"] = [{"type": "Network", "layers": document["layers"]}]

    write(path, edit_document(content, nest))
    refuse(path)
    text = np.frombuffer(b"[" * 200_000, np.uint8)
    write(path, {**content, "fastlayer.npy": npy(text)})
    refuse(path, "fastlayer")


MEMBERS = {
    "missing": lambda c: c.pop("1.weight.npy"),
    "no document": lambda c: c.pop("fastlayer.npy"),
    "document not JSON": lambda c: c.update({"fastlayer.npy": npy(np.zeros(4, np.uint8))}),
    "document not UTF-8": lambda c: c.update({"fastlayer.npy": npy(np.full(4, 255, np.uint8))}),
    "document of floats": lambda c: c.update({"fastlayer.npy": npy(np.zeros(4))}),
    "other shape": lambda c: c.update({"1.weight.npy": npy(np.ones((12, 8)))}),
    "other dtype": lambda c: c.update({"1.weight.npy": npy(np.ones((8, 12), "f4"))}),
    "other byte order": lambda c: c.update({"1.weight.npy": npy(np.ones((8, 12)), ">")}),
    "objects": lambda c: c.update({"1.weight.npy": npy(np.full((8, 12), None))}),
    "cut short": lambda c: c.update({"1.weight.npy": c["1.weight.npy"][:-1]}),
    "too long": lambda c: c.update({"1.weight.npy": c["1.weight.npy"] + b"x"}),
    "no header": lambda c: c.update({"1.weight.npy": b"x"}),
    "empty": lambda c: c.update({"1.weight.npy": b""}),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_members_that_do_not_fit(path, name):
    every_part().save(path)
    content = members(path)
    MEMBERS[name](content)
    write(path, content)
    refuse(path, "fastlayer" if "document" in name else "1.weight")


def test_slopes_of_a_layer_of_another_size(path):
    """Whole in themselves, document and array alike, but not the layer's."""
    every_part().save(path)
    content = members(path)
    name = next(n for n in content if n.startswith("3.activation"))
    content[name] = npy(np.ones(7))

    def shorten(document):
        document["layers"][3]["activation"]["parameters"]["weight"].update(shape=[7])

    write(path, edit_document(content, shorten))
    assert "prelu has 7 slopes, but the layer has 8 outputs" in refuse(path, "3")


def test_a_negative_variance(path):
    every_part().save(path)
    content = members(path)
    content["2.running_var.npy"] = npy(np.array([1, 1, -1e-3, 1, 1, 1, 1, 1]))
    write(path, content)
    assert "holds a negative variance" in refuse(path, "2.running_var")


def test_a_header_that_claims_more_than_memory_holds(path):
    every_part().save(path)
    content = members(path)
    header = io.BytesIO()
    claim = {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**6)}
    np.lib.format.write_array_header_1_0(header, claim)
    content["1.weight.npy"] = header.getvalue()

    def agree(document):
        document["layers"][1].update(in_features=10**6, out_features=10**9)

    write(path, edit_document(content, agree))
    refuse(path, "1.weight")


def test_compressed_and_repeated_members(path):
    every_part().save(path)
    content = members(path)
    path.write_bytes(zipped(content, zipfile.ZIP_DEFLATED))
    refuse(path)
    write(path, content)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("1.weight.npy", content["1.weight.npy"])
    refuse(path, "1.weight.npy")


def test_fortran_order_is_read_too(path):
    net = every_part()
    net.save(path)
    content = members(path)
    content["1.weight.npy"] = npy(np.asfortranarray(net[1].weight))
    write(path, content)
    assert_same_bits(fl.load(path)[1].weight, net[1].weight)
