"""Time of a smoothed field over its nearest data, against the same field over all data.

Both are evaluated at the same points, alternating, in one process; figures are medians. Usage:
``python benchmarks/smoothed.py [--runs 7] [--neighbours 64]``.
"""

import argparse
import statistics
import time

import torch

import fluvial as fv

POINTS, DIMENSION, DATA = 64, 784, 20_000
TIMES = (0.3, 0.6, 0.9)


def seconds(field: fv.SmoothedField, x: torch.Tensor, t: float) -> float:
    start = time.perf_counter()
    field(x, t)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description="Smoothed field, nearest data against all data.")
    parser.add_argument("--runs", type=int, default=7, help="timed runs of each, at least 3")
    parser.add_argument("--neighbours", type=int, default=64, help="how many data a point sees")
    arguments = parser.parse_args()
    if arguments.runs < 3:
        parser.error(f"--runs must be at least 3, got {arguments.runs}")
    g = torch.Generator().manual_seed(0)
    data = torch.randn(DATA, DIMENSION, generator=g)
    exact = fv.ExactField(data)
    whole, near = (fv.SmoothedField(exact, 0.4, neighbours=k) for k in (None, arguments.neighbours))
    print(f"{torch.get_num_threads()} threads, {POINTS} points, 16 perturbations, N = {DATA}, d = {DIMENSION}")
    print(f"{'t':>4} {'all':>10} {arguments.neighbours:>7} nearest {'ratio':>6}")
    for t in TIMES:
        x = fv.CondOT().sample(torch.randn(POINTS, DIMENSION, generator=g), data[:POINTS], t).xt
        pairs = [(seconds(whole, x, t), seconds(near, x, t)) for _ in range(arguments.runs + 1)]
        a, b = (1e3 * statistics.median(column) for column in zip(*pairs[1:], strict=True))
        print(f"{t:4.1f} {a:7.0f} ms {b:12.0f} ms {b / a:6.2f}")


if __name__ == "__main__":
    main()
