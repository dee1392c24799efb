"""What mypy and pyright, both strict, say of the examples of the pages and of public_api.py."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from pages import PAGES, ROOT, blocks_of, sections

import fastlayer as fl
from fastlayer import names
from fastlayer.functions import activation
from fastlayer.network.initializers import INITIALIZERS
from fastlayer.train import loss, optimizers, schedules

PACKAGE = Path(fl.__file__).parent
# Of these each section stands alone.
BY_SECTION = ("converting", "scaling")
# Libraries without types, or with wrong ones: dask's. All that comes of them is Any to both checkers.
UNTYPED = "dask|keras|matplotlib|onnxruntime|pandas|pyspark|ray|skl2onnx|sklearn"
# PyTorch has types, but not for all functions and parameters.
TORCH = "untyped_calls_exclude = torch\n"
PARTLY = "# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false"
ANYTHING = "from typing import Any\n\ndef __getattr__(name: str) -> Any: ...\n"


def scripts():
    """The blocks of each page or section, joined, and the programs of the gallery.

    A block that begins with `# name.py` is that file.
    """
    gallery = (ROOT / "docs" / "gallery").glob("*.py")
    found = {f"gallery_{file.name}": file.read_text("utf-8") for file in gallery}
    for page in PAGES:
        text = page.read_text("utf-8")
        parts = sections(page) if page.stem in BY_SECTION else {"": text}
        for heading, part in parts.items():
            name = re.sub(r"\W+", "_", f"{page.stem} {heading}".lower()).strip("_") + ".py"
            for block in blocks_of(part):
                if block.language == "python":
                    own = re.match(r"# (\w+\.py)\n", block.code)
                    key = own[1] if own else name
                    found[key] = f"{found[key]}\n\n{block.code}" if key in found else block.code
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The examples as files, and the settings of both checkers."""
    folder = tmp_path_factory.mktemp("pages")
    stubs = folder / "stubs"
    for name, code in scripts().items():
        known = re.search(r"^(import|from) torch\b", code, re.MULTILINE) is None
        (folder / name).write_text(code if known else f"{PARTLY}\n{code}", "utf-8")
        for module in re.findall(
            rf"^ *(?:import|from) ((?:{UNTYPED})\b[\w.]*)", code, re.MULTILINE
        ):
            at = stubs
            for part in module.split("."):
                at /= part
                at.mkdir(parents=True, exist_ok=True)
                (at / "__init__.pyi").write_text(ANYTHING, "utf-8")
    paths = [stubs]
    source = Path(fl.__file__).parents[1]
    if source.name not in ("site-packages", "dist-packages"):
        paths.append(source)
    listed = os.pathsep.join(map(str, paths))
    (folder / "mypy.ini").write_text(
        f"[mypy]\nstrict = True\nmypy_path = {listed}\n{TORCH}", "utf-8"
    )
    settings = {
        "typeCheckingMode": "strict",
        "include": [str(folder / "*.py")],
        "stubPath": str(stubs),
        "extraPaths": list(map(str, paths)),
        "reportMissingModuleSource": False,  # of the stubs
        "reportConstantRedefinition": False,  # X and W are arrays
        "reportDuplicateImport": False,  # each block imports what it needs
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings), "utf-8")
    return folder


