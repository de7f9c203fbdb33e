"""Fields with known solutions."""

import math
from collections.abc import Iterator
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor

import fluvial as fv


class Recorded:
    """A field that remembers at which times it was asked."""

    def __init__(self, function: Any, **capabilities: Any) -> None:
        self.function = function
        self.times: list[float] = []
        for name, value in capabilities.items():
            setattr(self, name, value)

    def __call__(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        assert t.shape == (len(x),) and t.dtype == x.dtype
        assert bool((t == t[0]).all())
        self.times.append(float(t[0]))
        return self.function(x, t.reshape(-1, *[1] * (x.ndim - 1)))


@pytest.fixture
def recorded() -> type[Recorded]:
    return Recorded


@pytest.fixture
def riccati() -> Recorded:
    """dx/dt = x^2 cos(t), so that x(t) = x0 / (1 - x0 sin(t)): smooth and nonlinear."""
    return Recorded(lambda x, t: x**2 * torch.cos(t))


def riccati_solution(x: Tensor, start: float, stop: float) -> Tensor:
    return x / (1 - x * (math.sin(stop) - math.sin(start)))


@pytest.fixture
def solution() -> Any:
    return riccati_solution


@pytest.fixture
def one_datum() -> Any:
    """Builds the exact field of a single datum s on a path; CondOT's velocity is (s - x)/(1 - t)."""

    def build(datum: Tensor, path: fv.GaussianPath | None = None) -> Recorded:
        path = path if path is not None else fv.CondOT()

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            assert float(t.max()) < 1, "evaluated where sigma = 0"
            return path.convert(datum.expand_as(x), x, t.flatten(), source="denoiser", target="velocity")

        return Recorded(velocity, singular_at_end=True, path=path)

    return build


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Switch the run-time check of annotations off, to see the errors that users see."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
