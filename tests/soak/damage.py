"""Checkpoints that are damaged in every way: the run goes on from the one before, to the same bits.

    .venv/bin/python tests/soak/damage.py --count 200 --seed 0 --json

A run was interrupted after its fourth checkpoint. Its newest checkpoint, and now and then the one before as well,
is damaged: cut, emptied, a bit flipped, a file or all removed, exchanged with another file or with that of an
earlier checkpoint, foreign JSON, zeros at the end as after a power cut, a folder in place of a file and a file in
place of the folder. The run must be resumed from the newest intact checkpoint, say so in one line, keep what was
damaged, and end with the bytes of a run that nothing happened to.

Two changes do not matter, and nothing need be said of them: ``state.json`` that reads as before (a space for another,
``1e-5`` as ``1E-5``), and the name ``sha256`` of its own hash changed into another while all that the hash covers is
as it was: a checkpoint without that entry is one of the first version. Any other change that is not reported is a
failure, whatever the run ends with.
"""

import argparse
import json
import random
import shutil
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from damage_ways import FILES, WAYS
from trainings import Ticker, difference, files, own_folder, tell

from fluvial.support import MetaTrainer, SupportConfig
from fluvial.training import Interrupted, TrainConfig, Trainer
from fluvial.training.checkpoints import list_checkpoints
from fluvial.training.recovery import DamagedCheckpoint

_COMMON: dict[str, Any] = {"steps": 24, "checkpoint_every": 5, "log_every": 3, "keep": 9}
_POINTS: dict[str, Any] = {"data": "data.npz", "width": 8, "depth": 1, "batch_size": 7, **_COMMON}
_TASKS: dict[str, Any] = {"width": 8, "heads": 2, "batch_size": 2, "points": 8, "bank": 8, **_COMMON}
CONFIGS: dict[str, TrainConfig | SupportConfig] = {
    "cfm": TrainConfig(**_POINTS),
    "optimal transport": TrainConfig(coupling="ot", labels=True, **_POINTS),
    "efm": TrainConfig(objective="efm", bank_size=5, labels=True, **_POINTS),
    "meanflow": TrainConfig(objective="meanflow", **_POINTS),
    "likelihood": TrainConfig(objective="likelihood", likelihood_steps=2, **_POINTS),
    "support": SupportConfig(**_TASKS),
}


@dataclass(frozen=True)
class Case:
    """What happens to a run.

    Args:
        kind: Name in ``CONFIGS``.
        damages: For each damaged checkpoint, newest first: the way and the file.
        chance: Draws what the ways leave open.
    """

    kind: str
    damages: tuple[tuple[Callable[[Path, random.Random], None], str], ...]
    chance: random.Random

    def __str__(self) -> str:
        return f"{self.kind}: " + ", then ".join(f"{way.__name__.strip('_')} {file}" for way, file in self.damages)


def make_case(seed: int, number: int) -> Case:
    """The case of that number; nothing else decides it."""
    chance = random.Random(f"{seed}-{number}")
    kind, count = chance.choice(list(CONFIGS)), 1 if chance.random() < 0.8 else 2
    damages = tuple((chance.choice(WAYS), chance.choice(FILES)) for _ in range(count))
    return Case(kind, damages, chance)


def resume(kind: str, run: Path, *, start: bool = False) -> None:
    """Continues a training, or starts it, to its end."""
    config = CONFIGS[kind]
    if isinstance(config, SupportConfig):
        MetaTrainer(config, run).fit(resume=not start)
    else:
        Trainer(config, run).fit(resume=not start)


def matters(before: dict[str, bytes], after: dict[str, bytes]) -> bool:
    """Whether a change of a checkpoint's files is damage."""
    if before.keys() != after.keys():
        return True
    unlike = [name for name in before if before[name] != after[name]]
    if unlike != ["state.json"]:
        return bool(unlike)
    try:
        was, now = json.loads(before["state.json"]), json.loads(after["state.json"])
    except (ValueError, RecursionError):
        return True
    if not isinstance(now, dict) or now == was:
        return now != was
    seal, renamed = was.pop("sha256"), now.keys() - was.keys()
    return not renamed or now.pop(renamed.pop()) != seal or now != was


