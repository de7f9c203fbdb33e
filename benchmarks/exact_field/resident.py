"""Peak memory of this process on Linux, as the kernel counts it, and children that measure theirs.

``ru_maxrss`` of a child starts at its parent's peak, and no peak forgets how the inputs were made. The kernel's VmHWM,
the same count, can be set back to the present: that is done before what is measured. Heap that was freed is
given back first, so that it is not taken again unnoticed.
"""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")


def peak() -> int:
    """Highest resident memory of this process since its start or :func:`forget_peak`, bytes."""
    return _status("VmHWM")


def forget_peak() -> int:
    """Set the peak back to the present resident memory, and return that, bytes."""
    ctypes.CDLL(None).malloc_trim(0)
    RESET.write_text("5")
    return _status("VmRSS")


def in_child(module: str, arguments: Mapping[str, object]) -> dict[str, Any]:
    """Run ``python -m module`` with the arguments as JSON; its last line of output is the answer, as JSON.

    Blocks of memory of 64 KiB and more are mapped there, and so given back when they are freed.

    Raises:
        RuntimeError: If the child fails, with the last line of its complaint.
    """
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-m", module, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        complaint = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RuntimeError(complaint[-1])
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def _status(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])
