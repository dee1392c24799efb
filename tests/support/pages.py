"""The pages of the documentation as tests see them: their blocks of code, in order."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
if len(PAGES) == 2:
    pytest.skip("the pages are not here: tests apart from the checkout", allow_module_level=True)


class Block(NamedTuple):
    language: str  # what stands behind the fence
    code: str


def blocks_of(text: str) -> list[Block]:
    found = re.findall(r"^ *```([^\n]*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [Block(*pair) for pair in found]


def blocks(page: Path, language: str) -> list[str]:
    return [b.code for b in blocks_of(page.read_text("utf-8")) if b.language == language]


def commands(code: str) -> list[str]:
    """The lines of a shell block, without comments; a backslash joins two."""
    code = code.replace("\\\n", "")
    lines = (re.sub(r"(^|\s+)#.*", "", line).strip() for line in code.splitlines())
    return [line for line in lines if line]


# Commands that no page runs by itself, and who does, or why nobody.
ELSEWHERE = {
    r"pip (un)?install ": "changes the environment; .ci/run installs the package and the tools",
    r"(pytest|ctest|cmake|ruff|mypy|sphinx-build|codespell|validate-pyproject)\b": "see .ci/run",
    r"find cpp .*clang-format|FASTLAYER_ISA=\w+ pytest|\.ci/run": "see .ci/run",
    r"\.ci/(sanitize|emulate(-s390x)?) ": "see .ci/run, which has them take a part of the tests",
    r"HYPOTHESIS_PROFILE=long |build/tests/cpp/tests/fastlayer_tests guards ": "a long run; see .ci/run",
    r"python tests/(mutation/run|fuzz/fuzz).py ": "see .ci/run",
    r"tests/mutation/coverage.sh ": "the whole suite twice, minutes",
    r"git (tag|push) ": "makes a release",
    r"pre-commit ": "makes environments from the network; .ci/run has the same checks",
    r"gunicorn ": "test_server.py",
    r"python -m fastlayer demo": "test_demo.py",
    r"python bench/": "measures for minutes, beside libraries that the tests do without",
    r"build/tests/cpp/tests/fastlayer_tests golden ": "writes the file that the C++ tests read",
}


def run_python(code: str, names: dict[str, object], file: Path) -> dict[str, object]:
    file.write_text(code, "utf-8")
    return runpy.run_path(str(file), names)


def run_command(command: str, folder: Path) -> None:
    if any(re.match(pattern, command) for pattern in ELSEWHERE):
        return
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    environment = {**os.environ, "PATH": path, "TERM": "dumb", "COLUMNS": "80"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def run(text: str, name: str, folder: Path) -> None:
    """Every block, each seeing the names and files of those before it.

    A block that begins with `# name.py` is that file.
    """
    names: dict[str, object] = {}
    for i, block in enumerate(blocks_of(text)):
        if block.language == "python":
            own = re.match(r"# (\w+\.py)\n", block.code)
            if own:
                (folder / own[1]).write_text(block.code, "utf-8")
            else:
                names = run_python(block.code, names, folder / f"{name}_{i + 1}.py")
        elif block.language == "sh":
            for command in commands(block.code):
                run_command(command, folder)


def sections(page: Path) -> dict[str, str]:
    """The sections of a page that have examples, by heading."""
    parts = re.split(r"^## (.*)\n", page.read_text("utf-8"), flags=re.MULTILINE)[1:]
    return {h: text for h, text in zip(parts[::2], parts[1::2], strict=True) if "```" in text}
