"""What a probe found: a table by layer and time, the course over time, one sentence, a figure."""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from fluvial.audits.drawing import draw_figure
from fluvial.audits.finding import Drawing, Finding
from fluvial.support.probing.drawings import fill_figure
from fluvial.support.probing.records import AttentionRecord, finite
from fluvial.support.probing.statistics import STATISTICS

COLUMNS = (
    "layer",
    "time",
    "heads",
    "tokens",
    "Spearman",
    "heads > .9",
    "Pearson",
    "permuted keys",
    "key norm spread",
    "entropy / nats",
    "tokens attended to",
)

METHOD = (
    "Attention rows are held against Nadaraya-Watson weights of the same queries and keys, "
    "w_i ∝ exp(-|q - k_i|^2 / (2 h^2)) with h^2 = sqrt(d_k), or one over the attention's scale where it has another. "
    "Spearman and Pearson correlations are means over queries, then over heads. Only the spread of the key norms sets "
    "the two apart (and what the model adds besides): with equal norms both correlations are 1. Permuted keys give the "
    "null, mean ± standard deviation over permutations."
)

SOURCE = "Matsui Smola 2026, Support-Conditioned Flow Matching Is Kernel Smoothing (arXiv:2605.13386)"


@dataclass(frozen=True)
class ProbeReport:
    """Summary of the records of a probe.

    Args:
        records: The records, in the order of the calls.
        notes: What was left out, and what else a reader needs.
    """

    records: tuple[AttentionRecord, ...]
    notes: tuple[str, ...] = ()

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in the order in which they were first called."""
        return tuple(dict.fromkeys(record.layer for record in self.records))

    @property
    def times(self) -> tuple[float, ...]:
        """Times in the order of the calls; the number of the layer's call where there is no label."""
        return tuple(dict.fromkeys(moment(record) for record in self.records))

    def select(self, names: str | Callable[[str], bool]) -> "ProbeReport":
        """The report of some layers.

        Args:
            names: A pattern such as ``"*/image"``, or a function called with the full name.

        Raises:
            ValueError: If there are none.
        """
        wanted = names if callable(names) else lambda layer: fnmatchcase(layer, names)
        chosen = tuple(record for record in self.records if wanted(record.layer))
        if not chosen:
            raise ValueError(
                f"names must match one of the {len(self.layers)} layers such as {self.layers[0]}, got {names}"
            )
        return ProbeReport(chosen, self.notes)

    def mean(self, name: str, *, layer: str | None = None, time: float | None = None) -> float:
        """Mean of a figure over heads and calls.

        Args:
            name: Its name in ``HeadStatistics``, such as ``"spearman"``.
            layer: Of this layer alone.
            time: At this time alone.

        Returns:
            The mean over those that have one; NaN if none does.

        Raises:
            ValueError: If there is no such figure.
        """
        found = self._values(name, layer, time)
        return float(found.mean()) if len(found) else float("nan")

    def share(self, above: float = 0.9, *, layer: str | None = None, time: float | None = None) -> float:
        """Share of heads whose Spearman correlation is above a threshold, over calls.

        Args:
            above: The threshold.
            layer: Of this layer alone.
            time: At this time alone.
        """
        found = self._values("spearman", layer, time)
        return float((found > above).mean()) if len(found) else float("nan")

    @property
    def rows(self) -> tuple[tuple[str | int | float, ...], ...]:
        """The table by layer and time; its headings are ``COLUMNS``."""
        kinds = dict.fromkeys((record.layer, moment(record)) for record in self.records)
        return tuple(self._row(layer, time) for layer, time in kinds)

    def by_time(self) -> tuple[dict[str, float | None], ...]:
        """Means over layers, heads and calls at each time: ``time``, ``share`` above .9, and every figure by name."""
        return tuple(
            {"time": time, "share": finite(self.share(time=time))}
            | {name: finite(self.mean(name, time=time)) for name in STATISTICS}
            for time in self.times
        )

    @property
    def verdict(self) -> str:
        """The answer in one sentence."""
        spearman, null, spread = (self.mean(name) for name in ("spearman", "null", "null_spread"))
        if np.isnan(spearman):
            if np.isnan(self.mean("entropy")):
                return "No attention row can be compared: the weights are not finite."
            return "No attention row has an order to compare: all weights of each are equal."
        count = len(self.layers)
        first, last = self.times[0], self.times[-1]
        course = ""
        if first != last:
            ends = (self.mean("spearman", time=time) for time in (first, last))
            course = " ({0:.2f} at {2:g}, {1:.2f} at {3:g})".format(*ends, first, last)
        return (
            f"In {count} layer{'s' * (count > 1)}, attention ranks its tokens as a Gaussian kernel on queries and keys "
            f"does with a mean Spearman correlation of {spearman:.2f}{course}; permuted keys give {_shown(null)} ± "
            f"{spread:.2f}, and key norms vary by {self.mean('norm_spread'):.1%}."
        )

    def table(self) -> str:
        """The table by layer and time in Markdown."""
        lines = [f"| {' | '.join(COLUMNS)} |", "|---" * 2 + "|---:" * (len(COLUMNS) - 2) + "|"]
        return "\n".join(lines + [f"| {' | '.join(map(str, row))} |" for row in self.rows])

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for ``json.dump``."""
        return {
            "verdict": self.verdict,
            "method": METHOD,
            "source": SOURCE,
            "table": {"columns": list(COLUMNS), "rows": [list(row) for row in self.rows]},
            "by_time": list(self.by_time()),
            "records": [record.to_dict() for record in self.records],
            "notes": list(self.notes),
        }

    def finding(self) -> Finding:
        """The report as a finding, which a page of findings takes."""
        return Finding(
            name="probe",
            title="Attention as kernel smoothing",
            verdict=self.verdict,
            method=METHOD,
            source=SOURCE,
            columns=COLUMNS,
            rows=self.rows,
            data={"by_time": list(self.by_time()), "records": [record.to_dict() for record in self.records]},
            drawings=(self.drawing(),),
            notes=self.notes,
        )

    def drawing(self) -> Drawing:
        """The figure, not drawn yet."""
        return Drawing(
            "Attention and kernel, by layer and time",
            "Left: rank correlation of attention rows with kernel weights, a line for each layer, mean in bold. The "
            "band is what a head gets with its keys permuted, mean ± 2 standard deviations. Right: share of the heads "
            "above .9.",
            f"Lines over {len(self.times)} times for {len(self.layers)} layers, and bars. {self.verdict}",
            lambda figure: fill_figure(figure, self),
            size=(9.0, 3.9),
        )

    def figure(self, *, dark: bool = False) -> bytes:
        """The figure as a PNG file.

        Args:
            dark: For a dark page.
        """
        drawing = self.drawing()
        return draw_figure(drawing.fill, size=drawing.size, dark=dark)

    def _row(self, layer: str, time: float) -> tuple[str | int | float, ...]:
        record = next(r for r in self.records if r.layer == layer and moment(r) == time)
        mean = {name: self.mean(name, layer=layer, time=time) for name in STATISTICS}
        return (
            layer,
            f"{time:g}" if record.time is not None else f"call {record.call}",
            record.heads,
            record.tokens,
            _shown(mean["spearman"]),
            _shown(self.share(layer=layer, time=time), "{:.0%}"),
            _shown(mean["pearson"]),
            f"{_shown(mean['null'])} ± {_shown(mean['null_spread'])}",
            _shown(mean["norm_spread"], "{:.1%}"),
            _shown(mean["entropy"]),
            _shown(mean["support"], "{:.1f}"),
        )

    def _values(self, name: str, layer: str | None, time: float | None) -> Any:
        if name not in STATISTICS:
            raise ValueError(f"name must be one of {', '.join(STATISTICS)}, got {name!r}")
        chosen = (
            record
            for record in self.records
            if (layer is None or record.layer == layer) and (time is None or moment(record) == time)
        )
        found = np.array([value for record in chosen for value in record.statistics[name]], dtype=np.float64)
        return found[~np.isnan(found)]


def moment(record: AttentionRecord) -> float:
    """Time of a record, or the number of its call where it has none."""
    return float(record.call) if record.time is None else record.time


def _shown(value: float, form: str = "{:.2f}") -> str:
    # Adding zero makes a rounded -0.00 a plain 0.00.
    return "–" if np.isnan(value) else form.format(round(value, 4 if "%" in form else 2) + 0.0)
