import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fluvial.audits.draws import choose_rows
from fluvial.audits.gap import approximation
from fluvial.fields import ExactField
from fluvial.paths import VP, CondOT
from fluvial.progress import Progress
from fluvial.randomness import generator, noise
from fluvial.solvers import solve

TIMES = (0.0, 0.3, 0.7, 0.98)
FEW = [k / 10 for k in range(10)]


@pytest.fixture
def sets() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    points = torch.randn(60, 1, 2, 3, generator=random, dtype=torch.float64) + 2
    return points[:40], points[40:]


@pytest.mark.parametrize("path", [CondOT(), VP()])
def test_the_exact_field_itself_has_no_gap(sets: tuple[Tensor, Tensor], path: Any) -> None:
    exact = ExactField(sets[0], path)
    data = approximation(exact, exact, *sets, draws=20, times=TIMES, steps=10).data
    assert data["departure"] == 0 and data["departure_time"] is None
    for name in ("train", "held_out", "trajectory"):
        assert data[name]["gap"] == [0.0] * 4 and data[name]["mean"] == 0
        assert min(data[name]["exact_square"]) > 0


def test_a_constant_error_has_its_square_as_gap_at_every_time(sets: tuple[Tensor, Tensor]) -> None:
    exact = ExactField(sets[0])
    constant = torch.arange(6.0, dtype=torch.float64).reshape(1, 2, 3)
    data = approximation(lambda x, t, cond=None: exact(x, t) + constant, exact, *sets, times=TIMES, steps=10).data
    for name in ("train", "held_out", "trajectory"):
        np.testing.assert_allclose(data[name]["gap"], 55, rtol=1e-10)
        np.testing.assert_allclose(data[name]["standard_error"], 0, atol=1e-10)
        assert data[name]["mean"] == pytest.approx(55) and data[name]["mean_standard_error"] < 1e-10


def test_mean_over_t_is_trapezoidal_on_an_uneven_grid(sets: tuple[Tensor, Tensor]) -> None:
    """A gap of 6 t^2 on the nodes 0, .3, .7, .98."""
    data = approximation(
        lambda x, t, cond=None: t.reshape(-1, 1, 1, 1).expand_as(x),
        lambda x, t, cond=None: torch.zeros_like(x),
        *sets,
        times=TIMES,
        path=CondOT(),
    ).data
    nodes = np.array(TIMES)
    assert data["train"]["mean"] == pytest.approx(np.trapezoid(6 * nodes**2, nodes) / 0.98)
    single = approximation(lambda x, t, cond=None: x + 1, lambda x, t, cond=None: x, *sets, times=[0.5], path=VP())
    assert single.data["held_out"]["mean"] == pytest.approx(6)


def test_means_and_errors_are_those_of_the_interpolants(sets: tuple[Tensor, Tensor]) -> None:
    """field = x, exact = 0: the gap is E|x_t|^2 = t^2 E|x1|^2 + (1 - t)^2 d within 4 standard errors."""
    data = approximation(
        lambda x, t, cond=None: x,
        lambda x, t, cond=None: torch.zeros_like(x),
        *sets,
        times=TIMES,
        path=CondOT(),
        draws=4000,
    ).data
    for name, x1 in zip(("train", "held_out"), sets, strict=True):
        square = float(x1.square().sum((1, 2, 3)).mean())
        for t, gap, error in zip(TIMES, data[name]["gap"], data[name]["standard_error"], strict=True):
            assert 0 < error < 0.05 * gap
            assert abs(gap - (t**2 * square + (1 - t) ** 2 * 6)) < 4 * error


def test_a_field_of_held_out_data_is_nearer_on_held_out_data(sets: tuple[Tensor, Tensor]) -> None:
    """Swapping the roles of the sets swaps which of them shows the exact field's trace."""
    data = approximation(ExactField(sets[1]), ExactField(sets[0]), *sets, times=TIMES, steps=10).data
    assert data["train"]["gap"][-1] > 100 * data["train"]["gap"][0]


