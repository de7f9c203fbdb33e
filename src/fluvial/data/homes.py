"""Paths that begin with a home folder, ``~`` or ``~somebody``. Imports no torch."""

from pathlib import Path

from fluvial.data.quoting import quoted


def expanded(path: str | Path) -> Path:
    """A path with the home folder that it begins with written out.

    Raises:
        ValueError: If it names nobody's home folder.

    Example:
        >>> str(expanded("data/x.npy"))
        'data/x.npy'
        >>> expanded("~nobody-of-that-name/x.npy")
        Traceback (most recent call last):
        ValueError: '~nobody-of-that-name/x.npy' begins with the home folder of a user who is unknown here
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"{quoted(str(path))} begins with the home folder of a user who is unknown here") from None
