"""``fluvial sample``: draws samples from a run, with a sidecar that says how."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from fluvial import __version__
from fluvial.cli.outputs import check_outputs, write_sidecar
from fluvial.cli.render import json_text, renderer
from fluvial.cli.sample_condition import Asked, Conditions, conditions
from fluvial.cli.sample_density import SampleDensity
from fluvial.cli.samples import Form, check_form, check_memory, form_of, form_record, write_samples
from fluvial.training.config import TrainConfig, read_config

if TYPE_CHECKING:
    from torch import Tensor

    from fluvial.fields.base import Field
    from fluvial.ranks import Ranks
    from fluvial.training.runs import Run

DEFAULT_STEPS = 25
FINEST_TOLERANCE = 1e-7
"""About the spacing of float32 numbers at 1: a smaller error than that cannot be measured."""


@dataclass(frozen=True)
class Sample:
    """Draw samples from a trained run, as a picture grid, an array file or a folder of images."""

    EPILOGUE: ClassVar[str] = """\
outputs (the name decides):
  x.png   a grid of images; a scatter plot of points in the plane
  x.npz   key x: float32, images in [-1, 1], tables in their original units; key labels with --label
  x       a folder of images 000000.png, 000001.png, ...
  A sidecar x.json records checkpoint, solver, evaluations, seed, condition and guidance.
  With --with-log-prob an .npz also has log_prob (nats, in the units of x) and bits_per_dim; beside a picture or a
  folder they are lists in x.json. Above 32 numbers a sample they are estimates, with log_prob_standard_error.

examples:
  fluvial sample runs/a --n 64 --steps 50 --solver heun --seed 0 --out samples.png
  fluvial sample runs/a --n 10000 --out samples.npz
  fluvial sample runs/a --with-log-prob --out x.npz   the same samples, with their log-densities
  fluvial sample runs/a --hybrid-tau 0.2              exact field of the training data first, then the learned one
  fluvial sample runs/m --solver meanflow --steps 1   one evaluation, for runs trained with --objective meanflow
  fluvial sample runs/l --label 3 --guidance 2        for runs trained with --labels; or the name of a class
  fluvial sample runs/l --label all --n 8             a grid with a row of 8 samples for each class
  fluvial sample runs/t --prompt "a happy face"       for runs trained with --captions
  fluvial sample runs/r --reference photos            for runs trained with --reference-size: images in their likeness