def run(*command):
    """Return what a module printed."""
    arguments = [sys.executable, "-m", *map(str, command)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    return done.stdout


def pyright(settings):
    """Return the errors that pyright finds."""
    told = json.loads(
        run("basedpyright", "--pythonpath", sys.executable, "--project", settings, "--outputjson")
    )
    assert told["summary"]["filesAnalyzed"]
    return [
        f"{Path(e['file']).name}:{e['range']['start']['line'] + 1}: {e['message']}"
        for e in told["generalDiagnostics"]
        if e["severity"] == "error"
    ]


def test_mypy_has_nothing_to_say_of_the_pages(folder):
    pytest.importorskip("mypy")
    settings = "--config-file", folder / "mypy.ini", "--cache-dir", folder / "cache"
    told = run("mypy", *settings, *sorted(folder.glob("*.py")))
    assert re.match(r"Success: no issues found in \d+ source files\n$", told), told


def test_pyright_has_nothing_to_say_of_the_pages(folder):
    pytest.importorskip("basedpyright")
    found = pyright(folder / "pyrightconfig.json")
    assert not found, "\n".join(found)


def test_pyright_finds_the_mistakes_that_mypy_finds(folder):
    """A `type: ignore` without an error is one; `mypy --strict tests/typing` is a step of .ci/run."""
    pytest.importorskip("basedpyright")
    settings = json.loads((folder / "pyrightconfig.json").read_text("utf-8"))
    settings["include"] = [str(ROOT / "tests" / "typing")]
    settings["reportUnnecessaryTypeIgnoreComment"] = True
    (folder / "users.json").write_text(json.dumps(settings), "utf-8")
    found = pyright(folder / "users.json")
    assert not found, "\n".join(found)


def test_pyright_knows_all_public_types(monkeypatch):
    """But for what estimators have of scikit-learn: of everything else each member has its type."""
    pytest.importorskip("basedpyright")
    monkeypatch.setenv("PYTHONPATH", str(Path(fl.__file__).parents[1]))
    told = run(
        *("basedpyright", "--pythonpath", sys.executable, "--outputjson"),
        *("--verifytypes", "fastlayer", "--ignoreexternal"),
    )
    symbols = json.loads(told)["typeCompleteness"]["symbols"]
    own = {"Module", "Chain", "Branches", *fl.__all__, *fl._LAZY}  # and the bases of what is public
    public = [
        s
        for s in symbols
        if own & set(s["name"].split(".")[-2:]) and ".tape." not in s["name"]  # has a Slice, too
    ]
    assert len(public) > 300
    unknown = [s["name"] for s in public if not s["isTypeKnown"] or s["isTypeAmbiguous"]]
    assert not unknown


def test_names_are_those_of_the_tables():
    known = {name for name in activation._RESOLVED if isinstance(name, str)}
    assert set(get_args(names.ActivationName)) == known
    assert set(activation._KINDS) - known == {"prelu"}  # which has no slopes as a name alone
    assert set(get_args(names.InitializerName)) == set(INITIALIZERS)
    assert set(get_args(names.LossName)) == set(loss._KINDS)
    assert set(get_args(names.OptimizerName)) == set(optimizers._BY_NAME)
    assert set(get_args(names.ScheduleName)) == set(schedules._KINDS)


def test_layouts_are_those_that_are_known():
    for layout in get_args(names.Layout):
        fl.Layer.from_arrays(np.ones((2, 2)), layout=layout)
    with pytest.raises(
        ValueError, match=" or ".join(rf"'{n}' for .*" for n in get_args(names.Layout))
    ):
        fl.Layer.from_arrays(np.ones((2, 2)), layout="neither")


@pytest.mark.parametrize("kind", ["Classifier", "Regressor"])
def test_names_of_the_estimators_are_what_they_check(kind):
    pytest.importorskip("sklearn")
    estimators = import_module("fastlayer.sklearn")
    estimator = getattr(estimators, f"MLP{kind}")
    source = ast.parse((PACKAGE / "sklearn" / "signatures.py").read_text("utf-8"))
    said = {
        node.target.id: {n.value for n in ast.walk(node.value) if isinstance(n, ast.Constant)}
        for node in ast.walk(source)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    constraints = estimator._parameter_constraints
    for parameter, alias in (
        ("solver", "Solver"),
        ("learning_rate", "LearningRate"),
        ("loss", f"{kind}Loss"),
    ):
        assert said[alias] == constraints[parameter][0].options
    assert set(get_args(names.ActivationName)) == constraints["activation"][0].options
