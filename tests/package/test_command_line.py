"""`python -m fastlayer info | summary | predict | bench` on real files, most in this process."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest
from helpers import assert_same_bits
from keras_files import dense, sequential, weights_file, write_h5, write_keras
from preloaded import SANITIZED

import fastlayer as fl
from fastlayer.cli.main import main

MODULE = [sys.executable, "-W", "error", "-m", "fastlayer"]


def run_process(*args, **options):
    done = subprocess.run(
        [*MODULE, *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        **options,
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def run(capfd):
    """The same in this process, for the many cases."""

    def call(*args):
        try:
            status = main([*map(str, args)])
        except SystemExit as usage:
            status = usage.code
        return subprocess.CompletedProcess(args, status, *capfd.readouterr())

    return call


def refusal_of(done):
    """The one line on standard error of a command that fails, without the program's name."""
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    start = f"python -m fastlayer {done.args[0]}: "
    assert done.stderr.startswith(start)
    return done.stderr.removeprefix(start)


@pytest.fixture
def refusal(run):
    return lambda *args: refusal_of(run(*args))


@pytest.fixture
def net():
    return fl.Network([fl.Layer(6, 16, "relu", rng=0), fl.Layer(16, 4, "softmax", rng=1)])


@pytest.fixture
def model(net, tmp_path):
    net.save(tmp_path / "model.npz")
    return tmp_path / "model.npz"


def saved(tmp_path, array):
    np.save(tmp_path / "in.npy", array)
    return tmp_path / "in.npy"


def leftovers(tmp_path):
    return sorted(set(os.listdir(tmp_path)) - {"model.npz", "in.npy", "out.npy"})


def begun(pid, tmp_path):
    """Whether a process writes a file there, under some name or none yet."""
    opened = []
    with suppress(OSError):  # no such folder, or gone meanwhile
        for number in os.listdir(f"/proc/{pid}/fd"):
            opened.append(os.readlink(f"/proc/{pid}/fd/{number}"))
    return bool(leftovers(tmp_path)) or any(name.startswith(f"{tmp_path}/#") for name in opened)


# --- info, summary


