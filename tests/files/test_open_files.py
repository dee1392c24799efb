"""`fl.load`, `net.save` and their relatives with open files in the place of paths."""

from __future__ import annotations

import gzip
import io
import os
import tempfile
import threading
import zipfile

import numpy as np
import pytest
from helpers import assert_same_bits
from keras_files import dense, sequential, weights_file, write_h5, write_keras
from model_files import DATA

import fastlayer as fl

NET = fl.Network([fl.Layer(3, 4, "relu", rng=0), fl.Layer(4, 2, "softmax", rng=1)])
X = np.random.default_rng(2).normal(size=(5, 3)).astype(np.float32)
KERNEL, BIAS = np.ones((3, 2), np.float32), np.ones(2, np.float32)
CONFIG = sequential(dense("a", 2, "relu", batch_input_shape=[None, 3]))


def keras(path):
    pytest.importorskip("h5py")
    if path.suffix == ".h5":
        return write_h5(path, CONFIG, {"a": {"kernel": KERNEL, "bias": BIAS}})
    return write_keras(path, CONFIG, weights_file({"dense": [KERNEL, BIAS]}))


def saved(path):
    if path.suffix == ".safetensors":
        pytest.importorskip("safetensors")
    if path.suffix == ".onnx":
        pytest.importorskip("onnx")
        NET.to_onnx(path)
    else:
        NET.save(path)
    return path


def kept(path):
    path.write_bytes(
        (DATA / {".zip": "agent.zip", ".pt": "state_dict.pt"}[path.suffix]).read_bytes()
    )
    return path


def weights(file, format=None):
    return fl.from_state_dict(file, activation="relu", format=format)


def agent(file, format=None):
    return fl.load(file, network="actor", format=format)


MODELS = {
    ".npz": (saved, fl.load),
    ".safetensors": (saved, fl.load),
    ".onnx": (saved, fl.load),
    ".keras": (keras, fl.load),
    ".h5": (keras, fl.load),
    ".zip": (kept, agent),
    ".pt": (kept, weights),
}


@pytest.fixture(params=MODELS)
def model(request, tmp_path):
    """A file of each format, and what reads it."""
    make, read = MODELS[request.param]
    return make(tmp_path / f"model{request.param}"), read


def assert_same(net, path, read):
    expected = read(path)
    assert repr(net) == repr(expected)
    x = np.linspace(-2, 2, 3 * net.in_features, dtype=net.dtype).reshape(3, -1)
    assert_same_bits(net(x), expected(x))


class Pipe(io.RawIOBase):
    """A stream that can't seek, and gives few bytes at a time."""

    def __init__(self, data):
        self._rest = io.BytesIO(data)

    def readable(self):
        return True

    def readinto(self, room):
        return self._rest.readinto(memoryview(room)[:100])


def test_bytes_in_memory(model):
    path, read = model
    file = io.BytesIO(path.read_bytes())
    assert_same(read(file, format=path.suffix[1:]), path, read)
    assert file.tell() == path.stat().st_size
    assert not file.closed


def test_an_open_file_whose_name_tells_the_format(model):
    path, read = model
    for options in ({}, {"buffering": 0}):
        with open(path, "rb", **options) as file:
            assert_same(read(file), path, read)
            assert file.tell() == path.stat().st_size
            assert not file.closed


def test_a_file_is_read_from_its_position(model):
    path, read = model
    after = path.with_name("after")
    after.write_bytes(b"before" + path.read_bytes())
    with open(after, "rb") as real:
        for file in (real, io.BytesIO(after.read_bytes())):
            file.seek(6)
            assert_same(read(file, format=path.suffix), path, read)


def test_what_can_not_seek_is_read_whole(model):
    path, read = model
    packed = io.BytesIO(gzip.compress(path.read_bytes()))
    for file in (Pipe(path.read_bytes()), gzip.GzipFile(fileobj=packed)):
        assert_same(read(file, format=path.suffix[1:].upper()), path, read)


