"""The sweep over sizes and widths: formulas against independent ones, verdicts on made-up nets, resuming."""

import dataclasses
import io
import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from fluvial.audits.cells import Cell
from fluvial.audits.passages import crossings
from fluvial.audits.scalings import scaling
from fluvial.audits.sweep import SOLVER, run_sweep
from fluvial.audits.third_rule import copying, two_nearest
from fluvial.data import Dataset, load_dataset
from fluvial.metrics import ClassifierFeatures, frechet_distance
from fluvial.presets import NetOptions
from fluvial.progress import Progress
from fluvial.solvers.sampling import draw_samples
from fluvial.training import Interrupted, TrainConfig, Trainer
from fluvial.training.build import NetSpec, build_net
from fluvial.training.subsets import matrix_entries, nested_subset, train_net, updates_of_equal_compute
from fluvial.training.sweep import SweepSettings, check_sweep_folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> SweepSettings:
    """A sweep over 60 points, without labels: a classifier takes longer than all of its nets."""
    file = tmp_path_factory.mktemp("data") / "x.npy"
    np.save(file, np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32))
    sizes, widths = (6, 12), (8, 16)
    return SweepSettings(
        str(file), sizes, widths, steps=6, depth=1, batch_size=8, samples=16, draws=4, times=3, held_out=20
    )


def made_up(n: int, width: int, rate: float, frechet: float = 1.0, ratio: float | None = None) -> Cell:
    return Cell(
        n=n,
        width=width,
        seed=0,
        updates=10,
        parameters=100,
        t=[0.0, 0.5],
        gap=[1.0, 2.0],
        gap_mean=1.5,
        gap_error=0.1,
        gap_held_out=3.0,
        exact_square=6.0,
        neighbour_ratio=1 - rate if ratio is None else ratio,
        copies=round(1000 * rate),
        samples=1000,
        chance=0.0,
        frechet={"values": frechet, "features": 2 * frechet},
        frechet_subset={"values": 0.5, "features": 0.5},
        seconds=1.0,
    )


@given(st.lists(st.floats(0.01, 0.99), min_size=2, max_size=8), st.floats(0.05, 0.95))
def test_crossings_lie_where_numpy_interpolates_the_level(values: list[float], level: float) -> None:
    x = np.geomspace(10, 1e4, len(values))
    found = crossings(x.tolist(), values, level)
    above = np.array(values) >= level
    assert len(found) == int((above[1:] != above[:-1]).sum())
    np.testing.assert_allclose(np.interp(np.log(found), np.log(x), values), level, atol=1e-9)


@settings(max_examples=40)
@given(st.integers(0, 1000), st.integers(1, 6), st.integers(2, 60))
def test_two_nearest_agree_with_brute_force_over_distinct_rows(seed: int, dim: int, count: int) -> None:
    random = torch.Generator().manual_seed(seed)
    train = torch.randn(count, dim, generator=random).round(decimals=1)
    train[-1] = train[0] + 1
    points = torch.cat([torch.randn(9, dim, generator=random), train[:2]])
    doubled = torch.cat([train, train[:3]])
    direct = (points.double()[:, None] - train.double().unique(dim=0)[None]).norm(dim=2)
    torch.testing.assert_close(two_nearest(points, doubled), direct.sort(dim=1).values[:, :2], rtol=1e-12, atol=1e-12)


def test_copies_are_all_copies_and_fresh_data_are_none() -> None:
    random = torch.Generator().manual_seed(0)
    train, fresh, other = torch.randn(3, 200, 16, generator=random)
    copied = copying(train + 1e-4, fresh, train)
    assert copied.rate == 1 and copied.neighbour_ratio < 1e-3 and copied.chance == 0
    new = copying(other, fresh, train)
    assert new.rate == 0 and new.neighbour_ratio == pytest.approx(1, abs=0.05)
    planted = torch.cat([train[:50] + 1e-3, other[:150]])
    assert copying(planted, fresh, train).copies == 50


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_chance_in_few_dimensions_is_three_to_the_minus_d(dim: int) -> None:
    random = torch.Generator().manual_seed(dim)
    train, points = torch.rand(4000, dim, generator=random), 0.8 * torch.rand(4000, dim, generator=random) + 0.1
    expected = 3.0**-dim
    error = 4 * math.sqrt(expected * (1 - expected) / 4000)
    assert copying(points, points, train).chance == pytest.approx(expected, abs=error)


