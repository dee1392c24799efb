"""The pages keep their word: code and commands run, links lead somewhere, nothing is left out."""

from __future__ import annotations

import os
import re
import shlex

import numpy as np
import pytest
from pages import ELSEWHERE, PAGES, ROOT, blocks, blocks_of, commands, run, run_command, sections

import fastlayer as fl

CONVERTING = ROOT / "docs" / "converting.md"
# These need packages that may be absent: a section at a time.
DEPLOYMENT = ROOT / "docs" / "deployment.md"
FROM_SKLEARN = ROOT / "docs" / "from_sklearn.md"
SCALING = ROOT / "docs" / "scaling.md"  # in test_scaling.py
BY_SECTION = (CONVERTING, DEPLOYMENT, SCALING)
# What the fences of the pages may say. Everything marked python or sh is run.
LANGUAGES = {
    "python",
    "sh",
    "cpp",  # an excerpt of a file, compared with it
    "py",  # the same
    "",  # a picture in letters, or a formula
}


def names(page) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [p for p in PAGES if p not in BY_SECTION], ids=names)
def test_pages_run(page, tmp_path, monkeypatch) -> None:
    if page == FROM_SKLEARN:
        pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    threads = fl.get_num_threads()
    try:
        run(page.read_text("utf-8"), page.stem, tmp_path)
    finally:
        fl.set_num_threads(threads)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("heading", sections(CONVERTING))
def test_converting(heading, tmp_path, monkeypatch) -> None:
    text = sections(CONVERTING)[heading]
    code = "".join(b.code for b in blocks_of(text))
    needed = set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE))
    if ".safetensors" in code:
        needed.add("safetensors")
    if "keras" in needed and "KERAS_BACKEND" not in os.environ:
        monkeypatch.setenv("KERAS_BACKEND", "torch")
    for module in sorted(needed):
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    if ".onnx" in text:
        write_onnx_models()
    run(text, "converting", tmp_path)


GALLERY = sorted((ROOT / "docs" / "gallery").glob("*.py"))


@pytest.mark.parametrize("script", GALLERY, ids=lambda script: script.stem)
def test_gallery(script, tmp_path) -> None:
    text = script.read_text("utf-8")
    for module in re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE):
        pytest.importorskip(module)
    run_command(f"MPLBACKEND=agg python {shlex.quote(str(script))}", tmp_path)


ONNX_MODELS = {
    "model": (
        "(float[N, 4] x) => (float[N, 3] y)",
        "{ h = Gemm(x, a, b) r = Relu(h) z = MatMul(r, c) y = Softmax(z) }",
        {"a": (4, 8), "b": (8,), "c": (8, 3)},
    ),
    "critic": (
        "(float[N, 8] state, float[N, 2] action) => (float[N, 1] q, float[N, 16] h)",
        (
            "{ s = MatMul(state, a) r = Relu(s) x = Concat<axis=1>(r, action) h = MatMul(x, b) "
            "t = Relu(h) q = MatMul(t, c) }"
        ),
        {"a": (8, 32), "b": (34, 16), "c": (16, 1)},
    ),
}


def write_onnx_models() -> None:
    onnx = pytest.importorskip("onnx")
    rng = np.random.default_rng(0)
    for name, (ends, nodes, weights) in ONNX_MODELS.items():
        graph = onnx.parser.parse_graph(f"{name} {ends} {nodes}")
        for weight, shape in weights.items():
            array = rng.normal(size=shape).astype(np.float32)
            graph.initializer.append(onnx.numpy_helper.from_array(array, weight))
        opset = onnx.helper.make_opsetid("", 17)
        model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
        onnx.save(model, f"{name}.onnx")


def test_converting_shows_the_three_lines() -> None:
    examples = "".join(blocks(CONVERTING, "python"))
    for line in ('fl.load("model.onnx")(x)', "fl.from_torch(m)(x)", "fl.from_sklearn(est)(x)"):
        assert line in examples


def test_deployment(tmp_path, monkeypatch) -> None:
    """All but the server, which test_server.py starts."""
    monkeypatch.chdir(tmp_path)
    threads = fl.get_num_threads()
    before, _, _ = DEPLOYMENT.read_text("utf-8").partition("## A server")
    try:
        run(before, "deployment", tmp_path)
    finally:
        fl.set_num_threads(threads)


