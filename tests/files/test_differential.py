"""Readers of model files beside the libraries that the formats come from.

The long run is ``HYPOTHESIS_PROFILE=long pytest -m "long or not long" -s tests/files/test_differential.py``,
and prints how many files were compared, and where two readers differ, by kind.
"""

from __future__ import annotations

import io
import itertools
import sys
import zipfile
from contextlib import closing
from typing import Any, NamedTuple

import differential_readers as readers
import numpy as np
import pytest
from differential import Held, Reference, Refused, Tally, attempt, changes, held
from helpers import LONG, few_or_many
from hypothesis import given, settings
from hypothesis import strategies as st
from model_files import header_of, members, with_header, zipped

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and limits memory")

SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
FLOATS = ["f2", "f4", "f8"]
NUMBERS = [*FLOATS, "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]
NAMES = st.text("ab/.0é_", min_size=1, max_size=6)


def filled(dtype, shape, seed=0):
    """An array of any bits, NaNs among them."""
    rng, dtype = np.random.default_rng(seed), np.dtype(dtype)
    size = int(np.prod(shape))
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "SU":
        return np.full(shape, "ab", dtype)
    return np.frombuffer(rng.bytes(size * dtype.itemsize), dtype).reshape(shape)


def arrays(dtypes):
    return st.builds(filled, st.sampled_from(dtypes), SHAPES, st.integers(0, 99))


# ----------------------------------------------------------------------------- .npz


def npy(array, version=None):
    member = io.BytesIO()
    np.lib.format.write_array(member, array, version, allow_pickle=False)
    return member.getvalue()


def sound_npz(draw, path):
    dtypes = [f"{o}{d}" for o in "<>" for d in NUMBERS] + ["<c8", "S3", "<U2", "<f4,<i2"]
    kind = zipfile.ZIP_DEFLATED if draw(st.booleans()) else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", draw(st.sampled_from([zipfile.ZIP_STORED, kind]))) as archive:
        for name in draw(
            st.lists(st.text("ab.é_", min_size=1, max_size=4), unique=True, max_size=4)
        ):
            array = draw(st.one_of(*[arrays(["<f4", "<f8", "|u1"])] * 3, arrays(dtypes)))
            array = np.asfortranarray(array) if draw(st.booleans()) else array
            version = draw(st.sampled_from([None] * 4 + [(1, 0), (2, 0), (3, 0)]))
            archive.writestr(f"{name}.npy", npy(array, version))


def bases_npz(path):
    a, b = filled("<f4", (2, 3)), np.asfortranarray(filled("<f8", (2, 2)))
    with open(path, "wb") as file:
        np.savez(file, a=a, b=b, c=filled("u1", 5))
    yield path
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", npy(a))
        archive.writestr("b.npy", npy(filled("<f8", ())))
    yield path


# ----------------------------------------------------------------------------- .safetensors


def sound_safetensors(draw, path):
    import torch
    from safetensors.torch import save_file

    found = draw(st.dictionaries(NAMES, arrays(NUMBERS), max_size=5))
    tensors = {name: torch.from_numpy(a.copy()) for name, a in found.items()}
    for name in draw(st.sets(st.sampled_from(["h", "g"]))):
        halves = torch.from_numpy(filled("i2", draw(SHAPES)).copy())
        tensors[name] = halves.view(torch.bfloat16) if halves.dim() else halves
    if draw(st.booleans()):
        tensors["e"] = torch.zeros(3).to(draw(st.sampled_from(ODD(torch))))
    save_file(tensors, path, draw(st.sampled_from([None, {"a": "b"}])))


def ODD(torch):
    """Types that NumPy doesn't have, or that are no numbers of a network."""
    return [torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.float16]


def bases_safetensors(path):
    from safetensors.numpy import save_file

    save_file({"a": filled("<f4", (2, 3)), "b": filled("<f2", (4,))}, path)
    yield path
    save_file(
        {"a": filled("<f8", ()), "": filled("u1", (3, 1)), "e": filled("<f4", (0, 2))},
        path,
        {"k": "v"},
    )
    yield path


# ----------------------------------------------------------------------------- .pt


def sound_pt(draw, path):
    import torch

    kinds = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32]
    kinds += [torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64]
    tensors = {}
    for name in draw(st.lists(NAMES, unique=True, max_size=5)):
        kind = draw(st.sampled_from(kinds))
        base = torch.from_numpy(filled("u1", (64 * 16,), draw(st.integers(0, 9))).copy())
        base = base.view(kind) if kind != torch.bool else base > 99
        shape = draw(SHAPES)
        wide = [draw(st.integers(0, 5)) for _ in shape]
        offset = draw(st.integers(0, 3))
        view = base.as_strided(shape, wide, offset)
        view = view.clone() if draw(st.booleans()) else view
        tensors[name] = (
            torch.nn.Parameter(view) if draw(st.booleans()) and kind.is_floating_point else view
        )
        if draw(st.booleans()):  # of the same storage
            tensors[f"{name}t"] = view.T if view.dim() == 2 else view
    tree = draw(st.sampled_from([tensors, {"state_dict": tensors, "epoch": 3, "lr": [0.1, None]}]))
    old = draw(st.booleans())
    torch.save(
        tree, path, _use_new_zipfile_serialization=not old, pickle_protocol=draw(st.integers(2, 5))
    )


