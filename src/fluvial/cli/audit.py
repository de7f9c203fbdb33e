"""``fluvial audit``: says whether a model has learned the distribution of its data, or the data."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from fluvial import __version__
from fluvial.cli.errors import did_you_mean
from fluvial.cli.folders import check_writable
from fluvial.cli.render import console, format_seconds, json_text, renderer
from fluvial.training.config import TrainConfig, read_config

if TYPE_CHECKING:
    from fluvial.audits.runner import Audit as Audited
    from fluvial.audits.subject import Budget
    from fluvial.data import Dataset
    from fluvial.fields.base import Field
    from fluvial.training import Run

MEASUREMENTS = ("collapse", "stochasticity", "approximation", "hybrid", "memorization", "quality")
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
    solver: Literal["euler", "midpoint", "heun", "rk4", "dopri5"] = "heun"
    """How they are drawn."""
    steps: Annotated[int | None, tyro.conf.arg(help_behavior_hint="(default: 50; 25 with --quick)")] = None
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
        for name in ("n", "steps", "size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name} must be at least 1, got {value}")
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
        if self.weights is not None and not self.weights.is_file():
            raise ValueError(f"--weights {str(self.weights)!r} is no file")
        for name in OUTPUTS:
            check_writable(self._out / name)
            if (self._out / name).exists() and not self.overwrite:
                raise ValueError(f"{str(self._out / name)!r} already exists: give --overwrite or another --out")

    def _validate_sources(self, given: tuple[str, ...]) -> None:
        from fluvial.data.specs import parse_spec

        if self.run is None:
            if self.samples is None or self.train is None:
                raise ValueError("say what to audit: a RUN, or --samples PATH with --train SPEC")
            for option in ("--n", "--solver", "--steps", "--guidance"):
                if option in given:
                    raise ValueError(f"{option} needs a RUN to draw samples from")
            parse_spec(self.train)
            if self.held_out is not None and _count(self.held_out) is None:
                parse_spec(self.held_out)
        else:
            config = read_config(self.run)
            for option in ("--train", "--held-out", "--size"):
                if option in given:
                    raise ValueError(f"{option} cannot be given with a RUN, which knows its data")
            if self.guidance is not None and not config.labels:
                raise ValueError(f"--guidance needs a run trained with --labels; {self.run} was trained without")
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
        from fluvial.audits.runner import audit
        from fluvial.data.comparable import read_samples
        from fluvial.training import load_run

        run = load_run(folder)
        data = run.dataset()
        samples = None if self.samples is None else read_samples(self.samples, data.train)
        return audit(
            self._field(run),
            data.train,
            data.held_out,
            samples=samples,
            path=run.path,
            conditional=run.config.labels,
            not_comparable=_not_comparable(run.config, self.guidance),
            provenance={**self._provenance(data.train, data.held_out), **_run_provenance(run, self.guidance)},
            **self._settings(progress),
        )

    def _audit_samples(self, progress: Any) -> "Audited":
        from fluvial.audits.runner import audit
        from fluvial.data.comparable import read_samples

        train, held_out = self._read_data()
        if self.samples is None:
            raise ValueError("--samples is required without a RUN")
        samples = read_samples(self.samples, train, size=self.size)
        record = {**self._provenance(train, held_out), "samples": f"{len(samples):,} from {self.samples}"}
        return audit(None, train, held_out, samples=samples, provenance=record, **self._settings(progress))

    def _read_data(self) -> "tuple[Dataset, Dataset | None]":
        """Training and held-out data: those given, else the test set that some data sets bring."""
        from fluvial.data import load_dataset
        from fluvial.data.comparable import read_held_out
        from fluvial.data.specs import parse_spec

        kind = parse_spec(self.train or "").kind
        size = self.size if kind in ("folder", "celeba") else None
        if self.held_out is None:
            own_test_set = kind in ("fashion-mnist", "cifar10")
            data = load_dataset(self.train or "", seed=self.seed, size=size, held_out=None if own_test_set else 0)
            return data.train, data.held_out if own_test_set else None
        count = _count(self.held_out)
        if count is not None:
            data = load_dataset(self.train or "", seed=self.seed, size=size, held_out=count)
            return data.train, data.held_out
        train = load_dataset(self.train or "", seed=self.seed, size=size, held_out=0).train
        return train, read_held_out(self.held_out, train, size=self.size, seed=self.seed)

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
        steps = None if self.solver == "dopri5" else self.steps or budget.solver.steps
        return replace(budget, samples=self.n or budget.samples, solver=Solver(self.solver, steps))

    def _field(self, run: "Run") -> "Field":
        from fluvial.fields import Guided

        return run.net if self.guidance is None else Guided(run.net, self.guidance)

    def _provenance(self, train: "Dataset", held_out: "Dataset | None") -> dict[str, str]:
        import platform

        import torch

        kept = "none" if held_out is None else f"{len(held_out):,}, hash {held_out.content_hash[:16]}"
        return {
            "command": shlex.join(["fluvial", "audit", *self._typed()]),
            "training data": f"{train.name}, {len(train):,} of shape {train.shape}, hash {train.content_hash[:16]}",
            "held-out data": kept,
            "seed": str(self.seed),
            "versions": f"fluvial {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
            "machine": f"{platform.system()} {platform.machine()}, torch on {torch.get_num_threads()} thread(s)",
        }

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


def _count(text: str) -> int | float | None:
    """A number or share of data, where the text is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def _not_comparable(config: TrainConfig, guidance: float | None) -> str:
    """Why the exact field of the training data is not what the run's field was trained towards; empty if it is."""
    if config.coupling != "independent":
        return (
            f"not comparable: the run was trained with the coupling {config.coupling!r}, whose target is not the exact "
            "field of independent noise"
        )
    if guidance is not None and guidance != 1:
        return f"not comparable: guidance {guidance:g} moves the field away from its target"
    return ""


def _run_provenance(run: "Run", guidance: float | None) -> dict[str, str]:
    config = run.config
    conditional = ", conditioned on labels" if config.labels else ""
    return {
        "run": f"{run.folder}, step {run.step:,}, objective {config.objective}, path {config.path}{conditional}",
        "weights": f"averaged (EMA {config.ema:g}), hash {run.checkpoint.hash[:16]}",
        **({} if guidance is None else {"guidance": f"{guidance:g}"}),
    }
