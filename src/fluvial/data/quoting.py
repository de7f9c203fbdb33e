"""Text out of files as messages show it: on one line, without control characters, not too long. Imports no torch."""

from collections.abc import Iterable

LONGEST = 60
MOST_NAMES = 12


def quoted(text: object, longest: int = LONGEST) -> str:
    r"""Python's ``repr`` of a value, its middle left out where it is long.

    A file may hold a name with line breaks, with the codes that move a terminal's cursor, or of a million characters.

    Args:
        text: The value.
        longest: Characters to show.

    Example:
        >>> quoted("a\nb"), quoted("x" * 200, 11)
        ("'a\\nb'", "'xxx...xxx'")
    """
    # Long texts are cut before their repr is made, which may be ten times as long.
    shown = repr(text if not isinstance(text, str) or len(text) <= 2 * longest else text[:longest] + text[-longest:])
    if len(shown) <= longest:
        return shown
    half = (longest - 3) // 2
    return f"{shown[:half]}...{shown[-half:]}"


def one_line(error: object, longest: int = 200) -> str:
    r"""The words of another library's error, as they are where they are one line, else as in :func:`quoted`.

    Example:
        >>> one_line(ValueError("no end")), one_line(ValueError("no\nend"))
        ('no end', "'no\\nend'")
    """
    text = str(error) or type(error).__name__
    return text if text.isprintable() and len(text) <= longest else quoted(text, longest)


def first_line(error: BaseException) -> str:
    r"""The first line of what another library says at length, as in :func:`one_line`.

    Example:
        >>> first_line(ValueError("no end\nsee https://..."))
        'no end'
    """
    return one_line(next(iter(str(error).splitlines()), type(error).__name__))


def quoted_names(names: Iterable[object], most: int = MOST_NAMES) -> str:
    """Names, each as in :func:`quoted`, separated by commas; of more than ``most``, how many more there are.

    Example:
        >>> quoted_names(["a", "b"]), quoted_names("abcde", 2)
        ("'a', 'b'", "'a', 'b' and 3 more")
    """
    listed = list(names)
    rest = len(listed) - most
    return ", ".join(map(quoted, listed[:most])) + (f" and {rest} more" if rest > 0 else "")
