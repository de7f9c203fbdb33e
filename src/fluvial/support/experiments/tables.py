"""Tables of the results, with the published figures beside them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fluvial.paths import CondOT
from fluvial.randomness import generator
from fluvial.support.evaluation.intervals import Interval, ratio_interval
from fluvial.support.kernel.attention import KernelAttention
from fluvial.support.tasks import family_by_name

PAPER_TIME = 0.56
PAPER_SIZES = {("gmm", 16): 1.0, ("shells", 8): 6.5, ("shells", 32): 8.0}
"""Published effective sample sizes at t = 0.56 and m = 50."""
_BLOCK, _QUERIES = 100, 50


@dataclass(frozen=True)
class Table:
    """A table of results.

    Args:
        title: What it shows.
        columns: Headings.
        rows: Cells as text.
        note: How to read it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def markdown(self) -> str:
        """The table in Markdown, under its title and above its note."""
        lines = ["| " + " | ".join(cells) + " |" for cells in (self.columns, ["---"] * len(self.columns), *self.rows)]
        return "\n".join([f"### {self.title}", "", *lines, *(["", self.note] if self.note else []), ""])


def sizes_at_paper_time(tasks: int = 1000, m: int = 50, seed: int = 0) -> list[dict[str, Any]]:
    """Mean effective sample size of a support at t = 0.56, where the paper reports it, by family and dimension.

    Queries are fresh targets on the path, ``t x1 + sigma x0``.

    Args:
        tasks: Tasks of each family, at least 100.
        m: Support points.
        seed: Seed of the tasks.
    """
    head, found = KernelAttention(CondOT(0.01)), []
    sigma = float(CondOT(0.01).sigma(torch.tensor(PAPER_TIME)))
    for name, dims in {"gmm": (2, 4, 8, 16, 32, 64), "shells": (8, 32)}.items():
        for dim in dims:
            means = []
            for block in range(tasks // _BLOCK):
                draws = generator(seed, dim, block)
                batch = family_by_name(name, dim).batch(_BLOCK, m, _QUERIES, draws)
                noise = torch.randn(batch.targets.shape, generator=draws)
                x = PAPER_TIME * batch.targets + sigma * noise
                means.append(float(head.effective_sample_size(x, PAPER_TIME, batch.support).mean()))
            found.append(
                {"family": name, "dim": dim, "value": float(np.mean(means)), "paper": PAPER_SIZES.get((name, dim))}
            )
    return found


def make_tables(results: Sequence[Mapping[str, Any]], sizes: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Tables of the comparisons that there are results of.

    Args:
        results: What :func:`run_experiments` returned.
        sizes: What :func:`sizes_at_paper_time` returned.
    """
    makers: dict[str, Callable[[list[Mapping[str, Any]]], Table]] = {
        "shells": lambda rows: _ratios("Shells: thin sets, where an isotropic kernel loses", rows),
        "mixtures": _mixtures,
        "real": lambda rows: _ratios(
            "Classes of real data that the net has not seen (paper: ImageNet, d = 16: .99)", rows
        ),
        "heads": _heads,
        "held-out": _held_out,
    }
    tables = [_sizes_table(sizes)] if sizes else []
    for group, make in makers.items():
        rows = [result for result in results if result["group"] == group]
        if rows:
            tables.append(make(rows))
    return tables


def _sizes_table(sizes: Sequence[Mapping[str, Any]]) -> Table:
    rows = tuple((row["family"], str(row["dim"]), f"{row['value']:.1f}", _or_dash(row["paper"])) for row in sizes)
    columns = ("family", "d", "effective sample size", "paper")
    return Table(
        "Effective sample size at t = 0.56, m = 50", columns, rows, "1 is collapse: one example has all weight."
    )


def _ratios(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = (
        *("tasks", "d", "updates", "MMD^2 learned", "plug-in", "floor"),
        *("plug-in / learned", "paper", "tuned / learned", "plug-in / untrained"),
    )
    cells = []
    for row in rows:
        found, untrained = _evaluation(row), row["untrained"]
        cells.append(
            (
                row["config"]["tasks"],
                str(found["settings"]["dim"]),
                f"{row['config']['steps']:,}",
                *(_mean(found, name) for name in ("learned", "plug_in", "floor")),
                _ratio(found, "plug_in"),
                _or_dash(row["paper"]),
                _ratio(found, "tuned"),
                "" if untrained is None else _ratio(untrained, "plug_in"),
            )
        )
    shown = [n for n in range(len(columns)) if any(row[n] for row in cells)]
    note = (
        "Above 1 the net does better. Tuned: the plug-in with the noise that fits validation tasks best. Untrained: "
        "the net before its first update, an isotropic Gaussian about 0 with the support's root mean square."
    ) + _notes(rows)
    return Table(title, tuple(columns[n] for n in shown), tuple(tuple(row[n] for n in shown) for row in cells), note)


def _mixtures(rows: Sequence[Mapping[str, Any]]) -> Table:
    by_name = {row["name"]: row for row in rows}
    columns = (
        "d",
        "updates",
        "plug-in / learned",
        "paper",
        "tuned / learned",
        "with exact head",
        "benefit of the head",
    )
    cells = []
    for name, row in by_name.items():
        with_head = by_name.get(f"{name}-exact")
        if with_head is None:
            continue
        off, on = (_evaluation(found)["tasks"]["learned"]["mmd2"] for found in (row, with_head))
        cells.append(
            (
                str(row["config"]["dim"]),
                f"{row['config']['steps']:,}",
                _ratio(_evaluation(row), "plug_in"),
                _or_dash(row["paper"]),
                _ratio(_evaluation(row), "tuned"),
                _ratio(_evaluation(with_head), "plug_in"),
                _benefit(off, on),
            )
        )
    note = (
        "Benefit: by how much the exact velocity as an input lowers the MMD^2, (without - with) / without, paired by "
        "task. A ratio whose interval holds 1, or lies below it: learning does not help there."
    )
    return Table("Gaussian mixtures, without and with the exact head", columns, tuple(cells), note)


def _heads(rows: Sequence[Mapping[str, Any]]) -> Table:
    sizes = sorted({int(m) for row in rows for m in row["evaluations"]})
    columns = ("heads", "updates", *(f"MMD^2, m = {m}" for m in sizes), "exponent")
    cells = []
    for row in rows:
        per_task = np.asarray([row["evaluations"][str(m)]["tasks"]["learned"]["mmd2"] for m in sizes])
        exponent = scaling_exponent(sizes, per_task).text(2)
        cells.append(
            (str(row["config"]["heads"]), f"{row['config']['steps']:,}", *map(_small, per_task.mean(1)), exponent)
        )
    plug_in = [np.mean(rows[0]["evaluations"][str(m)]["tasks"]["plug_in"]["mmd2"]) for m in sizes]
    cells.append(("plug-in", "", *map(_small, plug_in), "0.5 in expectation"))
    note = (
        "Exponent: the fitted a in MMD ~ m^-a of one net at all support sizes, with its 95 % interval over tasks. The "
        "paper's figure runs from .45 to .72."
    )
    return Table("Heads against scaling exponent: shells, d = 8", columns, tuple(cells), note)


def _held_out(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = ("held out", "trained on", "updates", "MMD^2 learned", "plug-in", "learned / plug-in", "95 %")
    cells = []
    for row in rows:
        found = _evaluation(row)
        ratio = ratio_interval(found["tasks"]["learned"]["mmd2"], found["tasks"]["plug_in"]["mmd2"])
        cells.append(
            (
                found["settings"]["family"],
                row["config"]["tasks"],
                f"{row['config']['steps']:,}",
                *(_mean(found, name) for name in ("learned", "plug_in")),
                f"{ratio.value:.3g}",
                f"{ratio.low:.3g} to {ratio.high:.3g}",
            )
        )
    note = "Above 1 the net fails on a family that it was not trained on; the paper has some above 2."
    return Table("A family held out of training", columns, tuple(cells), note)


def scaling_exponent(sizes: Sequence[int], per_task: NDArray[np.float64], seed: int = 0) -> Interval:
    """Least-squares slope of -log MMD against log m, with its 95 % interval from resampled tasks.

    MMD is the root of the mean of MMD^2 over tasks. Where a mean is not positive it has no logarithm, and the exponent
    is undetermined (NaN); such resamplings count against both ends of the interval.

    Args:
        sizes: Support sizes.
        per_task: MMD^2, shape (sizes, tasks).
        seed: Seed of the resampling.

    Example:
        >>> scaling_exponent([10, 100], np.array([[0.1, 0.1], [0.01, 0.01]])).text(2)
        '0.5 [0.5, 0.5]'
    """
    draws = np.random.default_rng(seed).integers(per_task.shape[1], size=(1000, per_task.shape[1]))
    slopes = np.array([_slope(sizes, per_task[:, index].mean(1)) for index in draws])
    low, high = (np.where(np.isnan(slopes), end, slopes) for end in (-math.inf, math.inf))
    ends = np.quantile(low, 0.025, method="lower"), np.quantile(high, 0.975, method="higher")
    return Interval(_slope(sizes, per_task.mean(1)), float(ends[0]), float(ends[1]))


def _slope(sizes: Sequence[int], means: NDArray[np.float64]) -> float:
    if not (means > 0).all():
        return math.nan
    return float(-0.5 * np.polyfit(np.log(sizes), np.log(means), 1)[0])


def _benefit(off: Sequence[float], on: Sequence[float]) -> str:
    """By what share ``on`` is lower than ``off``, in per cent."""
    kept = ratio_interval(on, off)
    return f"{100 * (1 - kept.value):.0f} % [{100 * (1 - kept.high):.0f}, {100 * (1 - kept.low):.0f}]"


def _evaluation(row: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(iter(row["evaluations"].values()))
    return found


def _ratio(found: Mapping[str, Any], to: str, of: str = "learned") -> str:
    """Ratio of mean MMD^2 with its interval over tasks."""
    return ratio_interval(found["tasks"][to]["mmd2"], found["tasks"][of]["mmd2"]).text()


def _notes(rows: Sequence[Mapping[str, Any]]) -> str:
    """What a reader of the figures needs to know, each note once."""
    found = {note: None for row in rows for note in _evaluation(row).get("notes", ())}
    return "".join(f" Note: {note}." for note in found)


def _mean(found: Mapping[str, Any], name: str) -> str:
    return _small(float(np.mean(found["tasks"][name]["mmd2"])))


def _small(value: float) -> str:
    return f"{value:.2g}" if abs(value) < 0.001 else f"{value:.4f}"


def _or_dash(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
