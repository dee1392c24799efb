"""Files of PyTorch that are not plain zips of a state dict: before 1.6, TorchScript, checkpoints."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import functools
import pathlib
import random
import sys
import types
import warnings

import numpy as np
import pytest
from helpers import assert_same_bits
from model_files import (
    DATA,
    LEGACY,
    legacy,
    number,
    pickled,
    record,
    script,
    storage,
    tensor,
    word,
    zipped,
)

import fastlayer as fl

STORED = np.arange(12, dtype=np.float32)
BIAS = np.arange(3, dtype=np.float32)
STORAGES = {"7": STORED.astype("<f4").tobytes(), "8": BIAS.astype("<f4").tobytes()}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pt"


def read(path, **more):
    return fl.from_state_dict(path, activation="relu", **more)


def old(name, size, kind="torch FloatStorage", view=b"N"):
    """A reference to a storage as it was before 1.6: of what other storage it is a part comes last."""
    return storage(name, size, kind).replace(b"tQ", view + b"tQ")


def weights(**more):
    return {
        "0.weight": tensor(old("7", 12), 0, (3, 4), (4, 1)),
        "0.bias": tensor(old("8", 3), 0, (3,), (1,)),
        **more,
    }


def refuse(path, content, message):
    path.write_bytes(content)
    with pytest.raises(fl.ModelFileError, match=message) as caught:
        read(path)
    assert caught.value.path == str(path)


# ----------------------------------------------------------------------------- before 1.6


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".tar"])
def test_files_from_before_1_6(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(legacy(pickled(weights()), STORAGES))
    net = read(path)
    assert_same_bits(net[0].weight, STORED.reshape(3, 4))
    assert_same_bits(net[0].bias, BIAS)


def test_a_file_that_pytorch_wrote_in_the_old_format():
    """Of the weights in state_dict.pt, which are views, and with a storage that is shared."""
    old, new = read(DATA / "legacy.pth"), read(DATA / "state_dict.pt")
    for mine, theirs in zip(old, new, strict=True):
        assert_same_bits(mine.weight, theirs.weight)


def test_storages_lie_in_the_order_of_the_list(path):
    path.write_bytes(legacy(pickled(weights()), dict(reversed(STORAGES.items()))))
    assert_same_bits(read(path)[0].weight, STORED.reshape(3, 4))


def test_names_that_python_2_wrote(path):
    entries = weights()
    text = b"".join(b"U" + bytes([len(n)]) + n.encode() + v for n, v in entries.items())
    odd = b"U\x03" + b"lr\xff" + b"T\x04\x00\x00\x00\x80\x00\xfe\xff"
    path.write_bytes(legacy(b"\x80\x02}(" + text + odd + b"u.", STORAGES))
    assert_same_bits(read(path, layers=["0"])[0].bias, BIAS)


def test_the_first_function_that_made_tensors(path):
    entries = {name: value.replace(b"_v2", b"") for name, value in weights().items()}
    path.write_bytes(legacy(pickled(entries), STORAGES))
    assert_same_bits(read(path)[0].weight, STORED.reshape(3, 4))


def test_whole_modules_of_the_old_format_say_how_to_save_them(path):
    """A class stands there with its source, as a reference of its own."""
    module = (
        b"("
        + word("module")
        + b"c__main__\nNet\n"
        + word("net.py")
        + word("class Net: ...")
        + b"tQ"
    )
    path.write_bytes(legacy(b"\x80\x02" + module + b")\x81}(" + word("a") + b"Nub.", {}))
    with pytest.raises(
        fl.ConversionError, match=r"object of '__main__\.Net'.*module\.state_dict\(\), path"
    ):
        read(path)


WHOLE = legacy(pickled(weights()), STORAGES)
BIG = pickled({"protocol_version": number(1001), "little_endian": b"\x89"})
OLD = {
    "another version": (LEGACY[:-3] + b"\xea\x03." + WHOLE[len(LEGACY) :], "unknown version"),
    "a big-endian machine": (legacy(pickled(weights()), STORAGES, system=BIG), "little-endian"),
    "a machine that is a number": (legacy(pickled(weights()), STORAGES, system=b"\x80\x02K\x01."), "little-endian"),
    "a long description of the machine": (legacy(pickled(weights()), STORAGES, system=b"\x80\x02" + b"]" * 200 + b"."), "more than 100 operations"),
    "a storage that is not listed": (legacy(pickled(weights()), STORAGES, ["7"]), "lists other storages"),
    "a storage that nobody has": (legacy(pickled(weights()), STORAGES, ["7", "8", "9"]), "lists other storages"),
    "a storage twice": (legacy(pickled(weights()), STORAGES, ["7", "8", "8"]), "lists other storages"),
    "a list of numbers": (LEGACY + BIG.replace(b"\x89", b"\x88") + pickled(weights()) + b"\x80\x02](K\x01K\x02e.", "lists other storages"),
    "no list": (LEGACY + BIG.replace(b"\x89", b"\x88") + pickled(weights()) + b"\x80\x02N.", "lists other storages"),
    "a list without end": (LEGACY + BIG.replace(b"\x89", b"\x88") + pickled(weights()) + b"\x80\x02](" + b"K\x01" * 99 + b"e.", "more than 28 operations"),
    "a storage in two sizes": (legacy(pickled(weights(more=tensor(old("7", 11), 0, (1,), (1,)))), STORAGES), "two ways"),
    "a storage in two dtypes": (legacy(pickled(weights(more=tensor(old("7", 12, "torch DoubleStorage"), 0, (1,), (1,)))), STORAGES), "two ways"),
    "a count that lies": (WHOLE.replace(b"\x0c" + bytes(7), b"\x0b" + bytes(7)), "storage 7: has another size than the 12"),
    "part of a storage": (legacy(pickled({"0.weight": tensor(old("7", 12, view=b"(K\x00K\x01K\x02t"), 0, (3, 4), (4, 1))}), STORAGES), "impossible size"),
}  # fmt: skip


@pytest.mark.parametrize("name", OLD)
def test_damaged_files_from_before_1_6(path, name):
    refuse(path, *OLD[name])


def test_a_storage_that_claims_more_than_the_file(path):
    size = 2**40
    entries = pickled({"0.weight": tensor(old("7", size), 0, (1, 1), (1, 1))})
    data = legacy(entries, {}, ["7"]) + size.to_bytes(8, "little") + bytes(100)
    refuse(path, data, "storage 7: claims more bytes than the file has")


def test_every_cut_of_an_old_file(path):
    for size in range(len(WHOLE)):
        refuse(path, WHOLE[:size], "weights.pt: ")


@pytest.mark.parametrize("use", [b"(%stR", b"(%st\x81", b"(%stR}(X\1\0\0\0aK\1ub"])
def test_an_old_file_runs_nothing(path, tmp_path, use):
    trace = tmp_path / "executed"
    odd = b"cposix\nsystem\n" + use.replace(b"%s", word(f"touch {trace}"))
    path.write_bytes(legacy(pickled(weights(odd=odd)), STORAGES))
    assert_same_bits(read(path, layers=["0"])[0].bias, BIAS)
    assert not trace.exists()


@pytest.mark.filterwarnings("ignore::UserWarning")  # quantised tensors are deprecated
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_old_files_of_torch(path, dtype):
    torch = pytest.importorskip("torch")
    whole = torch.linspace(-3, 3, 40).to(getattr(torch, dtype)).reshape(5, 8)
    beside = {"wave": torch.ones(3, dtype=torch.complex64), "steps": torch.arange(4)}
    beside |= {
        "q": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "rng": torch.get_rng_state(),
    }
    beside |= {"bytes": torch.ones(3).untyped_storage(), "module": torch.nn.Linear(2, 2)}
    state = {"0.weight": whole[:, 1:7:2], "0.bias": whole[:, 3]}
    torch.save({**beside, "model": state}, path, _use_new_zipfile_serialization=False)
    net, wide = read(path, key="model"), "float64" if dtype == "float64" else "float32"
    assert_same_bits(net[0].weight, state["0.weight"].to(getattr(torch, wide)).numpy())
    assert_same_bits(net[0].bias, state["0.bias"].to(getattr(torch, wide)).numpy())


# ----------------------------------------------------------------------------- TorchScript

LINEAR = "__torch__.torch.nn.modules.linear Linear"
TENSOR = tensor(storage("0", 12), 0, (3, 4), (4, 1))


def tree(**more):
    layer = record(LINEAR, {"weight": TENSOR, "training": b"\x88", "bias": b"N"})
    return record(
        "__torch__ Net",
        {"training": b"\x88", "body": record("__torch__ Body", {"0": layer}), **more},
    )


def test_scripts_are_read_by_the_paths_of_attributes(tmp_path):
    lists = b"ctorch.jit._pickle\nbuild_intlist\n](K\x01K\x02e\x85R"
    device = b"ctorch\ndevice\n" + word("cpu") + b"\x85R"
    for suffix in (".pt", ".jit", ".ptl"):
        path = tmp_path / f"net{suffix}"
        path.write_bytes(
            script(tree(sizes=lists, device=device, scale=b"K\x02"), {"0": STORAGES["7"]})
        )
        assert_same_bits(read(path)[0].weight, STORED.reshape(3, 4))
        assert_same_bits(read(path, layers=["body.0"])[0].weight, STORED.reshape(3, 4))
        assert_same_bits(read(path, prefix="body")[0].weight, STORED.reshape(3, 4))


PACKED = record("__torch__.torch.classes.quantized Packed", {}).replace(b"}(ub", b"(K\x01tb")
SHARED = b"c__torch__\nNode\n)\x81q\x01}(" + word("a") + b"h\x01ub"
DOUBLED = record("__torch__ N", {})
for _ in range(60):
    DOUBLED = b"c__torch__\nN\n)\x81}(" + word("a") + DOUBLED + b"q\x01" + word("b") + b"h\x01ub"
LONG = record("__torch__ N", {f"{i:04d}" + "x" * 1000: b"N" for i in range(1500)}).join(
    (
        b"c__torch__\nM\n)\x81}(" + word("a"),
        b"q\x01" + word("b") + b"h\x01" + word("c") + b"h\x01ub",
    )
)
SCRIPTS = {
    "no tensors": (script(record("__torch__ ReLU", {"training": b"\x88"})), "holds no tensors"),
    "frozen": (script(record("__torch__ Net", {}), **{"constants/0": bytes(4)}), "frozen.*state_dict"),
    "quantised": (script(tree(packed=PACKED), {"0": STORAGES["7"]}), r"'packed' holds an object of '__torch__\.torch\.classes\.quantized\.Packed'"),
    "an object in itself": (script(SHARED), "hold each other"),
    "objects that double": (script(DOUBLED), "hold each other"),
    "long names": (script(LONG), "hold each other"),
    "a path twice": (script(record("__torch__ Net", {"a": record("__torch__ B", {"b": TENSOR}), "a.b": TENSOR}), {"0": STORAGES["7"]}), "twice"),
    "a missing storage": (script(tree()), "missing"),
    "names that are dropped": (script(record("__torch__ N", {"x" * 2000: TENSOR, "y" * 2000: TENSOR}), {"0": STORAGES["7"]}), "'' is there twice"),
    "an unknown operation": (script(b"V1\n"), "operation"),
    "before 1.4": (zipped({"net/model.json": b"{}", "net/code/net.py": b"", "net/tensors/0": b""}), "before 1.4"),
    "code in place of a tree": (script(b"cos\nsystem\n(" + word("touch executed") + b"tR"), "os.system"),
}  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_that_are_refused_say_so(path, name):
    data, message = SCRIPTS[name]
    path.write_bytes(data)
    with pytest.raises((fl.ModelFileError, fl.ConversionError), match=message) as caught:
        read(path)
    assert "TorchScript" in str(caught.value)
    assert str(path) in str(caught.value)


def compiled(module, how="script"):
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated as a whole
        return (
            torch.jit.trace(module, torch.ones(1, 4))
            if how == "trace"
            else torch.jit.script(module)
        )


def chain(torch, dtype="float32"):
    nn = torch.nn
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(4, 5),
        nn.Tanh(),
        nn.Sequential(nn.Linear(5, 5, bias=False), nn.Tanh()),
        nn.Linear(5, 2),
    )
    return module.to(getattr(torch, dtype)).eval()


@pytest.mark.parametrize("how", ["script", "trace", "mobile"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scripts_of_torch(tmp_path, rng, how, dtype):
    torch = pytest.importorskip("torch")
    module = chain(torch, dtype)
    path = tmp_path / "net.ptl"
    made = compiled(module.float() if how == "trace" else module, how)
    made = made.to(getattr(torch, dtype))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made._save_for_lite_interpreter(str(path)) if how == "mobile" else made.save(str(path))
    net = fl.from_state_dict(path, activation="tanh")
    x = rng.standard_normal((9, 4)).astype(dtype)
    assert_same_bits(net(x), fl.from_torch(module.to(getattr(torch, dtype)))(x))


def test_frozen_scripts_of_torch(path):
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.freeze(compiled(chain(torch))).save(str(path))
    with pytest.raises(
        fl.ModelFileError, match=r"TorchScript weights: are frozen.*module\.state_dict\(\)"
    ):
        read(path)


def test_the_advice_for_compiled_modules_works(path, rng):
    torch = pytest.importorskip("torch")
    module = chain(torch)
    made = compiled(module)
    with pytest.raises(
        fl.ConversionError, match=r"TorchScript.*made from.*from_state_dict\(module\.state_dict\(\)"
    ):
        fl.from_torch(made)
    x = rng.standard_normal((9, 4)).astype(np.float32)
    made.save(str(path))
    right = fl.from_torch(module)(x)
    for source in (made.state_dict(), path):
        assert_same_bits(fl.from_state_dict(source, activation="tanh")(x), right)


# ----------------------------------------------------------------------------- checkpoints


class Colour(enum.Enum):
    RED = 1


class AttributeDict(dict):
    """As of Lightning: a dictionary with attributes."""


class Config:
    def __init__(self):
        self.__dict__.update(lr=1e-3, inner={"a": [1, 2]}, net=None)

    def __getstate__(self):
        return dict(self.__dict__)

    def __setstate__(self, state):
        self.__dict__.update(state)


def lightning(torch, module, optimiser):
    return {
        "epoch": 3, "global_step": 100, "pytorch-lightning_version": "2.4.0", "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"EarlyStopping{'monitor': 'loss'}": {"best": torch.tensor(0.5), "path": pathlib.PurePosixPath("a/b")}},
        "optimizer_states": [optimiser.state_dict()], "lr_schedulers": [], "hparams_name": "kwargs",
        "hyper_parameters": AttributeDict(lr=1e-3, sizes=(1, 2), act=torch.nn.ReLU, cfg=Config()),
        "datamodule_hyper_parameters": AttributeDict(AttributeDict(a=1)),
    }  # fmt: skip


def states(torch, module, optimiser):
    numpy = np.random.default_rng(0)
    return {
        "python": random.getstate(), "numpy": np.random.get_state(), "generator": numpy.bit_generator.state, "live": numpy,  # noqa: NPY002
        "torch": torch.get_rng_state(), "torch generator": torch.Generator(), "seed": 2**64 - 59, "wide": 1 << 200,
    }  # fmt: skip


def objects(torch, module, optimiser):
    return {
        "when": datetime.datetime(2020, 1, 2, tzinfo=datetime.timezone.utc), "day": datetime.date(2020, 1, 2), "took": datetime.timedelta(1),
        "path": pathlib.PurePosixPath("a/b"), "colour": Colour.RED, "many": {Colour.RED: 1, (1, 2): 3, None: 4, 1.5: 2, b"x": 1},
        "default": collections.defaultdict(list, a=[1]), "counter": collections.Counter("aab"), "deque": collections.deque([1.0], maxlen=3),
        "ordered": collections.OrderedDict(a=1), "partial": functools.partial(int, base=2), "named": np.linalg.norm, "builtin": len,
        "namespace": argparse.Namespace(lr=1), "simple": types.SimpleNamespace(a=1), "config": Config(), "set": {1}, "frozen": frozenset({2}),
        "curve": np.linspace(0, 1, 700_000), "log": "a line\n" * 700_000, "losses": [0.1] * 30_000,
        "bytes": b"\xff\x00", "array": bytearray(b"ab"), "complex": 1j, "range": range(3), "slice": slice(1, 2), "ellipsis": ..., "exception": ValueError("a"),
        "scalar": np.float32(1), "integer": np.int64(3), "dtype": np.dtype("f4"), "of texts": np.array(["a", "b"]), "of objects": np.array([{}, None], object), "record": np.zeros(2, [("a", "f4")]),
    }  # fmt: skip


def tensors(torch, module, optimiser):
    subclass = torch.nn.Parameter(torch.ones(2))
    subclass.tag = "mine"
    kinds = (
        torch.complex64,
        torch.uint16,
        torch.uint32,
        torch.float8_e4m3fn,
        torch.bool,
        torch.bfloat16,
    )
    return {
        "size": torch.Size([2, 3]), "device": torch.device("cpu"), "dtype": torch.float16, "layout": torch.strided, "tagged": subclass,
        "buffer": torch.nn.Buffer(torch.ones(2)), "kinds": [torch.ones(2).to(kind) for kind in kinds], "sparse": torch.eye(3).to_sparse(),
        "quantised": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "storage": torch.ones(3).untyped_storage(), "typed": torch.FloatStorage([1, 2]),
        "module": torch.nn.Sequential(torch.nn.Conv2d(1, 1, 2), torch.nn.LSTM(2, 2)), "optimiser": optimiser, "loss": torch.nn.MSELoss(), "zero": torch.ones(0, 3),
        "scheduler": torch.optim.lr_scheduler.StepLR(optimiser, 1).state_dict(), "scaler": {"scale": 65536.0, "_growth_tracker": 0}, "nested": [[torch.ones(1)] * 3] * 2,
        "expanded": torch.ones(1).expand(5), "conjugate": torch.ones(2, dtype=torch.complex64).conj(), "meta": torch.ones(2, device="meta"),
    }  # fmt: skip


def assert_first(net, module):
    for mine, theirs in zip(net, (module[0], module[2]), strict=True):
        assert_same_bits(mine.weight, theirs.weight.detach().numpy())


@pytest.mark.filterwarnings("ignore::UserWarning")  # so are typed storages
@pytest.mark.parametrize("beside", [lightning, states, objects, tensors])
@pytest.mark.parametrize("old", [False, True])
def test_what_nobody_asked_for_does_not_end_the_reading(path, beside, old):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    optimiser = torch.optim.AdamW(module.parameters(), amsgrad=True)
    module(torch.ones(2, 4)).sum().backward()
    optimiser.step()
    for name, value in beside(torch, module, optimiser).items():
        saved = {
            name: value,
            "state_dict": module.state_dict(),
            "ema": [p.clone() for p in module.parameters()],
        }
        if old and name in ("expanded", "meta"):
            continue
        for protocol in (2, 3, 4, 5):
            torch.save(
                saved, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not old
            )
            assert_first(read(path, key="state_dict"), module)


def test_no_module_of_pytorch_is_imported(path, monkeypatch):
    for name in [n for n in sys.modules if n == "torch" or n.startswith("torch.")]:
        monkeypatch.delitem(sys.modules, name)
    path.write_bytes(WHOLE)
    read(path)
    path.write_bytes(script(tree(), {"0": STORAGES["7"]}))
    read(path)
    assert "torch" not in sys.modules


# ----------------------------------------------------------------------------- no models at all

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head></head></html>"
SUFFIXES = [".pt", ".pth", ".bin", ".npz", ".safetensors", ".zip", ".keras", ".h5", ".onnx"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("content", "message"), [(POINTER, "git lfs pull"), (PAGE, "HTML"), (b"<html>", "HTML")]
)
def test_what_stands_in_place_of_a_model_is_named(tmp_path, suffix, content, message):
    if suffix in (".onnx", ".safetensors"):
        pytest.importorskip(suffix[1:])
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    load = fl.load if suffix not in (".pt", ".pth", ".bin") else read
    with pytest.raises(fl.ModelFileError, match=message) as caught:
        load(path)
    assert caught.value.path == str(path)
