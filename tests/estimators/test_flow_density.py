"""The learned density against analytic ones, quadrature, scikit-learn's own checks and its own file."""

import json
import math
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fluvial as fv
from fluvial.estimators.whitening import Whitening

SMALL = {"width": 16, "depth": 1, "steps": 6, "solver_steps": 6, "random_state": 0}


CHECKS = """
import sys, warnings
warnings.simplefilter("ignore")
from sklearn.utils.estimator_checks import check_estimator
import fluvial as fv
for estimator in (fv.ExactDensity(), fv.FlowDensity(width=8, depth=1, steps=2, solver_steps=1)):
    for check in check_estimator(estimator, on_fail=None):
        if check["status"] not in ("passed", "skipped"):
            print(check["check_name"], check["exception"])
"""


def test_scikit_learn_s_checks() -> None:
    """In a process of its own: they hand over what annotations forbid, and expect the estimator to say so later."""
    done = subprocess.run([sys.executable, "-c", CHECKS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def skewed(count: int = 400, seed: int = 0) -> np.ndarray:
    """Correlated columns of very different units, one of them a mixture."""
    random = np.random.default_rng(seed)
    base = random.normal(size=(count, 3))
    base[:, 0] += np.where(random.random(count) < 0.5, 3, -3)
    return base @ np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]]) * [1e-3, 1.0, 1e4] + [5.0, 0.0, -1e5]


def gaussian(rows: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Log-density at points of the normal distribution with the rows' mean and covariance."""
    unit = rows.std(0)
    return (
        multivariate_normal(rows.mean(0) / unit, np.cov(rows.T / unit[:, None], bias=True)).logpdf(at / unit)
        - np.log(unit).sum()
    )


def untrained(rows: np.ndarray) -> fv.FlowDensity:
    """After one update with no learning rate the flow is the Gaussian that the whitening describes."""
    return fv.FlowDensity(
        **{**SMALL, "steps": 1, "solver_steps": 40}, lr=0.0, validation_fraction=0.0, reg_covar=0.0
    ).fit(rows)


def test_before_it_learns_the_flow_is_the_gaussian_of_the_covariance() -> None:
    rows = skewed()
    found = untrained(rows).score_samples(rows)
    assert np.abs(found - gaussian(rows, rows)).max() < 1e-4


def test_densities_are_those_of_the_table_s_own_units() -> None:
    rows = skewed()
    flow = fv.FlowDensity(**SMALL).fit(rows)
    scale = np.array([7.0, 1e-3, 20.0])
    scaled = fv.FlowDensity(**SMALL).fit(rows * scale)
    moved = flow.score_samples(rows) - np.log(scale).sum()
    np.testing.assert_allclose(scaled.score_samples(rows * scale), moved, atol=1e-3)


@pytest.mark.parametrize("dim", [1, 2])
def test_a_learned_density_integrates_to_one(dim: int) -> None:
    rows = skewed()[:, :dim] * [1e3, 0.2][:dim]
    flow = fv.FlowDensity(**{**SMALL, "steps": 150, "width": 32}).fit(rows)
    center, spread = rows.mean(0), 6 * rows.std(0)
    axes = [np.linspace(c - s, c + s, 600 if dim == 1 else 90) for c, s in zip(center, spread, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, dim)
    mass = np.exp(flow.score_samples(grid)).sum() * np.prod([axis[1] - axis[0] for axis in axes])
    assert abs(mass - 1) < 0.01


def test_training_finds_the_two_modes_that_a_gaussian_misses() -> None:
    rows, test = skewed(1500), skewed(500, seed=1)
    flow = fv.FlowDensity(width=32, depth=1, steps=400, random_state=0).fit(rows)
    unmixed = np.linalg.inv(np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]]))
    base = (test - [5.0, 0.0, -1e5]) / [1e-3, 1.0, 1e4] @ unmixed
    rest = -0.5 * (base[:, 1:] ** 2).sum(1) - 1.5 * math.log(2 * math.pi) - math.log(10)
    truth = (np.logaddexp(-0.5 * (base[:, 0] - 3) ** 2, -0.5 * (base[:, 0] + 3) ** 2) - math.log(2) + rest).mean()
    found = flow.score(test)
    assert gaussian(rows, test).mean() + 0.25 < found < truth + 0.02
    assert found > truth - 0.15
    assert flow.validation_score_ == pytest.approx(truth, abs=0.3)
    assert flow.solver_error_ < 0.01
    drawn = flow.sample(2000, random_state=0)
    np.testing.assert_allclose(drawn.mean(0), rows.mean(0), atol=0.15 * rows.std(0).max(), rtol=0.15)
    np.testing.assert_allclose(np.corrcoef(drawn.T), np.corrcoef(rows.T), atol=0.06)


