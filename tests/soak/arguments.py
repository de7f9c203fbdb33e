"""Random and hostile command lines: each ends with its output, or with one line that names what is wrong.

    .venv/bin/python tests/soak/arguments.py --count 10000 --seed 0 --json

A case starts from a command line that is valid and changes it in one to three places. What is checked:

* status 0; or status 2 with one line ``fluvial: error: ...`` on stderr that names an argument or a file that was given;
* after an error every file is as it was, and nothing is left behind;
* nothing outside of the folder that the commands were given is opened for writing, renamed or removed.

Commands that would take long stop once their arguments are known to be valid.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
import typing
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from arguments_world import PATHS, VALID, make_world, restore, snapshot

from fluvial.cli import main as fluvial_main
from fluvial.cli.commands import COMMANDS
from fluvial.cli.errors import option_names

NUMBERS = (
    *("0", "-1", "1", "2", "3", "7", "-7", "0.5", "-0.5", "1.5", "nan", "-nan", "inf", "-inf", "1e999", "1e-999"),
    *("1e308", "5e-324", "-0.0", "1e3", "1_0", "0x10", "٣", "²", str(2**31), str(2**63), str(2**64), str(-(2**63))),
    *("9" * 400, "9" * 5000, "1e-7", "true", "None", "1,2", "1;2", " 3 ", "+4", "--5", "1e", "1.2.3"),
)
TEXTS = (
    *("", " ", "\n", "a\nb", "a\0b", "\udcff", "é", "日本", "🙂" * 50, "x" * 100_000, "\x1b[31mred\x1b[0m", "\r", "\t"),
    *("-", "--", "---", "-x", "--help=1", "=", "a=b", "'", '"', "\\", "$HOME", "`id`", "%s%n", "{}", "{0}", "..", "*"),
    *(
        "all",
        "none",
        "None",
        "True",
        "cfm",
        "efm",
        "meanflow",
        "likelihood",
        "condot",
        "vp",
        "ot",
        "unet",
        "dit",
        "mlp",
    ),
    *("euler", "dopri5", "heun", "exact", "hutchinson", "pixels", "inception", "digits", "moons", "shells", "gmm"),
    *("gmm+gmm", "gmm+", "+", ",", ",,", "a,b", "1,1", "8,16", "16,8", "all,4", "collapse", "quality,nothing", "bf16"),
)
LARGEST = 64
"""Numbers of work, such as steps, up to which a case is run in full."""
_WORK = ("steps", "n", "samples", "tasks", "points", "width", "depth", "blocks", "size", "probes", "reference_size")
_LARGE_NETS = ("efficientnet-lite0", "inception", "dinov2")
_SLOW = ("demo", "support experiments", "audit scaling", "support diagnose", "support evaluate", "audit")


@dataclass(frozen=True)
class Case:
    """One command line, and what was changed in it.

    Args:
        command: The command's name.
        arguments: What follows ``fluvial``.
        changed: What was put in, in words.
    """

    command: str
    arguments: tuple[str, ...]
    changed: tuple[str, ...]


def make_case(rng: random.Random) -> Case:
    """A valid command line with one to three changes."""
    name = rng.choice(list(VALID))
    words, changed = list(rng.choice(VALID[name])), []
    options, kinds = option_names(COMMANDS[name]), option_kinds(COMMANDS[name])
    changed += [_change(words, options, kinds, rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    head = name.split()
    if rng.random() < 0.02:
        head, changed = [rng.choice(TEXTS)], [*changed, "command"]
    return Case(name, (*head, *words), tuple(changed))


def option_kinds(command: type) -> dict[str, Any]:
    """What each option of a command takes."""
    kinds: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(command).items():
        if dataclasses.is_dataclass(hint):
            kinds |= option_kinds(hint)  # type: ignore[arg-type]
        elif name != "EPILOGUE":
            kinds["--" + name.replace("_", "-")] = hint
    return kinds


def _change(words: list[str], options: Sequence[str], kinds: dict[str, Any], rng: random.Random) -> str:
    """Changes the words in one place, in place, and says how."""
    places = [k for k, word in enumerate(words) if not word.startswith("--")]
    kind = rng.choice(("value", "value", "value", "value", "option", "option", "twice", "typo", "drop", "garbage"))
    if kind == "value" and places:
        place = rng.choice(places)
        words[place] = _hostile(rng, kinds.get(words[place - 1] if place else ""))
        return f"{words[place - 1] if place else 'first'} value"
    if kind == "option":
        option = rng.choice(options)
        _add(words, option, _hostile(rng, kinds.get(option)), rng)
        return option
    if kind == "twice" and any(word.startswith("--") for word in words):
        option = rng.choice([word for word in words if word.startswith("--")])
        _add(words, option, _hostile(rng, kinds.get(option)), rng)
        return f"{option} twice"
    if kind == "typo":
        option = rng.choice(options)
        place = rng.randrange(2, len(option) + 1)
        wrong = option[:place] + rng.choice(("", "x", "-", "_", "é")) + option[place + 1 :]
        _add(words, wrong, _hostile(rng), rng)
        return f"{wrong} typo"
    if kind == "drop" and words:
        return f"dropped {words.pop(rng.randrange(len(words)))}"
    words.insert(rng.randrange(len(words) + 1), _hostile(rng))
    return "garbage"


def _add(words: list[str], option: str, value: str, rng: random.Random) -> None:
    form = rng.randrange(5)
    words += [[option, value], [option, value], [f"{option}={value}"], [option], [option.replace("-", "_"), value]][
        form
    ]


def _hostile(rng: random.Random, kind: Any = None) -> str:
    """A value, mostly of the kind that the option takes, so that more than the parser is reached."""
    inner = [part for part in typing.get_args(kind) if part is not type(None)] or [kind]
    if rng.random() < 0.15 or kind is None:
        return rng.choice(rng.choice((NUMBERS, TEXTS, PATHS)))
    if typing.get_origin(kind) is typing.Literal or typing.get_origin(inner[0]) is typing.Literal:
        return str(rng.choice(typing.get_args(kind if typing.get_origin(kind) is typing.Literal else inner[0])))
    if int in inner or float in inner:
        return rng.choice(NUMBERS)
    return rng.choice(PATHS if Path in inner or rng.random() < 0.4 else TEXTS)


class Guard:
    """Notes what is written outside of the folder of the cases, by Python's audit events."""

    def __init__(self, allowed: Path) -> None:
        self._allowed, self.outside = str(allowed), []
        self.on = False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on or event not in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink"):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        for path in arguments[: 2 if event in ("os.rename", "os.symlink") else 1]:
            if isinstance(path, str | bytes | os.PathLike):
                full = os.path.abspath(os.fsdecode(path))
                if not full.startswith((self._allowed, "/dev", "/proc")):
                    self.outside.append(f"{event} {full}")


