"""Embeddings brought along in a ``.npz``: ``support``, one row for each datum, and ``query``. Imports no torch."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from fluvial.data.numpy_files import load_arrays
from fluvial.data.quoting import quoted_names


def read_embeddings(
    path: Path, query: Path | None = None, index: int | None = None
) -> tuple[Float[np.ndarray, "N e"], Float[np.ndarray, "e"]]:
    """Embeddings of the data, in their order, and that of one query.

    Args:
        path: A ``.npz`` with ``support``, shape (N, e), and ``query``, shape (e,) or (Q, e).
        query: A ``.npz`` with ``query`` to take instead.
        index: Which of Q queries, from 0; needed where Q is above 1.

    Returns:
        Both float32, or float64 where the file has that.

    Raises:
        ValueError: If a file is absent, damaged or has other keys, shapes do not fit, values are no real numbers, or
            ``index`` is missing or out of range.
    """
    arrays = _arrays(path, {"support", "query"} if query is None else {"support"}, optional={"query"})
    where = path if query is None else query
    asked = (arrays if query is None else _arrays(query, {"query"}))["query"]
    support = _floating(arrays["support"], "support", path)
    if support.ndim != 2 or support.size == 0:
        raise ValueError(f"{path}: support must have shape (N, e), neither of them 0, got {support.shape}")
    if asked.ndim not in (1, 2) or asked.size == 0 or asked.shape[-1] != support.shape[1]:
        expected = f"({support.shape[1]},) or (Q, {support.shape[1]}) to match support"
        raise ValueError(f"{where}: query must have shape {expected}, got {asked.shape}")
    return support, _floating(_one(asked, index, where), "query", where)


def _arrays(path: Path, needed: set[str], optional: Collection[str] = ()) -> dict[str, NDArray[Any]]:
    if path.suffix.lower() != ".npz":
        raise ValueError(f"embeddings must be in a .npz file, got {str(path)!r}")
    if not path.is_file():
        raise ValueError(f"embeddings {str(path)!r} {'is no file' if path.exists() else 'does not exist'}")
    arrays = load_arrays(path)
    missing, unknown = needed - arrays.keys(), arrays.keys() - needed - set(optional)
    if missing or unknown:
        got = quoted_names(sorted(arrays)) or "none"
        hint = " (or give the query with --query FILE.npz)" if missing == {"query"} else ""
        raise ValueError(f"{path} must have the {_keys(needed)}, got {got}{hint}")
    return arrays


def _keys(names: set[str]) -> str:
    listed = [repr(name) for name in sorted(names, reverse=True)]
    return f"key {listed[0]}" if len(listed) == 1 else f"keys {' and '.join(listed)}"


def _one(queries: NDArray[Any], index: int | None, where: Path) -> NDArray[Any]:
    rows = np.atleast_2d(queries)
    if index is None and len(rows) > 1:
        raise ValueError(f"{where} holds {len(rows)} queries: say which with --query-index, 0 to {len(rows) - 1}")
    if not 0 <= (index or 0) < len(rows):
        raise ValueError(f"--query-index must be in 0..{len(rows) - 1}, the queries of {where}, got {index}")
    chosen: NDArray[Any] = rows[index or 0]
    return chosen


def _floating(values: NDArray[Any], key: str, path: Path) -> NDArray[Any]:
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{path}: {key} must be real numbers, got dtype {values.dtype}")
    floating = values.astype(np.float64 if values.dtype == np.float64 else np.float32)
    rows = np.atleast_2d(floating)
    for bad, what in ((~np.isfinite(rows).all(1), "NaN or infinite values"), (~rows.any(1), "zeros alone")):
        if bad.any():
            share = f"{int(bad.sum())} of {len(rows)} rows"
            raise ValueError(f"{path}: {share} of {key} hold {what}, the first is row {int(np.flatnonzero(bad)[0])}")
    return floating
