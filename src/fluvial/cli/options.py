"""Checks of options that several commands have in common; imports no torch."""

from collections.abc import Mapping

from fluvial.data.specs import LARGEST_SIZE, parse_spec

_OF_ONE_SIZE = ("digits", "toy", "array", "table", "fashion-mnist", "cifar10")


def takes_size(data: str) -> bool:
    """Whether the images of a data set may be resized.

    Example:
        >>> takes_size("digits")
        False
    """
    return parse_spec(data).kind not in _OF_ONE_SIZE


def check_size(size: int | None, data: str) -> None:
    """Refuse a size of images where nothing is resized, or one that no image can have.

    Raises:
        ValueError: As above.

    Example:
        >>> check_size(32, "digits")
        Traceback (most recent call last):
        ValueError: --size is for folder:PATH and celeba:PATH, the data set is 'digits'
    """
    if size is None:
        return
    if not 1 <= size <= LARGEST_SIZE:
        raise ValueError(f"--size must be a number of pixels from 1 to {LARGEST_SIZE}, got {size}")
    if not takes_size(data):
        raise ValueError(f"--size is for folder:PATH and celeba:PATH, the data set is {data!r}")


def check_at_least(values: Mapping[str, int | None], least: int = 1) -> None:
    """Refuse counts below the least.

    Args:
        values: Counts by the names of their settings; None where there is none.
        least: What each must be at least.

    Raises:
        ValueError: As above; the option is named.

    Example:
        >>> check_at_least({"batch_size": 0})
        Traceback (most recent call last):
        ValueError: --batch-size must be at least 1, got 0
    """
    for name, value in values.items():
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
