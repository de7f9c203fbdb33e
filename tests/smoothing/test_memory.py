"""The peak of an evaluation stays within ``memory`` and its output, however many rows are asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

RESET = Path("/proc/self/clear_refs")

# Measures itself: the kernel's peak is set back to the present before the evaluation. Large blocks are mapped, so that
# what is freed is given back and not taken again unnoticed.
CHILD = """
import ctypes, sys
from pathlib import Path
import torch
import fluvial as fv

def resident(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])

n, d, rows, memory, tol, t = (float(part) for part in sys.argv[1:])
n, d, rows, memory = int(n), int(d), int(rows), int(memory)
g = torch.Generator().manual_seed(0)
data = torch.randint(0, 256, (n, d), generator=g, dtype=torch.uint8)
field = fv.ExactField(data, tol=tol, memory=memory)
time = torch.tensor(t)
x = torch.randn(rows, d, generator=g).mul_(1 - t)
for low in range(0, rows, 1000):
    x[low : low + 1000] += t * field.take(torch.arange(low, min(low + 1000, rows)) % n)
field(x[:4], time)
ctypes.CDLL(None).malloc_trim(0)
Path("/proc/self/clear_refs").write_text("5")
before = resident("VmRSS")
field(x, time)
print(resident("VmHWM") - before)
"""


@pytest.mark.skipif(not os.access(RESET, os.W_OK), reason="the kernel's count of the peak cannot be set back here")
@pytest.mark.parametrize(
    ("tol", "t"),
    [(1e-3, 0.4), pytest.param(0.0, 0.1, marks=pytest.mark.slow), pytest.param(0.0, 0.95, marks=pytest.mark.slow)],
)
def test_many_rows_take_no_more_memory_than_given(tol: float, t: float) -> None:
    n, d, rows, memory = 2500, 512, 24_000, 64 * 2**20
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, *map(str, (n, d, rows, memory, tol, t))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= memory + 4 * rows * d
