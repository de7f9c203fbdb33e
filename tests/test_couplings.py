"""Couplings: optimal pairings, marginals, independence of noise and label, and what is refused."""

import itertools
import sys

import jaxtyping
import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import cdist

import fluvial as fv


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pair(rows, *shape, seed=0, dtype=torch.float32):
    g = seeded(seed)
    return torch.randn(rows, *shape, generator=g, dtype=dtype), torch.rand(rows, *shape, generator=g, dtype=dtype)


def cost(x0, x1, order):
    return float((x0[order] - x1).double().square().sum())


def test_independent_keeps_the_order():
    x0, x1 = pair(5, 2)
    assert torch.equal(fv.Independent()(x0, x1, generator=seeded()), torch.arange(5))


@pytest.mark.parametrize("seed", range(5))
def test_exact_is_the_best_of_all_permutations(seed):
    x0, x1 = pair(6, 2, seed=seed)
    order = fv.OptimalTransport()(x0, x1, generator=seeded())
    best = min(cost(x0, x1, torch.tensor(p)) for p in itertools.permutations(range(6)))
    assert cost(x0, x1, order) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("shape", [(), (3,), (1, 8, 8), (3072,)])
def test_exact_agrees_with_squared_distances(shape):
    from scipy.optimize import linear_sum_assignment

    x0, x1 = pair(64, *shape)
    x1 = x1 + 10  # off-centre: the norms matter to the distances, not to the pairing
    order = fv.OptimalTransport()(x0, x1, generator=seeded())
    assert torch.equal(order.sort().values, torch.arange(64))
    distances = cdist(x1.reshape(64, -1).double(), x0.reshape(64, -1).double(), "sqeuclidean")
    rows, columns = linear_sum_assignment(distances)
    assert cost(x0, x1, order) == pytest.approx(float(distances[rows, columns].sum()), rel=1e-6)


def test_exact_in_one_dimension_sorts():
    x0, x1 = pair(100, 1)
    order = fv.OptimalTransport()(x0, x1, generator=seeded())
    assert torch.equal(x0[order].flatten().argsort(), x1.flatten().argsort())


def test_exact_follows_the_data():
    """Permuting the data permutes the answer; permuting the noise renames it."""
    x0, x1 = pair(40, 3)
    shuffle = torch.randperm(40, generator=seeded(1))
    order = fv.OptimalTransport()(x0, x1, generator=seeded())
    assert torch.equal(fv.OptimalTransport()(x0, x1[shuffle], generator=seeded()), order[shuffle])
    assert torch.equal(shuffle[fv.OptimalTransport()(x0[shuffle], x1, generator=seeded())], order)


def test_empty_batch():
    empty = torch.zeros(0, 2)
    for method in ("exact", "sinkhorn"):
        assert fv.OptimalTransport(method=method)(empty, empty, generator=seeded()).shape == (0,)


@pytest.mark.parametrize("method", ["exact", "sinkhorn"])
def test_within_labels_pairs_inside_groups(method):
    x0, x1 = pair(60, 3)
    labels = torch.randint(-1, 3, (60,), generator=seeded(2))  # -1 is the null label
    coupling = fv.OptimalTransport(method=method, within_labels=True)
    order = coupling(x0, x1, labels, generator=seeded())
    assert torch.equal(labels[order], labels)
    if method == "exact":
        alone = fv.OptimalTransport()
        for label in range(-1, 3):
            rows = torch.nonzero(labels == label).flatten()
            assert torch.equal(order[rows], rows[alone(x0[rows], x1[rows], generator=seeded())])


@pytest.mark.parametrize("within", [True, False])
def test_noise_is_independent_of_the_label_only_within_labels(within):
    """Classes at -2 and 2: plain transport sends negative noise to the first; within labels each class sees N(0, 1)."""
    coupling, met = fv.OptimalTransport(within_labels=within), []
    for seed in range(40):
        x0 = torch.randn(32, 1, generator=seeded(seed))
        labels = torch.arange(32) % 2
        x1 = 4.0 * labels[:, None] - 2 + 0.1 * torch.randn(32, 1, generator=seeded(1000 + seed))
        met.append(x0[coupling(x0, x1, labels, generator=seeded())][labels == 0].flatten())
    p = stats.kstest(torch.cat(met).double().numpy(), stats.norm.cdf).pvalue
    assert p > 0.01 if within else p < 1e-6


