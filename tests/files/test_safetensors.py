"""The .safetensors format: what is written, what is mapped, and headers that are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_same_bits
from hostile import SANITIZED
from model_files import DATA, every_part, header_of, with_header

import fastlayer as fl

safetensors = pytest.importorskip("safetensors")
package = pytest.importorskip("safetensors.numpy")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def test_the_file_is_plain_safetensors(path):
    net = every_part()
    net.save(path)
    arrays = package.load_file(path)
    assert_same_bits(arrays["1.weight"], net[1].weight)
    assert arrays["6.slopes"].shape == ()
    with safetensors.safe_open(path, framework="numpy") as file:
        document = json.loads(file.metadata()["fastlayer"])
    assert (document["format"], document["version"]) == ("fastlayer", 1)
    first = path.read_bytes()
    net.save(path)
    assert path.read_bytes() == first


def test_both_formats_hold_the_same_document_and_arrays(path, tmp_path):
    net = every_part(np.float32)
    net.save(path)
    net.save(tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz") as archive:
        document = json.loads(archive["fastlayer"].tobytes())
        arrays = {name: archive[name] for name in archive.files if name != "fastlayer"}
    assert {a.dtype.str for a in arrays.values()} <= {"<f4", "<f8"}
    header, _ = header_of(path.read_bytes())
    assert json.loads(header["__metadata__"]["fastlayer"]) == document
    held = package.load_file(path)
    assert held.keys() == arrays.keys()
    for name, array in arrays.items():
        assert_same_bits(held[name], array.astype(array.dtype.newbyteorder("=")))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_mapped_network_is_the_same(rng, path, dtype):
    net = every_part(dtype)
    net.save(path)
    x = rng.standard_normal((5, 3, 4)).astype(dtype)
    back = fl.load(path, mmap=True)
    assert repr(back) == repr(net)
    assert_same_bits(back(x), net(x))


def test_tensors_at_odd_offsets_are_mapped_too(path):
    net = every_part()
    net.save(path)
    header, data = header_of(path.read_bytes())
    text = json.dumps(header).encode()
    path.write_bytes(with_header(text + b" " * (1 + -len(text) % 8), data))
    back = fl.load(path, mmap=True)
    assert_same_bits(back[1].weight, net[1].weight)
    assert_same_bits(back[6].parameters["weight"], net[6].parameters["weight"])


STATUS = """
import re, sys
import numpy as np
import fastlayer as fl

def private():  # kB that belong to this process alone
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read()).group(1))

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1))

fl.load(sys.argv[2], mmap=True)
before = private()
net = fl.load(sys.argv[1], mmap=True)
maps = open("/proc/self/maps").read()
print(private() - before, sys.argv[1] in maps)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
@pytest.mark.skipif(SANITIZED, reason="a sanitizer's own memory is counted too")
def test_mapping_leaves_nothing_but_the_panels(path, tmp_path):
    layers = [fl.Layer(1024, 1024, init="zeros") for _ in range(12)]
    fl.Network(layers).save(path)  # 48 MiB
    fl.Network(["relu"]).save(tmp_path / "small.safetensors")
    command = [sys.executable, "-c", STATUS, str(path), str(tmp_path / "small.safetensors")]
    grown, mapped = subprocess.run(
        command, capture_output=True, text=True, check=True
    ).stdout.split()
    panels = sum(layer._state.packed.nbytes for layer in layers) / 1024
    # The panels, and 2 MB for the interpreter's own; a copy of the weights would be 49,152 kB. Where
    # the file's order is not the machine's, one layer's weights are copied at a time.
    one_layer = 4096 if sys.byteorder == "big" else 0
    assert panels <= int(grown) <= panels + 2048 + one_layer
    assert mapped == "False"


