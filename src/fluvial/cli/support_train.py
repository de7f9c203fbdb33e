"""``fluvial support train``: meta-trains a net that generates from a handful of examples."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from fluvial.cli.errors import settings_as_options
from fluvial.cli.folders import check_writable
from fluvial.cli.render import format_seconds, format_value, json_text, renderer
from fluvial.support.config import SupportConfig, read_config
from fluvial.support.tasks.names import FAMILIES
from fluvial.training.folders import check_run_folder

if TYPE_CHECKING:
    from fluvial.support.training import MetaResult

_FAMILIES = "\n".join(f"  {form:<28}{meaning}" for form, meaning in FAMILIES.items())


@dataclass(frozen=True)
class SupportTrain:
    """Train a net over many random tasks to generate new points from a handful of examples."""

    EPILOGUE: ClassVar[str] = f"""\
tasks:
{_FAMILIES}
  A data set's classes are split into train, validation and test; the net sees train alone.

examples:
  fluvial support train --tasks shells --dim 8 --m 50 --out runs/shells
  fluvial support train --tasks gmm+rings+moons+spirals --m 50 --least-m 5 --out runs/plane
  fluvial support train --resume runs/shells
  fluvial support sample runs/shells --support my_examples.npz --n 500
  fluvial support evaluate runs/shells

Ctrl-C saves a checkpoint first; --resume then continues bit for bit as if nothing had happened.
"""

    out: Annotated[Path | None, tyro.conf.arg(help_behavior_hint="(default: runs/TASKS-mM)", metavar="FOLDER")] = None
    """Folder of the new run: config.toml, metrics.jsonl and checkpoints go there."""
    resume: Annotated[Path | None, tyro.conf.arg(help_behavior_hint="(alone)", metavar="RUN")] = None
    """Continue the run in this folder from its last checkpoint, with the settings of its config.toml."""
    overwrite: bool = False
    """Replace the run that --out holds; other folders are never removed."""
    json: bool = False
    """Print the result as JSON on stdout."""
    config: Annotated[SupportConfig, tyro.conf.arg(name="")] = field(default_factory=SupportConfig)
    """Settings of the run."""

    def validate(self, given: tuple[str, ...] = ()) -> None:
        """Refuses bad settings and folders.

        Raises:
            ValueError: If a setting is outside its range, or a folder cannot be used.
        """
        if self.resume is not None:
            settings = [option for option in given if option not in ("--resume", "--json")]
            if settings:
                raise ValueError(
                    f"{settings[0]} cannot be given with --resume: the settings come from {self.resume}/config.toml"
                )
            read_config(self.resume).validate()
            return
        with settings_as_options(SupportConfig):
            self.config.validate()
        check_run_folder(self._run, self.overwrite, read=read_config)
        check_writable(self._run)

    def execute(self) -> int:
        """Trains and prints what came of it; after a signal, what was saved and how to go on."""
        from fluvial.training import Interrupted

        try:
            result = self._fit()
        except Interrupted as stop:
            saved = f"saved step {stop.step} in {stop.checkpoint}"
            print(
                f"fluvial: interrupted: {saved}; continue with: fluvial support train --resume {self._run}",
                file=sys.stderr,
            )
            return 128 + stop.signum
        if self.json:
            values = {"run": str(result.run), "step": result.step, "loss": result.loss}
            print(json_text({**values, "seconds": round(result.seconds, 3), "checkpoint": str(result.checkpoint)}))
            return 0
        print(
            f"{result.run}: step {result.step}, final loss {format_value(result.loss)}, "
            f"{format_seconds(result.seconds)}; next: fluvial support evaluate {result.run}"
        )
        return 0

    @property
    def _run(self) -> Path:
        """The run folder; named after the tasks if it is not given."""
        config = self.config
        tasks = Path(config.tasks).stem if config.tasks.lower().endswith(".npz") else config.tasks.replace(":", "-")
        dim = "" if config.dim is None else f"-{config.dim}"
        return self.resume or self.out or Path("runs") / f"{tasks}{dim}-m{config.m}"

    def _fit(self) -> "MetaResult":
        from fluvial.support.training import MetaTrainer

        if self.resume is not None:
            with renderer() as progress:
                return MetaTrainer(read_config(self.resume), self.resume, progress=progress).fit(resume=True)
        with settings_as_options(SupportConfig), renderer() as progress:
            return MetaTrainer(self.config, self._run, progress=progress).fit(overwrite=self.overwrite)
