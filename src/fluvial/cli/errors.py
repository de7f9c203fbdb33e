"""One-line errors: what was given, what was expected, the nearest valid name, where to read more.

The parser draws boxes; a person reading a log, or a script, wants one line. This module turns a failed parse
into that line.
"""

import dataclasses
import difflib
import re
import typing
from collections.abc import Iterable, Mapping, Sequence

COMMON_OPTIONS = ("--help",)


def one_line(message: object) -> str:
    """Text of an error on a single line.

    Example:
        >>> one_line(ValueError("steps must be positive,\\n  got -3"))
        'steps must be positive, got -3'
    """
    if isinstance(message, OSError) and message.strerror and message.filename is not None:
        return f"{message.strerror}: {message.filename}"
    return " ".join(str(message).split()) or type(message).__name__


def did_you_mean(given: str, valid: Iterable[str]) -> str:
    """A clause that names the valid name nearest to what was given; empty if none is near.

    Example:
        >>> did_you_mean("trian", ["train", "sample"])
        " (did you mean 'train'?)"
    """
    near = difflib.get_close_matches(given, list(valid), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


def option_names(command: type) -> tuple[str, ...]:
    """Options of a command, nested settings included, as they are typed: ``--batch-size``."""
    import tyro

    hints = typing.get_type_hints(command, include_extras=True)
    names: list[str] = []
    for field in dataclasses.fields(command):
        kind, *marks = typing.get_args(hints[field.name]) or (hints[field.name],)
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            names += option_names(kind)[: -len(COMMON_OPTIONS)]
        elif tyro.conf.Positional not in marks:
            names.append("--" + field.name.replace("_", "-"))
    return (*names, *COMMON_OPTIONS)


def given_options(arguments: Sequence[str]) -> tuple[str, ...]:
    """Options present among the arguments, without their values, in the order given.

    Example:
        >>> given_options(["train", "--batch_size=64", "--lr", "1e-3"])
        ('--batch-size', '--lr')
    """
    return tuple(a.split("=", 1)[0].replace("_", "-") for a in arguments if a.startswith("--") and a != "--")


def parse_error(arguments: Sequence[str], box: str, commands: Mapping[str, type]) -> str:
    """Message for arguments that the parser refused, from what it drew on stderr.

    Args:
        arguments: What was typed after ``fluvial``.
        box: What the parser wrote.
        commands: The dataclass of each command.
    """
    names = ", ".join(commands)
    if not arguments:
        return f"no command given, expected one of {names}; see fluvial --help"
    name = arguments[0]
    if name not in commands:
        what = "option" if name.startswith("-") else "command"
        hint = did_you_mean(name, [*commands, "--help", "--version"]) or f", expected one of {names}"
        return f"unknown {what} {name!r}{hint}; see fluvial --help"
    where = f"see fluvial {name} --help"
    valid = option_names(commands[name])
    for option in given_options(arguments[1:]):
        if option not in valid:
            return f"unknown option {option!r} of fluvial {name}{did_you_mean(option, valid)}; {where}"
    return f"{_reason(box)}; {where}"


def _reason(box: str) -> str:
    """The sentence in the parser's box: its body up to the first rule, put in a script's terms."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip(" │╭╮╰╯") for line in plain.splitlines()][1:]
    body: list[str] = []
    for line in lines:
        is_rule = line != "" and not line.strip("─-")
        if is_rule and body:
            break
        if not is_rule:
            body.append(line)
    text = one_line(" ".join(body)).rstrip(".")
    return _choice(text) or _number(text) or _missing(text) or text[:1].lower() + text[1:]


def _choice(text: str) -> str:
    found = re.match(r"invalid choice '(.*?)' for argument '(.*?)'. Expected one of \((.*?),?\)", text)
    if not found:
        return ""
    given, option, valid = found.groups()
    names = [word.strip(" '") for word in valid.split(",")]
    return f"{option} must be one of {', '.join(names)}, got {given!r}{did_you_mean(given, names)}"


def _number(text: str) -> str:
    found = re.match(
        r"Error parsing (\S+): (invalid literal for int|could not convert string to float)[^:]*: (.*)", text
    )
    if not found:
        return ""
    option, problem, given = found.groups()
    return f"{option} must be {'a whole number' if problem.endswith('int') else 'a number'}, got {given}"


def _missing(text: str) -> str:
    if found := re.match(r"Missing value for argument '(.*?)'", text):
        return f"{found[1]} needs a value"
    if found := re.match(r"Missing from .*?: (\S+) ", text):
        return f"argument {found[1]} is missing"
    if found := re.match(r"Unrecognized options: (.*)", text):
        return f"unexpected argument {found[1].split(', ')[0]!r}"
    return ""
