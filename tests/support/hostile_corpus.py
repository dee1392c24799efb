"""Hostile model files: what each format lets somebody write who means harm, by name.

Each corpus is a dictionary of functions that return bytes, or write to the path that they are given
where a file is too large for that. None of these may be read.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from typing import Any

import numpy as np
from hostile_zips import sparse, zips
from model_files import (
    LEGACY,
    agent,
    directory,
    edit_document,
    header_of,
    legacy,
    members,
    npy,
    patched,
    pickled,
    pt,
    script,
    storage,
    tensor,
    with_header,
    word,
    zipped,
)

import fastlayer as fl

MANY = 190_000  # values, a little less than what is refused for their number alone


def read_state_dict(path: Any) -> fl.Network:
    """The reader of .pt files."""
    return fl.from_state_dict(path, activation="relu")


def read_agent(path: Any) -> fl.Network:
    """The reader of .zip files."""
    return fl.load(path, network="actor")


READERS = {".npz": fl.load, ".safetensors": fl.load, ".zip": read_agent}  # else read_state_dict
OWN = (".npz", ".safetensors")


def read_opened(path: str) -> fl.Network:
    """The reader of each of these, given a file that is open already."""
    with open(path, "rb") as file:
        return READERS.get(os.path.splitext(path)[1], read_state_dict)(file)


def sweep(path: str) -> int:
    """Read a file cut at every length, and with every byte changed in two ways.

    Run in a jail. The result may be another network where a byte of a weight or a name was
    changed, but the readers say no in one way only.
    """
    suffix = os.path.splitext(path)[1]
    read = READERS.get(suffix, read_state_dict)
    with open(path, "rb") as file:
        whole = file.read()
    cut = [whole[:n] for n in range(len(whole))]
    flipped = [
        whole[:i] + bytes([whole[i] ^ bits]) + whole[i + 1 :]
        for i in range(len(whole))
        for bits in (1, 0xFF)
    ]
    accepted = 0
    for data in [*cut, *flipped]:
        with open(path, "wb") as file:
            file.write(data)
        try:
            read(path)
        except fl.ModelFileError:
            continue
        except fl.ConversionError:
            # The description of a state dict can be changed into a sound one of something else.
            if suffix in OWN:
                raise
            continue
        assert len(data) == len(whole), f"cut to {len(data)} of {len(whole)} bytes, and yet read"
        accepted += 1
    return accepted


# Readers that the jail must not let through.


def wastes_memory(path: str) -> int:
    return len(bytes(70 << 20))


def wastes_time(path: str) -> int:
    return sum(i for i in range(10**12))


def opens_another_file(path: str) -> str:
    with open(path + ".txt") as file:
        return file.read()


def runs_code(path: str) -> object:
    return eval("1 + 1")


# ----------------------------------------------------------------------------- documents


def _layers(change: Any) -> Any:
    return lambda document: document.update(layers=change(document["layers"]))


WIDE = 10**9


def _wide(document: Any) -> None:
    """A last layer of so many neurons and no inputs, whose weight takes no bytes."""
    last = document["layers"][-1]
    last.update(in_features=0, out_features=WIDE, bias=False)


def _bare(layers: list[Any], many: int) -> list[Any]:
    return [dict(layers[2], features=10**9 // many, arrays=[])] * many


DOCUMENTS = {
    "layers without end": _layers(lambda layers: [{"type": "Flatten"}] * (2 * MANY)),
    "many layers that are none": _layers(lambda layers: [{}] * (MANY // 3)),
    "networks in networks": _layers(lambda layers: _nested(layers, 80)),
    "a norm of 10^9 features": _layers(lambda layers: _bare(layers, 1)),
    "many wide norms": _layers(lambda layers: _bare(layers, 1000)),
    "negative sizes": _layers(lambda p: [p[0], dict(p[1], in_features=-4, out_features=-6)]),
    "overflowing sizes": _layers(lambda p: [p[0], dict(p[1], in_features=2**63, out_features=2**63)]),
    "sizes of 4000 digits": _layers(lambda p: [p[0], dict(p[1], in_features=10**4000)]),
    "sizes that are NaN": _layers(lambda p: [p[0], dict(p[1], in_features=float("nan"))]),
    "no branches": _layers(lambda p: [{"type": "Concat", "branches": []}]),
    "branches that are no list": _layers(lambda p: [{"type": "Add", "branches": {"layers": p}}]),
    "a branch that is a number": _layers(lambda p: [{"type": "Multiply", "branches": [3]}]),
    "many branches": _layers(lambda p: [{"type": "Add", "branches": [{"layers": []}] * 5000}]),
    "branches 150 deep": _layers(lambda p: _branched(p, 150)),
    "branches that do not fit": _layers(lambda p: [{"type": "Add", "branches": [{"layers": [p[1]]}, {"layers": []}]}]),
    "a slice backwards": _layers(lambda p: [{"type": "Slice", "begin": 3, "end": 1}]),
    "a slice before the first": _layers(lambda p: [{"type": "Slice", "begin": -3, "end": 1}]),
    "a slice of text": _layers(lambda p: [{"type": "Slice", "begin": "0", "end": 1}]),
    "another version": lambda d: d.update(version=3),
    "a long name": _layers(lambda p: [p[0], dict(p[1], activation={"type": "Activation", "name": "relu" * 10**6, "parameters": {}})]),
    "code as a type": _layers(lambda p: [{"type": "os.system", "layers": []}]),
}  # fmt: skip


def _nested(layers: list[Any], depth: int) -> list[Any]:
    for _ in range(depth):
        layers = [{"type": "Network", "layers": layers}]
    return layers


def _branched(layers: list[Any], depth: int) -> list[Any]:
    for _ in range(depth):
        layers = [{"type": "Concat", "branches": [{"layers": layers}, {"layers": []}]}]
    return layers


def npz(path: Any) -> dict[str, Any]:
    """Hostile .npz files made from the one at `path`."""
    good = members(path)

    def header(text: str, version: bytes = b"\1\0") -> bytes:
        code = "<H" if version == b"\1\0" else "<L"
        size = struct.pack(code, len(text))
        data = b"\x93NUMPY" + version + size + text.encode("latin-1") + bytes(96)
        return zipped({**good, "1.weight.npy": data})

    def shape(text: str, descr: str = "'<f4'") -> Any:
        return lambda: header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {text}, }}\n")

    def text(data: bytes) -> Any:
        return lambda: zipped({**good, "fastlayer.npy": npy(np.frombuffer(data, np.uint8))})

    pickle_bomb = io.BytesIO()
    np.save(pickle_bomb, np.array([print], dtype=object), allow_pickle=True)
    return {
        **zips(good),
        **{name: (lambda c=c: zipped(edit_document(good, c))) for name, c in DOCUMENTS.items()},
        "a wide layer without inputs": lambda: zipped(
            {**edit_document(good, _wide), "7.weight.npy": npy(np.zeros((WIDE, 0), np.float32))}
        ),
        "pickled members": lambda: zipped({**good, "1.weight.npy": pickle_bomb.getvalue()}),
        "pickled document": lambda: zipped({**good, "fastlayer.npy": pickle_bomb.getvalue()}),
        "NaN shape": shape("(nan, 4)"),
        "negative shape": shape("(-6, -4)"),
        "shape of 2^62": shape(f"({2**62}, {2**62})"),
        "shape of 4000 digits": shape(f"({'9' * 4400}, 4)"),
        "shape of a call": shape("(__import__('os').system('true'), 4)"),
        "nested parentheses": shape("(" * 9000 + ")" * 9000),
        "a dtype of bytes without end": shape("(6, 4)", "'V99999999999999999'"),
        "a dtype of fields": shape("(6, 4)", str([("a", "<f4")] * 500)),
        "header of 4 GB": lambda: zipped(
            {**good, "1.weight.npy": b"\x93NUMPY\2\0" + b"\xff" * 4 + bytes(96)}
        ),
        "header of 100 MB": lambda: header(" " * (100 << 20), b"\2\0"),
        "document of 20 MB": text(b'{"format": "' + b"x" * (20 << 20) + b'"}'),
        "values without end": text(b"[" + b"{}," * (1 << 20) + b"1]"),
        "many values": text(b"[" + b"{}," * (MANY // 2) + b"1]"),
        "deep lists": text(b"[" * 200_000),
        "long numbers": text(b'{"version": ' + b"9" * (3 << 20) + b"}"),
        "a name twice": text(b'{"format": "fastlayer", "format": "fastlayer"}'),
    }


# ----------------------------------------------------------------------------- safetensors


def _moved(data: bytes, entry: Any) -> bytes:
    """Give the last weight another entry, and its bytes another name."""
    header, tensors = header_of(data)
    header["spare"] = header["7.weight"]
    return with_header({**header, "7.weight": entry}, tensors)


def safetensors(path: Any) -> dict[str, Any]:
    """Hostile .safetensors files made from the one at `path`."""
    whole = path.read_bytes()
    header, data = header_of(whole)
    document = json.loads(header["__metadata__"]["fastlayer"])

    def written(change: Any) -> bytes:
        copy = json.loads(json.dumps(document))
        change(copy)
        text = {"fastlayer": json.dumps(copy)}
        return with_header({**header, "__metadata__": text}, data)

    def meta(text: str) -> Any:
        return lambda: with_header({**header, "__metadata__": {"fastlayer": text}}, data)

    def entry(**fields: Any) -> Any:
        return lambda: with_header({**header, "1.weight": {**header["1.weight"], **fields}}, data)

    first = header["1.weight"]["data_offsets"]
    empty = {"dtype": "F32", "shape": [WIDE, 0], "data_offsets": [len(data)] * 2}
    return {
        **{name: (lambda c=c: written(c)) for name, c in DOCUMENTS.items()},
        "a wide layer without inputs": lambda: _moved(written(_wide), empty),
        "no header": lambda: whole[:8],
        "header of 100 MB": lambda: sparse(struct.pack("<Q", 100_000_000) + b"{", 100_000_100),
        "header of 1 GB": lambda: sparse(struct.pack("<Q", 10**9) + b"{", 10**9 + 100),
        "header of 2^64": lambda: b"\xff" * 8 + whole[8:],
        "100 GB of nothing": lambda: sparse(whole, 100 << 30),
        "values without end": lambda: with_header(b"{" + b'"a":[],' * (1 << 18) + b'"b":1}', data),
        "deep lists": lambda: with_header(b'{"a":' + b"[" * 190_000 + b"}", data),
        "deep document": meta("[" * 190_000),
        "many values": meta("[" + "{}," * (MANY // 2) + "1]"),
        "NaN shape": entry(shape=[float("nan"), 4]),
        "negative shape": entry(shape=[-6, -4]),
        "shape of 2^63": entry(shape=[2**63, 4]),
        "overflowing product": entry(shape=[2**32, 2**32, 4]),
        "shape of 4000 digits": entry(shape=[10**4000, 4]),
        "overlap": entry(data_offsets=[0, first[1] - first[0]]),
        "negative offsets": entry(data_offsets=[-96, 0]),
        "offsets beyond": entry(data_offsets=[2**40, 2**40 + 96]),
        "another tensor's size": entry(shape=[4, 6]),
        "another dtype": entry(dtype="I32"),
        "a name twice": lambda: with_header(
            json.dumps(header).encode()[:-1] + b', "1.weight": {}}', data
        ),
        "bytes behind": lambda: whole + b"PK\x05\x06" + bytes(18),
    }


# ----------------------------------------------------------------------------- .pt


def _pickles(written: Any) -> dict[str, Any]:
    """Hostile pickles; `written` makes a file of one and the bytes of a storage of 12 elements."""
    data = bytes(48)

    def ended(text: bytes) -> Any:
        return lambda: written(b"\x80\x02" + text + b".", data)

    def held(source: bytes, *view: Any) -> Any:
        return lambda: written(pickled({"0.weight": tensor(source, *view)}), data)

    mine = storage("0", 12)
    doubled = b")q\0" + b"h\0\x86q\0" * 60  # of 2^60 empty tuples, if somebody were to look
    return {
        "a command": ended(b"cos\nsystem\n(" + word("touch /tmp/owned") + b"tR"),
        "a name alone": ended(b"cos\nsystem\n"),
        "getattr": ended(b"c__builtin__\ngetattr\n(cos\nsystem\nX\0\0\0\0tR"),
        "a class": ended(b"c__main__\nNet\n)\x81"),
        "an instance": ended(b"(i__main__\nNet\n"),
        "lists without end": ended(b"]" * 1_000_000),
        "dictionaries": ended(b"}" * MANY),
        "lists in a list": ended(b"](" + b"]" * MANY + b"e"),
        "marks": ended(b"(" * MANY),
        "tuples in tuples": ended(b")" + b"\x85" * MANY),
        "places in the memo": ended(b"}" + b"".join(b"r" + struct.pack("<I", i) for i in range(MANY - 9))),
        "a far place in the memo": ended(b"}r\xff\xff\xff\xff"),
        "a text of 4 GB": ended(b"X\xff\xff\xff\xff"),
        "bytes of 2^62": lambda: written(b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b".", data),
        "a frame of 2^62": lambda: written(b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b".", data),
        "a long integer": ended(b"\x8b\xff\xff\xff\x7f"),
        "doubled tuples as a name": ended(b"}" + doubled + b"K\x01s"),
        "doubled tuples as a tensor": ended(b"}" + word("a") + doubled + b"s"),
        "doubled tuples as a storage": ended(doubled + b"Q"),
        "doubled tuples as a key": ended(b"(" + word("storage") + b"ctorch\nFloatStorage\n" + doubled + word("cpu") + b"K\x0ctQ"),
        "doubled tuples as a size": ended(b"(" + word("storage") + b"ctorch\nFloatStorage\n" + word("0") + word("cpu") + doubled + b"tQ"),
        "doubled tuples as a shape": ended(b"ctorch._utils\n_rebuild_tensor_v2\n(" + mine + b"K\0" + doubled + b")\x89}tR"),
        "a dictionary of numbers": ended(b"}(" + b"".join(b"\x8a\x08" + struct.pack("<q", i << 45) + b"N" for i in range(MANY // 2)) + b"u"),
        "a text of other planes": ended(word("\N{GRINNING FACE}" + "x" * ((4 << 20) - 100))),
        "20 MB of long texts": ended(b"](" + word("x" * 2000) * 10_000 + b"e"),
        "20 MB of names": ended(b"](" + word("x" * 1000) * 20_000 + b"e"),
        "a set of doubled tuples": ended(b"\x8f(" + doubled + b"\x90"),
        "a frozen set of doubled tuples": ended(b"(" + doubled + b"\x91"),
        "a command by its names": ended(word("os") + word("system") + b"\x93(" + word("touch /tmp/owned") + b"tR"),
        "a command with named arguments": ended(word("os") + word("system") + b"\x93)}" + word("command") + word("touch /tmp/owned") + b"s\x92"),
        "names of megabytes": ended(b"(" + word("a" * (3 << 20)) + b"q\0" + b"h\0h\0\x93" * (MANY // 4) + b"t"),
        "bytes of 2^63": ended(b"\x8e" + struct.pack("<Q", 2**63)),
        "a dictionary in itself": ended(b"}q\0" + word("a") + b"h\0s"),
        "a pickle of 5 MB": ended(word("x" * (5 << 20))),
        "an endless expansion": held(mine, 0, (10**9, 10**9), (0, 0)),
        "beyond the storage": held(mine, 0, (3, 5), (4, 1)),
        "overflowing strides": held(mine, 0, (3, 4), (2**62, 1)),
        "negative offset": held(mine, -1, (3, 4), (4, 1)),
        "negative shape": held(mine, 0, (-3, -4), (4, 1)),
        "a shape of 2^62": held(mine, 0, (0, 2**61), (1, 1)),
        "a storage of 2^40": held(storage("0", 2**40), 0, (3, 4), (4, 1)),
        "a storage elsewhere": held(storage("../../../etc/passwd", 12), 0, (3, 4), (4, 1)),
    }  # fmt: skip


def torch(path: Any) -> dict[str, Any]:
    """Hostile .pt files made from the one at `path`."""
    many = {
        f"{i}.weight": tensor(storage("0", 10**6), 0, (1000, 1000), (1000, 1)) for i in range(60)
    }
    return {
        **zips(members(path)),
        **_pickles(lambda pickle, data: pt(pickle, {"0": data})),
        "a large network of one storage": lambda: pt(pickled(many), {"0": bytes(4 * 10**6)}),
        "tar": lambda: bytes(257) + b"ustar" + bytes(1000),
        "a bare pickle": lambda: b"\x80\x04\x95" + bytes(100),
    }  # fmt: skip


def old(path: Any) -> dict[str, Any]:
    """Hostile files of PyTorch's format before 1.6, made from the one at `path`."""
    whole = path.read_bytes()
    one = tensor(storage("0", 12), 0, (3, 4), (4, 1))
    far = tensor(storage("0", 2**40), 0, (3, 4), (4, 1))
    many = {f"{i}": tensor(storage(f"{i}", 0), 0, (0,), (1,)) for i in range(4000)}
    system = b"\x80\x02" + b"]" * MANY + b"."
    return {
        **_pickles(lambda pickle, data: legacy(pickle, {"0": data})),
        "a number alone": lambda: LEGACY[:15],
        "nothing behind the version": lambda: LEGACY,
        "a machine without end": lambda: legacy(pickled({"0": one}), {"0": bytes(48)}, system=system),
        "a list without end": lambda: legacy(pickled({"0": one}), {"0": bytes(48)}, ["0"] * (MANY // 3)),
        "many storages": lambda: legacy(pickled(many), {f"{i}": b"" for i in range(3999)}),
        "a count of 2^40": lambda: legacy(pickled({"0": far}), {}, ["0"]) + struct.pack("<q", 2**40),
        "a count of -1": lambda: legacy(pickled({"0": one}), {}, ["0"]) + b"\xff" * 8 + bytes(48),
        "100 GB of nothing": lambda: sparse(whole[:300], 100 << 30),
        "100 MB of a pickle": lambda: LEGACY + legacy(b"", {})[len(LEGACY) : -6] + b"\x80\x02" + b"]0" * (50 << 20),
        "long names": lambda: legacy(pickled({"0": one.replace(word("0"), word("0" * (3 << 20)))}), {}),
    }  # fmt: skip


def compiled(path: Any) -> dict[str, Any]:
    """Hostile TorchScript made from the file at `path`."""
    good = members(path)
    stored = {name: data for name, data in good.items() if "/code/" not in name}
    root = next(iter(good)).partition("/")[0]
    node = b"c__torch__\nN\n)\x81}("
    doubled, nested = node + b"ub", node + b"ub"
    for i in range(2000):
        nested = node + word("a") + nested + b"ub"
        doubled = node + word("a") + doubled + b"q\1" + word("b") + b"h\1ub" if i < 60 else doubled

    def ended(tree: bytes) -> Any:
        return lambda: script(tree)

    wide = node + b"".join(word(f"{i}") + node + b"ub" for i in range(14_000)) + b"ub"
    return {
        **zips(stored),
        **_pickles(lambda pickle, data: script(pickle[2:-1], {"0": data})),
        "an object in itself": ended(b"c__torch__\nN\n)\x81q\1}(" + word("a") + b"h\1ub"),
        "two objects in each other": ended(node.replace(b"}", b"q\1}") + word("a") + node + word("b") + b"h\1ubub"),
        "doubled objects": ended(doubled),
        "objects 2000 deep": ended(nested),
        "many objects": ended(wide),
        "names of a megabyte": ended(node + word("a" * (1 << 20)) + b"q\1" + node + b"".join(b"h\1" + node * (i < 40) for i in range(41)) + b"N" + b"ub" * 41 + b"ub"),
        "a class as a tree": ended(b"c__torch__\nN\n"),
        "a state that is a tuple": ended(b"c__torch__\nN\n)\x81(K\1tb"),
        "a state of doubled tuples": ended(b"c__torch__\nN\n)\x81" + b")q\0" + b"h\0\x86q\0" * 60 + b"b"),
        "a bomb in place of the tree": lambda: zipped({**stored, f"{root}/data.pkl": b"]" * (4 << 20)}),
        "a compressed tree": lambda: zipped(good, zipfile.ZIP_DEFLATED),
        "code beyond the file": lambda: patched(zipped(good), directory(zipped(good))[_code(good)] + 20, "<L", 1 << 30),
    }  # fmt: skip


def _code(good: dict[str, bytes]) -> int:
    return next(i for i, name in enumerate(good) if "/code/" in name)


def agents(path: Any) -> dict[str, Any]:
    """Hostile agents of stable-baselines3 made from the file at `path`."""
    good = members(path)
    settings = json.loads(good["data"])

    def text(data: bytes) -> Any:
        return lambda: zipped({**good, "data": data})

    def written(**more: Any) -> Any:
        return text(json.dumps({**settings, **more}).encode())

    space = settings["observation_space"]
    one = tensor(storage("0", 12), 0, (3, 4), (4, 1))
    many = {f"critic.qf{i}.0.weight": one for i in range(7000)}
    return {
        **zips(good),
        **_pickles(lambda pickle, data: agent(pt(pickle, {"0": data}), **settings)),
        **{f"policy: {name}": (lambda w=w: agent(w(), **settings)) for name, w in zips(members(good["policy.pth"])).items() if "100 " not in name},
        "the old format, cut": lambda: agent(legacy(pickled({}), {})[:-3], **settings),
        "many critics": lambda: agent(pt(pickled(many), {"0": bytes(48)}), **settings),
        "an agent in an agent": lambda: zipped({**good, "policy.pth": path.read_bytes()}),
        "data of 20 MB": text(b'{"a": "' + b"x" * (20 << 20) + b'"}'),
        "values without end": text(b"[" + b"{}," * (1 << 20) + b"1]"),
        "deep lists": text(b"[" * 200_000),
        "long numbers": text(b'{"use_sde": ' + b"9" * (3 << 20) + b"}"),
        "a shape of 4000 digits": written(observation_space={**space, "_shape": [10**4000]}),
        "many axes": written(observation_space={**space, "_shape": [1] * 50_000}),
        "a shape of text": written(observation_space={**space, "_shape": "5" * 10**6}),
        "a class of a megabyte": written(policy_kwargs={"activation_fn": "<class '" + "x" * 10**6 + "'>"}),
        "a policy that is a list": written(policy_class={"__module__": [1]}),
        "a bound that is NaN": written(policy_class={"__module__": "os.system"}, policy_kwargs={"clip_mean": float("nan")}),
    }  # fmt: skip
