"""Trainings in two processes that ``torchrun`` starts, and the processes of each."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

MARK = "FLUVIAL_SOAK_JOB"
"""Variable of the environment by which the processes of a job are found."""
SECONDS = 60.0
"""What a job may take to begin, and to end."""


class Job:
    """A training in two processes that torchrun has started."""

    def __init__(self, arguments: Sequence[str], output: Path, name: str) -> None:
        self.name = name
        environment = {**os.environ, MARK: name, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        with open(output, "wb") as stream:
            self.process = subprocess.Popen(
                [*command, "-m", "--", "fluvial", *arguments], stdout=stream, stderr=stream, env=environment
            )

    def members(self) -> dict[int, str]:
        """The living processes of this job and their ranks; without one, the launcher's."""
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                words = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if f"{MARK}={self.name}" in words and state != "Z":
                found[int(entry.name)] = next((word[5:] for word in words if word.startswith("RANK=")), "")
        return found

    def rank(self, rank: int, seconds: float = SECONDS) -> int:
        """Process id of a rank, once it is there.

        Raises:
            TimeoutError: If it does not come in that time, or the job has ended.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            for pid, found in self.members().items():
                if found == str(rank):
                    return pid
            time.sleep(0.02)
        raise TimeoutError(f"rank {rank} was not started within {seconds:g} s, or the job has ended")

    def end(self) -> int:
        """Exit status; if it takes too long, all of its processes are killed.

        Raises:
            TimeoutError: In that case.
        """
        try:
            return self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"the job did not end within {SECONDS:g} s") from None

    def kill(self) -> dict[int, str]:
        """Kills all processes that are left, and returns them."""
        left = self.members()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        return left
