"""Classes as people name them: by the name of their label, or by their number."""

from collections.abc import Sequence

from fluvial.cli.errors import did_you_mean

SHOWN = 20


def class_number(label: str, names: Sequence[str], classes: int) -> int:
    """Number of the class that ``label`` names: its name, which goes first, or its number from 0.

    Args:
        label: What was typed.
        names: Names of the classes in the order of their numbers; may be empty.
        classes: How many classes there are.

    Raises:
        ValueError: If it is neither, with the nearest name.

    Example:
        >>> class_number("dog", ["cat", "dog"], 2), class_number("0", ["cat", "dog"], 2)
        (1, 0)
    """
    if label in names:
        return list(names).index(label)
    if not label.isdecimal():
        known = f", one of {list_classes(names)}" if names else ""
        raise ValueError(
            f"--label must be the name of a class{known}, or a number from 0, got {label!r}{did_you_mean(label, names)}"
        )
    if int(label) >= classes:
        raise ValueError(f"--label must be below the number of classes, {classes}, got {label}")
    return int(label)


def list_classes(names: Sequence[str]) -> str:
    """Names with their numbers, where these are not the names themselves; the first of them where there are many.

    Example:
        >>> list_classes(["cat", "dog"]), list_classes(["0", "1", "2"])
        ('0 cat, 1 dog', '0, 1, 2')
    """
    numbered = [name if name == str(number) else f"{number} {name}" for number, name in enumerate(names)]
    shown = ", ".join(numbered[:SHOWN])
    return shown + (f", ... {len(names)} in all" if len(names) > SHOWN else "")
