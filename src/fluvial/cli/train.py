"""``fluvial train``: trains a run, or continues one."""

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from fluvial.cli.errors import settings_as_options, settings_of
from fluvial.cli.folders import check_writable
from fluvial.cli.options import check_size
from fluvial.cli.render import format_seconds, format_value, json_text, renderer
from fluvial.data.specs import DATASETS, parse_spec
from fluvial.launchers import launched_processes, require_several
from fluvial.training.config import TrainConfig, read_config
from fluvial.training.folders import check_run_folder
from fluvial.training.settings import check_effect

if TYPE_CHECKING:
    from fluvial.training.trainer import TrainResult


_DATA = "\n".join(f"  {form:<22}{meaning}" for form, meaning in DATASETS.items())


@dataclass(frozen=True)
class Train:
    """Train a flow-matching model on a data set, or continue a run that was interrupted."""

    EPILOGUE: ClassVar[str] = f"""\
data:
{_DATA}

examples:
  fluvial train --data digits --objective cfm --steps 2000 --out runs/a
  fluvial train --data digits --objective efm --bank-size 256 --out runs/b --seed 1
  fluvial train --data digits --objective meanflow --steps 4000 --lr 2e-3 --out runs/m
  fluvial train --data table.csv --objective likelihood --likelihood-kinetic 0.01 --steps 500 --out runs/n
  fluvial train --data folder:photos --size 32 --net unet --lr 2e-3 --batch-size 64 --precision bf16 --out runs/c
  fluvial train --data fashion-mnist --net unet --labels --out runs/l              then sample --label Coat
  fluvial train --data folder:photos --size 32 --captions captions.csv --out runs/t    then sample --prompt "a car"
  fluvial train --data fashion-mnist --net unet --reference-size 5 --without-classes Sandal --out runs/r
                                                                                  then sample --reference FOLDER
  fluvial train --resume runs/a

Ctrl-C saves a checkpoint first; --resume then continues bit for bit as if nothing had happened.
"""

    out: Annotated[Path | None, tyro.conf.arg(help_behavior_hint="(required unless --resume)", metavar="FOLDER")] = None
    """Folder of the new run: config.toml, metrics.jsonl, checkpoints and samples go there."""
    resume: Annotated[Path | None, tyro.conf.arg(help_behavior_hint="(alone)", metavar="RUN")] = None
    """Continue the run in this folder from its last checkpoint, with the settings of its config.toml."""
    overwrite: bool = False
    """Replace the run that --out holds; other folders are never removed."""
    json: bool = False
    """Print the result as JSON on stdout."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
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
        if self.out is None:
            raise ValueError("--out FOLDER is required for a new run (or --resume RUN); see fluvial train --help")
        with settings_as_options(TrainConfig):
            self.config.validate()
            if self.config.shard:
                require_several("shard", launched_processes())
            check_effect(self.config, settings_of(given))
            _check_data(self.config)
        check_run_folder(self.out, self.overwrite, self.config.data)
        check_writable(self.out)

    def execute(self) -> int:
        """Trains and prints what came of it; after a signal, what was saved and how to go on."""
        from fluvial.training import Interrupted

        start = time.monotonic()
        try:
            result = self._fit()
        except Interrupted as stop:
            saved = f"saved step {stop.step} in {stop.checkpoint}"
            print(f"fluvial: interrupted: {saved}; continue with: fluvial train --resume {self._run}", file=sys.stderr)
            return 128 + stop.signum
        seconds = time.monotonic() - start
        if self.json:
            values = {"run": str(result.run), "step": result.step, "loss": result.loss, "seconds": round(seconds, 3)}
            print(json_text({**values, "skipped": result.skipped, "checkpoint": str(result.checkpoint)}))
            return 0
        skipped = f"{result.skipped} of {result.step} updates skipped, " if result.skipped else ""
        print(
            f"{result.run}: step {result.step}, final loss {format_value(result.loss)}, {skipped}"
            f"{format_seconds(seconds)}; next: fluvial sample {result.run} --n 64"
        )
        return 0

    @property
    def _run(self) -> Path:
        folder = self.out if self.resume is None else self.resume
        if folder is None:
            raise ValueError("--out or --resume is required")
        return folder

    def _fit(self) -> "TrainResult":
        from fluvial.training import Trainer

        if self.resume is not None:
            with renderer() as progress:
                return Trainer(read_config(self.resume), self.resume, progress=progress).fit(resume=True)
        with settings_as_options(TrainConfig):
            _say_what_is_left_out(self.config)
            with renderer() as progress:
                return Trainer(self.config, self._run, progress=progress).fit(overwrite=self.overwrite)


def _check_data(config: TrainConfig) -> None:
    """Refuses what the kind of data, which its spec tells, has no use for."""
    kind = parse_spec(config.data).kind
    check_size(config.size, config.data)
    if config.flip and kind in ("toy", "table"):
        raise ValueError(f"flip needs images, got data {config.data!r}")


def _say_what_is_left_out(config: TrainConfig) -> None:
    # The training reads the table once more; it is told now, since afterwards the time has been spent.
    if parse_spec(config.data).kind != "table":
        return
    from fluvial.training.source import load_source

    data = load_source(config)
    if data.table is not None and data.table.dropped:
        names = ", ".join(map(repr, data.table.dropped))
        print(f"fluvial: {data.name}: columns left out, which do not hold numbers alone: {names}", file=sys.stderr)
