"""Tables as arguments: columns of numbers and bools that have no common type in the table."""

import datetime
import decimal

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


def arrow_backed():
    pytest.importorskip("pyarrow")
    return pandas().convert_dtypes(dtype_backend="pyarrow")


@pytest.mark.parametrize("missing", [1, True])
@pytest.mark.parametrize("make", [nullable, arrow_backed, polars, arrow])
def test_what_is_missing_is_nan_in_every_kind_of_table(make, missing):
    """In a column of bools too, which has no NaN of its own."""
    column, table = [missing, None, missing], make()
    whole = [name for name in COLUMNS if name != "flag"]
    if hasattr(table, "iloc"):
        kinds = ("Int64", "boolean") if make is nullable else ("int64[pyarrow]", "bool[pyarrow]")
        dtype = kinds[missing is True]
        table["flag"] = pytest.importorskip("pandas").array(column, dtype)
        series = table["flag"]
    elif hasattr(table, "get_columns"):
        series = pytest.importorskip("polars").Series("flag", column)
        table = table.with_columns(series)
    else:
        series = pytest.importorskip("pyarrow").chunked_array([column])
        table = table.set_column(table.column_names.index("flag"), "flag", series)
    y = fl.relu(table)
    assert np.isnan(y).tolist() == [
        [False] * 4,
        [name not in whole for name in COLUMNS],
        [False] * 4,
    ]
    alone = fl.relu(series)
    assert alone[0] == alone[2] == 1
    assert np.isnan(alone[1])


def one_more(library, values, dtype=None):
    """A table of numbers and this column beside them."""
    module = pytest.importorskip(library)
    if library == "pandas":
        return module.DataFrame({"age": [1, 2], "city": module.Series(values, dtype=dtype)})
    if library == "polars":
        return module.DataFrame(
            [module.Series("age", [1, 2]), module.Series("city", values, dtype)]
        )
    return module.table({"age": [1, 2], "city": module.array(values, dtype)})


DAYS = [datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)]
REFUSED = [
    ("pandas", ["Rome", "Oslo"], "dtype (str|object), 'Rome' in row 0;.*leave it out"),
    ("pandas", [3, "Oslo"], "dtype object, 'Oslo' in row 1;"),
    ("pandas", [None, "Oslo"], ".*'Oslo' in row 1;"),
    ("pandas", np.array([3, None], object), "dtype object, None in row 1;.*fill what is missing"),
    ("pandas", np.array(DAYS, "datetime64[s]"), r"dtype datetime64\[s\], Timestamp"),
    ("pandas", np.array([1j, 2]), "dtype complex128, 1j in row 0"),
    ("polars", ["Rome", "Oslo"], "dtype String, 'Rome' in row 0"),
    ("polars", DAYS, "dtype Date, datetime.date"),
    ("polars", [[1], [2]], "dtype List.Int64., .1. in row 0"),
    ("polars", [decimal.Decimal(1), None], "dtype Decimal"),
    ("pyarrow", ["Rome", "Oslo"], "dtype string, 'Rome' in row 0"),
    ("pyarrow", DAYS, "dtype date32.day., datetime.date"),
]  # fmt: skip


@pytest.mark.parametrize(("library", "values", "words"), REFUSED)
def test_what_is_no_number_is_named_with_its_column(library, values, words):
    """Dates too, which polars would give as numbers of days."""
    table = one_more(library, values)
    for call in (fl.relu, fl.Layer(2, 1, rng=0), fl.Network([fl.Layer(2, 1, rng=0)]).predict):
        with pytest.raises(TypeError, match=f"^x: the column 'city' has {words}"):
            call(table)


def test_the_argument_is_named_too():
    frame = one_more("pandas", ["Rome", "Oslo"])
    with pytest.raises(TypeError, match=r"^weight: the column 'city' has dtype"):
        fl.linear(np.ones((1, 2)), frame)


def test_a_lazy_frame_is_computed_first():
    lazy = polars().lazy()
    with pytest.raises(
        TypeError, match=r"x is a LazyFrame, which is not computed yet: call its coll"
    ):
        fl.relu(lazy)


def test_float32_stays_float32():
    plain = np.array([[1.5, 2.0], [0.1, -1.0]], np.float32)
    columns = dict(zip("ab", plain.T, strict=True))
    for library in ("pandas", "polars", "pyarrow"):
        module = pytest.importorskip(library)
        table = (module.table if library == "pyarrow" else module.DataFrame)(columns)
        assert fl.relu(table).dtype == np.float32


