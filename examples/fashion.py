"""Fashion-MNIST at equal compute: which objective, or which net, makes the better clothes in the same time.

CFM, OT-CFM, EFM with banks of 128, 256 and 512 data, and Mean Flows get the same net and equal shares of the time. What
an update costs differs, so updates of all are timed in turns first, and each gets as many as fit into its share; the
learning rate falls to zero at the last one. On the CPU, time is that of the process over its threads, which others on
the machine change little. The plan is kept in plan.json. Ctrl-C saves, and the same command goes on bit for bit.

The table compares samples with the test images in features of a classifier of the training images (first row: what as
many real images get), and says how new they are: the neighbour ratio is 0 for copies, 1 if they are as far from the
training images as test images are. The paper's figures are those of Bertrand et al. 2025 (arXiv 2506.03719, appendix C:
200 epochs of a larger U-Net, in other features): compare the order only.

Run: python examples/fashion.py --minutes 30 --out runs/fashion
     python examples/fashion.py --minutes 30 --out runs/nets --compare nets     (MLP, UNet and DiT, all by CFM)
     python examples/fashion.py                                                 (half a minute: digits, to see it work)
"""

import argparse
import dataclasses
import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

import fluvial as fv
from fluvial.audits.drawing import draw_figure
from fluvial.audits.pictures import mosaic, show
from fluvial.cli.folders import written_aside
from fluvial.cli.render import json_text, renderer
from fluvial.data.images import from_uint8, to_uint8
from fluvial.data.specs import FASHION_MNIST_FOLDERS
from fluvial.metrics import nearest_neighbours
from fluvial.metrics.extractors.cache import default_cache
from fluvial.metrics.extractors.classifier import Classifier
from fluvial.metrics.frechet_sampling import frechet_estimate
from fluvial.presets import PRESETS
from fluvial.progress import Progress, ProgressCallback
from fluvial.randomness import generator
from fluvial.solvers.sampling import Solver, draw_samples
from fluvial.training import Interrupted, TrainConfig, Trainer, latest_checkpoint
from fluvial.training.checkpoints import step_folder
from fluvial.training.settings import PRECISIONS
from fluvial.training.timing import compute_clock, seconds_an_update
from fluvial.training.toml import write_text

SETTINGS = {  # what suits each net in minutes rather than days
    "mlp": {"lr": 1e-3, "batch_size": 128},
    "unet": {"lr": 2e-3, "batch_size": 64},
    "dit": {"lr": 2e-3, "batch_size": 64},
}
REAL, SHOWN = "real images", 20
HEAD = ("", "evaluations", "updates", "minutes", "Fréchet distance", "ratio", "neighbour ratio", "paper (its ratio)")


@dataclass(frozen=True)
class Entry:
    """What is compared: its name, what its config changes, the steps of its jumps, and the paper's figure."""

    name: str
    changes: Mapping[str, Any]
    jumps: tuple[int, ...] = ()
    paper: float | None = None

    @property
    def solvers(self) -> dict[str, Solver]:
        """How it is sampled, by the names of its rows."""
        names = {1: f"{self.name}, 1 step", 2: f"{self.name}, 2 steps"}
        return {names[steps]: Solver("meanflow", steps) for steps in self.jumps} or {self.name: Solver("heun", 25)}


METHODS = (
    Entry("CFM", {}, paper=19.67),
    Entry("OT-CFM", {"coupling": "ot"}),
    Entry("EFM-128", {"objective": "efm", "bank_size": 128}, paper=17.72),
    Entry("EFM-256", {"objective": "efm", "bank_size": 256}, paper=17.74),
    Entry("EFM-512", {"objective": "efm", "bank_size": 512}, paper=16.85),
    Entry("Mean Flow", {"objective": "meanflow"}, jumps=(1, 2)),
)
NETS = (Entry("MLP", {"net": "mlp"}), Entry("UNet", {"net": "unet"}), Entry("DiT", {"net": "dit"}))


