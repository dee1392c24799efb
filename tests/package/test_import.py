"""What `import fastlayer` loads: itself and NumPy; converters and their frameworks when asked for."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

import fastlayer as fl
from fastlayer.cli.main import main

FRAMEWORKS = (
    *("torch", "keras", "tensorflow", "jax", "sklearn", "scipy", "onnx", "onnxruntime", "h5py"),
    *("safetensors", "pandas", "tqdm", "mpmath", "dask", "matplotlib"),
)
SLOW = ("zipfile", "json", "difflib", "ctypes.util", "inspect", "pickle", "tempfile", "asyncio")
CONVERTERS = (
    "accelerate",
    "from_keras",
    "from_onnx",
    "from_sklearn",
    "from_state_dict",
    "from_torch",
)


def modules_after(code: str, before: str = "import numpy") -> set[str]:
    """The names of the modules that `code` loads in a process of its own, `before` not counted."""
    script = (
        f"import sys\n{before}\nold = set(sys.modules)\n{code}\n"
        "print(*sorted(set(sys.modules) - old), sep='\\n')"
    )
    run = [sys.executable, "-c", script]
    return set(subprocess.run(run, capture_output=True, text=True, check=True).stdout.split())


def test_import_loads_no_framework_and_no_converter():
    loaded = modules_after("import fastlayer")
    assert "fastlayer.network.network" in loaded
    assert not {m for m in loaded if m.split(".")[0] in FRAMEWORKS}
    assert not loaded & set(SLOW)
    converters = {m for m in loaded if m.startswith("fastlayer.convert.")}
    assert not converters


def test_converters_load_no_framework():
    code = "import fastlayer as fl\n" + "\n".join(f"fl.{name}" for name in CONVERTERS)
    loaded = modules_after(code)
    assert {f"fastlayer.convert.{m}" for m in ("torch", "keras", "sklearn", "onnx")} <= loaded
    assert not {m for m in loaded if m.split(".")[0] in FRAMEWORKS}


@pytest.mark.parametrize("name", CONVERTERS)
def test_converters_are_part_of_the_package(name):
    assert name in fl.__all__
    assert name in dir(fl)
    assert getattr(fl, name).__module__ == "fastlayer"
    assert getattr(fl, name) is getattr(fl, name)
    assert getattr(fl, name).__doc__


def test_the_command_line_imported_runs_nothing(capfd):
    assert import_module("fastlayer.__main__").main is main
    assert capfd.readouterr() == ("", "")


def test_everything_listed_is_there():
    assert not [name for name in fl.__all__ if not hasattr(fl, name)]
    with pytest.raises(AttributeError, match="no attribute 'from_tourch'"):
        fl.from_tourch  # noqa: B018


def test_conversion_error_is_a_value_error_that_pickles():
    import pickle

    error = pickle.loads(pickle.dumps(fl.ConversionError("layer 3 (keras LSTM)", "no loops")))
    assert isinstance(error, ValueError)
    assert (error.place, error.why) == ("layer 3 (keras LSTM)", "no loops")
    assert str(error) == "layer 3 (keras LSTM): no loops"
