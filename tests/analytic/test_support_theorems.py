r"""The theorems of "Support-Conditioned Flow Matching Is Kernel Smoothing" (Matsui Smola 2026), in float64 and float32.

Each is written out here from the paper, in the type under test, without the package's own formulas; the package is
then held against it. Points lie where the path puts them; ``x~ = x / t`` and ``h = sigma / t``.

**Tolerances** follow rounding, for a unit roundoff ``eps``, and are stated row by row:

* The vector :math:`(x - t s_i) / \sigma` is known to :math:`\eta = 4 \epsilon (|x| + t R) / \sigma`, ``R`` the largest
  norm in the support. A logit :math:`-|(x - t s_i) / \sigma|^2 / 2 = -\ell` is then known to :math:`\delta = \eta
  \sqrt{2 \ell} + \eta^2 + 8 \epsilon \ell`. Points more than 40 below the top carry no weight, so :math:`\ell` is the
  top's plus 40.
* Logits off by :math:`\delta` move the mean by at most :math:`2 \delta` times the posterior's spread, and sums of
  ``m`` terms add :math:`4 \epsilon R`. The spread vanishes where one point has all the weight, so that the checks stay
  sharp at ``t = 1 - 1e-6``.
* A velocity divides the mean's error by :math:`\sigma`; each term that cancels adds :math:`4 \epsilon` of its size:
  :math:`|x| / t` in the paper's forms, which are singular at ``t = 0``, and :math:`(|x| + R) / \sigma` in the regular.
* A product of lifted vectors is off by :math:`\epsilon (d + 4) \langle |q|, |k| \rangle`: in float32 at ``t = .99``
  some thousandths, as the paper's own code shows (3.9e-3), which is why the head leaves it late in time.

Every identity has a perturbed twin that must break it by far more than the tolerance.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import fluvial as fv
from fluvial.randomness import generator
from fluvial.support.kernel.attention import KernelAttention

DTYPES = [torch.float64, torch.float32]
TIMES = (1e-6, 0.01, 0.3, 0.56, 0.9, 0.99, 0.999, 1 - 1e-6)
MODERATE = (0.3, 0.56)  # with a support narrow enough that several points share the weight
DIMENSIONS = (1, 4, 32)
RESTS = (0.0, 0.01)
N, M = 12, 20


@dataclass(frozen=True)
class Case:
    """Points ``x`` of a path to a support at one time, in the type under test."""

    x: Tensor
    s: Tensor
    t: Tensor
    rest: float

    @property
    def sigma(self) -> Tensor:
        return (1 - self.t) + self.rest * self.t

    @property
    def h(self) -> Tensor:
        return self.sigma / self.t

    def double(self) -> "Case":
        return Case(self.x.double(), self.s.double(), self.t.double(), self.rest)


def cases(dtype: torch.dtype, times: tuple[float, ...] = TIMES, scale: float = 3.0) -> list[Case]:
    found = []
    for d in DIMENSIONS:
        for k, t in enumerate(times):
            for rest in RESTS:
                g = generator(d, k)
                s = (scale * torch.randn(M, d, generator=g, dtype=torch.float64)).to(dtype)
                time = torch.tensor(t, dtype=dtype)
                sigma = (1 - time.double()) + rest * time.double()
                x1, x0 = s.double()[torch.randint(M, (N,), generator=g)], torch.randn(N, d, generator=g).double()
                found.append(Case((time.double() * x1 + sigma * x0).to(dtype), s, time, rest))
    return found


@dataclass(frozen=True)
class Tolerance:
    """What rounding may do to each row, shape ``(N,)``; see the module's docstring."""

    logit: Tensor
    mean: Tensor
    velocity: Tensor
    singular: Tensor


