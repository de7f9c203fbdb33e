"""New images in the likeness of a handful: a net that is shown five images of a class it was not trained on.

A UNet learns to draw an image given near ones of its class, for all classes but a few. Then it is shown five images
of a class that was left out. The exact field of those five can only copy them; the net should make new ones. The table
holds both against real images of the class: the neighbour ratio is the mean distance from a sample to the nearest of
its five references over that of other real images of the class (0 copies, 1 as new as real ones), and the accuracy is
the share that a classifier, which knows all classes, takes for the class.

Run: python examples/references.py [--out references.png]                         (digits, about a minute)
     python examples/references.py --data fashion-mnist --without Sandal,Shirt --steps 3000 --run runs/references
"""

import argparse
import tempfile
from pathlib import Path

import torch
from torch import Tensor

import fluvial as fv
from fluvial.metrics import ClassifierFeatures
from fluvial.solvers.sampling import Solver, draw_samples
from fluvial.training import TrainConfig, Trainer, load_run

SETS, PER_SET, SHOWN = 16, 8, 4


def neighbour_ratio(samples: Tensor, references: Tensor, others: Tensor) -> float:
    """Distance of samples to their own references, over that of other real images to the same references."""
    pairs = zip(samples, references, strict=True)
    own = torch.stack([fv.metrics.nearest_neighbours(x, near).distance.mean() for x, near in pairs])
    real = torch.stack([fv.metrics.nearest_neighbours(others, near).distance.mean() for near in references])
    return float((own / real).mean())


def main() -> None:
    """Train or continue the run, sample each class that was left out, print the table and draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="data set with labels (default digits)")
    parser.add_argument("--without", default="3,7", help="classes left out, by name or number (default 3,7)")
    parser.add_argument("--size", type=int, default=5, help="references of a sample (default 5)")
    parser.add_argument("--near", type=int, help="neighbours they are drawn among in training (default 4 for each)")
    parser.add_argument("--steps", type=int, default=400, help="updates (default 400)")
    parser.add_argument("--batch-size", type=int, default=64, help="images per update (default 64)")
    parser.add_argument("--precision", default="no", help="no or bf16 (default no)")
    parser.add_argument("--guidance", type=float, default=1.5, help="guidance scale (default 1.5)")
    parser.add_argument("--run", type=Path, help="folder of the run, continued if it is there (default: none is kept)")
    parser.add_argument("--out", type=Path, default=Path("references.png"), help="picture (default references.png)")
    options = parser.parse_args()
    config = TrainConfig(
        data=options.data,
        reference_size=options.size,
        reference_near=options.near,
        without_classes=options.without,
        steps=options.steps,
        batch_size=options.batch_size,
        lr=2e-3,
        precision=options.precision,
        checkpoint_every=200,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.run or Path(scratch) / "run"
        Trainer(config, folder).fit(resume=(folder / "config.toml").exists())
        run = load_run(folder)
        net, left_out = run.net, run.left_out_classes
    data = fv.load_dataset(options.data)
    classifier = ClassifierFeatures.fit(data.train.x, data.train.labels)
    print("| class left out | field | neighbour ratio | accuracy |\n|---|---|---:|---:|")
    sheet = []
    for number in left_out:
        pool = data.train.subset(torch.nonzero(data.train.labels == number).flatten()).x
        order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(0))
        count = SETS * options.size
        references, others = pool[order[:count]].reshape(SETS, options.size, *data.shape), pool[order[count:]][:500]
        rows = fv.Tokens.of(references.repeat_interleave(PER_SET, 0))
        learned, _ = draw_samples(
            fv.Guided(net, options.guidance), len(rows), data.shape, solver=Solver("heun", 25), cond=net.encode(rows)
        )
        exact = torch.cat([follow(fv.ExactField(near), seed) for seed, near in enumerate(references)])
        name = data.class_names[number]
        for field, x in {"learned": learned.clamp(-1, 1), "exact field of the references": exact}.items():
            ratio = neighbour_ratio(x.reshape(SETS, PER_SET, *data.shape), references, others)
            accuracy = classifier.accuracy(x, torch.full((len(x),), number))
            print(f"| {name} | {field} | {ratio:.2f} | {accuracy:.1%} |")
        real = classifier.accuracy(others, torch.full((len(others),), number))
        print(f"| {name} | other real images | 1.00 | {real:.1%} |")
        for k in range(SHOWN):
            blank = torch.ones(1, *data.shape)
            sheet += [references[k], blank, learned[k * PER_SET :][:PER_SET], blank, exact[k * PER_SET :][:PER_SET]]
    columns = options.size + 2 + 2 * PER_SET
    fv.data.save_grid(torch.cat(sheet), options.out, columns=columns)
    print(f"\n{options.out}: in each row the references, samples of the net, samples of the exact field")


def follow(field: fv.ExactField, seed: int) -> Tensor:
    """Samples of the exact field of one set of references."""
    shape = tuple(field.support.shape[1:])
    return draw_samples(field, PER_SET, shape, seed=seed, solver=Solver("euler", 50))[0]


if __name__ == "__main__":
    main()
