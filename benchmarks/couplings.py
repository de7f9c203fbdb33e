"""Time of an exact optimal-transport pairing: fluvial against torchcfm's ``OTPlanSampler("exact").sample_plan``.

Both pair the same noise and images (d = 3072), alternating, in one process; figures are medians. Needs
``benchmarks/requirements.txt``. Usage: ``python benchmarks/couplings.py [--runs 15] [--json FILE]``.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torchcfm.optimal_transport import OTPlanSampler

import fluvial as fv

DIMENSION = 3072
BATCHES = (128, 256, 512, 1024)
TARGET = 0.4


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(batch: int, runs: int) -> dict[str, float]:
    """Median times in milliseconds of ``runs`` alternating pairings after one warm-up, and their ratio."""
    g = torch.Generator().manual_seed(batch)
    x0 = torch.randn(batch, DIMENSION, generator=g)
    x1 = torch.rand(batch, DIMENSION, generator=g) * 2 - 1
    ours, theirs = fv.OptimalTransport(), OTPlanSampler("exact")

    def pair() -> object:
        return x0[ours(x0, x1, generator=g)], x1

    times = [(seconds(pair), seconds(lambda: theirs.sample_plan(x0, x1, replace=False))) for _ in range(runs + 1)]
    fluvial, torchcfm = (1e3 * statistics.median(column) for column in zip(*times[1:], strict=True))
    return {"batch": batch, "fluvial_ms": fluvial, "torchcfm_ms": torchcfm, "ratio": fluvial / torchcfm}


def main() -> None:
    parser = argparse.ArgumentParser(description="Exact optimal-transport pairing, fluvial against torchcfm.")
    parser.add_argument("--runs", type=int, default=15, help="timed runs of each, at least 7")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    if arguments.runs < 7:
        parser.error(f"--runs must be at least 7, got {arguments.runs}")
    print(f"{torch.get_num_threads()} threads, d = {DIMENSION}, medians of {arguments.runs} runs, target {TARGET}")
    print(f"{'batch':>6} {'fluvial':>11} {'torchcfm':>11} {'ratio':>6}")
    rows = []
    for batch in BATCHES:
        row = measure(batch, arguments.runs)
        print(f"{batch:6} {row['fluvial_ms']:8.2f} ms {row['torchcfm_ms']:8.2f} ms {row['ratio']:6.2f}")
        rows.append(row)
    if arguments.json:
        figures = {"target": TARGET, "threads": torch.get_num_threads(), "rows": rows}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
