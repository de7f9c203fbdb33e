"""Products equal those in float64 up to the rounding of a sum."""

import pytest
import torch

from fluvial.smoothing.products import inner, inner_bfloat16, mix
from smoothing.direct import generator

SHAPES = [(1, 1, 1), (1, 300, 7), (3, 1, 2000), (5, 64, 33), (17, 200, 64), (70, 3, 129)]


def matrices(m: int, n: int, d: int, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    g = generator(m + n + d)
    if kind == "constant":  # rounding of equal terms adds up instead of cancelling
        return torch.full((m, d), 0.7), torch.linspace(0.1, 1, n)[:, None].expand(n, d).contiguous()
    return torch.randn(m, d, generator=g), torch.randn(n, d, generator=g)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["normal", "constant"])
@pytest.mark.parametrize("shape", SHAPES)
def test_inner_and_mix_round_as_a_sum_does(shape: tuple[int, int, int], kind: str, dtype: torch.dtype) -> None:
    m, n, d = shape
    a, b = (part.to(dtype) for part in matrices(m, n, d, kind))
    roundoff = 0.5 * torch.finfo(dtype).eps
    for found, left, right in ((inner(a, b), a, b), (mix(a, b.T.contiguous()), a, b)):
        assert found.dtype == dtype
        bound = (d + 1) * roundoff * (left.abs().double() @ right.abs().double().T)
        assert bool(((found.double() - left.double() @ right.double().T).abs() <= bound + 1e-300).all())


@pytest.mark.parametrize("layout", ["rows of a wider matrix", "columns of a wider matrix", "transposed"])
def test_layout_does_not_matter(layout: str) -> None:
    a, b = matrices(9, 21, 40, "normal")
    views = {
        "rows of a wider matrix": torch.cat([b, b])[3:24],
        "columns of a wider matrix": torch.cat([b, b], 1)[:, 5:45],
        "transposed": b.T.contiguous().T,
    }
    view = views[layout]
    torch.testing.assert_close(inner(a, view), inner(a, view.contiguous()), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(("m", "n"), [(0, 4), (4, 0), (0, 0)])
def test_empty_products_are_empty(m: int, n: int) -> None:
    assert inner(torch.zeros(m, 3), torch.zeros(n, 3)).shape == (m, n)


@pytest.mark.parametrize("kind", ["normal", "constant"])
@pytest.mark.parametrize("shape", [*SHAPES, (1, 2, 20_000), (64, 2, 5000)])
def test_bfloat16_is_accumulated_in_float32_and_rounded_once(shape: tuple[int, int, int], kind: str) -> None:
    """What the affinities' bound rests on; a sum in bfloat16 would be off by a factor of d."""
    m, n, d = shape
    a, b = (part.bfloat16() for part in matrices(m, n, d, kind))
    truth, size = a.double() @ b.double().T, a.abs().double() @ b.abs().double().T
    found = inner_bfloat16(a, b)
    assert found.dtype == torch.float32
    assert bool(((found - truth).abs() <= 2.0**-8 * found.abs() + (d + 8) * 2.0**-24 * size).all())
