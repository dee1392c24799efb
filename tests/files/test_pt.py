"""State dicts in .pt files without PyTorch: what is read, and what is refused by name."""

from __future__ import annotations

import argparse
import pickle
import random
import re
import sys

import numpy as np
import pytest
from helpers import assert_same_bits
from model_files import DATA, grid, members, number, pickled, pt, storage, tensor, word, zipped

import fastlayer as fl
from fastlayer.files import pt as _pt

STORED = np.arange(12, dtype=np.float32)
BYTES = STORED.astype("<f4").tobytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pt"


def read(path, **more):
    return fl.from_state_dict(path, activation="relu", **more)


def one(shape=(3, 4), strides=(4, 1), offset=0, source=None):
    source = storage("0", 12) if source is None else source
    return pickled({"0.weight": tensor(source, offset, shape, strides)})


def refuse(path, content, message):
    path.write_bytes(content)
    with pytest.raises(fl.ModelFileError, match=message) as caught:
        read(path)
    assert caught.value.path == str(path)


VIEWS = {
    "rows": ((3, 4), (4, 1), 0, STORED.reshape(3, 4)),
    "transposed": ((4, 3), (1, 4), 0, STORED.reshape(3, 4).T),
    "part": ((2, 2), (4, 1), 5, STORED.reshape(3, 4)[1:, 1:3]),
    "steps": ((2, 2), (6, 2), 1, STORED.reshape(2, 6)[:, 1:5:2]),
    "one row": ((1, 4), (99, 1), 8, STORED.reshape(3, 4)[2:]),
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("order", ["little", "big", None])
@pytest.mark.parametrize("dtype", ["Float", "Double"])
def test_views_of_storages(path, name, order, dtype):
    shape, strides, offset, expected = VIEWS[name]
    kind = {"Float": "f4", "Double": "f8"}[dtype]
    data = STORED.astype((">" if order == "big" else "<") + kind).tobytes()
    source = storage("0", 12, f"torch {dtype}Storage")
    named = None if order is None else order.encode()
    path.write_bytes(pt(one(shape, strides, offset, source), {"0": data}, byteorder=named))
    assert_same_bits(read(path)[0].weight, expected.astype(kind))


def test_a_tensor_without_elements(path):
    path.write_bytes(pt(one((0, 4)), {"0": BYTES}))
    with _pt.stored(str(path)) as found:
        assert_same_bits(found["0.weight"].read(), np.empty((0, 4), "<f4"))
    with pytest.raises(fl.ConversionError, match=r"weight \(0, 4\)"):
        read(path)


def test_tensors_may_share_a_storage(path):
    entries = {f"{i}.weight": tensor(storage("0", 12), i, (3, 3), (3, 1)) for i in range(3)}
    path.write_bytes(pt(pickled(entries), {"0": BYTES}))
    for i, layer in enumerate(read(path)):
        assert_same_bits(layer.weight, STORED[i : i + 9].reshape(3, 3))


def test_no_module_of_pytorch_is_imported(path, monkeypatch):
    for name in [n for n in sys.modules if n == "torch" or n.startswith("torch.")]:
        monkeypatch.delitem(sys.modules, name)
    assert_same_bits(read(DATA / "state_dict.pt")[0].weight, grid(6, 4))
    assert "torch" not in sys.modules


# ----------------------------------------------------------------------------- other formats


class Dangerous:
    def __reduce__(self):
        return print, ("this must never run",)


FORMATS = {
    "pickle protocol 4": (pickle.dumps(Dangerous(), 4), "bare pickle"),
    "tar": (bytes(257) + b"ustar" + bytes(250), "tar archive.*torch.save"),
    "text": (b"not found", "not a zip archive"),
    "nothing": (b"", "not a zip archive"),
    "other zip": (zipped({"a.txt": b"hello"}), r"data\.pkl.*missing"),
    "two pickles": (zipped({"a/data.pkl": b".", "b/data.pkl": b"."}), r"data\.pkl.*missing"),
    "byte order": (pt(one(), {"0": BYTES}, byteorder=b"middle"), "byteorder"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_other_formats_are_refused_by_name(path, name, capsys):
    refuse(path, *FORMATS[name])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", [b"o\\s\nsystem", b"os\nsys\\tem", b"os\nsys\\x41tem", b"\\O\nx"])
def test_names_with_backslashes_are_refused(path, name):
    """One part of the reader would take them for escapes, with a warning, and the other as they are."""
    refuse(path, pt(b"\x80\x02c" + name + b"\n."), "a backslash")


NAMES = [
    "os system", "builtins eval", "posix system", "torch.nn.modules.container Sequential",
    "torch._utils _rebuild_qtensor", "torch load", "collections defaultdict",
    "torch Float8Storage", "torch.storage TypedStorage", "numpy.core.multiarray scalar",
    "__main__ Net", "fastlayer load",
]  # fmt: skip
# A call, a new object, one with attributes, one with items, one that things are added to.
USES = [
    b"(%sR",
    b"(%s\x81",
    b"(%sR}(" + word("a") + number(1) + b"ub",
    b"(%sR(" + word("a") + number(1) + b"u",
    b"(%sR(" + number(1) + b"e",
    b"(%sR)R",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("use", range(len(USES)))
def test_every_other_name_makes_nothing(path, tmp_path, name, use):
    """Beside the state dict it doesn't matter; as a part of it it is refused by name."""
    module, attribute = name.encode("utf-8").split(b" ")
    trace = tmp_path / "executed"
    called = b"c" + module + b"\n" + attribute + b"\n"
    odd = called + USES[use].replace(b"(%s", b"(" + word(f"touch {trace}") + b"t", 1)
    weights = {"0.weight": tensor(storage("0", 12), 0, (3, 4), (4, 1))}
    path.write_bytes(pt(pickled({"odd": odd, **weights}), {"0": BYTES}))
    assert_same_bits(read(path, layers=["0"])[0].weight, STORED.reshape(3, 4))
    shown = re.escape(repr(name.replace(" ", ".")))
    with pytest.raises(
        fl.ConversionError, match=f"'odd' holds an object of {shown}, which was not"
    ):
        read(path)
    assert not trace.exists()


def test_a_class_as_an_argument_makes_nothing_either(path):
    """Of the names that do make something: what they are called with is looked at."""
    known = b"ctorch._utils\n_rebuild_parameter\n"
    odd = known + b"(cos\nsystem\n\x88Nt" + b"R"
    path.write_bytes(pt(pickled({"0.weight": odd})))
    with pytest.raises(fl.ConversionError, match=r"'0\.weight' holds an object of 'os\.system'"):
        read(path)


def test_names_that_are_neither_text_nor_integers_are_left_out(path):
    """A tuple of tuples can take for ever to hash."""
    odd = b"".join(key + number(1) + b"s" for key in (b"]", b")", b"G" + bytes(8), b"N"))
    data = pickled({"0.weight": tensor(storage("0", 12), 0, (3, 4), (4, 1))})
    path.write_bytes(pt(data[:-1] + odd + b".", {"0": BYTES}))
    assert_same_bits(read(path)[0].weight, STORED.reshape(3, 4))


def test_what_training_keeps_beside_the_weights(path):
    torch = pytest.importorskip("torch")
    module = torch.nn.Linear(4, 3)
    optimiser = torch.optim.Adam(module.parameters())
    module(torch.ones(2, 4)).sum().backward()
    optimiser.step()
    beside = {
        "args": argparse.Namespace(lr=1e-3),
        "best": np.float64(0.25),
        "curve": np.arange(3),
        "device": torch.device("cpu"),
        "dtype": torch.bfloat16,
        "optimiser": optimiser.state_dict(),
        "python": random.getstate(),
        "numpy": np.random.default_rng(0).bit_generator.state,
        "torch": torch.get_rng_state(),
        "seed": 2**64 - 59,
        "seen": {1, 2},
        "shape": torch.Size([2, 3]),
        "wave": torch.ones(2, dtype=torch.complex64),
        ("a", 1): 3,
    }
    torch.save({"model": dict(module.named_parameters()), **beside}, path)
    net = fl.from_state_dict(path, activation=None, key="model", layers=[""])
    assert_same_bits(net[0].weight, module.weight.detach().numpy())


def test_whole_modules_say_how_to_save_them(path):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(2, 3), path)
    message = r"object of 'torch\.nn\.modules\.linear\.Linear'.*state_dict\(\), path"
    with pytest.raises(fl.ConversionError, match=message):
        read(path)


@pytest.mark.parametrize("dtype", ["half", "bfloat16"])
def test_halves_are_widened(path, dtype):
    torch = pytest.importorskip("torch")
    whole = torch.linspace(-3, 3, 40).to(getattr(torch, dtype)).reshape(5, 8)
    state = {"0.weight": whole[:, 1:7:2], "0.bias": torch.tensor([1e-6, -0.0, 1, 300, 65504])}
    torch.save(state, path)
    for source in (path, state):
        net = read(source)
        assert_same_bits(net[0].weight, whole[:, 1:7:2].float().numpy())
        assert_same_bits(net[0].bias, state["0.bias"].numpy())


@pytest.mark.parametrize("dtype", ["int64", "bool", "uint8"])
def test_other_dtypes_are_refused_by_name(path, dtype):
    torch = pytest.importorskip("torch")
    torch.save({"0.weight": torch.ones(2, 3, dtype=getattr(torch, dtype))}, path)
    with pytest.raises(fl.ConversionError, match=r"'0\.weight'.*convert it to float32 first"):
        read(path)


# ----------------------------------------------------------------------------- damage

HUGE = 2**62
FUNCTION = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n"
DAMAGED = {
    "beyond": (one((3, 4), (4, 1), 1), "beyond its storage"),
    "strides beyond": (one((3, 4), (5, 1)), "beyond its storage"),
    "expanded": (one((3, 5), (0, 1)), "repeats"),
    "expanded without end": (one((10**9, 10**9), (0, 0)), "share storage"),
    "negative shape": (one((-3, 4)), "impossible"),
    "negative strides": (one((3, 4), (-4, 1), 8), "impossible"),
    "negative offset": (one(offset=-1), "impossible"),
    "overflow": (one((HUGE, HUGE), (HUGE, HUGE)), "integer of 9 bytes|impossible"),
    "other ranks": (one((3, 4), (1,)), "beside strides"),
    "nine axes": (one((1,) * 9, (1,) * 9), "beside strides"),
    "missing storage": (one(source=storage("7", 12)), r"data/7.*missing"),
    "path as storage": (one(source=storage("../../0", 12)), "missing"),
    "storage of other size": (one(source=storage("0", 13)), "another size"),
    "storage of other dtype": (one(source=storage("0", 12, "torch DoubleStorage")), "another size"),
    "no storage": (one(source=number(3)), "impossible"),
    "shape a list": (pickled({"0.weight": tensor(storage("0", 12), 0, (3, 4), (4, 1)).replace(b"t(J", b"l(J")}), "operation"),
    "long integer": (pickled({"a": b"\x8a\x41" + bytes(64) + b"\1"}), "integer of 65 bytes"),
    "attributes of an OrderedDict": (pickled({"a": b"ccollections\nOrderedDict\n)R]b"}), "attributes for something"),
    "call of a number": (pickled({"a": number(1) + b")R"}), "damaged"),
    "call of a storage type": (pickled({"a": b"ctorch\nFloatStorage\n)R"}), "damaged"),
    "OrderedDict of pairs": (pickled({"a": b"ccollections\nOrderedDict\n](K\x01K\x02te\x85R"}), "damaged"),
    "attributes of a tensor": (pickled({"a": tensor(storage("0", 12), 0, (3, 4), (4, 1)) + b"}b"}), "damaged"),
    "attributes of a function": (FUNCTION + b"}" + word("a") + number(1) + b"sb.", "damaged"),
    "slots of a function": (FUNCTION + b"(N}" + word("__defaults__") + b")stb.", "damaged"),
    "slots of a storage type": (b"\x80\x02ctorch\nFloatStorage\nN}" + word("dtype") + b"Ns\x86b.", "damaged"),
    "a far place in the memo": (b"\x80\x02}r\xff\xff\xff\xff.", "memo"),
    "a name twice in an OrderedDict": (b"\x80\x02ccollections\nOrderedDict\n)R(" + 2 * (word("a") + number(1)) + b"u.", "twice"),
    "half a pair of surrogates": (b"\x80\x02X\x03\x00\x00\x00\xed\xa0\x80.", "damaged"),
    "nothing": (b"\x80\x02.", "damaged"),
    "a name twice": (pickled({"a": number(1)})[:-2] + word("a") + number(2) + b"u.", "twice"),
    "items for a number": (b"\x80\x02K\x01K\x02K\x03s.", "damaged"),
    "empty": (b"", "cut short"),
    "no end": (b"\x80\x02}", "cut short"),
    "end too early": (b"\x80\x02(.", "too early"),
    "two results": (b"\x80\x02}}.", "too early"),
    "empty stack": (b"\x80\x02s.", "damaged"),
    "no mark": (b"\x80\x02}u.", "damaged"),
    "unknown memo": (b"\x80\x02h\x05.", "damaged"),
    "no newline": (b"\x80\x02cos", "cut short"),
    "no text": (b"\x80\x02X\x02\x00\x00\x00\xff\xfe.", "damaged"),
    "protocol": (b"\x80\x06}.", "protocol 6"),
    "a class without text for its name": (b"\x80\x04K\x01K\x02\x93.", "damaged"),
    "a class with a long name": (b"\x80\x04" + word("a") + word("b" * 1000) + b"\x93.", "name of 1001 characters"),
    "other operations": (b"\x80\x02\x8b\x01\0\0\0a.", "operation"),
    "long text": (b"\x80\x02X\xff\xff\xff\xffa.", "cut short"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_descriptions(path, name):
    pickle, message = DAMAGED[name]
    refuse(path, pt(pickle, {"0": BYTES}), message)


def test_a_name_with_a_hidden_sign(path):
    """Newer versions of pickletools take it for UTF-8, where it is another name."""
    path.write_bytes(pt(b"\x80\x02ccollections\nOrderedDict\xe2\x80\x8b\n.", {"0": BYTES}))
    with pytest.raises((fl.ModelFileError, fl.ConversionError), match=r"ascii|OrderedDict\\u200b"):
        read(path)


def test_damaged_storages(path):
    content = members(pt(one(), {"0": BYTES}))
    whole = zipped(content)
    at = whole.index(BYTES)
    refuse(path, whole[:at] + b"\1" + whole[at + 1 :], "checksum")


def test_many_tensors_of_one_storage_are_no_way_to_a_large_network(path):
    size = 1 << 20
    source = storage("0", size)
    entries = {f"{i}.weight": tensor(source, 0, (1024, 1024), (1024, 1)) for i in range(40)}
    refuse(path, pt(pickled(entries), {"0": bytes(4 * size)}), "share storage")


def test_numbers_text_and_lists_beside_the_tensors(path):
    inner = word("a") + number(-5) + word("b") + b"\x8a\x05" + (2**33).to_bytes(5, "little")
    more = b"G\x3f\xe0\0\0\0\0\0\0" + b"N\x88\x89\x85\x86\x86"
    path.write_bytes(
        pt(b"\x80\x02}q\x00(" + inner + word("c") + b"](" + more + b"euh\0r\0\1\0\0b.")
    )
    with _pt.stored(str(path)) as found:
        assert found == {"a": -5, "b": 2**33, "c": [0.5, (None, (True, (False,)))]}
