import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.training.schedule import ema_decay, learning_rate


@given(steps=st.integers(1, 500), warmup=st.integers(0, 600))
def test_rate_rises_to_the_peak_then_falls_towards_zero(steps: int, warmup: int) -> None:
    rates = [learning_rate(k, steps=steps, warmup=warmup, peak=0.1) for k in range(steps + 1)]
    top = max(range(steps), key=rates.__getitem__)
    assert rates[top] == pytest.approx(0.1)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert min(rates[:steps]) > 0
    assert rates[steps] == 0


def test_warmup_has_its_length() -> None:
    rates = [learning_rate(k, steps=1000, warmup=100, peak=1.0) for k in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[49] == pytest.approx(0.5)
    assert rates[99] == rates[100] == 1.0
    assert rates[550] == pytest.approx(0.5)


def test_a_constant_rate_stays_at_its_peak() -> None:
    rates = [learning_rate(k, steps=1000, warmup=100, peak=1.0, constant=True) for k in range(1000)]
    assert rates[49] == pytest.approx(0.5)
    assert set(rates[99:]) == {1.0}


def test_decay_warms_up() -> None:
    assert ema_decay(0, 0.999) == 0.1
    assert ema_decay(90, 0.999) == pytest.approx(0.91)
    assert ema_decay(10**6, 0.999) == 0.999
    assert ema_decay(10**6, 0.0) == 0.0
