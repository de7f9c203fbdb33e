"""From a spec to a data set that is read, checked and split."""

from dataclasses import dataclass
from pathlib import Path

from fluvial.data.arrays import read_array
from fluvial.data.celeba import read_celeba
from fluvial.data.cifar10 import read_cifar10
from fluvial.data.dataset import Dataset
from fluvial.data.digits import HELD_OUT as DIGITS_HELD_OUT
from fluvial.data.digits import read_digits
from fluvial.data.fashion_mnist import read_fashion_mnist
from fluvial.data.folder import read_folder
from fluvial.data.hub import hub_data
from fluvial.data.parquet_data import parquet_paths, read_parquet_data
from fluvial.data.parquet_files import local_source
from fluvial.data.quoting import one_line, quoted
from fluvial.data.specs import LARGEST_SIZE, Spec, check_stream, parse_spec
from fluvial.data.tables import load_table
from fluvial.data.toys import make_toy
from fluvial.kinds import checked
from fluvial.progress import ProgressCallback

DEFAULT_SHARE = 0.2
"""Share held out of data that bring no split of their own."""


@dataclass(frozen=True)
class _Reading:
    """How data are read: whether they stay in their files, and who is told of the progress."""

    stream: bool | None
    progress: ProgressCallback | None


@checked
def load_dataset(
    spec: str,
    *,
    seed: int = 0,
    size: int | None = None,
    held_out: float | int | None = None,
    stream: bool | None = None,
    progress: ProgressCallback | None = None,
) -> Dataset:
    """Reads the data set that a spec names; ``.train`` and ``.held_out`` are its two parts.

    The parts are disjoint, stratified by label where possible, and depend on the data and the seed alone.
    Fashion-MNIST and CIFAR-10 bring a test set, which is ``.held_out``; if ``held_out`` is given, that much
    is split off the training set instead and the test set stays unread.

    Args:
        spec: One of the forms in ``fluvial.data.DATASETS``.
        seed: Non-negative integer for the split, and for the points of the toys.
        size: Side in pixels to which images of ``folder:`` and ``celeba:``, and pictures in Parquet, are resized.
        held_out: Share in [0, 1) as a float, or number of data as an int; by default 360 digits, the test set
            where there is one, and 0.2 else.

        stream: Whether the data stay in their files and each batch is read when it is asked for, so that they may be
            larger than memory (``.npy``, Parquet, ``folder:``, ``hf:``); None does so where they would take more than
            a quarter of it.
        progress: Called while the heads of a folder's pictures are read, or a streamed array is checked.

    Raises:
        ValueError: If the spec is unknown, what it names is absent, damaged or empty, values are NaN or
            infinite, or an argument does not fit.
        TypeError: If the spec is no string.

    Example:
        >>> digits = fv.load_dataset("digits", seed=0)
        >>> len(digits.train), len(digits.held_out), digits.shape, digits.levels
        (1437, 360, (1, 8, 8), 17)
    """
    parsed = parse_spec(spec)
    if size is not None and not _takes_size(parsed):
        raise ValueError(
            f"size={size} is for folder:PATH, celeba:PATH and pictures in Parquet, the data set is {spec!r}"
        )
    if size is not None and not 1 <= size <= LARGEST_SIZE:
        raise ValueError(f"size must be a number of pixels from 1 to {LARGEST_SIZE}, got {size}")
    if seed < 0:
        raise ValueError(f"seed must be a non-negative integer, got {seed}")
    check_stream(spec, stream)
    try:
        return _loaded(parsed, seed, size, held_out, _Reading(stream, progress))
    except OSError as error:
        raise ValueError(f"data set {quoted(spec)} cannot be read: {one_line(error)}") from None


def _loaded(parsed: Spec, seed: int, size: int | None, held_out: float | int | None, reading: _Reading) -> Dataset:
    path = parsed.path or Path()
    share = DEFAULT_SHARE if held_out is None else held_out
    stream = reading.stream
    match parsed.kind:
        case "digits":
            return read_digits().split(DIGITS_HELD_OUT if held_out is None else held_out, seed)
        case "toy":
            return make_toy(parsed.name, seed).split(share, seed)
        case "array":
            return read_array(path, stream, reading.progress).split(share, seed)
        case "table" if path.suffix.lower() == ".csv":
            return load_table(path, share, seed)
        case "table" | "parquet":
            return read_parquet_data(
                [local_source(file) for file in parquet_paths(path)],
                name=parsed.name,
                held_out=share,
                seed=seed,
                size=size,
                stream=stream,
                table=path if path.is_file() else None,
            )
        case "hf":
            hub = hub_data(parsed)
            return read_parquet_data(
                hub.sources,
                name=parsed.name,
                held_out=share,
                seed=seed,
                size=size,
                stream=stream,
                features=hub.features,
            )
        case "folder":
            return read_folder(path, size, parsed.name, stream, reading.progress).split(share, seed)
        case "celeba":
            return read_celeba(path, size).split(share, seed)
        case "fashion-mnist" | "cifar10":
            whole = read_fashion_mnist(path) if parsed.kind == "fashion-mnist" else read_cifar10(path)
            return whole if held_out is None else whole.train.split(held_out, seed)


def _takes_size(parsed: Spec) -> bool:
    """Whether the data may be pictures of any size."""
    is_parquet = parsed.path is not None and parsed.path.suffix.lower() == ".parquet"
    return parsed.kind in ("folder", "celeba", "parquet", "hf") or is_parquet
