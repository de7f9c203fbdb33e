"""Hybrid and guided fields: which part acts when, and what they pass on."""

from collections.abc import Callable

import pytest
import torch

import fluvial as fv
from fluvial.fields import breakpoints, singular_at_end


def constant(value: float) -> object:
    return lambda x, t, cond=None: torch.full_like(x, value)


def test_hybrid_uses_each_side_row_by_row() -> None:
    seen: list[tuple[str, int]] = []

    def spy(name: str, value: float) -> object:
        def field(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor | None = None) -> torch.Tensor:
            seen.append((name, len(x)))
            return torch.full_like(x, value) + (0 if cond is None else cond[:, None])

        return field

    field = fv.Hybrid(spy("before", 1.0), spy("after", 2.0), tau=0.5)
    out = field(torch.zeros(4, 1), torch.tensor([0.1, 0.5, 0.49, 0.9]), torch.tensor([10, 20, 30, 40]))
    assert out.flatten().tolist() == [11.0, 22.0, 31.0, 42.0]
    assert seen == [("before", 2), ("after", 2)]
    field(torch.zeros(3, 1), torch.tensor(0.2))
    assert seen[-1] == ("before", 3)


def test_hybrid_of_a_field_with_itself_is_that_field() -> None:
    exact = fv.ExactField(torch.randn(10, 2, generator=torch.Generator().manual_seed(0)))
    x, t = torch.randn(6, 2, generator=torch.Generator().manual_seed(1)), torch.linspace(0, 0.95, 6)
    torch.testing.assert_close(fv.Hybrid(exact, exact, 0.4)(x, t), exact(x, t))


def test_capabilities_are_those_of_the_side_they_concern() -> None:
    exact = fv.ExactField(torch.zeros(1, 2))
    plain = constant(0.0)
    assert singular_at_end(fv.Hybrid(plain, exact, 0.3)) and not singular_at_end(fv.Hybrid(exact, plain, 0.3))
    assert singular_at_end(fv.Hybrid(exact, plain, 1.0))
    assert fv.Hybrid(plain, exact, 0.3).path is exact.path
    guided = fv.Guided(exact, 2.0, interval=(0.1, 0.7))
    assert singular_at_end(guided) and guided.path is exact.path
    assert breakpoints(guided) == (0.1, 0.7)
    assert breakpoints(fv.Hybrid(guided, guided, 0.5)) == (0.1, 0.5, 0.7)
    assert breakpoints(fv.Guided(guided, 2.0, interval=(0.3, 1.0))) == (0.1, 0.3, 0.7)


def test_guidance_extrapolates_inside_its_interval_alone() -> None:
    def field(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor | None = None) -> torch.Tensor:
        return torch.full_like(x, 1.0) if cond is None else torch.full_like(x, 3.0)

    x, cond = torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64)
    t = torch.tensor([0.0, 0.2, 0.6, 0.8])
    assert fv.Guided(field, 2.0, (0.2, 0.8))(x, t, cond).flatten().tolist() == [3.0, 5.0, 5.0, 3.0]
    assert fv.Guided(field, 1.0)(x, t, cond).flatten().tolist() == [3.0] * 4
    assert fv.Guided(field, 0.0)(x, t, cond).flatten().tolist() == [1.0] * 4
    assert fv.Guided(field, 5.0)(x, t).flatten().tolist() == [1.0] * 4


def test_guidance_keeps_the_precision_of_its_points() -> None:
    def field(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor | None = None) -> torch.Tensor:
        return torch.full_like(x, 0.0 if cond is None else 1.0)

    x = torch.zeros(1, 1, dtype=torch.float64)
    assert fv.Guided(field, 1.1)(x, x[0], torch.zeros(1)).item() == 1.1


def test_tau_of_one_is_the_first_field_to_the_end() -> None:
    g = torch.Generator().manual_seed(0)
    exact = fv.ExactField(torch.randn(10, 2, generator=g))
    x0 = torch.randn(6, 2, generator=g)
    for method in ("heun", "rk4"):
        end = fv.solve(fv.Hybrid(lambda x, t, cond=None: -x, exact, 1.0), x0, method=method).x
        torch.testing.assert_close(end, fv.solve(lambda x, t, cond=None: -x, x0, method=method).x)


def test_log_priors_follow_their_rows_through_a_hybrid() -> None:
    g = torch.Generator().manual_seed(0)
    exact, other = (fv.ExactField(torch.randn(5, 2, generator=g)) for _ in range(2))
    x, prior = torch.randn(6, 2, generator=g), torch.randn(6, 5, generator=g)
    t = torch.tensor([0.1, 0.9, 0.2, 0.8, 0.3, 0.7])
    found = fv.Hybrid(exact, other, 0.5)(x, t, prior)
    torch.testing.assert_close(found[::2], exact(x, t, prior)[::2])
    torch.testing.assert_close(found[1::2], other(x, t, prior)[1::2])


def test_guided_exact_field_with_all_scale_on_the_condition_reaches_the_class() -> None:
    g = torch.Generator().manual_seed(0)
    support, labels = torch.randn(30, 2, generator=g) * 3, torch.arange(30) % 2
    field = fv.Guided(fv.ExactField(support, labels=labels), 1.0)
    end = fv.solve(field, torch.randn(50, 2, generator=g), cond=torch.ones(50, dtype=torch.int64), method="heun").x
    assert (labels[torch.cdist(end, support).argmin(1)] == 1).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fv.Hybrid(constant(0), constant(0), 1.5), r"tau must be in \[0, 1\], got 1.5"),
        (lambda: fv.Guided(constant(0), float("nan")), "scale must be finite, got nan"),
        (lambda: fv.Guided(constant(0), 2.0, (0.5, 0.5)), "0 <= start < end <= 1"),
    ],
)
def test_bad_input(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
