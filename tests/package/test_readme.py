"""What the README must show, and the table of special values in docs/numerics.md.

That the code on the pages runs is tested in test_docs.py.
"""

from __future__ import annotations

import runpy

import numpy as np
import pytest
from helpers import ELEMENTWISE
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
