"""The demo's pictures: samples, each beside its nearest training digit, losses, and the gap to the exact field."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from fluvial.audits import Finding

PAIRS = 10
GRID = 64


def draw_samples_figure(sets: "Mapping[str, Tensor]") -> Callable[[Any], None]:
    """Grids of the first 64 images of every set, three sets to a row."""
    from fluvial.audits.pictures import mosaic, show

    def fill(figure: Any) -> None:
        figure.get_layout_engine().set(wspace=0.06, hspace=0.05)
        for ax in figure.subplots(-(-len(sets) // 3), 3, squeeze=False).flat:
            ax.set_axis_off()
        for ax, (name, x) in zip(figure.axes, sets.items(), strict=False):
            show(ax, mosaic(x[:GRID], columns=8))
            ax.set_title(name)

    return fill


def draw_nearest(sets: "Mapping[str, Tensor]", train: "Tensor") -> Callable[[Any], None]:
    """For every set, a row of samples and under each its nearest training digit, with their distance."""
    import torch

    from fluvial.audits.pictures import mosaic, show
    from fluvial.metrics import nearest_neighbours

    def fill(figure: Any) -> None:
        for part, (name, x) in zip(figure.subfigures(len(sets), 1, squeeze=False).flat, sets.items(), strict=True):
            found = nearest_neighbours(x[:PAIRS], train)
            part.suptitle(f"{name}: samples, and under each the nearest training digit", fontsize="medium")
            grid = part.subplots(2, PAIRS)
            for ax, picture in zip(grid.flat, torch.cat([x[:PAIRS], train[found.index]]), strict=True):
                show(ax, mosaic(picture[None], columns=1))
            for ax, distance in zip(grid[0], found.distance.tolist(), strict=True):
                ax.set_xlabel(f"{distance:.1f}", labelpad=2)

    return fill


def draw_losses(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> Callable[[Any], None]:
    """Training loss of every model against the step, as logged and as a running mean; without weights, where it has."""

    def draw(axes: Any) -> None:
        for number, (name, rows) in enumerate(curves.items()):
            steps, losses = [row["step"] for row in rows], [row.get("error", row["loss"]) for row in rows]
            axes.plot(steps, losses, color=f"C{number}", alpha=0.3, linewidth=1)
            axes.plot(steps, _running_mean(losses), color=f"C{number}", label=name)
        axes.set(xlabel="step", ylabel="training loss (squared error per pixel)")
        axes.set_ylim(bottom=0)
        axes.legend()

    return draw


def _running_mean(values: Sequence[float]) -> list[float]:
    """Exponential mean over about a twentieth of the curve, without bias towards the start."""
    weight = 1 - 2 / (max(1.0, len(values) / 20) + 1)
    means: list[float] = []
    total = norm = 0.0
    for value in values:
        total, norm = weight * total + (1 - weight) * value, weight * norm + 1 - weight
        means.append(total / norm)
    return means


def draw_gaps(findings: "Mapping[str, Finding]") -> Callable[[Any], None]:
    """Squared gap to the exact field against t, for every model, on training and held-out digits."""

    def draw(axes: Any) -> None:
        styles = {"train": "-", "held_out": "--"}
        for number, (name, finding) in enumerate(findings.items()):
            for key, style in styles.items():
                label = name if key == "train" else None
                axes.plot(finding.data["t"], finding.data[key]["gap"], style, color=f"C{number}", label=label)
        for key, words in (("train", "on training digits"), ("held_out", "on held-out digits")):
            axes.plot([], [], styles[key], color="C4", label=words)
        axes.set_yscale("log", nonpositive="clip")
        axes.set(xlabel="t (0 noise, 1 data)", ylabel=r"squared gap $E\,\|u_\theta - u^*\|^2$", xlim=(0, 1))
        axes.legend(ncols=2)

    return draw
