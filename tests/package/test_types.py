"""What mypy and pyright, both strict, say of the examples of the pages and of public_api.py."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import pytest
from pages import PAGES, ROOT, blocks_of, sections

import fastlayer as fl
from fastlayer import names
from fastlayer.functions import activation
from fastlayer.network.initializers import INITIALIZERS
from fastlayer.train import loss, optimizers, schedules

# Of these each section stands alone.
BY_SECTION = ("converting", "scaling")
# Libraries without types, or with wrong ones: dask's. All that comes of them is Any to both checkers.
UNTYPED = "dask|keras|onnxruntime|pandas|pyspark|ray|skl2onnx|sklearn"
# PyTorch has types, but for some functions and parameters.
TORCH = "untyped_calls_exclude = torch\n"
PARTLY = "# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false"
ANYTHING = "from typing import Any\n\ndef __getattr__(name: str) -> Any: ...\n"


def scripts() -> dict[str, str]:
    """The blocks of each page or section, joined; a block that begins with `# name.py` is that file."""
    found: dict[str, str] = {}
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
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
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


def run(*command: str | Path) -> str:
    """Return what a module printed."""
    arguments = [sys.executable, "-m", *map(str, command)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    return done.stdout


def pyright(*arguments: str | Path) -> list[str]:
    """Return the errors that pyright finds."""
    told = json.loads(
        run("basedpyright", "--pythonpath", sys.executable, "--outputjson", *arguments)
    )
    assert told["summary"]["filesAnalyzed"]
    return [
        f"{Path(e['file']).name}:{e['range']['start']['line'] + 1}: {e['message']} [{e.get('rule')}]"
        for e in told["generalDiagnostics"]
        if e["severity"] == "error"
    ]


def test_mypy_has_nothing_to_say_of_the_pages(folder: Path) -> None:
    pytest.importorskip("mypy")
    told = run("mypy", "--config-file", folder / "mypy.ini", *sorted(folder.glob("*.py")))
    assert re.match(r"Success: no issues found in \d+ source files\n$", told), told


def test_pyright_has_nothing_to_say_of_the_pages(folder: Path) -> None:
    pytest.importorskip("basedpyright")
    found = pyright("--project", folder)
    assert not found, "\n".join(found)
