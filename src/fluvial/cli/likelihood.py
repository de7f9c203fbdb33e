"""``fluvial likelihood``: log-densities of data under a run, and whether its training data stand out."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from fluvial import __version__
from fluvial.cli.likelihood_data import (
    NO_LABEL,
    check_fit,
    condition_name,
    conditions_of,
    file_names,
    read_data,
    unit_of,
)
from fluvial.cli.likelihood_output import Measured, check_free
from fluvial.cli.render import json_text, renderer
from fluvial.cli.sample import FINEST_TOLERANCE
from fluvial.data.specs import parse_spec
from fluvial.training.config import TrainConfig, read_config

if TYPE_CHECKING:
    from fluvial.audits.density import Part, Scored
    from fluvial.data import Dataset
    from fluvial.densities import Trace
    from fluvial.fields.base import Field
    from fluvial.training import Run

DEFAULT_STEPS = 100


@dataclass(frozen=True)
class Likelihood:
    """Take log-densities of data under a run: means, bits per dimension, memorising, and the rarest data."""

    EPILOGUE: ClassVar[str] = """\
what is measured:
  The density of what the run's field makes of noise, by the instantaneous change of variables. Without --data it is
  that of the run's training data and of its held-out data: a higher mean on the training data is a sign of memorising.
  Densities have units: tables are in their original ones (the standardisation is undone), images in [-1, 1].
  Grey levels are dequantised with uniform noise, the same for a datum whenever --seed is; bits per dimension are then
  an upper bound. Intervals (95 %) are over data, and hold the error of random directions too.
  Runs trained with --labels are asked for the density given each datum's own label; with --captions or
  --reference-size, without a condition.

outputs (RUN/likelihood/NAME.npz, or --out):
  x.npz         log_prob, bits_per_dim, index, label, split; standard_error with random directions; filename
                of images in a folder
  x.json        everything that --json prints: intervals, the rarest data, seed, checkpoint, evaluations
  x.png         histogram of training and held-out data
  x-lowest.png  the images of lowest density, a row for each part

examples:
  fluvial likelihood runs/a                              training against held-out data
  fluvial likelihood runs/a --divergence exact --n 100   without random directions: slower, no error of theirs
  fluvial likelihood runs/a --data samples.npz           other data of the same shape, such as samples of the run
  fluvial likelihood runs/t --data new.csv --n 1000      rows of a table with the run's columns
  fluvial likelihood runs/l --label none                 unconditional density of a run trained with --labels
  fluvial likelihood runs/l --data x.npy --label 3 --json
