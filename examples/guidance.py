"""Guidance on handwritten digits: how far to push, in accuracy and in diversity.

One net learns digits with their labels, and without for a tenth of them. Sampled with guidance w, its velocity is
v_null + w (v_cond - v_null): w = 0 ignores the label, 1 follows what was learned, more overdoes it. For each w the
table says which share of the samples an independent classifier takes for the digit that was asked for, how diverse
the samples of a digit are (mean distance between two of them over that between two real held-out ones), and how good
all are.

Run: python examples/guidance.py [--steps 2000] [--seed 0] [--out guidance.png]     (about a minute on 2 cores)
"""

import argparse
import tempfile
from pathlib import Path

import torch
from torch import Tensor

import fluvial as fv
from fluvial.audits.drawing import draw_png
from fluvial.metrics import ClassifierFeatures
from fluvial.solvers.sampling import Solver, draw_samples
from fluvial.training import TrainConfig, Trainer

SCALES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
PER_CLASS = 100


def spread(features: Tensor, labels: Tensor) -> float:
    """Mean distance between two data of the same class, over the classes."""
    found = []
    for label in labels.unique():
        own = features[labels == label]
        found.append(torch.cdist(own, own).sum() / (len(own) * (len(own) - 1)))
    return float(torch.stack(found).mean())


def main() -> None:
    """Train one net, sample it at every scale, print the table and draw the two curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, help="updates (default 2000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of training and samples (default 0)")
    parser.add_argument("--out", type=Path, default=Path("guidance.png"), help="picture (default guidance.png)")
    options = parser.parse_args()

    data = fv.load_dataset("digits")
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(labels=True, steps=options.steps, seed=options.seed)
        net = Trainer(config, Path(folder) / "run").fit().net
    classifier = ClassifierFeatures.fit(data.train.x, data.train.labels)
    real = classifier(data.held_out.x)
    labels = torch.arange(10).repeat_interleave(PER_CLASS)
    print(f"classifier on held-out digits: {classifier.accuracy(data.held_out.x, data.held_out.labels):.1%}\n")
    print("|   w | accuracy | diversity | Fréchet distance |\n|----:|---------:|----------:|-----------------:|")
    rows, shown = [], {}
    for scale in SCALES:
        field = fv.Guided(net, scale)
        x, _ = draw_samples(field, len(labels), data.shape, seed=options.seed, solver=Solver("heun", 25), cond=labels)
        x = x.clamp(-1, 1)  # as in a picture
        features = classifier(x)
        diversity = spread(features, labels) / spread(real, data.held_out.labels)
        rows.append((scale, classifier.accuracy(x, labels), diversity, fv.metrics.frechet_distance(features, real)))
        shown[scale] = x.reshape(10, PER_CLASS, *data.shape)[:, 0]
        print(f"| {scale:3.1f} | {rows[-1][1]:8.1%} | {diversity:9.2f} | {rows[-1][3]:16.2f} |")
    options.out.write_bytes(draw_png(lambda axes: draw(axes, rows), size=(6.4, 4.0)))
    sheet = torch.cat([shown[scale] for scale in SCALES])
    fv.data.save_grid(sheet, options.out.with_name(f"{options.out.stem}-samples.png"), columns=10)


def draw(axes, rows: list[tuple[float, float, float, float]]) -> None:
    """Accuracy and diversity against the scale."""
    scales, accuracy, diversity, _ = zip(*rows, strict=True)
    axes.plot(scales, accuracy, "o-", color="C0", label="accuracy: samples taken for the digit asked for")
    axes.plot(scales, diversity, "s-", color="C1", label="diversity, real digits = 1")
    axes.axvline(1.0, color="0.6", linewidth=0.8)
    place = {"xycoords": ("data", "axes fraction"), "rotation": 90, "color": "0.4", "fontsize": 9}
    axes.annotate("w = 1: no guidance", (1.05, 0.02), **place)
    axes.set(xlabel="guidance scale w", ylabel="share, ratio", ylim=(0, None))
    axes.legend(loc="lower right")


if __name__ == "__main__":
    main()
