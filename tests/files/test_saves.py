"""What saves leave beside the model: nothing that the next one does not clear."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastlayer as fl
from fastlayer.files import save

fcntl = pytest.importorskip("fcntl")

OLD, NEW = (fl.Network([fl.Layer(2, 3, rng=seed)]) for seed in (0, 1))
LEFT = ".m.npz.0123456789ab.tmp"

# Stops in the middle of writing, and says so.
STOPPED = """
import sys, time
from fastlayer.files import save
if sys.argv[2] == "named":
    save._unnamed = lambda folder, name: None
def write(file):
    file.write(b"half")
    file.flush()
    print("half", flush=True)
    time.sleep(600)
save.write_atomically(sys.argv[1], write)
"""


@pytest.fixture
def stopped(tmp_path):
    """A save that has come half way, with a named file or one without."""
    started = []

    def start(kind):
        command = [sys.executable, "-c", STOPPED, str(tmp_path / "m.npz"), kind]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "half\n"
        return started[-1]

    yield start
    for process in started:
        kill(process)
        process.stdout.close()


@pytest.fixture(params=["named", "unnamed"])
def kind(request, monkeypatch, tmp_path):
    if request.param == "named":
        monkeypatch.setattr(save, "_unnamed", lambda folder, name: None)
    elif (made := save._unnamed(str(tmp_path), "m.npz")) is None:
        pytest.skip("no files without a name here")
    else:
        made[1].close()
    return request.param


def kill(process):
    process.kill()
    process.wait()


def test_a_killed_save_is_cleared_by_the_next(tmp_path, stopped, kind):
    OLD.save(tmp_path / "m.npz")
    kill(stopped(kind))
    left = [name for name in os.listdir(tmp_path) if name != "m.npz"]
    assert len(left) == (kind == "named")
    assert all(re.fullmatch(r"\.m\.npz\.[0-9a-f]{12}\.tmp", name) for name in left)
    assert np.array_equal(fl.load(tmp_path / "m.npz")([1, 2]), OLD([1, 2]))
    NEW.save(tmp_path / "m.npz")
    assert os.listdir(tmp_path) == ["m.npz"]
    assert np.array_equal(fl.load(tmp_path / "m.npz")([1, 2]), NEW([1, 2]))


def test_a_save_under_way_keeps_its_file(tmp_path, stopped):
    process = stopped("named")
    (name,) = os.listdir(tmp_path)
    NEW.save(tmp_path / "m.npz")
    assert sorted(os.listdir(tmp_path)) == [name, "m.npz"]
    kill(process)
    NEW.save(tmp_path / "m.npz")
    assert os.listdir(tmp_path) == ["m.npz"]


def test_only_files_of_this_name_and_kind_are_cleared(tmp_path, kind):
    others = [
        ".mm.npz.0123456789ab.tmp",
        ".m.npz.0123456789AB.tmp",
        ".m.npz.0123456789ab.tmp.old",
        ".mxnpz.0123456789ab.tmp",
        "m.npz.0123456789ab.tmp",
        ".m.npz.tmp",
    ]
    for name in [*others, LEFT]:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / LEFT.replace("0", "1")).mkdir()
    (tmp_path / LEFT.replace("0", "2")).symlink_to(tmp_path / others[0])
    os.mkfifo(tmp_path / LEFT.replace("0", "3"))
    before = set(os.listdir(tmp_path))
    OLD.save(tmp_path / "m.npz")
    gone = before - set(os.listdir(tmp_path))
    assert LEFT in gone
    assert gone <= {LEFT, LEFT.replace("0", "3")}


def test_a_file_taken_before_it_is_locked(tmp_path, monkeypatch):
    """A save that begins at the same time removes it: another one is opened."""
    monkeypatch.setattr(save, "_unnamed", lambda folder, name: None)
    opened = []

    def lock(number):
        opened.append(number)
        if len(opened) == 1:
            (name,) = os.listdir(tmp_path)
            os.unlink(tmp_path / name)
        return True

    monkeypatch.setattr(save, "_lock", lock)
    OLD.save(tmp_path / "m.npz")
    assert len(opened) == 2
    assert os.listdir(tmp_path) == ["m.npz"]


def test_without_locks(tmp_path, monkeypatch, kind):
    def flock(number, how):
        raise OSError("no locks here")

    (tmp_path / LEFT).write_bytes(b"")
    monkeypatch.setattr(fcntl, "flock", flock)
    OLD.save(tmp_path / "m.npz")
    assert sorted(os.listdir(tmp_path)) == [LEFT, "m.npz"]


def test_on_windows(tmp_path, monkeypatch):
    """Which has no locks of this kind, and renames no open file."""
    monkeypatch.setattr(save, "_fcntl", None)
    monkeypatch.setattr(save, "_unnamed", lambda folder, name: None)
    OLD.save(tmp_path / "m.npz")
    assert os.listdir(tmp_path) == ["m.npz"]


def test_errors_of_other_files_keep_their_names(tmp_path, kind):
    """What is written may be read from somewhere, and fail there."""

    def write(file):
        file.write(b"half")
        raise OSError(errno.EIO, "no more of it", "in.npy")

    with pytest.raises(OSError, match="no more of it") as caught:
        save.write_atomically(str(tmp_path / "m.npz"), write)
    assert caught.value.filename == "in.npy"
    assert os.listdir(tmp_path) == []


def test_what_was_handled_before_is_no_cause(tmp_path):
    try:
        raise PermissionError(errno.EACCES, "before")
    except PermissionError:
        with pytest.raises(FileNotFoundError) as caught:
            OLD.save(tmp_path / "none" / "m.npz")
    assert caught.value.filename == str(tmp_path / "none" / "m.npz")


def onnx(path):
    pytest.importorskip("onnx")
    OLD.to_onnx(path)


@pytest.mark.parametrize(
    ("put", "name"), [(OLD.save, "m.npz"), (onnx, "m.onnx")], ids=["save", "to_onnx"]
)
def test_what_is_wrong_with_the_place(tmp_path, kind, put, name):
    (tmp_path / "file").touch()
    (tmp_path / name).mkdir()
    for path, error, words in [
        (Path("none", "here", name), FileNotFoundError, "the folder {!r} does not exist"),
        (Path("file", name), NotADirectoryError, "{!r} is no folder"),
        (Path("file", "below", name), NotADirectoryError, "{!r} is no folder"),
        (Path(name), IsADirectoryError, "is a folder; give the name of a file in it"),
    ]:
        folder = tmp_path / path.parent
        with pytest.raises(error, match=re.escape(words.format(str(folder)))) as caught:
            put(tmp_path / path)
        assert caught.value.filename == str(tmp_path / path)
        assert ".tmp" not in str(caught.value)


def test_a_folder_that_nobody_may_write_to(tmp_path, monkeypatch):
    """The superuser may, and so the system is asked in the test's place."""

    def refuse(*arguments):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / LEFT))

    monkeypatch.setattr(save, "_replace", refuse)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    words = f"no permission to write into the folder {str(tmp_path)!r}: {str(tmp_path / 'm.npz')!r}"
    with pytest.raises(PermissionError, match=re.escape(words)):
        OLD.save(tmp_path / "m.npz")


def test_a_relative_path_names_the_whole_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "none"))):
        OLD.save("none/m.npz")


def test_a_failing_write_leaves_nothing(tmp_path, kind):
    def write(file):
        file.write(b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        save.write_atomically(str(tmp_path / "m.npz"), write)
    assert os.listdir(tmp_path) == []