def test_the_same_random_state_gives_the_same_flow_and_torch_s_own_is_left_alone() -> None:
    rows = skewed(60)
    torch.manual_seed(5)
    first, second, other = (fv.FlowDensity(**{**SMALL, "random_state": seed}).fit(rows) for seed in (0, 0, 1))
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    assert np.array_equal(first.score_samples(rows), second.score_samples(rows))
    assert not np.array_equal(first.score_samples(rows), other.score_samples(rows))
    assert np.array_equal(first.sample(3, random_state=1), first.sample(3, random_state=1))
    assert not np.array_equal(first.sample(3, random_state=1), first.sample(3, random_state=2))
    drawn = first.sample(10, random_state=4)
    assert np.array_equal(drawn[:6], first.sample(6, random_state=4))


def test_training_stops_when_held_out_rows_gain_nothing() -> None:
    """Twelve rows are soon learned by heart: the last net is not the one that is kept."""
    rows = np.random.default_rng(0).normal(size=(40, 4))
    seen: list[int] = []
    flow = fv.FlowDensity(
        width=64,
        depth=1,
        steps=600,
        lr=1e-2,
        patience=2,
        random_state=0,
        progress=lambda report: seen.append(report.step),
    ).fit(rows)
    looks = [step for step, _ in flow.history_]
    assert looks == seen and looks[-1] < 600
    best = max(flow.history_, key=lambda look: look[1])
    assert flow.n_iter_ == best[0] < looks[-1]
    whole = fv.FlowDensity(**SMALL, validation_fraction=0.0).fit(rows)
    assert whole.history_ == [] and whole.n_iter_ == 6 and math.isnan(whole.validation_score_)


def test_it_stands_in_pipelines_searches_and_clones() -> None:
    rows = skewed(90)
    pipeline = make_pipeline(StandardScaler(), fv.FlowDensity(**SMALL))
    assert np.isfinite(cross_val_score(pipeline, rows, cv=2)).all()
    search = GridSearchCV(fv.FlowDensity(**SMALL), {"width": [8, 16]}, cv=2, refit=True).fit(rows)
    assert search.best_params_["width"] in (8, 16)
    assert search.best_estimator_.sample(2).shape == (2, 3)
    copied = clone(fv.FlowDensity(lr=0.5, divergence="hutchinson"))
    assert (copied.lr, copied.divergence) == (0.5, "hutchinson")
    flow = fv.FlowDensity(**SMALL).fit(rows)
    assert np.array_equal(pickle.loads(pickle.dumps(flow)).score_samples(rows), flow.score_samples(rows))


def test_random_directions_estimate_the_same_densities() -> None:
    rows = skewed(200)
    options = {**SMALL, "steps": 60, "validation_fraction": 0.0}
    exact = fv.FlowDensity(**options).fit(rows).score_samples(rows)
    estimated = fv.FlowDensity(**options, divergence="hutchinson", probes=64).fit(rows).score_samples(rows)
    assert abs((estimated - exact).mean()) < 0.02 and 0 < np.abs(estimated - exact).max() < 0.5


def test_a_solver_too_coarse_is_reported() -> None:
    with pytest.warns(ConvergenceWarning, match="solver_steps=1 is halved|when solver_steps=2 is halved"):
        fv.FlowDensity(**{**SMALL, "solver_steps": 2, "steps": 150}).fit(skewed())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fv.FlowDensity(**{**SMALL, "solver_steps": 20}).fit(skewed())


def test_the_whitening_is_symmetric_and_undone() -> None:
    rows = skewed()
    found = Whitening.fit(rows, reg_covar=0.0)
    white = found.forward(rows)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(3), atol=1e-10)
    np.testing.assert_allclose(found.inverse(white), rows, rtol=1e-10)
    np.testing.assert_allclose(found.root, found.root.T)
    jacobian = np.stack([found.forward(rows[:1] + step) - found.forward(rows[:1]) for step in np.diag(rows.std(0))])
    sign, log_det = np.linalg.slogdet(jacobian[:, 0] / rows.std(0)[:, None])
    assert sign == 1 and log_det == pytest.approx(found.log_det, abs=1e-6)


def test_constant_and_dependent_columns_are_bounded() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 1)) @ [[1.0, 2.0, 0.0]] + [0.1, 0.2, 0.3]
    flow = fv.FlowDensity(**SMALL).fit(rows)
    assert np.isfinite(flow.score_samples(rows)).all()
    assert flow.score_samples(rows).mean() > flow.score_samples(rows + np.eye(3)[2]).mean() + 100


def test_a_saved_flow_is_the_same_to_the_bit(tmp_path: Path) -> None:
    rows = skewed(60)
    flow = fv.FlowDensity(**SMALL).fit(rows)
    flow.save(tmp_path / "flow.safetensors")
    again = fv.FlowDensity.load(tmp_path / "flow.safetensors")
    assert np.array_equal(again.score_samples(rows), flow.score_samples(rows))
    assert again.get_params() == flow.get_params()
    for name in ("n_iter_", "history_", "validation_score_", "solver_error_", "n_features_in_"):
        assert getattr(again, name) == getattr(flow, name)
    assert [path.name for path in tmp_path.iterdir()] == ["flow.safetensors"]


