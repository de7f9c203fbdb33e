"""The names of data sets: one short string, a spec, says what to load and where it lies.

This module imports neither torch nor numpy, so that the command line can refuse a wrong spec at once.
"""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from fluvial.data.homes import expanded
from fluvial.data.quoting import quoted

Kind = Literal["digits", "toy", "array", "table", "folder", "fashion-mnist", "cifar10", "celeba", "parquet", "hf"]

TOYS = ("moons", "eight-gaussians", "checkerboard", "swiss-roll", "two-spirals")

DATASETS: dict[str, str] = {
    "digits": "scikit-learn's 1,797 handwritten digits, 8x8, 17 grey levels, 10 classes",
    "moons": "two interleaved half circles, 10,000 points in the plane, 2 classes",
    "eight-gaussians": "eight Gaussians on a circle, 10,000 points in the plane, 8 classes",
    "checkerboard": "the dark squares of a 4x4 board, 10,000 points in the plane",
    "swiss-roll": "a rolled-up band, 10,000 points in the plane",
    "two-spirals": "two interleaved spirals, 10,000 points in the plane, 2 classes",
    "X.npy": "an array of numbers (N, ...) or of uint8 images",
    "X.npz": "the same under the key x, with labels under the key y if there are any",
    "TABLE.csv": "a table with a header; its numeric columns, standardised",
    "X.parquet": "the same in Parquet, or its column of pictures with their labels (needs the extra 'tables')",
    "parquet:PATH": "a folder of such files, one after another",
    "hf:NAME[:SPLIT]": "a data set in Parquet on the Hugging Face hub, or a folder of one (needs the extra 'hub')",
    "folder:PATH": "a folder of images; subfolders are labels; --size S crops and resizes",
    "fashion-mnist[:PATH]": "Fashion-MNIST, 28x28 grey, 10 classes, fetched by `make data`",
    "cifar10:PATH": "CIFAR-10, 32x32 colour, 10 classes, binary version or Parquet",
    "celeba:PATH": "CelebA, aligned faces, centre crop 178, 64x64 colour",
}
"""Every form that a spec can take, with a line that describes it."""

LARGEST_SIZE = 8192
"""Largest side in pixels to which pictures are resized."""

FASHION_MNIST_FOLDERS = (Path("data/fashion-mnist"), Path("/usr/share/datasets/fashion-mnist"))
"""Where Fashion-MNIST is looked for when the spec gives no path."""

_FILES: dict[str, Kind] = {".npy": "array", ".npz": "array", ".csv": "table", ".parquet": "table"}
_STREAMABLE = ("folder", "parquet", "hf", ".npy", ".parquet")
_FOLDERS: tuple[Kind, ...] = ("folder", "fashion-mnist", "cifar10", "celeba", "parquet")
_MISSING = {
    "folder": "give the folder that holds the images",
    "parquet": "give the folder that holds the files",
    "fashion-mnist": "run `make data`, or give the folder that holds the four IDX files: fashion-mnist:PATH",
    "cifar10": "unpack cifar-10-binary.tar.gz (from the CIFAR-10 page) and give its folder",
    "celeba": "unpack img_align_celeba.zip (from the CelebA page) and give its folder",
}


@dataclass(frozen=True)
class Spec:
    """A spec taken apart.

    Args:
        kind: Which reader it is for.
        name: Short name of the data set, for titles and messages.
        path: File or folder to read, where there is one; it exists.
        split: Which split of a data set of the hub is meant; empty if it was not said.
    """

    kind: Kind
    name: str
    path: Path | None = None
    split: str = ""


def spec_names() -> tuple[str, ...]:
    """Every form that a spec can take, in the order of the help text.

    Example:
        >>> spec_names()[:2]
        ('digits', 'moons')
    """
    return tuple(DATASETS)


def parse_spec(spec: str) -> Spec:
    """Takes a spec apart and checks that what it names exists.

    Args:
        spec: One of the forms in ``DATASETS``, such as ``"digits"``, ``"x.npz"`` or ``"folder:photos"``.

    Raises:
        ValueError: If the spec has none of these forms (with the nearest valid name), or names a path that is
            absent.
        TypeError: If it is no string.

    Example:
        >>> parse_spec("moons")
        Spec(kind='toy', name='moons', path=None, split='')
        >>> parse_spec("digit")
        Traceback (most recent call last):
            ...
        ValueError: unknown data set 'digit': did you mean 'digits'?
    """
    if not isinstance(spec, str):
        raise TypeError(f"spec must be a string such as 'digits' or 'x.npy', got {spec!r}")
    try:
        return _parsed(spec)
    except OSError as error:  # a name that is too long, a loop of links
        raise ValueError(f"data set {quoted(spec)} cannot be read: {error.strerror or error}") from None


