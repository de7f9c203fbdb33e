"""What ``torchrun`` and ``accelerate launch`` tell a process by its environment; imports no torch."""

import os


def launched_processes() -> int:
    """How many processes a launcher has started for this command, as ``WORLD_SIZE`` says; 1 without a launcher.

    Raises:
        ValueError: If ``WORLD_SIZE`` is not a whole number from 1.
    """
    given = os.environ.get("WORLD_SIZE", "") or "1"
    if not given.isdecimal() or int(given) < 1:
        raise ValueError(f"WORLD_SIZE must be the number of processes, at least 1, got {given!r}")
    return int(given)


def is_launched() -> bool:
    """Whether this may be one of several processes; what ``WORLD_SIZE`` says need not make sense."""
    return (os.environ.get("WORLD_SIZE", "") or "1") != "1"


def launched_rank() -> int:
    """Number of this process among them, as ``RANK`` says; 0 without a launcher."""
    rank = os.environ.get("RANK", "") or "0"
    return int(rank) if rank.isdecimal() else 0


def require_several(setting: str, processes: int) -> None:
    """Refuse a setting that one process alone cannot have.

    Raises:
        ValueError: If there is one.

    Example:
        >>> require_several("shard", 1)
        Traceback (most recent call last):
        ValueError: shard needs several processes, and was launched in one; see docs/launch.md
    """
    if processes == 1:
        raise ValueError(f"{setting} needs several processes, and was launched in one; see docs/launch.md")
