import json
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

import fluvial as fv
from fluvial.metrics import CLASSIFIERS, batched_median_distance, batched_mmd2
from fluvial.paths import GaussianPath
from fluvial.progress import Progress
from fluvial.randomness import generator
from fluvial.support.evaluation.evaluating import evaluate
from fluvial.support.evaluation.outcome import COLUMNS, FIGURES, Evaluation
from fluvial.support.evaluation.plug_in import expected_copy_distance
from fluvial.support.evaluation.targets import TargetPlan, plan_targets
from fluvial.support.evaluation.velocities import joined_errors, velocity_errors
from fluvial.support.kernel.attention import KernelAttention
from fluvial.support.tasks import ClassTasks, GaussianMixtures, Shells, SyntheticFamily, TaskBatch, Truth

SPREAD, MEAN = 1.5, 2.0


def slope(path: GaussianPath, t: Tensor) -> Tensor:
    """How the velocity of N(MEAN, SPREAD^2) at time t grows with x."""
    alpha, sigma = path.alpha(t), path.sigma(t)
    return (path.alpha_dot(t) * alpha * SPREAD**2 + path.sigma_dot(t) * sigma) / (alpha**2 * SPREAD**2 + sigma**2)


def gaussian_velocity(x: Tensor, t: Tensor, path: GaussianPath) -> Tensor:
    t = t.to(x.dtype).reshape(*t.shape, *[1] * (x.ndim - t.ndim))
    return path.alpha_dot(t) * MEAN + slope(path, t) * (x - path.alpha(t) * MEAN)


@dataclass(frozen=True)
class GaussianTruth(Truth):
    count: int
    dim: int
    has_velocity: bool = True  # type: ignore[misc]

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return MEAN + SPREAD * torch.randn(self.count, n, self.dim, generator=generator)

    def velocity(self, x: Tensor, t: Tensor, path: GaussianPath) -> Tensor:
        return gaussian_velocity(x, t, path)


class OneGaussian(SyntheticFamily):
    """Every task is the same Gaussian, so that its true velocity is a model."""

    name: ClassVar[str] = "one-gaussian"

    def __init__(self, dim: int = 3, known: bool = True) -> None:
        self.dim, self.known = dim, known

    def draw(self, count: int, generator: torch.Generator) -> GaussianTruth:
        return GaussianTruth(count, self.dim, self.known)


