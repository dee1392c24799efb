"""What the README must show, and the tables of special values and limits in docs/numerics.md.

That the code on the pages runs is tested in test_docs.py.
"""

from __future__ import annotations

import re
import runpy

import numpy as np
import pytest
from helpers import ELEMENTWISE, SLOPE_LIMITS, SLOPE_ZEROS
from pages import README, ROOT, blocks

import fastlayer as fl


def test_readme_has_an_example_and_the_two_commands() -> None:
    assert blocks(README, "python")
    assert blocks(README, "sh") == [
        "pip install . && python -m fastlayer demo\npip install '.[test]' && pytest\n"
    ]
    assert len(README.read_text("utf-8").splitlines()) < 120


def test_readme_shows_an_error_of_one_line_with_the_shapes(tmp_path, capsys) -> None:
    file = tmp_path / "error.py"
    file.write_text(blocks(README, "python")[-1], "utf-8")
    runpy.run_path(str(file), {"np": np, "fl": fl})
    message = capsys.readouterr().out
    assert message.count("\n") == 1
    assert "(8, 2)" in message or "(8, 4)" in message
    assert "(3,)" in message


NUMERICS = ROOT / "docs" / "numerics.md"


def table(first: str) -> list[list[str]]:
    """Rows of the table in docs/numerics.md whose header begins so."""
    text = NUMERICS.read_text("utf-8")
    lines = text.partition(first)[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]


# Of f and of its derivative: name, then results for -inf, -0.0, 0.0 and inf.
SPECIAL = {"f": table("| function | -inf |"), "f'": table("| derivative of | -inf |")}


@pytest.mark.parametrize("kind", SPECIAL)
def test_every_elementwise_activation_is_in_the_table_of_special_values(kind) -> None:
    assert sorted(row[0] for row in SPECIAL[kind]) == sorted(ELEMENTWISE)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("kind", "row"),
    [(kind, row) for kind, rows in SPECIAL.items() for row in rows],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_special_values_are_as_documented(kind, row, dtype) -> None:
    name, *documented = row
    # Long enough for whole vectors and a tail.
    x = np.array([-np.inf, -0.0, 0.0, np.inf, np.nan] * 9, dtype)
    y = getattr(fl, name)(x) if kind == "f" else fl.activation_backward(1.0, x, name)
    expected = np.array([*map(float, documented), np.nan] * 9, dtype)
    np.testing.assert_allclose(y, expected, rtol=2 * np.finfo(dtype).eps, atol=0)
    zero = expected == 0
    assert np.array_equal(np.signbit(y[zero]), np.signbit(expected[zero]))


def test_the_limits_of_derivatives_are_those_that_the_tests_hold() -> None:
    documented, zeros = {}, {}
    for names, single, double, at_zero in table("| derivative of | float32 |"):
        for name in re.findall(r"\w+", re.sub(r"\(.*?\)", "", names)):
            documented[name] = tuple(0 if v == "exact" else float(v) for v in (single, double))
            if at_zero:
                above, below, place = re.fullmatch(r"(\d+)/(\d+) eps, at (.*)", at_zero).groups()
                zeros[name] = (float(place), int(above) / int(below))
    assert documented.pop("prelu") == documented["leaky_relu"]
    # The tests' limits have 0.01 more where the reference itself is rounded.
    assert documented == {
        name: tuple(0.5 if v == 0.51 else v for v in limits)
        for name, limits in SLOPE_LIMITS.items()
    }
    assert zeros == SLOPE_ZEROS
