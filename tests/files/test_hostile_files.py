"""Hostile .npz, .safetensors and .pt files and agents in .zip: refused in one way, in little time and memory.

The files run in a jail, see hostile.py: one second of processor time, the file's size plus 64 MB,
no other file opened, nothing executed.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import closing, suppress
from importlib.util import find_spec

import hostile_corpus as corpus
import numpy as np
import pytest
from hostile import Jail
from hypothesis import given, settings
from hypothesis import strategies as st
from model_files import (
    DATA,
    header_of,
    legacy,
    members,
    pickled,
    places,
    pt,
    record,
    replaced,
    storage,
    tensor,
    with_header,
    zipped,
)

import fastlayer as fl

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the jail is made of Linux's limits"
)

FORMATS = {
    ".npz": (corpus.npz, "fastlayer:load", DATA / "version1.npz"),
    ".safetensors": (corpus.safetensors, "fastlayer:load", DATA / "version1.safetensors"),
    ".pt": (corpus.torch, "hostile_corpus:read_state_dict", DATA / "state_dict.pt"),
    ".pth": (corpus.old, "hostile_corpus:read_state_dict", DATA / "legacy.pth"),
    ".jit": (corpus.compiled, "hostile_corpus:read_state_dict", DATA / "script.jit"),
    ".zip": (corpus.agents, "hostile_corpus:read_agent", DATA / "agent.zip"),
}
CASES = [(suffix, name) for suffix, (make, _, good) in FORMATS.items() for name in make(good)]


def can_read(suffix):
    return suffix != ".safetensors" or find_spec("safetensors")


def need(suffix):
    if not can_read(suffix):
        pytest.skip("there is no safetensors package")


@pytest.fixture(scope="module")
def jails():
    made: dict[str, Jail] = {}

    def jail(suffix):
        need(suffix)
        if suffix not in made:
            _, reader, good = FORMATS[suffix]
            made[suffix] = Jail(reader, [good])
        return made[suffix]

    yield jail
    for each in made.values():
        each.close()


@pytest.fixture(scope="module")
def opened():
    """A jail whose reader is given open files, of every format."""
    good = [file for suffix, (_, _, file) in FORMATS.items() if can_read(suffix)]
    with closing(Jail("hostile_corpus:read_opened", good)) as jail:
        yield jail


def put(path, content):
    """Write bytes, or let a function write a file that is too large for that."""
    if callable(content):
        content(path)
    else:
        path.write_bytes(content)
    return path


@pytest.mark.parametrize("suffix", FORMATS)
def test_sound_files_pass_the_jail(jails, opened, suffix):
    assert jails(suffix).accept(FORMATS[suffix][2]) == "Network"
    assert opened.accept(FORMATS[suffix][2]) == "Network"


@pytest.mark.parametrize("reader", ["wastes_time", "opens_another_file", "runs_code"])
def test_the_jail_ends_readers_that_go_too_far(reader):
    jail = Jail(f"hostile_corpus:{reader}", [])
    with closing(jail), pytest.raises(AssertionError, match="status"):
        jail.run(DATA / "version1.npz")


def test_the_jail_has_no_more_memory_than_promised():
    with closing(Jail("hostile_corpus:wastes_memory", [])) as jail:
        jail.refuse(DATA / "version1.npz", "MemoryError")


@pytest.mark.parametrize(("suffix", "name"), CASES)
def test_hostile_files_are_refused(jails, opened, tmp_path, suffix, name):
    jail = jails(suffix)
    make, _, good = FORMATS[suffix]
    path = put(tmp_path / f"model{suffix}", make(good)[name]())
    # What a state dict describes can be sound, and be no dense network.
    errors = ("ModelFileError",) if suffix in corpus.OWN else ("ModelFileError", "ConversionError")
    for each in (jail, opened):
        assert str(path) in each.refuse(path, *errors)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("sizes differ", "two sizes differ"),
        ("encrypted", "is encrypted"),
        ("symlink", "is a symbolic link"),
        ("compressed", "is compressed; only stored"),
        ("same name twice", "is there twice"),
        ("parent folder", "a path that leads elsewhere"),
        ("checksum", "its checksum is wrong"),
        ("offset beyond", "lies outside of the file"),
        ("wrong magic", "is not a zip archive"),
    ],
)
def test_archives_are_refused_for_what_is_wrong_with_them(tmp_path, name, why):
    path = put(tmp_path / "model.npz", corpus.npz(DATA / "version1.npz")[name]())
    with pytest.raises(fl.ModelFileError, match=why):
        fl.load(path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_no_regular_file_is_refused(jails, tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    os.mkfifo(path)
    assert "regular file" in jails(suffix).refuse(path)
    path.unlink()
    path.mkdir()
    assert "regular file" in jails(suffix).refuse(path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_link_to_a_model_is_read(tmp_path, suffix):
    need(suffix)
    path = tmp_path / f"model{suffix}"
    path.symlink_to(FORMATS[suffix][2])
    read = corpus.READERS.get(suffix, corpus.read_state_dict)
    assert isinstance(read(str(path)), fl.Network)


SETTINGS = {
    "policy_class": {"__module__": "stable_baselines3.common.policies"},
    "observation_space": {":type:": "<class 'gymnasium.spaces.box.Box'>", "_shape": [2]},
}


def small(suffix, path):
    """The smallest file of a format with all that it has."""
    weight, ones = tensor(storage("0", 2), 0, (1, 2), (2, 1)), {"0": np.ones(2, "<f4").tobytes()}
    if suffix == ".pt":
        path.write_bytes(pt(pickled({"a.weight": weight}), ones))
    elif suffix == ".pth":
        path.write_bytes(legacy(pickled({"a.weight": weight}), ones))
    elif suffix == ".jit":
        tree = b"\x80\x02" + record("__torch__ N", {"weight": weight}) + b"."
        path.write_bytes(pt(tree, ones, **{"constants.pkl": b""}))
    elif suffix == ".zip":
        policy = legacy(pickled({"action_net.weight": weight}), ones)
        path.write_bytes(zipped({"data": json.dumps(SETTINGS).encode(), "policy.pth": policy}))
    else:
        fl.Network([fl.Layer.from_arrays(np.ones((1, 2), np.float32))]).save(path)
    return path


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_truncation_and_every_changed_byte(tmp_path, suffix):
    need(suffix)
    path = small(suffix, tmp_path / f"model{suffix}")
    _, reader, good = FORMATS[suffix]
    jail = Jail("hostile_corpus:sweep", [good], seconds=60, warmer=reader)
    with closing(jail):
        assert jail.accept(path) == "int"


# ----------------------------------------------------------------------------- fuzz

NUMBERS = st.one_of(
    st.integers(-9, 9), st.sampled_from([2**31, 2**32, 2**63, 2**64, -(2**63), 1e308, True, None])
)
JSON = st.recursive(
    NUMBERS | st.floats() | st.text(max_size=5) | st.sampled_from(["relu", "Layer", "float32"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=6,
)  # fmt: skip


def tried(read, path, data):
    """Read what a fuzzer made: a network, or a refusal in one of the two ways."""
    path.write_bytes(data)
    with suppress(fl.ModelFileError, fl.ConversionError):
        assert isinstance(read(str(path)), fl.Network)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@settings(max_examples=200)
@given(st.data())
def test_fuzzed_documents(folder, data):
    good = members(DATA / "version1.npz")
    document = json.loads(good["fastlayer.npy"][128:])
    place = data.draw(st.sampled_from(list(places(document))))
    text = json.dumps(replaced(document, place, data.draw(JSON))).encode()
    array = np.frombuffer(text, np.uint8)
    content = {**good, "fastlayer.npy": corpus.npy(array)}
    tried(fl.load, folder / "model.npz", zipped(content))


@settings(max_examples=200)
@given(st.data())
def test_fuzzed_headers_of_safetensors(folder, data):
    need(".safetensors")
    header, tensors = header_of((DATA / "version1.safetensors").read_bytes())
    place = data.draw(st.sampled_from(list(places(header))))
    changed = replaced(header, place, data.draw(JSON))
    tried(fl.load, folder / "model.safetensors", with_header(changed, tensors))


@settings(max_examples=300)
@given(st.data())
def test_fuzzed_pickles(folder, data):
    good = members(DATA / "state_dict.pt")
    (name,) = (n for n in good if n.endswith("data.pkl"))
    whole = good[name]
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 8)))
    piece = data.draw(
        st.binary(max_size=6)
        | st.lists(st.sampled_from(b"()]}tsuaebRQNqrhjKMJXc.\x85\x86")).map(bytes)
    )
    changed = whole[:start] + piece + whole[end:]
    tried(corpus.read_state_dict, folder / "model.pt", zipped({**good, name: changed}))


@pytest.mark.parametrize("suffix", FORMATS)
@settings(max_examples=100)
@given(data=st.data())
def test_fuzzed_bytes(folder, suffix, data):
    need(suffix)
    whole = FORMATS[suffix][2].read_bytes()
    read = corpus.READERS.get(suffix, corpus.read_state_dict)
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        piece = data.draw(st.binary(min_size=1, max_size=8))
        changed[at : at + len(piece)] = piece
    tried(read, folder / f"bytes{suffix}", bytes(changed))
