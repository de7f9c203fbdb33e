"""What fits into this machine's memory: asked before work that would otherwise end in swapping or a kill."""

import os

STREAM_SHARE = 0.25
"""Share of the machine's memory above which data are left in their files."""


def physical_memory() -> int | None:
    """Bytes of memory that the machine has; None on systems that do not tell.

    Example:
        >>> memory = physical_memory()
        >>> memory is None or memory > 2**20
        True
    """
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def check_fits(needed: int, what: str, way_out: str) -> None:
    """Refuses what needs more memory than the machine has.

    Args:
        needed: Bytes.
        what: What needs them, the subject of the message.
        way_out: What to do instead, its end.

    Raises:
        ValueError: As above.

    Example:
        >>> check_fits(2**70, "--n 99", "ask for fewer")
        Traceback (most recent call last):
            ...
        ValueError: --n 99 would take 1,099,511,627,776.0 GiB of memory, ...: ask for fewer
    """
    memory = physical_memory()
    if memory is not None and needed > memory:
        gib = f"{needed / 2**30:,.1f}" if needed < 2**100 else "more than 10^21"
        raise ValueError(f"{what} would take {gib} GiB of memory, and there are {memory / 2**30:,.1f} GiB: {way_out}")


def should_stream(needed: int, stream: bool | None) -> bool:
    """Whether data are read from their files when they are asked for rather than held in memory.

    Args:
        needed: Bytes that they would take in memory.
        stream: What the caller wants; None leaves it to the size: a quarter of the machine's memory is too much.

    Example:
        >>> should_stream(2**70, None), should_stream(1, None), should_stream(1, True)
        (True, False, True)
    """
    if stream is not None:
        return stream
    memory = physical_memory()
    return memory is not None and needed > STREAM_SHARE * memory