@pytest.mark.parametrize(
    ("variable", "value"), [("FASTLAYER_ISA", "sse9"), ("FASTLAYER_NUM_THREADS", "many")]
)
def test_a_wrong_environment_is_one_line(variable, value):
    done = run_process("info", env={**os.environ, variable: value})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"python -m fastlayer: {variable}")
    assert value in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_program_gets_the_exception_for_a_wrong_environment():
    code = "try:\n import fastlayer\nexcept ImportError as e: print(e)"
    env = {**os.environ, "FASTLAYER_ISA": "sse9"}
    command = [sys.executable, "-c", code, "-m", "fastlayer"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert "sse9" in done.stdout


def test_summary_prints_the_table(net, model):
    done = run_process("summary", model)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{net.summary()}\n"


def model_file(suffix, net, tmp_path):
    """The two layers of `net` in a file of another format."""
    path = tmp_path / f"other{suffix}"
    first, last = ([layer.weight.T, layer.bias] for layer in net)
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
        net.save(path)
    elif suffix == ".onnx":
        onnx = pytest.importorskip("onnx")
        text = "<ir_version: 10, opset_import: ['': 17]> model (float[N, 6] x) => (float[N, 4] y)"
        nodes = "{ h = Gemm(x, w0, b0) r = Relu(h) z = Gemm(r, w1, b1) y = Softmax(z) }"
        model = onnx.parser.parse_model(text.replace("'", '"') + nodes)
        for name, array in zip(("w0", "b0", "w1", "b1"), [*first, *last], strict=True):
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        onnx.save(model, path)
    else:
        pytest.importorskip("h5py")
        config = sequential(dense("a", 16, "relu"), dense("b", 4, "softmax"))
        if suffix == ".keras":
            write_keras(path, config, weights_file({"dense": first, "dense_1": last}))
        else:
            named = {
                n: {"kernel": w, "bias": b} for n, (w, b) in zip("ab", (first, last), strict=True)
            }
            write_h5(path, config, named)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx", ".keras", ".h5"])
def test_commands_take_models_of_every_format(run, net, rng, tmp_path, suffix):
    path = model_file(suffix, net, tmp_path)
    done = run("summary", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Layer(6, 16)" in done.stdout
    assert "Layer(16, 4)" in done.stdout
    x = rng.standard_normal((9, 6)).astype(np.float32)
    assert run("predict", path, saved(tmp_path, x), "-o", tmp_path / "out.npy").returncode == 0
    assert_same_bits(np.load(tmp_path / "out.npy"), net(x))


def test_summary_refuses(refusal, tmp_path):
    assert (
        refusal("summary", tmp_path / "no.npz") == f"{tmp_path}/no.npz: No such file or directory\n"
    )
    (tmp_path / "bad.npz").write_bytes(b"PK nothing")
    assert "bad.npz" in refusal("summary", tmp_path / "bad.npz")
    assert "unknown suffix '.txt'" in refusal("summary", tmp_path / "a.txt")


# --- predict


@pytest.mark.parametrize("kind", [np.float32, np.uint8, np.int64, ">f8", bool, np.float16])
@pytest.mark.parametrize("order", ["C", "F"])
def test_predict_has_the_bits_of_a_call(run, net, model, rng, tmp_path, kind, order):
    x = np.asarray(rng.uniform(0, 9, (103, 6)), order=order).astype(kind)
    out = tmp_path / "out.npy"
    done = run("predict", model, saved(tmp_path, x), "-o", out, "--batch-size", 10)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert_same_bits(np.load(out), net(x))
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("argmax", [False, True])
@pytest.mark.parametrize("shape", [(6,), (0, 6), (1, 6), (7, 6), (5, 3, 6), (4, 2, 3, 6)], ids=str)
def test_predict_on_any_shape(run, net, model, rng, tmp_path, shape, argmax):
    x = rng.standard_normal(shape)
    for array in (x, np.asfortranarray(x)):
        out = tmp_path / "out.npy"
        flag = ["--argmax"] if argmax else []
        done = run("predict", model, saved(tmp_path, array), "-o", out, "--batch-size", 3, *flag)
        assert (done.returncode, done.stderr) == (0, "")
        y = net(x)
        assert_same_bits(np.load(out), np.asarray(y.argmax(-1).astype(np.int64)) if argmax else y)


def test_predict_flattens_images(run, tmp_path, rng):
    images = rng.integers(0, 256, (50, 4, 3), np.uint8)
    net = fl.Network([fl.Flatten(), fl.Layer(12, 5, rng=0)])
    net.save(tmp_path / "model.npz")
    for array in (images, np.asfortranarray(images)):
        out = tmp_path / "out.npy"
        model = tmp_path / "model.npz"
        done = run("predict", model, saved(tmp_path, array), "-o", out, "--batch-size", 8)
        assert done.returncode == 0, done.stderr
        assert_same_bits(np.load(out), net(images))


def test_predict_writes_one_of_several_outputs(run, refusal, tmp_path, rng):
    heads = fl.Concat([fl.Layer(5, 3, "softmax", rng=1), fl.Layer(5, 1, rng=2)])
    net = fl.Network([fl.Layer(6, 5, rng=0), heads], inputs=[4, 2], outputs={"p": 3, "v": 1})
    model, data, out = (str(tmp_path / name) for name in ("net.npz", "x.npy", "y.npy"))
    net.save(model)
    x = rng.standard_normal((7, 6)).astype(np.float32)
    np.save(data, x)
    for name, right in zip(("p", "v"), net(x), strict=True):
        assert run("predict", model, data, "-o", out, "--select", name).returncode == 0
        assert_same_bits(np.load(out), right)
    message = "it has the outputs p, v; write one with --select"
    assert message in refusal("predict", model, data, "-o", out)
    assert message in refusal("predict", model, data, "-o", out, "--select", "q")
    fl.Network(net.layers).save(model)
    assert "it has one output" in refusal("predict", model, data, "-o", out, "--select", "p")
    assert "Concat" in run("summary", model).stdout
    assert "net.npz" in run("bench", model, "--batch", "1", "3").stdout


def test_predict_replaces_what_was_there_through_a_link(net, model, rng, tmp_path):
    x = rng.standard_normal((9, 6))
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "out.npy").write_bytes(b"old")
    (tmp_path / "out.npy").symlink_to(tmp_path / "real" / "out.npy")
    assert (
        run_process("predict", model, saved(tmp_path, x), "-o", tmp_path / "out.npy").returncode
        == 0
    )
    assert (tmp_path / "out.npy").is_symlink()
    assert_same_bits(np.load(tmp_path / "real" / "out.npy"), net(x))


def test_predict_refuses_and_leaves_what_was_there(refusal, model, tmp_path):
    out = tmp_path / "out.npy"
    out.write_bytes(b"old")

    def refused(array, *args):
        message = refusal("predict", model, saved(tmp_path, array), "-o", out, *args)
        assert out.read_bytes() == b"old"
        assert not leftovers(tmp_path)
        return message

    assert "(..., 6), got (5, 7)" in refused(np.ones((5, 7)))
    assert "scalar" in refused(np.ones(()))
    assert "complex128" in refused(np.ones((5, 6), complex))
    assert "dtype" in refused(np.ones(5, [("a", "f4")]))
    assert "<U3" in refused(np.array([["abc"] * 6]))
    assert "pickled Python objects" in refused(np.array([[None] * 6]))


def test_predict_refuses_files_that_are_not_arrays(refusal, model, tmp_path):
    source, out = tmp_path / "in.npy", tmp_path / "out.npy"

    def refused(content):
        source.write_bytes(content)
        message = refusal("predict", model, source, "-o", out)
        assert message.startswith(f"{source}: ")
        assert not out.exists()
        assert not leftovers(tmp_path)
        return message

    saved(tmp_path, np.ones((50, 6)))
    whole = source.read_bytes()
    assert "cut short" in refused(whole[:-1])
    assert "cut short" in refused(whole.replace(b"(50, 6)", b"(99, 6)"))
    assert "cut short" in refused(whole.replace(b"(50, 6)", b"(-5, 6)"))
    for content in (
        b"",
        b"\x93NUMPY",
        whole[:40],
        whole.replace(b"'<f8'", b"'<q8'"),
        b"1,2,3\n" * 9,
        whole.replace(b"NUMPY\1\0", b"NUMPY\3\0"),
        whole.replace(b"NUMPY\1\0", b"NUMPY\4\0"),
    ):
        assert "not that of a .npy file" in refused(content)
    source.unlink()
    assert refusal("predict", model, source, "-o", out) == f"{source}: No such file or directory\n"


def test_predict_refuses_outputs_that_would_do_harm(refusal, model, tmp_path):
    source = saved(tmp_path, np.ones((5, 6)))
    before = source.read_bytes()
    os.link(source, tmp_path / "same.npy")
    (tmp_path / "folder.npy").mkdir()
    os.mkfifo(tmp_path / "pipe.npy")
    for out, message in (
        (source, "is the input"),
        (tmp_path / "same.npy", "is the input"),
        (tmp_path / "folder.npy", "is a folder"),
        (tmp_path / "pipe.npy", "not a file"),
        (tmp_path / "out.txt", "the output is one of .npy, .csv, .parquet"),
        (
            tmp_path / "nowhere" / "out.npy",
            f"the folder {str(tmp_path / 'nowhere')!r} does not exist",
        ),
    ):
        assert message in refusal("predict", model, source, "-o", out)
    assert source.read_bytes() == before
    assert "not a regular file" in refusal(
        "predict", model, "/dev/null", "-o", tmp_path / "out.npy"
    )


@pytest.mark.parametrize(
    "args",
    [["predict", "m", "x.npy"], ["predict", "m", "-o", "y"], ["summary"], ["bench", "--batch", "0"],
     ["predict", "m", "x.npy", "-o", "y.npy", "--batch-size", "0"], ["info", "more"]],
)  # fmt: skip
def test_wrong_usage_is_status_2(run, args):
    done = run(*args)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: python -m fastlayer")


# --- predict: tables


def written(path, x, header=True):
    """Rows in a file of its format, as other programs write them."""
    names = [f"feature {i}" for i in range(x.shape[1])]
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        arrow = pytest.importorskip("pyarrow")
        parquet.write_table(arrow.table(dict(zip(names, x.T, strict=True))), path)
    elif path.suffix == ".csv":
        np.savetxt(path, x, "%.17g", ",", header=",".join(names) if header else "", comments="")
    else:
        np.save(path, x)
    return path


def read_back(path):
    if path.suffix == ".parquet":
        table = pytest.importorskip("pyarrow.parquet").read_table(path)
        return table.column_names, np.stack([c.to_numpy() for c in table.columns], axis=1)
    if path.suffix == ".csv":
        header, *lines = path.read_text("utf-8").splitlines()
        rows = [[float(cell) for cell in line.split(",")] for line in lines]
        names = header.split(",")
        return names, np.array(rows, np.float32).reshape(-1, len(names))
    return None, np.load(path)


FORMATS = (".npy", ".csv", ".parquet")


@pytest.mark.parametrize("into", FORMATS)
@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("rows", [0, 1, 23])
def test_predict_from_table_to_table(run, net, model, rng, tmp_path, suffix, into, rows):
    if into == ".parquet":
        pytest.importorskip("pyarrow")
    x = rng.standard_normal((rows, 6))
    source, out = written(tmp_path / f"x{suffix}", x), tmp_path / f"y{into}"
    done = run("predict", model, source, "-o", out, "--batch-size", 10)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    names, y = read_back(out)
    assert_same_bits(y, net(x))
    assert names in (None, [f"column_{i}" for i in range(4)])
    if into != ".npy":  # which one can be read again
        back = run("predict", identity(tmp_path), out, "-o", tmp_path / "again.npy")
        assert back.returncode == 0, back.stderr
        assert_same_bits(np.load(tmp_path / "again.npy"), net(x))


def identity(tmp_path):
    fl.Network([fl.Layer.from_arrays(np.eye(4, dtype=np.float32))]).save(tmp_path / "same.npz")
    return tmp_path / "same.npz"


@pytest.mark.parametrize("into", [".csv", ".parquet"])
def test_predict_names_the_columns(run, refusal, rng, tmp_path, into):
    if into == ".parquet":
        pytest.importorskip("pyarrow")
    heads = fl.Concat([fl.Layer(5, 3, "softmax", rng=1), fl.Layer(5, 1, rng=2)])
    net = fl.Network([fl.Layer(6, 5, rng=0), heads], outputs={"p, or so": 3, "v": 1})
    net.save(tmp_path / "model.npz")
    x, out = rng.standard_normal((7, 6)), tmp_path / f"y{into}"
    source = saved(tmp_path, x)
    call = ("predict", tmp_path / "model.npz", source, "-o", out, "--select")
    assert run(*call, "v").returncode == 0
    assert read_back(out)[0] == ["v"]
    assert_same_bits(read_back(out)[1], net(x)[1])
    assert run(*call, "p, or so", "--argmax").returncode == 0
    assert read_back(out)[0] == ["argmax"]
    assert read_back(out)[1][:, 0].tolist() == net(x)[0].argmax(1).tolist()
    assert run(*call, "p, or so").returncode == 0
    if into == ".csv":
        assert out.read_text("utf-8").startswith('"p, or so_0","p, or so_1","p, or so_2"\n')
    np.save(source, x[0])
    assert run(*call, "v").returncode == 0  # a single row
    assert_same_bits(read_back(out)[1], net(x[:1])[1])
    np.save(source, x[None])
    assert "can't hold results of shape (1, 7, 1); write .npy" in refusal(*call, "v")


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("1,2\n3,4\n", [[1, 2], [3, 4]]),
        ("a,b\n1,2\n", [[1, 2]]),
        ("\ufeffa,b\r\n1,2\r\n\r\n3,4", [[1, 2], [3, 4]]),
        ('"a, or b","c"\n"1","2.5e-3"\n', [[1, 2.5e-3]]),
        (" 1 , -2\n\n   \n+3,.5\n", [[1, -2], [3, 0.5]]),
        ("a,b\nnan,-inf\n", [[np.nan, -np.inf]]),
        ("a,b\n", np.empty((0, 2))),
    ],
)
def test_what_csv_files_may_look_like(run, tmp_path, text, rows):
    fl.Network([fl.Layer(2, 2, rng=0), "identity"]).save(tmp_path / "model.npz")
    (tmp_path / "x.csv").write_bytes(text.encode())
    call = ("predict", tmp_path / "model.npz", tmp_path / "x.csv", "-o", tmp_path / "out.npy")
    for size in ("1", "2", "100"):
        assert run(*call, "--batch-size", size).returncode == 0
        net = fl.load(tmp_path / "model.npz")
        assert_same_bits(np.load(tmp_path / "out.npy"), net(np.asarray(rows, float)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n3,x\n", "line 3, column 2: 'x' is no number"),
        ("a,b\n1,2\n\n3,\n", "line 4, column 2: is empty; write nan"),
        ("1,2\n3,4,5\n", "line 2: has 3 columns, and those before 2"),
        ("1,2\n3\n", "line 2: has 1 columns"),
        ("1,2\n3,0x10\n", "line 2, column 2: '0x10' is no number"),
        ("1,2\n3,1_0\n", "line 2, column 2: '1_0' is no number"),
        ("1,2\nTrue,1\n", "line 2, column 1: 'True' is no number"),
        ("1;2\n3;4\n", "has 1 columns, and the network takes 2 features"),
        (
            "a,7\n1,2\n",
            "line 1, column 1: 'a' is no number, and others in the line are; say --header",
        ),
        ("0,1\n5,6\n", "line 1: has the numbers from 0 on, which may be names of columns or a row"),
        ("a,b,c\n1,2,3\n", "has 3 columns, and the network takes 2 features"),
        ("", "line 1: is empty, as is the file"),
        ("\n \n", "line 1: is empty, as is the file"),
        ("1,2\n3,\x00\n", "line 2, column 2"),
        (b"1,2\n3,\xff\n", "line 2: is not UTF-8 text"),
        (b"\xff\xfe1\x00,\x002\x00", "line 1: is not UTF-8 text"),
        ("<!doctype html>", "is a page of a website"),
        ('1,2\n"3,4\n', "line 2: has 1 columns"),
    ],
)
def test_csv_files_that_are_refused(refusal, tmp_path, text, words):
    fl.Network([fl.Layer(2, 2, rng=0)]).save(tmp_path / "model.npz")
    source, out = tmp_path / "x.csv", tmp_path / "out.npy"
    source.write_bytes(text if isinstance(text, bytes) else text.encode())
    for size in ("1", "100"):
        message = refusal(
            "predict", tmp_path / "model.npz", source, "-o", out, "--batch-size", size
        )
        assert message.startswith(f"{source}: ")
        assert words in message
        assert not out.exists()
        assert leftovers(tmp_path) == ["x.csv"]


