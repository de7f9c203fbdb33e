"""The kernel attention head: the exact field of each task's support, at all times, in all its ways of computing."""

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

import fluvial as fv
from fluvial.conditions import Tokens
from fluvial.randomness import generator
from fluvial.support.kernel import attention as kernel_attention
from fluvial.support.kernel import tiles as kernel_tiles
from fluvial.support.kernel.attention import KernelAttention
from fluvial.support.kernel.checks import checked_heads
from fluvial.support.kernel.logits import TOLERANCE, Block, Heads, kernel_weights

PATHS = {
    "condot": fv.CondOT(),
    "condot-rest": fv.CondOT(0.01),
    "vp": fv.VP(),
    "cosine": fv.Cosine(),
    "bandwidth": fv.FromBandwidth(lambda t: (1 - t) / t, lambda t: -1 / t**2),
}
TIMES = (0.0, 1e-6, 0.1, 0.3, 0.5, 0.9, 0.99, 0.999, 1 - 1e-6)
KINDS = ("unit", "wide", "far", "ties", "duplicates")
B, N, M = 3, 20, 30


def draw_support(kind: str, d: int, dtype: torch.dtype = torch.float32) -> Tensor:
    g = generator(d, len(kind))
    s = torch.randn(B, M, d, generator=g, dtype=torch.float64)
    if kind == "wide":
        s *= 5
    if kind == "far":
        s += 1000
    if kind == "ties":
        s[:, M // 2 :] = s[:, : M // 2] + 1e-4 * torch.randn(B, M // 2, d, generator=g, dtype=torch.float64)
    if kind == "duplicates":
        s[:, M // 2 :] = s[:, : M // 2]
    return s.to(dtype)


def on_path(support: Tensor, t: float, path: fv.GaussianPath, seed: int = 0, n: int = N) -> Tensor:
    """Points of the path from noise to each support, drawn in float64 and rounded to the support's type."""
    g = generator(seed, 1)
    tasks, m, d = support.shape
    time = torch.tensor(t, dtype=support.dtype).double()
    x1 = support.double()[:, torch.randint(m, (n,), generator=g)]
    x0 = torch.randn(tasks, n, d, generator=g, dtype=torch.float64)
    return (path.alpha(time) * x1 + path.sigma(time) * x0).to(support.dtype)


def expanded(x: Tensor, t: Tensor, support: Tensor, path: fv.GaussianPath, metric: Tensor | None = None) -> Tensor:
    """The field in float64 from all differences ``(B, n, m, d)``, written out independently of the package."""
    x, s, t = x.double(), support.double(), t.double()[..., None]
    alpha, sigma = path.alpha(t), path.sigma(t)
    apart = x[:, :, None] - alpha[:, :, None] * s[:, None]
    moved = apart if metric is None else apart @ metric.double()
    mean = torch.softmax(-(apart * moved).sum(3) / (2 * sigma**2), 2) @ s
    return path.alpha_dot(t) * mean + path.sigma_dot(t) / sigma * (x - alpha * mean)


def relative(found: Tensor, wanted: Tensor) -> float:
    """Largest error of a row, relative to its norm."""
    return float(((found.detach().double() - wanted).norm(dim=-1) / wanted.norm(dim=-1)).max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PATHS)
def test_equals_the_float64_sum_at_all_times(name: str, kind: str) -> None:
    path = PATHS[name]
    support = draw_support(kind, 3 if kind in ("ties", "duplicates") else 16)
    for t in TIMES:
        x, times = on_path(support, t, path), torch.full((B, N), t)
        found = KernelAttention(path)(x, times, support)
        assert found.dtype == torch.float32
        assert relative(found, expanded(x, times, support, path)) < 1e-4, t


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_exact_field_of_each_task(kind: str) -> None:
    path = dict(zip(KINDS, PATHS.values(), strict=True))[kind]
    support = draw_support(kind, 8)
    fields = [fv.ExactField(s, path) for s in support]
    for t in (1e-6, 0.3, 0.9, 1 - 1e-6):
        x = on_path(support, t, path)
        found = KernelAttention(path)(x, t, support)
        for mine, field, rows in zip(found, fields, x, strict=True):
            exact = field(rows, t)
            assert float((mine - exact).norm() / exact.norm()) < 1e-4, t


def test_float64_holds_to_ten_digits() -> None:
    support = draw_support("wide", 6, torch.float64)
    for t in TIMES:
        x, times = on_path(support, t, PATHS["condot"]), torch.full((B, N), t, dtype=torch.float64)
        found = KernelAttention(fv.CondOT())(x, times, support)
        assert found.dtype == torch.float64
        # Of x and alpha s the differences lose eps * 20 / sigma, which at the last time is 4e-9.
        assert relative(found, expanded(x, times, support, fv.CondOT())) < (1e-10 if t < 0.999 else 1e-8)


def test_points_that_are_mixed_in_time_do_not_disturb_one_another() -> None:
    support = draw_support("wide", 4)
    t = torch.linspace(0, 1 - 1e-6, B * N)[torch.randperm(B * N, generator=generator(0))].reshape(B, N)
    x = torch.stack([on_path(support, float(time), fv.CondOT(), k, 1)[:, 0] for k, time in enumerate(t[0])], 1)
    head = KernelAttention(fv.CondOT())
    whole = head(x, t, support)
    for k in range(0, N, 7):
        torch.testing.assert_close(
            head(x[:, k : k + 1], t[:, k : k + 1], support), whole[:, k : k + 1], rtol=1e-5, atol=1e-5
        )


def test_times_of_tasks_and_a_scalar_mean_what_they_say() -> None:
    support, head = draw_support("unit", 4), KernelAttention()
    x = on_path(support, 0.5, head.path)
    t = torch.tensor([0.9, 0.1, 0.5])  # the second task goes by fused attention, the others do not
    per_task = head(x, t, support)
    torch.testing.assert_close(per_task, head(x, t[:, None].expand(B, N), support))
    for k in range(B):
        torch.testing.assert_close(per_task[k : k + 1], head(x[k : k + 1], float(t[k]), support[k : k + 1]))


def test_early_points_go_by_fused_attention_and_late_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    genuine = kernel_attention.fused_offset

    def spy(block: Block, path: fv.GaussianPath, heads: Heads) -> Tensor:
        calls.append(len(block.x))
        return genuine(block, path, heads)

    monkeypatch.setattr(kernel_attention, "fused_offset", spy)
    support, head = draw_support("unit", 16), KernelAttention()
    x = on_path(support, 0.2, head.path)
    head(x, 0.2, support)
    assert calls == [B]
    head(x, torch.tensor([0.2, 0.9, 0.2]), support)
    assert calls == [B, 2]
    head(x, 0.9, support)
    assert calls == [B, 2]


def test_each_way_is_wrong_where_it_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The product in float32 fails late, the one in float64 at the very end: the choice between ways does something."""
    path = fv.CondOT()
    monkeypatch.setitem(TOLERANCE, torch.float32, math.inf)
    pairs, t = draw_support("wide", 16), torch.full((B, N), 0.999)
    pairs[:, 1::2] = pairs[:, ::2] + 1e-3  # as far apart as the noise that is left
    x = on_path(pairs, 0.999, path)
    assert relative(KernelAttention(path)(x, t, pairs), expanded(x, t, pairs, path)) > 1e-3
    pairs, t = pairs.double(), torch.full((B, N), 1 - 1e-6, dtype=torch.float64)
    pairs[:, 1::2] = pairs[:, ::2] + 2.5e-7
    block = Block(on_path(pairs, 1 - 1e-6, path), t, pairs, None)
    products = kernel_weights(block, path, Heads(), None)
    differences = kernel_weights(block, path, Heads(), torch.ones(B, N, dtype=torch.bool))
    assert float((products - differences).abs().max()) > 1e-3


@pytest.mark.parametrize("tolerance", [math.inf, -1.0], ids=["fused", "differences"])
@pytest.mark.parametrize("kind", ["isotropic", "heads"])
def test_gradients_of_points_times_support_and_parameters(
    kind: str, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TOLERANCE, torch.float64, tolerance)
    g = generator(0)
    torch.manual_seed(0)
    head = KernelAttention() if kind == "isotropic" else KernelAttention(dim=3, heads=2, rank=2).double()
    x = torch.randn(2, 3, 3, generator=g, dtype=torch.float64, requires_grad=True)
    t = (0.3 + 0.4 * torch.rand(2, 3, generator=g, dtype=torch.float64)).requires_grad_()
    support = torch.randn(2, 4, 3, generator=g, dtype=torch.float64, requires_grad=True)

    def field(*inputs: Tensor) -> Tensor:
        return head(*inputs[:3])

    assert gradcheck(field, (x, t, support, *head.parameters()), fast_mode=False)


def test_gradients_of_the_product_in_float64() -> None:
    g = generator(1)
    x, support = torch.randn(2, 3, 3, generator=g).double(), torch.randn(2, 4, 3, generator=g).double()
    t = 0.3 + 0.4 * torch.rand(2, 3, generator=g).double()

    def weights(x: Tensor, t: Tensor, support: Tensor) -> Tensor:
        return kernel_weights(Block(x, t, support, None), fv.VP(), Heads(), None)

    assert gradcheck(weights, tuple(part.requires_grad_() for part in (x, t, support)))


@pytest.mark.parametrize("size", [800, 4000])
def test_tiles_change_neither_values_nor_gradients(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    head = KernelAttention(dim=3, heads=2, rank=2)
    support = draw_support("unit", 3).requires_grad_()
    x = on_path(support.detach(), 0.5, head.path).requires_grad_()
    t = torch.linspace(0, 0.99, B * N).reshape(B, N)
    inputs = (x, support, *head.parameters())

    def found() -> tuple[Tensor, ...]:
        v = head(x, t, support)
        return (v, *torch.autograd.grad(v.square().sum(), inputs))

    whole = found()
    monkeypatch.setattr(kernel_tiles, "_BYTES_ON_CPU", size)  # 800: one or two rows at a time; 4000: eight
    for tiled, wanted in zip(found(), whole, strict=True):
        torch.testing.assert_close(tiled, wanted, rtol=1e-5, atol=1e-5 * float(wanted.detach().abs().max()))


@pytest.mark.parametrize("t", [0.1, 0.7, 1 - 1e-6])
def test_forward_mode_agrees_with_reverse_mode(t: float) -> None:
    support = draw_support("unit", 3, torch.float64)
    head, times = KernelAttention(fv.CondOT()), torch.full((B, N), t, dtype=torch.float64)
    x = on_path(support, t, head.path)
    g = generator(2)
    dx, dt = torch.randn(x.shape, generator=g).double(), torch.randn(B, N, generator=g).double()
    v, tangent = torch.func.jvp(lambda x, t: head(x, t, support), (x, times), (dx, dt))
    torch.testing.assert_close(v, head(x, times, support), rtol=1e-6, atol=1e-9)
    cotangent = torch.randn(x.shape, generator=g).double()
    by_x, by_t = torch.autograd.functional.vjp(lambda x, t: head(x, t, support), (x, times), cotangent)[1]
    torch.testing.assert_close((tangent * cotangent).sum(), (by_x * dx).sum() + (by_t * dt).sum(), rtol=1e-6, atol=1e-6)


class _Largest(TorchDispatchMode):
    """Bytes of the largest tensor that an operation made."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for part in out if isinstance(out, tuple | list) else (out,):
            if isinstance(part, Tensor) and not part._is_view():
                self.bytes = max(self.bytes, part.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize("t", [0.05, 0.99])
def test_no_temporary_grows_with_the_number_of_pairs(t: float) -> None:
    g = generator(3)
    x, support = torch.randn(8, 4096, 2, generator=g), torch.randn(8, 64, 2, generator=g)  # pairs in float64: 16 MiB
    with torch.no_grad(), _Largest() as seen:
        KernelAttention()(x, t, support)
    assert seen.bytes <= 4 * 2**20


def test_a_metric_is_the_isotropic_kernel_on_transformed_points() -> None:
    g = generator(4)
    factor = torch.randn(4, 4, generator=g)
    metric, support = factor @ factor.T, draw_support("unit", 4)
    for t in (0.0, 0.2, 0.6, 0.95):
        head = KernelAttention(metric=metric)
        x, times = on_path(support, t, head.path), torch.full((B, N), t)
        assert relative(head(x, times, support), expanded(x, times, support, head.path, metric)) < 1e-4
        torch.testing.assert_close(
            KernelAttention(factor=factor)(x, times, support), head(x, times, support), rtol=1e-4, atol=1e-4
        )
        moved = KernelAttention().weights(x @ factor, times, support @ factor)
        torch.testing.assert_close(head.weights(x, times, support), moved, rtol=1e-3, atol=1e-5)
    assert not list(KernelAttention(metric=metric).parameters())


def test_a_flat_metric_ignores_a_direction() -> None:
    head, support = KernelAttention(metric=torch.diag(torch.tensor([1.0, 0.0]))), draw_support("unit", 2)
    x = on_path(support, 0.8, head.path)
    moved = x + torch.tensor([0.0, 3.0])
    torch.testing.assert_close(head.weights(x, 0.8, support), head.weights(moved, 0.8, support))


def test_the_isotropic_head_has_nothing_to_learn() -> None:
    head = KernelAttention()
    assert not list(head.parameters()) and not head.state_dict()
    assert head.path.sigma_min == 0.01 and not head.singular_at_end
    assert KernelAttention(fv.CondOT()).singular_at_end


@pytest.mark.parametrize("options", [{"metric": "learned"}, {"heads": 4}, {"heads": 3, "metric": "learned"}])
def test_what_is_learned_starts_as_the_exact_field(options: dict) -> None:
    torch.manual_seed(1)
    support = draw_support("unit", 5)
    head, exact = KernelAttention(dim=5, **options), KernelAttention()
    for t in (0.1, 0.5, 0.9, 0.999):
        x = on_path(support, t, exact.path)
        assert relative(head(x, t, support), exact(x, t, support).double()) < 1e-4
    x = on_path(support, 0.5, exact.path)
    gradients = torch.autograd.grad(head(x, 0.5, support).square().sum(), list(head.parameters()))
    assert all(float(part.abs().max()) > 1e-4 for part in gradients[:1])
    # Heads that moved alike would stay one kernel: their metrics P^T P must part.
    if head.mixture is not None:
        motions = [p.T @ grad + grad.T @ p for p, grad in zip(head.projections, gradients[0], strict=True)]
        assert float((motions[0] - motions[1]).norm() / motions[0].norm()) > 1e-3


def test_heads_mix_the_means_of_their_projections() -> None:
    torch.manual_seed(2)
    support, head = draw_support("unit", 5), KernelAttention(dim=5, heads=3, rank=2)
    for p in head.projections.detach():
        torch.testing.assert_close(p @ p.T, torch.eye(2), rtol=0, atol=1e-5)
    x, t, path = on_path(support, 0.6, head.path), torch.full((B, N), 0.6), head.path
    shares = torch.softmax(head.mixture.detach().double(), 0)
    v = sum(c * expanded(x, t, support, path, p.T @ p) for c, p in zip(shares, head.projections.detach(), strict=True))
    assert relative(head(x, t, support).detach(), v) < 1e-4
    torch.testing.assert_close(head.weights(x, t, support).sum(2), torch.ones(B, N))


@pytest.mark.parametrize("t", [0.05, 0.5, 0.99])
def test_absent_examples_play_no_part(t: float) -> None:
    support, head = draw_support("far", 3), KernelAttention()
    mask = torch.ones(B, M, dtype=torch.bool)
    mask[:, 20:] = False
    x = on_path(support[:, :20], t, head.path)
    wanted = head(x, t, support[:, :20])
    padded = support.masked_fill(~mask[:, :, None], torch.nan).requires_grad_()
    found = head(x, t, padded, mask)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(head(x, t, Tokens(padded, mask)), found)
    (grad,) = torch.autograd.grad(found.sum(), padded)
    assert bool(torch.isfinite(grad).all()) and float(grad[:, 20:].abs().max()) == 0
    assert float(head.weights(x, t, padded, mask)[:, :, 20:].max()) == 0


def test_a_point_given_twice_weighs_twice() -> None:
    support, head = draw_support("unit", 3)[:, :2], KernelAttention()
    x = on_path(support, 0.4, head.path)
    once, twice = head.weights(x, 0.4, support), head.weights(x, 0.4, support[:, [0, 0, 1]])
    torch.testing.assert_close(twice[:, :, 0], twice[:, :, 1])
    torch.testing.assert_close(twice[:, :, 0] / twice[:, :, 2], once[:, :, 0] / once[:, :, 1], rtol=1e-4, atol=0)


def test_effective_sample_size_is_that_of_the_exact_field() -> None:
    support = draw_support("unit", 4)
    for name, path in PATHS.items():
        for t in (0.0, 0.6):
            x = on_path(support, t, path)
            found = KernelAttention(path).effective_sample_size(x, t, support)
            wanted = torch.stack(
                [
                    fv.ExactField(s, path).posterior(rows, t).effective_sample_size
                    for s, rows in zip(support, x, strict=True)
                ]
            )
            torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3, msg=name)
    assert bool((KernelAttention().effective_sample_size(x, 0.0, support) == M).all())


def test_at_the_end_the_nearest_points_share_the_weight() -> None:
    head, support = KernelAttention(fv.CondOT()), torch.tensor([[[0.0], [1.0], [1.0]]])
    x = torch.tensor([[[0.2], [0.9]]])
    torch.testing.assert_close(head.weights(x, 1.0, support), torch.tensor([[[1.0, 0, 0], [0, 0.5, 0.5]]]))
    torch.testing.assert_close(head.posterior_mean(x, 1.0, support), torch.tensor([[[0.0], [1.0]]]))


def test_posterior_mean_is_the_denoiser() -> None:
    support, head = draw_support("unit", 4), KernelAttention()
    x = on_path(support, 0.4, head.path)
    mean = head.path.convert(head(x, 0.4, support), x, 0.4, target="denoiser")
    torch.testing.assert_close(head.posterior_mean(x, 0.4, support), mean, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_solving_gives_the_support_with_a_rest_of_noise() -> None:
    d = 16
    support = 5 * torch.randn(2, 30, d, generator=generator(5))
    x0 = torch.randn(2, 100, d, generator=generator(6))
    ends = fv.solve(KernelAttention(), x0, cond=support, steps=40, method="heun").x
    distance = float(torch.cdist(ends, support, compute_mode="donot_use_mm_for_euclid_dist").amin(2).mean())
    # The mean of a chi variable of d degrees is sqrt(d) (1 - 1 / 4 d) but for O(d^-2).
    assert distance == pytest.approx(0.01 * math.sqrt(d) * (1 - 1 / (4 * d)), rel=0.03)


def test_solving_without_rest_lands_on_the_support() -> None:
    support, x0 = draw_support("wide", 3), torch.randn(B, N, 3, generator=generator(7))
    found = fv.solve(KernelAttention(fv.CondOT()), x0, cond=support, steps=20, method="euler")
    assert found.evaluations == 20
    assert float(torch.cdist(found.x, support, compute_mode="donot_use_mm_for_euclid_dist").amin(2).max()) < 1e-5


def test_half_precision_around_it_changes_nothing() -> None:
    support, head = draw_support("unit", 4), KernelAttention()
    for t in (0.1, 0.9):
        x = on_path(support, t, head.path)
        with torch.autocast("cpu", torch.bfloat16):
            found = head(x, t, support)
        assert torch.equal(found, head(x, t, support))
    assert head(x.bfloat16(), 0.5, support).dtype == torch.bfloat16


def test_points_that_are_not_finite_spoil_their_own_rows_alone() -> None:
    support, head = draw_support("unit", 3), KernelAttention()
    for t in (0.05, 0.9):
        x = on_path(support, t, head.path)
        wanted = head(x, t, support)
        x[0, 0, 0], x[1, 1, 2] = torch.nan, torch.inf
        found = head(x, t, support)
        assert bool(found[0, 0].isnan().all()) and bool(found[1, 1].isnan().all())
        sound = torch.ones(B, N, dtype=torch.bool)
        sound[0, 0] = sound[1, 1] = False
        torch.testing.assert_close(found[sound], wanted[sound], rtol=1e-5, atol=1e-5)


X, S = torch.zeros(2, 3, 4), torch.zeros(2, 5, 4)


@pytest.mark.parametrize(
    ("inputs", "kind", "message"),
    [
        ((X, 0.5, S[:, :0]), ValueError, r"support must have shape \(B, m, d\) with m >= 1, got \(2, 0, 4\)"),
        ((X, 0.5, S[:, :, :3]), ValueError, r"support must have 4 coordinates like x, got shape \(2, 5, 3\)"),
        ((X, 0.5, S[:1]), ValueError, r"support must have 2 tasks like x, got shape \(1, 5, 4\)"),
        ((X[0], 0.5, S), ValueError, r"x must have shape \(B, n, d\) with n >= 1, got \(3, 4\)"),
        ((X.long(), 0.5, S), ValueError, "x must be floating, got torch.int64"),
        ((X, 0.5, S.long()), ValueError, "support must be floating, got torch.int64"),
        ((X, 1.5, S), ValueError, r"t must be in \[0, 1\], got values from 1.5 to 1.5"),
        ((X, torch.tensor([0.5, torch.nan]), S), ValueError, r"t must be in \[0, 1\]"),
        ((X, torch.zeros(3), S), ValueError, r"t must be a scalar or have shape \(2,\) or \(2, 3\), got \(3,\)"),
        ((X, torch.zeros(2, dtype=torch.int64), S), ValueError, "t must be floating, got torch.int64"),
        ((X, "now", S), TypeError, "t must be a tensor, got str"),
        ((X, 0.5, S + torch.nan), ValueError, "support must be finite, got NaN or infinity in 10 of 10 points"),
        ((X, 0.5, S.numpy()), TypeError, "support must be a tensor, got ndarray"),
        ((X, 0.5, S, torch.ones(2, 5)), ValueError, r"mask must be torch.bool of shape \(2, 5\), got torch.float32"),
        ((X, 0.5, S, torch.zeros(2, 5).bool()), ValueError, "mask must leave each task an example, got none in task 0"),
        ((X, 0.5, Tokens.of(S), torch.ones(2, 5).bool()), ValueError, "mask must be absent where support is Tokens"),
        ((X, 1.0, S), ValueError, "the velocity has no value at t = 1, where sigma = 0"),
    ],
)
def test_bad_input_is_one_clear_line(inputs: tuple, kind: type[Exception], message: str) -> None:
    # __wrapped__ leaves the tests' own checks of annotations aside: users do not have them.
    with pytest.raises(kind, match=message) as caught:
        KernelAttention.forward.__wrapped__(KernelAttention(fv.CondOT()), *inputs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"heads": 0}, ValueError, "heads must be at least 1, got 0"),
        ({"heads": 2}, ValueError, "dim is needed for what is learned"),
        ({"metric": "learned"}, ValueError, "dim is needed for what is learned"),
        ({"metric": "euclid"}, ValueError, r"metric must be a tensor \(d, d\) or 'learned', got 'euclid'"),
        ({"metric": "learned", "dim": 3, "rank": 4}, ValueError, "rank must be from 1 to dim = 3, got 4"),
        ({"rank": 2}, ValueError, "rank is of learned projections"),
        ({"metric": torch.eye(3), "heads": 2, "dim": 3}, ValueError, "metric fixes the metric of one head"),
        ({"metric": torch.eye(3), "factor": torch.eye(3)}, ValueError, "metric and factor say the same"),
        ({"metric": torch.eye(3), "dim": 4}, ValueError, r"metric must be a matrix of 4 rows, got shape \(3, 3\)"),
        ({"metric": -torch.eye(3)}, ValueError, "metric must be positive semidefinite, got an eigenvalue of -1"),
        ({"metric": torch.ones(3, 3).triu()}, ValueError, "metric must be symmetric"),
        ({"metric": torch.eye(3).long()}, ValueError, "metric must be floating and finite"),
        ({"dim": 0}, ValueError, "dim must be at least 1, got 0"),
    ],
)
def test_bad_options_are_one_clear_line(options: dict, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        KernelAttention(**options)
    assert "\n" not in str(caught.value)


def test_a_factor_that_is_no_tensor_is_named() -> None:
    with pytest.raises(TypeError, match="factor must be a tensor, got list"):
        checked_heads(None, 1, None, [1.0], None)


def test_a_head_of_a_dimension_refuses_points_of_another() -> None:
    with pytest.raises(ValueError, match=r"x must have 3 coordinates as the head has, got shape \(2, 3, 4\)"):
        KernelAttention(metric=torch.eye(3))(X, 0.5, S)