def test_copying_refuses_what_it_cannot_judge() -> None:
    points = torch.rand(5, 2)
    with pytest.raises(ValueError, match="at least 2 distinct rows, got 1"):
        copying(points, points, torch.zeros(4, 2))
    with pytest.raises(ValueError, match="held_out must differ from train"):
        copying(points, points, points)
    with pytest.raises(ValueError, match="same number of features"):
        copying(points, points, torch.rand(5, 3))


def test_the_passage_lies_where_half_are_copies() -> None:
    rates = {10: 1.0, 100: 0.75, 1000: 0.25, 10000: 0.0}
    cells = [made_up(n, width, rate) for width in (16, 64) for n, rate in rates.items()]
    finding = scaling(cells)
    passage = finding.data["passages"][0]
    assert (passage["from"], passage["to"]) == (100, 1000)
    assert passage["copy_rate_half_at"] == pytest.approx(10**2.5)
    assert passage["neighbour_ratio_half_at"] == pytest.approx(10**2.5)
    assert "with width 16 the passage from memorising to generalising lies between N = 100 and 1,000" in (
        finding.verdict[0].lower() + finding.verdict[1:]
    )
    assert "about N = 320" in finding.verdict
    assert [row[0] for row in finding.rows][:2] == ["16, 10", "16, 100"]
    assert json.loads(json.dumps(finding.to_dict()))["data"]["cells"][0]["copies"] == 1000


def test_the_ends_are_said_where_there_is_no_passage() -> None:
    copies = scaling([made_up(10, 8, 0.9), made_up(100, 8, 0.6)])
    assert "at least half of the samples are copies up to the largest size, N = 100" in copies.verdict
    none = scaling([made_up(10, 8, 0.3), made_up(100, 8, 0.0)])
    assert "no size measured makes half of the samples copies (at most 30%)" in none.verdict
    wavering = scaling([made_up(n, 8, rate) for n, rate in ((10, 0.8), (30, 0.2), (100, 0.9), (300, 0.1))])
    assert wavering.data["passages"][0]["from"] == 100
    assert any("does not fall steadily for width 8" in note for note in wavering.notes)
    far = scaling([made_up(10, 8, 0.0, ratio=2.0)])
    assert any("width 8 at N = 10" in note for note in far.notes)


def test_the_width_from_which_on_nets_memorise() -> None:
    data = scaling([made_up(100, width, rate) for width, rate in ((16, 0.0), (64, 0.25), (256, 0.75))]).data
    assert data["widths"] == [{"n": 100, "copy_rate_half_at_width": pytest.approx(128)}]
    assert scaling([made_up(100, 16, 1.0), made_up(100, 64, 0.0)]).data["widths"][0]["copy_rate_half_at_width"] is None


def test_a_memorising_net_with_a_good_frechet_distance_is_named() -> None:
    cells = [made_up(100, 8, 0.9, frechet=5.0), made_up(300, 8, 0.7, frechet=1.2), made_up(1000, 8, 0.0, frechet=1.0)]
    finding = scaling(cells)
    assert {(found["n"], found["space"]) for found in finding.data["missed"]} == {(300, "values"), (300, "features")}
    assert "Fréchet distance alone would have missed it: at N = 300" in finding.verdict
    blurred = [*cells[:2], made_up(1000, 8, 0.0, frechet=1.0, ratio=0.6)]  # no copies, yet too near: no yardstick
    assert scaling(blurred).data["missed"] == []
    assert scaling([cells[0], cells[2]]).data["missed"] == []


