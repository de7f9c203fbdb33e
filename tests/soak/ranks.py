"""Trainings in two processes of which one is killed at random moments, and which are resumed in one or in two.

    .venv/bin/python tests/soak/ranks.py --count 20 --seed 0 --json

Each is a real ``torchrun`` with the command. The first process or the other is killed: with SIGKILL, a third of them
aimed at a checkpoint that is being written, or, one in five, with SIGTERM, after which a training that had made an
update must have saved. After that the job must end with an error within a minute and leave no process behind, and the
newest checkpoint must be intact. At the end of each training its losses are held against one that was never
interrupted, in one process.

A job that fails before the kill is a failure, and torchrun must name the killed process with its signal, and no other
end of the other process than by the launcher or by the lost connection. A kill is survived if nothing was broken by
it. A training is resumed if it found a checkpoint; after a kill before the first one it begins anew, which is counted
apart.
"""

import argparse
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from jobs import SECONDS, Job
from launches import Launch
from trainings import Ticker, fork_command, learn_imports, own_folder, tell, wait

from fluvial.training.logs import read_metrics
from fluvial.training.recovery import newest_intact

STEPS, EVERY = 160, 4
TOLERANCE = 1e-5
_COMMON = ("--data", "data.npz", "--width", 16, "--depth", 2, "--batch-size", 7, "--steps", STEPS, "--log-every", 1)
_COMMON = (*_COMMON, "--checkpoint-every", EVERY, "--keep", 2)
CASES: dict[str, tuple[Any, ...]] = {
    "cfm": (),
    "divided cfm": ("--shard",),
    "optimal transport": ("--coupling", "ot", "--labels"),
    "divided efm": ("--objective", "efm", "--bank-size", 5, "--labels", "--shard"),
    "meanflow": ("--objective", "meanflow"),
    "efm": ("--objective", "efm", "--bank-size", 5),
}


@dataclass
class Soak:
    """What was done and found so far."""

    folder: Path
    random: random.Random
    count: int
    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    deviation: float = 0.0
    failures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def output(self) -> Path:
        """Where the commands' output goes."""
        return self.folder / "output.txt"

    def fail(self, case: str, run: Path, what: str) -> None:
        """Keeps what is needed to look into a failure."""
        kept = Path(tempfile.mkdtemp(prefix="fluvial-ranks-"))
        if run.exists():
            shutil.copytree(run, kept / "run")
        if self.output.exists():
            shutil.copy(self.output, kept)
        self.failures.append(
            {"case": case, "seed": self.seed, "kill": self.counts["kills"], "what": what, "kept": str(kept)}
        )
        print(f"FAILED {case}, kill {self.counts['kills']}: {what}; kept in {kept}", file=sys.stderr, flush=True)


def arguments_of(case: str, run: Path, processes: int) -> list[str]:
    """Starts a training, or continues it once there is something to continue."""
    if (run / "config.toml").exists():
        return ["train", "--resume", str(run)]
    settings = [word for word in CASES[case] if processes > 1 or word != "--shard"]
    return ["train", *map(str, (*_COMMON, *settings)), "--out", str(run)]


@dataclass(frozen=True)
class Kill:
    """What happened to a job.

    Args:
        signum: The signal that a process was sent.
        victim: The process's id.
        logged: Last update that the job had logged when the signal was sent.
        said: What it printed, torchrun's report included.
    """

    signum: int
    victim: int
    logged: int
    said: str


def strike(soak: Soak, case: str, run: Path) -> bool:
    """Starts or continues a training in two processes and kills one; whether it was still at work."""
    rank, chance = soak.random.randrange(2), soak.random.random()
    signum = signal.SIGTERM if chance < 0.2 else signal.SIGKILL
    with Launch(run) as launch:
        job = Job(arguments_of(case, run, 2), soak.output, f"{os.getpid()}-{soak.counts['launches']}")
        soak.counts["launches"] += 1
        try:
            victim, other = job.rank(rank), job.rank(1 - rank)
            _await_moment(soak, job, launch)
            logged = launch.logged()
            struck = {victim, other} <= job.members().keys()  # else it has come to its end, or has failed
            if struck:
                os.kill(victim, signum)
            start = time.monotonic()
            status = job.end()
        except (TimeoutError, ProcessLookupError) as error:
            job.kill()
            soak.fail(case, run, str(error))
            return True
        if status == 0:
            return False
        if not struck:
            soak.fail(case, run, f"the job failed with status {status} before a process of it was killed")
            return True
        soak.slowest = max(soak.slowest, time.monotonic() - start)
        kill = Kill(signum, victim, logged, soak.output.read_text(errors="replace"))
        _count(soak, kill, rank, launch.writes())
    problem = _left_behind(job) or problem_of(run, kill)
    if problem:
        soak.fail(case, run, problem)
    soak.counts["survived"] += not problem
    return True


