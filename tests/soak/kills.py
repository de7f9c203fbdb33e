"""Trainings that are killed at random moments and resumed: each ends as one that was never interrupted.

    .venv/bin/python tests/soak/kills.py --count 200 --seed 0 --json

One kill in five is SIGTERM or Ctrl-C, which must leave a checkpoint of that very step, once there was an update, and
status 143 or 130; the others are SIGKILL, a third of them aimed at a checkpoint that is being written. After each
kill the newest checkpoint must be intact and no older than the last one that the metrics prove was passed. At the end
the checkpoint's bytes, the losses, the previews and drawn samples are compared with those of an uninterrupted run.
Most commands are forked from one process that has imported torch; some are real ones.

A kill is survived if nothing was broken by it. A resumption is a launch after a kill that found a checkpoint; after a
kill before the first one a training begins anew, which is counted apart. Resumptions are bit-identical if the run that
they belong to is.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from launches import Launch
from trainings import (
    CASES,
    EVERY,
    Ticker,
    Training,
    difference,
    draw,
    fork_command,
    learn_imports,
    own_folder,
    run_to_end,
    tell,
    wait,
)

from fluvial.training.logs import read_metrics
from fluvial.training.recovery import newest_intact

KILLS_PER_RUN = 8
REAL_SHARE = 0.03
LONGEST, LONGEST_REAL = 0.6, 5.0


@dataclass
class Soak:
    """What was done and found so far."""

    folder: Path
    random: random.Random
    count: int
    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def output(self) -> Path:
        """Where the commands' output goes."""
        return self.folder / "output.txt"

    def fail(self, training: Training, what: str) -> None:
        """Keeps what is needed to look into a failure."""
        kept = Path(tempfile.mkdtemp(prefix="fluvial-kills-"))
        if training.run.exists():
            shutil.copytree(training.run, kept / "run")
        number = self.counts["kills"]
        self.failures.append(
            {"case": training.case, "seed": self.seed, "kill": number, "what": what, "kept": str(kept)}
        )
        print(f"FAILED {training.case}, kill {number}: {what}; the run is kept in {kept}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Kill:
    """What happened to a command.

    Args:
        signum: The signal that it was sent.
        status: How it ended.
        logged: Last update that it had logged when the signal was sent.
        said: What it printed.
    """

    signum: int
    status: int
    logged: int
    said: str


def strike(soak: Soak, training: Training, launch: Launch) -> bool:
    """Starts or continues a training and kills it; whether it was still at work."""
    chance, real = soak.random.random(), soak.random.random() < REAL_SHARE
    signum = signal.SIGKILL if chance < 0.8 else signal.SIGTERM if chance < 0.9 else signal.SIGINT
    aimed = signum == signal.SIGKILL and soak.random.random() < 1 / 3
    pause = soak.random.uniform(0, LONGEST_REAL if real else LONGEST)
    start = soak.output.stat().st_size if soak.output.exists() else 0
    if real:
        with open(soak.output, "ab") as stream:
            arguments = [sys.executable, "-m", "fluvial", *training.arguments()]
            process = subprocess.Popen(arguments, stdout=stream, stderr=stream, cwd=soak.folder)
        child = process.pid
    else:
        child = fork_command(training.arguments(), soak.output)
    time.sleep(pause)
    if aimed:
        _await_write(launch, soak.random.uniform(0, 0.004))
    logged = launch.logged() if signum != signal.SIGKILL else 0
    os.kill(child, signum)
    try:
        status = wait(child)
    except TimeoutError as error:
        soak.counts["kills"] += 1
        soak.fail(training, str(error))
        return True
    if real:
        process.returncode = status  # it has been waited for
    if status == 0:
        return False
    soak.counts["kills"] += 1
    soak.counts["sigkill" if signum == signal.SIGKILL else "sigterm_or_sigint"] += 1
    soak.counts["after_an_update"] += launch.logged() > 0
    soak.counts["during_a_write"] += signum == signal.SIGKILL and launch.writes()
    soak.counts["real_commands"] += real
    said = soak.output.read_bytes()[start:].decode(errors="replace")
    soak.counts["saved_by_signal"] += "saved step" in said
    if problem := problem_of(training, Kill(signum, status, logged, said)):
        soak.fail(training, problem)
    else:
        soak.counts["survived"] += 1
    return True


def _await_write(launch: Launch, pause: float) -> None:
    """Waits until a checkpoint is being written, and a moment more; at most for a while."""
    end = time.monotonic() + 0.3
    while time.monotonic() < end and not launch.writes():
        time.sleep(0.0002)
    time.sleep(pause)


def problem_of(training: Training, kill: Kill) -> str:
    """What a kill has broken; empty if nothing."""
    intact, damaged = newest_intact(training.run)
    step = -1 if intact is None else intact.step
    if damaged:
        return f"damaged checkpoints: {[entry.reason for entry in damaged]}"
    rows = read_metrics(training.run) if training.run.exists() else []
    passed = int(rows[-1]["step"]) if rows else 0
    # The line of a step is written before its checkpoint, which may have been in flight.
    if passed > EVERY and step < (passed - 1) // EVERY * EVERY:
        return f"step {passed} was passed, and the newest checkpoint is of step {step}"
    end = f"status {kill.status} after signal {kill.signum}: {kill.said[-500:]}"
    if kill.signum == signal.SIGKILL:
        return "" if kill.status == -signal.SIGKILL else end
    if "saved step" in kill.said:
        saved = int(kill.said.split("saved step ")[1].split()[0])
        if saved != step or saved < passed:
            return f"step {saved} was said to be saved at step {passed}, and the newest checkpoint is of step {step}"
    elif kill.logged and step < training.steps:  # after the last step there is nothing to save
        return f"step {kill.logged} was logged, and nothing was saved: {end}"
    # Before the command has begun a signal does what it does to any process.
    return "" if kill.status in (128 + kill.signum, -kill.signum) else end


def _soak(soak: Soak) -> None:
    """Runs of every case in turn, until there were enough kills."""
    ticker = Ticker(soak.count, "kills")
    references: dict[str, tuple[Training, bytes]] = {}
    cases = list(CASES)
    soak.random.shuffle(cases)
    while soak.counts["kills"] < soak.count:
        case = cases[soak.counts["runs"] % len(cases)]
        if case not in references:
            whole = Training(case, soak.folder / f"whole {case}")
            learn_imports(whole.arguments(), soak.output)
            references[case] = whole, draw(whole, soak.folder, soak.output)
        training = Training(case, soak.folder / f"run {soak.counts['runs']}")
        found = _kill_repeatedly(soak, training, ticker)
        resumed = sum(step is not None for step in found)
        soak.counts["runs"] += 1
        soak.counts["resumptions"] += resumed
        soak.counts["begun_anew"] += len(found) - resumed
        if _compare(soak, training, *references[case]):
            soak.counts["runs_bit_identical"] += 1
            soak.counts["resumptions_bit_identical"] += resumed
            shutil.rmtree(training.run)


def _kill_repeatedly(soak: Soak, training: Training, ticker: Ticker) -> list[int | None]:
    """Kills a training often; for each launch after a kill, the last included, the step that it found."""
    found: list[int | None] = []
    for _ in range(min(KILLS_PER_RUN, soak.count - soak.counts["kills"])):
        with Launch(training.run) as launch:
            found.append(launch.checkpoint)
            if not strike(soak, training, launch):
                return found[1:]
        ticker(soak.counts["kills"])
    with Launch(training.run) as launch:
        return [*found[1:], launch.checkpoint]


def _compare(soak: Soak, training: Training, whole: Training, drawn: bytes) -> bool:
    """Lets a training end and holds it against one that was never interrupted; whether they are the same."""
    try:
        run_to_end(training, soak.output)
        unlike = difference(whole.run, training.run)
        if not unlike and draw(training, soak.folder, soak.output) != drawn:
            unlike = "drawn samples"
        if unlike:
            soak.fail(training, f"{unlike} differ from those of an uninterrupted run")
        return not unlike
    except (RuntimeError, TimeoutError, ValueError, OSError) as error:
        soak.fail(training, str(error))
        return False


def main(argv: Sequence[str] | None = None) -> int:
    """Kills trainings and prints the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=200, help="number of kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    options = parser.parse_args(argv)
    start = time.monotonic()
    with own_folder("kills") as folder:
        soak = Soak(folder, random.Random(options.seed), options.count, options.seed)
        _soak(soak)
    names = ("kills", "survived", "sigkill", "sigterm_or_sigint", "saved_by_signal", "after_an_update")
    names += ("during_a_write", "real_commands", "runs", "runs_bit_identical")
    names += ("resumptions", "resumptions_bit_identical", "begun_anew")
    record = {"program": "kills", "seed": options.seed, **{name: soak.counts[name] for name in names}}
    record |= {"cases": sorted(CASES), "seconds": round(time.monotonic() - start, 1), "failures": soak.failures}
    return tell(record, options.json)


if __name__ == "__main__":
    sys.exit(main())