def bases_pt(path):
    import torch

    linear = torch.nn.Linear(3, 2)
    halves = torch.arange(6).bfloat16().reshape(2, 3).T
    for old in (False, True):
        torch.save(
            {**linear.state_dict(), "h": halves}, path, _use_new_zipfile_serialization=not old
        )
        yield path


# ----------------------------------------------------------------------------- HDF5


def attributes(thing, draw=None):
    import h5py

    word = draw(st.text("abé ", max_size=5)) if draw else "word"
    encoded = word.encode()
    chosen = (lambda: draw(st.booleans())) if draw else (lambda: True)
    if chosen():
        thing.attrs.create("fixed", np.bytes_(encoded), dtype=f"S{len(encoded) + 2}")
    if chosen():
        kind = h5py.h5t.C_S1.copy()
        kind.set_size(len(encoded) + 3)
        filled_up = encoded.ljust(len(encoded) + 3)
        kind.set_strpad(h5py.h5t.STR_SPACEPAD)
        space = h5py.h5s.create(h5py.h5s.SCALAR)
        made = h5py.h5a.create(thing.id, b"padded", kind, space)
        made.write(np.array(filled_up), kind)
    if chosen():
        thing.attrs["variable"] = word
    if chosen():
        thing.attrs["list"] = [word, "", "x" * 40]
    if chosen():
        thing.attrs["fixed_list"] = np.array([encoded, b"b", b""])
    if chosen():
        thing.attrs["empty"] = ""
    if chosen():
        thing.attrs["number"] = 1.5


def sound_hdf5(draw, path):
    import h5py

    bounds = [
        ("earliest", "earliest"),
        ("earliest", "latest"),
        ("latest", "latest"),
        ("v108", "v108"),
    ]
    bounds = draw(st.sampled_from([("earliest", "latest"), ("earliest", "v108"), *bounds[1:]]))
    dtypes = [f"{o}{d}" for o in "<>" for d in NUMBERS] + ["S3"]
    with h5py.File(
        path, "w", libver=bounds, userblock_size=draw(st.sampled_from([0, 0, 0, 512]))
    ) as file:
        attributes(file, draw)
        for i in range(draw(st.integers(0, 4))):
            group = file.require_group(draw(st.sampled_from(["a", "a/b", "c", "/"])))
            array = draw(st.one_of(*[arrays(["<f4", "<f8", "<f2"])] * 3, arrays(dtypes)))
            options: dict[str, Any] = {}
            filters = draw(
                st.sampled_from(["", "", "", "chunks", "gzip", "shuffle", "fletcher32", "grow"])
            )
            if filters and array.size and array.ndim:
                options["chunks"] = tuple(min(2, n) for n in array.shape)
                options |= {"gzip": {"compression": "gzip"}, "chunks": {}}.get(filters, {})
                options |= {filters: True} if filters in ("shuffle", "fletcher32") else {}
                options |= {"maxshape": (None,) * array.ndim} if filters == "grow" else {}
            if not options and draw(st.booleans()):
                compact(group, f"d{i}", array)
                continue
            made = group.create_dataset(
                f"d{i}", data=array, track_order=draw(st.booleans()), **options
            )
            attributes(made, draw)
        if draw(st.booleans()):
            file["empty"] = h5py.Empty("<f4")
        if draw(st.booleans()):
            file["soft"] = h5py.SoftLink("/nowhere")