def tolerance(case: Case, metric: Tensor | None = None) -> Tolerance:
    eps, c = torch.finfo(case.x.dtype).eps / 2, case.double()
    x, radius = c.x.norm(dim=1), c.s.norm(dim=1).max()
    apart = (c.x[:, None] - c.t * c.s) / c.sigma
    stretch = 1.0 if metric is None else float(torch.linalg.matrix_norm(metric.double(), 2))
    size = 0.5 * (apart * (apart if metric is None else apart @ metric.double())).sum(2)
    weights = torch.softmax(-size, 1)
    spread = (weights * (c.s - (weights @ c.s)[:, None]).square().sum(2)).sum(1).sqrt()
    eta, top = 4 * eps * stretch**0.5 * (x + c.t * radius) / c.sigma, size.amin(1) + 40
    logit = eta * (2 * top).sqrt() + eta.square() + 8 * eps * top * (1 if metric is None else case.x.shape[1])
    mean = 2 * logit * spread + 4 * eps * radius
    regular = mean / c.sigma + 4 * eps * (x + radius) / c.sigma
    return Tolerance(logit, mean, regular, regular / c.t + 4 * eps * x / (c.t * c.sigma))


def log_density(case: Case, x: Tensor) -> Tensor:
    """``log p_t(x) = log 1/m sum_i N(x; t s_i, sigma^2)``, shape ``(N,)``."""
    exponents = -((x[:, None] - case.t * case.s) / case.sigma).square().sum(2) / 2
    return torch.logsumexp(exponents, 1) - math.log(M) - x.shape[1] * torch.log(case.sigma * math.sqrt(2 * math.pi))


def score(case: Case) -> Tensor:
    x = case.x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(log_density(case, x).sum(), x)
    return gradient


def kernel_mean(case: Case) -> Tensor:
    """Nadaraya-Watson mean of the support, differences before squares."""
    apart = (case.x[:, None] - case.t * case.s) / case.sigma
    return torch.softmax(-apart.square().sum(2) / 2, 1) @ case.s


def regular_velocity(case: Case, mean: Tensor) -> Tensor:
    """``(m - (1 - sigma_min) x) / sigma``, as ``x`` moves towards it."""
    return (mean - (1 - case.rest) * case.x) / case.sigma


def head_velocity(case: Case, metric: Tensor | None = None) -> Tensor:
    head = KernelAttention(fv.CondOT(case.rest), metric=metric)
    return head(case.x[None], case.t, case.s[None])[0]


def excess(found: Tensor, wanted: Tensor, allowed: Tensor) -> float:
    """Largest error over what is allowed: at most 1 where an identity holds."""
    error = (found.double() - wanted.double()).reshape(len(allowed), -1).norm(dim=1)
    return float((error / allowed).max())


Check = Callable[[Case, float], float]


def velocity_score(case: Case, wrong: float = 0.0) -> float:
    r"""Proposition 3.3: :math:`u_t(x) = x / t + (\sigma_t / t) \nabla \log p_t(x)`."""
    found = case.x / case.t + (1 + wrong) * case.sigma / case.t * score(case)
    return excess(found, head_velocity(case), tolerance(case).singular)


def tweedie(case: Case, wrong: float = 0.0) -> float:
    r"""Tweedie: :math:`t\, E[x_1 | x] = x + \sigma_t^2 \nabla \log p_t(x)`."""
    mean = KernelAttention(fv.CondOT(case.rest)).posterior_mean(case.x[None], case.t, case.s[None])[0]
    allowed = tolerance(case)
    eps = torch.finfo(case.x.dtype).eps
    size = allowed.mean + 4 * eps * case.double().x.norm(dim=1)
    return excess(case.x + (1 + wrong) * case.sigma**2 * score(case), case.t * mean, size)


def kde(case: Case, wrong: float = 0.0) -> float:
    r"""Proposition 4.2: :math:`t^d p_t(t x~) = \frac{1}{m} \sum_i N(x~; s_i, h^2)`, in logarithms."""
    d, scaled, h = case.x.shape[1], case.x / case.t, case.h * (1 + wrong)
    exponents = -((scaled[:, None] - case.s) / h).square().sum(2) / 2
    found = torch.logsumexp(exponents, 1) - math.log(M) - d * torch.log(h * math.sqrt(2 * math.pi))
    logs = sum(abs(float(torch.log(part))) for part in (case.t, case.sigma, h)) + 2
    allowed = 2 * tolerance(case).logit + 8 * torch.finfo(case.x.dtype).eps * d * logs
    return excess(found, d * torch.log(case.t) + log_density(case, case.x), allowed)