def test_whether_there_is_a_header_can_be_said(run, refusal, tmp_path):
    fl.Network([fl.Layer.from_arrays(np.eye(2))]).save(tmp_path / "model.npz")
    source, out = tmp_path / "x.csv", tmp_path / "out.npy"
    call = ("predict", tmp_path / "model.npz", source, "-o", out)
    for text, header, rows in [
        ("0,1\n5,6\n", "--header", [[5, 6]]),
        ("0,1\n5,6\n", "--no-header", [[0, 1], [5, 6]]),
        ("a,7\n5,6\n", "--header", [[5, 6]]),
        ("3,7\n5,6\n", "--header", [[5, 6]]),
    ]:
        source.write_text(text)
        assert run(*call, header).returncode == 0
        assert np.load(out).tolist() == rows
    source.write_text("a,b\n1,2\n")
    assert "line 1, column 1: 'a' is no number" in refusal(*call, "--no-header")
    array = saved(tmp_path, np.ones((1, 2)))
    assert "are for .csv files" in refusal(call[0], call[1], array, "-o", out, "--header")


def test_a_line_without_end(refusal, monkeypatch, tmp_path):
    from fastlayer.cli import rows

    monkeypatch.setattr(rows, "_LONGEST_LINE", 100)
    fl.Network(["relu"]).save(tmp_path / "model.npz")
    (tmp_path / "x.csv").write_text("1,2\n" + "1" * 101)
    message = refusal(
        "predict", tmp_path / "model.npz", tmp_path / "x.csv", "-o", tmp_path / "y.npy"
    )
    assert "line 2: has more than 100 bytes" in message


