"""The folder that random command lines are tried in: runs, data, hostile paths, and command lines that are valid."""

import os
import shutil
from pathlib import Path

import numpy as np

from fluvial.cli import main

TINY = ("--steps", "2", "--width", "8", "--depth", "1", "--batch-size", "8")
_TINY_SUPPORT = ("--steps", "2", "--width", "8", "--blocks", "1", "--heads", "2", "--points", "8", "--bank", "8")

_TRAININGS = {
    "moons": ("--data", "moons"),
    "labels": ("--data", "digits", "--labels"),
    "meanflow": ("--data", "moons", "--objective", "meanflow"),
    "likelihood": ("--data", "table.csv", "--objective", "likelihood"),
    "files": ("--data", "x.npy"),
}

VALID: dict[str, tuple[tuple[str, ...], ...]] = {
    "train": (
        ("--data", "moons", "--out", "out/r", *TINY),
        ("--data", "digits", "--labels", "--out", "out/r", *TINY, "--drop-cond", "0.2"),
        ("--data", "x.npz", "--objective", "efm", "--bank-size", "8", "--out", "out/r", *TINY),
        ("--data", "digits", "--objective", "meanflow", "--mean-share", "0.4", "--out", "out/r", *TINY),
        ("--data", "table.csv", "--objective", "likelihood", "--likelihood-steps", "2", "--out", "out/r", *TINY),
        ("--data", "folder:pictures", "--size", "8", "--net", "unet", "--out", "out/r", *TINY),
        ("--resume", "runs/moons"),
    ),
    "sample": (
        ("runs/moons", "--n", "4", "--steps", "2", "--out", "out/x.npz"),
        ("runs/labels", "--n", "2", "--label", "3", "--guidance", "2", "--steps", "2", "--out", "out/x.png"),
        ("runs/moons", "--n", "4", "--solver", "dopri5", "--rtol", "1e-2", "--atol", "1e-2", "--out", "out/x.png"),
        ("runs/meanflow", "--solver", "meanflow", "--n", "3", "--out", "out/x.npz"),
        ("runs/moons", "--n", "3", "--hybrid-tau", "0.4", "--steps", "2"),
        ("runs/likelihood", "--n", "3", "--steps", "2", "--with-log-prob", "--out", "out/x.npz", "--json"),
    ),
    "likelihood": (
        ("runs/moons", "--n", "4", "--solver", "heun", "--steps", "2", "--out", "out/x.npz"),
        ("runs/labels", "--n", "2", "--probes", "2", "--solver", "euler", "--steps", "2", "--label", "3"),
        ("runs/files", "--data", "x.npy", "--n", "3", "--rtol", "1e-1", "--atol", "1e-1", "--json"),
    ),
    "audit": (
        ("runs/moons", "--out", "out/a", "--only", "collapse", "--quick"),
        ("--samples", "x.npy", "--train", "x.npz", "--held-out", "5", "--out", "out/a", "--only", "quality"),
        ("runs/labels", "--n", "40", "--steps", "2", "--solver", "euler", "--out", "out/a"),
    ),
    "audit scaling": (
        ("--sizes", "4,all", "--widths", "8", "--data", "x.npy", "--steps", "2", "--samples", "20", "--out", "out/s"),
    ),
    "features": (
        ("digits", "--extractor", "pixels", "--out", "out/f.npz"),
        ("pictures", "--extractor", "pixels", "--size", "8", "--out", "out/f.npz", "--no-cache"),
    ),
    "retrieve": (
        ("--data", "x.npz", "--embeddings", "e.npz", "--n", "4", "--steps", "2", "--out", "out/x.npz"),
        ("--data", "x.npz", "--embeddings", "e.npz", "--query", "e.npz", "--n", "2", "--steps", "2", "--json"),
    ),
    "support train": (
        ("--tasks", "shells", "--dim", "2", "--m", "4", "--batch-size", "2", "--out", "out/s", *_TINY_SUPPORT),
        ("--tasks", "gmm+rings", "--m", "4", "--least-m", "2", "--batch-size", "2", "--out", "out/s", *_TINY_SUPPORT),
        ("--resume", "runs/support"),
    ),
    "support sample": (
        ("runs/support", "--support", "support.npz", "--n", "4", "--steps", "2", "--out", "out/s.png"),
        ("runs/support", "--support", "support.npz", "--n", "4", "--steps", "2", "--exact"),
    ),
    "support evaluate": (
        ("runs/support", "--tasks", "2", "--points", "4", "--steps", "2", "--m", "4", "--out", "out/e.json"),
    ),
    "support diagnose": (("gmm", "--m", "4", "--dim", "2", "--tasks", "2", "--out", "out/d"),),
    "support experiments": (("--budget", "0.001", "--only", "shells", "--tasks", "2", "--out", "out/e"),),
    "info": (("runs/moons",), ("runs/support", "--json")),
    "demo": (("--out", "out/demo", "--steps", "1", "--samples", "16"),),
}
"""Command lines that succeed, by command; paths are below the world's folder."""