Sample i depends on the seed and on i alone: neither --n nor --batch-size changes it
(with dopri5, whose steps suit a whole batch, only up to its tolerances).
Several processes share the samples: torchrun --nproc-per-node 2 -m -- fluvial sample runs/a --n 10000
"""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    n: int = 64
    """Number of samples; with --label all, of each class."""
    out: Annotated[
        Path | None, tyro.conf.arg(help_behavior_hint="(default: a .png or .npz in RUN/samples)", metavar="PATH")
    ] = None
    """Where to write: NAME.png, NAME.npz, or a folder (any other name)."""
    solver: Literal["euler", "midpoint", "heun", "rk4", "dopri5", "meanflow"] = "midpoint"
    """How the field is integrated; dopri5 chooses its own steps, meanflow jumps along average velocities."""
    steps: Annotated[int | None, tyro.conf.arg(help_behavior_hint="(default: 25; meanflow 1; not with dopri5)")] = None
    """Number of solver steps from noise to data."""
    seed: int = 0
    """Seed of the noise."""
    label: Annotated[str | None, tyro.conf.arg(help_behavior_hint="(default: unconditional)", metavar="NAME|INT")] = (
        None
    )
    """Class to draw: its name (fluvial info lists them), its number from 0, or all; for runs trained with --labels."""
    prompt: Annotated[str | None, tyro.conf.arg(help_behavior_hint="(default: unconditional)", metavar="TEXT")] = None
    """Text to draw images of; for runs trained with --captions."""
    reference: Annotated[
        Path | None, tyro.conf.arg(help_behavior_hint="(default: unconditional)", metavar="FOLDER")
    ] = None
    """Folder with a handful of images to draw in the likeness of; for runs trained with --reference-size."""
    guidance: Annotated[float | None, tyro.conf.arg(help_behavior_hint="(default: 1)")] = None
    """Guidance scale w of v_null + w (v_cond - v_null); 1 is no guidance; needs a condition."""
    hybrid_tau: Annotated[float | None, tyro.conf.arg(help_behavior_hint="(default: learned throughout)")] = None
    """Time in (0, 1) until which the exact field of the training data is followed, the learned one after."""
    with_log_prob: bool = False
    """Also give each sample's log-density, from the same integration."""
    batch_size: int = 512
    """Samples integrated together: decides the memory used, not the result."""
    rtol: float = 1e-5
    """Relative error per step of dopri5."""
    atol: float = 1e-5
    """Absolute error per step of dopri5, in units of the data."""
    overwrite: bool = False
    """Replace files that exist."""
    json: bool = False
    """Print the sidecar on stdout."""

    def validate(self, given: tuple[str, ...] = ()) -> None:
        """Refuses bad values, a folder that holds no run, and outputs that exist.

        Raises:
            ValueError: As above.
        """
        for name in ("n", "batch_size") if self.steps is None else ("n", "batch_size", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"--seed must not be negative, got {self.seed}")
        for name in ("rtol", "atol"):
            if not FINEST_TOLERANCE <= getattr(self, name) < math.inf:
                least = f"at least {FINEST_TOLERANCE:g}, the resolution of float32, and finite"
                raise ValueError(f"--{name} must be {least}, got {getattr(self, name):g}")
        self._validate_solver(given)
        if self.hybrid_tau is not None and not 0 < self.hybrid_tau < 1:
            raise ValueError(f"--hybrid-tau must be between 0 and 1, got {self.hybrid_tau}")
        if self.out is not None:
            check_outputs(self.out, self.overwrite)
        config = read_config(self.run)
        self._asked.validate(config, self.run)
        if self.hybrid_tau is not None and (self.prompt is not None or self.reference is not None):
            raise ValueError(
                "--hybrid-tau follows the exact field of a class or of all data: give it with --label only"
            )
        if self.hybrid_tau is not None and config.objective == "likelihood":
            raise ValueError(
                f"--hybrid-tau follows a path's exact field first, and {self.run} was trained with likelihood, which "
                "follows no path"
            )
        if self.solver == "meanflow":
            self._validate_jumps(config)

    def _validate_jumps(self, config: TrainConfig) -> None:
        if config.objective != "meanflow":
            raise ValueError(
                f"--solver meanflow needs a run trained with --objective meanflow; {self.run} was trained with "
                f"{config.objective}"
            )
        if self.with_log_prob:
            raise ValueError("--with-log-prob needs another --solver: meanflow jumps along averages of the velocity")
        for option, value in {"--guidance": self.guidance, "--hybrid-tau": self.hybrid_tau}.items():
            if value is not None:
                raise ValueError(f"{option} changes the velocity, and --solver meanflow jumps along its averages")

    def _validate_solver(self, given: tuple[str, ...]) -> None:
        if self.solver == "dopri5" and self.steps is not None:
            raise ValueError(
                "--steps cannot be given with --solver dopri5, which chooses its steps; use --rtol, --atol"
            )
        for option in ("--rtol", "--atol"):
            if option in given and self.solver != "dopri5":
                raise ValueError(f"{option} needs --solver dopri5, got --solver {self.solver}; use --steps")

    @property
    def _asked(self) -> Asked:
        return Asked(self.label, self.prompt, self.reference, self.guidance)

    def execute(self) -> int:
        """Samples, writes the output and its sidecar, and says where they are."""
        import numpy as np

        from fluvial.ranks import Ranks
        from fluvial.training import load_run

        ranks = Ranks.joined()
        run = load_run(self.run)
        if not ranks.alike(run.step):
            raise ValueError(
                f"the processes read different checkpoints of {self.run}, which is being trained: try again"
            )
        form = form_of(run)
        check_memory(self.n, form)  # before anything of that length is made
        wanted = conditions(self._asked, run, self.n)
        out = self.out or self._default_out(run, form, wanted)
        check_outputs(out, self.overwrite)
        check_form(form, out)
        check_memory(wanted.count, form)
        x, evaluations, density = self._draw(run, form, wanted, ranks)
        if not ranks.first:
            return 0
        if not bool(x.isfinite().all()):
            raise ValueError("samples hold NaN or infinite values: the net has diverged or --guidance is too strong")
        sidecar = json_text(self._sidecar(run, form, out, wanted, evaluations, density))
        arrays = {} if wanted.labels is None else {"labels": wanted.labels.numpy().astype(np.int64)}
        arrays |= {} if density is None else density.arrays()
        write_samples(form, x, out, arrays, columns=wanted.columns)
        write_sidecar(out, sidecar)
        cost = "1 evaluation" if evaluations == 1 else f"{evaluations} evaluations"
        summary = f"{out}: {wanted.count} samples of {self.run} at step {run.step}, {cost} each"
        print(sidecar if self.json else summary)
        return 0

    def _draw(
        self, run: "Run", form: Form, wanted: Conditions, ranks: "Ranks"
    ) -> "tuple[Tensor, int, SampleDensity | None]":
        """Samples, evaluations spent on each, and their log-densities if these are asked for."""
        import torch

        from fluvial.densities import Trace, draw_with_log_prob
        from fluvial.solvers.sampling import Solver, draw_samples

        device = "cuda" if torch.cuda.is_available() else "cpu"
        field, shape = self._field(run, wanted, device), run.net_spec.shape
        with renderer() as progress:
            settings: dict[str, Any] = {
                "seed": self.seed,
                "solver": Solver(self.solver, self._steps, self.rtol, self.atol),
                "cond": wanted.cond,
                "batch_size": self.batch_size,
                "device": device,
                "ranks": ranks,
                "progress": progress,
            }
            if not self.with_log_prob:
                return *draw_samples(field, wanted.count, shape, **settings), None
            trace = Trace.of(math.prod(shape))
            found = draw_with_log_prob(field, wanted.count, shape, trace=trace, **settings)
        return found.x, found.density.evaluations, SampleDensity(form, found.density, trace)

    @property
    def _steps(self) -> int | None:
        return self.steps or {"dopri5": None, "meanflow": 1}.get(self.solver, DEFAULT_STEPS)

    def _default_out(self, run: "Run", form: Form, wanted: Conditions) -> Path:
        parts = [f"step-{run.step:08d}", self.solver, self._steps, f"seed-{self.seed}", f"n-{self.n}"]
        parts += [wanted.name] if wanted.name else []
        for name, value in {"guidance": self.guidance, "hybrid-tau": self.hybrid_tau}.items():
            parts += [] if value is None else [f"{name}-{value:g}"]
        suffix = ".png" if form.has_picture else ".npz"
        return self.run / "samples" / ("_".join(str(part) for part in parts if part is not None) + suffix)

    def _field(self, run: "Run", wanted: Conditions, device: str) -> "Field":
        """The learned field, guided and preceded by the exact one as asked for."""
        from fluvial.fields import ExactField, Guided, Hybrid

        net = run.net.to(device)
        field: Field = net if self.guidance is None else Guided(net, self.guidance)
        if self.hybrid_tau is None:
            return field
        train = run.dataset().train
        exact = ExactField(train.x, run.path, labels=None if wanted.labels is None else train.labels)
        return Hybrid(exact.to(device), field, self.hybrid_tau)

    def _sidecar(
        self, run: "Run", form: Form, out: Path, wanted: Conditions, evaluations: int, density: SampleDensity | None
    ) -> dict[str, Any]:
        adaptive = self.solver == "dopri5"
        return {
            "fluvial": __version__,
            "file": out.name,
            "run": str(self.run),
            "checkpoint": run.checkpoint.folder.name,
            "checkpoint_hash": run.checkpoint.hash,
            "step": run.step,
            "n": wanted.count,
            "seed": self.seed,
            "solver": self.solver,
            "steps": self._steps,
            "rtol": self.rtol if adaptive else None,
            "atol": self.atol if adaptive else None,
            "evaluations": evaluations,
            **{"label": None, "label_name": None, "prompt": None, "reference": None, **wanted.record},
            "guidance": self.guidance,
            "hybrid_tau": self.hybrid_tau,
            **form_record(form, out),
            **({} if density is None else density.record(out)),
        }