def test_parquet_files_that_are_refused(refusal, net, model, tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    source, out = tmp_path / "x.parquet", tmp_path / "out.npy"
    source.write_bytes(b"PAR1 nothing")
    call = ("predict", model, source, "-o", out)
    assert refusal(*call).startswith(f"{source}: parquet: pyarrow says: ")
    columns = {str(i): [0.5, 1.5] for i in range(6)}
    parquet.write_table(arrow.table({**columns, "city": ["Rome", "Oslo"]}), source)
    assert "has 7 columns, and the network takes 6 features" in refusal(*call)
    parquet.write_table(arrow.table({**columns, "3": ["Rome", "Oslo"]}), source)
    assert f"{source}: the column '3' has dtype string, 'Rome' in row 0" in refusal(*call)
    assert not out.exists()


@pytest.mark.parametrize("swap", [False, True])
def test_parquet_files_need_pyarrow(refusal, model, rng, monkeypatch, tmp_path, swap):
    files = [saved(tmp_path, rng.standard_normal((2, 6))), tmp_path / "y.parquet"]
    if swap:
        (tmp_path / "x.parquet").write_bytes(b"PAR1")
        files = [tmp_path / "x.parquet", tmp_path / "out.npy"]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    message = refusal("predict", model, files[0], "-o", files[1])
    assert message == ".parquet files are read and written by pyarrow: pip install pyarrow\n"


def sparse(path, rows, columns):
    """A file of zeros that takes no room on the disk."""
    with open(path, "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (rows, columns)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + rows * columns)


# Python, NumPy and a few threads fit; each of OpenBLAS's would reserve memory of its own.
LIMIT = 512 << 20
FEW_THREADS = {"OPENBLAS_NUM_THREADS": "1", "FASTLAYER_NUM_THREADS": "2"}


def limit_memory():
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))