def _parsed(spec: str) -> Spec:
    if spec == "digits":
        return Spec("digits", spec)
    if spec in TOYS:
        return Spec("toy", spec)
    prefix, _, rest = spec.partition(":")
    if prefix == "hf":
        return _hub_spec(rest)
    for kind in _FOLDERS:
        if prefix == kind:
            return _folder_spec(kind, rest)
    suffix = Path(spec).suffix.lower()
    if suffix in _FILES:
        return _file_spec(_FILES[suffix], expanded(spec))
    raise ValueError(f"unknown data set {quoted(spec)}: {_suggestion(spec)}")


def can_stream(spec: str) -> bool:
    """Whether what a spec names can stay in its files.

    Example:
        >>> can_stream("folder:photos"), can_stream("digits")
        (True, False)
    """
    return spec.partition(":")[0] in _STREAMABLE or Path(spec).suffix.lower() in _STREAMABLE


def check_stream(spec: str, stream: bool | None) -> None:
    """Refuses to stream what can only be read as a whole.

    Args:
        spec: A spec; what it names need not exist.
        stream: Whether the data are to stay in their files.

    Raises:
        ValueError: As above.

    Example:
        >>> check_stream("folder:photos", True)
        >>> check_stream("digits", True)
        Traceback (most recent call last):
            ...
        ValueError: stream is for X.npy, X.parquet, folder:PATH, parquet:PATH and hf:NAME, the data set is 'digits'
    """
    if stream and not can_stream(spec):
        forms = "X.npy, X.parquet, folder:PATH, parquet:PATH and hf:NAME"
        raise ValueError(f"stream is for {forms}, the data set is {spec!r}")


def _hub_spec(given: str) -> Spec:
    name, _, split = given.partition(":")
    path = expanded(name)
    if name and path.exists():
        return Spec("hf", path.resolve().name, path, split)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.strip(".") == "":
        raise ValueError(
            f"hf:{given}: {name!r} is neither a file or folder nor a name of the hub; expected hf:OWNER/NAME, "
            "hf:PATH, or either with :SPLIT"
        )
    return Spec("hf", name, None, split)


def _file_spec(kind: Kind, path: Path) -> Spec:
    if not path.is_file():
        raise ValueError(f"data file {str(path)!r} does not exist" if not path.exists() else f"{path} is no file")
    return Spec(kind, path.name, path)


def _folder_spec(kind: Kind, given: str) -> Spec:
    if not given:
        found = [f for f in FASHION_MNIST_FOLDERS if f.is_dir()] if kind == "fashion-mnist" else []
        if found:
            return Spec(kind, kind, found[0])
        if kind == "fashion-mnist":
            places = " or ".join(map(str, FASHION_MNIST_FOLDERS))
            raise ValueError(f"fashion-mnist is not in {places}: {_MISSING[kind]}")
        raise ValueError(f"data set {kind!r} needs a path, {kind}:PATH: {_MISSING[kind]}")
    path = expanded(given)
    if not path.is_dir():
        state = "is no folder" if path.exists() else "does not exist"
        raise ValueError(f"{kind}:PATH: {str(path)!r} {state}: {_MISSING[kind]}")
    return Spec(kind, path.resolve().name if kind in ("folder", "parquet") else kind, path)


def _suggestion(spec: str) -> str:
    if spec and Path(spec).is_dir():
        return f"did you mean 'folder:{spec}'?"
    if spec and Path(spec).is_file():
        return f"a data file must end in {', '.join(_FILES)}"
    prefix, colon, rest = spec.partition(":")
    near = get_close_matches(prefix.lower(), ["digits", *TOYS, *_FOLDERS, "hf"], n=1, cutoff=0.5)
    if not near:
        return f"expected one of {', '.join(DATASETS)}"
    if near[0] in (*_FOLDERS, "hf") and near[0] != "fashion-mnist":
        return f"did you mean '{near[0]}:{rest or 'PATH'}'?"
    return f"did you mean '{near[0]}{colon}{rest}'?" if near[0] in _FOLDERS else f"did you mean '{near[0]}'?"
