"""Figures of the probe against scipy, against closed forms, and where attention and kernel must or cannot agree."""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from fluvial.support.probing.calls import AttentionCall, four_dimensional, fused_call
from fluvial.support.probing.statistics import Scores, average_ranks, head_statistics, permuted


def _scores(q: Tensor, k: Tensor, scale: float | None = None, **settings: object) -> Scores:
    """Scores of all queries of one batch row."""
    call = AttentionCall(q[None], k[None], q.shape[-1] ** -0.5 if scale is None else scale, **settings)
    return call.scores(torch.stack([torch.zeros(q.shape[1]).long(), torch.arange(q.shape[1])], 1))


def _of(scores: Scores, seed: int = 0, permutations: int = 20) -> dict[str, list[float]]:
    found = head_statistics(scores, permutations, torch.Generator().manual_seed(seed))
    return {name: value.tolist() for name, value in vars(found).items()}


@pytest.mark.parametrize("seed", range(5))
def test_ranks_are_scipys_with_ties_and_masks(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 5, (3, 4, 9), generator=generator).double()
    there = torch.rand(3, 4, 9, generator=generator) > 0.3
    ranks = average_ranks(x, there)
    for row, own, mask in zip(x.flatten(0, 1), ranks.flatten(0, 1), there.flatten(0, 1), strict=True):
        assert own[mask].tolist() == stats.rankdata(row[mask].numpy()).tolist()


