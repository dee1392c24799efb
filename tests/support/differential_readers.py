"""What is in a file: once by a reader of ours, once by the library that the format comes from."""

from __future__ import annotations

import os
import signal

import numpy as np
from differential import Refused, attempt, held

from fastlayer.errors import ConversionError, Damaged, ModelFileError

# Whatever else one of our readers raises is a fault of its own.
REFUSALS = (Damaged, ModelFileError, ConversionError)


def _arrays(found):
    """Read what is `Stored` by name."""
    return {name: attempt(lambda s=s: held(s.read()), *REFUSALS) for name, s in found.items()}


def crashes(path):
    """A reader that does not come back from some files."""
    if path.endswith("crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    while path.endswith("endless"):
        pass
    return {}


# ----------------------------------------------------------------------------- .npz


def our_npz(path):
    from fastlayer.files import npz
    from fastlayer.files.reading import reading
    from fastlayer.files.zip import members

    def one(archive, name):
        stored = npz._find(archive, name)
        # `document.Reader.want` asks for the dtype before anything is read.
        if stored.dtype not in npz._DTYPES.values():
            raise Damaged(name, f"has dtype {stored.dtype}")
        return held(stored.read())

    def whole():
        with reading(path) as file:
            archive = members(file)
            names = [name.removesuffix(".npy") for name in archive if name.endswith(".npy")]
            return {n: attempt(lambda n=n: one(archive, n), *REFUSALS) for n in names}

    return attempt(whole, *REFUSALS)


def their_npz(path):
    with np.load(path, allow_pickle=False) as archive:
        names = [
            name.removesuffix(".npy") for name in archive.zip.namelist() if name.endswith(".npy")
        ]
        return {n: attempt(lambda n=n: held(archive[f"{n}.npy"]), Exception) for n in names}


# ----------------------------------------------------------------------------- .safetensors


def our_safetensors(path, mmap=False):
    from fastlayer.files import safetensors

    def whole():
        with safetensors.stored(path, mmap) as found:
            return _arrays(found)

    return attempt(whole, *REFUSALS)


def our_mapped_safetensors(path):
    return our_safetensors(path, True)


def their_safetensors(path):
    import torch
    from safetensors.torch import load_file

    # bfloat16 becomes float32, as here, which has all its numbers.
    def one(t):
        return held((t.float() if t.dtype == torch.bfloat16 else t).numpy())

    return {n: attempt(lambda t=t: one(t), Exception) for n, t in load_file(path).items()}


# ----------------------------------------------------------------------------- .pt


def _flat(value, place=()):
    """Tensors in dictionaries, lists and tuples, by their path."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list | tuple) and not hasattr(value, "_fields")
        else None
    )
    if items is None:
        yield "/".join(map(str, place)), value
    else:
        for name, inner in items:
            yield from _flat(inner, (*place, name))


def our_pt(path):
    from fastlayer.files import pt
    from fastlayer.files.reading import Stored

    def whole():
        with pt.stored(path) as found:
            return _arrays({n: v for n, v in _flat(found) if isinstance(v, Stored)})

    return attempt(whole, *REFUSALS)


def their_pt(path):
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # of OpenMP, which is the same library for all in this process
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    finally:
        torch.set_num_threads(before)
    tensors = {n: v for n, v in _flat(found) if isinstance(v, torch.Tensor)}

    def one(t):
        return held((t.detach().float() if t.dtype == torch.bfloat16 else t.detach()).numpy())

    return {n: attempt(lambda t=t: one(t), Exception) for n, t in tensors.items()}


# ----------------------------------------------------------------------------- HDF5

# Names of the attributes in the files of the tests: our reader is asked for them one by one.
ATTRIBUTES = ("fixed", "padded", "variable", "list", "fixed_list", "empty", "number")


def _our_object(stored, address, path, found, depth):
    from fastlayer.files.hdf5 import Hdf5

    assert isinstance(stored, Hdf5)
    for name in ATTRIBUTES:
        texts = attempt(lambda n=name: stored.texts(address, n), *REFUSALS)
        if texts is not None:
            found[f"{path}@{name}"] = texts
    entries = attempt(lambda: stored.entries(address), *REFUSALS)
    if isinstance(entries, Refused):
        if path:
            found[path] = attempt(lambda: held(stored.array(address)), *REFUSALS, TypeError)
        return
    for name, inner in entries.items() if depth < 4 else ():
        _our_object(stored, inner, f"{path}/{name}", found, depth + 1)


def our_hdf5(path):
    from fastlayer.files.hdf5 import Hdf5
    from fastlayer.files.reading import read_bytes, reading, size_of

    def whole():
        found = {}
        with reading(path) as file:
            stored = Hdf5(lambda at, n: read_bytes(file, at, n, "HDF5"), size_of(file))
            stored.entries(stored.root)
            _our_object(stored, stored.root, "", found, 0)
        return found

    return attempt(whole, *REFUSALS)


def _replaced(text):
    """What is no UTF-8 h5py hides in surrogates, or hands out as bytes."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "replace")


def _texts_of(value):
    values = np.asarray(value, object).ravel() if isinstance(value, np.ndarray) else [value]
    texts = [v.decode("utf-8", "surrogateescape") if isinstance(v, bytes) else v for v in values]
    if not all(isinstance(v, str) for v in texts):
        raise TypeError("no text")
    return [_replaced(text) for text in texts]


def _their_object(thing, path, found, depth):
    import h5py

    for name in ATTRIBUTES:
        if attempt(lambda n=name: n in thing.attrs, Exception) is not False:
            found[f"{path}@{name}"] = attempt(lambda n=name: _texts_of(thing.attrs[n]), Exception)
    if isinstance(thing, h5py.Group):
        for name in thing if depth < 4 else ():
            inner = attempt(lambda n=name: thing[n], Exception)
            place = f"{path}/{_replaced(name)}"
            if isinstance(inner, Refused):
                found[place] = inner
            else:
                _their_object(inner, place, found, depth + 1)
    else:
        found[path] = attempt(lambda: held(thing[()]), Exception)


def their_hdf5(path):
    import h5py

    found = {}
    with h5py.File(path, "r") as file:
        _their_object(file, "", found, 0)
    return found


# ----------------------------------------------------------------------------- .onnx


def our_onnx(path):
    from fastlayer.convert._onnx.file import Model, parsed
    from fastlayer.files.reading import reading

    def whole():
        with reading(path) as file:
            model = Model(*_swapped(parsed(file.read()), path))
        return {
            name: attempt(lambda t=t: held(model.array(t)), *REFUSALS)
            for name, t in model.tensors.items()
        }

    return attempt(whole, *REFUSALS)


def _swapped(pair, path):
    proto, nbytes = pair
    return proto, path, nbytes


def their_onnx(path):
    """What ONNX Runtime hands out of a graph whose outputs are its weights, each by an Identity."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [out.name for out in session.get_outputs()]
    return {
        name.removeprefix("y_"): held(value)
        for name, value in zip(names, session.run(names, {}), strict=True)
    }