def test_same_noise_for_both_sets_and_same_result_for_the_same_seed(sets: tuple[Tensor, Tensor]) -> None:
    points: list[Tensor] = []

    def exact(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        points.append(x)
        return x

    def run(seed: int) -> list[Tensor]:
        points.clear()
        approximation(exact, exact, *sets, times=[0.0, 0.5], path=CondOT(), draws=100, steps=0, seed=seed)
        return points[::2]

    first, again, other = run(0), run(0), run(1)
    assert torch.equal(first[0], first[1])  # at t = 0 only the noise is left
    assert not torch.equal(first[2], first[3])
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_every_row_is_drawn_equally_often_and_meets_its_own_condition(sets: tuple[Tensor, Tensor]) -> None:
    train, held_out = sets
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def exact(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        seen.append((x, t, cond))
        return x

    conds = (torch.arange(40), torch.arange(100, 120))
    approximation(exact, exact, *sets, times=[0.0, 0.5], path=CondOT(), draws=80, steps=0, cond=conds)
    x0 = seen[0][0]
    for number, (values, first) in enumerate(((train, 0), (held_out, 100))):
        x, t, cond = seen[4 + 2 * number]
        assert t.shape == (80,) and t.dtype == x.dtype == torch.float64
        torch.testing.assert_close(x, 0.5 * x0 + 0.5 * values[cond - first])
        assert torch.equal(cond.unique(return_counts=True)[1], torch.full((len(values),), 80 // len(values)))


def test_no_gradients_are_recorded_and_progress_counts_times(sets: tuple[Tensor, Tensor]) -> None:
    net = torch.nn.Linear(3, 3, dtype=torch.float64)
    reports: list[Progress] = []

    def learned(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        v = net(x)
        assert not v.requires_grad
        return v

    approximation(learned, ExactField(sets[0]), *sets, times=TIMES, steps=10, progress=reports.append)
    assert [r.step for r in reports] == [1, 2, 3, 4] and reports[-1].fraction == 1
    assert set(reports[0].values) == {"train", "held_out", "trajectory"}


def test_finding_is_plain_json_and_draws_itself(sets: tuple[Tensor, Tensor]) -> None:
    from matplotlib.figure import Figure

    exact = ExactField(sets[0])
    finding = approximation(lambda x, t, cond=None: exact(x, t) * 1.1, exact, *sets, draws=30, times=FEW, steps=10)
    assert json.loads(json.dumps(finding.to_dict())) == finding.to_dict()
    assert f"{finding.data['held_out']['mean']:.3g} on held-out" in finding.verdict
    names = ["training interpolants", "held-out interpolants", "the model's own trajectories"]
    assert [row[0] for row in finding.rows] == names
    assert finding.reservation == ""
    figures = [Figure() for _ in finding.drawings]
    for drawing, figure in zip(finding.drawings, figures, strict=True):
        drawing.fill(figure)
        figure.canvas.draw()
    axes = figures[0].axes[0]
    assert axes.get_yscale() == "log" and axes.get_xlabel().startswith("t ") and axes.get_ylabel()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == names
    np.testing.assert_allclose(axes.lines[1].get_ydata(), finding.data["held_out"]["gap"], rtol=1e-6)
    assert len(axes.collections) == 3  # the intervals
    assert len(figures[1].axes[0].lines) >= 3  # two losses and what no net can avoid


def test_trajectories_are_the_fields_own(sets: tuple[Tensor, Tensor]) -> None:
    """Field -x moves x0 to x0 (1 - h)^k in k Euler steps; against exact = 0 its gap there is |x|^2."""
    data = approximation(
        lambda x, t, cond=None: -x,
        lambda x, t, cond=None: torch.zeros_like(x),
        *sets,
        times=[0.1, 0.5, 0.75],
        path=CondOT(),
        draws=64,
        steps=20,
    ).data["trajectory"]
    square = float(noise(0, 0, 64, (1, 2, 3), torch.float64).square().sum((1, 2, 3)).mean())
    np.testing.assert_allclose(data["gap"], [square * 0.95 ** (2 * k) for k in (2, 10, 15)], rtol=1e-12)
    assert "loss" not in data


def test_trajectories_are_those_of_one_solve_and_meet_their_conditions(sets: tuple[Tensor, Tensor]) -> None:
    labels = torch.arange(40) % 2
    exact, other = (ExactField(x, labels=labels) for x in (sets[0], sets[0] + 1))
    conds = (labels, torch.zeros(20, dtype=torch.long))
    found = approximation(other, exact, *sets, times=[0.0, 0.3, 0.9], draws=30, cond=conds, steps=20).data
    x0 = noise(0, 0, 30, (1, 2, 3), torch.float64)
    cond = labels[choose_rows(40, 30, generator(0, 0, 0))]
    states = solve(other, x0, steps=20, cond=cond, save_at=[0.0, 0.3, 0.9], method="euler").path
    for state, t, gap in zip(states, (0.0, 0.3, 0.9), found["trajectory"]["gap"], strict=True):
        difference = other(state, t, cond) - exact(state, t, cond)
        assert gap == pytest.approx(float(difference.square().sum((1, 2, 3)).mean()), rel=1e-9)


def test_loss_on_training_data_is_the_gap_and_what_no_net_can_avoid() -> None:
    """An identity in the mean over all data and noises; here within 5 standard errors."""
    train = torch.randn(50, 3, generator=generator(1), dtype=torch.float64)
    exact = ExactField(train)
    found = approximation(
        lambda x, t, cond=None: exact(x, t) + torch.sin(3 * x), exact, train, times=TIMES, draws=20_000, steps=0
    ).data["train"]
    for k in range(len(TIMES)):
        difference = found["loss"][k] - found["gap"][k] - found["unexplained"][k]
        spread = 2 * (found["unexplained"][k] * found["gap"][k]) ** 0.5
        assert abs(difference) < 5 * spread / 20_000**0.5 + 1e-12


def test_departure_of_the_exact_field_of_all_data_from_that_of_half() -> None:
    """A field that knows the source, not the data: it errs alike on both sets, and departs wholly."""
    data = torch.randn(400, 8, generator=generator(2), dtype=torch.float64)
    exact = ExactField(data[:200])

    def source(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """Exact velocity of standard normal data: m = t x / (t^2 + (1 - t)^2)."""
        t = t[:, None]
        return (2 * t - 1) * x / (t**2 + (1 - t) ** 2)

    whole = approximation(source, exact, data[:200], data[200:], draws=2000, steps=0, times=FEW).data
    assert whole["departure"] == pytest.approx(1, abs=0.05)
    low, high = whole["departure_interval"]
    assert low < whole["departure"] < high and high - low < 0.2
    assert 0.3 < whole["departure_time"] < 0.9
    copier = approximation(
        lambda x, t, cond=None: 0.9 * exact(x, t) + 0.1 * source(x, t),
        exact,
        data[:200],
        data[200:],
        times=FEW,
        steps=0,
    ).data
    assert copier["departure"] < 0.05 and copier["departure_time"] is None


def test_interval_of_the_departure_covers() -> None:
    """Over 40 seeds the 95 % intervals miss the value of many draws at most 7 times (chance .001 if they are right)."""
    data = torch.randn(60, 4, generator=generator(3), dtype=torch.float64)
    exact = ExactField(data[:30])

    def zero(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        return torch.zeros_like(x)

    def run(draws: int, seed: int) -> dict[str, Any]:
        sets = (data[:30], data[30:])
        return dict(approximation(zero, exact, *sets, times=[0.3, 0.7], draws=draws, steps=0, seed=seed).data)

    truth = run(10_000, 1000)["departure"]
    intervals = [run(100, seed)["departure_interval"] for seed in range(40)]
    assert sum(not low <= truth <= high for low, high in intervals) <= 7


def test_default_times(sets: tuple[Tensor, Tensor]) -> None:
    found = approximation(nothing, nothing, *sets, path=CondOT(), draws=2, steps=0)
    assert found.data["t"] == pytest.approx(np.arange(50) / 50)


def test_without_held_out_data_there_is_no_departure(sets: tuple[Tensor, Tensor]) -> None:
    exact = ExactField(sets[0])
    finding = approximation(
        lambda x, t, cond=None: x, exact, sets[0], times=TIMES, reservation="not comparable: OT coupling"
    )
    assert [row[0] for row in finding.rows] == ["training interpolants", "the model's own trajectories"]
    keys = ("departure", "departure_interval", "departure_time", "relative_gap")
    assert all(finding.data[key] is None for key in keys) and "held_out" not in finding.data
    assert "no held-out data" in finding.notes[0] and len(finding.drawings) == 1
    assert finding.reservation == "not comparable: OT coupling"


def test_a_gap_of_zero_can_be_drawn(sets: tuple[Tensor, Tensor]) -> None:
    from matplotlib.figure import Figure

    exact = ExactField(sets[0])
    figure = Figure()
    approximation(exact, exact, *sets, times=TIMES, steps=10).drawings[0].fill(figure)
    figure.canvas.draw()


def nothing(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
    return torch.zeros_like(x)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"times": [0.5, 1.0]}, r"times must be increasing numbers in \[0, 1\), at least one, got"),
        ({"times": [0.5, 0.5]}, "times must be increasing"),
        ({"times": [float("nan")]}, "times must be increasing"),
        ({"times": []}, "times must be increasing"),
        ({"draws": 1}, "draws must be an integer of at least 2, got 1"),
        ({"steps": -1}, "steps must be an integer of at least 0, got -1"),
        ({"exact": ExactField(torch.zeros(1, 2), VP())}, r"exact must be a field of the path CondOT.*, got one of VP"),
        ({"path": None}, "path must be given, because exact has none of its own"),
        ({"held_out": torch.zeros(5, 3)}, r"rows of the same shape, got \(2,\) and \(3,\)"),
        ({"held_out": torch.zeros(0, 2)}, "held_out must have at least 1 row, got 0"),
        ({"train": torch.full((4, 2), torch.nan)}, "train must be finite"),
        ({"cond": (torch.zeros(4), torch.zeros(3))}, "cond must have 5 rows for held_out, got 3"),
        ({"field": lambda x, t, cond=None: x[:, :1]}, r"field must return the shape \(256, 2\) it was given"),
        ({"exact": lambda x, t, cond=None: x / 0}, "exact must return finite values, .* at t = 0"),
    ],
)
def test_bad_input(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "field": nothing,
        "exact": nothing,
        "train": torch.zeros(4, 2),
        "held_out": torch.zeros(5, 2),
        "path": CondOT(),
    }
    with pytest.raises(ValueError, match=message):
        approximation(**(arguments | changes))


def test_integers_are_refused() -> None:
    with pytest.raises(TypeError):
        approximation(nothing, nothing, torch.zeros(4, 2).long(), torch.zeros(5, 2), path=CondOT())
