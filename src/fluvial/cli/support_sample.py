"""``fluvial support sample``: new points in the likeness of a handful of examples."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from fluvial import __version__
from fluvial.cli.folders import written_aside
from fluvial.cli.outputs import check_outputs, output_format, write_sidecar
from fluvial.cli.render import json_text, renderer
from fluvial.data.memory import check_fits
from fluvial.support.config import read_config

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from fluvial.support.runs import SupportRun


_FAR = 5  # times the distance of examples from one another, from which on samples count as far from them


@dataclass(frozen=True)
class SupportSample:
    """Draw new points in the likeness of a handful of examples, with a net of fluvial support train."""

    EPILOGUE: ClassVar[str] = """\
examples of the support:
  x.npz   key support, x or features, or one array alone: shape (m, d)
  x.npy   the array itself
  Rows have the dimension of the run's points. For a run on real data they may also be features, under the key features
  or where the dimension tells: they are projected, and the samples come back as features.

outputs (the name decides):
  x.npz   keys x (n, d) and support (m, d), float32
  x.png   points in the plane, samples over their support
  A sidecar x.json records checkpoint, solver, evaluations, seed, and how far the samples are from the support.

examples:
  fluvial support sample runs/shells --support my_examples.npz --n 500
  fluvial support sample runs/plane --support points.npy --n 500 --out points.png
  fluvial support sample runs/plane --support points.npy --exact    the exact field of the support, which copies it
"""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    support: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """Examples to draw in the likeness of."""
    n: int = 500
    """Number of samples."""
    out: Annotated[
        Path | None, tyro.conf.arg(help_behavior_hint="(default: a .npz in RUN/samples)", metavar="PATH")
    ] = None
    """Where to write: NAME.npz, or NAME.png for points in the plane."""
    exact: bool = False
    """Follow the exact field of the support instead of the net."""
    solver: Literal["euler", "midpoint", "heun", "rk4"] = "heun"
    """How the field is integrated."""
    steps: int = 50
    """Number of solver steps from noise to data."""
    seed: int = 0
    """Seed of the noise."""
    overwrite: bool = False
    """Replace files that exist."""
    json: bool = False
    """Print the sidecar on stdout."""

    def validate(self, given: tuple[str, ...] = ()) -> None:
        """Refuses bad values, a folder that holds no run, examples that cannot be read, and outputs that exist.

        Raises:
            ValueError: As above.
        """
        from fluvial.support.examples import read_examples

        for name in ("n", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"--seed must not be negative, got {self.seed}")
        read_config(self.run)
        read_examples(self.support)
        if self.out is not None:
            if self.out.suffix.lower() not in (".npz", ".png"):
                raise ValueError(f"--out must end in .npz or .png, got {str(self.out)!r}")
            if self.out.resolve() == self.support.resolve():
                raise ValueError(f"--out is --support {str(self.support)!r}, which it would replace; give another name")
            check_outputs(self.out, self.overwrite)

    def execute(self) -> int:
        """Samples, writes the output and its sidecar, and says where they are."""
        import torch

        from fluvial.support.examples import read_examples
        from fluvial.support.runs import load_support_run

        run = load_support_run(self.run)
        check_fits(8 * self.n * run.config.width * run.config.blocks, f"--n {self.n}", "draw fewer at a time")
        given, key = read_examples(self.support)
        examples, projection = _in_dimension(run, given, key, self.support)
        out = self.out or self._default_out(run)
        check_outputs(out, self.overwrite)
        if output_format(out) == "png" and run.dim != 2:
            raise ValueError(f"--out {out}: points of dimension {run.dim} have no picture; write an .npz")
        support = torch.from_numpy(examples)
        x, evaluations = self._draw(run, support)
        figures = _figures(x, support, run.path.sigma_min)
        sidecar = json_text(self._sidecar(run, out, len(support), evaluations, figures))
        for warning in _warnings(run, figures, support):
            print(f"fluvial: {warning}", file=sys.stderr)
        self._write(out, x, given, projection)
        write_sidecar(out, sidecar)
        among = f" (among the examples {figures['nearest_other']:.3g})" if len(support) > 1 else ""
        count = "1 example" if len(support) == 1 else f"{len(support)} examples"
        summary = (
            f"{out}: {self.n} samples from {count}, {evaluations} evaluations each; nearest example at "
            f"{figures['nearest_example']:.3g} on average{among}"
        )
        print(sidecar if self.json else summary)
        return 0

    def _draw(self, run: "SupportRun", support: "Tensor") -> "tuple[Tensor, int]":
        """Samples (n, d) and the evaluations spent on each."""
        import torch

        from fluvial.randomness import noise
        from fluvial.solvers import solve
        from fluvial.support.kernel.attention import KernelAttention

        field = KernelAttention(run.path) if self.exact else run.net
        x0 = noise(self.seed, 0, self.n, (run.dim,))
        with renderer() as progress, torch.no_grad():
            end = solve(field, x0[None], steps=self.steps, method=self.solver, cond=support[None], progress=progress)
        if not bool(end.x.isfinite().all()):
            raise ValueError(
                "samples hold NaN or infinite values: the examples may be far outside of the training tasks"
            )
        return end.x[0], end.evaluations

    def _default_out(self, run: "SupportRun") -> Path:
        field = "exact" if self.exact else f"step-{run.step:08d}"
        name = f"{self.support.stem}_{field}_{self.solver}_{self.steps}_seed-{self.seed}_n-{self.n}.npz"
        return self.run / "samples" / name

    def _write(self, out: Path, x: "Tensor", examples: "np.ndarray[Any, Any]", projection: Any) -> None:
        import numpy as np

        points = x.numpy() if projection is None else projection.decode(x)
        with written_aside(out) as aside:
            if output_format(out) == "npz":
                with aside.open("wb") as file:
                    np.savez_compressed(file, x=points.astype(np.float32), support=examples)
            else:
                _scatter(points, examples, aside)

    def _sidecar(
        self, run: "SupportRun", out: Path, m: int, evaluations: int, figures: dict[str, float]
    ) -> dict[str, Any]:
        return {
            "fluvial": __version__,
            "file": out.name,
            "run": str(self.run),
            "checkpoint": run.checkpoint.folder.name,
            "checkpoint_hash": run.checkpoint.hash,
            "step": run.step,
            "field": "exact" if self.exact else "net",
            "support": str(self.support),
            "m": m,
            "m_in_training": [run.config.least_m or run.config.m, run.config.m],
            "n": self.n,
            "seed": self.seed,
            "solver": self.solver,
            "steps": self.steps,
            "evaluations": evaluations,
            **figures,
        }


def _in_dimension(run: "SupportRun", given: Any, key: str, file: Path) -> tuple[Any, Any]:
    """Examples as the run's points, and the projection that was needed, if any."""
    if given.shape[1] == run.dim and key != "features":
        return given, None
    projection: Any = getattr(run.family(), "projection", None)
    raw = None if projection is None else projection.features
    if projection is None and given.shape[1] == run.dim:
        return given, None
    if given.shape[1] != raw:
        expected = f"{run.dim}" if raw is None else f"{run.dim} (its points) or {raw} (its features)"
        raise ValueError(f"{file}: examples have dimension {given.shape[1]}, and {run.folder} needs {expected}")
    return projection.encode(given).numpy(), projection


