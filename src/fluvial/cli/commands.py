"""The commands, and how what was typed becomes one of them.

Each command is a dataclass in its own file. It imports no torch, its ``validate()`` refuses what can be refused
at once, and its ``execute()`` does the work and returns the exit status.
"""

import contextlib
import io
from collections.abc import Callable, Sequence
from typing import cast

from fluvial import __version__
from fluvial.cli.audit import Audit
from fluvial.cli.audit_scaling import AuditScaling
from fluvial.cli.demo import Demo
from fluvial.cli.errors import given_options, parse_error
from fluvial.cli.features import Features
from fluvial.cli.info import Info
from fluvial.cli.launched import check_divided
from fluvial.cli.likelihood import Likelihood
from fluvial.cli.retrieve import Retrieve
from fluvial.cli.sample import Sample
from fluvial.cli.support_diagnose import SupportDiagnose
from fluvial.cli.support_evaluate import SupportEvaluate
from fluvial.cli.support_experiments import SupportExperiments
from fluvial.cli.support_sample import SupportSample
from fluvial.cli.support_train import SupportTrain
from fluvial.cli.train import Train

Command = (
    Train
    | Sample
    | Likelihood
    | Audit
    | AuditScaling
    | Features
    | Retrieve
    | SupportTrain
    | SupportSample
    | SupportEvaluate
    | SupportDiagnose
    | SupportExperiments
    | Info
    | Demo
)
COMMANDS: dict[str, type[Command]] = {
    "train": Train,
    "sample": Sample,
    "likelihood": Likelihood,
    "audit": Audit,
    "audit scaling": AuditScaling,
    "features": Features,
    "retrieve": Retrieve,
    "support train": SupportTrain,
    "support sample": SupportSample,
    "support evaluate": SupportEvaluate,
    "support diagnose": SupportDiagnose,
    "support experiments": SupportExperiments,
    "info": Info,
    "demo": Demo,
}
SUPPORT = "support"

DESCRIPTION = "Flow matching in which the exact answer is a first-class object: train, sample and check a model."

EPILOGUE = """\
examples:
  fluvial demo                                            train and check three models
  fluvial train --data digits --steps 2000 --out runs/a   learn handwritten digits
  fluvial train --resume runs/a                           go on after an interrupt
  fluvial sample runs/a --n 64 --out samples.png          a grid of 64 new digits
  fluvial likelihood runs/a                               log-densities of training and held-out data
  fluvial audit runs/a                                    does it generalise, and what did it copy?
  fluvial features folder:photos --extractor efficientnet-lite0 --size 224 --out x.npz
  fluvial retrieve --data x.npz --embeddings e.npz        the data that fit a query, by similarity
  fluvial support train --tasks shells --out runs/s       learn to generate from a handful of examples
  fluvial info runs/a                                     what is in a run's folder

`fluvial COMMAND --help` explains each option; `fluvial --version` prints the version.
Errors are one line on stderr and exit status 2; FLUVIAL_DEBUG=1 shows the traceback.
"""


def execute(arguments: Sequence[str]) -> int:
    """Parses, validates and runs one command.

    Args:
        arguments: What was typed after ``fluvial``.

    Returns:
        The exit status.

    Raises:
        ValueError: If the arguments cannot be parsed, or the command refuses them.
    """
    for word in arguments:
        if "\0" in word:  # a shell cannot hand this over, a program can
            raise ValueError(f"argument {word!r} holds the character NUL, which no file and no name may")
    if list(arguments[:2]) in ([SUPPORT, "--help"], [SUPPORT, "-h"]):
        print(_support_help(), end="")
        return 0
    # A command of two words, or what was meant to be one.
    if " ".join(arguments[:2]) in COMMANDS or (list(arguments[:1]) == [SUPPORT] and len(arguments) > 1):
        arguments = [" ".join(arguments[:2]), *arguments[2:]]
    if list(arguments) in (["--version"], ["-V"]):
        print(f"fluvial {__version__}")
        return 0
    command = _parse(arguments)
    if command is None:
        return 0
    check_divided(arguments[0])
    command.validate(given_options(arguments[1:]))
    return command.execute()


def _support_help() -> str:
    """What ``fluvial support`` can be followed by."""
    commands = [(name, command.__doc__ or "") for name, command in COMMANDS.items() if name.startswith(SUPPORT + " ")]
    lines = [f"  fluvial {name:<22}{text.splitlines()[0]}" for name, text in commands]
    head = "Support-conditioned generation: from a handful of examples to new points of the same distribution."
    return "\n".join(
        ["usage: fluvial support COMMAND", "", head, "", *lines, "", "`--help` after each explains it.", ""]
    )


def _parse(arguments: Sequence[str]) -> Command | None:
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