@contextlib.contextmanager
def limited(reached: list[bool], turn: random.Random) -> Iterator[None]:
    """Inside, commands that would take long, or whose turn it is not, stop once they are known to be valid.

    Args:
        reached: Filled with how far a command came.
        turn: Decides; seeded anew for each case, so that one that is repeated alone goes as far.
    """
    originals = {command: command.execute for command in COMMANDS.values()}

    def wrap(name: str, original: Any) -> Any:
        def execute(self: Any) -> int:
            reached.append(True)
            large = any(value > LARGEST for value in _work(self))
            if large or turn.random() > (0.02 if name in _SLOW else 0.2):
                return 0
            reached.append(True)
            status: int = original(self)
            return status

        return execute

    for name, command in COMMANDS.items():
        command.execute = wrap(name, command.execute)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for command, original in originals.items():
            command.execute = original  # type: ignore[method-assign]


def _work(command: Any) -> Iterator[float]:
    for field in dataclasses.fields(command):
        value = getattr(command, field.name)
        if field.name == "resume" and value is not None:
            return
        if dataclasses.is_dataclass(value):
            yield from _work(value)
        elif field.name == "extractor":
            yield LARGEST + 1 if value in _LARGE_NETS else 0
        elif field.name in _WORK and isinstance(value, int | float):
            yield value
        elif field.name == "budget":
            yield 0 if value < 0.01 else LARGEST + 1
        elif field.name in ("widths", "sizes"):
            yield len(value)