def test_a_pipe_of_the_system(model):
    path, read = model
    into, out = os.pipe()

    def write():
        with open(out, "wb") as file:
            file.write(path.read_bytes())

    writer = threading.Thread(target=write)
    writer.start()
    with open(into, "rb") as file:
        assert_same(read(file, format=path.suffix[1:]), path, read)
    writer.join()


def test_a_member_of_an_archive(model, tmp_path):
    path, read = model
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path, path.name)
    with zipfile.ZipFile(tmp_path / "all.zip") as archive, archive.open(path.name) as file:
        assert_same(read(file), path, read)


def test_the_format_that_is_named_wins(model, tmp_path):
    path, read = model
    other = path.rename(tmp_path / "model.bak")
    expected = read(other, format=path.suffix[1:])
    with open(other, "rb") as file:
        assert_same(read(file, format=path.suffix[1:]), other, lambda _: expected)


def test_from_onnx_takes_open_files(tmp_path):
    path = saved(tmp_path / "model.onnx")
    assert_same(fl.from_onnx(io.BytesIO(path.read_bytes())), path, fl.load)


# --- writing


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".onnx"])
def test_the_same_bytes_as_under_a_path(tmp_path, suffix):
    expected = saved(tmp_path / f"model{suffix}").read_bytes()
    file = io.BytesIO()
    file.write(b"before")
    if suffix == ".onnx":
        NET.to_onnx(file)
    else:
        NET.save(file, format=suffix[1:])
    assert file.getvalue() == b"before" + expected
    assert file.tell() == len(file.getvalue())
    if suffix != ".onnx":
        file.seek(6)
        assert_same_bits(fl.load(file, format=suffix)(X), NET(X))


def test_the_name_of_an_open_file_tells_the_format(tmp_path):
    with open(tmp_path / "model.npz", "wb") as file:
        NET.save(file)
        assert not file.closed
    assert_same_bits(fl.load(tmp_path / "model.npz")(X), NET(X))
    assert os.listdir(tmp_path) == ["model.npz"]
    NET.save(tmp_path / "other", format="npz")
    assert (tmp_path / "other").read_bytes() == (tmp_path / "model.npz").read_bytes()


class Slow(io.RawIOBase):
    """Takes a few bytes at a time, as a raw file may."""

    def __init__(self):
        self.taken = bytearray()

    def writable(self):
        return True

    def write(self, data):
        self.taken += bytes(data[:100])
        return min(len(data), 100)


class Silent:
    """A writer that does not tell how much it took: all."""

    def __init__(self):
        self.taken = bytearray()

    def write(self, data):
        self.taken += data


@pytest.mark.parametrize("kind", [Slow, Silent])
def test_writers_of_every_kind_get_all_bytes(kind):
    file, expected = kind(), io.BytesIO()
    NET.save(file, format="npz")
    NET.save(expected, format="npz")
    assert bytes(file.taken) == expected.getvalue()


@pytest.mark.parametrize("answer", [None, 0])
def test_a_writer_that_would_have_to_wait(answer):
    class Full(Slow):
        def write(self, data):
            return answer

    with pytest.raises(BlockingIOError, match="the open file: takes no more bytes"):
        NET.save(Full(), format="npz")


def test_what_can_not_be_saved_writes_nothing():
    file = io.BytesIO()
    with pytest.raises(ValueError, match="is a Python function"):
        fl.Network([fl.Layer(2, 2, np.cbrt)]).save(file, format="npz")
    assert file.getvalue() == b""


# --- what is no open binary file, or not what it should be


def closed():
    file = io.BytesIO(b"PK")
    file.close()
    return file


def in_text_mode():
    return tempfile.NamedTemporaryFile("w+", suffix=".npz")


def null(mode):
    return lambda: open(os.devnull, mode)


