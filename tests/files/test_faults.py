"""Saves whose calls to the system fail, each in its turn, and saves that lose the power."""

from __future__ import annotations

import os
import platform
import re
import sys

import pytest
from power_loss import File, losses
from preloaded import SANITIZED, compiled, run_preloaded

from fastlayer.files import save

pytestmark = [
    pytest.mark.skipif(
        sys.platform != "linux" or platform.libc_ver()[0] != "glibc",
        reason="preloads a library in front of glibc",
    ),
    pytest.mark.skipif(SANITIZED, reason="the sanitizer's library is preloaded"),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return compiled("failing_calls", tmp_path_factory.mktemp("library"))


@pytest.fixture(params=[".npz", ".safetensors"])
def suffix(request):
    if request.param == ".safetensors":
        pytest.importorskip("safetensors")
    return request.param


@pytest.fixture(params=["named", "unnamed"])
def kind(request, tmp_path):
    if request.param == "unnamed":
        made = save._unnamed(str(tmp_path), "m")
        if made is None:
            pytest.skip("no files without a name here")
        made[1].close()
    return request.param


def test_every_call_of_a_save_that_fails(library, tmp_path, suffix, kind):
    """The script itself has the checks; here, that it came to the end of them."""
    said = run_preloaded(library, "failing_saves.py", suffix, kind, tmp_path)
    counts = [int(line.split("\t")[4]) for line in said.splitlines() if line.count("\t") == 4]
    assert len(counts) == 18
    assert min(counts) > 12
    outcomes = dict(line.split("\t") for line in said.splitlines() if line.count("\t") == 1)
    assert sum(map(int, outcomes.values())) == sum(counts)
    wanted = {"an error, old file", "an error, new file", "saved: the rest is written"}
    assert wanted <= outcomes.keys()


def test_every_call_of_a_load_that_fails(library, tmp_path, suffix):
    said = run_preloaded(library, "failing_saves.py", suffix, "load", tmp_path)
    errors = re.search(r"'an error': (\d+)", said)
    assert errors
    assert int(errors[1]) > 6


# --- the power goes

OLD, NEW = b"old" * 20, b"new!" * 30
FOLDER, MODEL, OTHER = "/d", "/d/m", "/d/.m.tmp"
# As a save should be, in the lines of failing_calls.c.
SOUND = [
    f"open\t3\t{os.O_CREAT | os.O_EXCL}\t{OTHER}",
    f"write\t{len(NEW)}\t3\t0\t{NEW.hex()}",
    "fsync\t0\t3",
    f"rename\t0\t{OTHER}\t{MODEL}",
    "close\t0\t3",
    f"open\t3\t{os.O_RDONLY}\t{FOLDER}",
    "fsync\t0\t3",
    "close\t0\t3",
]


def judged(lines, folder=FOLDER, name=MODEL, old=OLD, new=NEW):
    """What is wrong with a save after a loss of power, and how many states were looked at."""
    states = list(losses(lines, folder, {} if old is None else {name: old}, name))
    wrong = set()
    if any(found - {old, new} for found, _ in states):
        wrong.add("neither file")
    if states[-1][0] != {new}:
        wrong.add("not the new one at the end")
    return wrong, sum(len(found) for found, _ in states)


UNSOUND = {
    "no fsync of the file": ([*SOUND[:2], *SOUND[3:]], {"neither file", "not the new one at the end"}),
    "no fsync of the folder": (SOUND[:5], {"not the new one at the end"}),
    "fsync of the file too late": (
        [*SOUND[:2], SOUND[3], SOUND[2], *SOUND[4:]],
        {"neither file"},
    ),
    "in place": (
        [f"open\t3\t{os.O_CREAT | os.O_TRUNC}\t{MODEL}", *SOUND[1:3], *SOUND[4:]],
        {"neither file"},
    ),
    "removed before": ([f"unlink\t0\t{MODEL}", *SOUND], {"neither file"}),
    "written to behind the fsync": (
        [*SOUND[:3], f"write\t4\t3\t0\t{NEW[:4].hex()}", f"write\t1\t3\t9\t{b'?'.hex()}", *SOUND[3:]],
        {"neither file", "not the new one at the end"},
    ),
}  # fmt: skip


def test_the_model_passes_a_sound_save():
    assert judged(SOUND)[0] == set()
    assert judged(SOUND, old=None)[0] == set()


@pytest.mark.parametrize("name", UNSOUND)
def test_the_model_finds_what_is_unsound(name):
    lines, wrong = UNSOUND[name]
    assert judged(lines)[0] == wrong


def test_what_may_be_in_a_file_that_was_not_synchronised():
    file = File(b"ab")
    file.since = [(1, b"xy"), (3, b"z")]
    assert file.contents() >= {
        b"ab",
        b"axyz",
        b"axy",
        b"ab\0z",
        b"ax\0z",
        b"a\0\0z",
        b"axy\0",
        b"a\0\0\0",
    }
    file.synchronise()
    assert file.contents() == {b"axyz"}


def test_a_loss_of_power_leaves_the_old_file_or_the_new_one(library, tmp_path, suffix, kind):
    said = run_preloaded(library, "failing_saves.py", suffix, kind, tmp_path, "record")
    lines = [line for line in said.splitlines() if line]
    path = tmp_path / f"m{suffix}"
    (old,) = (bytes.fromhex(line[4:]) for line in lines if line.startswith("old\t"))
    calls = [line for line in lines if not line.startswith("old\t")]
    # Both are there, and the two ways are what they are called.
    assert sum(line.startswith("fsync\t0") for line in calls) == 2
    assert any(line.startswith("link\t0") for line in calls) == (kind == "unnamed")
    for before in (old, None):
        wrong, states = judged(calls, str(tmp_path), str(path), before, path.read_bytes())
        assert wrong == set()
        assert states > len(calls)
    # A name that is left behind is one that the next save clears.
    names = set().union(*(n for _, n in losses(calls, str(tmp_path), {}, str(path))))
    left = re.compile(rf"{re.escape(str(tmp_path))}/\.m{re.escape(suffix)}\.[0-9a-f]{{12}}\.tmp")
    assert all(left.fullmatch(name) for name in names - {str(path)})
    # Without one of the two, the model finds it.
    synchronised = [i for i, line in enumerate(calls) if line.startswith("fsync\t0")]
    for i in synchronised:
        fewer = calls[:i] + calls[i + 1 :]
        assert judged(fewer, str(tmp_path), str(path), old, path.read_bytes())[0]
