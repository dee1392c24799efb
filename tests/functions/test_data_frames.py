"""Tables as arguments: columns of numbers and bools that have no common type in the table."""

import numpy as np
import pytest
from helpers import assert_same_bits

import fastlayer as fl

COLUMNS = {
    "whole": [1, -2, 3],
    "real": [0.5, 2.25, -1.0],
    "flag": [True, False, True],
    "short": np.array([1.5, 2.5, -3.5], np.float32),
}
PLAIN = np.stack([np.asarray(c, np.float64) for c in COLUMNS.values()], axis=1)


def pandas():
    return pytest.importorskip("pandas").DataFrame(COLUMNS)


def nullable():
    return pandas().convert_dtypes()


def names_twice():
    return pandas().set_axis(["a", "a", "b", "b"], axis=1)


def objects():
    return pandas().astype(object)


def polars():
    return pytest.importorskip("polars").DataFrame(COLUMNS)


def another():
    """A table of a library that NumPy doesn't know, and which offers arrays."""

    class Table:
        column_names = tuple(COLUMNS)

        def to_numpy(self):
            return PLAIN.copy()

    return Table()


def arrow():
    return pytest.importorskip("pyarrow").table(COLUMNS)


@pytest.fixture(params=[pandas, nullable, names_twice, objects, polars, another, arrow])
def table(request):
    return request.param()


def test_a_table_is_its_columns(table):
    layer = fl.Layer(4, 3, "tanh", rng=0, dtype=np.float64)
    assert_same_bits(layer(table), layer(PLAIN))
    assert_same_bits(fl.relu(table), np.maximum(PLAIN, 0))


def test_what_is_missing_is_nan():
    frame = nullable()
    frame.iloc[1] = None
    y = fl.Layer(4, 1, rng=0, dtype=np.float64)(frame)
    assert list(np.isnan(y[:, 0])) == [False, True, False]


@pytest.mark.parametrize("values", [["a", "b", "c"], ["1", "2", "3"], [None, 1, "x"]])
def test_text_is_refused(values):
    with pytest.raises(TypeError, match="x has dtype object"):
        fl.relu(pandas().assign(text=values))