@pytest.mark.skipif(SANITIZED, reason="a sanitizer reserves address space of its own")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no such limit on this system")
def test_predict_takes_files_that_memory_can_not_hold(tmp_path):
    net = fl.Network([fl.Layer(1 << 12, 2, rng=0)])
    net.save(tmp_path / "model.npz")
    rows = (LIMIT >> 12) + 500
    sparse(tmp_path / "in.npy", rows, 1 << 12)
    files = (tmp_path / "in.npy", "-o", tmp_path / "out.npy")
    env = {**os.environ, **FEW_THREADS}
    done = run_process("predict", tmp_path / "model.npz", *files, env=env, preexec_fn=limit_memory)
    assert (done.returncode, done.stderr) == (0, "")
    y = np.load(tmp_path / "out.npy")
    assert y.shape == (rows, 2)
    assert not y.any()


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("number", "status", "text"),
    [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, 143, ""), (signal.SIGHUP, 129, "")],
)
def test_predict_cleans_up_when_it_is_ended(model, tmp_path, number, status, text):
    sparse(tmp_path / "in.npy", 1 << 34, 6)  # takes hours
    command = [*MODULE, "predict", model, tmp_path / "in.npy", "-o", tmp_path / "out.npy"]

    def heed():  # where these tests run under nohup, say, it would be ignored
        signal.signal(number, signal.SIG_DFL)

    options = {"stderr": subprocess.PIPE, "text": True, "preexec_fn": heed}
    with subprocess.Popen(command, **options) as process:
        try:
            while not begun(process.pid, tmp_path):
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(number)
            _, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, error) == (status, text)
    assert not leftovers(tmp_path)
    assert not (tmp_path / "out.npy").exists()


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_a_full_disk_is_one_line(model, tmp_path):
    import resource

    sparse(tmp_path / "in.npy", 1 << 24, 6)

    def small_files():
        # Where a file reaches the limit, the system reports an error like that of a full disk.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    files = (tmp_path / "in.npy", "-o", tmp_path / "out.npy")
    done = run_process("predict", model, *files, preexec_fn=small_files)
    done.args = ["predict"]
    assert refusal_of(done) == f"{tmp_path / 'out.npy'}: File too large\n"
    assert not leftovers(tmp_path)


