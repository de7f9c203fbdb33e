"""Parquet files of one schema, one after another, read by row group; the last few row groups stay in memory."""

import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from fluvial.data.memory import check_fits
from fluvial.data.order import POOL
from fluvial.data.quoting import first_line
from fluvial.data.stamps import Stamp, stamp_of
from fluvial.data.tables import import_pyarrow

_FOOTERS = 64  # kept in memory, where those of a thousand files may take more than the rows


@dataclass(frozen=True)
class ParquetSource:
    """One file.

    Args:
        name: What messages call it.
        open: Opens it: something that ``pyarrow.parquet.ParquetFile`` takes.
        stamp: Tells whether it has changed; None where it cannot.
        identity: Tells it from other files without reading it, where reading all of it is dear; None elsewhere.
    """

    name: str
    open: Callable[[], Any]
    stamp: Callable[[], Stamp] | None = None
    identity: Callable[[], str] | None = None


def local_source(path: Path) -> ParquetSource:
    """A file on this machine; it is read, not mapped."""
    place = str(path.absolute())
    return ParquetSource(str(path), lambda: place, lambda: stamp_of(place))


class ParquetFiles:
    """Row groups of one or more files, numbered through.

    Args:
        sources: The files, in order.

    Attributes:
        schema: The files' Arrow schema.
        chunks: Number of rows in each row group.

    Raises:
        ValueError: If a file is damaged, has another schema than the first, or there are no rows.
    """

    def __init__(self, sources: Sequence[ParquetSource]) -> None:
        self._arrow, self._parquet = import_pyarrow(f"reading {Path(sources[0].name).name}")
        self._sources = tuple(sources)
        self._stamps = [source.stamp and source.stamp() for source in self._sources]
        self._columns: list[str] | None = None
        self._groups: list[tuple[int, int]] = []  # file and row group of each chunk
        self._before: list[int] = []  # rows of its file before it
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._footers: OrderedDict[int, Any] = OrderedDict()
        sizes: list[int] = []
        self._weights: list[int] = []  # bytes of each chunk
        for number, source in enumerate(self._sources):
            with self._opened(number) as file:
                if number == 0:
                    self.schema = file.schema_arrow
                elif not file.schema_arrow.equals(self.schema):
                    raise ValueError(f"{source.name} has other columns or types than {self._sources[0].name}")
                before = 0
                for group in range(file.num_row_groups):
                    about = file.metadata.row_group(group)
                    if about.num_rows:
                        self._groups.append((number, group))
                        self._before.append(before)
                        sizes.append(about.num_rows)
                        self._weights.append(about.total_byte_size)
                        before += about.num_rows
        if not sizes or min(sizes) < 0:
            raise ValueError(f"{self.name} holds no rows")
        self.chunks = tuple(sizes)
        self._largest = sum(sorted(self._weights)[-POOL:])
        self._ends = np.cumsum(np.asarray(sizes, np.int64))
        # A footer may lie about its rows; the positions of all of them are held in memory, several times over.
        check_fits(32 * int(self._ends[-1]), f"the {self._ends[-1]:,} rows that {self.name} tells of", "check the file")

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def name(self) -> str:
        """What messages call the files."""
        more = f" and {len(self._sources) - 1} more" if len(self._sources) > 1 else ""
        return f"{self._sources[0].name}{more}"

    def choose(self, columns: list[str]) -> None:
        """Sets the columns that :meth:`chunk` reads; ``"image.bytes"`` is a field of a struct."""
        self._columns = columns
        self._kept.clear()

    def check_memory(self) -> None:
        """Refuses row groups of which as many as are kept do not fit into memory.

        Raises:
            ValueError: As above.
        """
        what = f"{min(POOL, len(self.chunks))} row groups of {self.name}"
        check_fits(self._largest, what, "write the file anew with smaller ones (row_group_size=1000)")

    def chunk(self, number: int) -> Any:
        """One row group as an Arrow table of the chosen columns.

        Raises:
            ValueError: If its file has changed or is damaged.
            OSError: If it cannot be read.
        """
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        place, group = self._groups[number]
        with self._opened(place) as file:
            table = file.read_row_group(group, columns=self._columns, use_threads=False)
        if table.num_rows != self.chunks[number]:
            raise ValueError(f"{self._sources[place].name} is damaged: row group {group} has {table.num_rows} rows")
        while len(self._kept) >= POOL:
            self._kept.popitem(last=False)
        self._kept[number] = table
        return table

    def column(self, name: str) -> list[Any]:
        """All values of one column as Python objects."""
        values: list[Any] = []
        for place in range(len(self._sources)):
            with self._opened(place) as file:
                values += file.read(columns=[name], use_threads=False).column(0).to_pylist()
        if len(values) != len(self):
            raise ValueError(f"{self.name} is damaged: column {name!r} has {len(values)} of {len(self)} rows")
        return values

    def located(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> Iterator[tuple[int, Any, Any]]:
        """For each row group with some of the rows: its number, where they are asked for, their places in it."""
        chunk = np.searchsorted(self._ends, indices, side="right")
        order = np.argsort(chunk, kind="stable")
        bounds = [*np.flatnonzero(np.diff(chunk[order], prepend=-1)).tolist(), len(order)]
        for start, stop in pairwise(bounds):
            wanted = order[start:stop]
            number = int(chunk[wanted[0]])
            yield number, wanted, indices[wanted] - (int(self._ends[number]) - self.chunks[number])

    def place_marks(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> Iterator[bytes] | None:
        """Bytes that tell rows by where they lie: the files' identities, their row groups, and the rows' positions.

        None where a file has no identity: then what the rows hold tells them.

        Raises:
            OSError: If a file cannot be reached.
        """
        if not all(source.identity for source in self._sources):
            return None
        identities = [self._identity(source) for source in self._sources]
        groups = list(zip(self._groups, self.chunks, self._weights, strict=True))
        return iter((json.dumps([identities, groups]).encode(), indices.tobytes()))

    def _identity(self, source: ParquetSource) -> str:
        try:
            return source.identity() if source.identity is not None else ""
        except OSError as error:
            raise OSError(f"{source.name} cannot be reached: {first_line(error)}") from None

    def row_name(self, number: int, place: int) -> str:
        """What messages call one row of a row group: its file and its number there, from 1."""
        return f"{self._sources[self._groups[number][0]].name}, row {self._before[number] + place + 1}"

    @contextmanager
    def _opened(self, place: int) -> Iterator[Any]:
        """One file, once it is known to be what it was; what goes wrong inside becomes one error that names it."""
        source = self._sources[place]
        try:
            if source.stamp is not None and source.stamp() != self._stamps[place]:
                raise ValueError(f"{source.name} has changed since it was opened: data must stay while in use")
            # A footer that is known is not read again: over the network that is the larger part of a small row group.
            footer = self._footers.pop(place, None)
            with self._parquet.ParquetFile(source.open(), metadata=footer) as file:
                self._footers[place] = file.metadata
                if len(self._footers) > _FOOTERS:
                    self._footers.popitem(last=False)
                yield file
        except FileNotFoundError as error:
            raise ValueError(f"{source.name} cannot be read: {error.strerror or error}") from None
        except self._arrow.ArrowException as error:
            raise ValueError(f"{source.name} cannot be read as Parquet ({first_line(error)})") from None
        except OSError as error:
            if error.errno is not None:
                raise OSError(error.errno, f"cannot be read: {error.strerror}", source.name) from None
            if source.stamp is None:  # of the network
                raise OSError(f"{source.name} cannot be read: {first_line(error)}") from None
            # pyarrow raises it for damaged pages too
            raise ValueError(f"{source.name} cannot be read as Parquet ({first_line(error)})") from None