def _figures(x: "Tensor", support: "Tensor", sigma_min: float) -> dict[str, float]:
    """How far samples are from the support, and examples from one another: copies show here."""
    import torch

    from fluvial.support.evaluation.plug_in import copy_distance, expected_copy_distance

    exactly = "donot_use_mm_for_euclid_dist"  # products of matrices lose the distance of a copy
    others = torch.cdist(support, support, compute_mode=exactly).fill_diagonal_(torch.inf).amin(1)
    return {
        "nearest_example": float(copy_distance(x[None], support[None])),
        "nearest_other": float(others.mean()) if len(support) > 1 else float("nan"),
        "nearest_example_of_copies": expected_copy_distance(sigma_min, x.shape[1]),
    }


def _warnings(run: "SupportRun", figures: dict[str, float], support: "Tensor") -> list[str]:
    """Reasons to doubt the samples."""
    found, config, m = [], run.config, len(support)
    if not (config.least_m or config.m) <= m <= config.m:
        trained = f"{config.m}" if config.least_m is None else f"{config.least_m} to {config.m}"
        found.append(f"the net was trained on supports of {trained} examples, and {m} are given")
    if figures["nearest_example"] > _FAR * figures["nearest_other"] > 0:
        found.append(
            "the samples are far from the examples, which may be unlike all that the net was trained on: compare "
            "their scale and centre with those of the training tasks"
        )
    return found


def _scatter(points: Any, examples: Any, path: Path) -> None:
    from fluvial.audits.drawing import draw_png

    def draw(axes: Any) -> None:
        axes.scatter(points[:, 0], points[:, 1], s=6, alpha=0.5, linewidths=0, label=f"{len(points)} samples")
        axes.scatter(*examples.T, s=22, marker="x", label=f"{len(examples)} examples")
        axes.set(xlabel="x", ylabel="y")
        axes.set_aspect("equal")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)

    path.write_bytes(draw_png(draw, size=(5.0, 5.0)))
