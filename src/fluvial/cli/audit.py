"""``fluvial audit``: says whether a model has learned the distribution of its data, or the data."""

import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from fluvial import __version__
from fluvial.cli.audit_subject import (
    as_count,
    data_provenance,
    machine_provenance,
    not_comparable,
    read_sets,
    run_provenance,
)
from fluvial.cli.errors import did_you_mean
from fluvial.cli.folders import check_writable
from fluvial.cli.options import check_at_least, takes_size
from fluvial.cli.render import console, format_seconds, json_text, renderer
from fluvial.training.config import read_config

if TYPE_CHECKING:
    from fluvial.audits.runner import Audit as Audited
    from fluvial.audits.subject import Budget
    from fluvial.data import Dataset
    from fluvial.fields.base import Field
    from fluvial.training import Run

MEASUREMENTS = ("collapse", "stochasticity", "approximation", "hybrid", "memorization", "quality")
_OF_SAMPLES = ("memorization", "quality")
_TAKE_WEIGHTS = ("inception", "dinov2")
EXTRACTORS = ("pixels", "classifier", "efficientnet-lite0", "inception", "dinov2")
OUTPUTS = ("audit.json", "report.html")


@dataclass(frozen=True)
class Audit:
    """Say whether a model generalises or memorises, from when in time on, how good it is, and what it copied."""

    EPILOGUE: ClassVar[str] = """\
what is audited:
  fluvial audit RUN                         a run of fluvial train: its field, and samples drawn from it
  fluvial audit --samples X --train SPEC    samples of any model: a folder of images, .npz (key x), .npy, .csv
  fluvial audit scaling --help              the passage from memorising to generalising, over sizes and widths

measurements (--only chooses, separated by commas):
  collapse       when the exact field of the training data begins to single out one datum
  stochasticity  when the training target stops being random                   (default with a run)
  approximation  how far the learned field is from the exact one               (needs a run)
  hybrid         from which time on the learned field creates something new    (needs a run)
  memorization   distances to the training data, copies, and what was copied
  quality        Fréchet and kernel distance, precision, recall, density, coverage

writes audit.json and report.html (one file, no network) to --out.
The verdict is generalises, memorises, underfits or unclear; the report states the rules and the evidence.

examples:
  fluvial audit runs/a
  fluvial audit runs/a --quick --only hybrid,memorization
  fluvial audit --samples samples.npz --train fashion-mnist --out audits/b
  fluvial audit --samples made/ --train folder:train --held-out folder:test --size 64
  fluvial audit --samples made.csv --train train.csv --held-out test.csv --json
"""

    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]", help_behavior_hint="")] = None
    """Folder of the run; or none, with --samples and --train."""
    samples: Annotated[
        Path | None, tyro.conf.arg(help_behavior_hint="(default: drawn from the run)", metavar="PATH")
    ] = None
    """Samples to audit: a folder of images, an .npz with key x, an .npy, or a table."""
    train: Annotated[str | None, tyro.conf.arg(help_behavior_hint="(default: the run's)", metavar="SPEC")] = None
    """All data that the model was trained on, as for fluvial train --data."""
    held_out: Annotated[
        str | None, tyro.conf.arg(help_behavior_hint="(default: the test set that comes with --train)", metavar="SPEC")
    ] = None
    """Data of the same source that it was not trained on; a number splits that many off --train by --seed."""
    size: Annotated[int | None, tyro.conf.arg(help_behavior_hint="(default: as they are)")] = None
    """Side in pixels that images of folders are cropped and resized to."""
    out: Annotated[Path | None, tyro.conf.arg(help_behavior_hint="(default: RUN/audit, or ./audit)", metavar="DIR")] = (
        None
    )
    """Folder for audit.json and report.html."""
    only: Annotated[str, tyro.conf.arg(help_behavior_hint="(default: all)", metavar="NAME,...")] = ""
    """Measurements to make, separated by commas."""
    extractors: Annotated[
        str, tyro.conf.arg(help_behavior_hint="(default: pixels, and classifier with labels)", metavar="NAME,...")
    ] = ""
    """Features to measure quality in: pixels, classifier, efficientnet-lite0, inception, dinov2."""
    weights: Annotated[Path | None, tyro.conf.arg(help_behavior_hint="(default: from the hub)", metavar="FILE")] = None
    """Weights of inception or dinov2."""
    n: Annotated[int | None, tyro.conf.arg(help_behavior_hint="(default: 2000; 500 with --quick)")] = None
    """Number of samples drawn from the run."""
    solver: Literal["euler", "midpoint", "heun", "rk4", "dopri5", "meanflow"] = "heun"
    """How they are drawn; meanflow needs a run trained with --objective meanflow."""
    steps: Annotated[int | None, tyro.conf.arg(help_behavior_hint="(default: 50; 25 with --quick; meanflow 1)")] = None
    """Number of solver steps."""
    guidance: Annotated[float | None, tyro.conf.arg(help_behavior_hint="(default: none)")] = None
    """Guidance scale of a run trained with labels; the exact field is then no reference."""
    quick: bool = False
    """A first look: fewer samples, times and solves, wider intervals."""
    seed: int = 0
    """Seed of every draw."""
    overwrite: bool = False
    """Replace an earlier audit."""
    json: bool = False
    """Print audit.json on stdout instead of the summary."""

    def validate(self, given: tuple[str, ...] = ()) -> None:
        """Refuses bad values, a folder that holds no run, files that are absent, and an audit that exists.

        Raises:
            ValueError: As above.
        """
        self._validate_sources(given)
        check_at_least({"n": self.n, "steps": self.steps, "size": self.size})
        if self.seed < 0:
            raise ValueError(f"--seed must not be negative, got {self.seed}")
        if self.solver == "dopri5" and self.steps is not None:
            raise ValueError("--steps cannot be given with --solver dopri5, which chooses its steps")
        for name in self._only:
            if name not in MEASUREMENTS:
                hint = did_you_mean(name, MEASUREMENTS)
                raise ValueError(f"--only must name some of {', '.join(MEASUREMENTS)}, got {name!r}{hint}")
            if name in ("approximation", "hybrid") and self.run is None:
                raise ValueError(f"--only {name} needs a RUN: of samples alone it cannot be measured")
        for name in self._extractors:
            if name not in EXTRACTORS:
                hint = did_you_mean(name, EXTRACTORS)
                raise ValueError(f"--extractors must name some of {', '.join(EXTRACTORS)}, got {name!r}{hint}")
        self._validate_effect(given)
        if self.weights is not None and not self.weights.is_file():
            raise ValueError(f"--weights {str(self.weights)!r} is no file")
        for name in OUTPUTS:
            check_writable(self._out / name)
            if (self._out / name).exists() and not self.overwrite:
                raise ValueError(f"{str(self._out / name)!r} already exists: give --overwrite or another --out")

    def _validate_effect(self, given: tuple[str, ...]) -> None:
        """Refuses options that none of the chosen measurements looks at."""
        measured = set(self._only or MEASUREMENTS)
        needed = {"--extractors": {"quality"}, **{name: set(_OF_SAMPLES) for name in ("--n", "--solver", "--steps")}}
        for option, names in needed.items():
            if option in given and not measured & names:
                raise ValueError(f"{option} needs {' or '.join(sorted(names))} among --only, got {self.only!r}")
        if self.weights is not None and not set(self._extractors) & set(_TAKE_WEIGHTS):
            raise ValueError(f"--weights needs --extractors {' or '.join(_TAKE_WEIGHTS)}, got {self.extractors!r}")
        if self.weights is not None and "quality" not in measured:
            raise ValueError(f"--weights needs quality among --only, got {self.only!r}")

    def _validate_sources(self, given: tuple[str, ...]) -> None:
        from fluvial.data.looks import check_look

        if self.run is None:
            if self.samples is None or self.train is None:
                raise ValueError("say what to audit: a RUN, or --samples PATH with --train SPEC")
            for option in ("--n", "--solver", "--steps", "--guidance"):
                if option in given:
                    raise ValueError(f"{option} needs a RUN to draw samples from")
            check_look(self.train)
            count = None if self.held_out is None else as_count(self.held_out)
            if count is not None and not (0 <= count < 1 if isinstance(count, float) else count >= 0):
                raise ValueError(f"--held-out must be a count, a share in [0, 1) or a data set, got {self.held_out}")
            if self.held_out is not None and count is None:
                check_look(self.held_out)
            sources = [self.train] if count is not None or self.held_out is None else [self.train, self.held_out]
            if self.size is not None and not any(map(takes_size, sources)):
                raise ValueError(f"--size is for folders of images, got --train {self.train!r}")
        else:
            config = read_config(self.run)
            for option in ("--train", "--held-out", "--size"):
                if option in given:
                    raise ValueError(f"{option} cannot be given with a RUN, which knows its data")
            asked = set(self._only or MEASUREMENTS)
            if config.objective == "likelihood" and not asked <= set(_OF_SAMPLES):
                raise ValueError(
                    f"{self.run} was trained with likelihood, which follows no path, so no exact field can be held "
                    f"against it; give --only {','.join(_OF_SAMPLES)}"
                )
            if self.guidance is not None and not math.isfinite(self.guidance):
                raise ValueError(f"--guidance must be finite, got {self.guidance}")
            if self.guidance is not None and not config.labels:
                raise ValueError(f"--guidance needs a run trained with --labels; {self.run} was trained without")
            if self.solver == "meanflow" and (config.objective != "meanflow" or self.guidance is not None):
                raise ValueError("--solver meanflow needs a run trained with --objective meanflow, without --guidance")
            for option in ("--n", "--solver", "--steps", "--guidance"):
                if option in given and self.samples is not None:
                    raise ValueError(f"{option} draws samples from the run, and --samples gives them")
        if self.samples is not None and not self.samples.exists():
            raise ValueError(f"--samples {str(self.samples)!r} does not exist")

    @property
    def _only(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.only.split(",") if name.strip())

    @property
    def _extractors(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.extractors.split(",") if name.strip())

    @property
    def _out(self) -> Path:
        return self.out or (Path("audit") if self.run is None else self.run / "audit")

    def execute(self) -> int:
        """Measures, writes audit.json and report.html, and prints the verdict and one sentence for each finding."""
        from fluvial.audits.page import write_audit

        with renderer() as progress:
            found = self._audit_samples(progress) if self.run is None else self._audit_run(self.run, progress)
        text = json_text({"fluvial": __version__, "command": "audit", **found.to_dict()})
        write_audit(found, self._out, text, title=f"Audit of {self.run or self.samples}")
        if self.json:
            print(text)
        else:
            self._print_summary(found)
        return 0

    def _audit_run(self, folder: Path, progress: Any) -> "Audited":
        import torch

        from fluvial.audits.runner import audit
        from fluvial.data.comparable import read_samples
        from fluvial.training import load_run

        device = "cuda" if torch.cuda.is_available() else "cpu"
        run = load_run(folder)
        data = run.dataset()
        samples = None if self.samples is None else read_samples(self.samples, data.train)
        return audit(
            self._field(run, device),
            data.train,
            data.held_out,
            samples=samples,
            path=run.path,
            conditional=run.config.labels,
            not_comparable=not_comparable(run.config, self.guidance),
            device=device,
            provenance={**self._record(data.train, data.held_out), **run_provenance(run, self.guidance)},
            **self._settings(progress),
        )

    def _audit_samples(self, progress: Any) -> "Audited":
        from fluvial.audits.runner import audit
        from fluvial.data.comparable import read_samples

        if self.samples is None or self.train is None:
            raise ValueError("--samples and --train are required without a RUN")
        train, held_out = read_sets(self.train, self.held_out, size=self.size, seed=self.seed)
        samples = read_samples(self.samples, train, size=self.size)
        record = {**self._record(train, held_out), "samples": f"{len(samples):,} from {self.samples}"}
        return audit(None, train, held_out, samples=samples, provenance=record, **self._settings(progress))

    def _settings(self, progress: Any) -> dict[str, Any]:
        return {
            "extractors": self._extractors,
            "weights": self.weights,
            "only": self._only,
            "budget": self._budget(),
            "seed": self.seed,
            "progress": progress,
        }

    def _budget(self) -> "Budget":
        from dataclasses import replace

        from fluvial.audits.subject import Budget
        from fluvial.solvers.sampling import Solver

        budget = Budget.quick() if self.quick else Budget()
        usual = {"dopri5": None, "meanflow": 1}.get(self.solver, budget.solver.steps)
        steps = self.steps or usual
        return replace(budget, samples=self.n or budget.samples, solver=Solver(self.solver, steps))

    def _field(self, run: "Run", device: str) -> "Field":
        from fluvial.fields import Guided

        net = run.net.to(device)
        return net if self.guidance is None else Guided(net, self.guidance)

    def _record(self, train: "Dataset", held_out: "Dataset | None") -> dict[str, str]:
        command = shlex.join(["fluvial", "audit", *self._typed()])
        return {"command": command, **data_provenance(train, held_out), "seed": str(self.seed), **machine_provenance()}

    def _typed(self) -> list[str]:
        """The options that differ from their defaults, as they are typed."""
        import dataclasses

        words = [] if self.run is None else [str(self.run)]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "run" or value == field.default:
                continue
            words.append("--" + field.name.replace("_", "-"))
            words += [] if value is True else [str(value)]
        return words

    def _print_summary(self, found: "Audited") -> None:
        screen = console()
        screen.print(f"[bold]{found.verdict}[/bold]: {found.judgement.sentence}", highlight=False)
        for finding in found.findings:
            screen.print(
                f"[bold]{finding.name}[/bold] ({format_seconds(finding.seconds)}): {finding.verdict}", highlight=False
            )
            for note in (finding.reservation, *finding.notes):
                if note:
                    screen.print(f"  {note}", highlight=False, style="dim")
        print(f"report: {self._out / 'report.html'}")