def test_predict_shows_a_bar_on_a_terminal_only(model, rng, tmp_path):
    pytest.importorskip("tqdm")
    fcntl, pty, termios = map(pytest.importorskip, ("fcntl", "pty", "termios"))
    source, out = saved(tmp_path, rng.standard_normal((5, 6))), tmp_path / "out.npy"
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [*map(str, [*MODULE, "predict", model, source, "-o", out])]
    subprocess.run(command, stderr=slave, check=True, timeout=60)
    os.close(slave)
    shown = os.read(master, 10_000)
    os.close(master)
    assert b"100%" in shown
    assert b"5.00/5.00" in shown


# --- bench


def test_bench_prints_a_table_and_draws(run, model, tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    assert matplotlib.__version__
    picture = tmp_path / "bench.svg"
    done = run("bench", model, "--batch", 1, "--picture", picture)
    assert (done.returncode, done.stderr) == (0, "")
    header, rule, row = done.stdout.splitlines()[:3]
    assert header.split() == ["Network", "Batch", "fastlayer", "NumPy", "Ratio"]
    assert len(rule) == len(header)
    assert row.split()[:2] == ["model.npz", "1"]
    assert row.endswith(("x", "busy"))
    assert f"NumPy {np.__version__}" in done.stdout
    text = picture.read_text("utf-8")
    assert text.startswith("<?xml")
    assert "svg" in text


def test_bench_without_a_model_and_with_slow_settings_of_numpy():
    done = run_process("bench", "--batch", 1, env={**os.environ, "OPENBLAS_CORETYPE": "Haswell"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "64-100-10" in done.stdout
    assert "784-512-512-10" in done.stdout
    assert "slows NumPy down: OPENBLAS_CORETYPE" in done.stdout


def test_bench_of_what_numpy_lacks_runs_alone(run, tmp_path):
    fl.Network([fl.Layer(6, 3, "gelu", rng=0)]).save(tmp_path / "model.npz")
    done = run("bench", tmp_path / "model.npz", "--batch", 1)
    assert done.returncode == 0
    assert "runs alone: NumPy has no erf, which gelu needs" in done.stdout
    pytest.importorskip("matplotlib")
    picture = tmp_path / "bench.svg"
    done = run("bench", tmp_path / "model.npz", "--batch", 1, "--picture", picture)
    assert (done.returncode, done.stderr) == (0, "")
    assert "svg" in picture.read_text("utf-8")


def test_bench_refuses(refusal, model, tmp_path, monkeypatch):
    assert ".svg" in refusal("bench", model, "--picture", tmp_path / "bench.gif")
    assert "does not exist" in refusal("bench", model, "--picture", tmp_path / "none" / "a.svg")
    fl.Network([fl.Activation("relu")]).save(tmp_path / "any.npz")
    assert "any number of features" in refusal("bench", tmp_path / "any.npz")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    message = refusal("bench", model, "--picture", tmp_path / "a.png")
    assert message == "--picture needs Matplotlib: pip install matplotlib\n"


def test_commands_load_only_what_they_need(model):
    code = (
        "import sys; from fastlayer.cli.main import main; main(['summary', sys.argv[1]])\n"
        "print(*sys.modules)"
    )
    command = [sys.executable, "-c", code, str(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "fastlayer.cli.summary" in loaded
    assert not loaded & {"fastlayer.cli.bench", "fastlayer.cli.predict", "fastlayer.cli.demo"}
    assert not loaded & {"tqdm", "matplotlib", "dask"}