def test_without_the_package_the_error_says_what_to_install(path, monkeypatch):
    fl.Network(["relu"]).save(path)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match="pip install safetensors"):
        fl.load(path)
    with pytest.raises(ImportError, match="pip install safetensors"):
        fl.Network(["relu"]).save(path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_state_dict_is_not_a_network():
    with pytest.raises(fl.ModelFileError, match=r"without an architecture.*from_state_dict"):
        fl.load(DATA / "state_dict.safetensors")


def nested(depth):
    net = fl.Network(["relu"])
    for _ in range(depth):
        net = fl.Network([net])
    return net


TOO_MUCH = {
    "layers": (lambda: fl.Network(["relu"] * 60_000), "brackets and commas"),
    "depth": (lambda: nested(70), "nested more than 64 deep"),
    "features": (lambda: fl.Network([fl.RMSNorm(2**21)]), "features without arrays"),
}


@pytest.mark.parametrize("name", TOO_MUCH)
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_what_could_not_be_read_back_is_not_written(tmp_path, name, suffix):
    make, message = TOO_MUCH[name]
    with pytest.raises(ValueError, match=message):
        make().save(tmp_path / f"model{suffix}")
    assert list(tmp_path.iterdir()) == []


# ----------------------------------------------------------------------------- headers

F4 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
PACKAGE = r"header: Error while deserializing"  # what the safetensors package refuses itself
HEADERS = {
    "leading space": (b' {"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', "JSON object"),
    "padded with zeros": (json.dumps({"a": F4}).encode() + b"\0", PACKAGE),
    "not an object": (b"[]", "JSON object"),
    "no JSON": (b"{x}", PACKAGE),
    "no UTF-8": (b'{"\xff": 1}', PACKAGE),
    "a name twice": (b'{"a":%s,"a":%s}' % ((json.dumps(F4).encode(),) * 2), "twice"),
    "a field twice": (b'{"a":{"dtype":"F32","dtype":"F64"}}', PACKAGE),
    "metadata of numbers": ({"__metadata__": {"a": 1}, "a": F4}, PACKAGE),
    "metadata a list": ({"__metadata__": ["a"], "a": F4}, PACKAGE),
    "entry a list": ({"a": ["F32", [2], [0, 8]]}, "data_offsets"),
    "entry with more": ({"a": {**F4, "more": 1}}, "nothing else"),
    "entry without shape": ({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, PACKAGE),
    "unknown dtype": ({"a": {**F4, "dtype": "F99"}}, PACKAGE),
    "dtype a list": ({"a": {**F4, "dtype": ["F32"]}}, PACKAGE),
    "dtype an object": ({"a": {**F4, "dtype": {"F32": None}}}, "has the dtype"),
    "NaN shape": (b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}', PACKAGE),
    "infinite shape": (b'{"a":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,8]}}', PACKAGE),
    "shape of text": ({"a": {**F4, "shape": ["2"]}}, PACKAGE),
    "shape of floats": ({"a": {**F4, "shape": [2.0]}}, PACKAGE),
    "shape of booleans": ({"a": {**F4, "shape": [True, 2]}}, PACKAGE),
    "negative shape": ({"a": {**F4, "shape": [-1, -2]}}, PACKAGE),
    "shape that overflows": ({"a": {**F4, "shape": [2**62, 4, 2]}}, PACKAGE),
    "shape of 9 axes": ({"a": {**F4, "shape": [2] + [1] * 8}}, "shape"),
    "huge product": ({"a": {**F4, "shape": [2**61, 2**61]}}, PACKAGE),
    "other size": ({"a": {**F4, "shape": [3]}}, PACKAGE),
    "negative offset": ({"a": {**F4, "data_offsets": [-8, 0]}}, PACKAGE),
    "offsets backwards": ({"a": {**F4, "data_offsets": [8, 0]}}, PACKAGE),
    "three offsets": ({"a": {**F4, "data_offsets": [0, 8, 8]}}, PACKAGE),
    "hole in front": ({"a": {**F4, "data_offsets": [8, 16]}}, PACKAGE),
    "overlap": ({"a": F4, "b": {**F4, "data_offsets": [4, 12]}}, PACKAGE),
    "the same place": ({"a": F4, "b": F4}, PACKAGE),
    "bytes left over": ({}, PACKAGE),
    "beyond the file": ({"a": {**F4, "shape": [4], "data_offsets": [0, 16]}}, PACKAGE),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_are_refused(path, name):
    header, message = HEADERS[name]
    path.write_bytes(with_header(header, bytes(8)))
    for read in (fl.load, lambda p: fl.from_state_dict(p, activation=None)):
        with pytest.raises(fl.ModelFileError, match=message):
            read(path)


@pytest.mark.parametrize(("dtype", "halves"), [("F16", "<f2"), ("BF16", "<u2")])
def test_halves_are_widened(path, dtype, halves):
    exact = np.array([[1.5, -0.0, 2.0**-14], [np.inf, -3.140625, 0.15625]], np.float32)
    stored = exact.astype(halves) if dtype == "F16" else (exact.view("u4") >> 16).astype(halves)
    header = {"0.weight": {"dtype": dtype, "shape": [2, 3], "data_offsets": [0, 12]}}
    path.write_bytes(with_header(header, stored.tobytes()))
    assert_same_bits(fl.from_state_dict(path, activation=None)[0].weight, exact)


@pytest.mark.parametrize("dtype", ["I32", "BOOL", "U8"])
def test_other_dtypes_are_refused_by_name(path, dtype):
    size = {"I32": 4}.get(dtype, 1)
    header = {"0.weight": {"dtype": dtype, "shape": [2, 4], "data_offsets": [0, 8 * size]}}
    path.write_bytes(with_header(header, bytes(8 * size)))
    with pytest.raises(fl.ConversionError, match=r"'0\.weight'.*convert it to float32 first"):
        fl.from_state_dict(path, activation=None)
