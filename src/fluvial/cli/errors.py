"""One-line errors: what was given, what was expected, the nearest valid name, where to read more.

The parser draws boxes; a person reading a log, or a script, wants one line. This module turns a failed parse
into that line.
"""

import contextlib
import dataclasses
import difflib
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence

COMMON_OPTIONS = ("--help",)


def one_line(message: object) -> str:
    """Text of an error on a single line.

    Example:
        >>> one_line(ValueError("steps must be positive,\\n  got -3"))
        'steps must be positive, got -3'
        >>> one_line("no file \\x1b[31mred")
        'no file \\\\x1b[31mred'
    """
    text = str(message)
    if isinstance(message, OSError) and message.strerror and message.filename is not None:
        text = f"{message.strerror}: {message.filename}"
    line = "".join(map(_visible, " ".join(text.split()))) or type(message).__name__
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - _END]} ... {line[-_END:]}"


_LONGEST, _END = 1000, 300  # of a line, beyond which its middle says less than it hides; and of what is kept behind


def _visible(letter: str) -> str:
    """A letter, or its escape where it would command the terminal or cannot be encoded."""
    return letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode()


def out_of_memory(error: Exception, arguments: Sequence[str]) -> str:
    """A line on memory that ran out, with what takes less of it; empty for any other error.

    Torch says it in words alone, of its CPU allocator; its error for GPUs is a ``RuntimeError`` too.

    Example:
        >>> out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 9 GiB. GPU 0 has 8."), ["sample", "a"])
        'out of memory (CUDA out of memory. Tried to allocate 9 GiB); try a smaller --n or --batch-size'
        >>> out_of_memory(RuntimeError("shapes differ"), ["sample", "a"])
        ''
    """
    text = one_line(error)
    if not isinstance(error, MemoryError) and not any(sign in text for sign in _MEMORY_SIGNS):
        return ""
    hint = _SMALLER.get(arguments[0] if arguments else "", "")
    said = re.sub(r"^\[enforce fail at .*?\]\s*(\.\s*)?", "", text)
    said = ". ".join(re.split(r"\. (?=[A-Z])", said)[:2]).rstrip(".")
    return f"out of memory ({said})" + (f"; try a smaller {hint}" if hint else "")


_MEMORY_SIGNS = ("out of memory", "can't allocate memory", "not enough memory")
_SMALLER = {
    "train": "--batch-size, --width or --size",
    "sample": "--n or --batch-size",
    "likelihood": "--n or --batch-size",
    "retrieve": "--n, --batch-size or --size",
    "demo": "--samples",
    "audit": "--n or --size",
    "audit scaling": "--samples, --widths or --size",
    "features": "--batch-size or --size",
    "support train": "--batch-size, --points, --bank or --width",
    "support sample": "--n",
    "support evaluate": "--points",
    "support diagnose": "--tasks, --m or --dim",
}


def as_options(message: str, settings: Iterable[str]) -> str:
    """The message of an error with the settings that it names written as they are typed.

    Example:
        >>> as_options("batch_size must be at least 1, got 0", ["batch_size"])
        '--batch-size must be at least 1, got 0'
        >>> as_options("held_out=9 leaves no training data", ["held_out"])
        '--held-out 9 leaves no training data'
        >>> as_options("captions cannot be given with labels: one of the two", ["captions", "labels"])
        '--captions cannot be given with --labels: one of the two'
        >>> as_options("data set 'size' is not there", ["data", "size"])
        "data set 'size' is not there"
    """
    names = "|".join(map(re.escape, settings))
    found = re.match(rf"({names})(?:(?= must| cannot| needs| ')|=)", message)
    if not found:
        return message
    rest = re.sub(
        rf"(?:(?<=needs )|(?<=with ))({names})(?=[ ,:]|$)", lambda name: _option(name[0]), message[found.end() :]
    )
    return _option(found[1]) + (" " if found[0].endswith("=") else "") + rest


@contextlib.contextmanager
def settings_as_options(config: type) -> Iterator[None]:
    """Turns the names of a config's settings in errors into options, since that is how they were given."""
    try:
        yield
    except (ValueError, TypeError) as error:
        message = as_options(str(error), [setting.name for setting in dataclasses.fields(config)])
        if message == str(error):
            raise
        raise ValueError(message) from error


def _option(setting: str) -> str:
    return "--" + setting.replace("_", "-")


def did_you_mean(given: str, valid: Iterable[str], cutoff: float = 0.5) -> str:
    """A clause that names the valid name nearest to what was given; empty if none is near.

    Example:
        >>> did_you_mean("trian", ["train", "sample"])
        " (did you mean 'train'?)"
    """
    near = difflib.get_close_matches(given, list(valid), n=1, cutoff=cutoff)
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
            names.append(_option(field.name))
    return (*names, *COMMON_OPTIONS)


def given_options(arguments: Sequence[str]) -> tuple[str, ...]:
    """Options present among the arguments, without their values, in the order given.

    Example:
        >>> given_options(["train", "--batch_size=64", "--lr", "1e-3"])
        ('--batch-size', '--lr')
    """
    return tuple(a.split("=", 1)[0].replace("_", "-") for a in arguments if a.startswith("--") and a != "--")


def settings_of(options: Iterable[str]) -> tuple[str, ...]:
    """The names of settings that options stand for.

    Example:
        >>> settings_of(["--batch-size", "--lr"])
        ('batch_size', 'lr')
    """
    return tuple(option.removeprefix("--").replace("-", "_") for option in options)


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
        return f"{_unknown_first(name, commands)}; see fluvial --help"
    where = f"see fluvial {name} --help"
    valid = option_names(commands[name])
    for option in given_options(arguments[1:]):
        if option not in valid:
            return f"unknown option {option!r} of fluvial {name}{did_you_mean(option, valid)}; {where}"
    return f"{_reason(box)}; {where}"


def _unknown_first(name: str, commands: Mapping[str, type]) -> str:
    """What is wrong with a first word that is no command."""
    names = ", ".join(commands)
    if not name.startswith("-"):
        return f"unknown command {name!r}{did_you_mean(name, commands) or f', expected one of {names}'}"
    option = next(iter(given_options([name])), name)
    if any(option in option_names(command) for command in commands.values()):
        return f"option {option!r} was given before the command, expected one of {names} first"
    hint = did_you_mean(option, ["--help", "--version"], cutoff=0.75) or f", expected one of {names}"
    return f"unknown option {option!r}{hint}"


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
    found = re.match(r"Error parsing (--\S+|\S+): (.*)", text)
    if not found:
        return ""
    option, problem = found.groups()
    given = re.search(r"(?:invalid literal for int|could not convert string to float)[^:]*: ('.*?'|\".*?\")", problem)
    if not given:
        return ""
    # An option that takes either is tried as both, and both failures are in the text.
    kind = "a number" if "to float" in problem else "a whole number"
    return f"{option} must be {kind}, got {given[1]}"


def _missing(text: str) -> str:
    if found := re.match(r"Missing value for argument '(.*?)'", text):
        return f"{found[1]} needs a value"
    if found := re.match(r"Missing from .*?: (\S+) ", text):
        return f"argument {found[1]} is missing"
    if found := re.match(r"Unrecognized options: (.*)", text):
        return f"unexpected argument {found[1].split(', ')[0]!r}"
    return ""
