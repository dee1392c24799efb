"""Damaged and hostile ONNX files: one second, the file's size plus 64 MB, ModelFileError.

Of empty messages protobuf makes a hundred times their bytes; bombs are of half a MB, for which the
64 MB are 128 times that.
"""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlayer.convert.onnx import from_onnx, load_onnx
from fastlayer.errors import ConversionError, ModelFileError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from hostile import Jail
from onnx_models import integers, make, number

MB = 1 << 20


@pytest.fixture(scope="module")
def sound():
    text = """h = Gemm<transB=1>(x, w, b)
    s = Sigmoid(h)
    a = Mul(h, s)
    n = LayerNormalization<axis=-1>(a, g, g)
    y = MatMul(n, v)"""
    return make(text, w=(3, 4), b=(3,), g=(3,), v=(3, 2)).SerializeToString()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def jail(folder, sound):
    warm = folder / "warm.onnx"
    warm.write_bytes(sound)
    jail = Jail("fastlayer.convert.onnx:load_onnx", [warm])
    yield jail
    jail.close()


@pytest.fixture
def refuse(jail, tmp_path, folder):
    def check(content, *errors):
        path = folder / f"{tmp_path.name}.onnx"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            onnx.save(content, path)
        return jail.refuse(path, *errors)

    return check


@pytest.fixture(scope="module")
def read(folder):
    """Return what reads bytes as a file: None, or the error that a reader may raise."""
    path = folder / "damaged.onnx"

    def attempt(data):
        path.write_bytes(data)
        try:
            load_onnx(path)
        except (ModelFileError, ConversionError) as error:
            return error
        return None

    return attempt


# ----------------------------------------------------------------------------- damage


def test_every_truncation(sound, read):
    assert read(sound) is None
    for size in range(len(sound)):
        error = read(sound[:size])
        # Cut between its fields, a message lacks a part, such as its opsets: never a network.
        assert isinstance(error, ModelFileError | ConversionError), size


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_every_byte_flipped(sound, read, flip):
    errors = 0
    for i in range(len(sound)):
        data = bytearray(sound)
        data[i] ^= flip
        errors += read(bytes(data)) is not None
    assert errors > len(sound) // 4


@given(st.data())
@settings(max_examples=200)
def test_fuzz(read, data):
    base = _fuzz_base()
    content = bytearray(base)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(content)))
        new = data.draw(st.binary(max_size=12))
        content[at : at + data.draw(st.integers(0, 12))] = new
    read(bytes(content))


def _fuzz_base():
    text = "r = Reshape(x, s)\nh = Gemm<alpha=0.5>(r, w, b)\na = Relu(h)\ny = Add(x, a)"
    return make(text, w=(4, 4), b=(4,), s=integers(-1, 4)).SerializeToString()


@given(st.binary(max_size=300))
def test_random_bytes(read, content):
    assert read(content) is not None


@pytest.mark.parametrize("content", [b"", b"\x08", b"PK\x03\x04", b"\x80\x02", b"\xff" * 50])
def test_other_files(refuse, content):
    refuse(content)


# ----------------------------------------------------------------------------- bombs


def field(number, content):
    return tag(number << 3 | 2) + tag(len(content)) + content


