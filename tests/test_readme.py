"""The README and the docs keep their word: code runs, links lead somewhere, the commands are there."""

from __future__ import annotations

import os
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from helpers import ELEMENTWISE

import fastlayer as fl

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )


def run(page: Path, folder: Path) -> None:
    """Every block of the page, each seeing the names of those before it."""
    names: dict[str, object] = {}
    for i, block in enumerate(blocks(page, "python")):
        file = folder / f"{page.stem}_{i + 1}.py"
        file.write_text(block, "utf-8")
        names = runpy.run_path(str(file), names)


CONVERTING = ROOT / "docs" / "converting.md"
SCALING = ROOT / "docs" / "scaling.md"  # in test_scaling.py


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page not in (CONVERTING, SCALING)],
    ids=lambda page: page.name,
)
def test_python_blocks_run(page, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(page, tmp_path)


def sections() -> dict[str, str]:
    """The sections of docs/converting.md that have examples, by heading."""
    parts = re.split(r"^## (.*)\n", CONVERTING.read_text("utf-8"), flags=re.MULTILINE)[1:]
    return {h: text for h, text in zip(parts[::2], parts[1::2], strict=True) if "```python" in text}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras
@pytest.mark.parametrize("heading", sections())
def test_converting(heading, tmp_path, monkeypatch) -> None:
    text = sections()[heading]
    code = "".join(re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    needed = set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE))
    if ".safetensors" in code:
        needed.add("safetensors")
    if "keras" in needed and "KERAS_BACKEND" not in os.environ:
        monkeypatch.setenv("KERAS_BACKEND", "torch")
    for module in sorted(needed):
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    if ".onnx" in text:
        write_onnx_model()
    page = tmp_path / "converting.md"
    page.write_text(text, "utf-8")
    run(page, tmp_path)


def write_onnx_model() -> None:
    onnx = pytest.importorskip("onnx")
    rng = np.random.default_rng(0)
    arrays = {
        "w1": rng.normal(size=(4, 8)),
        "b1": rng.normal(size=8),
        "w2": rng.normal(size=(8, 3)),
    }
    graph = onnx.parser.parse_graph(
        "model (float[N, 4] x) => (float[N, 3] y) "
        "{ h = Gemm(x, w1, b1) r = Relu(h) z = MatMul(r, w2) y = Softmax(z) }"
    )
    for name, array in arrays.items():
        graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=10
    )
    onnx.save(model, "model.onnx")


def test_converting_shows_the_three_lines() -> None:
    examples = "".join(blocks(CONVERTING, "python"))
    for line in ('fl.load("model.onnx")(x)', "fl.from_torch(m)(x)", "fl.from_sklearn(est)(x)"):
        assert line in examples


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8"))
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing


def test_readme_has_an_example_and_the_two_commands() -> None:
    readme = ROOT / "README.md"
    assert blocks(readme, "python")
    assert blocks(readme, "sh") == [
        "pip install . && python -m fastlayer demo\npip install '.[test]' && pytest\n"
    ]
    assert len(readme.read_text("utf-8").splitlines()) < 120


def test_readme_shows_an_error_of_one_line_with_the_shapes(tmp_path, capsys) -> None:
    file = tmp_path / "error.py"
    file.write_text(blocks(ROOT / "README.md", "python")[-1], "utf-8")
    runpy.run_path(str(file), {"np": np, "fl": fl})
    message = capsys.readouterr().out
    assert message.count("\n") == 1
    assert "(8, 2)" in message or "(8, 4)" in message
    assert "(3,)" in message


def special_values() -> list[list[str]]:
    """Rows of the table in docs/numerics.md: name, then results for -inf, -0.0, 0.0 and inf."""
    text = (ROOT / "docs" / "numerics.md").read_text("utf-8")
    table = text.partition("| function | -inf |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table]


def test_every_elementwise_activation_is_in_the_table_of_special_values() -> None:
    assert sorted(row[0] for row in special_values()) == sorted(ELEMENTWISE)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("row", special_values(), ids=lambda row: row[0])
def test_special_values_are_as_documented(row, dtype) -> None:
    name, *documented = row
    # Long enough for whole vectors and a tail.
    x = np.array([-np.inf, -0.0, 0.0, np.inf, np.nan] * 9, dtype)
    y = getattr(fl, name)(x)
    expected = np.array([*map(float, documented), np.nan] * 9, dtype)
    np.testing.assert_allclose(y, expected, rtol=2 * np.finfo(dtype).eps, atol=0)
    zero = expected == 0
    assert np.array_equal(np.signbit(y[zero]), np.signbit(expected[zero]))
