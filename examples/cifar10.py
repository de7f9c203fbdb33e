"""CIFAR-10 as in "On the Closed-Form of Flow Matching" (Bertrand et al. 2025, arXiv 2506.03719), for one large GPU.

The paper's set-up: a U-Net of 35 million parameters with dropout .1; batches of 128 images and mirror images; Adam at
2e-4, constant after a warm-up of 5,000 updates; 500,000 updates, averaged with decay .9999; CFM, OT-CFM, and EFM with
banks of 128, 256 and 1,000 data. With --subset N, the first N images are trained on for 50,000 updates, without mirror
images and in batches of at most N: 10 to 10,000 of them show the passage from memorising to generalising. Ours are bf16
and a compiled net. Ctrl-C saves, and the same command goes on bit for bit; `fluvial audit OUT/run` says more of it.

Then 10,000 samples are drawn and compared with the images trained on and with the test images: the mean distance to the
nearest training image, in pixels, and Fréchet distances in features of Inception-v3 or DINOv2, whose weights you bring.
A low distance to the test images alone says little: a net that has learned 1,000 images by heart has it too.

Run: python examples/cifar10.py --data cifar10:FOLDER --method efm-256 --out runs/efm-256 --weights inception.pth
     python examples/cifar10.py --data cifar10:FOLDER --subset 1000 --out runs/first-1000 --extractor dinov2
     python examples/cifar10.py     (all of it on a few synthetic pictures with a tiny net, on any machine)
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

import fluvial as fv
from fluvial.cli.folders import written_aside
from fluvial.cli.render import json_text, renderer
from fluvial.data import save_grid
from fluvial.data.images import from_uint8, save_images, to_uint8
from fluvial.metrics import (
    Extractor,
    GaussianStatistics,
    extract_features,
    k_nearest,
    load_extractor,
    nearest_neighbours,
)
from fluvial.metrics.extractors.cache import default_cache
from fluvial.progress import ProgressCallback
from fluvial.solvers.sampling import Solver, draw_samples
from fluvial.training import Interrupted, TrainConfig, Trainer
from fluvial.training.settings import PRECISIONS
from fluvial.training.toml import write_text

METHODS: dict[str, dict[str, Any]] = {
    "cfm": {},
    "ot": {"coupling": "ot"},
    "efm-128": {"objective": "efm", "bank_size": 128},
    "efm-256": {"objective": "efm", "bank_size": 256},
    "efm-1000": {"objective": "efm", "bank_size": 1000},
}
EXTRACTORS = ("inception", "dinov2", "efficientnet-lite0", "pixels")


def configure(options: argparse.Namespace) -> TrainConfig:
    """The paper's training of a method, on all images or on a subset."""
    whole = options.subset is None
    sizes = {"width": options.width, "depth": options.depth}  # None is the preset's own
    return TrainConfig(
        data=options.data if whole else str(subset_file(options)),
        held_out=None if whole else 0,
        flip=whole,
        steps=options.updates or (500_000 if whole else 50_000),
        batch_size=128 if whole else min(128, options.subset),
        net="unet-cifar10",
        lr=2e-4,
        warmup=5000,
        schedule="constant",
        beta2=0.999,
        ema=0.9999,
        precision=options.precision,
        compile=options.compile,
        seed=options.seed,
        log_every=100,
        checkpoint_every=5000,
        sample_every=25_000,
        **sizes,
        **METHODS[options.method],
    )


def subset_file(options: argparse.Namespace) -> Path:
    """Where the images of a subset are."""
    return Path(options.out / f"first-{options.subset}.npz")


def write_subset(train: fv.Dataset, count: int, file: Path) -> None:
    """Write the first images as they are, so that the run's folder can name what it was trained on."""
    if not 2 <= count <= len(train):
        raise ValueError(f"--subset must be from 2 to the {len(train)} training images, got {count}")
    x, labels = train.take(range(count))
    with written_aside(file) as aside:
        np.savez(aside, x=train.inverse(x), **({} if labels is None else {"y": labels.numpy()}))


def sample(
    net: torch.nn.Module, options: argparse.Namespace, accelerator: Accelerator, show: ProgressCallback
) -> Tensor:
    """Samples from the averaged net, in the precision it was trained in, rounded to 256 levels."""
    how: dict[str, Any] = {"seed": options.seed, "solver": Solver(options.solver, options.solver_steps)}
    with accelerator.autocast():
        x, _ = draw_samples(net, options.samples, net.shape, device=accelerator.device, progress=show, **how)
    return from_uint8(to_uint8(x))


def nearest(samples: Tensor, train: Tensor, test: Tensor, device: torch.device) -> dict[str, float]:
    """Mean distance to the nearest training image, in pixels; of training images, to the nearest other one."""
    train, count = train.to(device), len(samples)
    distances = {
        name: nearest_neighbours(x.to(device), train).distance for name, x in (("samples", samples), ("test", test))
    }
    distances["train"] = k_nearest(train[:count], train, 2).distances[:, 1]
    return {name: float(found.mean()) for name, found in distances.items()}


