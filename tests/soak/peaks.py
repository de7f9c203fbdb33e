"""Resident memory of this process and its peak since a moment, as Linux counts them."""

from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak() -> None:
    """Begins the peak anew, at what is resident now.

    Raises:
        OSError: If the system does not allow it.
    """
    _CLEAR.write_text("5")


def resident() -> int:
    """Resident memory now, in bytes."""
    return _read("VmRSS")


def peak() -> int:
    """Largest resident memory since ``reset_peak``, or since the process began, in bytes."""
    return _read("VmHWM")


def _read(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
