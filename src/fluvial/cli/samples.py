"""Writes samples as a picture, an array file or a folder of images, whole or not at all."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluvial.cli.folders import written_aside
from fluvial.cli.outputs import output_format
from fluvial.data.memory import check_fits

if TYPE_CHECKING:
    from torch import Tensor

    from fluvial.data import Standardization
    from fluvial.training import Run

UINT8_RULE = "round(127.5 (x + 1)), clipped to 0..255"


@dataclass(frozen=True)
class Form:
    """What the samples of a run are.

    Args:
        name: Short name of the data they imitate.
        kind: ``"image"``, ``"points"`` or ``"table"``.
        shape: Shape of one sample.
        table: Map to original units, of a table.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    table: "Standardization | None" = None

    @property
    def has_picture(self) -> bool:
        """Whether samples can be shown in one picture: images, or points in the plane."""
        return self.kind == "image" or self.shape == (2,)


def form_of(run: "Run") -> Form:
    """The form of a run's samples, which the run alone tells: its data may be gone."""
    data = run.data_form
    return Form(data.name, data.kind, run.net_spec.shape, data.table)


def check_form(form: Form, out: Path) -> None:
    """Raises ValueError if such samples cannot be written as ``out`` asks for."""
    if output_format(out) == "png" and not form.has_picture:
        raise ValueError(f"--out {out}: samples of shape {form.shape} have no picture; write an .npz")
    if output_format(out) == "folder" and form.kind != "image":
        raise ValueError(f"--out {out}: only images can be written to a folder; write an .npz")


def check_memory(n: int, form: Form) -> None:
    """Raises ValueError if ``n`` samples do not fit into memory."""
    # The batches, and the one tensor that is made of them, float32.
    needed = 2 * 4 * n * math.prod(form.shape)
    check_fits(needed, f"--n {n}", "draw fewer at a time, each time with another --seed")


def form_record(form: Form, out: Path | None) -> dict[str, Any]:
    """What a sidecar says about the numbers in its file: how bytes were made of them, their units and columns."""
    image = form.kind == "image"
    return {
        "uint8": UINT8_RULE if image and out is not None and output_format(out) != "npz" else None,
        "units": "[-1, 1]" if image else "original",
        "columns": None if form.table is None else list(form.table.columns),
        "columns_left_out": None if form.table is None else list(form.table.dropped),
    }


def write_samples(
    form: Form, x: "Tensor", out: Path, arrays: Mapping[str, Any] | None = None, *, columns: int | None = None
) -> None:
    """Writes samples, replacing ``out`` in one step.

    Args:
        form: What they are.
        x: Samples as the model makes them, shape (n, *shape).
        out: ``NAME.png``, ``NAME.npz`` or a folder.
        arrays: NumPy arrays that an ``.npz`` holds beside ``x``, by key.
        columns: Images in a row of a picture; about square by default.
    """
    import numpy as np

    from fluvial.data import save_grid, save_images

    kind = output_format(out)
    with written_aside(out) as aside:
        if kind == "npz":
            with aside.open("wb") as file:  # savez adds a suffix to names that do not end in .npz
                np.savez_compressed(file, x=_original(form, x), **(arrays or {}))
        elif form.kind != "image":
            _scatter(form, _original(form, x), aside)
        elif kind == "png":
            save_grid(x, aside, columns)
        else:
            save_images(x, aside)


def _original(form: Form, x: "Tensor") -> Any:
    """Float32 array: a table's rows in their own units, anything else as the model has it."""
    values = x.numpy()
    return values if form.table is None else form.table.inverse(values).astype(values.dtype)


def _scatter(form: Form, points: Any, path: Path) -> None:
    from fluvial.audits.drawing import draw_png

    def draw(axes: Any) -> None:
        axes.scatter(points[:, 0], points[:, 1], s=5, alpha=0.6, linewidths=0)
        names = ("x", "y") if form.table is None else form.table.columns
        axes.set(xlabel=names[0], ylabel=names[1], title=f"{len(points)} samples, {form.name}")
        axes.set_aspect("equal" if form.table is None else "auto")

    path.write_bytes(draw_png(draw, size=(5.0, 5.0)))
