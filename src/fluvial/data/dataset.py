"""A data set: uint8 grey levels or float32 numbers, in memory or read from files, handed out as float32 tensors.

A datum with ``L`` grey levels ``v`` in 0..L-1 becomes :math:`2 v / (L - 1) - 1`, so images lie in [-1, 1].
Subsets and splits are lists of rows over the same store.
"""

import copy
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from numpy.typing import NDArray
from torch import Tensor

from fluvial.data.hashing import content_digest, mirror
from fluvial.data.images import from_uint8, to_uint8
from fluvial.data.labels import Labels, encode_labels
from fluvial.data.splits import split_indices
from fluvial.data.standardization import Standardization
from fluvial.data.stores import MemoryStore, Store
from fluvial.data.values import Indices, checked_indices, checked_levels, kind_of, stored_values
from fluvial.kinds import checked

MATERIALISED_BYTES = 2 * 2**30
"""The largest size, in bytes, that ``Dataset.x`` makes of a data set."""


class Dataset:
    """Data of one shape, with or without labels; immutable.

    uint8 values are images of shape (N, H, W), (N, H, W, C) or (N, C, H, W), C 1 or 3; they are kept in
    the last order, which also decides where both fit. All other numbers are kept as float32 just as they
    are: as images if their shape is (N, 1 or 3, H, W) and they lie in [-1, 1], as points if not. Numbers of
    shape (N,) become (N, 1). Labels, strings or whole numbers, become classes 0..C-1 in sorted order.

    Args:
        values: Tensor or array, N data along the first axis; or a store that reads them when they are asked for.
        labels: One label per datum.
        name: Short name, for titles and messages.
        levels: Number of grey levels of uint8 values, which are then 0..levels-1; 256 if not given.
        kind: ``"image"`` or ``"points"``, to overrule the guess for float values.
        class_names: Names of all classes; labels must then be 0..C-1 already.
        table: Map to original units, for standardised rows of a table.

    Attributes:
        shape: Shape of one datum.
        kind: ``"image"``, ``"points"`` or ``"table"``.
        levels: Number of grey levels, None for continuous data.

    Raises:
        ValueError: If there are no data, a value is NaN or infinite, or shapes, labels and levels do not fit.
        TypeError: If ``values`` is neither tensor nor array nor store.

    Example:
        >>> data = fv.Dataset(torch.tensor([[0.0, 1.0], [2.0, 3.0]]), ["b", "a"])
        >>> data.take([1])
        (tensor([[2., 3.]]), tensor([0]))
        >>> fv.Dataset(np.array([[[0, 255]]], dtype=np.uint8)).x
        tensor([[[[-1.,  1.]]]])
    """

    @checked
    def __init__(
        self,
        values: Tensor | NDArray[Any] | Store,
        labels: Labels | None = None,
        *,
        name: str = "data",
        levels: int | None = None,
        kind: Literal["image", "points"] | None = None,
        class_names: Sequence[str] | None = None,
        table: Standardization | None = None,
    ) -> None:
        try:
            self._store = values if isinstance(values, Store) else MemoryStore(stored_values(values))
            self.levels = checked_levels(self._store, levels)
            self.kind = kind_of(self._store, kind, table)
            classes = None if labels is None else encode_labels(labels, len(self._store), class_names)
        except ValueError as error:
            raise ValueError(f"data set {name!r}: {error}") from None
        self.name, self.table = name, table
        self.shape: tuple[int, ...] = self._store.shape
        self._classes: NDArray[np.int64] | None = None if classes is None else classes[0]
        self.class_names: tuple[str, ...] = () if classes is None else classes[1]
        self._rows: NDArray[np.int64] = np.arange(len(self._store), dtype=np.int64)
        self._mirrored: NDArray[np.bool_] | None = None
        self._split: tuple[Dataset, Dataset] | None = None
        self._hash: str | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        classes = f", {len(self.class_names)} classes" if self.class_names else ""
        return f"Dataset({self.name!r}, {len(self)} of shape {self.shape}{classes})"

    @property
    def labels(self) -> Int64[Tensor, "N"] | None:
        """Class of each datum, shape (N,), or None; index into ``class_names``."""
        return None if self._classes is None else torch.from_numpy(self._classes[self._rows])

    def take(self, indices: Indices) -> tuple[Float32[Tensor, "n *D"], Int64[Tensor, "n"] | None]:
        """Data and labels of the rows ``indices``, in their order; a row may be asked for more than once.

        Args:
            indices: Whole numbers in [0, N), shape (n,).

        Returns:
            Values, float32 of shape (n, *shape), and classes, int64 of shape (n,), or None without labels.

        Raises:
            ValueError: If an index is out of range.
            TypeError: If the indices are not whole numbers; masks are not taken.
        """
        chosen = checked_indices(indices, len(self))
        rows = self._rows[chosen]
        values = torch.from_numpy(self._stored(chosen))
        if self.levels is not None:
            values = from_uint8(values, self.levels)
        return values, None if self._classes is None else torch.from_numpy(self._classes[rows])

    @property
    def x(self) -> Float32[Tensor, "N *D"]:
        """All values as one tensor of shape (N, *shape), made anew at each access.

        Raises:
            ValueError: If it would be larger than 2 GiB.
        """
        size = 4 * len(self) * int(np.prod(self.shape))
        if size > MATERIALISED_BYTES:
            raise ValueError(
                f"data set {self.name!r} would take {size / 2**30:.1f} GiB as one tensor, the limit is "
                f"{MATERIALISED_BYTES / 2**30:.1f} GiB: read it in parts with take(indices)"
            )
        return self.take(np.arange(len(self)))[0]

    @checked
    def inverse(self, x: Float[Tensor, "n *D"]) -> NDArray[Any]:
        """Values as they are outside of the model: uint8 images, rows of a table in its units, bare points.

        Args:
            x: Shape (n, *shape).

        Returns:
            Array of the same shape: uint8 for images, float64 for tables, else x's own type.

        Raises:
            ValueError: If x is not made of data of this shape.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"x must have shape (n, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}")
        if self.kind == "image":
            return to_uint8(x).cpu().numpy()
        x = x.detach().cpu()
        array: NDArray[Any] = (x.float() if x.dtype == torch.bfloat16 else x).numpy()
        return array if self.table is None else self.table.inverse(array)

    def subset(self, indices: Indices) -> "Dataset":
        """The rows ``indices`` as a data set, maybe an empty one, over the same memory, classes and units."""
        chosen = checked_indices(indices, len(self))
        view = self._view(self._rows[chosen])
        view._mirrored = None if self._mirrored is None else self._mirrored[chosen]
        return view

    @checked
    def split(self, held_out: float | int = 0.2, seed: int = 0) -> "Dataset":
        """The same data with ``.train`` and ``.held_out`` drawn at random, by label where possible.

        Args:
            held_out: Share in [0, 1) as a float, or number of data as an int.
            seed: Non-negative integer that alone decides the split.

        Raises:
            ValueError: If no training data would be left.

        Example:
            >>> data = fv.Dataset(torch.zeros(10, 2)).split(3, seed=1)
            >>> len(data.train), len(data.held_out)
            (7, 3)
        """
        classes = None if self._classes is None else self._classes[self._rows]
        return self.with_split(*split_indices(len(self), classes, held_out, seed))

    def with_split(self, train: Indices, held_out: Indices) -> "Dataset":
        """The same data with the rows ``train`` as ``.train`` and the rows ``held_out`` as ``.held_out``.

        Raises:
            ValueError: If the two overlap or ``train`` is empty.
        """
        rows = checked_indices(train, len(self), "train"), checked_indices(held_out, len(self), "held_out")
        shared = np.intersect1d(*rows)
        if len(shared) or not len(rows[0]):
            raise ValueError(f"train must not be empty or overlap held_out; {len(shared)} rows are in both")
        view = self._view(self._rows)
        view._split, view._hash = (self.subset(rows[0]), self.subset(rows[1])), self._hash
        return view

    def with_mirror_images(self) -> "Dataset":
        """The images and, after them, their mirror images, twice as many data; of split data, the training part's.

        Raises:
            ValueError: If the data are no images.

        Example:
            >>> data = fv.Dataset(torch.tensor([[[[-1.0, 1.0]]]])).with_mirror_images()
            >>> data.x.tolist()
            [[[[-1.0, 1.0]]], [[[1.0, -1.0]]]]
        """
        if self.kind != "image":
            raise ValueError(f"only images have mirror images, and {self.name} has {self.kind} of shape {self.shape}")
        if self._split is not None:
            view = self._view(self._rows)
            view._split = self._split[0].with_mirror_images(), self._split[1]
            return view
        view = self._view(np.concatenate([self._rows, self._rows]))
        own = np.zeros(len(self), np.bool_) if self._mirrored is None else self._mirrored
        view._mirrored = np.concatenate([own, ~own])
        return view

    @checked
    def without_classes(self, classes: Sequence[int]) -> "Dataset":
        """The data, and both parts of their split, without those of some classes; the other classes keep their number.

        Args:
            classes: Numbers of the classes to leave out.

        Raises:
            ValueError: If the data have no labels, there is no such class, or no training data would be left.

        Example:
            >>> fv.Dataset(torch.arange(3.0), ["a", "b", "a"]).without_classes([0]).x
            tensor([[1.]])
        """
        if self._classes is None:
            raise ValueError(f"{self.name} has no labels, so no class can be left out")
        unknown = [number for number in classes if not 0 <= number < len(self.class_names)]
        if unknown:
            raise ValueError(f"classes must be in 0..{len(self.class_names) - 1}, got {unknown[0]}")
        view = self._without(classes)
        if self._split is not None:
            view._split = self._split[0]._without(classes), self._split[1]._without(classes)
        if not len(view.train):
            raise ValueError(f"no training data are left of {self.name} without classes {list(classes)}")
        return view

    @property
    def rows(self) -> NDArray[np.int64]:
        """Position of each datum among all that were read, shape (N,): what is kept beside them is looked up by it."""
        return self._rows.copy()

    @property
    def train(self) -> "Dataset":
        """The training data; of a data set that was not split, the data set itself."""
        return self if self._split is None else self._split[0]

    @property
    def held_out(self) -> "Dataset":
        """The data kept back from training; of a data set that was not split, none."""
        return self.subset([]) if self._split is None else self._split[1]

    @property
    def content_hash(self) -> str:
        """SHA-256, in hexadecimal, of values and labels in order and what they mean (levels, names, units).

        Of pictures that are streamed, the bytes of their files count, not the pixels; of Parquet files that are read
        over the network, their place, size and row groups.
        """
        if self._hash is None:
            self._hash = self._digest()
        return self._hash

    @property
    def streamed(self) -> bool:
        """Whether the values lie in files and are read when they are asked for."""
        return not isinstance(self._store, MemoryStore)

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Numbers of consecutive data that are cheap to read together; None where any order is as good.

        An order for :class:`fluvial.data.order.ChunkedOrder`. A subset that mixes the chunks has none.
        """
        if self._store.chunks is None or not len(self):
            return None
        chunk = np.searchsorted(np.cumsum(self._store.chunks), self._rows, side="right")
        starts = np.flatnonzero(np.diff(chunk, prepend=-1))
        if len(starts) > 2 * len(self._store.chunks):
            return None
        return tuple(np.diff(starts, append=len(self)).tolist())

    def _digest(self) -> str:
        units = [] if self.table is None else [self.table.columns, self.table.mean, self.table.std]
        about = [str(self._store.dtype), len(self), self.shape, self.levels, self.kind, self.class_names, units]
        digest = content_digest(about, self._store, self._rows, self._mirrored)
        if self._classes is not None:
            digest.update(self._classes[self._rows].tobytes())
        return digest.hexdigest()

    def _without(self, classes: Sequence[int]) -> "Dataset":
        kept = np.ones(len(self), np.bool_) if self._classes is None else ~np.isin(self._classes[self._rows], classes)
        return self.subset(np.flatnonzero(kept))

    def _stored(self, chosen: NDArray[np.int64]) -> NDArray[Any]:
        """Values as they are stored of some of the data, mirrored where they are mirror images."""
        return mirror(self._store.rows(self._rows[chosen]), None if self._mirrored is None else self._mirrored[chosen])

    def _view(self, rows: NDArray[np.int64]) -> "Dataset":
        view = copy.copy(self)
        view._rows, view._split, view._hash = rows, None, None
        return view
