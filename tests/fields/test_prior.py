"""A prior by similarity is a softmax at every temperature; under it the exact field draws data as often as it says."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from scipy.stats import chisquare

import fluvial as fv
from fluvial.randomness import noise


def _embeddings(rows: int, seed: int, width: int = 16) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, width)))


@pytest.mark.parametrize("temperature", [1e-3, 0.05, 1.0, 100.0])
def test_it_is_the_softmax_of_cosines(temperature):
    query, support = _embeddings(3, 0), _embeddings(20, 1)
    a, b = query.numpy(), support.numpy()
    cosine = (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)
    found = fv.similarity_prior(query, support, temperature)
    np.testing.assert_allclose(found.numpy(), log_softmax(cosine / temperature, axis=1), rtol=1e-9, atol=1e-9)
    single = fv.similarity_prior(query[0], support, temperature)
    assert single.shape == (1, 20) and torch.allclose(single[0], found[0], rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-300, 1e-20, 1e20, 1e300])
def test_norms_play_no_part_however_large(scale):
    query, support = _embeddings(2, 0), _embeddings(5, 1)
    expected = fv.similarity_prior(query, support, 0.1)
    torch.testing.assert_close(fv.similarity_prior(scale * query, support, 0.1), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(fv.similarity_prior(query, scale * support, 0.1), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1e-300, 1e-12, 1e-9])
def test_cold_priors_are_the_arg_max(temperature):
    query, support = _embeddings(4, 2), _embeddings(300, 3)
    found = fv.similarity_prior(query, support, temperature)
    best = torch.nn.functional.cosine_similarity(query[:, None], support[None], dim=2).argmax(1)
    assert torch.equal(found.argmax(1), best)
    torch.testing.assert_close(found.exp(), torch.nn.functional.one_hot(best, 300).double(), rtol=0, atol=1e-30)


@pytest.mark.parametrize("temperature", [0.0, 1e-300, 1e-13])
def test_ties_share_even_where_rounding_tells_them_apart(temperature):
    query, support = _embeddings(1, 4, 384), _embeddings(40, 5, 384)
    support[[3, 17, 30]] = torch.stack([query[0], 3.7 * query[0], query[0] / 7.1])
    prior = fv.similarity_prior(query, support, temperature).exp()[0]
    torch.testing.assert_close(prior[[3, 17, 30]], torch.full((3,), 1 / 3, dtype=torch.float64))
    assert prior.sum() == pytest.approx(1)


def test_types_of_the_result():
    for query, support, expected in (
        (torch.float32, torch.float32, torch.float32),
        (torch.bfloat16, torch.float16, torch.float32),
        (torch.float32, torch.float64, torch.float64),
    ):
        found = fv.similarity_prior(_embeddings(2, 0).to(query), _embeddings(3, 1).to(support), 0.1)
        assert found.dtype == expected and found.exp().sum(1).sub(1).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("query", "support", "temperature", "message"),
    [
        (torch.ones(4), torch.ones(3, 4), -0.1, "temperature must be finite and not negative, got -0.1"),
        (torch.ones(4), torch.ones(3, 4), float("nan"), "temperature .* got nan"),
        (torch.ones(4), torch.ones(3, 4), float("inf"), "temperature .* got inf"),
        (torch.ones(5), torch.ones(3, 4), 0.1, r"query_embeddings must have shape \(B, 4\) or \(4,\).* got \(5,\)"),
        (torch.ones(2, 2, 4), torch.ones(3, 4), 0.1, r"query_embeddings .* got \(2, 2, 4\)"),
        (torch.tensor(1.0), torch.ones(3, 4), 0.1, r"query_embeddings .* got \(\)"),
        (torch.ones(4), torch.ones(4), 0.1, r"support_embeddings must have shape \(N, e\).* got \(4,\)"),
        (torch.ones(4), torch.ones(0, 4), 0.1, r"support_embeddings .* got \(0, 4\)"),
        (torch.ones(4).long(), torch.ones(3, 4), 0.1, "query_embeddings must be floating, got torch.int64"),
        (torch.tensor([1.0, torch.nan]), torch.ones(3, 2), 0.1, "query_embeddings .* 1 of 1 rows hold NaN"),
        (torch.ones(2), torch.tensor([[1.0, 1], [0, 0], [0, 0]]), 0.1, "2 of 3 rows hold zeros alone, .* row 1"),
    ],
)
def test_bad_input_is_named(query, support, temperature, message):
    with pytest.raises(ValueError, match=message):
        fv.similarity_prior(query, support, temperature)


def test_what_is_no_tensor_is_refused():
    with pytest.raises(TypeError):
        fv.similarity_prior(torch.ones(2), [[1.0, 2.0]], 0.1)


SUPPORT = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 2], [-2, -2, 0], [1, 1, 1]], dtype=torch.float64)
QUERY, EMBEDDINGS = _embeddings(1, 6, 8)[0], _embeddings(6, 7, 8)
DRAWN = 2000


def _drawn(log_prior: torch.Tensor, *, at_construction: bool = False) -> torch.Tensor:
    """Which datum each of many noises is transported to; each end point is a datum."""
    x0 = noise(0, 0, DRAWN, (3,), torch.float64)
    field = fv.ExactField(SUPPORT, log_prior=log_prior[0] if at_construction else None)
    cond = None if at_construction else log_prior.expand(DRAWN, -1)
    with torch.no_grad():
        end = fv.solve(field, x0, steps=100, method="heun", cond=cond).x
    found = fv.metrics.nearest_neighbours(end, SUPPORT)
    # noise on the border of two basins stops between their data
    assert found.distance.quantile(0.98) < 1e-3
    return found.index


@pytest.mark.parametrize("temperature", [0.0, 1e-9, 1e-3])
def test_as_the_temperature_falls_every_sample_is_the_arg_max(temperature):
    log_prior = fv.similarity_prior(QUERY, EMBEDDINGS, temperature)
    best = torch.nn.functional.cosine_similarity(QUERY[None], EMBEDDINGS).argmax()
    assert bool((_drawn(log_prior) == best).all())


@pytest.mark.parametrize(
    "temperature", [pytest.param(0.2, marks=pytest.mark.slow), 0.5, pytest.param(2.0, marks=pytest.mark.slow)]
)
def test_frequencies_are_those_of_the_prior_and_of_no_other(temperature):
    log_prior = fv.similarity_prior(QUERY, EMBEDDINGS, temperature)
    counts = np.bincount(_drawn(log_prior).numpy(), minlength=6)
    expected = DRAWN * log_prior.exp()[0].numpy()
    assert chisquare(counts, expected).pvalue > 1e-3
    for wrong in (1.25 * temperature, 0.8 * temperature):
        other = DRAWN * fv.similarity_prior(QUERY, EMBEDDINGS, wrong).exp()[0].numpy()
        if temperature < 1:  # near the uniform prior a quarter more temperature changes what 2,000 samples cannot tell
            assert chisquare(counts, other).pvalue < 1e-3
    assert chisquare(counts).pvalue < 1e-3  # uniform


@pytest.mark.slow
def test_a_prior_at_construction_draws_the_same():
    log_prior = fv.similarity_prior(QUERY, EMBEDDINGS, 0.5)
    assert torch.equal(_drawn(log_prior), _drawn(log_prior, at_construction=True))
