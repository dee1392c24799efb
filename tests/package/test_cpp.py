"""The C++ side: flags of every file, the C++ tests through ctest, and what the extension exports."""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import fastlayer
from fastlayer import _core

ROOT = pathlib.Path(__file__).parents[2]


def run(*command, cwd=None):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    for program in ("cmake", "ctest", "ninja"):
        assert shutil.which(program), f"{program} is missing: pip install '.[test]'"
    folder = tmp_path_factory.mktemp("cpp")
    options = [f"-DFASTLAYER_{name}" for name in ("PYTHON=OFF", "BUILD_TESTS=ON", "WERROR=ON")]
    run("cmake", "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", *options)
    run("cmake", "--build", str(folder))
    return folder


def test_ctest(build):
    report = run("ctest", "--output-on-failure", "--no-tests=error", cwd=build)
    assert "100% tests passed" in report
    assert "symbol_gate" in report


def test_no_file_is_compiled_with_fast_math(build):
    commands = json.loads((build / "compile_commands.json").read_text())
    assert len(commands) > 10
    for entry in commands:
        flags = entry["command"].split()
        # The last -O and -ffp-contract count; -Ofast is fast-math under another name.
        assert "-ffp-contract=off" in flags, entry["file"]
        assert not {
            flag
            for flag in flags
            if re.match(r"-Ofast|-ffast-math|-funsafe|-fassoc|-freciprocal|-ffinite|-march=", flag)
        }, entry["file"]


def test_nothing_linked_sets_flush_to_zero(build):
    symbols = run("nm", "-C", str(build / "cpp/tests/fastlayer_tests"))
    assert "test_dense" in symbols
    assert "set_fast_math" not in symbols


def test_import_keeps_subnormals():
    code = (
        "import numpy as np, threading\n"
        "import fastlayer\n"
        "def check(): assert np.float32(1e-40) * np.float32(1) != 0\n"
        "check()\n"
        "thread = threading.Thread(target=check); thread.start(); thread.join()\n"
    )
    run(sys.executable, "-W", "error", "-c", code)


@pytest.mark.skipif(sys.platform != "linux", reason="nm -D is Linux's")
def test_the_extension_exports_its_init_function_alone():
    lines = run("nm", "-D", "--defined-only", _core.__file__).splitlines()
    assert [line.split()[-1] for line in lines] == ["PyInit__core"]


def test_one_version():
    from importlib.metadata import version

    text = (ROOT / "pyproject.toml").read_text()
    declared = re.search(r'^version = "(.+)"$', text, re.MULTILINE)[1]
    assert fastlayer.__version__ == declared == version("fastlayer-nn") == _core.config()["version"]
