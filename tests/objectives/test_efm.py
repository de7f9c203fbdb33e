"""Empirical Flow Matching: exact unbiasedness by enumeration, variance, and what breaks it."""

from collections.abc import Callable, Iterator
from itertools import combinations

import pytest
import torch

import fluvial as fv
from fluvial.objectives import efm
from names import steady

PATHS = [fv.CondOT(), fv.CondOT(0.05), fv.VP(), fv.Cosine(), fv.Polynomial(2)]
N = 7
Pull = Callable[..., torch.Tensor]


def data(d: int = 2) -> torch.Tensor:
    return torch.randn(N, d, generator=torch.Generator().manual_seed(d), dtype=torch.float64) + 1.0


def banks(monkeypatch: pytest.MonkeyPatch, members: torch.Tensor, size: int, values: torch.Tensor) -> Iterator[None]:
    """Every bank of that size in turn, where a generator would draw one."""
    for chosen in combinations(members.tolist(), min(size, len(members))):
        index = torch.tensor(chosen)
        monkeypatch.setattr(fv.EFM, "_draw", lambda *_, index=index: (index, values[index].flatten(1)))
        yield


def conditional_mean_and_variance(
    monkeypatch: pytest.MonkeyPatch, path: fv.GaussianPath, values: torch.Tensor, x: torch.Tensor, t: float, size: int
) -> tuple[torch.Tensor, float]:
    """Mean and variance of the target given xt = x, summed over all own data (by posterior weight) and all banks."""
    time = torch.full((N,), t, dtype=torch.float64)
    alpha, sigma = path.alpha(time[0]), path.sigma(time[0])
    weights = torch.softmax(-(x - alpha * values).square().sum(1) / (2 * sigma**2), 0)
    batch = fv.Batch(values, index=torch.arange(N))
    objective = fv.EFM(path, values, size)
    targets = torch.stack(
        [
            objective.target((x - alpha * values) / sigma, batch, time, generator=torch.Generator())
            for _ in banks(monkeypatch, torch.arange(N), size, values)
        ]
    )
    mean = (weights[:, None] * targets).sum(1).mean(0)
    variance = (weights * (targets - mean).square().sum(2)).sum(1).mean().item()
    return mean, variance


@pytest.mark.parametrize("path", PATHS, ids=steady)
@pytest.mark.parametrize("d", [2, 20])
@pytest.mark.parametrize("size", [1, 3, N - 1, N, 50])
def test_target_is_unbiased_and_less_noisy_than_cfm(
    monkeypatch: pytest.MonkeyPatch, path: fv.GaussianPath, d: int, size: int
) -> None:
    values = data(d)
    for t in (0.2, 0.5, 0.8):
        time = torch.tensor([t], dtype=torch.float64)
        x = (path.alpha(time) * (values[0] + values[1]) / 2 + 0.3 * path.sigma(time))[None]
        truth = fv.ExactField(values, path)(x, time)[0]
        mean, variance = conditional_mean_and_variance(monkeypatch, path, values, x[0], t, size)
        torch.testing.assert_close(mean, truth, rtol=1e-9, atol=1e-9)
        alpha, sigma = path.alpha(time), path.sigma(time)
        conditional = path.alpha_dot(time) * values + path.sigma_dot(time) * (x - alpha * values) / sigma
        weights = torch.softmax(-(x - alpha * values).square().sum(1) / (2 * sigma**2), 0)
        of_cfm = (weights * (conditional - truth).square().sum(1)).sum().item()
        assert variance < of_cfm or of_cfm < 1e-12
        if size >= N:
            assert variance < 1e-18 * (1 + of_cfm)


def without_own(
    x0: torch.Tensor, x1: torch.Tensor, bank: torch.Tensor, s: torch.Tensor, drawn: torch.Tensor
) -> torch.Tensor:
    s = s[:, None]
    logits = s * (x0 @ bank.T - (x0 * x1).sum(1)[:, None]) - 0.5 * s**2 * torch.cdist(x1, bank) ** 2
    weights = torch.softmax(logits.masked_fill(drawn, -torch.inf), 1).nan_to_num()
    return weights @ bank - weights.sum(1, keepdim=True) * x1


def own_twice(original: Pull) -> Pull:
    return lambda x0, x1, bank, s, drawn: original(x0, x1, bank, s, torch.zeros_like(drawn))


@pytest.mark.parametrize("mistake", ["left out", "counted twice"])
@pytest.mark.parametrize("size", [3, N - 1])
def test_leaving_the_own_datum_out_or_counting_it_twice_is_seen(
    monkeypatch: pytest.MonkeyPatch, mistake: str, size: int
) -> None:
    monkeypatch.setattr(efm, "_pull", without_own if mistake == "left out" else own_twice(efm._pull))
    values, path = data(), fv.CondOT()
    x = (values[0] + values[1]) / 4
    mean, _ = conditional_mean_and_variance(monkeypatch, path, values, x, 0.5, size)
    truth = fv.ExactField(values, path)(x[None], torch.tensor([0.5], dtype=torch.float64))[0]
    assert (mean - truth).norm() > 1e-3