def _rewritten(file: Path, change: Callable[[dict, dict], None]) -> Path:
    """The file with its header and arrays changed."""
    with safe_open(file, framework="pt") as opened:
        head = json.loads(opened.metadata()["fluvial"])
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (it is no mapping)
    change(head, tensors)
    target = file.with_name("changed.safetensors")
    save_file(tensors, target, {"fluvial": json.dumps(head)})
    return target


@pytest.mark.parametrize(
    "change",
    [
        lambda head, tensors: head["settings"].update(width=8_000_000_000),
        lambda head, tensors: head["settings"].update(depth=10**9),
        lambda head, tensors: head["settings"].update(lr="x"),
        lambda head, tensors: head["settings"].update(unknown=1),
        lambda head, tensors: head.update(columns=4),
        lambda head, tensors: head.pop("fitted"),
        lambda head, tensors: head.update(settings=[]),
        lambda head, tensors: tensors.pop("mean"),
        lambda head, tensors: tensors.pop("net.last.bias"),
        lambda head, tensors: tensors.update(std=torch.ones(2)),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, change: Callable[[dict, dict], None]) -> None:
    file = tmp_path / "flow.safetensors"
    fv.FlowDensity(**SMALL).fit(skewed(40)).save(file)
    with pytest.raises(ValueError, match=r"changed\.safetensors is damaged"):
        fv.FlowDensity.load(_rewritten(file, change))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="is damaged"):
        fv.FlowDensity.load(file)
    with pytest.raises(ValueError, match="no such file"):
        fv.FlowDensity.load(tmp_path / "none")


def test_what_is_no_flow_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(ValueError, match="holds no estimator of fluvial"):
        fv.FlowDensity.load(tmp_path / "other")
    fv.ExactDensity().fit(skewed(4)).save(tmp_path / "exact")
    with pytest.raises(ValueError, match="holds another estimator, 'ExactDensity'; expected FlowDensity"):
        fv.FlowDensity.load(tmp_path / "exact")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 12}, "width must be a multiple of 8, got 12"),
        ({"depth": 0}, "depth must be an integer of at least 1, got 0"),
        ({"steps": 2.5}, "steps must be an integer of at least 1, got 2.5"),
        ({"lr": math.nan}, "lr must be finite and not negative, got nan"),
        ({"sigma_min": 1.0}, r"sigma_min must be in \[0, 1\), got 1.0"),
        ({"divergence": "field"}, "divergence must be one of exact, hutchinson, got 'field'"),
        ({"device": "tpu9"}, "device must be one that torch can compute on here, such as 'cpu', got 'tpu9'"),
        ({"device": "meta"}, "device must be one"),
        ({"progress": 3}, "progress must be a function"),
        ({"lr": 1e30, "steps": 3}, "the flow diverged within 1 updates: lower lr"),
    ],
)
def test_settings_are_checked_before_any_work(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fv.FlowDensity().set_params(**settings).fit(skewed(10))


@pytest.mark.parametrize("scale", [1e-170, 1e160])
def test_units_beyond_float64_are_refused(scale: float) -> None:
    with pytest.raises(ValueError, match=r"X has columns whose deviation is .* rescale them"):
        fv.FlowDensity(**SMALL).fit(np.random.default_rng(0).normal(size=(20, 2)) * scale)


def test_dependent_columns_need_a_regularisation() -> None:
    rows = np.random.default_rng(0).normal(size=(20, 1)) @ [[1.0, 2.0]]
    with pytest.raises(ValueError, match="reg_covar must be positive where columns depend on one another, got 0"):
        fv.FlowDensity(**SMALL, reg_covar=0.0).fit(rows)


def test_numbers_of_a_search_are_saved(tmp_path: Path) -> None:
    flow = fv.FlowDensity(**SMALL).set_params(width=np.int64(8), lr=np.float64(1e-3)).fit(skewed(30))
    flow.save(tmp_path / "flow")
    assert fv.FlowDensity.load(tmp_path / "flow").width == 8
    with pytest.raises(ValueError, match="it is a folder"):
        fv.FlowDensity.load(tmp_path)


def test_rows_and_counts_are_checked() -> None:
    flow = fv.FlowDensity(**SMALL)
    with pytest.raises(NotFittedError):
        flow.sample()
    with pytest.raises(ValueError, match="NaN"):
        flow.fit([[0.0], [np.nan], [1.0]])
    flow.fit(skewed(20))
    with pytest.raises(ValueError, match="X has 2 features, but FlowDensity is expecting 3"):
        flow.score_samples(skewed(5)[:, :2])
    with pytest.raises(ValueError, match="n_samples must be an integer of at least 1, got 0"):
        flow.sample(0)
