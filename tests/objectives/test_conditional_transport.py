"""What transport within a batch does to a model with labels: the minimiser of the objective, sampled, against the data.

Two classes of normal data on the line, N(-m, s^2) and N(m, s^2) with m^2 + s^2 = 1. There an optimal pairing keeps the
order: paths never cross and, in a large batch, the point alone tells the pair, so that the label adds nothing. The
minimiser under plain transport then ignores the label and answers every class with all of the data, of mean 0 and
standard deviation 1. Any coupling that leaves the noise independent of the label gives each class its own.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.polynomial import legendre
from torch import Tensor

import fluvial as fv
from fluvial.randomness import generator

MEAN, STD = 0.5, 0.75**0.5
KNOTS = np.array([-1.0, 0.0, 1.0])
GROUPS, ROWS, FRESH = 10, 8_000, 2_500


def two_classes(rows: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    labels = torch.randint(2, (rows,), generator=g)
    x1 = MEAN * (2 * labels[:, None] - 1) + STD * torch.randn(rows, 1, generator=g, dtype=torch.float64)
    return x1, labels


def regressed(objective: fv.CFM, batch: fv.Batch, g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Points, times and targets of one batch, the targets read from the gradient of the objective itself."""
    seen: list[Tensor] = []

    def net(x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        seen.extend([x, t, torch.zeros_like(x, requires_grad=True)])
        return seen[-1]

    objective(net, batch, generator=g).loss.backward()
    x, t, out = seen
    assert out.grad is not None
    return x, t, -0.5 * out.grad * out.numel()


def features(x: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Products of linear splines in the point and polynomials in the time, shape (n, 25)."""
    space = np.column_stack([np.ones_like(x), x, np.maximum(x[:, None] - KNOTS, 0)])
    time = legendre.legvander(2 * t - 1, 4)
    return (space[:, :, None] * time[:, None, :]).reshape(len(x), -1)


def minimiser(objective: fv.CFM, size: int, group: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The conditional velocity that fits the objective's own targets best, by least squares for each label."""
    found: list[tuple[Tensor, ...]] = []
    for k in range(ROWS // size):
        g = generator(0, group, k)
        x1, labels = two_classes(size, g)
        found.append((*regressed(objective, fv.Batch(x1, labels), g), labels))
    x, t, u, labels = (torch.cat(part).numpy() for part in zip(*found, strict=True))
    fits = []
    for label in (0, 1):
        own = labels == label
        fits.append(np.linalg.lstsq(features(x[own, 0], t[own]), u[own, 0], rcond=None)[0])

    def field(x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        weights = np.stack(fits)[cond.numpy()]
        return torch.from_numpy((features(x[:, 0].numpy(), t.numpy()) * weights).sum(1))[:, None]

    return field


def sampled(
    coupling: fv.Independent | fv.OptimalTransport, size: int, groups: int = GROUPS
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each label's samples from fresh noise, and their standard errors, shape (2, 2)."""
    scores = []
    for group in range(groups):
        field = minimiser(fv.CFM(coupling=coupling), size, group)
        x0 = torch.randn(2 * FRESH, 1, generator=generator(1, group), dtype=torch.float64)
        cond = torch.arange(2 * FRESH) % 2
        x = fv.solve(field, x0, steps=16, method="heun", cond=cond).x[:, 0]
        scores.append([[float(x[cond == label].mean()), float(x[cond == label].std())] for label in (0, 1)])
    all_scores = np.array(scores)
    found, error = all_scores.mean(0), all_scores.std(0, ddof=1) / groups**0.5
    print(f"{coupling}, batches of {size}: mean and standard deviation of each label {found.round(3).tolist()}")
    return found, error


TRUTH = np.array([[-MEAN, STD], [MEAN, STD]])


@pytest.mark.parametrize(
    "coupling", [fv.Independent(), fv.OptimalTransport(within_labels=True)], ids=["none", "within"]
)
def test_noise_that_ignores_the_label_gives_each_class_its_own(coupling: fv.Independent | fv.OptimalTransport) -> None:
    found, error = sampled(coupling, 100)
    assert (np.abs(found - TRUTH) < 3 * error).all(), (found, error)
    assert (error < 0.02).all()


@pytest.mark.slow
def test_plain_transport_gives_every_class_all_of_the_data() -> None:
    """The larger the batch, the less the label counts: means fall towards 0, standard deviations rise to 1."""
    pooled = []
    for size in (12, 100):
        found, error = sampled(fv.OptimalTransport(), size, groups=5)
        assert (np.abs(found - TRUTH) > error * (10, 3)).all(), (found, error)
        pooled.append(((found[1, 0] - found[0, 0]) / 2, found[:, 1].mean()))
    (small_mean, small_std), (large_mean, large_std) = pooled
    assert abs(large_mean) < 0.06 < small_mean < 0.2
    assert STD < small_std < large_std < 1.02


CENTRES = torch.tensor([[-0.8, 0.0], [0.8, 0.4]])
WIDTHS = torch.tensor([[0.6, 0.9], [0.4, 0.6]])


def trained(objective: fv.CFM, steps: int = 800) -> fv.nn.MLP:
    """A small net with labels, trained on two normal classes of the plane."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = fv.nn.MLP((2,), width=64, depth=2, classes=2)
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3)
    for step in range(steps):
        g = generator(2, step)
        labels = torch.randint(2, (256,), generator=g)
        x1 = CENTRES[labels] + WIDTHS[labels] * torch.randn(256, 2, generator=g)
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * (1 - step / steps)
        optimizer.zero_grad()
        objective(net, fv.Batch(x1, labels), generator=g).loss.backward()
        optimizer.step()
    return net


def worst_error(net: fv.nn.MLP) -> float:
    """Largest error of a mean or a standard deviation, over labels and coordinates, in standard deviations."""
    labels = torch.arange(20_000) % 2
    with torch.no_grad():
        x = fv.solve(net, torch.randn(20_000, 2, generator=generator(3)), steps=20, method="heun", cond=labels).x
    errors = [
        torch.stack([x[labels == k].mean(0) - CENTRES[k], x[labels == k].std(0) - WIDTHS[k]]) / WIDTHS[k]
        for k in (0, 1)
    ]
    return float(torch.stack(errors).abs().max())


@pytest.mark.slow
def test_a_trained_net_with_labels_is_biased_by_plain_transport_alone() -> None:
    independent, within, plain = (
        worst_error(trained(fv.CFM(coupling=coupling)))
        for coupling in (fv.Independent(), fv.OptimalTransport(within_labels=True), fv.OptimalTransport())
    )
    assert independent < 0.1 and within < 0.1, (independent, within)
    assert plain > 0.5, plain