@dataclass(frozen=True)
class Hurt:
    """A checkpoint that was changed.

    Args:
        folder: Where it was.
        before: Content of its files before.
        after: Content of its files after.
    """

    folder: Path
    before: dict[str, bytes]
    after: dict[str, bytes]

    @property
    def matters(self) -> bool:
        """Whether it is damage."""
        return matters(self.before, self.after)


def hurt_run(case: Case, whole: Path, run: Path) -> tuple[list[Hurt], list[Path]]:
    """Copies a run without its last checkpoint and damages the newest of the rest.

    Returns:
        What was changed, newest first, and the checkpoints before those.
    """
    shutil.copytree(whole, run)
    folders = list_checkpoints(run)
    shutil.rmtree(folders.pop())  # it was interrupted before the end
    hurt = []
    for way, name in case.damages:
        folder = folders.pop()
        before = files(folder)
        way(folder / name, case.chance)
        hurt.append(Hurt(folder, before, files(folder) if folder.is_dir() else {}))
    return hurt, folders


def problem_of(case: Case, whole: Path, run: Path, counts: Counter[str]) -> str:
    """Damages a copy of a run, resumes it and says what is wrong; empty if nothing."""
    hurt, rest = hurt_run(case, whole, run)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        resume(case.kind, run)
    said = [str(warning.message) for warning in caught if issubclass(warning.category, DamagedCheckpoint)]
    # Nobody looks at what is older than one that is intact.
    intact = next((at for at, found in enumerate(hurt) if not found.matters), len(hurt))
    used = hurt[intact].folder if intact < len(hurt) else rest[-1]
    if problem := report_problem(hurt[:intact], used, said):
        return problem
    if unlike := difference(whole, run):
        return f"{unlike} differs from that of an undamaged run"
    counts["damaged"] += intact
    if intact:
        counts["recovered"] += 1
    else:
        counts["harmless" if hurt[0].before != hurt[0].after else "unchanged"] += 1
    return ""


def report_problem(damaged: Sequence[Hurt], used: Path, said: Sequence[str]) -> str:
    """What is wrong with how the damaged checkpoints were reported and kept; empty if nothing."""
    step = int(used.name.removeprefix("step-"))
    if len(said) != len(damaged):
        return f"{len(damaged)} damaged checkpoints were reported as {list(said)}"
    for hurt, line in zip(damaged, said, strict=True):
        end = f"; step {step} is used instead of {hurt.folder.name}"
        if not line.startswith(str(hurt.folder)) or not line.endswith(end) or not line.isprintable():
            return f"{hurt.folder.name} was reported as {line!r}"
        aside = hurt.folder.with_name(f".damaged-{hurt.folder.name}")
        if (files(aside) if aside.is_dir() else {}) != hurt.after:
            return f"{aside.name} does not keep what was damaged"
    return ""


def _soak(options: argparse.Namespace, folder: Path, counts: Counter[str]) -> list[dict[str, Any]]:
    ticker, failures, run = Ticker(options.count, "damages"), [], folder / "run"
    for number in range(options.count) if options.only is None else [options.only]:
        case = make_case(options.seed, number)
        whole = folder / case.kind
        if not whole.exists():
            resume(case.kind, whole, start=True)
        try:
            problem = problem_of(case, whole, run, counts)
        except Interrupted:  # a signal to this program
            raise
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        counts["cases"] += 1
        if problem:
            failures.append({"seed": options.seed, "case": number, "damage": str(case), "what": problem})
            print(f"FAILED case {number} ({case}): {problem}", file=sys.stderr, flush=True)
        shutil.rmtree(run, ignore_errors=True)
        ticker(counts["cases"])
    return failures


def main(argv: Sequence[str] | None = None) -> int:
    """Damages checkpoints and prints the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=200, help="number of damaged runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="repeat this case of the seed alone")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    options = parser.parse_args(argv)
    start, counts = time.monotonic(), Counter[str]()
    with own_folder("damage") as folder:
        failures = _soak(options, folder, counts)
    record = {"program": "damage", "seed": options.seed}
    record |= {name: counts[name] for name in ("cases", "recovered", "damaged", "harmless", "unchanged")}
    record |= {"kinds": sorted(CONFIGS), "seconds": round(time.monotonic() - start, 1), "failures": failures}
    return tell(record, options.json)


if __name__ == "__main__":
    sys.exit(main())