class Comparison:
    """Entries that are trained for equal times, sampled and scored in one folder; what it holds is not done again."""

    def __init__(self, entries: Sequence[Entry], options: argparse.Namespace, progress: ProgressCallback) -> None:
        self.entries, self.options, self.out, self.show = entries, options, options.out, progress
        self.data = fv.load_dataset(options.data, seed=options.seed)
        self.accelerator = Accelerator(mixed_precision=options.precision)
        self.configs = {entry.name: self.config(entry) for entry in entries}
        self.updates, self.cost = self.plan()

    def config(self, entry: Entry) -> TrainConfig:
        """How an entry is trained, but for the number of updates."""
        changes: dict[str, Any] = {"net": self.options.net, **entry.changes}
        changes = {"checkpoint_every": 200, **SETTINGS.get(changes["net"], {}), **changes}
        return TrainConfig(self.options.data, precision=self.options.precision, seed=self.options.seed, **changes)

    def plan(self) -> tuple[dict[str, int], dict[str, float]]:
        """Updates of each entry for its share of the time, and what they cost; made once, so that all starts agree."""
        file, chosen = self.out / "plan.json", ("minutes", "net", "samples", "precision", "seed")
        settings = {name: getattr(self.options, name) for name in chosen} | {"data": self.data.train.content_hash}
        if not file.exists():
            seconds = seconds_an_update(self.configs, self.data.train, self.accelerator)
            share = 60 * self.options.minutes / len(seconds)
            updates = {name: max(2, round(share / cost)) for name, cost in seconds.items()}
            plan = {"settings": settings, "updates": updates, "seconds_an_update": seconds}
            self.out.mkdir(parents=True, exist_ok=True)
            write_text(file, json.dumps(plan, indent=2) + "\n")
        plan = json.loads(file.read_text(encoding="utf-8"))
        then, now = plan["settings"] | {"entries": list(plan["updates"])}, settings | {"entries": list(self.configs)}
        for name, value in now.items():
            if then.get(name) != value:
                raise ValueError(f"{file} has {name} {then.get(name)!r}, and now it is {value!r}: give another --out")
        return plan["updates"], plan["seconds_an_update"]

    def run(self) -> dict[str, Any]:
        """Do what is left to do; the rows of the table."""
        parts: dict[str, float] = {}  # planned seconds
        for entry in self.entries:
            parts[f"train {entry.name}"] = self.updates[entry.name] * self.cost[entry.name]
            forward = self.cost[entry.name] / (3 * self.configs[entry.name].batch_size)  # of one image, about
            for name, solver in entry.solvers.items():
                parts[f"sample {name}"] = forward * self.options.samples * evaluations(solver)
        parts["score"] = 0.02 * sum(parts.values())
        rows: list[dict[str, Any]] = [{"name": REAL}]
        sets = {"test images": self.data.held_out.x}
        for entry in self.entries:
            net = None
            for name, solver in entry.solvers.items():
                file, steps = self.out / f"{slug(name)}.npy", self.updates[entry.name]
                if not file.exists():
                    net = net or self.train(entry, self.meter(parts, f"train {entry.name}"))
                    self.sample(net, solver, file, self.meter(parts, f"sample {name}"))
                sets[name] = from_uint8(torch.from_numpy(np.load(file)))
                row = {"name": name, "evaluations": evaluations(solver), "updates": steps}
                row |= {"minutes": self.seconds(entry)[step_folder(steps)] / 60}
                rows.append(row | {"paper": entry.paper if self.data.name == "fashion-mnist" else None})
        draw(self.out / "samples.png", sets)
        accuracy = self.score(rows, sets, self.meter(parts, "score"))
        return {"classifier_accuracy": accuracy, "threads": torch.get_num_threads(), "rows": rows}

    def meter(self, parts: Mapping[str, float], part: str) -> ProgressCallback:
        """Progress of a part as that of the whole, in planned seconds, so that the time left is known."""
        names, total = list(parts), math.ceil(sum(parts.values()))
        start = sum(parts[name] for name in names[: names.index(part)])

        def report(step: Progress) -> None:
            loss = {name: value for name, value in step.values.items() if name == "loss"}
            self.show(Progress("fashion", round(start + parts[part] * step.fraction), total, loss, part=part))

        return report

    def train(self, entry: Entry, progress: ProgressCallback) -> nn.Module:
        """The averaged net, trained from where its run is to its end; what each checkpoint has cost is noted."""
        folder, seconds, device = self.out / slug(entry.name), self.seconds(entry), self.accelerator.device
        config = dataclasses.replace(self.configs[entry.name], steps=self.updates[entry.name])
        newest, start = latest_checkpoint(folder), compute_clock(device)
        before = seconds.get(newest.name, 0.0) if newest else 0.0

        def note(step: int) -> None:
            seconds[step_folder(step)] = before + compute_clock(device) - start
            write_text(self.out / f"{slug(entry.name)}.json", json.dumps(seconds) + "\n")

        def report(step: Progress) -> None:
            if step.step % config.checkpoint_every == 0 or step.step == config.steps:
                note(step.step)
            progress(step)

        trainer = Trainer(config, folder, accelerator=self.accelerator, progress=report)
        try:
            return trainer.fit(resume=(folder / "config.toml").exists()).net
        except Interrupted as stop:
            note(stop.step)
            raise

    def seconds(self, entry: Entry) -> dict[str, float]:
        """Seconds of training that each checkpoint of an entry has cost."""
        file = self.out / f"{slug(entry.name)}.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}

    def sample(self, net: nn.Module, solver: Solver, file: Path, progress: ProgressCallback) -> None:
        """Draw samples from the same noise for every entry, and keep them as uint8."""
        how = {"seed": self.options.seed, "solver": solver, "device": self.accelerator.device, "progress": progress}
        with self.accelerator.autocast(), written_aside(file) as aside:
            np.save(aside, to_uint8(draw_samples(net, self.options.samples, self.data.shape, **how)[0]).numpy())

    def score(self, rows: list[dict[str, Any]], sets: Mapping[str, Tensor], progress: ProgressCallback) -> float:
        """Put Fréchet distance and neighbour ratio into the rows; the accuracy of the classifier."""
        train, test, count = self.data.train, self.data.held_out, self.options.samples
        features = Classifier.fit(train.x, train.labels, images=True, cache=default_cache())
        known = train.x[torch.randperm(len(train), generator=generator(self.options.seed))]
        target, fresh = features(test.x), nearest_neighbours(test.x[:count], known).distance.mean()
        for number, row in enumerate(rows, start=1):
            # training images stand for new ones beside the other training images
            x, others = (known[:count], known[count:]) if row["name"] == REAL else (sets[row["name"]], known)
            found = frechet_estimate(features(x), target)
            ratio = float(nearest_neighbours(x, others).distance.mean() / fresh)
            row |= {"frechet": found.value, "error": found.standard_error, "neighbour_ratio": ratio}
            progress(Progress("score", number, len(rows)))
        return features.accuracy(test.x, test.labels)


