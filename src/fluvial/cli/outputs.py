"""Where samples go: what a name asks for, and which files they may replace."""

from pathlib import Path
from typing import Literal

from fluvial.cli.errors import did_you_mean
from fluvial.cli.folders import check_output, written_aside
from fluvial.data.json_text import read_json

_PICTURES = (".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".svg", ".pdf")
_OTHER_FILES = (*_PICTURES, ".npy", ".csv", ".parquet", ".json", ".txt", ".pt", ".pth", ".h5", ".zip")


def output_format(out: Path) -> Literal["png", "npz", "folder"]:
    """What a name asks for: a picture, an array file or a folder of images, whose name may have dots.

    Raises:
        ValueError: If it is the name of another kind of file.

    Example:
        >>> output_format(Path("x.PNG")), output_format(Path("x.npz")), output_format(Path("digits.v2"))
        ('png', 'npz', 'folder')
    """
    suffix = out.suffix.lower()
    if suffix == ".png":
        return "png"
    if suffix == ".npz":
        return "npz"
    hint = did_you_mean(suffix, [".png", ".npz"], cutoff=0.7)
    if suffix in _OTHER_FILES or (hint and not out.is_dir()):
        raise ValueError(f"--out must end in .png, .npz or be the name of a folder, got {str(out)!r}{hint}")
    return "folder"


def sidecar_of(out: Path) -> Path:
    """Where the record of samples lies: ``x.json`` beside ``x.png`` and beside the folder ``x``.

    Example:
        >>> sidecar_of(Path("a/x.png")).name, sidecar_of(Path("a/digits.v2")).name
        ('x.json', 'digits.v2.json')
    """
    return out.with_name(out.name + ".json") if output_format(out) == "folder" else out.with_suffix(".json")


def check_outputs(out: Path, overwrite: bool) -> None:
    """Raises ValueError unless samples and their sidecar may be written to ``out`` and beside it."""
    check_output(out, overwrite, folder=output_format(out) == "folder")
    check_sidecar(sidecar_of(out), overwrite)


def check_sidecar(path: Path, overwrite: bool) -> None:
    """Raises ValueError unless a sidecar may be written to ``path``: it replaces another sidecar and nothing else."""
    if path.exists() and not _is_sidecar(path):
        raise ValueError(f"{str(path)!r} is needed to say how the samples were made, and is another file; rename --out")
    check_output(path, overwrite)


def write_sidecar(out: Path, text: str) -> None:
    """Writes the record of samples beside them, whole or not at all."""
    with written_aside(sidecar_of(out)) as aside:
        aside.write_text(text + "\n", encoding="utf-8")


def _is_sidecar(path: Path) -> bool:
    try:
        values = read_json(path)
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and {"fluvial", "file", "seed"} <= values.keys()