@pytest.mark.parametrize("scale", [None, 0.05, 1.0])
@pytest.mark.parametrize("masked", [False, True])
def test_correlations_entropy_and_support_are_those_of_independent_code(scale: float | None, masked: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    q, k = (torch.randn(2, n, 6, generator=generator, dtype=torch.float64) for n in (7, 11))
    mask = torch.rand(7, 11, generator=generator) > 0.3 if masked else torch.ones(7, 11, dtype=torch.bool)
    found = _of(_scores(q, k, scale, mask=mask if masked else None))
    s = 6**-0.5 if scale is None else scale
    for head in range(2):
        rho, r, entropy, support, spread, pooled = [], [], [], [], [], ([], [])
        for i in range(7):
            keys = k[head, mask[i]]
            a = torch.softmax(s * keys @ q[head, i], 0)
            # The kernel by distances, at h^2 = 1/s.
            w = torch.exp(-(q[head, i] - keys).square().sum(1) / (2 / s))
            w = w / w.sum()
            rho.append(stats.spearmanr(a, w).statistic)
            r.append(stats.pearsonr(a, w).statistic)
            entropy.append(stats.entropy(a))
            support.append(float(1 / (a @ a)))
            spread.append(float(keys.norm(dim=1).std(correction=0) / keys.norm(dim=1).mean()))
            pooled[0].extend(a.tolist()), pooled[1].extend(w.tolist())
        expected = {"spearman": rho, "pearson": r, "entropy": entropy, "support": support, "norm_spread": spread}
        for name, values in expected.items():
            assert found[name][head] == pytest.approx(sum(values) / 7, rel=1e-9), name
        assert found["pearson_pooled"][head] == pytest.approx(stats.pearsonr(*pooled).statistic, rel=1e-9)


def test_keys_of_one_norm_agree_exactly() -> None:
    generator = torch.Generator().manual_seed(2)
    q = torch.randn(3, 20, 16, generator=generator, dtype=torch.float64)
    k = torch.randint(0, 2, (3, 12, 16), generator=generator).double() * 2 - 1  # every norm is 4
    found = _of(_scores(3 * q, k))
    assert found["spearman"] == pytest.approx([1.0] * 3, abs=1e-14)
    assert found["pearson"] == pytest.approx([1.0] * 3, abs=1e-12)
    assert found["norm_spread"] == [0.0] * 3 and found["penalty_spread"] == [0.0] * 3


def test_norms_reverse_the_order_where_keys_lie_on_a_ray() -> None:
    # Keys 1, 2, ..., 6 along q = 1: attention prefers the longest, the kernel the nearest.
    q, k = torch.ones(1, 1, 1), torch.arange(1.0, 7).reshape(1, 6, 1)
    found = _of(_scores(q, k))
    assert found["spearman"] == pytest.approx([-1.0], abs=1e-14) and found["pearson"][0] < 0
    # q = 4: distances of 3, 2, 1, 0, 1, 2 give the weights the ranks 1, 2.5, 4.5, 6, 4.5, 2.5.
    found = _of(_scores(4 * q, k))
    assert found["spearman"][0] == pytest.approx(stats.spearmanr(range(6), [1, 2.5, 4.5, 6, 4.5, 2.5]).statistic)
    assert found["norm_spread"][0] == pytest.approx(math.sqrt(35 / 12) / 3.5)
    assert found["penalty_spread"][0] == pytest.approx(float((torch.arange(1.0, 7) ** 2 / 2).std(correction=0)))
    assert found["product_spread"][0] == pytest.approx(4 * math.sqrt(35 / 12))


def test_agreement_falls_as_norms_spread() -> None:
    generator = torch.Generator().manual_seed(3)
    q, k = (torch.randn(1, n, 16, generator=generator, dtype=torch.float64) for n in (64, 32))
    unit = k / k.norm(dim=-1, keepdim=True)
    lengths = torch.linspace(-1, 1, 32, dtype=torch.float64)[:, None]
    found = [_of(_scores(q, 4 * unit * (amount * lengths).exp()))["spearman"][0] for amount in (0.0, 0.05, 0.2, 0.8)]
    assert found[0] == pytest.approx(1, abs=1e-9)
    assert found == sorted(found, reverse=True) and found[-1] < 0.5


def test_permuted_keys_have_the_exact_null() -> None:
    """Over uniform permutations rho has mean 0 and variance |G|^2 / (m - 1), G the mean over rows of a w^T."""
    generator = torch.Generator().manual_seed(4)
    q, k = (torch.randn(1, n, 8, generator=generator, dtype=torch.float64) for n in (10, 9))
    found = _of(_scores(q, k), permutations=4000)
    a, w = (torch.tensor(stats.rankdata(x, axis=1)) - 5 for x in (q[0] @ k[0].T, -torch.cdist(q[0], k[0])))
    a, w = (x / x.norm(dim=1, keepdim=True) for x in (a, w))
    spread = float((a.T @ w / 10).norm() / math.sqrt(8))
    assert found["null_spread"][0] == pytest.approx(spread, rel=0.05)
    assert abs(found["null"][0]) < 4 * spread / math.sqrt(4000)
    assert found["spearman"][0] > 3 * spread


def test_permutations_keep_to_the_tokens_that_are_there() -> None:
    generator = torch.Generator().manual_seed(5)
    x, there = torch.randn(2, 3, 8, generator=generator), torch.rand(2, 3, 8, generator=generator) > 0.4
    found = permuted(x, there, generator)
    for before, after, mask in zip(x.flatten(0, 1), found.flatten(0, 1), there.flatten(0, 1), strict=True):
        assert sorted(before[mask].tolist()) == sorted(after[mask].tolist())
    assert not torch.equal(found, x.masked_fill(~there, 0))


def test_rows_without_an_order_are_left_out() -> None:
    k = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    q = torch.stack([torch.zeros(4), torch.ones(4)]).double()[None]  # a query of zero attends to all alike
    both, second = _of(_scores(q, k)), _of(_scores(q[:, 1:], k))
    assert both["spearman"] == second["spearman"] and both["pearson"] == second["pearson"]
    assert both["entropy"][0] == pytest.approx((math.log(5) + second["entropy"][0]) / 2)
    nothing = _of(_scores(q[:, :1], k))
    assert math.isnan(nothing["spearman"][0]) and math.isnan(nothing["pearson_pooled"][0])
    mask = torch.tensor([[True, True, False, False, False], [False] * 5])  # two tokens, and none
    found = _of(_scores(q.flip(1), k, mask=mask))
    assert math.isnan(found["spearman"][0]) and not math.isnan(found["support"][0])


def test_weights_that_underflow_still_have_ranks() -> None:
    q, k = torch.full((1, 1, 1), 1e4), torch.tensor([1.0, -1.0, 0.5, 0.25]).reshape(1, 4, 1)
    found = _of(_scores(q, k, 1.0))
    assert found["spearman"] == [1.0] and found["support"] == [1.0] and found["entropy"] == [0.0]


def test_biases_are_the_attentions_alone() -> None:
    generator = torch.Generator().manual_seed(7)
    q, k = (torch.randn(1, n, 8, generator=generator, dtype=torch.float64) for n in (4, 6))
    bias = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    bias[:, 2] = -10000.0
    scores = _scores(q, k, mask=bias)
    expected = torch.softmax(q[0] @ k[0].T / math.sqrt(8) + bias.masked_fill(bias < -9999, -torch.inf), -1)
    torch.testing.assert_close(scores.attention[0], expected)
    kernel = torch.softmax(
        -torch.cdist(q[0], k[0]).square().index_fill(1, torch.tensor(2), torch.inf) / math.sqrt(32), -1
    )
    torch.testing.assert_close(scores.kernel[0], kernel)


def test_queries_are_drawn_without_repetition_and_bounded() -> None:
    call = AttentionCall(torch.zeros(5, 2, 30, 4), torch.zeros(5, 2, 7, 4), 0.5)
    first, again = (call.drawn(40, slice(1, 4), torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again) and len(first.unique(dim=0)) == 40
    assert set(first[:, 0].tolist()) == {1, 2, 3} and int(first[:, 1].max()) < 30
    assert len(call.drawn(1000, slice(None), torch.Generator())) == 150
    wide = AttentionCall(
        torch.zeros(1, 1, 1, 1).expand(1, 64, 4096, 4), torch.zeros(1, 1, 1, 1).expand(1, 64, 4096, 4), 0.5
    )
    assert len(wide.drawn(64, slice(None), torch.Generator())) == 2**22 // (64 * 4096)


@pytest.mark.parametrize("shape", [(5, 4), (6, 5, 4), (2, 3, 5, 4), (2, 2, 3, 5, 4)])
def test_any_number_of_dimensions_and_shared_keys(shape: tuple[int, ...]) -> None:
    q = torch.randn(shape, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    call = fused_call({"query": q, "key": q[..., :4, :]}, heads=3)
    assert call.q.shape[-2:] == (5, 4) and call.q.numel() == q.numel()
    assert call.q.shape[1] == (1 if len(shape) == 2 else 3) and call.scale == 0.5
    assert four_dimensional(q, None).shape[1] == (3 if len(shape) > 3 else 1)
    if len(shape) == 4:
        grouped = fused_call({"query": q.repeat(1, 2, 1, 1), "key": q, "enable_gqa": True}, None)
        drawn = grouped.drawn(99, slice(None), torch.Generator())
        expected = torch.softmax(q.repeat(1, 2, 1, 1) @ q.repeat_interleave(2, 1).mT / 2, -1)
        torch.testing.assert_close(grouped.scores(drawn).attention, expected.transpose(0, 1).flatten(1, 2))
