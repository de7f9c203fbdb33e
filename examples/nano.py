"""Conditional Flow Matching on two moons, whole and without fluvial: the method in a page.

A velocity field v(x, t) carries noise (t = 0) to data (t = 1) along dx/dt = v(x, t). It is learned by regression:
draw a noise x0, a datum x1 and a time t, put a point on the straight line between them, xt = (1 - t) x0 + t x1, and
ask the net for the line's velocity x1 - x0. Many lines cross at a point, so the net learns their mean there, and
that mean field has the right marginals at every time. Sampling integrates the field from fresh noise with Heun's
method.

The last lines do what fluvial is about: they compare the net with the exact field of the training data, which is
known in closed form: u(x, t) = (sum_i w_i x_i - x) / (1 - t) with w = softmax(-|x - t x_i|^2 / (2 (1 - t)^2)). It
only copies its data.

Run: python examples/nano.py [out.png]     (half a minute on a laptop)
"""

import sys
from itertools import pairwise

import torch
from sklearn.datasets import make_moons
from torch import Tensor, nn

STEPS, BATCH, WIDTH = 2000, 256, 256


def moons(count: int, seed: int) -> Tensor:
    """Points of two moons, centred and scaled to about unit size."""
    points, _ = make_moons(count, noise=0.05, random_state=seed)
    return torch.tensor((points - [0.5, 0.25]) * 1.5, dtype=torch.float32)


class Velocity(nn.Module):
    """Perceptron on the point and a few sines and cosines of the time."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 + 8, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.GELU(),
            nn.Linear(WIDTH, 2),
        )  # fmt: skip

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angle = t[:, None] * torch.tensor([1.0, 2.0, 4.0, 8.0]) * torch.pi
        return self.layers(torch.cat([x, angle.sin(), angle.cos()], 1))


def train(data: Tensor, generator: torch.Generator) -> Velocity:
    """Regress the net on the velocity of random straight lines from noise to data."""
    net = Velocity()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)
    for step in range(STEPS):
        x1 = data[torch.randint(len(data), (BATCH,), generator=generator)]
        x0 = torch.randn(x1.shape, generator=generator)
        t = torch.rand(BATCH, generator=generator)
        xt = (1 - t[:, None]) * x0 + t[:, None] * x1
        loss = (net(xt, t) - (x1 - x0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 500 == 0 or step == STEPS - 1:
            print(f"step {step:5d}  loss {loss.item():.3f}")
    return net


@torch.no_grad()
def sample(velocity: nn.Module, x: Tensor, steps: int = 50) -> Tensor:
    """Integrate dx/dt = v(x, t) from t = 0 to 1 with Heun's method."""
    times = torch.linspace(0, 1, steps + 1)
    for start, end in pairwise(times):
        first = velocity(x, start.expand(len(x)))
        second = velocity(x + (end - start) * first, end.expand(len(x)))
        x = x + (end - start) * (first + second) / 2
    return x


def exact(data: Tensor, x: Tensor, t: float) -> Tensor:
    """Exact velocity of the data set at time t < 1."""
    weights = torch.softmax(-(torch.cdist(x, t * data) ** 2) / (2 * (1 - t) ** 2), 1)
    return (weights @ data - x) / (1 - t)


def plot(samples: Tensor, data: Tensor, path: str) -> None:
    """Draw samples beside data."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    for axes, points, title in zip(figure.subplots(1, 2), (data, samples), ("data", "samples"), strict=True):
        axes.scatter(*points.T, s=4)
        axes.set(title=title, xlim=(-3.2, 3.2), ylim=(-2, 2), aspect="equal")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Train, sample, and measure."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    data, held_out = moons(2000, seed=0), moons(2000, seed=1)
    net = train(data, generator)
    samples = sample(net, torch.randn(2000, 2, generator=generator))

    print("\nmean distance to the nearest training point")
    for name, points in (("samples", samples), ("held-out data", held_out)):
        print(f"  {name:14s} {torch.cdist(points, data).min(1).values.mean():.4f}")

    print("\ntime   mean |v - u|^2   mean |u|^2    (v the net, u the exact field of the training data)")
    x0 = torch.randn(len(held_out), 2, generator=generator)
    for t in (0.0, 0.2, 0.4, 0.6, 0.8, 0.95):
        xt = (1 - t) * x0 + t * held_out
        with torch.no_grad():
            learned, truth = net(xt, torch.full((len(xt),), t)), exact(data, xt, t)
        gap, size = (learned - truth).square().sum(1).mean(), truth.square().sum(1).mean()
        print(f"{t:4.2f}   {gap:14.4f}   {size:10.4f}")

    if len(sys.argv) > 1:
        plot(samples, data, sys.argv[1])
        print(f"\nwrote {sys.argv[1]}")


if __name__ == "__main__":
    main()