def exact_velocity(case: Case, wrong: float = 0.0) -> float:
    r"""Proposition 4.4: :math:`u_t(t x~) = x~ + (m_h(x~) - x~) / \sigma_t`, and the regular form, without 1 / t."""
    scaled, mean = case.x / case.t, kernel_mean(case) * (1 + wrong)
    allowed, head = tolerance(case), head_velocity(case)
    paper = excess(scaled + (mean - scaled) / case.sigma, head, allowed.singular)
    return max(paper, excess(regular_velocity(case, mean), head, allowed.velocity))


def attention(case: Case, wrong: float = 0.0) -> float:
    r"""Theorem 5.2: an attention head of logits :math:`-|x~ - s_i|^2 / 2 h^2` and an affine map are the exact field.

    The head is torch's, its logits given as a bias to queries of 0."""
    logits = -((case.x / case.t)[:, None] - case.s).square().sum(2) / (2 * (case.h * (1 + wrong)) ** 2)
    none = torch.zeros(1, 1, N, case.x.shape[1], dtype=case.x.dtype), torch.zeros(1, 1, M, case.x.shape[1]).to(case.x)
    mean = scaled_dot_product_attention(*none, case.s[None, None], attn_mask=logits[None, None])[0, 0]
    return excess(regular_velocity(case, mean), head_velocity(case), tolerance(case).velocity)


IDENTITIES = {f.__name__: f for f in (velocity_score, tweedie, kde, exact_velocity, attention)}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", IDENTITIES)
def test_identity_holds_at_all_times(name: str, dtype: torch.dtype) -> None:
    for case in cases(dtype):
        found = IDENTITIES[name](case)
        assert found <= 1, (tuple(case.s.shape), float(case.t), case.rest)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", IDENTITIES)
def test_a_hundredth_of_error_breaks_the_identity(name: str, dtype: torch.dtype) -> None:
    for case in cases(dtype, MODERATE, 0.5):
        assert IDENTITIES[name](case, 0.01) > 10, (tuple(case.s.shape), float(case.t), case.rest)


def lifted(case: Case, full: bool, wrong: float = 0.0) -> tuple[Tensor, Tensor]:
    """Corollary 5.3: queries and keys whose products are the logits; without ``full``, up to a constant of the row."""
    scaled, h, s = case.x / case.t, case.h, case.s
    ones, squares = torch.ones(N, 1).to(s), -s.square().sum(1, keepdim=True) / (2 * h) * (1 + wrong) / h
    if not full:
        return torch.cat([scaled / h**2, ones], 1), torch.cat([s, squares], 1)
    own = -scaled.square().sum(1, keepdim=True) / (2 * h) / h
    return torch.cat([scaled / h, own, ones], 1), torch.cat([s / h, torch.ones(M, 1).to(s), squares], 1)


