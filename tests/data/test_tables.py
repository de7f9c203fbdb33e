import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fluvial as fv
from fluvial.data import Standardization
from fluvial.data.splits import split_indices


def _values(rows: int = 50) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.standard_normal((rows, 3)) * [1e-3, 1, 1e6] + [5, -3, 1e7]


def _write_csv(path, values, header=("small", "middle", "large")) -> str:
    lines = [",".join(header), *(",".join(repr(float(v)) for v in row) for row in values)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def _check_round_trip(data: fv.Dataset, values: np.ndarray) -> None:
    assert data.kind == "table" and data.levels is None
    np.testing.assert_allclose(data.inverse(data.x), values, rtol=1e-5)
    # Standardised by the training rows alone, in units of which the inverse is known to 1e-6.
    train = data.train.x.double().numpy()
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(train.std(0), 1, atol=1e-6)
    assert np.abs(data.x.double().numpy().mean(0)).max() > 1e-4
    restored = data.held_out.inverse(data.held_out.x)
    assert all((np.abs(values - row).max(1) < np.abs(row).max() * 1e-6).any() for row in restored)


def test_csv_round_trip(tmp_path) -> None:
    data = fv.load_dataset(_write_csv(tmp_path / "t.csv", _values()))
    _check_round_trip(data, _values())
    assert data.table.columns == ("small", "middle", "large") and data.table.dropped == ()
    assert (len(data.train), len(data.held_out), data.name) == (40, 10, "t.csv")


def test_parquet_round_trip(tmp_path) -> None:
    small, middle, large = _values().T
    ids = [f"row {i}" for i in range(50)]
    pq.write_table(pa.table({"small": small, "id": ids, "middle": middle, "large": large}), tmp_path / "t.parquet")
    data = fv.load_dataset(str(tmp_path / "t.parquet"))
    _check_round_trip(data, _values())
    assert data.table.columns == ("small", "middle", "large") and data.table.dropped == ("id",)


def test_whole_and_decimal_numbers_of_parquet_are_numbers(tmp_path) -> None:
    decimals = pa.array([1, 2, 3, 4], pa.decimal128(5, 2))
    pq.write_table(pa.table({"a": [1, 2, 3, 5], "b": decimals}), tmp_path / "t.parquet")
    data = fv.load_dataset(str(tmp_path / "t.parquet"), held_out=0)
    np.testing.assert_allclose(data.inverse(data.x), [[1, 1], [2, 2], [3, 3], [5, 4]], rtol=1e-6)


def test_text_is_dropped_and_listed(tmp_path) -> None:
    (tmp_path / "t.csv").write_text('\ufeffname,a,"note, long"\nx,1,\n"y ""z""", 2 ,n/a\n\nz,4,ok\n')
    data = fv.load_dataset(str(tmp_path / "t.csv"), held_out=0)
    assert data.table.columns == ("a",) and data.table.dropped == ("name", "note, long")
    np.testing.assert_allclose(data.inverse(data.x), [[1], [2], [4]], rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("", "is empty; expected a header and rows"),
        ("a,b\n", "has a header but no rows"),
        ("1,2\n3,4\n", "has no header: its first line holds numbers"),
        ("a,b\n1,2\n3\n", "row 2 has 1 cells, the header has 2"),
        ("a;b\n1;2\n", "is separated by ';', expected commas"),
        (",a\n0,1\n1,2\n", "column 1 has no name"),
        ("a,a\n0,1\n1,2\n", "columns of the same name: 'a'"),
        ("a,b\nx,y\nz,u\n", "no numeric column among 'a', 'b'"),
        ("a\n1\nx7\n", r"column 'a' mixes numbers and text \(row 2: 'x7'\)"),
        ("a,b\n1,2\n3,\nNaN,4\n", "2 of 3 rows hold missing, NaN or infinite values, the first is row 2 in column 'b'"),
        ("a\n1\ninf\n", "1 of 2 rows hold missing, NaN or infinite values"),
        ("a,b\n,1\n,2\n", "2 of 2 rows hold missing, NaN"),
        ("a,b,c\n1,2,0.1\n3,2,0.1\n4,2,0.1\n", "constant in the training data: 'b', 'c'"),
        ("a\n-1e300\n1e300\n", "not a float64 number: 'a'"),
        ('a\n"1\n', "no comma-separated text"),
    ],
)
def test_csv_files_that_do_not_fit_are_refused(tmp_path, text, fragment) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=fragment) as caught:
        fv.load_dataset(str(tmp_path / "t.csv"), held_out=0)
    assert "t.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_a_column_constant_in_the_training_rows_only_is_refused(tmp_path) -> None:
    (odd,) = split_indices(10, None, 1, seed=0)[1]
    rows = [[i, i == odd] for i in range(10)]
    path = _write_csv(tmp_path / "t.csv", rows, ("a", "b"))
    with pytest.raises(ValueError, match="constant in the training data: 'b'"):
        fv.load_dataset(path, held_out=1)


def test_binary_files_are_no_tables(tmp_path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="no comma-separated text in UTF-8"):
        fv.load_dataset(str(tmp_path / "t.csv"))
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="cannot be read as Parquet"):
        fv.load_dataset(str(tmp_path / "t.parquet"))


def test_a_null_in_parquet_is_refused(tmp_path) -> None:
    pq.write_table(pa.table({"a": [1, None, 3]}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="1 of 3 rows hold missing, NaN or infinite values, the first is row 2"):
        fv.load_dataset(str(tmp_path / "t.parquet"))


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch) -> None:
    (tmp_path / "t.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"reading t\.parquet needs pyarrow: .*'fluvial\[tables\]'"):
        fv.load_dataset(str(tmp_path / "t.parquet"))


@given(st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=20, unique=True))
def test_standardization_is_undone_by_its_inverse(column) -> None:
    values = np.array(column)[:, None]
    if not values.std() > 1e-300:
        return
    units = Standardization.fit(("a",), values)
    scale = np.abs(values).max()
    np.testing.assert_allclose(units.inverse(units.forward(values)), values, atol=1e-12 * scale)
