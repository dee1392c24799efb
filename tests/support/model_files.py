"""Networks for the tests of model files, and what takes such files apart and puts them together."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from helpers import assert_same_bits

import fastlayer as fl

DATA = Path(__file__).parents[1] / "data"


def every_part(dtype=np.float64):
    """A network with everything that a file can hold, from (..., 3, 4) to 3 classes."""

    def vector(n, seed):
        return np.random.default_rng(seed).uniform(0.5, 2, n).astype(dtype)

    leaky = fl.Activation("leaky_relu", negative_slope=0.1)
    prelu = fl.Activation("prelu", weight=vector(8, 3))
    return fl.Network(
        [
            fl.Flatten(),
            fl.Layer(12, 8, "relu", rng=0, dtype=dtype),
            fl.BatchNorm(8, 1e-3, vector(8, 1), running_var=vector(8, 2), dtype=dtype),
            fl.Layer(8, 8, prelu, rng=1, bias=False, dtype=dtype),
            fl.Residual(fl.LayerNorm(8, weight=vector(8, 4), dtype=dtype), leaky, "gelu"),
            fl.Network([fl.Activation("prelu", weight=vector(8, 5)), fl.RMSNorm(8, dtype=dtype)]),
            fl.Activation("prelu", weight=0.25),
            fl.Layer(8, 3, "softmax", rng=2, dtype=dtype),
        ]
    )


def grid(*shape):
    """Numbers that float32 holds exactly, different ones for different shapes."""
    size = int(np.prod(shape))
    return ((np.arange(size) * 7 % 23 - 11) / 8).reshape(shape).astype(np.float32)


def first_network():
    """The network in tests/data/version1*, which fastlayer 0.1.0 saved; never to be changed.

    Before its release the document held infinite numbers bare, which is not JSON.
    """
    return fl.Network(
        [
            fl.Flatten(),
            fl.Layer.from_arrays(grid(6, 4), grid(6), "relu"),
            fl.BatchNorm(6, 1e-3, grid(6), grid(6) * 2, grid(6) * 3, grid(6) ** 2 + 1),
            fl.Layer.from_arrays(grid(5, 6), None, fl.Activation("prelu", weight=grid(5))),
            fl.Residual(
                fl.LayerNorm(5, 1e-4, grid(5), grid(5)),
                fl.Activation("hardtanh", min_val=-2.0, max_val=np.inf),
            ),
            fl.Network([fl.RMSNorm(5, 1e-6, grid(5) + 3), fl.Activation("gelu", approximate="tanh")]),
            fl.Activation("prelu", weight=0.25),
            fl.Layer.from_arrays(grid(3, 5), grid(3), "softmax"),
        ]
    )  # fmt: skip


def assert_round_trips(net, x):
    """The files of a network, in every format of fastlayer's own, give the same bits."""
    suffixes = [".npz"] + [".safetensors"] * (find_spec("safetensors") is not None)
    with TemporaryDirectory() as folder:
        for suffix in suffixes:
            path = Path(folder, f"net{suffix}")
            net.save(path)
            back = fl.load(path)
            assert repr(back) == repr(net)
            assert (back.input_names, back.output_names) == (net.input_names, net.output_names)
            both = [y if isinstance(y, tuple) else (y,) for y in (back(x), net(x))]
            for found, right in zip(*both, strict=True):
                if right.dtype.kind == "U":
                    assert (found == right).all()
                else:
                    assert_same_bits(found, right)


# ----------------------------------------------------------------------------- zip and npy


def npy(array, order="<"):
    array, file = np.asarray(array), io.BytesIO()
    np.lib.format.write_array(file, array.astype(array.dtype.newbyteorder(order), copy=False))
    return file.getvalue()


def members(source):
    """The members of an archive, given by its path or its bytes."""
    with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as archive:
        return {i.filename: archive.read(i) for i in archive.infolist()}