READING = [
    (lambda: io.StringIO("PK"), TypeError, "is open as text; open it with the mode 'rb'"),
    (in_text_mode, TypeError, r"\.npz: is open as text"),
    (closed, ValueError, "the open file: is closed"),
    (io.BytesIO, ValueError, r"nothing to read at its position; file\.seek\(0\)"),
    (null("wb"), ValueError, "is not readable; open it with the mode 'rb'"),
    (Silent, ValueError, "is not readable"),
    (lambda: b"PK", TypeError, r"io\.BytesIO\(data\) is a file of bytes"),
    (lambda: 3, TypeError, "a path of strings or an open binary file, got 3"),
]


@pytest.mark.parametrize(("make", "error", "words"), READING)
def test_files_that_can_not_be_read(make, error, words):
    file = make()
    with pytest.raises(error, match=words):
        fl.load(file, format="npz")
    getattr(file, "close", lambda: None)()


class Texts:
    def read(self):
        return "PK"


def test_a_reader_of_other_things():
    with pytest.raises(TypeError, match=r"its read\(\) gave str, not bytes"):
        fl.load(Texts(), format="npz")
    with pytest.raises(TypeError, match="format must be a string such as 'npz', got 3"):
        fl.load(io.BytesIO(b"PK"), format=3)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (io.StringIO, TypeError, "open as text; open it with the mode 'rb', or 'wb' to write"),
        (closed, ValueError, "is closed"),
        (null("rb"), ValueError, "not writable; open it with the mode 'wb'"),
        (Texts, ValueError, "not writable"),
    ],
)
def test_files_that_can_not_be_written(make, error, words):
    file = make()
    with pytest.raises(error, match=words):
        NET.save(file, format="npz")
    getattr(file, "close", lambda: None)()


def test_a_format_that_nobody_tells():
    with pytest.raises(ValueError, match=r"the open file: format= must tell.*\.npz, \.safetensors"):
        fl.load(io.BytesIO(b"PK"))
    with pytest.raises(ValueError, match=r"format= must tell.*saved as \.npz or \.safetensors"):
        NET.save(io.BytesIO())
    with pytest.raises(ValueError, match=r"format= must tell.*read from \.safetensors"):
        weights(io.BytesIO(b"PK"))
    with pytest.raises(ValueError, match=r"unknown suffix '\.zarr'; model files end in"):
        fl.load("model.npz", format="zarr")
    with pytest.raises(ValueError, match="holds weights without an architecture"):
        fl.load(io.BytesIO(b"PK"), format="pt")
    with pytest.raises(ValueError, match="format= is for files; this is a mapping"):
        weights({"a.weight": np.ones((2, 3))}, format="pt")


def test_an_open_file_is_not_mapped(tmp_path):
    with pytest.raises(ValueError, match="only a file that is named by a path can be mapped"):
        fl.load(io.BytesIO(b"x"), format="safetensors", mmap=True)


def test_weights_in_files_of_their_own_need_a_path(tmp_path):
    onnx = pytest.importorskip("onnx")
    path = saved(tmp_path / "model.onnx")
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, size_threshold=0, location="weights")
    assert_same_bits(fl.load(path)[0].weight, NET[0].weight)
    with (
        open(path, "rb") as file,
        pytest.raises(
            fl.ModelFileError, match=r"in the file 'weights'.*give the path of the model"
        ),
    ):
        fl.load(file)


# --- files that mean harm


def test_errors_name_the_file(tmp_path):
    path = tmp_path / "model.npz"
    path.write_bytes(b"PK or not")
    with open(path, "rb") as file, pytest.raises(fl.ModelFileError) as caught:
        fl.load(file)
    assert caught.value.path == str(path)
    with pytest.raises(fl.ModelFileError, match="the open file: archive: is not a zip archive"):
        fl.load(io.BytesIO(b"PK or not"), format="npz")
    with pytest.raises(fl.ModelFileError, match="is a page of a website"):
        fl.load(io.BytesIO(b"<!DOCTYPE html>"), format="npz")
