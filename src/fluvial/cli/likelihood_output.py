"""What ``fluvial likelihood`` writes and prints: an array file, a record, a histogram, the rarest data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluvial.cli.folders import check_output, written_aside
from fluvial.cli.outputs import check_outputs, sidecar_of, write_sidecar
from fluvial.cli.render import console, json_text

if TYPE_CHECKING:
    from fluvial.audits.density import Gap, Rare, Scored
    from fluvial.audits.estimates import Estimate

LOWEST = 8
"""How many of the rarest data of each part are recorded and shown."""
LISTED = 5
"""How many of them are printed."""


def histogram_of(out: Path) -> Path:
    """Where the histogram lies."""
    return out.with_suffix(".png")


def strip_of(out: Path) -> Path:
    """Where the picture of the rarest images lies."""
    return out.with_name(f"{out.stem}-lowest.png")


def check_free(out: Path, overwrite: bool) -> None:
    """Raises ValueError unless the array file and all that lies beside it may be written."""
    check_outputs(out, overwrite)
    for path in (histogram_of(out), strip_of(out)):
        check_output(path, overwrite)


@dataclass(frozen=True)
class Measured:
    """Log-densities, and what they are of.

    Args:
        scored: The parts.
        gap: Between training and held-out data, where both were scored.
        unit: What a log-density is of.
        names: Names of files, by index; may be empty.
        record: How it was done.
    """

    scored: "Sequence[Scored]"
    gap: "Gap | None"
    unit: str
    names: Sequence[str]
    record: Mapping[str, Any]

    @property
    def lowest(self) -> "dict[str, list[Rare]]":
        """The rarest data of each part."""
        from fluvial.audits.density import rarest

        return {part.part.name: rarest(part, LOWEST) for part in self.scored}

    @property
    def how(self) -> str:
        """How it was done, in a line."""
        record = self.record
        count, steps = record["probes"], record["steps"]
        directions = "" if count is None else f" in {count} random direction{'s' if count > 1 else ''}"
        parts = [f"{record['solver']}, {f'{steps} steps, ' if steps else ''}{record['evaluations']} evaluations"]
        parts.append(f"divergence {record['divergence']}{directions}")
        parts += [] if record["condition"] is None else [f"given {record['condition']}"]
        parts += [] if record["guidance"] is None else [f"guidance {record['guidance']:g}"]
        return "; ".join(parts)

    def values(self) -> dict[str, Any]:
        """The record as JSON values."""
        lowest = self.lowest
        parts = {part.part.name: self._part_values(part, lowest[part.part.name]) for part in self.scored}
        gap = self.gap
        return {
            **self.record,
            "units": self.unit,
            "interval": "95 %, Student's t over data",
            "parts": parts,
            "gap": gap and {**_both(gap.log_prob, gap.bits_per_dim), "sentence": gap.sentence},
        }

    def _part_values(self, part: "Scored", lowest: "Sequence[Rare]") -> dict[str, Any]:
        errors = part.density.standard_error
        listed = [
            {
                "index": rare.index,
                "file": self.names[rare.index] if self.names else None,
                "label": rare.label or None,
                "log_prob": rare.log_prob,
                "standard_error": None if errors is None else float(errors[rare.row]),
                "deviations_below_median": rare.deviations,
            }
            for rare in lowest
        ]
        return {
            "n": len(part.part.index),
            "levels": part.part.levels,
            **_both(part.log_prob, part.bits_per_dim),
            "bits_per_dim_is_upper_bound": part.part.levels is not None,
            "error_from_directions": part.directions_error,
            "evaluations": part.density.evaluations,
            "lowest": listed,
        }

    def write(self, out: Path, title: str, picture: bool) -> None:
        """Writes the array file, the histogram, for images the rarest of them, and last the record."""
        import numpy as np

        from fluvial.audits.density_view import histogram_png

        with written_aside(out) as aside, aside.open("wb") as file:
            np.savez_compressed(file, **self._arrays())
        with written_aside(histogram_of(out)) as aside:
            aside.write_bytes(histogram_png(self.scored, title, self.unit))
        if picture:
            self._write_strip(strip_of(out))
        write_sidecar(out, json_text(self.values()))

    def _write_strip(self, path: Path) -> None:
        """The rarest images, a row for each part, the rarest first."""
        import torch

        from fluvial.data import save_grid

        rows = [part.part.x[[rare.row for rare in self.lowest[part.part.name]]] for part in self.scored]
        wide = max(map(len, rows))
        # a part of few data leaves white room
        filled = [torch.cat([row, row.new_ones(wide - len(row), *row.shape[1:])]) for row in rows]
        with written_aside(path) as aside:
            save_grid(torch.cat(filled), aside, wide)

    def _arrays(self) -> dict[str, Any]:
        import numpy as np

        index = np.concatenate([part.part.index.numpy() for part in self.scored])
        none = [-1]
        labels = [none * len(p.part.index) if p.part.labels is None else p.part.labels.tolist() for p in self.scored]
        errors = [part.density.standard_error for part in self.scored]
        known = [error.numpy() for error in errors if error is not None]
        arrays: dict[str, Any] = {
            "log_prob": np.concatenate([part.density.log_prob.numpy() for part in self.scored]),
            "bits_per_dim": np.concatenate([part.density.bits_per_dim.numpy() for part in self.scored]),
            "index": index,
            "label": np.array([label for part in labels for label in part], np.int64),
            "split": np.array([part.part.name for part in self.scored for _ in part.part.index]),
            "class_names": np.array(self.scored[0].part.class_names, dtype=str),
        }
        arrays |= {"standard_error": np.concatenate(known)} if known else {}
        return arrays | ({"filename": np.array([self.names[i] for i in index])} if self.names else {})

    def print(self, title: str, out: Path, picture: bool) -> None:
        """Prints the means, what the gap says, the histogram and the rarest data."""
        from fluvial.audits.density_view import histogram_lines

        screen = console()
        print(title)
        print(f"log-density of {self.unit}; means with 95 % intervals")
        screen.print(self._means())
        if self.gap is not None:
            print(self.gap.sentence)
        print()
        print("\n".join(histogram_lines(self.scored)))
        print("\nlowest log-densities")
        screen.print(self._rarest())
        for path in (out, sidecar_of(out), histogram_of(out), *([strip_of(out)] if picture else [])):
            print(f"written: {path}")

    def _means(self) -> Any:
        from rich.table import Table

        bound = any(part.part.levels is not None for part in self.scored)
        table = Table()
        for name in ("", "data", "nats a datum", "bits per dimension" + (" (upper bound)" if bound else "")):
            table.add_column(name, justify="left" if not name else "right")
        for part in self.scored:
            count = f"{len(part.part.index):,}"
            table.add_row(part.part.name, count, part.log_prob.text(), part.bits_per_dim.text(3))
        if self.gap is not None:
            table.add_row("gap", "", self.gap.log_prob.text(), self.gap.bits_per_dim.text(3))
        return table

    def _rarest(self) -> Any:
        from rich.table import Table

        table = Table()
        labelled = any(part.part.labels is not None for part in self.scored)
        names = ["", "index", *(["file"] if self.names else []), *(["label"] if labelled else [])]
        for name in (*names, "nats", "below the median"):
            table.add_column(name, justify="right" if name not in ("", "file", "label") else "left", overflow="fold")
        for part in self.scored:
            errors = part.density.standard_error
            for rare in self.lowest[part.part.name][:LISTED]:
                error = "" if errors is None else f" ± {float(errors[rare.row]):.2f}"
                file = [self.names[rare.index]] if self.names else []
                cells = [part.part.name, str(rare.index), *file, *([rare.label] if labelled else [])]
                table.add_row(*cells, f"{rare.log_prob:.2f}{error}", f"{rare.deviations:.1f} sd")
        return table


def _both(log_prob: "Estimate", bits_per_dim: "Estimate") -> dict[str, Any]:
    return {name: vars(figure) for name, figure in (("log_prob", log_prob), ("bits_per_dim", bits_per_dim))}