class Limited:
    """A family whose tasks have so many targets."""

    def __init__(self, family: SyntheticFamily, most: int) -> None:
        self.name, self.dim, self._family, self._most = family.name, family.dim, family, most

    def most_targets(self, m: int) -> int:
        return self._most - m

    def batch(self, count: int, m: int, n: int, generator: torch.Generator) -> TaskBatch:
        assert m + n <= self._most
        return self._family.batch(count, m, n, generator)

    def sample(self, m: int, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        found = self.batch(1, m, n, generator)
        return found.support[0], found.targets[0]


PATH = fv.CondOT(sigma_min=0.01)


def true_model(x: Tensor, t: Tensor, support: Tensor) -> Tensor:
    return gaussian_velocity(x, t, PATH)


def still(x: Tensor, t: Tensor, support: Tensor) -> Tensor:
    return torch.zeros_like(x)


def small(model: object, family: object, **options: object) -> Evaluation:
    settings = {"m": 20, "tasks": 12, "points": 80, "steps": 12, "tuning_tasks": 0, "path": PATH}
    return evaluate(model, family, **(settings | options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def exact() -> Evaluation:
    return small(KernelAttention(path=PATH), OneGaussian(2), steps=30, tuning_tasks=4, classified=1)


def test_the_exact_field_is_the_plug_in(exact: Evaluation) -> None:
    """Its ratio to the plug-in is 1 within the interval, its velocity is the plug-in's, and it copies the support."""
    ratio, difference = exact.ratio(), exact.difference()
    assert ratio.low < 1 < ratio.high and difference.low < 0 < difference.high
    assert exact.velocity.learned.tolist() == exact.velocity.plug_in.tolist()
    near = exact.mean("nearest", "plug_in")
    assert near.value == pytest.approx(expected_copy_distance(0.01, 2), rel=0.05)
    assert exact.mean("nearest").value < 3 * near.value
    assert exact.mean("copies").value > 0.9 > 0.3 > exact.mean("copies", "floor").value


def test_a_perfect_model_reaches_the_floor() -> None:
    found = small(true_model, OneGaussian(), tasks=30, method="heun")
    for name in ("learned", "floor"):
        values = found.scores[name].mmd2
        assert abs(float(values.mean())) < 3 * float(values.std()) / len(values) ** 0.5
        assert bool((values < 0).any())
    assert float(found.velocity.learned.max()) < 1e-9
    assert found.ratio().value > 4 and found.ratio().low > 2 and found.difference().low > 0
    assert found.mean("copies").value < 0.1
    assert found.mean("energy").low < 0 < found.mean("energy", "plug_in").low


def test_the_plug_ins_error_is_that_of_the_exact_field() -> None:
    """Recomputed task by task with the field of each support, at all times that were drawn."""
    family = OneGaussian(2)
    drawn = plan_targets(family, 6, 40).draw(family, 3, torch.Generator().manual_seed(0))

    def fields(x: Tensor, t: Tensor, support: Tensor) -> Tensor:
        rows = zip(support, x, t, strict=True)
        return torch.stack([fv.ExactField(s, PATH)(points, times) for s, points, times in rows])

    for known in (True, False):
        truth = GaussianTruth(3, 2, known)
        found = joined_errors([velocity_errors(fields, replace(drawn, truth=truth), PATH, torch.Generator())])
        assert found.learned.tolist() == pytest.approx(found.plug_in.tolist(), rel=1e-4)


def test_velocity_errors_are_those_of_the_integral() -> None:
    """Of a model that stands still: the mean squared norm of the velocity, over all times and in each part."""
    found = small(still, OneGaussian(), tasks=30, points=200, steps=1).velocity
    assert found.against == "true velocity"

    def squared(t: float) -> float:
        time = torch.tensor(t, dtype=torch.float64)
        variance = float(PATH.alpha(time) ** 2 * SPREAD**2 + PATH.sigma(time) ** 2)
        return 3 * (MEAN**2 + float(slope(PATH, time)) ** 2 * variance)

    error = float(found.learned.std()) / 30**0.5
    assert abs(float(found.learned.mean()) - quad(squared, 0, 1)[0]) < 3 * error < 0.5
    for low, high, value in zip(found.edges, found.edges[1:], found.learned_by_time, strict=False):
        assert value == pytest.approx(10 * quad(squared, low, high)[0], rel=0.1)


def test_without_a_true_velocity_the_error_holds_the_irreducible_part() -> None:
    """Which is all that the error of the true velocity against the conditional one is."""
    found = small(true_model, OneGaussian(known=False), tasks=30, points=200, steps=1).velocity
    assert found.against == "conditional velocity" and found.to_dict()["irreducible_part_included"]

    def spread(t: float) -> float:
        time = torch.tensor(t, dtype=torch.float64)
        variance = float(PATH.alpha(time) ** 2 * SPREAD**2 + PATH.sigma(time) ** 2)
        return 3 * (SPREAD**2 + 0.99**2 - float(slope(PATH, time)) ** 2 * variance)

    error = float(found.learned.std()) / 30**0.5
    assert abs(float(found.learned.mean()) - quad(spread, 0, 1)[0]) < 3 * error < 0.5


def test_every_model_meets_the_same_tasks_whatever_their_number() -> None:
    """Floor and plug-in do not depend on the model, nor a task's figures on how many tasks follow it."""
    one, other = (small(model, OneGaussian(2), tasks=20, steps=2) for model in (still, KernelAttention(path=PATH)))
    for name in ("plug_in", "floor"):
        assert torch.equal(one.scores[name].mmd2, other.scores[name].mmd2)
    fewer = small(still, OneGaussian(2), tasks=10, steps=2)
    assert torch.equal(fewer.scores["learned"].mmd2, one.scores["learned"].mmd2[:10])
    assert torch.equal(fewer.velocity.plug_in, one.velocity.plug_in[:10])
    again = small(still, OneGaussian(2), tasks=10, steps=2, seed=1)
    assert not torch.equal(fewer.scores["floor"].mmd2, again.scores["floor"].mmd2)


def test_bandwidth_comes_from_references_apart_from_the_targets() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = plan_targets(Shells(2), 5, 40).draw(Shells(2), 3, generator)
    sets = {"targets": drawn.targets, "references": drawn.references, "others": drawn.floor[0]}
    assert torch.equal(drawn.bandwidth, batched_median_distance(drawn.references))
    assert drawn.floor[1] is drawn.targets
    together = torch.cat([drawn.support, *sets.values()], dim=1)
    assert all(len(torch.unique(rows, dim=0)) == 5 + 3 * 40 for rows in together)


@pytest.mark.parametrize(
    ("most", "plan"),
    [
        (320, (100, 100, 100)),
        (319, (100, 100, 0)),
        (170, (100, 50, 0)),
        (169, (100, 0, 0)),
        (90, (70, 0, 0)),
    ],
)
def test_few_targets_are_divided_and_said_to_be(most: int, plan: tuple[int, int, int]) -> None:
    family = Limited(OneGaussian(), most)
    found = plan_targets(family, 20, 100)
    assert (found.compared, found.references, found.others) == plan
    assert bool(found.note) == (most < 320)
    drawn = found.draw(family, 3, torch.Generator().manual_seed(0))
    assert not set(drawn.floor[0].flatten().tolist()) & set(drawn.floor[1].flatten().tolist())
    result = small(still, family, tasks=2, points=100, steps=1)
    assert result.notes == ((found.note,) if found.note else ())
    assert result.settings["points"] == found.compared


def test_real_classes() -> None:
    from sklearn.datasets import load_digits

    class Digits(ClassTasks):
        def most_targets(self, m: int) -> int:
            return 174 - m

    features, labels = load_digits(return_X_y=True)
    tasks = Digits(features, labels, dim=4, split="train", name="digits")
    found = small(KernelAttention(path=PATH), tasks, m=50, points=500, steps=3)
    assert found.settings["points"] == 124 and len(found.notes) == 2
    assert "tasks have 124 targets" in found.notes[0] and "all tasks come from 8 classes" in found.notes[1]
    assert found.velocity.against == "conditional velocity"
    floor = found.scores["floor"].mmd2
    assert abs(float(floor.mean())) < 3 * float(floor.std()) / 12**0.5


def test_table_and_json_hold_everything(exact: Evaluation) -> None:
    rows = exact.rows()
    assert [row[0] for row in rows] == ["learned", "plug-in", "tuned plug-in", "floor (other targets)"]
    assert {len(row) for row in rows} == {len(COLUMNS)}
    assert rows[1][2] == "1 [1, 1]" and rows[3][2] == ""
    whole = json.loads(json.dumps(exact.to_dict(), allow_nan=False))
    assert set(whole["means"]["tuned"]) == set(FIGURES) and len(whole["tasks"]["learned"]["mmd2"]) == 12
    assert whole["ratio"]["plug_in"]["value"] == pytest.approx(exact.ratio().value)
    assert set(whole["tasks"]["floor"]["two_sample"]) == set(CLASSIFIERS)
    assert exact.tuning is not None
    assert whole["tuned"]["bandwidth"] == exact.tuning.bandwidth and exact.bandwidth == pytest.approx(0.01)


def test_one_example_has_no_second_neighbour() -> None:
    found = small(KernelAttention(path=PATH), OneGaussian(2), m=1, tasks=2, steps=2)
    assert math.isnan(found.mean("copies").value)
    whole = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert whole["tasks"]["learned"]["copies"] is None
    assert found.rows()[0][COLUMNS.index("near-copies (%)")] == ""


def test_the_solver_sees_what_the_model_declares() -> None:
    """A path without noise at its end has no velocity there: the solver lands, and the samples are the support."""
    path = fv.CondOT()
    found = small(KernelAttention(path=path), OneGaussian(2), tasks=2, path=path, method="heun", steps=12)
    assert found.bandwidth == 0 and float(found.scores["plug_in"].nearest.max()) == 0
    assert float(found.scores["learned"].nearest.max()) < 0.05


def test_a_module_is_in_evaluation_mode_meanwhile_and_reports_arrive() -> None:
    class Watched(torch.nn.Module):
        modes: ClassVar[set[bool]] = set()
        dim = 2

        def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            self.modes.add(self.training or torch.is_grad_enabled())
            return -x

    model, seen = Watched(), list[Progress]()
    small(model, Shells(2), steps=2, progress=seen.append)
    assert model.modes == {False} and model.training
    assert [(report.step, report.total) for report in seen] == [(10, 12), (12, 12)]
    assert set(seen[-1].values) == {"mmd2", "plug-in"}


def test_figures_are_those_of_the_samples() -> None:
    """Recomputed by hand for a model that leaves the noise where it is."""
    found = small(still, OneGaussian(2), tasks=2, m=3, points=50)

    drawn = plan_targets(OneGaussian(2), 3, 50).draw(OneGaussian(2), 2, generator(0, 0, 0, 4))
    x0 = torch.randn(2, 50, 2, generator=generator(0, 1, 0, 4))
    expected = batched_mmd2(x0, drawn.targets, batched_median_distance(drawn.references))
    assert torch.equal(found.scores["learned"].mmd2, expected)
    distances = np.linalg.norm(x0[:, :, None] - drawn.support[:, None], axis=-1).min(-1)
    np.testing.assert_allclose(found.scores["learned"].nearest, distances.mean(1), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"m": 0}, "m must be at least 1, got 0"),
        ({"tasks": 1}, "tasks must be at least 2, for an interval over them, got 1"),
        ({"points": 1}, "points must be at least 2, got 1"),
        ({"classified": -1}, "classified must be at least 0, got -1"),
        ({"method": "hun"}, "method must be one of .*; did you mean 'heun'?"),
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
    ],
)
def test_bad_input(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(still, Shells(2), **options)


def test_models_and_families_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="model must be for points of the family's dimension, 8 for 'shells', got one"):
        small(fv.nn.SupportNet(2, width=8, blocks=1, heads=2), Shells(8))
    with pytest.raises(ValueError, match="field must return a tensor of the shape of x"):
        small(lambda x, t, support: x[..., :1], Shells(2))
    with pytest.raises(ValueError, match="m must leave at least 4 targets in each task of 'one-gaussian', got 20"):
        small(still, Limited(OneGaussian(), 22))
    with pytest.raises(ValueError, match="scores must be those of one of learned, plug_in, floor, got 'tuned'"):
        small(still, Shells(2), steps=1).ratio("tuned")

    class Repeats(OneGaussian):
        def batch(self, count: int, m: int, n: int, generator: torch.Generator) -> TaskBatch:
            return TaskBatch(torch.zeros(count, m, 2), torch.zeros(count, n, 2))

    with pytest.raises(ValueError, match="more than half of the pairs of targets are equal points"):
        small(still, Repeats(2))
    assert TargetPlan(1, 2, 0, 0).note == ""


@pytest.mark.slow
@pytest.mark.parametrize("family", [Shells(8), GaussianMixtures(4)], ids=["shells", "gmm"])
def test_the_protocol_gives_the_exact_field_a_ratio_of_one(family: SyntheticFamily) -> None:
    """100 tasks of 500 points; the plug-in's squared MMD is (1 - E k) / m, about .4 / m, in every dimension."""
    found = evaluate(KernelAttention(path=PATH), family, tuning_tasks=0)
    ratio = found.ratio()
    assert ratio.low < 1 < ratio.high and ratio.high - ratio.low < 0.5
    assert 0.3 / 50 < found.mean("mmd2", "plug_in").value < 0.5 / 50


def test_tasks_of_an_evaluation_are_not_those_of_a_training() -> None:
    """With one seed for both, the streams of random numbers must differ."""
    from fluvial.support.evaluation.evaluating import _EVALUATION, _TASKS
    from fluvial.training.draws import step_generator

    of_training = torch.rand(4, generator=step_generator(0, 0))
    of_evaluation = torch.rand(4, generator=generator(0, _TASKS, 0, _EVALUATION))
    assert not torch.equal(of_training, of_evaluation)
