"""The command line: ``fluvial train | sample | info | demo``.

Each command is a dataclass in its own file. It imports no torch, its ``validate()`` refuses what can be refused
at once, and its ``execute()`` does the work and returns the exit status. Errors are one line on stderr and
status 2; an interrupt is 130.
"""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import cast

from fluvial import __version__
from fluvial.cli.demo import Demo
from fluvial.cli.errors import given_options, one_line, parse_error
from fluvial.cli.info import Info
from fluvial.cli.sample import Sample
from fluvial.cli.train import Train

__all__ = ["main"]

Command = Train | Sample | Info | Demo
COMMANDS: dict[str, type[Command]] = {"train": Train, "sample": Sample, "info": Info, "demo": Demo}

DESCRIPTION = "Flow matching in which the exact answer is a first-class object: train, sample and check a model."

EPILOGUE = """\
examples:
  fluvial demo                                            train and check two models
  fluvial train --data digits --steps 2000 --out runs/a   learn handwritten digits
  fluvial train --resume runs/a                           go on after an interrupt
  fluvial sample runs/a --n 64 --out samples.png          a grid of 64 new digits
  fluvial info runs/a                                     what is in a run's folder

`fluvial COMMAND --help` explains each option; `fluvial --version` prints the version.
Errors are one line on stderr and exit status 2; FLUVIAL_DEBUG=1 shows the traceback.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: Arguments after ``fluvial``; None reads them from the process.

    Returns:
        Exit status: 0 success, 2 an error that was explained in one line, 128 + n after signal n.

    Example:
        >>> main(["--version"])
        fluvial 0.1.0
        0
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _execute(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("fluvial: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader has gone; without this, Python complains once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, TypeError, OSError, ImportError, MemoryError) as error:
        if os.environ.get("FLUVIAL_DEBUG", "0") not in ("", "0"):
            raise
        print(f"fluvial: error: {one_line(error)}", file=sys.stderr)
        return 2


def _execute(arguments: list[str]) -> int:
    if arguments in (["--version"], ["-V"]):
        print(f"fluvial {__version__}")
        return 0
    command = _parse(arguments)
    if command is None:
        return 0
    command.validate(given_options(arguments[1:]))
    return command.execute()


def _parse(arguments: list[str]) -> Command | None:
    """The command that was typed, or None where help was asked for and printed."""
    import tyro

    drawn = io.StringIO()
    commands: dict[str, Callable[..., object]] = {**COMMANDS}
    try:
        with contextlib.redirect_stderr(drawn):
            command = tyro.extras.subcommand_cli_from_dict(
                commands,
                prog="fluvial",
                description=DESCRIPTION,
                args=arguments,
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone),
            )
        return cast(Command, command)
    except SystemExit as stop:
        if stop.code not in (0, None):
            raise ValueError(parse_error(arguments, drawn.getvalue(), COMMANDS)) from None
    print(getattr(COMMANDS.get(arguments[0]), "EPILOGUE", EPILOGUE), end="")
    return None
