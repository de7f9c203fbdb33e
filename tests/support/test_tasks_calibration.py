"""Effective sample sizes of the families beside the paper's: m = 50, t = .56, bandwidth .796."""

import pytest
import torch

import fluvial as fv
from fluvial.randomness import generator
from fluvial.support.tasks import GaussianMixtures, Shells

TASKS = 600


def effective_sample_size(family, seed):
    """Mean over tasks of 1 / sum w^2 at fresh targets blurred by the bandwidth, and its standard error."""
    h = float(fv.CondOT(0.01).bandwidth(torch.tensor(0.56, dtype=torch.float64)))
    assert h == pytest.approx(0.796, abs=1e-3)
    draws = generator(seed)
    batch = family.batch(TASKS, 50, 20, draws)
    x = batch.targets + h * torch.randn(batch.targets.shape, generator=draws)
    weight = torch.softmax(-torch.cdist(x.double(), batch.support.double()).square() / (2 * h * h), -1)
    sizes = (1 / weight.square().sum(-1)).mean(1)
    return float(sizes.mean()), float(sizes.std()) / TASKS**0.5


@pytest.mark.parametrize(
    ("family", "paper", "ours"),
    [(GaussianMixtures(16), 1.0, 1.03), (Shells(8), 6.5, 6.9), (Shells(32), 8.0, 7.9)],
    ids=["gmm-16", "shells-8", "shells-32"],
)
def test_families_are_as_hard_as_the_paper_s(family, paper, ours):
    found, error = effective_sample_size(family, 0)
    assert found == pytest.approx(ours, abs=4 * error + 0.05)
    assert found == pytest.approx(paper, rel=0.15)


def test_collapse_grows_with_the_dimension_of_mixtures():
    sizes = [effective_sample_size(GaussianMixtures(dim), 1)[0] for dim in (2, 4, 8, 16)]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 4