def entropic_plan(distances, regularization):
    """Independent Sinkhorn in float64, scaling rows and columns in turn."""
    kernel, size = np.exp(-distances / regularization), len(distances)
    u = v = np.ones(size)
    for _ in range(5000):
        u = 1 / size / (kernel @ v)
        v = 1 / size / (kernel.T @ u)
    return u[:, None] * kernel * v


def test_sinkhorn_draws_from_the_entropic_plan():
    x0, x1 = pair(5, 2, dtype=torch.float64)
    distances = cdist(x1.numpy(), x0.numpy(), "sqeuclidean")
    plan = entropic_plan(distances / distances.mean(), 0.3)
    coupling = fv.OptimalTransport(method="sinkhorn", regularization=0.3)
    g = seeded()
    counts = np.zeros((5, 5))
    for _ in range(400):
        counts[np.arange(5), coupling(x0, x1, generator=g).numpy()] += 1
    for row in range(5):
        assert stats.chisquare(counts[row], 400 * plan[row] / plan[row].sum()).pvalue > 1e-3


def test_sinkhorn_does_not_depend_on_units():
    x0, x1 = pair(30, 4, dtype=torch.float64)
    coupling = fv.OptimalTransport(method="sinkhorn")
    small, large = (coupling(s * x0, s * x1, generator=seeded()) for s in (1.0, 1024.0))
    assert torch.equal(small, large)


def test_weak_regularization_finds_the_exact_pairing():
    x0, x1 = pair(20, 50)
    exact = fv.OptimalTransport()(x0, x1, generator=seeded())
    soft = fv.OptimalTransport(method="sinkhorn", regularization=2e-3)(x0, x1, generator=seeded())
    assert torch.equal(exact, soft)


def test_sinkhorn_that_does_not_converge_is_an_error(monkeypatch):
    monkeypatch.setattr("fluvial.couplings.SINKHORN_ITERATIONS", 5)
    x0, x1 = pair(50, 2)
    with pytest.raises(ValueError, match=r"did not converge in 5 iterations .* raise regularization, got 0\.001"):
        fv.OptimalTransport(method="sinkhorn", regularization=0.001)(x0, x1, generator=seeded())


def test_missing_pot_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(ImportError, match=r"pip install fluvial\[ot\]"):
        fv.OptimalTransport(method="sinkhorn")(*pair(4, 2), generator=seeded())


def test_bad_options():
    with pytest.raises(ValueError, match=r"method must be one of exact, sinkhorn, got 'sinkhron'; .*'sinkhorn'"):
        fv.OptimalTransport(method="sinkhron")
    with pytest.raises(ValueError, match="regularization must be positive"):
        fv.OptimalTransport(regularization=0.0)


@pytest.mark.parametrize("method", ["exact", "sinkhorn"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite(method, bad):
    x0, x1 = pair(4, 2)
    x1[2, 1] = bad
    with pytest.raises(ValueError, match="x0 and x1 must be finite"):
        fv.OptimalTransport(method=method)(x0, x1, generator=seeded())


def test_labels_are_needed_within_labels():
    with pytest.raises(ValueError, match="labels must be given when within_labels=True"):
        fv.OptimalTransport(within_labels=True)(*pair(4, 2), generator=seeded())


@pytest.fixture
def unchecked():
    """Switch the run-time check of annotations off, to see the errors that users see."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("coupling", [fv.Independent(), fv.OptimalTransport()])
def test_shapes_that_do_not_match(coupling):
    with pytest.raises(ValueError, match=r"same shape, got x0 \(4, 2\) and x1 \(3, 2\)"):
        coupling(torch.zeros(4, 2), torch.zeros(3, 2), generator=seeded())


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("labels", [torch.zeros(3, dtype=torch.int64), torch.zeros(4)])
def test_labels_of_the_wrong_kind(labels):
    with pytest.raises(ValueError, match=r"labels must be integers of shape \(4,\)"):
        fv.OptimalTransport(within_labels=True)(*pair(4, 2), labels, generator=seeded())