def test_tables_without_rows_or_columns():
    layer = fl.Layer(2, 3, rng=0)
    for library in ("pandas", "polars", "pyarrow"):
        table = one_more(library, [1.0, 2.0])
        assert layer(table[:0]).shape == (0, 3)
        nothing = table.select([]) if library != "pandas" else table[[]]
        with pytest.raises(ValueError, match=r"expected x of shape \(..., 2\)"):
            layer(nothing)


# --- results as tables

NET = fl.Network([fl.Layer(4, 3, "softmax", rng=0)])


@pytest.mark.parametrize("make", [pandas, nullable, polars, arrow])
def test_a_table_in_and_a_table_out(make):
    table = make()
    found = NET.predict(table, as_frame=True)
    assert type(found) is type(table)
    assert_same_bits(np.stack([np.asarray(c) for c in columns_of(found)], axis=1), NET(table))
    names = [*found.columns] if hasattr(found, "iloc") else names_of(found)
    assert names == ([0, 1, 2] if hasattr(found, "iloc") else ["column_0", "column_1", "column_2"])


def columns_of(table):
    if hasattr(table, "iloc"):
        return [table.iloc[:, i] for i in range(table.shape[1])]
    return table.get_columns() if hasattr(table, "get_columns") else table.columns


def names_of(table):
    return list(getattr(table, "column_names", None) or table.columns)


def test_the_index_is_kept():
    index = pytest.importorskip("pandas").MultiIndex.from_tuples(
        [("a", 3), ("b", 1), ("a", 2)], names=["where", "when"]
    )
    table = pandas().set_index(index)
    found = NET.predict(table, as_frame=True, batch_size=2)
    assert found.index.equals(index)
    assert found.index.names == ["where", "when"]
    assert set(found.dtypes) == {np.dtype(np.float32)}
    rows = table[table["real"] < 1]
    assert_same_bits(NET.predict(rows, as_frame=True).to_numpy(), found.loc[rows.index].to_numpy())
    assert type(NET.predict(table)) is np.ndarray
    assert type(NET(table)) is np.ndarray


OUTPUTS = {
    "one": ({"score": 3}, ["score_0", "score_1", "score_2"]),
    "several": ({"policy": 2, "value": 1}, ["policy_0", "policy_1", "value"]),
    "alike": ({"a": 2, "a_0": 1}, ["a_0", "a_1", "a_0"]),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_columns_have_the_names_of_outputs(name):
    outputs, names = OUTPUTS[name]
    net = fl.Network([fl.Layer(4, 3, rng=0)], outputs=outputs)
    table = pandas()
    found = net.predict(table, as_frame=True)
    assert list(found.columns) == names
    assert_same_bits(found.to_numpy(), np.concatenate(net(table), axis=1))


def test_several_inputs_have_the_index_of_the_first():
    net = fl.Network([fl.Layer(4, 1, rng=0)], inputs=[1, 3], outputs={"value": 1})
    table = pandas().set_index([[7, 8, 9]])
    found = net.predict((table[["whole"]], table[["real", "flag", "short"]]), as_frame=True)
    assert list(found.index) == [7, 8, 9]
    assert_same_bits(
        found["value"].to_numpy(), net(table[["whole"]], table[["real", "flag", "short"]])[0][:, 0]
    )


def test_labels_are_columns():
    onnx = pytest.importorskip("onnx")
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        graph (float[N, 4] x) => (int64[N] label, float[N, 3] h)
        <float[4, 3] w = {1, -1, 0, 2, 1, 1, 0, 0, 1, 1, 1, 1}>
        { h = MatMul(x, w) label = ArgMax<axis=1, keepdims=0>(h) }"""
    )
    net = fl.from_onnx(model)
    for table in (pandas(), polars()):
        found = net.predict(table, as_frame=True)
        label, scores = net(table)
        assert names_of(found) == ["label", "h_0", "h_1", "h_2"]
        first, *others = columns_of(found)
        assert_same_bits(np.asarray(first), label)
        assert_same_bits(np.stack([np.asarray(c) for c in others], axis=1), scores)


@pytest.mark.parametrize("x", [np.ones((2, 4)), [[1, 2, 3, 4]], (row for row in np.ones((2, 4)))])
def test_only_a_table_becomes_a_table(x):
    with pytest.raises(
        TypeError, match="as_frame=True gives a table of the kind of x, and x is of"
    ):
        NET.predict(x, as_frame=True)
