"""Streamed data beside the same data in memory: rows a second, the time until the first batch, and memory.

Random 32x32 RGB images as an array (.npy), as a folder of PNG files, and as Parquet files of these; each is read in
batches, in training's order, by a process of its own, streamed and in memory by turns; figures are medians over the
rounds. The files have just been written, so that the system holds them in its memory: the figures say what streaming
costs beyond the disk, not how fast a disk is.

Usage (Linux): ``python benchmarks/streaming.py [--pictures 20000] [--arrays 100000] [--kinds npy folder parquet]
[--rounds 3] [--scratch DIR] [--json FILE]``
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

BATCH, BATCHES = 256, 40
GROUP = 100
PER_FILE = 5000
WAYS = ("memory", "streamed")
KINDS = ("npy", "folder", "parquet")

_READ = rf"""
import json, re, sys, time
from pathlib import Path
import fluvial as fv
from fluvial.data.order import ChunkedOrder
from fluvial.training.draws import DataOrder
fv.Dataset(fv.load_dataset("moons").x[:10]).split(2)  # what is imported once is not measured
def mib(what): return int(re.search(what + r":\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024
spec, way, order = sys.argv[1:]
Path("/proc/self/clear_refs").write_text("5")  # the peak of the imports does not count
before, start = mib("VmRSS"), time.perf_counter()
data = fv.load_dataset(spec, stream=way == "streamed", held_out=0).train
opened = time.perf_counter() - start
data.content_hash
hashed = time.perf_counter() - start - opened
chunks = data.chunks if order == "chunks" else None
order = DataOrder(len(data), {BATCH}, 0) if chunks is None else ChunkedOrder(chunks, {BATCH}, 0)
data.take(order.batch(0))
start = time.perf_counter()
for step in range(1, {BATCHES} + 1):
    data.take(order.batch(step))
rate = {BATCH * BATCHES} / (time.perf_counter() - start)
print(json.dumps(dict(open_s=opened, hash_s=hashed, rows_per_s=rate, memory_mib=mib('VmHWM') - before)))
"""


def write_all(scratch: Path, pictures: int, arrays: int) -> dict[str, str]:
    """Writes the data and returns the specs that name them; no array or no pictures where there are to be 0."""
    random = np.random.default_rng(0)
    specs = {}
    if arrays:
        shape = (arrays, 32, 32, 3)
        values = np.lib.format.open_memmap(scratch / "x.npy", mode="w+", dtype=np.uint8, shape=shape)
        for start in range(0, arrays, 10_000):
            part = values[start : start + 10_000]
            part[:] = random.integers(0, 256, part.shape, dtype=np.uint8)
        specs["npy"] = str(scratch / "x.npy")
    if pictures:
        write_pictures(scratch, pictures, random)
        specs |= {"folder": f"folder:{scratch}/folder", "parquet": f"parquet:{scratch}/parquet"}
    return specs


def write_pictures(scratch: Path, pictures: int, random: np.random.Generator) -> None:
    """Writes pictures, each once as a file of a folder and once into Parquet files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (scratch / "parquet").mkdir()
    for first in range(0, pictures, PER_FILE):
        cells = []
        for number in range(first, min(first + PER_FILE, pictures)):
            file = BytesIO()
            # Squares of 8 pixels compress as pictures do; noise would not.
            pixels = random.integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            Image.fromarray(pixels).save(file, "PNG")
            place = scratch / "folder" / f"class{number % 10}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number:06}.png").write_bytes(file.getvalue())
            cells.append({"bytes": file.getvalue(), "path": None})
        table = pa.table({"image": cells, "label": [n % 10 for n in range(first, first + len(cells))]})
        pq.write_table(table, scratch / "parquet" / f"{first:06}.parquet", row_group_size=GROUP)


def measure(spec: str, rounds: int, order: str) -> dict[str, dict[str, float]]:
    """Medians of both ways, which take turns."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            command = [sys.executable, "-c", _READ, spec, way, order]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[way].append(json.loads(done.stdout))
    return {way: {key: statistics.median(one[key] for one in runs) for key in runs[0]} for way, runs in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Streamed data beside the same data in memory.")
    parser.add_argument("--pictures", type=int, default=20_000, help="PNG files, and rows of Parquet")
    parser.add_argument("--arrays", type=int, default=100_000, help="rows of the .npy file")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="which of the data are measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", type=Path, help="folder for the files, which are removed afterwards")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"pictures": arguments.pictures, "arrays": arguments.arrays, "batch": BATCH}
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        pictures = 0 if arguments.kinds == ["npy"] else arguments.pictures
        specs = write_all(Path(scratch), pictures, arguments.arrays if "npy" in arguments.kinds else 0)
        specs = {kind: spec for kind, spec in specs.items() if kind in arguments.kinds}
        print(f"{'data':22} {'way':>8} {'open':>8} {'hash':>8} {'rows/s':>9} {'memory':>9}")
        for kind, spec in specs.items():
            for order in ("chunks", "any") if kind == "parquet" else ("any",):
                name = kind if kind != "parquet" else f"parquet, {order} order"
                figures[name] = measure(spec, arguments.rounds, order)
                for way, row in figures[name].items():
                    print(
                        f"{name:22} {way:>8} {row['open_s']:6.2f} s {row['hash_s']:6.2f} s {row['rows_per_s']:9,.0f} "
                        f"{row['memory_mib']:5.0f} MiB",
                        flush=True,
                    )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
