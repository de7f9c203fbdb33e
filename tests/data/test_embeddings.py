"""Embeddings from a file: what is taken, which query, and what is refused."""

import numpy as np
import pytest

from fluvial.data.embeddings import read_embeddings

SUPPORT, QUERIES = np.arange(1.0, 13).reshape(4, 3), np.eye(3)


@pytest.fixture
def save(tmp_path):
    def save(name="e.npz", **arrays):
        np.savez(tmp_path / name, **arrays)
        return tmp_path / name

    return save


def test_one_query_and_one_of_several(save):
    support, query = read_embeddings(save(support=SUPPORT.astype(np.float16), query=QUERIES[1]))
    assert np.array_equal(support, SUPPORT) and support.dtype == np.float32
    assert np.array_equal(query, QUERIES[1]) and query.dtype == np.float64
    assert np.array_equal(read_embeddings(save(support=SUPPORT, query=QUERIES[2:]))[1], QUERIES[2])
    assert np.array_equal(read_embeddings(save(support=SUPPORT, query=QUERIES), index=2)[1], QUERIES[2])


def test_a_query_of_its_own_goes_first(save):
    path, own = save(support=SUPPORT, query=QUERIES[0]), save("q.npz", query=QUERIES[1])
    assert np.array_equal(read_embeddings(path, own)[1], QUERIES[1])
    assert np.array_equal(read_embeddings(save(support=SUPPORT), own)[1], QUERIES[1])


@pytest.mark.parametrize(
    ("arrays", "index", "message"),
    [
        ({"support": SUPPORT}, None, r"keys 'support' and 'query', got 'support' \(or give the query with --query"),
        ({"x": SUPPORT, "query": QUERIES}, 0, "must have the keys 'support' and 'query', got 'query', 'x'"),
        ({"support": SUPPORT[0], "query": QUERIES}, 0, r"support must have shape \(N, e\).* got \(3,\)"),
        ({"support": SUPPORT, "query": np.ones(2)}, None, r"query must have shape \(3,\) or \(Q, 3\).* got \(2,\)"),
        ({"support": SUPPORT, "query": QUERIES}, None, "holds 3 queries: say which with --query-index, 0 to 2"),
        ({"support": SUPPORT, "query": QUERIES}, 3, r"--query-index must be in 0\.\.2, .* got 3"),
        ({"support": SUPPORT, "query": QUERIES}, -1, r"--query-index must be in 0\.\.2, .* got -1"),
        ({"support": SUPPORT * np.nan, "query": QUERIES}, 0, "4 of 4 rows of support hold NaN"),
        ({"support": SUPPORT, "query": np.zeros(3)}, None, "1 of 1 rows of query hold zeros alone"),
        ({"support": SUPPORT.astype(str), "query": QUERIES}, 0, "support must be real numbers, got dtype <U"),
        ({"support": np.array([[{}]]), "query": QUERIES}, 0, "holds Python objects, which are not read"),
    ],
)
def test_what_does_not_fit_is_named(save, arrays, index, message):
    with pytest.raises(ValueError, match=message):
        read_embeddings(save(**arrays), index=index)


def test_files_that_are_none(tmp_path):
    with pytest.raises(ValueError, match=r"must be in a \.npz file, got .*e\.npy"):
        read_embeddings(tmp_path / "e.npy")
    with pytest.raises(ValueError, match="does not exist"):
        read_embeddings(tmp_path / "e.npz")
    (tmp_path / "e.npz").write_text("not zipped")
    with pytest.raises(ValueError, match=r"damaged or no \.npz file"):
        read_embeddings(tmp_path / "e.npz")