def test_the_size_from_which_on_a_copier_scores_as_well_is_named() -> None:
    def cell(n: int, rate: float, own: float) -> Cell:
        return dataclasses.replace(made_up(n, 8, rate, frechet=2.0), frechet_subset={"values": own, "features": 9.0})

    finding = scaling([cell(10, 0.4, 5.0), cell(100, 0.2, 2.5), cell(1000, 0.0, 0.5)])
    assert [(found["n"], found["space"], found["frechet_subset"]) for found in finding.data["blind"]] == [
        (100, "values", 2.5)
    ]
    assert "cannot tell a copier from N = 100 on" in finding.verdict
    assert scaling([cell(10, 0.4, 0.5)]).data["blind"] == []  # no net generalises, so there is no yardstick


def test_every_drawing_can_be_drawn_with_one_net_and_with_many() -> None:
    many = [made_up(n, width, 0.5 / n) for width in (8, 16, 24, 32, 40, 48) for n in (10, 20, 40)]
    for cells, count in (([made_up(10, 8, 1.0)], 2), (many, 3)):
        found = scaling(cells).drawings
        assert len(found) == count
        for drawing in found:
            figure = Figure(figsize=drawing.size, dpi=30, layout="constrained")
            drawing.fill(figure)
            figure.savefig(io.BytesIO(), format="png")
            assert all(axes.get_xlabel() or axes.get_ylabel() for axes in figure.axes)
            assert drawing.caption and drawing.alt


def test_scaling_refuses_no_cells_and_doubled_ones() -> None:
    with pytest.raises(ValueError, match="at least one net"):
        scaling([])
    with pytest.raises(ValueError, match="one net for each size and width"):
        scaling([made_up(10, 8, 1.0), made_up(10, 8, 0.0)])
    with pytest.raises(ValueError, match="compute must be"):
        scaling([made_up(10, 8, 1.0)], compute="time")


def test_subsets_are_nested_and_depend_on_the_seed() -> None:
    train = Dataset(torch.arange(50.0)[:, None], list(range(50)))
    sets = [nested_subset(train, n, seed=3).x[:, 0].tolist() for n in (2, 10, 50)]
    assert sets[0] == sets[1][:2] and sets[1] == sets[2][:10] and sorted(sets[2]) == list(range(50))
    assert nested_subset(train, 10, seed=4).x[:, 0].tolist() != sets[1]
    assert nested_subset(train, 10, seed=3).labels is not None
    for n in (1, 51):
        with pytest.raises(ValueError, match=f"from 2 to the 50 training data, got {n}"):
            nested_subset(train, n, seed=3)


@pytest.mark.parametrize("width", [8, 40])
def test_matrix_entries_are_what_torch_counts(width: int) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    spec, rows = NetSpec((3, 2), NetOptions("mlp", width, 2)), 7
    net = build_net(spec, 0)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.randn(rows, 3, 2), torch.rand(rows))
    assert counter.get_total_flops() == 2 * rows * matrix_entries(spec)


def test_equal_compute_is_equal_to_a_rounded_update() -> None:
    train, config = Dataset(torch.zeros(4, 5)), TrainConfig(depth=2, steps=100)
    updates = updates_of_equal_compute(train, config, (8, 32, 64))
    cost = {width: matrix_entries(NetSpec((5,), NetOptions("mlp", width, 2))) for width in updates}
    assert updates[64] == 100
    for width, count in updates.items():
        assert abs(count * cost[width] - 100 * cost[64]) <= cost[width] / 2


def test_a_net_is_trained_as_the_trainer_trains_it(tmp_path: Path) -> None:
    from accelerate import Accelerator

    config = TrainConfig(data="moons", width=8, depth=1, steps=7, batch_size=8, seed=2, objective="efm", bank_size=9)
    expected = Trainer(config, tmp_path / "run").fit().net.state_dict()
    train = load_dataset("moons", seed=2).train
    found = train_net(config, train, tmp_path / "net", accelerator=Accelerator()).ema.net.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def comparable(cells: list[Cell]) -> list[dict[str, Any]]:
    """Everything but the time taken."""
    return [dataclasses.asdict(dataclasses.replace(cell, seconds=0.0)) for cell in cells]


