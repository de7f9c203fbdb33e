"""The figure of docs/objectives.md: conditional paths cross, the marginal field's trajectories do not.

Run: python benchmarks/trajectories_figure.py [--out docs/images/conditional-marginal.png]
"""

import argparse
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

import fluvial as fv
from fluvial.audits.drawing import draw_figure
from fluvial.fields import GaussianMixtureField
from fluvial.randomness import generator

LINES, RANGE = 24, 2.8
MIXTURE = GaussianMixtureField(torch.tensor([[-1.6], [1.4]]).double(), torch.tensor([0.09, 0.04]).double())


def noises() -> Tensor:
    """Quantiles of the standard normal distribution, so that lines lie as densely as the noise; ``(LINES, 1)``."""
    levels = (torch.arange(LINES, dtype=torch.float64) + 0.5) / LINES
    return torch.special.ndtri(levels)[:, None]


def shade(axes: Any) -> None:
    """The density of the points at each time, each column over its largest value."""
    t, x = torch.linspace(0, 1, 120).double(), torch.linspace(-RANGE, RANGE, 160).double()
    density = torch.stack([MIXTURE.log_prob(x[:, None], time).exp() for time in t], 1)
    density = (density / density.max(0).values).sqrt()
    axes.contourf(t, x, density, levels=12, cmap="Greys", vmax=2.2)


def coloured(ends: Tensor) -> list[str]:
    return ["C0" if end < 0 else "C1" for end in ends.flatten().tolist()]


def fill(figure: Any) -> None:
    """Draws the two panels."""
    left, right = figure.subplots(1, 2, sharey=True)
    x0, x1 = noises(), MIXTURE.sample(LINES, generator(3))
    for start, end, colour in zip(x0, x1, coloured(x1), strict=True):
        left.plot([0, 1], [float(start), float(end)], color=colour, lw=1.3)
    t = torch.linspace(0, 1, 101).double()
    states = fv.solve(MIXTURE, x0, steps=100, method="rk4", save_at=t.tolist()).path[..., 0]
    for line, colour in zip(states.T, coloured(states[-1]), strict=True):
        right.plot(t, line, color=colour, lw=1.3)
    for axes, title in ((left, "Conditional paths cross"), (right, "Marginal trajectories do not")):
        shade(axes)
        axes.set(title=title, xlabel="time t", xlim=(0, 1), ylim=(-RANGE, RANGE))
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    left.set_ylabel("x")


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws the figure of docs/objectives.md.")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("conditional-marginal.png"),
        help="picture (default conditional-marginal.png)",
    )
    arguments = parser.parse_args()
    # Two hues and greys: a palette makes the file a quarter as large.
    Image.open(BytesIO(draw_figure(fill, size=(6.6, 3.6)))).convert("RGB").quantize(96).save(
        arguments.out, optimize=True
    )


if __name__ == "__main__":
    main()