def compact(group, name, array):
    import h5py

    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple(array.shape) if array.shape else h5py.h5s.create(h5py.h5s.SCALAR)
    kind = h5py.h5t.py_create(array.dtype, logical=True)
    made = h5py.h5d.create(group.id, name.encode(), kind, space, plist)
    made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(array))


def bases_hdf5(path):
    import h5py

    with h5py.File(path, "w") as file:
        attributes(file)
        file["g/a"] = filled("<f4", (2, 3))
        file["g/b"] = filled("<f8", (3,))
        attributes(file["g"])
    yield path
    with h5py.File(path, "w") as file:
        file["a"] = filled("<f2", (4,))
        compact(file, "c", filled("<f4", (2, 2)))
        file["number"] = 3
        file.attrs["variable"] = ["one", "two"]
    yield path


# ----------------------------------------------------------------------------- .onnx


def onnx_model(tensors):
    from onnx import helper

    names = [t.name for t in tensors]
    return helper.make_model(
        helper.make_graph(
            [helper.make_node("Identity", [name], [f"y_{name}"]) for name in names],
            "graph",
            [],
            [helper.make_tensor_value_info(f"y_{t.name}", t.data_type, None) for t in tensors],
            tensors,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def onnx_tensor(name, array, typed):
    from onnx import helper, numpy_helper

    if not typed:
        return numpy_helper.from_array(array, name)
    # Numbers that survive the way through Python.
    array = np.nan_to_num(array) if array.dtype.kind == "f" else array
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor(name, kind, array.shape, array.ravel().tolist())


def sound_onnx(draw, path):
    import onnx
    from onnx import TensorProto, helper

    tensors = [
        onnx_tensor(f"t{i}", draw(arrays(NUMBERS)), draw(st.booleans()))
        for i in range(draw(st.integers(1, 4)))
    ]
    model = onnx_model(tensors)
    odd = draw(st.sampled_from([None, None, TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN]))
    if odd is not None:  # which no output can hand out
        model.graph.initializer.append(helper.make_tensor("odd", odd, (2,), [1.0, 2.0]))
    path.with_name(f"{path.name}.data").unlink(missing_ok=True)  # or it would grow
    if draw(st.booleans()):
        onnx.save_model(
            model,
            path,
            save_as_external_data=True,
            size_threshold=draw(st.sampled_from([0, 16])),
            location=f"{path.name}.data",
            all_tensors_to_one_file=True,
        )
    else:
        onnx.save_model(model, path)


def bases_onnx(path):
    import onnx

    for typed in (False, True):
        tensors = [
            onnx_tensor("a", filled("<f4", (2, 3)), typed),
            onnx_tensor("b", filled("<f8", ()), typed),
            onnx_tensor("c", filled("<i8", (3,)), typed),
        ]
        onnx.save_model(onnx_model(tensors), path)
        yield path
    onnx.save_model(
        onnx_model(tensors), path, save_as_external_data=True, size_threshold=0, location="m.data"
    )
    yield path


def altered_onnx(rng, whole, count):
    """Models in which a field of a tensor has another value."""
    import onnx

    for _ in range(count):
        model = onnx.load_from_string(whole)
        tensor = model.graph.initializer[int(rng.integers(len(model.graph.initializer)))]
        raw, kind = tensor.raw_data, int(rng.integers(8))
        if kind == 0 and tensor.dims:
            tensor.dims[int(rng.integers(len(tensor.dims)))] = int(rng.choice([-1, 0, 1, 2, 3, 6]))
        elif kind == 1:
            tensor.dims.append(int(rng.choice([-1, 0, 1, 2])))
        elif kind == 2:
            tensor.data_type = int(rng.integers(24))
        elif kind == 3:
            tensor.raw_data = [raw[:-1], raw + b"0", b"", bytes(24)][int(rng.integers(4))]
        elif kind == 4:
            tensor.float_data.append(1.5)
        elif kind == 5:
            tensor.int64_data.append(3)
        elif kind == 6:
            tensor.data_location = 1 - tensor.data_location
        elif tensor.external_data:
            entry = tensor.external_data[int(rng.integers(len(tensor.external_data)))]
            entry.value = str(rng.choice(["0", "1", "8", "24", "4096", "-1", "x", "m.data"]))
        yield model.SerializeToString()


def altered_safetensors(rng, whole, count):
    """Files in which a field of the header has another value."""
    header, tensors = header_of(whole)
    for _ in range(count):
        made = {name: dict(entry) for name, entry in header.items()}
        name = str(rng.choice([n for n in made if n != "__metadata__"]))
        entry, kind = made[name], int(rng.integers(6))
        if kind == 0:
            entry["dtype"] = str(
                rng.choice(
                    ["F16", "F32", "F64", "BF16", "I32", "U8", "BOOL", "F8_E4M3", "C64", "f32"]
                )
            )
        elif kind == 1:
            entry["shape"] = [entry["shape"][::-1], [], [*entry["shape"], 1], [-1], [2]][
                int(rng.integers(5))
            ]
        elif kind == 2:
            entry["data_offsets"] = [int(v) for v in rng.integers(0, len(tensors) + 4, 2)]
        elif kind == 3:
            entry["more"] = 1
        elif kind == 4:
            made[f"{name}x"] = made.pop(name)
        else:
            del entry[str(rng.choice(list(entry)))]
        yield with_header(made, tensors)


# ----------------------------------------------------------------------------- what is known

ARCHIVE = (
    r"header differs from the directory|overlaps another|claims more bytes|two sizes differ|"
    r"is no name for a member|is encrypted|is there twice|is a symbolic link|is a patch|"
    r"central directory|zip file version|multiple disks|not a zip|Corrupt|is cut short"
)
NPZ_OURS = {
    "has dtype": "dtypes that no network has",
    "damaged or unknown .npy header": "headers that NumPy does not write so",
    "bytes of data, which is not what": "bytes behind the array",
    "is compressed": "compressed members",
    ARCHIVE: "archives that zipfile lets pass",
}
SAFETENSORS_OURS = {
    "which is not read": "dtypes that NumPy does not have, or no network",
    "and nothing else": "fields that the format does not know",
    "is there twice": "a name twice",
}
PT_OURS = {
    "checksum": "checksums, which PyTorch passes over",
    "is compressed": "compressed members",
    ARCHIVE: "archives that PyTorch lets pass",
    "pickle protocol": "protocols that torch.save does not write",
    "not little-endian": "the byte order of the machine, which PyTorch passes over",
    "another size than": "storages of another size than is said of them",
    "beyond its storage|repeats the": "views beyond their storage, which PyTorch makes larger, or that repeat it",
    "operation|ends too early|has place|is there twice|impossible sizes|beside strides|is damaged": (
        "pickles that torch.save does not write"
    ),
    "integer of|byteorder|of an unknown version|other storages|described in two ways": "what torch.save does not write",
}
PT_THEIRS = {
    "hasRecord|parse the version|codec can't decode|serialization": "records of the version and of an id",
    "invalid literal for int": "the record of the alignment of storages",
    "positional argument": "more arguments than a tensor takes",
    "Weights only load failed": "names and operations that torch.load does not allow, which make nothing here",
    "PytorchStreamReader|inline_container": "fields of archives that zipfile passes over",
}
HDF5_OURS = {
    "TypeError: numbers": "numbers other than little-endian floats",
    "version . of the format|is not HDF5": "newer versions of the format, and files in others",
    "object header of version": "newer objects",
    "holds compressed data|array in pieces": "chunks and filters",
    "is empty, or larger": "arrays without elements",
    "a link to somewhere": "links",
    "attributes of the newer|group of the newer|data in another": "newer groups and attributes",
    "not where it should be|text of another length": "texts that are not in one piece where they should be",
    "shared with others": "shared messages",
    "no such name": "what lies in a group that is refused",
    "to go through|longer than|an attribute of version|array without a shape|shape of another|"
    "goes round in a circle|cut short|is there twice|data end at": "structures that h5py goes around",
}  # fmt: skip
HDF5_THEIRS = {
    "ended by SIG": "h5py crashes or hangs",
    # The message of h5py, with the name in it, fails in the same way.
    "object .* doesn't exist|^UnicodeDecodeError": "names out of their order, which h5py lists and does not find",
    "open attribute": "h5py decodes all attributes of an object to find one",
    "open object": "messages of an object that are not read here",
    "heap": "the heap of texts or names is damaged beside what is read",
    "read data": "messages of an object that are not read here",
    "Link iteration|group info": "keys, caches and lists of free places in groups",
    "open file|string encoding|MemoryError": "fields of the superblock and of types that are not read here",
    "no such name": "what lies in a group that h5py refuses",
}
ONNX_OURS = {
    "has the type|odd": "types that NumPy does not have",
    "tensor '.*' (is there twice|lies in|takes|has|of shape|overlaps)": "tensors that are not what their fields say",
    "no such name": "an output by another name",
    "lists more than|has 0 graphs|of ONNX opset": "models that are none",
}
GRAPH = "the graph around the tensors"
ONNX_THEIRS = {
    "Deserialize tensor|tensorprotoutils|data type": "another tensor, for which the whole file is refused",
    "INVALID_GRAPH|FAIL|INVALID_ARGUMENT|INVALID_PROTOBUF|NOT_IMPLEMENTED|codec|RUNTIME|no such name": GRAPH,
}


class Format(NamedTuple):
    libraries: tuple[str, ...]
    sound: Any
    bases: Any
    ours: dict[str, str]
    theirs: dict[str, str]
    anew: tuple[str, ...] = ()
    zips: bool = False
    altered: Any = None
    moves: bool = True


FORMATS = {
    "npz": Format((), sound_npz, bases_npz, NPZ_OURS, {}, zips=True),
    "safetensors": Format(
        ("torch", "safetensors.torch"),
        sound_safetensors,
        bases_safetensors,
        SAFETENSORS_OURS,
        {},
        altered=altered_safetensors,
    ),
    "mapped_safetensors": Format(
        ("torch", "safetensors.torch"),
        sound_safetensors,
        bases_safetensors,
        SAFETENSORS_OURS,
        {},
        altered=altered_safetensors,
    ),
    "pt": Format(("torch",), sound_pt, bases_pt, PT_OURS, PT_THEIRS, zips=True),
    "hdf5": Format(
        ("h5py",),
        sound_hdf5,
        bases_hdf5,
        HDF5_OURS,
        HDF5_THEIRS,
        (
            # A change that goes from the text into the heap behind it.
            "the heap of texts or names is damaged beside what is read",
            # The array of before, by another name.
            "names out of their order, which h5py lists and does not find",
        ),
        # Addresses would lead to other numbers, which no checksum tells.
        moves=False,
    ),
    "onnx": Format(
        ("onnx", "onnxruntime"),
        sound_onnx,
        bases_onnx,
        ONNX_OURS,
        ONNX_THEIRS,
        # A type or a name that was changed no longer fits the output, whose tensor is read as it is.
        (GRAPH,),
        altered=altered_onnx,
    ),
}


def theirs_of(name):
    return f"their_{name.removeprefix('mapped_')}"


@pytest.fixture(params=FORMATS)
def name(request):
    for library in FORMATS[request.param].libraries:
        pytest.importorskip(library)
    return request.param


def tally_of(name):
    form = FORMATS[name]
    return Tally(form.ours, form.theirs, form.anew)


def remade(rng, whole, count):
    """Zip archives with sound checksums, of which one member is changed, renamed or missing."""
    good = members(io.BytesIO(whole))
    for i in range(count):
        name = str(rng.choice(list(good)))
        made = dict(good)
        if i % 10 == 9:
            made[f"{name}x"] = made.pop(name)
        elif i % 10 == 8:
            del made[name]
        else:
            (made[name],) = changes(rng, good[name] or b"0", 1)
        yield zipped(made)


def changed(name, rng, whole, count):
    form = FORMATS[name]
    yield from changes(rng, whole, count, form.moves)
    if form.zips and zipfile.is_zipfile(io.BytesIO(whole)):
        yield from remade(rng, whole, count)
    if form.altered:
        yield from form.altered(rng, whole, count)


# ----------------------------------------------------------------------------- the tests


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_sound_files(name, tmp_path):
    form, tally = FORMATS[name], tally_of(name)
    ours, theirs = getattr(readers, f"our_{name}"), getattr(readers, theirs_of(name))

    @settings(max_examples=2000 if LONG else 100)
    @given(st.data())
    def compare(data):
        path = tmp_path / "sound.file"
        path.unlink(missing_ok=True)
        form.sound(data.draw, path)
        found = attempt(lambda: theirs(str(path)), Exception)
        # What we read of a sound file, there has been in it.
        tally.add(path, ours(str(path)), found, ours(str(path)))

    compare()
    print(name, "sound:", tally)
    assert tally.counts["the same"] > 30


@pytest.mark.parametrize("count", few_or_many(64, 1000))
def test_changed_files(name, tmp_path, count):
    form, tally, rng = FORMATS[name], tally_of(name), np.random.default_rng(0)
    ours = getattr(readers, f"our_{name}")
    reference = Reference(f"differential_readers:{theirs_of(name)}", *form.libraries)
    with closing(reference):
        for base in form.bases(tmp_path / "base"):
            sound = ours(str(base))
            # Nothing of it is refused, and the library finds the same.
            tally.add(base, sound, *reference.read([base]))
            files = changed(name, rng, base.read_bytes(), count)
            while batch := list(itertools.islice(files, 100)):
                paths = [tmp_path / f"changed{i}" for i in range(len(batch))]
                for path, content in zip(paths, batch, strict=True):
                    path.write_bytes(content)
                for path, found in zip(paths, reference.read(paths), strict=True):
                    tally.add(path, ours(str(path)), found, sound)
    print(name, "changed:", tally)
    assert tally.counts["the same"] > count / 2
    assert tally.counts["both refuse"] > count / 8


def test_a_bit_that_differs_is_found(name, tmp_path):
    ours = getattr(readers, f"our_{name}")
    for base in FORMATS[name].bases(tmp_path / "base"):
        found = ours(str(base))
        tally_of(name).add(base, found, found)
        place, array = next((n, a) for n, a in found.items() if isinstance(a, Held) and a.data)
        for wrong in (
            array._replace(data=bytes([array.data[0] ^ 1]) + array.data[1:]),
            array._replace(dtype="int8"),
            array._replace(shape=(*array.shape, 1)),
        ):
            with pytest.raises(AssertionError, match="is not"):
                tally_of(name).add(base, {**found, place: wrong}, found)
        others = {n: a for n, a in found.items() if n != place}
        with pytest.raises(AssertionError, match="only theirs refuse: nonsense"):
            tally_of(name).add(base, found, {**others, place: Refused("nonsense")}, found)
        with pytest.raises(AssertionError, match="only ours refuse: nonsense"):
            tally_of(name).add(base, Refused("nonsense"), found, found)


def test_what_was_never_there_is_found():
    """Numbers that only we read, and that are not those of the sound file."""
    a, b = held(np.ones(2)), held(np.zeros(2))
    tally = Tally({}, {"no": "a reason"})
    tally.add("m", {"a": a}, Refused("no"), {"a": a})
    assert tally.counts == {"theirs refuse: a reason": 1}
    with pytest.raises(AssertionError, match="not what was there"):
        tally.add("m", {"a": b}, Refused("no"), {"a": a})
    tally = Tally({}, {"no": "a reason"}, ("a reason",))
    tally.add("m", {"a": b}, Refused("no"), {"a": a})
    assert tally.counts == {"theirs refuse: a reason; other numbers": 1}


def test_a_library_that_crashes_is_a_refusal(tmp_path):
    paths = [tmp_path / name for name in ("a", "crash", "b", "endless", "c")]
    with closing(Reference("differential_readers:crashes")) as reference:
        found = reference.read(paths)
    ended = [f.why for f in found if isinstance(f, Refused)]
    assert ended == ["ended by SIGSEGV", "ended by SIGXCPU"]
    assert [f for f in found if not isinstance(f, Refused)] == [{}, {}, {}]
