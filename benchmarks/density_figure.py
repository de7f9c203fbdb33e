"""Draws the figure of docs/density.md: zip codes, and their density by a tuned kernel, a tuned mixture and a flow.

Run: python benchmarks/density_figure.py --out docs/images/zipcodes.png     (after `make data`; about five minutes)

The settings are those that `density_tables.py` chose.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.preprocessing import StandardScaler

import fluvial as fv
from density_tables import FLOWS, table

WINDOW = ((-125, -66), (24, 50))  # the contiguous states
SPAN = 7  # nats of log-density shown below the highest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("zipcodes.png"))
    parser.add_argument("--side", type=int, default=240, help="pixels of the map from west to east")
    options = parser.parse_args()
    x = table("zipcodes")
    scaler = StandardScaler().fit(x)
    rows = scaler.transform(x)
    models = {
        "KernelDensity": KernelDensity(bandwidth=0.06, rtol=1e-4).fit(rows),
        "GaussianMixture, 75": GaussianMixture(75, reg_covar=1e-6, random_state=0).fit(rows),
        "FlowDensity": fv.FlowDensity(**FLOWS["zipcodes"][0], random_state=0).fit(rows),
    }
    (west, east), (south, north) = WINDOW
    lon, lat = np.linspace(west, east, options.side), np.linspace(south, north, options.side * 6 // 10)
    grid = np.stack(np.meshgrid(lat, lon, indexing="ij"), -1).reshape(-1, 2)
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.2), layout="constrained")
    axes[0, 0].scatter(x[:, 1], x[:, 0], s=0.15, c="black", linewidths=0)
    axes[0, 0].set_title(f"{len(x):,} zip codes")
    for axis, (name, model) in zip(axes.flat[1:], models.items(), strict=True):
        # Degrees, not standardised columns: the Jacobian is a constant that the picture does not show.
        found = model.score_samples(scaler.transform(grid)).reshape(len(lat), len(lon))
        axis.imshow(
            found,
            origin="lower",
            extent=(west, east, south, north),
            aspect="auto",
            vmin=found.max() - SPAN,
            cmap="magma",
        )
        axis.set_title(name)
    for axis in axes.flat:
        axis.set(xlim=WINDOW[0], ylim=WINDOW[1], xticks=[], yticks=[])
    figure.savefig(options.out, dpi=110)


if __name__ == "__main__":
    main()