def lift_excess(case: Case, wrong: float = 0.0) -> float:
    """Largest error of a lifted logit over what is allowed, its reference's own rounding included."""
    c, eps = case.double(), torch.finfo(case.x.dtype).eps / 2
    direct = -((c.x[:, None] - c.t * c.s) / c.sigma).square().sum(2) / 2
    own = 8 * tolerance(case.double()).logit[:, None] + 8 * torch.finfo(torch.float64).eps * direct.abs()
    q, k = lifted(case, True, wrong)
    sizes = 2 * eps * (case.x.shape[1] + 4) * (q.abs() @ k.abs().T).double()
    full = ((q @ k.T).double() - direct).abs() / (sizes + own)
    q, k = lifted(case, False, wrong)
    products = (q @ k.T).double()
    apart = (products - products[:, :1]) - (direct - direct[:, :1])  # the row's constant drops out
    sizes = 2 * eps * (case.x.shape[1] + 4) * (q.abs() @ k.abs().T).double()
    short = apart.abs() / (sizes + sizes[:, :1] + own + own[:, :1])
    return float(torch.maximum(full, short).max())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_lift_makes_the_logits_a_product(dtype: torch.dtype) -> None:
    for case in cases(dtype):
        assert lift_excess(case) <= 1, (tuple(case.s.shape), float(case.t), case.rest)
    for case in cases(dtype, MODERATE, 0.5):
        assert lift_excess(case, 0.01) > 10


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_lifted_attention_is_the_head_until_rounding_spoils_it(dtype: torch.dtype) -> None:
    """Through torch's fused attention, ``d + 1`` columns; held against the head, which knows when to leave it."""
    eps = torch.finfo(dtype).eps / 2
    late = 0.0
    for case in cases(dtype):
        q, k = lifted(case, False)
        mean = scaled_dot_product_attention(q[None, None], k[None, None], k[None, None], scale=1.0)[0, 0, :, :-1]
        allowed, d = tolerance(case), case.x.shape[1]
        delta = eps * (d + 4) * 2 * (q.abs() @ k.abs().T).double().amax(1)
        spread = (allowed.mean - 4 * eps * case.double().s.norm(dim=1).max()) / (2 * allowed.logit)
        moved = torch.where(delta < 1, 2 * delta * spread, torch.inf)
        bound = allowed.velocity + moved / case.double().sigma
        error = (regular_velocity(case, mean) - head_velocity(case)).double().norm(dim=1)
        assert bool((error <= bound).all()), (d, float(case.t), case.rest)
        if dtype == torch.float32 and case.t < 0.6:
            assert bool(torch.isfinite(bound).all())  # the bound says something up to the middle of the path
        late = max(late, float((error / head_velocity(case).double().norm(dim=1)).max()) if case.t > 0.99 else 0.0)
    assert dtype == torch.float64 or late > 1e-4


def draw_metric(d: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    factor = torch.randn(d, d, generator=generator(d, 9), dtype=torch.float64) / d**0.5
    factor = (factor + torch.eye(d)).to(dtype)
    return factor, factor @ factor.T


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_mahalanobis_head_is_isotropic_on_transformed_points(dtype: torch.dtype) -> None:
    r"""Logits :math:`-(x~ - s)^T M (x~ - s) / 2 h^2`, ``M = L L^T``, are those of :math:`L^T x~` and :math:`L^T s`; the
    values stay the support, and so does the affine map."""
    for case in cases(dtype):
        factor, metric = draw_metric(case.x.shape[1], dtype)
        apart = (case.x[:, None] - case.t * case.s) / case.sigma
        direct = -((apart @ metric) * apart).sum(2) / 2
        turned = -(apart @ factor).square().sum(2) / 2
        allowed = tolerance(case, metric)
        top = direct.amax(1, keepdim=True)
        near = direct > top - 40
        assert excess(torch.where(near, turned - direct, 0.0).abs().amax(1), torch.zeros(N), 2 * allowed.logit) <= 1
        wanted = regular_velocity(case, torch.softmax(direct, 1) @ case.s)
        assert excess(head_velocity(case, metric), wanted, 2 * allowed.velocity) <= 1, (factor.shape, float(case.t))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_another_metric_is_another_field(dtype: torch.dtype) -> None:
    for case in cases(dtype, MODERATE, 0.5):
        factor, metric = draw_metric(case.x.shape[1], dtype)
        apart = (case.x[:, None] - case.t * case.s) / case.sigma
        for wrong in (metric * 1.1, *([factor.T @ factor] if len(metric) > 1 else [])):
            mean = torch.softmax(-((apart @ wrong) * apart).sum(2) / 2, 1) @ case.s
            found = excess(
                head_velocity(case, metric), regular_velocity(case, mean), 2 * tolerance(case, metric).velocity
            )
            assert found > 10


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_at_the_beginning_the_head_is_the_mean_of_the_support(dtype: torch.dtype) -> None:
    """``u_0(x) = mean - (1 - sigma_min) x``, with no clamp at 0."""
    for rest in RESTS:
        s = 3 * torch.randn(M, 8, generator=generator(1), dtype=torch.float64).to(dtype)
        x = torch.randn(N, 8, generator=generator(2), dtype=torch.float64).to(dtype)
        found = head_velocity(Case(x, s, torch.tensor(0.0, dtype=dtype), rest))
        torch.testing.assert_close(found, s.mean(0) - (1 - rest) * x, rtol=0, atol=64 * torch.finfo(dtype).eps)
