"""``fluvial sample``: draws samples from a run, with a sidecar that says how."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from fluvial import __version__
from fluvial.cli.classes import class_number
from fluvial.cli.outputs import check_outputs, write_sidecar
from fluvial.cli.render import json_text, renderer
from fluvial.cli.samples import Form, check_form, check_memory, form_of, form_record, write_samples
from fluvial.training.config import TrainConfig, read_config

if TYPE_CHECKING:
    from torch import Tensor

    from fluvial.fields.base import Field
    from fluvial.training.runs import Run

DEFAULT_STEPS = 50
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
  A sidecar x.json records checkpoint, solver, evaluations, seed, label and guidance.

examples:
  fluvial sample runs/a --n 64 --steps 50 --solver heun --seed 0 --out samples.png
  fluvial sample runs/a --n 10000 --out samples.npz
  fluvial sample runs/a --hybrid-tau 0.2              exact field of the training data first, then the learned one
  fluvial sample runs/m --solver meanflow --steps 1   one evaluation, for runs trained with --objective meanflow
  fluvial sample runs/a --label 3 --guidance 2        for runs trained with --labels; or the name of a class

Sample i depends on the seed and on i alone: neither --n nor --batch-size changes it
(with dopri5, whose steps suit a whole batch, only up to its tolerances).
"""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    n: int = 64
    """Number of samples."""
    out: Annotated[
        Path | None, tyro.conf.arg(help_behavior_hint="(default: a .png or .npz in RUN/samples)", metavar="PATH")
    ] = None
    """Where to write: NAME.png, NAME.npz, or a folder (any other name)."""
    solver: Literal["euler", "midpoint", "heun", "rk4", "dopri5", "meanflow"] = "heun"
    """How the field is integrated; dopri5 chooses its own steps, meanflow jumps along average velocities."""
    steps: Annotated[int | None, tyro.conf.arg(help_behavior_hint="(default: 50; meanflow 1; not with dopri5)")] = None
    """Number of solver steps from noise to data."""
    seed: int = 0
    """Seed of the noise."""
    label: Annotated[str | None, tyro.conf.arg(help_behavior_hint="(default: unconditional)", metavar="NAME|INT")] = (
        None
    )
    """Class to draw: its name (fluvial info lists them), or its number from 0; needs a run trained with labels."""
    guidance: Annotated[float | None, tyro.conf.arg(help_behavior_hint="(default: 1)")] = None
    """Guidance scale w of v_null + w (v_cond - v_null); 1 is no guidance; needs --label."""
    hybrid_tau: Annotated[float | None, tyro.conf.arg(help_behavior_hint="(default: learned throughout)")] = None
    """Time in (0, 1) until which the exact field of the training data is followed, the learned one after."""
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
        self._validate_labels(config)
        if self.solver == "meanflow":
            self._validate_jumps(config)

    def _validate_jumps(self, config: TrainConfig) -> None:
        if config.objective != "meanflow":
            raise ValueError(
                f"--solver meanflow needs a run trained with --objective meanflow; {self.run} was trained with "
                f"{config.objective}"
            )
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

    def _validate_labels(self, config: TrainConfig) -> None:
        if self.label is not None and not config.labels:
            raise ValueError(f"--label needs a run trained with --labels; {self.run} was trained without")
        if self.guidance is not None and self.label is None:
            raise ValueError("--guidance needs --label: it strengthens the condition")
        if self.guidance is not None and not math.isfinite(self.guidance):
            raise ValueError(f"--guidance must be finite, got {self.guidance}")

    def execute(self) -> int:
        """Samples, writes the output and its sidecar, and says where they are."""
        import numpy as np

        from fluvial.training import load_run

        run = load_run(self.run)
        form, label = form_of(run), self._class(run)
        out = self.out or self._default_out(run, form, label)
        check_outputs(out, self.overwrite)
        check_form(form, out)
        check_memory(self.n, form)
        x, evaluations = self._draw(run, label)
        if not bool(x.isfinite().all()):
            raise ValueError("samples hold NaN or infinite values: the net has diverged or --guidance is too strong")
        sidecar = json_text(self._sidecar(run, form, out, label, evaluations))
        write_samples(form, x, out, None if label is None else {"labels": np.full(self.n, label, np.int64)})
        write_sidecar(out, sidecar)
        summary = f"{out}: {self.n} samples of {self.run} at step {run.step}, {evaluations} evaluations each"
        print(sidecar if self.json else summary)
        return 0

    def _class(self, run: "Run") -> int | None:
        classes = run.net_spec.classes
        if self.label is None or classes is None:
            return None
        return class_number(self.label, run.data_form.class_names, classes)

    def _draw(self, run: "Run", label: int | None) -> "tuple[Tensor, int]":
        import torch

        from fluvial.solvers.sampling import Solver, draw_samples

        device = "cuda" if torch.cuda.is_available() else "cpu"
        with renderer() as progress:
            return draw_samples(
                self._field(run, label, device),
                self.n,
                run.net_spec.shape,
                seed=self.seed,
                solver=Solver(self.solver, self._steps, self.rtol, self.atol),
                cond=None if label is None else torch.full((self.n,), label),
                batch_size=self.batch_size,
                device=device,
                progress=progress,
            )

    @property
    def _steps(self) -> int | None:
        return self.steps or {"dopri5": None, "meanflow": 1}.get(self.solver, DEFAULT_STEPS)

    def _default_out(self, run: "Run", form: Form, label: int | None) -> Path:
        parts = [f"step-{run.step:08d}", self.solver, self._steps, f"seed-{self.seed}", f"n-{self.n}"]
        for name, value in {"label": label, "guidance": self.guidance, "hybrid-tau": self.hybrid_tau}.items():
            parts += [] if value is None else [f"{name}-{value:g}"]
        suffix = ".png" if form.has_picture else ".npz"
        return self.run / "samples" / ("_".join(str(part) for part in parts if part is not None) + suffix)

    def _field(self, run: "Run", label: int | None, device: str) -> "Field":
        """The learned field, guided and preceded by the exact one as asked for."""
        from fluvial.fields import ExactField, Guided, Hybrid

        net = run.net.to(device)
        field: Field = net if self.guidance is None else Guided(net, self.guidance)
        if self.hybrid_tau is None:
            return field
        train = run.dataset().train
        exact = ExactField(train.x, run.path, labels=None if label is None else train.labels)
        return Hybrid(exact.to(device), field, self.hybrid_tau)

    def _sidecar(self, run: "Run", form: Form, out: Path, label: int | None, evaluations: int) -> dict[str, Any]:
        adaptive = self.solver == "dopri5"
        names = run.data_form.class_names
        return {
            "fluvial": __version__,
            "file": out.name,
            "run": str(self.run),
            "checkpoint": run.checkpoint.folder.name,
            "checkpoint_hash": run.checkpoint.hash,
            "step": run.step,
            "n": self.n,
            "seed": self.seed,
            "solver": self.solver,
            "steps": self._steps,
            "rtol": self.rtol if adaptive else None,
            "atol": self.atol if adaptive else None,
            "evaluations": evaluations,
            "label": label,
            "label_name": names[label] if label is not None and label < len(names) else None,
            "guidance": self.guidance,
            "hybrid_tau": self.hybrid_tau,
            **form_record(form, out),
        }
