"""New points without training: the exact field copies its data, a smoothed one lands on means of a few of them.

A hundred points of two moons, and 1,437 handwritten digits. For each amount of smoothing the table says how new the
samples are and how good: the neighbour ratio is their mean distance to the nearest training point over that of
held-out data (0 copies, 1 fresh data); "missed" is the mean distance of held-out data to the nearest sample. Too little
smoothing copies, too much blurs: the Fréchet distance tells the second, the ratio the first.

Run: python examples/smoothed.py [out.png]     (half a minute on a laptop)
"""

import sys

import torch
from torch import Tensor

import fluvial as fv
from fluvial.fields import Field

POINTS, DIGITS, COLUMNS = 1000, 360, 14


def moons(count: int, seed: int) -> Tensor:
    """Points of two moons of about unit size."""
    return fv.load_dataset("moons", seed=seed).train.x[:count]


def measure(name: str, samples: Tensor, train: Tensor, held_out: Tensor) -> None:
    """Print one row of the table."""
    ratio = fv.metrics.nearest_neighbour_ratio(samples, train, held_out)
    distance = fv.metrics.frechet_distance(samples, held_out)
    missed = fv.metrics.nearest_neighbours(held_out, samples).distance.mean()
    print(f"{name:40s} {ratio:16.2f} {distance:16.4f} {missed:10.4f}")


def sample(field: Field, shape: tuple[int, ...], steps: int) -> Tensor:
    """Follow a field from noise."""
    return fv.solve(field, torch.randn(shape, generator=torch.Generator().manual_seed(0)), method="heun", steps=steps).x


def plot(planes: dict[str, Tensor], data: Tensor, strips: dict[str, Tensor], path: str) -> None:
    """Moons above, digits below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    grid = figure.add_gridspec(2, len(planes), height_ratios=(1, 1.3))
    for column, (title, points) in enumerate(planes.items()):
        axes = figure.add_subplot(grid[0, column])
        axes.scatter(*data.T, s=22, facecolors="none", edgecolors="black", linewidths=0.7, label="data")
        axes.scatter(*points.T, s=4, color="tab:red", alpha=0.6, linewidths=0, label="samples")
        axes.set(title=title, xlim=(-1.8, 1.8), ylim=(-1.05, 1.05), aspect="equal", xticks=[], yticks=[])
        if column == 0:
            axes.legend(loc="upper right", fontsize="small", markerscale=1.5)
    rows = [torch.nn.functional.pad(images[:COLUMNS, 0], (1, 1, 1, 1), value=-1) for images in strips.values()]
    axes = figure.add_subplot(grid[1, :])
    axes.imshow(torch.cat([torch.cat(list(row), 1) for row in rows]), cmap="gray_r", vmin=-1, vmax=1)
    axes.set_yticks([10 * row + 4.5 for row in range(len(rows))], list(strips), size=11)
    axes.tick_params(length=0)
    axes.set_xticks([])
    figure.savefig(path, dpi=120)


def main() -> None:
    """Sample, measure, draw."""
    print(f"{'':40s} {'neighbour ratio':>16s} {'Fréchet distance':>16s} {'missed':>10s}")
    points, held_out, planes = moons(100, seed=0), moons(2000, seed=1), {}
    exact = fv.ExactField(points)
    for s in (0.0, 0.05, 0.1, 0.15, 0.3):
        planes[s] = sample(fv.SmoothedField(exact, s), (POINTS, 2), 100)
        measure(f"moons, smoothing {s:g}", planes[s], points, held_out)

    digits = fv.load_dataset("digits")
    train, held_out, strips = digits.train.x, digits.held_out.x, {}
    exact, shape = fv.ExactField(train), (DIGITS, *digits.shape)
    for s in (0.0, 0.3, 0.4, 0.5, 1.0):
        strips[s] = sample(fv.SmoothedField(exact, s, perturbations=4), shape, 25)
        measure(f"digits, smoothing {s:g}", strips[s], train, held_out)
    whole, near = (fv.SmoothedField(exact, 0.4, perturbations=4, neighbours=k) for k in (None, 32))
    measure("digits, .4, 32 nearest", sample(near, shape, 25), train, held_out)
    measure("digits, .4, 32 nearest from t = .5", sample(fv.Hybrid(whole, near, 0.5), shape, 25), train, held_out)
    chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(1))[:DIGITS]
    measure("digits, training data", train[chosen], train, held_out)

    if len(sys.argv) > 1:
        kept = strips[0.4]
        nearest = train[fv.metrics.nearest_neighbours(kept, train).index]
        rows = {"exact field": strips[0.0], "smoothing 0.4": kept, "nearest in training": nearest}
        rows["smoothing 1"] = strips[1.0]
        shown = {"exact field": planes[0.0], "smoothing 0.1": planes[0.1], "smoothing 0.3": planes[0.3]}
        plot(shown, points, rows, sys.argv[1])
        print(f"\nwrote {sys.argv[1]}")


if __name__ == "__main__":
    main()