def evaluations(solver: Solver) -> int:
    """Field evaluations that a sample costs."""
    return (2 if solver.method == "heun" else 1) * (solver.steps or 0)


def slug(name: str) -> str:
    """A name as the name of a file."""
    return name.lower().replace(", ", "-").replace(" ", "-")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown, with ratios to the first entry's Fréchet distance and to its figure in the paper."""
    first = next(row for row in rows if row["name"] != REAL)
    width = len(HEAD) if first["paper"] else len(HEAD) - 1
    lines = [HEAD, ("---", *["---:"] * (width - 1))]
    for row in rows:
        cells = [row["name"], "–", "–", "–"]
        if row["name"] != REAL:
            cells[1:] = [f"{row['evaluations']}", f"{row['updates']:,}", f"{row['minutes']:.2f}"]
        cells += [f"{row['frechet']:.2f} ± {row['error']:.2f}", f"{row['frechet'] / first['frechet']:.2f}"]
        paper = row.get("paper")
        cells += [f"{row['neighbour_ratio']:.2f}", f"{paper} ({paper / first['paper']:.2f})" if paper else "–"]
        lines.append(tuple(cells))
    return "\n".join("| " + " | ".join(cells[:width]) + " |" for cells in lines)


def draw(file: Path, sets: Mapping[str, Tensor]) -> None:
    """One labelled row of images for each set."""

    def fill(figure: Any) -> None:
        for axes, (name, x) in zip(figure.subplots(len(sets), 1), sets.items(), strict=True):
            show(axes, mosaic(x[:SHOWN], columns=SHOWN))
            axes.set_ylabel(name, rotation=0, ha="right", va="center")

    with written_aside(file) as aside:
        aside.write_bytes(draw_figure(fill, size=(9, 0.4 + 0.42 * len(sets))))


def find_data() -> str:
    """Fashion-MNIST where fluvial looks for it, or in the checkout that this file is in."""
    for folder in (*FASHION_MNIST_FOLDERS, Path(__file__).resolve().parents[1] / FASHION_MNIST_FOLDERS[0]):
        if folder.is_dir():
            return f"fashion-mnist:{folder}"
    raise ValueError("Fashion-MNIST is not here: run `make data` in the checkout, or give --data fashion-mnist:FOLDER")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--minutes", type=float, default=30.0, help="training time of all entries together (default 30)")
    add("--out", type=Path, default=Path("runs/fashion"), help="folder (default runs/fashion)")
    add("--compare", choices=("methods", "nets"), default="methods", help="what is compared (default methods)")
    add("--net", choices=tuple(PRESETS), default="unet", help="net of the methods (default unet)")
    add("--data", metavar="SPEC", help="images with labels (default fashion-mnist, from `make data`)")
    add("--samples", type=int, default=2000, help="samples of each entry (default 2000)")
    add("--precision", choices=PRECISIONS, default="no", help="bf16 is quick where the CPU has it (default no)")
    add("--seed", type=int, default=0, help="seed of everything (default 0)")
    add("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(arguments)
    if not 0 < options.minutes < math.inf or options.samples < SHOWN:
        parser.error(f"--minutes must be positive and --samples at least {SHOWN}")
    return options


def main(arguments: Sequence[str]) -> int:
    """Compare, without arguments briefly and on digits; the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        brief = ("--data=digits", "--net=mlp", "--minutes=.05", "--samples=60", f"--out={folder}")
        options = parse(arguments or brief)
        if not arguments:
            torch.set_num_threads(1)  # more would wait for one another
        try:
            options.data = options.data or find_data()
            with renderer() as progress:
                result = Comparison(METHODS if options.compare == "methods" else NETS, options, progress).run()
            write_text(options.out / "table.json", json_text(result) + "\n")
            write_text(options.out / "table.md", table(result["rows"]) + "\n")
        except (Interrupted, KeyboardInterrupt) as stop:
            print(f"fashion.py: {str(stop) or 'interrupted'}; the same command continues", file=sys.stderr)
            return 128 + getattr(stop, "signum", 2)
        except (ValueError, OSError) as error:
            print(f"fashion.py: error: {error}", file=sys.stderr)
            return 2
        print(json_text(result) if options.json else table(result["rows"]))
    if not arguments:
        print("\nA brief run on digits; Fashion-MNIST comes by `make data`, then see --help.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