"""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    data: Annotated[
        str | None, tyro.conf.arg(help_behavior_hint="(default: the run's training and held-out data)", metavar="SPEC")
    ] = None
    """Other data of the same shape or columns, as for fluvial train --data; all of them, train and test."""
    n: int = 512
    """Largest number of data of each part, drawn by --seed."""
    divergence: Annotated[
        Literal["exact", "hutchinson"] | None,
        tyro.conf.arg(help_behavior_hint="(default: exact up to 32 numbers a datum, hutchinson above)"),
    ] = None
    """In full, or estimated in random directions without bias."""
    probes: Annotated[int | None, tyro.conf.arg(help_behavior_hint="(default: 8)")] = None
    """Random directions of each datum; with one its standard error is unknown."""
    solver: Literal["euler", "midpoint", "heun", "rk4", "dopri5"] = "dopri5"
    """How the field is integrated; dopri5 chooses its own steps."""
    steps: Annotated[int | None, tyro.conf.arg(help_behavior_hint="(default: 100; not with dopri5)")] = None
    """Number of solver steps from data to noise."""
    rtol: float = 1e-4
    """Relative error per step of dopri5."""
    atol: float = 1e-4
    """Absolute error per step of dopri5, in units of the standardised data and of nats."""
    label: Annotated[
        str | None, tyro.conf.arg(help_behavior_hint="(default: each datum's own)", metavar="NAME|INT|none")
    ] = None
    """Class that all data are taken to be of, or none; for runs trained with --labels."""
    guidance: Annotated[float | None, tyro.conf.arg(help_behavior_hint="(default: 1)")] = None
    """Guidance scale of the field whose density is taken; 1 is no guidance; needs labels."""
    seed: int = 0
    """Seed of the choice of data, of dequantisation and of random directions."""
    batch_size: int = 256
    """Data integrated together: decides the memory used."""
    out: Annotated[
        Path | None, tyro.conf.arg(help_behavior_hint="(default: in RUN/likelihood)", metavar="PATH.npz")
    ] = None
    """Where to write; what else is written lies beside it."""
    overwrite: bool = False
    """Replace files that exist."""
    json: bool = False
    """Print the record on stdout instead of tables."""

    def validate(self, given: tuple[str, ...] = ()) -> None:
        """Refuses bad values, a folder that holds no run, data that do not fit it, and outputs that exist.

        Raises:
            ValueError: As above.
        """
        for name in ("n", "batch_size", "steps", "probes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
        if self.seed < 0:
            raise ValueError(f"--seed must not be negative, got {self.seed}")
        if self.divergence == "exact" and self.probes is not None:
            raise ValueError("--probes are random directions, and --divergence exact needs none")
        self._validate_solver(given)
        if self.out is not None:
            if self.out.suffix.lower() != ".npz":
                raise ValueError(f"--out must end in .npz, got {str(self.out)!r}")
            check_free(self.out, self.overwrite)
        config = read_config(self.run)
        self._validate_condition(config)
        if self.data is not None:
            check_fit(self.data, self.run)

    def _validate_solver(self, given: tuple[str, ...]) -> None:
        for name in ("rtol", "atol"):
            if not FINEST_TOLERANCE <= getattr(self, name) < math.inf:
                least = f"at least {FINEST_TOLERANCE:g}, the resolution of float32, and finite"
                raise ValueError(f"--{name} must be {least}, got {getattr(self, name):g}")
            if f"--{name}" in given and self.solver != "dopri5":
                raise ValueError(f"--{name} needs --solver dopri5, got --solver {self.solver}; use --steps")
        if self.solver == "dopri5" and self.steps is not None:
            raise ValueError("--steps needs a --solver with fixed steps; dopri5 chooses its own: use --rtol, --atol")

    def _validate_condition(self, config: TrainConfig) -> None:
        for option, value in {"--label": self.label, "--guidance": self.guidance}.items():
            if value is not None and not config.labels:
                raise ValueError(f"{option} needs a run trained with --labels; {self.run} was trained without")
        if self.guidance is not None and not math.isfinite(self.guidance):
            raise ValueError(f"--guidance must be finite, got {self.guidance}")
        if self.guidance is not None and self.label == NO_LABEL:
            raise ValueError("--guidance strengthens the condition, and --label none takes it away")

    def execute(self) -> int:
        """Measures, writes the files, and prints what was found."""
        from fluvial.training import load_run

        run = load_run(self.run)
        out = self.out or self.run / "likelihood" / self._default_name(run)
        check_free(out, self.overwrite)
        found = self._measure(run, out)
        title = f"{self.run} at step {run.step:,}: {found.how}"
        picture = run.data_form.kind == "image"
        found.write(out, f"{run.data_form.name}, {self.run.resolve().name} at step {run.step:,}", picture)
        if self.json:
            print(json_text(found.values()))
        else:
            found.print(title, out, picture)
        return 0

    def _measure(self, run: "Run", out: Path) -> Measured:
        from fluvial.audits.density import HELD_OUT, OTHER, TRAIN, choose, gap_between
        from fluvial.densities import Trace

        trace = Trace.of(math.prod(run.net_spec.shape), self.divergence, self.probes)
        if self.data is None:
            data = run.dataset()
            sources = {TRAIN: data.train, HELD_OUT: data.held_out}
        else:
            sources = {OTHER: read_data(self.data, run, self.seed)}
        parts = [choose(source, self.n, name, self.seed) for name, source in sources.items() if len(source)]
        scored = self._score(run, parts, trace)
        gap = gap_between(*scored) if len(scored) == 2 else None
        record = self._record(run, out, scored, sources, trace)
        return Measured(scored, gap, unit_of(run, parts[0]), file_names(self.data or run.config.data), record)

    def _score(self, run: "Run", parts: "list[Part]", trace: "Trace") -> "list[Scored]":
        import torch

        from fluvial.audits.density import score
        from fluvial.fields import Guided
        from fluvial.solvers.sampling import Solver

        device = "cuda" if torch.cuda.is_available() else "cpu"
        net = run.net.to(device)
        field: Field = net if self.guidance is None else Guided(net, self.guidance)
        conditions = [conditions_of(run, part, self.label) for part in parts]
        with renderer() as progress:
            return [
                score(
                    field,
                    part,
                    trace=trace,
                    solver=Solver(self.solver, self._steps, self.rtol, self.atol),
                    cond=cond,
                    table=run.data_form.table,
                    batch_size=self.batch_size,
                    device=device,
                    seed=self.seed,
                    progress=progress,
                )
                for part, cond in zip(parts, conditions, strict=True)
            ]

    @property
    def _steps(self) -> int | None:
        return None if self.solver == "dopri5" else self.steps or DEFAULT_STEPS

    def _record(
        self, run: "Run", out: Path, scored: "list[Scored]", sources: "dict[str, Dataset]", trace: "Trace"
    ) -> dict[str, Any]:
        """How it was done."""
        adaptive = self.solver == "dopri5"
        table = run.data_form.table
        return {
            "fluvial": __version__,
            "command": "likelihood",
            "file": out.name,
            "run": str(self.run),
            "checkpoint": run.checkpoint.folder.name,
            "checkpoint_hash": run.checkpoint.hash,
            "step": run.step,
            "data": self.data or run.config.data,
            "data_hashes": {name: source.content_hash for name, source in sources.items() if len(source)},
            "n": self.n,
            "seed": self.seed,
            "condition": condition_name(run, scored[0].part, self.label),
            "guidance": self.guidance,
            "divergence": trace.divergence,
            "probes": trace.probes if trace.divergence == "hutchinson" else None,
            "solver": self.solver,
            "steps": self._steps,
            "rtol": self.rtol if adaptive else None,
            "atol": self.atol if adaptive else None,
            "evaluations": max(part.density.evaluations for part in scored),
            "columns": None if table is None else list(table.columns),
        }

    def _default_name(self, run: "Run") -> str:
        data = [] if self.data is None else [parse_spec(self.data).name]
        parts = [f"step-{run.step:08d}", *data, f"n-{self.n}", f"seed-{self.seed}", self.solver, self._steps]
        parts += [self.divergence] if self.divergence else []
        parts += [] if self.probes is None else [f"probes-{self.probes}"]
        parts += [] if self.label is None else [f"label-{self.label}"]
        parts += [] if self.guidance is None else [f"guidance-{self.guidance:g}"]
        name = "_".join(str(part) for part in parts if part is not None)
        return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name) + ".npz"