PATHS = (
    "absent",
    "absent/deeper/x.npz",
    "plain.txt",
    "empty",
    "loop/a",
    "/dev/null",
    "/proc/fluvial",
    "/proc/fluvial/x.npz",
    "long/" + "x" * 300,
    "deep/" + "d/" * 3000 + "x.npz",
    "nul\0.npz",
    "new\nline.npz",
    "\udcff.npz",
    "~nobody-of-that-name/x.npz",
    ".",
    "",
    "..",
    "runs/foreign",
    "runs/broken",
    "runs/moons",
    "runs/support",
    "runs/moons/config.toml",
    "x.npy",
    "x.npz",
    "e.npz",
    "table.csv",
    "support.npz",
    "empty.npy",
    "empty.npz",
    "empty.csv",
    "objects.npy",
    "plain.npz",
    "plain.csv",
    "pictures",
    "folder:pictures",
    "folder:empty",
    "folder:absent",
    "folder:",
    "folder:mixed",
    "cifar10:empty",
    "celeba:pictures",
    "fashion-mnist:empty",
    "table.parquet",
    "locked/x.npz",
    "link.npz",
    "out",
    "out/x.jpg",
    "plain.txt/x.npz",
    "plain.txt/run",
)


def make_world(folder: Path) -> None:
    """Makes the runs, files and hostile paths below an empty folder, which becomes the working directory."""
    from PIL import Image

    os.chdir(folder)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, 2)).astype(np.float32)
    np.save("x.npy", x)
    np.savez("x.npz", x=x, y=np.arange(24) % 3)
    np.savez("e.npz", support=rng.normal(size=(24, 5)), query=rng.normal(size=5))
    np.savez("support.npz", support=rng.normal(size=(4, 2)))
    np.save("empty.npy", np.zeros((0, 2)))
    np.savez("empty.npz")
    np.save("objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    Path("table.csv").write_text("a,b\n" + "".join(f"{a},{b}\n" for a, b in x))
    for name in ("plain.txt", "plain.npz", "plain.csv", "table.parquet"):
        Path(name).write_text("nothing in particular\n")
    Path("empty.csv").write_text("")
    for name in ("empty", "loop", "locked", "pictures", "mixed", "out", "home", "runs/foreign", "runs/broken"):
        Path(name).mkdir(parents=True)
    Path("loop/a").symlink_to("b")
    Path("loop/b").symlink_to("a")
    Path("link.npz").symlink_to("absent.npz")
    for number in range(12):
        picture = Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8))
        picture.save(f"pictures/{number}.png")
        picture.resize((8 + number, 8)).save(f"mixed/{number}.png")
    Path("runs/foreign/config.toml").write_text("[tool]\nname = 'other'\n")
    Path("runs/broken/config.toml").write_text("fluvial = [\n")
    for name, options in _TRAININGS.items():
        _must(["train", *options, *TINY, "--out", f"runs/{name}"])
    support = ("--tasks", "gmm+rings", "--m", "4", "--batch-size", "2", *_TINY_SUPPORT)
    _must(["support", "train", *support, "--out", "runs/support"])
    Path("locked").chmod(0o500)


def _must(arguments: list[str]) -> None:
    if main(arguments) != 0:
        raise SystemExit(f"the world could not be made: {arguments}")


def snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Kind, size and time of change of everything below a folder, what a training locks and a reader caches aside."""
    found: dict[str, tuple[int, int, int]] = {}
    stack = [str(folder)]
    while stack:
        with os.scandir(stack.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                is_folder = entry.is_dir(follow_symlinks=False)
                if is_folder:
                    stack.append(entry.path)
                # A probe that a file can be made changes a folder's time, not what is in it.
                found[entry.path] = (
                    status.st_mode,
                    0 if is_folder else status.st_size,
                    0 if is_folder else status.st_mtime_ns,
                )
    return found


def restore(pristine: Path, folder: Path) -> None:
    """Puts the world back as it was made."""
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()
    shutil.copytree(pristine, folder, symlinks=True, dirs_exist_ok=True)