def test_banks_are_drawn_without_replacement_and_uniformly() -> None:
    objective = fv.EFM(fv.CondOT(), data(), 3)
    g = torch.Generator().manual_seed(0)
    drawn = torch.stack([objective._draw(None, g, data())[0] for _ in range(4000)])
    assert (drawn.sort(1).values.diff(dim=1) > 0).all()
    share = torch.bincount(drawn.flatten(), minlength=N) / 4000
    assert (share - 3 / N).abs().max() < 4 * (3 / N * 4 / N / 4000) ** 0.5


def test_labelled_rows_average_over_their_class_and_null_rows_over_all() -> None:
    values = data()
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    cond = torch.tensor([0, -1, 0, 1, 1, -1, 1])
    objective = fv.EFM(fv.CondOT(), values, N, labels=labels)
    t = torch.full((N,), 0.4, dtype=torch.float64)
    x0 = torch.randn(N, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    target = objective.target(x0, fv.Batch(values, cond, torch.arange(N)), t, generator=torch.Generator())
    exact = fv.ExactField(values, labels=labels)(0.4 * values + 0.6 * x0, t, cond)
    torch.testing.assert_close(target, exact)


def test_without_an_index_the_own_datum_is_found_also_among_duplicates() -> None:
    values = torch.cat([data(), data()[:2]])
    batch = values[[0, 3, 8]]
    objective = fv.EFM(fv.CondOT(), values, 50)
    x0 = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([0.1, 0.5, 0.7], dtype=torch.float64)
    target = objective.target(x0, fv.Batch(batch), t, generator=torch.Generator())
    exact = fv.ExactField(values)(t[:, None] * batch + (1 - t[:, None]) * x0, t)
    torch.testing.assert_close(target, exact)


@pytest.mark.parametrize("d", [2, 3072])
@pytest.mark.parametrize(("offset", "jitter"), [(0.0, 1.0), (1000.0, 1.0), (0.0, 1e-3)])
def test_float32_target_keeps_its_digits_until_the_end(d: int, offset: float, jitter: float) -> None:
    g = torch.Generator().manual_seed(0)
    values = torch.randn(8, d, generator=g).repeat(8, 1) + jitter * torch.randn(64, d, generator=g) + offset
    x0 = torch.randn(64, d, generator=g)
    for t in (0.0, 0.05, 0.5, 0.99, 0.999, 0.9999, 1.0):
        found, truth = (
            fv.EFM(fv.CondOT(), values.to(dtype), 64).target(
                x0.to(dtype),
                fv.Batch(values.to(dtype), index=torch.arange(64)),
                torch.full((64,), t, dtype=torch.float32).to(dtype),
                generator=g,
            )
            for dtype in (torch.float32, torch.float64)
        )
        assert torch.isfinite(found).all()
        assert (found - truth).norm() / truth.norm() < 1e-5, t


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_the_own_datum_is_found_far_from_the_origin_and_in_its_own_class(offset: float) -> None:
    values = (torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) + offset).repeat(2, 1)
    labels = torch.arange(400) // 200  # every datum stands once in each class
    objective = fv.EFM(fv.CondOT(), values, 1000, labels=labels)
    x0, t = torch.randn(50, 3, generator=torch.Generator().manual_seed(1)), torch.full((50,), 0.6)
    rows = torch.arange(190, 240)
    batch = fv.Batch(values[rows], labels[rows])
    found = objective.target(x0, batch, t, generator=torch.Generator())
    known = objective.target(x0, fv.Batch(values[rows], labels[rows], rows), t, generator=torch.Generator())
    torch.testing.assert_close(found, known)


def test_dataset_and_tensor_give_the_same_loss() -> None:
    dataset = fv.load_dataset("digits").train
    net = fv.nn.MLP(dataset.shape, width=32)
    index = torch.arange(16)
    batch = fv.Batch(dataset.take(index)[0], index=index)
    losses = [
        fv.EFM(fv.CondOT(), source, 64)(net, batch, generator=torch.Generator().manual_seed(0)).loss
        for source in (dataset, dataset.x)
    ]
    assert torch.equal(losses[0], losses[1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fv.EFM(fv.CondOT(), torch.zeros(0, 2)), "at least one datum"),
        (lambda: fv.EFM(fv.CondOT(), data() / 0), "data must be finite"),
        (
            lambda: fv.EFM(fv.CondOT(), data()).target(
                data(), fv.Batch(data() + 1e-9), torch.full((N,), 0.5, dtype=torch.float64), generator=torch.Generator()
            ),
            "7 of 7 rows of x1 are not among the data .* pass index=",
        ),
        (lambda: fv.EFM(fv.CondOT(), data(), 0), "bank_size must be at least 1, got 0"),
        (lambda: fv.EFM(fv.CondOT(), data(), labels=torch.zeros(3).long()), r"shape \(7,\), got \(3,\)"),
        (lambda: target_with(torch.zeros(N).long()), "pass labels= to EFM"),
        (lambda: target_with(torch.zeros(N, 4)), "needs labels"),
    ],
)
def test_bad_input(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def target_with(cond: torch.Tensor) -> torch.Tensor:
    t = torch.full((N,), 0.5, dtype=torch.float64)
    return fv.EFM(fv.CondOT(), data()).target(data(), fv.Batch(data(), cond), t, generator=torch.Generator())
