import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest, mannwhitneyu, norm

from fluvial.metrics import copying_test as module
from fluvial.metrics.copying_test import ct_test, rank_z_score


@given(n=st.integers(1, 30), m=st.integers(1, 30), levels=st.sampled_from([2, 5, 10**9]), seed=st.integers(0, 2**31))
def test_z_score_is_that_of_scipy(n: int, m: int, levels: int, seed: int) -> None:
    """scipy's p-value without its correction for continuity, with and without ties."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(levels, size=n) / 1.0, rng.integers(levels, size=m) / 1.0
    z = rank_z_score(a, b)
    if len(np.unique(np.concatenate([a, b]))) == 1:
        assert z == 0
    else:
        less = mannwhitneyu(a, b, alternative="less", method="asymptotic", use_continuity=False).pvalue
        assert norm.cdf(z) == pytest.approx(less, abs=1e-12)


def test_z_score_is_the_published_formula_without_ties() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=40), rng.normal(size=30) + 0.3
    u = (a[:, None] > b).sum()
    assert rank_z_score(a, b) == pytest.approx((u - 600) / np.sqrt(40 * 30 * 71 / 12))


@pytest.mark.parametrize("seed", range(3))
def test_is_the_weighted_mean_of_the_cells(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cell by cell with scikit-learn's neighbours, among the training data of the cell."""
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(seed)
    train, held_out, samples = (rng.normal(size=(n, 4)) for n in (500, 300, 260))
    kept = []
    partition = module._partition
    monkeypatch.setattr(module, "_partition", lambda *args: kept.append(partition(*args)) or kept[-1])
    found = ct_test(torch.from_numpy(samples), torch.from_numpy(train), torch.from_numpy(held_out), cells=6, seed=seed)
    cells = [label.numpy() for label in kept[0]]
    total = weight = squares = 0.0
    for cell in range(6):
        t, q, p = (x[label == cell] for x, label in zip((train, samples, held_out), cells, strict=True))
        if min(len(q), len(p)) < 20:
            continue
        near = NearestNeighbors(n_neighbors=1).fit(t)
        dq, dp = near.kneighbors(q)[0][:, 0], near.kneighbors(p)[0][:, 0]
        u = (dq[:, None] > dp).sum()
        z = (u - len(q) * len(p) / 2) / np.sqrt(len(q) * len(p) * (len(q) + len(p) + 1) / 12)
        share = len(p) / 300
        total, weight, squares = total + share * z, weight + share, squares + share**2
    assert found.statistic == pytest.approx(total / weight)
    assert found.p_value == pytest.approx(norm.cdf(total / np.sqrt(squares)))
    assert len(found.scores) == len(found.weights) and found.cells == 6
    assert all((cells[0] == c).any() for c in range(6))


def test_p_values_of_fresh_data_are_uniform() -> None:
    values = []
    for seed in range(80):
        x = torch.randn(500, 3, generator=torch.Generator().manual_seed(seed))
        values.append(ct_test(x[:150], x[150:300], x[300:], cells=2, seed=seed).p_value)
    assert kstest(values, "uniform").pvalue > 1e-3


def test_sign(digits: tuple[np.ndarray, ...]) -> None:
    train, held_out = digits[:2]
    rng = np.random.default_rng(0)
    copies = train[:180] + 0.05 * rng.normal(size=(180, 1, 8, 8))
    noisy = held_out[:180] + 0.5 * rng.normal(size=(180, 1, 8, 8))
    assert ct_test(copies, train, held_out[180:]).statistic < -5
    assert ct_test(noisy, train, held_out[180:]).statistic > 5


def test_an_offset_changes_nothing_and_few_rows_are_one_cell() -> None:
    x = torch.randn(600, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    here, there = (ct_test(x[:200] + c, x[200:400] + c, x[400:] + c, seed=1) for c in (0, 2.0**24))
    assert here.statistic == pytest.approx(there.statistic, abs=1e-6) and here.cells == 5
    few = ct_test(x[:10], x[200:400], x[400:415])
    assert few.cells == 1 and few.weights == (1.0,)


def test_bad_input() -> None:
    x = torch.randn(30, 2)
    with pytest.raises(ValueError, match=r"cells must be in \[1, 30\]"):
        ct_test(x, x, x, cells=31)
    with pytest.raises(ValueError, match="held_out and train must have the same number of features, got 3 and 2"):
        ct_test(x, x, torch.randn(9, 3))
