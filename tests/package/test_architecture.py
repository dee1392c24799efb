"""The rules of docs/architecture.md that a program can check: no circles of imports, files of a size."""

from __future__ import annotations

import ast
import io
import re
import shutil
import tokenize
from collections import deque
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "python" / "fastlayer"

Graph = dict[str, dict[str, str]]  # module -> what it imports -> the place of the import


def modules(package: Path) -> dict[str, Path]:
    found = {}
    for file in package.rglob("*.py"):
        parts = file.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imported(node: ast.AST, within: list[str]) -> Iterator[str]:
    """The dotted names that one statement asks for; `within` are the packages around the module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = within[: len(within) - node.level + 1] if node.level else []
        start = ".".join([*base, *([node.module] if node.module else [])])
        yield from (f"{start}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
        argument = node.args[0]
        if isinstance(argument, ast.Constant):
            yield argument.value


@cache
def imports_of(name: str, is_package: bool, source: str) -> list[tuple[str, int]]:
    """The names that a module imports anywhere in it, with their lines."""
    within = name.split(".") if is_package else name.split(".")[:-1]
    nodes = ast.walk(ast.parse(source))
    return [(wanted, node.lineno) for node in nodes for wanted in imported(node, within)]


def graph_of(package: Path) -> Graph:
    """Who imports whom: at the top, in functions, and where only types are checked.

    Of a submodule, Python imports the package too; that counts only where the package itself or
    something that it defines is asked for.
    """
    files = modules(package)
    graph: Graph = {}
    for name, file in files.items():
        edges = graph[name] = {}
        found = imports_of(name, file.name == "__init__.py", file.read_text("utf-8"))
        for wanted, line in found:
            target = wanted if wanted in files else wanted.rpartition(".")[0]
            if target in files and wanted != f"{package.name}._core":
                edges.setdefault(target, f"{file.relative_to(package).as_posix()}:{line}")
    return graph


def way(graph: Graph, start: str, end: str) -> list[str]:
    """The shortest way from `start` to `end`, both among it; empty if there is none."""
    before = {start: ""}
    waiting = deque([start])
    while waiting:
        at = waiting.popleft()
        if at == end:
            found = [at]
            while before[found[-1]]:
                found.append(before[found[-1]])
            return found[::-1]
        for target in graph[at]:
            if target not in before:
                before[target] = at
                waiting.append(target)
    return []


def circles(graph: Graph) -> list[str]:
    """A shortest circle through each import that is part of one, each once, spelled out."""
    found: dict[frozenset[str], str] = {}
    for start, edges in graph.items():
        for target in edges:
            around = way(graph, target, start)
            if around:
                steps = zip([start, *around], around, strict=False)
                text = "".join(f"{a} ({graph[a][b]}) -> " for a, b in steps)
                found.setdefault(frozenset(around), text + start)
    return sorted(found.values(), key=len)


def test_there_are_no_circles_of_imports():
    found = circles(graph_of(PACKAGE))
    assert not found, f"{len(found)} circles, the shortest first:\n" + "\n".join(found)


# From the ground floor up, as docs/architecture.md has it; a name stands for what is under it too, and
# none for `fastlayer` itself, which the commands use as anybody does.
ORDER = [
    *("_neighbour", "errors", "names", "frames", "arrays", "threads", "config", "run"),
    *("files", "functions"),
    *(
        "report",
        "train",
        "network",
        "files.load",
        "convert",
        "dask",
        "sklearn",
        "",
        "cli",
        "__main__",
        "_command",
    ),
]
# Those that point up all the same, and why.
UPWARD = {
    (
        "fastlayer",
        "fastlayer.cli.environment",
    ): "python -m fastlayer imports the package first, and "
    "tells in one line what is wrong with the environment",
}


def floor(module: str) -> int:
    name = module.partition(".")[2]
    while name not in ORDER:
        name = name.rpartition(".")[0]
    return ORDER.index(name)


def test_arrows_point_down():
    up = [
        f"{module} ({place}) -> {target}"
        for module, edges in graph_of(PACKAGE).items()
        for target, place in edges.items()
        if floor(target) > floor(module) and (module, target) not in UPWARD
    ]
    assert not up, "\n".join(up)


def test_the_graph_has_what_is_known_of_it():
    graph = graph_of(PACKAGE)
    assert len(graph) > 30
    assert {"fastlayer.errors", "fastlayer.network.layer"} <= graph["fastlayer"].keys()
    assert "fastlayer" not in graph["fastlayer.threads"]  # which imports _core of it


@pytest.mark.parametrize(
    "put_in",
    [
        "import fastlayer.network.layer",
        "def late():\n    from fastlayer.network import layer",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from fastlayer.network.layer import Layer",
        "def late():\n    from .network import layer",
        "import fastlayer as fl",
        "from fastlayer import Layer",
        "from importlib import import_module\nimport_module('fastlayer.network.layer')",
    ],
)
def test_a_circle_is_found(tmp_path, put_in):
    copy = tmp_path / "fastlayer"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.so", "data"))
    with (copy / "errors.py").open("a") as file:
        file.write(f"\n\n{put_in}\n")
    assert any("fastlayer.errors (errors.py:" in text for text in circles(graph_of(copy)))


# --- sizes

# What may be larger than the rest, and why.
LARGE = {
    "python/fastlayer/network/layer.py": "the class Layer, whole",
    "python/fastlayer/network/network.py": "the class Network, whole",
    "python/fastlayer/train/trainer.py": "the class Trainer, whole",
}


def python_lines(source: str) -> int:
    """Lines with code: without docstrings, comments and empty ones."""
    described = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, described) and ast.get_docstring(node, clean=False) is not None:
            text = node.body[0]
            docstrings.update(range(text.lineno, text.end_lineno + 1))
    nothing = {
        *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE),
        *(tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),
    }
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in nothing:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def cpp_lines(source: str) -> int:
    """Lines with code: without comments and empty ones."""
    text = r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\''
    code = re.sub(
        rf"({text})|//[^\n]*|/\*.*?\*/",
        lambda m: m[1] or re.sub(r"[^\n]", "", m[0]),
        source,
        flags=re.DOTALL,
    )
    return sum(bool(line.strip()) for line in code.splitlines())


@pytest.mark.parametrize(
    ("folder", "endings", "count", "limit"),
    [
        ("cpp", (".cpp", ".hpp"), cpp_lines, 400),
        ("python", (".py", ".pyi"), python_lines, 300),
    ],
)
def test_files_stay_readable(folder, endings, count, limit):
    """A reason to look, never a reason to cut: a class stays whole."""
    files = [f for f in (ROOT / folder).rglob("*") if f.suffix in endings]
    assert len(files) > 20
    lines = {str(f.relative_to(ROOT)): count(f.read_text("utf-8")) for f in files}
    assert not {name: n for name, n in lines.items() if n > limit and name not in LARGE}


def test_only_code_counts():
    python = '"""Doc.\n\nMore.\n"""\n\n# why\nx = """a\nb"""  # here\n\ndef f():\n    """Doc."""\n'
    assert python_lines(python) == 3
    cpp = '// why\n#include "a"\n\n/* one\n two */ int f() {\n  return "//"[0]; // here\n}\n'
    assert cpp_lines(cpp) == 4