def _count(soak: Soak, kill: Kill, rank: int, writes: bool) -> None:
    soak.counts["kills"] += 1
    soak.counts["first_killed" if rank == 0 else "other_killed"] += 1
    soak.counts["sigterm" if kill.signum == signal.SIGTERM else "sigkill"] += 1
    soak.counts["after_an_update"] += kill.logged > 0
    soak.counts["during_a_write"] += writes
    soak.counts["told_in_one_line"] += "another process of this job has ended" in kill.said
    soak.counts["saved_by_signal"] += "saved step" in kill.said


def _await_moment(soak: Soak, job: Job, launch: Launch) -> None:
    """Waits for a random moment: any, one of the training, or one of a checkpoint being written."""
    kind, end = soak.random.choice(["any", "training", "write"]), time.monotonic() + SECONDS
    if kind == "any":
        time.sleep(soak.random.uniform(0, 6))
        return
    further = (launch.checkpoint or 0) + soak.random.randint(1, STEPS // 4)
    while job.process.poll() is None and time.monotonic() < end and launch.logged() < further:
        time.sleep(0.01)
    if kind == "training":
        time.sleep(soak.random.uniform(0, 0.05))
        return
    end = time.monotonic() + 2
    while job.process.poll() is None and time.monotonic() < end and not launch.writes():
        time.sleep(0.0002)
    time.sleep(soak.random.uniform(0, 0.004))


def _left_behind(job: Job) -> str:
    left = job.kill()
    return f"processes were left behind, ranks {sorted(left.values())}" if left else ""


def problem_of(run: Path, kill: Kill) -> str:
    """What a kill has broken; empty if nothing."""
    if "terminate called" in kill.said:
        return "a process has aborted at its end"
    intact, damaged = newest_intact(run)
    if damaged:
        return f"damaged checkpoints: {[entry.reason for entry in damaged]}"
    rows = read_metrics(run) if run.exists() else []
    passed, step = int(rows[-1]["step"]) if rows else 0, -1 if intact is None else intact.step
    # The line of a step is written before its checkpoint, which may have been in flight.
    if passed > EVERY and step < (passed - 1) // EVERY * EVERY:
        return f"step {passed} was passed, and the newest checkpoint is of step {step}"
    if problem := _report_problem(kill):
        return problem
    if kill.signum == signal.SIGKILL:
        return ""
    if "saved step" not in kill.said:
        # After the last step there is nothing to save.
        lost = kill.logged and step < STEPS
        return f"step {kill.logged} was logged, and SIGTERM has saved nothing: {kill.said[-1500:]}" if lost else ""
    saved = int(kill.said.split("saved step ")[1].split()[0])
    if saved != step or saved < passed:
        return f"step {saved} was said to be saved at step {passed}, and the newest checkpoint is of step {step}"
    told = 128 + signal.SIGTERM in _ends(kill).values()
    return "" if told else f"step {saved} was saved, and no process ended with status 143"


def _ends(kill: Kill) -> dict[int, int]:
    """Exit statuses of the processes that did not succeed, as torchrun reports them."""
    found = re.findall(r"exitcode +: (-?\d+) \(pid: (\d+)\)", kill.said)
    return {int(pid): int(status) for status, pid in found}


def _report_problem(kill: Kill) -> str:
    """What is wrong with the ends that torchrun reports of the processes; empty if nothing."""
    ends = _ends(kill)
    own = (-signal.SIGKILL,) if kill.signum == signal.SIGKILL else (128 + signal.SIGTERM, -signal.SIGTERM)
    if ends.get(kill.victim) not in own:
        return f"torchrun reports {ends}, and process {kill.victim} was sent signal {kill.signum}: {kill.said[-1500:]}"
    # 2 tells that the connection was lost; the others, that the launcher has ended it.
    others = {pid: code for pid, code in ends.items() if pid != kill.victim}
    if set(others.values()) - {2, 128 + signal.SIGTERM, -signal.SIGTERM}:
        return f"the other process failed in its own way: {others}: {kill.said[-1500:]}"
    return ""


def finish(soak: Soak, case: str, run: Path, whole: Path) -> None:
    """Lets a training end, in one process or in two, and holds its losses against one that was left alone."""
    processes = 2 if "--shard" in CASES[case] else soak.random.choice([1, 2])
    with Launch(run) as launch:
        found = launch.checkpoint
    try:
        if processes == 1:
            status = wait(fork_command(arguments_of(case, run, 1), soak.output))
        else:
            status = Job(arguments_of(case, run, 2), soak.output, f"{os.getpid()}-{soak.counts['launches']}").end()
            soak.counts["launches"] += 1
    except TimeoutError as error:
        return soak.fail(case, run, str(error))
    if status:
        return soak.fail(case, run, f"the resumed training ended with status {status}")
    one, other = read_metrics(whole), read_metrics(run)
    if [row["step"] for row in one] != [row["step"] for row in other]:
        return soak.fail(case, run, "metrics.jsonl has other steps than that of an uninterrupted run")
    apart = max(abs(b["loss"] - a["loss"]) / abs(a["loss"]) for a, b in zip(one, other, strict=True))
    soak.deviation = max(soak.deviation, apart)
    if apart > TOLERANCE:
        return soak.fail(case, run, f"losses differ by {apart:.2g} from those of an uninterrupted run")
    soak.counts["runs_with_the_same_losses"] += 1
    soak.counts["begun_anew" if found is None else "ended_before" if found == STEPS else f"resumed_in_{processes}"] += 1
    shutil.rmtree(run)


def _soak(soak: Soak, kills_per_run: int) -> None:
    """Runs of every case in turn, until there were enough kills."""
    ticker, references = Ticker(soak.count, "kills"), {}
    while soak.counts["kills"] < soak.count and soak.counts["launches"] < 3 * soak.count + 9:
        case = list(CASES)[(soak.seed + soak.counts["runs"]) % len(CASES)]
        if case not in references:
            references[case] = soak.folder / f"whole {case}"
            learn_imports(arguments_of(case, references[case], 1), soak.output)
        run = soak.folder / f"run {soak.counts['runs']}"
        for _ in range(min(kills_per_run, soak.count - soak.counts["kills"])):
            if not strike(soak, case, run):
                break
            ticker(soak.counts["kills"])
        finish(soak, case, run, references[case])
        soak.counts["runs"] += 1


def main(argv: Sequence[str] | None = None) -> int:
    """Kills ranks and prints the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=20, help="number of kills")
    parser.add_argument("--kills-per-run", type=int, default=3, help="kills of a training before it may end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    options = parser.parse_args(argv)
    start = time.monotonic()
    with own_folder("ranks") as folder:
        soak = Soak(folder, random.Random(options.seed), options.count, options.seed)
        _soak(soak, options.kills_per_run)
    if soak.counts["kills"] < options.count:
        soak.failures.append({"what": f"only {soak.counts['kills']} kills came in time"})
    names = ("kills", "survived", "sigkill", "sigterm", "first_killed", "other_killed", "after_an_update")
    names += ("saved_by_signal", "during_a_write", "told_in_one_line", "runs", "runs_with_the_same_losses")
    names += ("resumed_in_1", "resumed_in_2", "begun_anew", "ended_before")
    record = {"program": "ranks", "seed": options.seed, **{name: soak.counts[name] for name in names}}
    record |= {"slowest_end_seconds": round(soak.slowest, 1), "largest_difference_of_losses": soak.deviation}
    record |= {"cases": sorted(CASES), "seconds": round(time.monotonic() - start, 1), "failures": soak.failures}
    return tell(record, options.json)


if __name__ == "__main__":
    sys.exit(main())