@pytest.fixture(scope="module")
def whole(tiny: SweepSettings, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return comparable(run_sweep(tiny, tmp_path_factory.mktemp("whole")))


def test_a_cell_holds_what_independent_code_finds(tmp_path: Path) -> None:
    from accelerate import Accelerator
    from scipy.linalg import sqrtm
    from sklearn.neighbors import NearestNeighbors

    random = np.random.default_rng(1)
    x, y = random.normal(size=(50, 3)).astype(np.float32), np.arange(50) % 2
    np.savez(tmp_path / "x.npz", x=x, y=y)
    sweep = SweepSettings(
        str(tmp_path / "x.npz"), (12,), (8,), steps=6, depth=1, batch_size=8, samples=20, draws=4, times=3, held_out=15
    )
    (cell,) = run_sweep(sweep, tmp_path / "out")
    data = load_dataset(sweep.data, seed=0, held_out=15)
    subset = nested_subset(data.train, 12, 0)
    net = train_net(sweep.config(8, 6), subset, tmp_path / "net", accelerator=Accelerator()).ema.net
    samples = draw_samples(net, 20, (3,), seed=0, solver=SOLVER)[0].double().numpy()
    held_out = data.held_out.x.double().numpy()
    search = NearestNeighbors(n_neighbors=2).fit(subset.x.double().numpy())
    near, fresh = (search.kneighbors(rows)[0] for rows in (samples, held_out))
    assert cell.copies == int((3 * near[:, 0] < near[:, 1]).sum())
    assert cell.chance == pytest.approx((3 * fresh[:, 0] < fresh[:, 1]).mean())
    assert cell.neighbour_ratio == pytest.approx(near[:, 0].mean() / fresh[:, 0].mean(), rel=1e-12)
    for rows, found in ((samples, cell.frechet), (subset.x.double().numpy(), cell.frechet_subset)):
        means, covariances = zip(*((part.mean(0), np.cov(part.T)) for part in (rows, held_out)), strict=True)
        root = sqrtm(covariances[0] @ covariances[1]).real
        expected = ((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
        assert found["values"] == pytest.approx(expected, rel=1e-6)
    features = ClassifierFeatures.fit(data.train.x, data.train.labels, seed=0)
    expected = frechet_distance(features(samples), features(held_out))
    assert cell.frechet["features"] == pytest.approx(expected, rel=1e-9)


class Stop(Exception):
    pass


@pytest.mark.parametrize("at", [6, 60, 110, 250])
def test_an_interrupted_sweep_ends_with_the_same_numbers(
    at: int, tiny: SweepSettings, whole: list[dict[str, Any]], tmp_path: Path
) -> None:
    def stop(report: Progress) -> None:
        if report.step >= at:
            raise Stop

    with pytest.raises(Stop):
        run_sweep(tiny, tmp_path, progress=stop)
    assert comparable(run_sweep(tiny, tmp_path)) == whole


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_net_in_training(
    signum: int, tiny: SweepSettings, whole: list[dict[str, Any]], tmp_path: Path
) -> None:
    long = dataclasses.replace(tiny, sizes=(6,), widths=(8,), steps=40)
    expected = comparable(run_sweep(long, tmp_path / "whole"))

    def send(report: Progress) -> None:
        if report.step == 20:
            os.kill(os.getpid(), signum)

    with pytest.raises(Interrupted) as caught:
        run_sweep(long, tmp_path / "pieces", progress=send)
    assert caught.value.signum == signum and caught.value.step == 20
    seen: list[int] = []
    found = run_sweep(long, tmp_path / "pieces", progress=lambda report: seen.append(report.step))
    assert comparable(found) == expected
    assert seen[0] == 30  # reports come every ten updates, and none of the first twenty was made again
    assert not (tmp_path / "pieces" / "cells" / "n6-w8").exists()


def test_one_bar_runs_over_the_whole_sweep(tiny: SweepSettings, tmp_path: Path) -> None:
    seen: list[Progress] = []
    run_sweep(tiny, tmp_path, progress=seen.append)
    steps = [report.step for report in seen]
    assert {(report.task, report.total) for report in seen} == {("audit scaling", seen[0].total)}
    assert steps == sorted(steps) and steps[-1] == seen[0].total
    seen.clear()
    run_sweep(tiny, tmp_path, progress=seen.append)
    assert seen == []  # nothing was left to do


def test_sizes_can_be_added_and_nothing_else_changed(
    tiny: SweepSettings, whole: list[dict[str, Any]], tmp_path: Path
) -> None:
    first = dataclasses.replace(tiny, sizes=(6,))
    run_sweep(first, tmp_path)
    kept = (tmp_path / "cells" / "n6-w8.json").read_bytes()
    assert comparable(run_sweep(tiny, tmp_path)) == whole
    assert (tmp_path / "cells" / "n6-w8.json").read_bytes() == kept
    for name, value in (("steps", 7), ("seed", 1), ("widths", (8,)), ("objective", "efm"), ("samples", 17)):
        with pytest.raises(ValueError, match=f"holds a sweep with {name} .* give another --out"):
            run_sweep(dataclasses.replace(tiny, **{name: value}), tmp_path)


def test_a_sweep_goes_on_from_another_directory(
    tiny: SweepSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_sweep(tiny, tmp_path)
    monkeypatch.chdir(Path(tiny.data).parent)
    check_sweep_folder(tmp_path, dataclasses.replace(tiny, data="x.npy"))
    with pytest.raises(ValueError, match="holds a sweep with data"):
        check_sweep_folder(tmp_path, dataclasses.replace(tiny, data="moons"))


def test_folders_of_other_things_are_refused(tiny: SweepSettings, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds 'notes\.txt' and no sweep"):
        run_sweep(tiny, tmp_path)
    assert [child.name for child in tmp_path.iterdir()] == ["notes.txt"]
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(ValueError, match=r"was not written by fluvial audit scaling"):
        run_sweep(tiny, tmp_path)
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(ValueError, match=r"sweep\.json is damaged"):
        run_sweep(tiny, tmp_path)


def test_other_data_and_damaged_cells_are_refused(tiny: SweepSettings, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32))
    sweep = dataclasses.replace(tiny, data=str(tmp_path / "x.npy"), sizes=(6, None), widths=(8,), held_out=20)
    cells = run_sweep(sweep, tmp_path / "out")
    assert [cell.n for cell in cells] == [6, 40] and set(cells[0].frechet) == {"values"}
    (tmp_path / "out" / "cells" / "n6-w8.json").write_text("{}")
    with pytest.raises(ValueError, match=r"n6-w8\.json is damaged; remove it"):
        run_sweep(sweep, tmp_path / "out")
    np.save(tmp_path / "x.npy", np.random.default_rng(1).normal(size=(60, 2)).astype(np.float32))
    with pytest.raises(ValueError, match="the data have changed"):
        run_sweep(sweep, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": (12, 6)}, "sizes must increase, got 12, 6"),
        ({"sizes": ()}, "sizes must hold at least one"),
        ({"sizes": (None, 6)}, "sizes must hold at least one number of training data; 'all' can only be the last"),
        ({"sizes": (1,)}, "sizes must be at least 2, got 1"),
        ({"sizes": (10_000,)}, "sizes must be at most the 40 training data of .*, got 10000"),
        ({"widths": (16, 16)}, "widths must increase"),
        ({"widths": ()}, "widths must hold at least one"),
        ({"widths": (12,)}, "widths must be positive multiples of 8, got 12"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"samples": 3}, "samples must be at least 16, got 3"),
        ({"compute": "time"}, "compute must be one of flops, updates, got 'time'"),
        ({"held_out": 0}, "needs at least 2 held-out data"),
        ({"data": "moon"}, "did you mean 'moons'"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    change: dict[str, Any], message: str, tiny: SweepSettings, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        run_sweep(dataclasses.replace(tiny, **change), tmp_path / "out")
    assert not (tmp_path / "out").exists()