def frechet(extractor: Extractor, sets: dict[str, Tensor], show: ProgressCallback) -> dict[str, float]:
    """Fréchet distances of samples and test images to the training images, and of both others to the test images."""
    statistics = {
        name: GaussianStatistics.of(extract_features(extractor, x, cache=default_cache(), progress=show))
        for name, x in sets.items()
    }
    pairs = (("samples", "train"), ("samples", "test"), ("train", "test"))
    return {f"{one} to {other}": statistics[one].distance(statistics[other]) for one, other in pairs}


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    found, near = result["frechet"], result["nearest"]

    def cell(*names: str) -> str:
        return next((f"{found[name]:.2f}" for name in names if name in found), "–")

    lines = ["| | nearest training image | Fréchet to training | to test |", "| --- | ---: | ---: | ---: |"]
    for name, words in (("samples", "samples"), ("train", "training images"), ("test", "test images")):
        both = [cell(f"{name} to {other}", f"{other} to {name}") for other in ("train", "test")]
        lines.append(f"| {words} | {near[name]:.2f} | {both[0]} | {both[1]} |")
    return "\n".join(lines)


def run(options: argparse.Namespace, show: ProgressCallback) -> dict[str, Any]:
    """Train from where the folder is, sample, score."""
    extractor, missing = extractor_of(options)
    if missing:
        print(f"cifar10.py: there will be no Fréchet distance: {missing}", file=sys.stderr)
    data = fv.load_dataset(options.data, seed=options.seed)
    train = data.train
    if options.subset is not None:
        write_subset(train, options.subset, subset_file(options))
        train = train.subset(range(options.subset))
    accelerator = Accelerator(mixed_precision=options.precision)
    trainer = Trainer(configure(options), options.out / "run", accelerator=accelerator, progress=show)
    done = trainer.fit(resume=(options.out / "run" / "config.toml").exists())
    samples = sample(done.net, options, accelerator, show)
    save_grid(samples[:100], options.out / "samples.png")
    with written_aside(options.out / "samples.npz") as aside:
        np.savez(aside, x=to_uint8(samples).numpy())
    sets = {"samples": samples, "train": train.x, "test": data.held_out.x}
    return {
        "method": options.method,
        "subset": options.subset,
        "updates": done.step,
        "parameters": sum(weight.numel() for weight in done.net.parameters()),
        "evaluations": options.solver_steps * (2 if options.solver == "heun" else 1),
        "nearest": nearest(*sets.values(), accelerator.device),
        "extractor": dict(extractor.describe()) if extractor else missing,
        "frechet": frechet(extractor, sets, show) if extractor else {},
    }


def extractor_of(options: argparse.Namespace) -> tuple[Extractor | None, str]:
    """The extractor, or None and what is missing for it; weights that are given and do not fit are an error."""
    try:
        return load_extractor(options.extractor, weights=options.weights), ""
    except (ValueError, ImportError) as error:
        if options.weights is not None:
            raise
        return None, str(error)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", metavar="SPEC", required=True, help="cifar10:FOLDER, or folder:FOLDER with other images of 32x32")
    add("--out", type=Path, required=True, help="folder; one that holds the same training is continued")
    add("--method", choices=tuple(METHODS), default="cfm", help="what is regressed on (default cfm)")
    add("--subset", type=int, metavar="N", help="train on the first N images alone")
    add("--updates", type=int, help="other than the paper's number")
    add("--width", type=int, help="width of the net, other than the paper's 128")
    add("--depth", type=int, help="blocks in each level, other than the paper's 2")
    add("--samples", type=int, default=10_000, help="samples to draw (default 10000)")
    add("--solver", choices=("heun", "euler"), default="heun", help="how (default heun)")
    add("--solver-steps", type=int, default=50, help="in how many steps (default 50)")
    add("--extractor", choices=EXTRACTORS, default="inception", help="features of the distances (default inception)")
    add("--weights", type=Path, help="file with the weights of inception or dinov2")
    add("--precision", choices=PRECISIONS, default="bf16", help="of the net (default bf16)")
    add(
        "--compile", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available(), help="the net (on a GPU)"
    )
    add("--seed", type=int, default=0, help="seed of everything (default 0)")
    add("--json", action="store_true", help="print the result as JSON")
    return parser.parse_args(arguments)


def smoke() -> int:
    """The same on a few synthetic pictures with a tiny net: once on all of them, once on a subset."""
    torch.set_num_threads(1)  # more would wait for one another
    generator = torch.Generator().manual_seed(0)
    rows = torch.linspace(-1, 1, 32)
    centre, colour = torch.rand(60, 2, 1, 1, generator=generator) - 0.5, torch.rand(60, 3, 1, 1, generator=generator)
    disc = (rows[:, None] - centre[:, 0]) ** 2 + (rows - centre[:, 1]) ** 2 < 0.2
    small = ["--width=8", "--depth=1", "--updates=4", "--samples=16", "--solver-steps=2", "--extractor=pixels"]
    with tempfile.TemporaryDirectory() as folder:
        save_images(2 * colour * disc[:, None] - 1, Path(folder) / "discs")
        for name, more in {"all": ["--method=efm-128"], "first": ["--subset=20", "--solver=euler"]}.items():
            status = main([f"--data=folder:{folder}/discs", f"--out={folder}/{name}", *small, *more])
            if status:
                return status
    print("\nThis was 4 updates of a tiny net on synthetic pictures, to see it work; see --help.")
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run one training of the paper; without arguments, or with --smoke, a tiny one. The exit status."""
    if not arguments or "--smoke" in arguments:
        return smoke()
    options = parse(arguments)
    try:
        with renderer() as show:
            result = run(options, show)
        write_text(options.out / "result.json", json_text(result) + "\n")
    except (Interrupted, KeyboardInterrupt) as stop:
        print(f"cifar10.py: {str(stop) or 'interrupted'}; the same command continues", file=sys.stderr)
        return 128 + getattr(stop, "signum", 2)
    except (ValueError, ImportError, OSError) as error:
        print(f"cifar10.py: error: {error}", file=sys.stderr)
        return 2
    print(json_text(result) if options.json else table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