def zipped(content, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return file.getvalue()


def directory(data):
    """Offsets of the entries of a zip archive's directory, in their order."""
    found, at = [], int.from_bytes(data[-6:-2], "little")
    while data[at : at + 4] == b"PK\x01\x02":
        found.append(at)
        sizes = struct.unpack_from("<3H", data, at + 28)
        at += 46 + sum(sizes)
    return found


def patched(data, at, code, value):
    """Bytes with one number replaced."""
    piece = struct.pack(code, value)
    return data[:at] + piece + data[at + len(piece) :]


def edit_document(content, change):
    """The members of an .npz file with a changed document."""
    document = json.loads(np.load(io.BytesIO(content["fastlayer.npy"])).tobytes())
    change(document)
    text = np.frombuffer(json.dumps(document).encode(), np.uint8)
    return {**content, "fastlayer.npy": npy(text)}


# ----------------------------------------------------------------------------- JSON


def places(value, path=()):
    """Every place in a JSON document."""
    yield path
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        yield from places(inner, (*path, key))


def replaced(document, path, value):
    """A document with another value at a place."""
    if not path:
        return value
    inner = replaced(document[path[0]], path[1:], value)
    if isinstance(document, dict):
        return {**document, path[0]: inner}
    return [inner if i == path[0] else old for i, old in enumerate(document)]


# ----------------------------------------------------------------------------- safetensors


def header_of(data):
    """The header of a .safetensors file as a dictionary, and the bytes of its tensors."""
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def with_header(header, data):
    """A .safetensors file; the header is a dictionary or bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


# ----------------------------------------------------------------------------- files of PyTorch


def word(text):
    """BINUNICODE."""
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value):
    """BININT, or LONG1 for what that can't hold."""
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    size = 8 if -(2**63) <= value < 2**63 else 9
    return bytes([0x8A, size]) + value.to_bytes(size, "little", signed=True)


def storage(key, size, kind="torch FloatStorage"):
    module, name = kind.split(" ")
    named = b"c" + f"{module}\n{name}\n".encode()
    return b"(" + word("storage") + named + word(key) + word("cpu") + number(size) + b"tQ"


def tensor(source, offset, shape, strides):
    """The pickle of a tensor as torch.save writes it."""
    sizes = b"".join(b"(" + b"".join(map(number, s)) + b"t" for s in (shape, strides))
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + (source + number(offset) + sizes)
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )


def pickled(entries):
    """A pickle of a dictionary from names to pickles."""
    inner = b"".join(word(name) + value for name, value in entries.items())
    return b"\x80\x02}(" + inner + b"u."


def pt(pickle, storages=None, **more):
    """A file of torch.save; `storages` are bytes by key."""
    content = {"m/data.pkl": pickle, "m/byteorder": b"little", "m/version": b"3\n"}
    content |= {f"m/data/{key}": data for key, data in (storages or {}).items()}
    content |= {f"m/{name}": data for name, data in more.items()}
    return zipped({name: data for name, data in content.items() if data is not None})


# Pickles of the number that stands for the format, and of its version.
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + b"\x80\x02M\xe9\x03."


def legacy(pickle, storages, names=None, system=None):
    """A file of a PyTorch before 1.6; `storages` are bytes by key, of float32."""
    if system is None:
        system = pickled({"protocol_version": number(1001), "little_endian": b"\x88"})
    keys = b"\x80\x02](" + b"".join(map(word, storages if names is None else names)) + b"e."
    rest = (struct.pack("<q", len(data) // 4) + data for data in storages.values())
    return LEGACY + system + pickle + keys + b"".join(rest)


def record(name, attributes):
    """The pickle of an object of TorchScript; `name` is "module class"."""
    inner = b"".join(word(key) + value for key, value in attributes.items())
    return b"c" + name.replace(" ", "\n").encode() + b"\n)\x81}(" + inner + b"ub"


def script(pickle, storages=None, **more):
    """A file of torch.jit.save, with code that is compressed as there."""
    whole = {"code/__torch__.py": b"def forward(self): ...\n" * 40, "constants.pkl": b"\x80\x02)."}
    file = io.BytesIO(pt(b"\x80\x02" + pickle + b".", storages, **whole, **more))
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/code/more.py", b"pass\n" * 100)
    return file.getvalue()


def held(state):
    """Pickles of tensors of float32, each with a storage of its own, and the bytes of those."""
    data = {name: np.asarray(a, "<f4") for name, a in state.items()}
    views = {
        name: tensor(storage(name, a.size), 0, a.shape, [s // 4 for s in a.strides])
        for name, a in data.items()
    }
    return views, {name: a.tobytes() for name, a in data.items()}


def agent(state, text=None, **settings):
    """A file of stable-baselines3; `state` are arrays, or the bytes of policy.pth."""
    if not isinstance(state, bytes):
        views, data = held(state)
        state = pt(pickled(views), data)
    text = json.dumps(settings).encode() if text is None else text
    version = {"_stable_baselines3_version": b"2.9.2", "system_info.txt": b"- OS: ..."}
    return zipped(
        {"data": text, "pytorch_variables.pth": pt(b"\x80\x02}."), "policy.pth": state, **version}
    )
