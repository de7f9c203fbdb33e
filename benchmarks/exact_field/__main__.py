"""Time, error and memory of the exact field beside its peers, its trajectories, and a support mapped from a disk.

Run: PYTHONPATH=benchmarks python -m exact_field [--only A,B,trajectory] [--quick] [--json out.json]
     PYTHONPATH=benchmarks python -m exact_field --only growth --plot docs/images/exact-field-cost.png

Rounds alternate between all methods in one process; figures are medians and ratios of medians. Ratios are the field's
time over that of the fastest peer within the tolerance (others are marked *).
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from exact_field import card, evaluation, growth, memmap, memory, report, trajectories
from exact_field.peers import PEERS
from exact_field.scratch import require_disk
from exact_field.shapes import SHAPES, Shape, smaller

PARTS = (*(shape.name for shape in SHAPES), "trajectory", "memmap", "growth")
FULL_ROUNDS, QUICK_ROUNDS = 7, 3
SLOW_ROUNDS = 3
"""Rounds of the mapped support, each of which reads gigabytes."""


def main() -> None:
    """Measure what was asked for, print it as it comes, and write it."""
    options = _options()
    torch.set_grad_enabled(False)
    print(f"torch {torch.__version__}, {card.describe(options.device)}, medians of {options.rounds} rounds")
    rates = card.rates(options.device, 3 if options.quick else 7)
    report.print_rates(rates)
    figures: dict[str, Any] = {
        "torch": torch.__version__,
        "device": card.describe(options.device),
        "threads": torch.get_num_threads(),
        "rounds": options.rounds,
        "quick": options.quick,
        "rates": rates,
        "shapes": [_shape(shape, options, rates) for shape in SHAPES if shape.name in options.only],
    }
    if "trajectory" in options.only:
        figures["trajectories"] = _trajectories(options)
    if "memmap" in options.only:
        found = memmap.measure(options.quick, min(options.rounds, SLOW_ROUNDS), options.scratch)
        report.print_mapped(found)
        figures["memmap"] = asdict(found)
    if "growth" in options.only:
        figures["growth"] = _growth(options)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def _shape(shape: Shape, options: argparse.Namespace, rates: dict[str, float]) -> dict[str, Any]:
    shape = smaller(shape) if options.quick else shape
    found = evaluation.measure(shape, options.rounds, options.device)
    report.print_evaluations(found)
    if options.device != "cpu":
        report.print_shares(found, rates)
    megabytes = _memory(found, options.device)
    report.print_memory(megabytes)
    best = [found.best_peer(k) for k in range(len(evaluation.TIMES))]
    ratios = {name: found.ratios(name) for name in found.milliseconds}
    fractions = {name: card.shares(found, name, rates) for name in found.milliseconds if name not in PEERS}
    return {
        **asdict(found),
        "times": evaluation.TIMES,
        "best_peer": best,
        "ratios": ratios,
        "fractions": fractions,
        "extra_megabytes": megabytes,
    }


def _memory(found: evaluation.Evaluations, device: str) -> dict[str, float | str]:
    """Extra memory of the field's ways that ran, in MB, or why it could not be measured."""
    megabytes: dict[str, float | str] = {}
    for name in found.milliseconds:
        if name.startswith(evaluation.FIELD):
            tol = 1e-6 if name.startswith(evaluation.SCREENED) else 0.0
            try:
                megabytes[name] = memory.extra_memory(found.shape, tol, name.endswith("float32"), device)
            except (RuntimeError, OSError) as error:
                megabytes[name] = f"not measured: {error}"
    return megabytes


def _trajectories(options: argparse.Namespace) -> list[dict[str, Any]]:
    found = []
    cases, steps = trajectories.cases(options.quick)
    for shape in cases:
        try:
            walk = trajectories.measure(shape, steps, options.rounds, options.device)
        except (RuntimeError, ValueError, TypeError) as error:
            print(f"\n{shape}, not measured: {error}")
            continue
        report.print_walk(walk)
        found.append({**asdict(walk), "speedup": walk.speedup})
    return found


def _growth(options: argparse.Namespace) -> list[dict[str, Any]]:
    curves = growth.measure(options.quick, options.rounds, options.device)
    for curve in curves:
        report.print_curve(curve)
    if options.plot:
        growth.draw(curves, options.device, options.plot)
    return [asdict(curve) for curve in curves]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m exact_field", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", help=f"parts to run, joined by commas, of {', '.join(PARTS)}; default: all but growth"
    )
    parser.add_argument("--rounds", type=int, help=f"alternating rounds ({FULL_ROUNDS}; {QUICK_ROUNDS} with --quick)")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try the benchmark itself")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--scratch", type=Path, help="folder for the mapped support, on a disk (a temporary one here)")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--plot", type=Path, help="run growth as well, and draw it there (PNG)")
    options = parser.parse_args()
    options.only = options.only.split(",") if options.only else list(PARTS[:-1])
    if unknown := set(options.only) - set(PARTS):
        parser.error(f"--only takes {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    if options.plot and "growth" not in options.only:
        options.only.append("growth")
    if options.rounds is None:
        options.rounds = QUICK_ROUNDS if options.quick else FULL_ROUNDS
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    try:
        require_disk(options.scratch or Path.cwd())
    except ValueError as error:
        parser.error(str(error))
    return options


if __name__ == "__main__":
    main()
