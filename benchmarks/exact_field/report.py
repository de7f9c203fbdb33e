"""Tables of what was measured."""

from exact_field.card import shares
from exact_field.evaluation import FIELD, SCREENED, TOLERANCE, Evaluations
from exact_field.growth import Curve
from exact_field.memmap import TIMES as MAPPED_TIMES
from exact_field.memmap import Mapped
from exact_field.peers import PEERS
from exact_field.shapes import TIMES
from exact_field.trajectories import Walk

LABEL = 42
CELL = 18


def print_evaluations(found: Evaluations) -> None:
    """Times and errors of all methods of a shape, ratios, and what was left out."""
    print(f"\n{found.shape}")
    _row("median ms (relative error)", [f"t = {t}" for t in TIMES])
    for name, times in found.milliseconds.items():
        marks = ["*" if name in PEERS and error > TOLERANCE else " " for error in found.errors[name]]
        cells = zip(times, found.errors[name], marks, strict=True)
        _row(f"  {name}", [f"{_short(ms)} ({error:.0e}){mark}" for ms, error, mark in cells])
    best = [found.best_peer(k) for k in range(len(TIMES))]
    _row("best peer that counts", ["none" if b is None else b[0] for b in best])
    for name in found.milliseconds:
        if name not in PEERS:
            _row(f"  ratio of {name}", ["-" if r is None else f"{r:.2f}" for r in found.ratios(name)])
    if SCREENED in found.milliseconds and "two products" in found.milliseconds:
        _row("  two products / tol=1e-6", [f"{value:.1f}x" for value in found.speedups(SCREENED)])
    for name, note in found.notes.items():
        print(f"  without {name}: {note}")


def print_memory(megabytes: dict[str, float | str]) -> None:
    """Extra memory of one evaluation, by method."""
    for name, value in megabytes.items():
        text = value if isinstance(value, str) else f"{value:.0f} MB"
        print(f"  peak extra memory, {name}: {text}")


def print_shares(found: Evaluations, rates: dict[str, float]) -> None:
    """Fraction of the device's own rates that the field reached."""
    for method in (FIELD, SCREENED):
        if method in found.milliseconds:
            for name, values in shares(found, method, rates).items():
                _row(f"  {method}: % of {name}", [f"{100 * value:.3g}" for value in values])


def print_rates(rates: dict[str, float]) -> None:
    """The device's own rates."""
    products = ", ".join(f"{name} {rates[name] / 1e12:.3g} Tflop/s" for name in ("float32", "bfloat16"))
    print(f"matrix product: {products}; copy: {rates['copy'] / 1e9:.4g} GB/s")


def print_walk(walk: Walk) -> None:
    """One trajectory, both ways."""
    print(f"\n{walk.shape}, {walk.steps} Euler steps")
    times = walk.seconds
    print(f"  structured {times['structured']:.3f} s, generic {times['generic']:.3f} s: {walk.speedup['generic']:.1f}x")
    print(f"  two dense products {times['two products']:.3f} s: {walk.speedup['two products']:.1f}x")
    print(f"  largest relative difference of the end states: {walk.difference:.1e}")
    if walk.double is not None:
        print(f"  in float64: {walk.double:.1e}; generic float32 from generic float64: {walk.rounding:.1e}")


def print_mapped(found: Mapped) -> None:
    """The mapped support beside the same rows in memory."""
    print(f"\n{found.shape}, on {found.disk}, beside {found.in_memory_points:,} of its points in memory")
    for tol, pairs in found.nanoseconds.items():
        for t, (mapped, memory) in zip(MAPPED_TIMES, pairs, strict=True):
            rate = f"{mapped:.0f} ns a point mapped, {memory:.0f} in memory"
            print(f"  tol = {tol:g}, t = {t}: {rate}: {100 * memory / mapped:.0f} % of the in-memory rate")
        if tol in found.peak_megabytes:
            print(f"  tol = {tol:g}: peak resident memory of the process {found.peak_megabytes[tol]:.0f} MB")
    for tol, note in found.notes.items():
        print(f"  tol = {tol:g}, not measured: {note}")


def print_curve(curve: Curve) -> None:
    """One axis of the growth of an evaluation's cost."""
    print(f"\nms against {curve.symbol} ({curve.fixed})")
    width = 10
    print(f"{'':{LABEL}}" + "".join(f"{value:>{width},g}" for value in curve.values))
    for name, times in curve.milliseconds.items():
        print(f"  {name:{LABEL - 2}}" + "".join(f"{_short(ms):>{width}}" for ms in times))


def _row(label: str, cells: list[str]) -> None:
    print(f"{label:{LABEL}}" + "".join(f"{cell:>{CELL}}" for cell in cells))


def _short(ms: float) -> str:
    return f"{ms:.3f}" if ms < 1 else f"{ms:.2f}" if ms < 10 else f"{ms:.1f}" if ms < 100 else f"{ms:.0f}"
