"""What the paper found, on real digits: memorising against size and width, what Fréchet distance misses, EFM as CFM.

Source: Bertrand et al. 2025, "On the Closed-Form of Flow Matching", figures 2 and 4. About six minutes on one thread;
every figure is printed.
"""

import statistics
from pathlib import Path
from typing import Any

import pytest

from fluvial.audits.cells import Cell
from fluvial.audits.passages import generalises
from fluvial.audits.scalings import scaling
from fluvial.audits.sweep import run_sweep
from fluvial.training.sweep import SweepSettings

LONG = 12_000
"""Updates after which a net of width 256 has 300 digits by heart."""


def sweep(folder: Path, sizes: tuple[int | None, ...], widths: tuple[int, ...] = (256,), **rest: Any) -> list[Cell]:
    """The nets of a sweep over digits, printed; equal updates, as in the paper."""
    settings = {"depth": 3, "batch_size": 64, "samples": 1000, "draws": 64, "times": 20, "compute": "updates", **rest}
    cells = run_sweep(SweepSettings("digits", sizes, widths, **settings), folder)
    for cell in cells:
        distances = ", ".join(f"{space} {value:.3f}" for space, value in cell.frechet.items())
        print(
            f"{rest.get('objective', 'cfm')}, N = {cell.n}, width {cell.width}, seed "
            f"{cell.seed}, {cell.updates} updates: copies {cell.copy_rate:.1%} (chance {cell.chance:.1%}), neighbour "
            f"ratio {cell.neighbour_ratio:.3f}, error {cell.relative_gap:.4f}, Fréchet {distances}"
        )
    return cells


@pytest.fixture(scope="module")
def all_digits(tmp_path_factory: pytest.TempPathFactory) -> Cell:
    """A net on all 1,437 training digits."""
    return sweep(tmp_path_factory.mktemp("all"), (None,), steps=4000)[0]


@pytest.mark.slow
def test_a_net_on_10_or_30_digits_memorises_and_one_on_all_does_not(all_digits: Cell, tmp_path: Path) -> None:
    ten, thirty = sweep(tmp_path, (10, 30), steps=1000)
    for cell in (ten, thirty):
        assert cell.copy_rate >= 0.5 and cell.neighbour_ratio <= 0.4
    assert all_digits.n == 1437 and all_digits.copy_rate <= 0.01 and 0.75 <= all_digits.neighbour_ratio <= 1.25
    assert ten.relative_gap < thirty.relative_gap < all_digits.relative_gap
    passage = scaling([ten, thirty, all_digits], compute="updates").data["passages"][0]
    assert (passage["from"], passage["to"]) == (30, 1437)


@pytest.mark.slow
def test_frechet_distance_alone_misses_a_net_that_memorises_300_digits(all_digits: Cell, tmp_path: Path) -> None:
    bank = {"objective": "efm", "bank_size": 300}
    narrow, wide = sweep(tmp_path, (300,), (64, 256), steps=LONG, batch_size=128, **bank)
    assert generalises(narrow) and narrow.copy_rate <= 0.01
    assert wide.copy_rate >= 0.6 and wide.neighbour_ratio <= 0.35
    # by Fréchet distance to held-out data the net that copies is the better one in raw values, as good in features
    assert wide.frechet["values"] < narrow.frechet["values"]
    assert wide.frechet["features"] <= 1.2 * narrow.frechet["features"]
    missed = scaling([narrow, wide], compute="updates").data["missed"]
    assert [(found["n"], found["width"], found["space"]) for found in missed] == [
        (300, 256, "features"),
        (300, 256, "values"),
    ]
    # and one that did nothing but copy would look about as good as the one that makes new digits from all 1,437
    ratios = {space: value / all_digits.frechet[space] for space, value in wide.frechet_subset.items()}
    print("Fréchet distance of the 300 digits themselves over that of the net on all digits:", ratios)
    assert all(ratio <= 1.3 for ratio in ratios.values())


@pytest.mark.slow
def test_empirical_flow_matching_with_the_whole_bank_generalises_as_cfm_does(tmp_path: Path) -> None:
    ratios: dict[str, list[float]] = {"cfm": [], "efm": []}
    for seed in range(3):
        for objective in ratios:
            bank = {"objective": objective, "bank_size": 1437}
            (cell,) = sweep(tmp_path / f"{objective}{seed}", (None,), (128,), steps=3000, seed=seed, **bank)
            assert cell.copy_rate <= 0.01
            ratios[objective].append(cell.neighbour_ratio)
    print("nearest-neighbour ratios:", ratios)
    assert abs(statistics.mean(ratios["efm"]) - statistics.mean(ratios["cfm"])) <= 0.05
    assert all(abs(efm - cfm) <= 0.05 for efm, cfm in zip(ratios["efm"], ratios["cfm"], strict=True))


@pytest.mark.slow
def test_wide_nets_memorise_100_digits_and_narrow_ones_do_not(tmp_path: Path) -> None:
    cells = sweep(tmp_path, (100,), (64, 128, 256), steps=4000)
    rates = [cell.copy_rate for cell in cells]
    assert rates[0] <= 0.05 and rates[2] >= 0.5 and rates[0] <= rates[1] <= rates[2]
    assert generalises(cells[0])
    assert cells[0].relative_gap > cells[1].relative_gap > cells[2].relative_gap
    (across,) = scaling(cells, compute="updates").data["widths"]
    print("half of the samples are copies at width", across["copy_rate_half_at_width"])
    assert 64 < across["copy_rate_half_at_width"] < 256