def problem_of(case: Case, reached: list[bool]) -> tuple[str, int]:
    """Runs a case; what is wrong with the outcome, empty if nothing, and the status."""
    out, err = io.StringIO(), io.StringIO()
    reached.clear()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = fluvial_main(list(case.arguments))
    except BaseException:  # whatever leaves main is a traceback for the one who typed
        return "traceback: " + " | ".join(traceback.format_exc().splitlines()[-7:]), -1
    lines = err.getvalue().splitlines()
    if status == 0:
        return ("traceback on stderr" if "Traceback" in err.getvalue() else ""), 0
    if status in (130, 143):
        raise SystemExit(status)  # a signal that was meant for this program
    if status != 2:
        return f"status {status}", status
    errors = [line for line in lines if line.startswith("fluvial: error: ")]
    if len(errors) != 1 or lines[-1] != errors[0] or (len(lines) > 1 and len(reached) < 2):
        return f"not one line: {lines}"[:3000], 2
    line = errors[0].removeprefix("fluvial: error: ")
    if len(line) > 4000 or not line.isprintable():
        return f"line of {len(line)} characters, or unprintable: {line[:200]!r}", 2
    return ("" if _names_something(line, case) else f"names nothing: {line}"), 2


def _names_something(line: str, case: Case) -> bool:
    known = ("RUN", "command", "run folder", "data set ''", "task family ''", "feature file")
    if any(name in line for name in (*option_names(COMMANDS[case.command]), *known)):
        return True
    words = {part for word in case.arguments for part in (word, *re.split("[=:]", word), word.partition("=")[2])}
    shown = [re.escape(repr(word)[1:-1].strip()[:24]) for word in words if word]
    return any(re.search(rf"(?<!\w){word}", line) for word in shown)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the cases and prints the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=10_000, help="number of command lines")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="repeat this case of the seed alone")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    options = parser.parse_args(argv)
    before, home = Path.cwd(), os.environ.get("HOME")
    base = Path(tempfile.mkdtemp(prefix="fluvial-arguments-")).resolve()
    try:
        record = _soak(options, base)
    finally:
        os.chdir(before)
        os.environ["HOME"] = home or ""
        shutil.rmtree(base, ignore_errors=True)
    print(json.dumps(record) if options.json else "\n".join(f"{key}: {value}" for key, value in record.items()))
    return 1 if record["failures"] else 0


def _soak(options: argparse.Namespace, base: Path) -> dict[str, Any]:
    world, pristine = base / "world", base / "pristine"
    world.mkdir()
    os.environ["HOME"] = str(world / "home")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        make_world(world)
    shutil.copytree(world, pristine, symlinks=True)
    counts, failures, reached = Counter[str](), [], list[bool]()
    guard, start, told = Guard(base), time.monotonic(), time.monotonic()
    tempfile.tempdir = str(base)  # so that what is made in passing counts as inside
    whole = snapshot(world)
    cases = range(options.count) if options.only is None else [options.only]
    turn = random.Random()
    with limited(reached, turn):
        for number in cases:
            turn.seed(f"{options.seed}-{number}-turn")
            case = make_case(random.Random(f"{options.seed}-{number}"))
            guard.on = True
            problem, status = problem_of(case, reached)
            guard.on = False
            counts["succeeded" if status == 0 else "refused"] += 1
            counts["ran"] += len(reached) > 1
            after = snapshot(world)
            if after != whole:
                if status != 0 and not problem:
                    differs = sorted(set(after.items()) ^ set(whole.items()))[:3]
                    problem = f"left behind: {differs}"
                restore(pristine, world)
                whole = snapshot(world)
            if guard.outside:
                problem = problem or f"outside: {guard.outside[:3]}"
                guard.outside.clear()
            if problem:
                failures.append(
                    {"case": number, "arguments": [word[:200] for word in case.arguments], "problem": problem}
                )
                print(f"failed: --seed {options.seed} --only {number}: {failures[-1]}", file=sys.stderr)
            if time.monotonic() - told > 5:
                told = time.monotonic()
                done, rate = number + 1, (number + 1) / (told - start)
                left = (options.count - done) / rate
                print(f"{done}/{options.count} cases, {rate:.0f}/s, {left:.0f} s left", file=sys.stderr)
    return {
        "program": "arguments",
        "cases": len(cases),
        **{key: counts[key] for key in ("refused", "succeeded", "ran")},
        "failures": len(failures),
        "failed": [failure["case"] for failure in failures[:100]],
        "seed": options.seed,
        "seconds": round(time.monotonic() - start, 1),
    }


if __name__ == "__main__":
    raise SystemExit(main())
