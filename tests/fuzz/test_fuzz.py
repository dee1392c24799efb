"""The fuzz harness: sound files and changes to them pass, and what no reader may do is found."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from own_process import finish

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="what a reader may take is limited by means of Linux"
)
FUZZ = Path(__file__).with_name("fuzz.py")
NEEDS = {
    "safetensors": "safetensors",
    **dict.fromkeys(("keras", "config", "h5", "weights"), "h5py"),
    "onnx": "onnx",
}
NAMES = (
    "npz", "document", "safetensors", "pt", "pickle", "legacy", "torchscript", "sb3", "keras", "config",
    "h5", "weights", "onnx",
)  # fmt: skip
# Seeds that no door takes: they are there for the operations in them.
STRANGERS = {"object", "frames"}


def fuzz(*arguments):
    command = [sys.executable, str(FUZZ), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", NAMES)
def test_the_corpus_and_changes_to_it(name):
    pytest.importorskip(NEEDS.get(name, "numpy"))
    done = fuzz("replay", name)
    assert done.returncode == 0, done.stderr[-3000:]
    *strangers, last = done.stdout.splitlines()
    assert {re.match(r"\('(\w+)'", line)[1] for line in strangers} <= STRANGERS
    tried, models = map(int, re.fullmatch(rf"{name}: (\d+) tried, (\d+) are models", last).groups())
    assert tried > 200
    assert models > 0


def test_every_reader_is_tried():
    assert f"of {', '.join(NAMES)}" in " ".join(fuzz("--help").stdout.split())


# What a reader of .npz files does when it gets a member, in place of finding it; and what is said.
FAULTS = {
    "an error of another kind": ("raise KeyError(name)", "KeyError: "),
    "a warning": ("import warnings; warnings.warn('odd')", "UserWarning: odd"),
    "an error of another file": (
        "from fastlayer import ModelFileError; raise ModelFileError('x', 'y', 'z')",
        "names another file",
    ),
    "a long message": (
        "from fastlayer.errors import Damaged; raise Damaged(name, 'x' * 5000)",
        "a message of 5",
    ),
    "code": ("eval('1 + 1')", "the reader did compile"),
    "another file": ("open('/etc/hostname', 'rb')", "the reader did open"),
    "an import": ("import wave", "the reader did import"),
    "a caught breach": (
        "try:\n        import wave\n    except BaseException:\n        pass",
        "the reader did import",
    ),
    "memory": ("bytes(70 << 20)", "MemoryError"),
    "a crash": ("import os; os.abort()", ""),
}
PLANT = """
import sys

sys.path.insert(0, {folder!r})
import fuzz
import judge
from fastlayer.files import npz

find, armed = npz._find, False


def faulty(archive, name):
    if not armed:
        return find(archive, name)
    {fault}
    return find(archive, name)


def attempt(self, data, original=judge.Judge.attempt):
    global armed
    armed = True
    return original(self, data)


npz._find, judge.Judge.attempt = faulty, attempt
{more}
fuzz.main({arguments!r})
"""


def planted(fault, *arguments, more=""):
    folder = str(FUZZ.parent)
    return finish(PLANT.format(folder=folder, fault=fault, more=more, arguments=[*arguments]))


def test_nothing_is_found_where_nothing_is_planted():
    assert planted("pass", "replay", "npz", "--changes", "0").returncode == 0


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_found(name):
    fault, said = FAULTS[name]
    done = planted(fault, "replay", "npz", "--changes", "0")
    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("judge.SECONDS = -1", "processor time"),
        (
            "write = npz.write; npz.write = lambda f, t, a: write(f, t, {n: 2 * v for n, v in a.items()})",
            "elements differ",
        ),
        (
            "import fastlayer as fl; fl.Network.__call__ = lambda self, x, *more: x[:1]",
            "a result of shape",
        ),
    ],
    ids=["time", "saved otherwise", "no result"],
)
def test_networks_and_limits_are_judged(more, said):
    done = planted("pass", "replay", "npz", "--changes", "0", more=more)
    assert done.returncode != 0
    assert said in done.stderr


UNCHECKED = """
import sys

sys.path.insert(0, {folder!r})
import atheris
import fuzz

setup = atheris.Setup


def part(self, spec, key):
    kind = self.field(spec, "type", str, key)
    return self._table[kind]._outline(spec, key, self)


def planting(*arguments, **options):  # when everything is there, and tells what it runs
    from fastlayer.files.document import Reader

    Reader.part = part
    return setup(*arguments, **options)


atheris.Setup = planting
fuzz.main({arguments!r})
"""


def test_coverage_leads_to_a_planted_fault(tmp_path):
    """Which is found, written to a file, and no fault of the reader as it is."""
    pytest.importorskip("atheris")
    options = ["-runs=20000", "-seed=1", f"-artifact_prefix={tmp_path}/"]
    arguments = ["one", "document", *options]
    done = finish(UNCHECKED.format(folder=str(FUZZ.parent), arguments=arguments))
    assert done.returncode != 0
    assert "KeyError" in done.stdout
    (found,) = tmp_path.glob("crash-*")
    assert fuzz("replay", "document", found).returncode == 0


def test_runs_of_several_readers(tmp_path):
    pytest.importorskip("atheris")
    done = fuzz("run", "npz", "legacy", "--runs", "400", "--folder", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    total = re.search(
        r"^(\d+) runs without a finding; 0 readers with one", done.stdout, re.MULTILINE
    )
    assert int(total[1]) >= 400
    assert any((tmp_path / "npz").iterdir())