def tag(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


HALF = MB // 2
GRAPHS = {
    "empty nodes": b"\x0a\x00" * (HALF // 2),
    "empty initialisers": b"\x2a\x00" * (HALF // 2),
    "empty inputs": b"\x5a\x00" * (HALF // 2),
    "dimensions": field(5, field(1, b"\x01" * HALF)),
    "dimensions one by one": field(5, b"\x08\x01" * (HALF // 2)),
    "packed int64": field(5, field(7, b"\x01" * HALF)),
    "attribute of integers": field(1, field(5, field(8, b"\x01" * HALF))),
    "empty attributes": field(1, b"\x2a\x00" * (HALF // 2)),
    "attributes of empty tensors": field(1, b"\x2a\x02\x2a\x00" * (HALF // 4)),
    "names": field(1, field(1, b"a" * (40 * MB))),
    "node with many inputs": field(1, b"\x0a\x00" * (HALF // 2)),
    "tensor in two pieces": field(5, field(9, b"1234") + field(9, b"5678")),
    "graph in a graph": field(1, field(5, field(6, field(1, b"")) * 1000)),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_bomb(refuse, name):
    refuse(field(7, GRAPHS[name]) + field(8, b"\x10\x11"), "ModelFileError", "ConversionError")


def test_nested_messages(refuse):
    content = b""
    for _ in range(20_000):
        content = field(6, field(1, field(5, content)))
        if len(content) > MB:
            break
    whole = field(7, field(1, field(5, content))) + field(8, b"\x10\x11")
    assert "MaxDepth" in refuse(whole)  # of the package's parser


def test_description_of_40_mb_is_copied_once(jail, folder, sound):
    path = folder / "described.onnx"
    path.write_bytes(sound + field(6, b"d" * (40 * MB)))
    jail.accept(path)


def test_large_weights_of_a_refused_model_are_copied_once(refuse):
    model = make("h = MatMul(x, w)\ny = Det(h)", shape=("N", 4096), w=np.zeros((4096, 3072), "f4"))
    assert model.ByteSize() >= 48 * MB
    assert "Det" in refuse(model, "ConversionError")


@pytest.mark.parametrize(
    "dims",
    [(1 << 62, 4), (-1, 4), (1 << 32, 1 << 32), (2**63 - 1,) * 3, (0, 4), (1,) * 70, (3,)],
    ids=str,
)
def test_impossible_dimensions(refuse, dims):
    model = make("y = Gemm<transB=1>(x, w)", w=(3, 4))
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend(dims)
    assert "tensor 'w'" in refuse(model)


@pytest.mark.parametrize("size", [1 << 40, (1 << 63) - 1, -5, 0])
def test_huge_input(refuse, size):
    # No weight vouches for the size: nothing as long as it may be made.
    text = "f = Flatten(x)\ns = Mul(f, k)\nt = Tanh(s)\ny = Add(t, v)"
    model = make(text, shape=("N", size, 3), k=number(2), v=(1,))
    refuse(model, "ModelFileError", "ConversionError")


EXPANSIONS = {
    "outer sum": ("b = Add(u, v)\ny = Add(x, b)", {"u": (1 << 15, 1), "v": (1, 1 << 15)}),
    "constant of shape": (
        "b = ConstantOfShape(s)\ny = MatMul(x, b)", {"s": integers(1 << 20, 1 << 20)},
    ),
    "expand": ("b = Expand(u, s)\ny = MatMul(x, b)", {"u": (1, 1), "s": integers(1 << 20, 1 << 20)}),
    "gather": (
        "b = Gather(u, s)\ny = MatMul(x, b)", {"u": (1, 1 << 18), "s": np.zeros(5000, np.int64)},
    ),
    "negative shape": ("b = ConstantOfShape(s)\ny = MatMul(x, b)", {"s": integers(-4, 2)}),
    "doubling": (
        "b0 = Concat<axis=0>(u, u)\n"
        + "\n".join(f"b{i + 1} = Concat<axis=0>(b{i}, b{i})" for i in range(40))
        + "\ny = MatMul(x, b40)",
        {"u": (4, 4)},
    ),
    "slopes": ("y = PRelu(x, s)", {"s": (1, 1 << 10, 1)}),
    "pad": ("b = Pad(u, s)\ny = MatMul(x, b)", {"u": (4, 4), "s": integers(0, 0, 0, 1 << 40)}),
    "tile": ("b = Tile(u, s)\ny = MatMul(x, b)", {"u": (4, 4), "s": integers(1, 1 << 40)}),
    "outer product": (
        'b = Einsum<equation="ij,kl->jl">(u, u)\ny = MatMul(x, b)', {"u": (1 << 11, 4)},
    ),
    "one feature as many": (
        "b0 = MatMul(x, u)\n"
        + "\n".join(
            f"e{i} = Expand(b{i}, s)\nb{i + 1} = ReduceMean<axes=[1]>(e{i})" for i in range(40)
        )
        + "\ny = Expand(b40, s)",
        {"u": (4, 1), "s": integers(1, 1 << 18)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPANSIONS)
def test_constants_that_grow(refuse, name):
    text, constants = EXPANSIONS[name]
    shape = ("N", 1 << 10, 1 << 20) if name == "slopes" else ("N", 4)
    refuse(make(text, shape=shape, **constants), "ModelFileError", "ConversionError")


def test_one_tensor_as_the_weights_of_many_layers(refuse):
    lines = ["h0 = MatMul(x, w)", *(f"h{i + 1} = MatMul(h{i}, w)" for i in range(400))]
    model = make("\n".join([*lines, "y = Tanh(h400)"]), shape=("N", 512), w=(512, 512))
    assert "of weights" in refuse(model)


# ----------------------------------------------------------------------------- graphs


def test_many_nodes(refuse):
    lines = ["h0 = Tanh(x)", *(f"h{i + 1} = Tanh(h{i})" for i in range(9000))]
    assert "nodes" in refuse(make("\n".join([*lines, "y = Tanh(h9000)"])))


def test_deep_chain_is_read(jail, folder):
    lines = ["h0 = Tanh(x)", *(f"h{i + 1} = Tanh(h{i})" for i in range(2000))]
    path = folder / "deep.onnx"
    onnx.save(make("\n".join([*lines, "y = MatMul(h2000, w)"]), w=(4, 2)), path)
    jail.accept(path)


DEEP = {
    "squares": ("Mul(h{0}, h{0})", 3000),
    "sums": ("Add(h{0}, h{0})", 3000),
    "erf": ("Erf(h{0})", 3000),
    "powers": ("Pow(h{0}, k)", 3000),
    "lines": ("Mul(h{0}, k)", 3000),
    "residuals of all": ("Add(x, h{0})", 3000),
    "nested residuals": ("Add(t{0}, x)", 1500),
    "products": ("Mul(x, h{0})", 3000),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_arithmetic(jail, folder, name):
    operation, count = DEEP[name]
    lines = ["h0 = Tanh(x)"]
    for i in range(count):
        if "t{0}" in operation:
            lines.append(f"t{i} = Tanh(h{i})")
        lines.append(f"h{i + 1} = {operation.format(i)}")
    path = folder / f"{name.replace(' ', '_')}.onnx"
    onnx.save(make("\n".join([*lines, f"y = Tanh(h{count})"]), k=number(1.5)), path)
    error, text = jail.run(path)
    assert error in ("", "ConversionError", "ModelFileError"), (error, text)


WIDE = {
    "relus": ("h{1} = Relu(h{0})", 2000, (1, 1 << 18)),
    "softmax": ("h{1} = Softmax(h{0})", 50, (1, 1 << 18)),
    "many middling": ("h{1} = Sigmoid(h{0})", 4000, (4, 4096)),
    "there and back": ("g{0} = MatMul(h{0}, v)\nh{1} = MatMul(g{0}, w)", 3, (1, 1 << 16)),
}


@pytest.mark.parametrize("name", WIDE)
def test_the_proof_costs_no_more_than_the_file(jail, folder, name):
    line, count, shape = WIDE[name]
    lines = ["h0 = MatMul(x, w)", *(line.format(i, i + 1) for i in range(count))]
    text = "\n".join([*lines, f"y = Identity(h{count})"])
    constants = {"v": shape[::-1]} if "v" in line else {}
    path = folder / f"wide_{name.replace(' ', '_')}.onnx"
    onnx.save(make(text, shape=("N", shape[0]), w=shape, **constants), path)
    jail.accept(path)


@pytest.mark.parametrize("shape", [("N", 0, "M"), (-3, 4), (0, 4), (), ("N", -1, 2)])
def test_odd_shapes(jail, folder, shape):
    path = folder / "odd.onnx"
    onnx.save(make("f = Flatten(x)\ns = Tanh(f)\ny = MatMul(s, w)", shape=shape, w=(4, 3)), path)
    error, text = jail.run(path)
    assert error in ("", "ConversionError", "ModelFileError"), (error, text)


@pytest.mark.parametrize("batch", [1 << 20, 1 << 40])
def test_huge_batch(jail, folder, batch):
    path = folder / "batch.onnx"
    onnx.save(make("y = MatMul(x, w)", shape=(batch, 4), w=(4, 3)), path)
    jail.accept(path)


def test_a_graph_as_an_attribute_is_never_prepared(jail, folder):
    nodes = [onnx.helper.make_node("Relu", ["a"], ["a"]) for _ in range(20_000)]
    body = onnx.helper.make_graph(nodes, "body", [], [])
    model = make("h = MatMul(x, w)\ny = Relu(h)", w=(4, 3))
    model.graph.node[1].attribute.append(onnx.helper.make_attribute("body", body))
    path = folder / "attribute.onnx"
    onnx.save(model, path)
    jail.accept(path)


@pytest.mark.parametrize("op", ["Loop", "If", "Scan"])
def test_control_flow_is_refused(refuse, op):
    body = make("y = Relu(x)").graph
    model = make("h = MatMul(x, w)\ny = Relu(h)", w=(4, 3))
    name = "body" if op != "If" else "then_branch"
    node = onnx.helper.make_node(op, ["h"], ["y"], **{name: body})
    model.graph.node[1].CopyFrom(node)
    assert f"ONNX {op}" in refuse(model, "ConversionError")
    model.graph.node[1].input[:] = ["w"]
    assert f"ONNX {op}" in refuse(model, "ConversionError")


BROKEN = {
    "cycle": ("a = Tanh(b)\nb = Tanh(a)\ny = Add(x, a)", "before anything makes it"),
    "undefined": ("y = Add(x, z)", "before anything makes it"),
    "made twice": ("h = Tanh(x)\nh = Relu(x)\ny = Tanh(h)", "there already"),
    "missing input": ("y = Add(x)", "too few"),
    "sizes": ("y = MatMul(x, v)", "for 3 features"),
    "Gemm of a vector": ("y = Gemm(x, u)", "two dimensions"),
    "bias": ("h = MatMul(x, w)\ny = Add(h, v)", "shape"),
    "axis": ("y = Softmax<axis=7>(x)", "axis 7"),
    "permutation": ("y = Transpose<perm=[0, 0]>(x)", "permutes"),
    "reshape": ("y = Reshape(x, s)", "asks for the shape"),
    "variance": ("y = BatchNormalization(x, p, p, p, n)", "not positive"),
    "parameters": ("y = BatchNormalization(x, p, p, p, u)", "parameters of shapes"),
    "constant output": ("y = Relu(w)", "does not come from its input"),
    "gelu": ('y = Gelu<approximate="sine">(x)', "approximate"),
    "number as text": ('y = LeakyRelu<alpha="a">(x)', "must be a number"),
    "norm": ("y = LayerNormalization(x, v)", "has weights of shapes"),
    "norm's epsilon": ("y = LayerNormalization<epsilon=-1.0>(x, p)", "has epsilon -1.0"),
    "one operand": ("y = Add(x, nothing)", "leaves out one of its two inputs"),
    "constant for the input": ("y = LayerNormalization(p, x)", "where its input should be"),
    "Gemm's summand": ("y = Gemm(x, w, high)", "adds a constant of shape (1, 4, 3)"),
    "slopes": ("y = PRelu(x, high)", "has slopes of shape (1, 4, 3)"),
    "no slopes": ("y = PRelu(x, empty)", "has slopes of shape (0,)"),
    "no summands": ("y = Add(x, empty)", "a constant without numbers"),
    "summands": ("y = Add(x, u)", "has a constant of shape (1, 7)"),
    "axis twice": ("y = Squeeze(x, same)", "axes [1, 1] of 2 dimensions"),
    "axis that is not there": ("y = Squeeze(x, s9)", "axes [9] of 2 dimensions"),
    "axis of Flatten": ("y = Flatten<axis=5>(x)", "flattens from axis 5"),
    "permutation that is a number": ("y = Transpose<perm=1>(x)", "perm must be integers"),
    "dimension to keep": ("y = Reshape(x, zeros)", "keeps a dimension"),
    "type of numbers": ("c = Cast<to=16>(w)\ny = MatMul(x, c)", "a type that NumPy doesn't have"),
    "more dimensions than NumPy": (
        "c = Unsqueeze(w, many)\ny = Add(x, c)",
        "more than 32 dimensions",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_graph(refuse, name):
    text, why = BROKEN[name]
    constants = {
        "w": (4, 3), "v": (3, 4, 2)[:2], "u": (7,), "s": integers(-1, -1), "p": (4,),
        "n": np.array([1, -1, 1, 1], np.float32), "high": (1, 4, 3), "empty": (0,),
        "same": integers(1, 1), "s9": integers(9), "zeros": integers(0, -1, 0),
        "many": integers(*range(33)),
    }  # fmt: skip
    model = make(text, 20, **constants)
    if "nothing" in text:
        model.graph.node[0].input[1] = ""
    assert why in refuse(model, "ModelFileError", "ConversionError")


# ----------------------------------------------------------------------------- external data


def external(location, offset=0, length=48, dims=(4, 3)):
    model = make("y = MatMul(x, w)", w=(4, 3))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.dims[:]
    tensor.dims.extend(dims)
    for key, value in {"location": location, "offset": offset, "length": length}.items():
        tensor.external_data.add(key=key, value=str(value))
    return model.SerializeToString()


@pytest.fixture
def place(tmp_path):
    """A folder for a model, with a file of weights inside and another one outside."""
    inner = tmp_path / "model"
    (inner / "sub").mkdir(parents=True)
    for path in (tmp_path / "secret.bin", inner / "w.bin", inner / "sub" / "w.bin"):
        path.write_bytes(np.arange(12, dtype="<f4").tobytes())
    return inner


@pytest.mark.parametrize("location", ["w.bin", "sub/w.bin", "./w.bin"])
def test_external_data_inside_the_folder(place, location):
    (place / "m.onnx").write_bytes(external(location))
    net = load_onnx(place / "m.onnx")
    assert net[0].weight[2].tolist() == [2, 5, 8, 11]


@pytest.mark.parametrize(
    "location",
    ["../secret.bin", "sub/../../secret.bin", "/etc/passwd", "", ".", "..", "a\0b", "sub", "none"],
)
def test_external_data_elsewhere(place, location):
    (place / "m.onnx").write_bytes(external(location))
    with pytest.raises(ModelFileError, match="tensor 'w'"):
        load_onnx(place / "m.onnx")


def test_external_data_by_an_absolute_path(place):
    (place / "m.onnx").write_bytes(external(str(place.parent / "secret.bin")))
    with pytest.raises(ModelFileError, match="no path in the model's folder"):
        load_onnx(place / "m.onnx")


@pytest.mark.parametrize("how", ["file", "folder", "hard"])
def test_external_data_through_a_link(place, how):
    secret = place.parent / "secret.bin"
    location = "link/secret.bin" if how == "folder" else "link.bin"
    if how == "hard":
        os.link(secret, place / location)
    elif how == "folder":
        (place / "link").symlink_to(place.parent)
    else:
        (place / location).symlink_to(secret)
    (place / "m.onnx").write_bytes(external(location))
    with pytest.raises(ModelFileError, match=r"link.*other files; put a copy of it there"):
        load_onnx(place / "m.onnx")


def test_external_data_through_a_link_inside_the_folder(place):
    (place / "link.bin").symlink_to("w.bin")
    (place / "m.onnx").write_bytes(external("link.bin"))
    assert load_onnx(place / "m.onnx")[0].weight[2].tolist() == [2, 5, 8, 11]


def test_external_data_beside_the_real_model_file(tmp_path, place):
    """As in the cache of Hugging Face and in the volumes of Kubernetes: links to files elsewhere,
    which lie together there under whatever names.
    """
    blobs, seen = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    seen.mkdir(parents=True)
    (blobs / "1").write_bytes(external("w.bin"))
    (blobs / "2").write_bytes((place / "w.bin").read_bytes())
    (seen / "m.onnx").symlink_to("../../blobs/1")
    (seen / "w.bin").symlink_to("../../blobs/2")
    assert load_onnx(seen / "m.onnx")[0].weight[2].tolist() == [2, 5, 8, 11]
    (tmp_path / "mounted").symlink_to(place, target_is_directory=True)
    (place / "m.onnx").write_bytes(external("w.bin"))
    assert load_onnx(tmp_path / "mounted" / "m.onnx")[0].weight[2].tolist() == [2, 5, 8, 11]
    (seen / "w.bin").unlink()
    (seen / "w.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(ModelFileError, match="a link or a path out of the model's folder"):
        load_onnx(seen / "m.onnx")


def test_external_data_in_a_pipe(place):
    os.mkfifo(place / "pipe")
    (place / "m.onnx").write_bytes(external("pipe"))
    with pytest.raises(ModelFileError, match="not a regular file"):
        load_onnx(place / "m.onnx")


@pytest.mark.parametrize(
    ("offset", "length", "dims"),
    [
        (1, 48, (4, 3)), (-4, 48, (4, 3)), (1 << 62, 48, (4, 3)), (0, 44, (4, 3)), ("x", 48, (4, 3)),
        (0, 1 << 50, (1 << 24, 1 << 24)), (0, "-1", (4, 3)),
    ],
)  # fmt: skip
def test_external_data_out_of_range(place, offset, length, dims):
    (place / "m.onnx").write_bytes(external("w.bin", offset, length, dims))
    with pytest.raises(ModelFileError, match="tensor 'w'"):
        load_onnx(place / "m.onnx")


def test_external_data_without_a_length_is_as_long_as_its_shape(place):
    model = onnx.ModelProto.FromString(external("w.bin", dims=(4, 2)))
    del model.graph.initializer[0].external_data[-1]
    (place / "m.onnx").write_bytes(model.SerializeToString())
    assert load_onnx(place / "m.onnx")[0].weight.tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]


@pytest.mark.parametrize("count", [16, 17])
def test_external_data_may_be_shared_four_times(place, count):
    (place / "w.bin").write_bytes(bytes(1 << 16))
    lines = ["h0 = MatMul(x, w0)", *(f"h{i} = MatMul(h{i - 1}, w{i})" for i in range(1, count))]
    weights = {f"w{i}": (64, 64) for i in range(count)}
    model = make("\n".join([*lines, f"y = Tanh(h{count - 1})"]), shape=("N", 64), **weights)
    for i, tensor in enumerate(model.graph.initializer):
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in {"location": "w.bin", "offset": 8 * i, "length": 1 << 14}.items():
            tensor.external_data.add(key=key, value=str(value))
    (place / "m.onnx").write_bytes(model.SerializeToString())
    if count == 16:
        assert len(load_onnx(place / "m.onnx")) == 16
        return
    with pytest.raises(ModelFileError, match="tensor 'w16': overlaps other tensors"):
        load_onnx(place / "m.onnx")


def two_pieces(*pieces):
    """A model of two layers of which each has its weights at (offset, rows) in w.bin."""
    sizes = [4, *(rows for _, rows in pieces)]
    weights = {f"w{i}": (sizes[i], n) for i, (_, n) in enumerate(pieces)}
    model = make("h = MatMul(x, w0)\ny = MatMul(h, w1)", **weights)
    for (offset, _), tensor in zip(pieces, model.graph.initializer, strict=True):
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        length = 4 * int(np.prod(tensor.dims))
        for key, value in {"location": "w.bin", "offset": offset, "length": length}.items():
            tensor.external_data.add(key=key, value=str(value))
    return model.SerializeToString()


def test_external_data_that_two_layers_share(place):
    """The same bytes are read once, and count once."""
    numbers = np.arange(16, dtype="<f4")
    (place / "w.bin").write_bytes(numbers.tobytes())
    (place / "m.onnx").write_bytes(two_pieces((0, 4), (0, 4)))
    for layer in load_onnx(place / "m.onnx"):
        assert (layer.weight == numbers.reshape(4, 4).T).all()


def test_external_data_of_a_model_in_memory():
    model = onnx.ModelProto.FromString(external("w.bin"))
    with pytest.raises(ModelFileError, match="a model in memory or in an open file has no folder"):
        from_onnx(model)


def test_a_pipe_is_no_model(tmp_path):
    os.mkfifo(tmp_path / "m.onnx")
    with pytest.raises(ModelFileError, match="not a regular file"):
        load_onnx(tmp_path / "m.onnx")