def test_installation_names_every_extra() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    _, _, section = project.partition("[project.optional-dependencies]\n")
    extras = re.findall(r"^(\w+) = \[", section.partition("\n\n[")[0], re.MULTILINE)
    assert len(extras) > 8
    page = (ROOT / "docs" / "install.md").read_text("utf-8")
    assert [e for e in extras if not re.search(rf"^\|[^|]*`{e}`", page, re.MULTILINE)] == []


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_blocks_are_of_a_known_kind(page) -> None:
    languages = {b.language for b in blocks_of(page.read_text("utf-8"))}
    assert {name for name in languages if not name.startswith("{")} <= LANGUAGES  # { of Sphinx


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_excerpts_are_what_the_files_hold(page) -> None:
    """Each line of an excerpt stands in one of the files that the text before it links to."""
    text = page.read_text("utf-8")
    for match in re.finditer(r"^```(?:cpp|py)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        links = re.findall(r"\]\((\.\./[^)#]+)\)", text[: match.start()])
        assert links, "an excerpt without a file"
        source = (page.parent / links[-1]).read_text("utf-8")
        held = {line.strip() for line in source.splitlines()}
        wanted = [line.strip() for line in match[1].splitlines()]
        assert [line for line in wanted if line not in held and line not in ("", "...")] == []


CONTRIBUTING = ROOT / "docs" / "contributing.md"
FIGURES = {
    f"python docs/images/{name}.py": name for name in ("flow", "critic", "training", "from_sklearn")
}


def table_of_commands() -> list[str]:
    """The commands in the second column of the table in docs/contributing.md, `&&` taken apart."""
    _, _, table = CONTRIBUTING.read_text("utf-8").partition("| to | run |\n")
    rows = re.findall(r"^\| [^|]+ \| `((?:[^`])+)`", table, re.MULTILINE)
    return [c for row in rows for c in row.replace("\\|", "|").split(" && ")]


def test_the_commands_of_the_table_are_run_by_the_ci() -> None:
    commands = table_of_commands()
    assert len(commands) > 15
    unknown = [
        c for c in commands if not any(re.match(p, c) for p in ELSEWHERE) and c not in FIGURES
    ]
    assert not unknown
    script = ROOT / ".ci" / "run"
    if not script.exists():
        pytest.skip("no .ci/run here, as in a source distribution")
    ci = script.read_text("utf-8")
    for tool in ("ruff check", "ruff format", "mypy --strict", "codespell", "validate-pyproject"):
        assert any(c.startswith(tool) for c in commands)
        assert re.search(rf"^ *{tool}", ci, re.MULTILINE)
    for line in ("sphinx-build -W --keep-going", "FASTLAYER_WERROR=ON", "ctest --test-dir"):
        assert any(line in c for c in commands)
        assert line in ci


@pytest.mark.parametrize("command", FIGURES)
def test_a_figure_is_what_its_script_draws(command, tmp_path) -> None:
    images, name = ROOT / "docs" / "images", FIGURES[command]
    assert command in table_of_commands()
    drawn = (images / f"{name}.svg").read_bytes()
    if made := re.search(rb"Matplotlib v([\d.]+)", drawn):
        matplotlib = pytest.importorskip("matplotlib")
        if name == "from_sklearn":
            pytest.importorskip("sklearn")
        if matplotlib.__version__.encode() != made[1]:
            pytest.skip(f"drawn by matplotlib {made[1].decode()}, here is {matplotlib.__version__}")
    for script in ("drawing.py", f"{name}.py"):
        (tmp_path / script).write_bytes((images / script).read_bytes())
    run_command(command.replace("docs/images/", ""), tmp_path)
    assert (tmp_path / f"{name}.svg").read_bytes() == (images / f"{name}.svg").read_bytes()


def test_commands_that_are_run_elsewhere_are_shown_somewhere() -> None:
    shown = [c for page in PAGES for code in blocks(page, "sh") for c in commands(code)]
    shown += table_of_commands()
    used = {p for p in ELSEWHERE for c in shown if re.match(p, c)}
    assert used == set(ELSEWHERE)


def anchors(text: str) -> set[str]:
    """The anchors that Git hosts and MyST give the headings."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_links_lead_to_files(page) -> None:
    text = page.read_text("utf-8")
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    lost = []
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", prose):
        if "://" in target or target.startswith("generated/"):  # which Sphinx makes, and looks at
            continue
        file = page.parent / target if target else page
        if not file.exists() or (
            anchor and file.suffix == ".md" and anchor not in anchors(file.read_text("utf-8"))
        ):
            lost.append(f"{target}#{anchor}")
    assert not lost


def test_every_page_is_in_a_table_of_contents_once() -> None:
    pages = [page for page in PAGES if page.parent.name == "docs"]
    listed = [
        line.partition("<")[2].rstrip(">")
        for page in pages
        for block in blocks_of(page.read_text("utf-8"))
        if block.language == "{toctree}"
        for line in block.code.splitlines()
        if line and not line.startswith(":")
    ]
    assert sorted(listed) == sorted(
        [page.stem for page in pages if page.stem != "index"] + ["generated/gallery/index"]
    )


def test_everything_public_is_in_the_reference() -> None:
    reference = (ROOT / "docs" / "api.md").read_text("utf-8")
    listed = set(re.findall(r"^   (\w+)$", reference, re.MULTILINE))
    assert {name for name in fl.__all__ if name != "__version__"} <= listed


def test_one_place_says_the_version() -> None:
    told = re.findall(
        r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE
    )
    assert told == [fl.__version__]
    number = re.compile(rf"(?<![\d.]){re.escape(fl.__version__)}(?![\d.])")
    sources = [ROOT / "CMakeLists.txt", ROOT / "docs" / "conf.py"]
    for folder, pattern in (("python", "*.py"), ("python", "*.pyi"), ("cpp", "*.[ch]pp")):
        sources += (ROOT / folder).rglob(pattern)
    assert [names(p) for p in sources if number.search(p.read_text("utf-8"))] == []
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    newest = re.search(r"^## \[(?:Unreleased\] - )?([\d.]+)", changelog, re.MULTILINE)
    assert newest is not None
    assert newest[1] == fl.__version__
