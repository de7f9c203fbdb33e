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
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

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
from fluvial.progress import Progress, ProgressCallback
from fluvial.randomness import generator
from fluvial.solvers.sampling import Solver, draw_samples
from fluvial.training import Interrupted, TrainConfig, Trainer, latest_checkpoint
from fluvial.training.build import net_spec
from fluvial.training.checkpoints import step_folder
from fluvial.training.config import PRECISIONS
from fluvial.training.presets import PRESETS
from fluvial.training.state import TrainState
from fluvial.training.toml import write_text

HEUN = {"": Solver("heun", 25)}
JUMPS = {", 1 step": Solver("meanflow", 1), ", 2 steps": Solver("meanflow", 2)}
SETTINGS = {  # what suits each net in minutes rather than days
    "mlp": {"lr": 1e-3, "batch_size": 128},
    "unet": {"lr": 2e-3, "batch_size": 64},
    "dit": {"lr": 2e-3, "batch_size": 64},
}
SHOWN, REAL = 20, "real images"


@dataclass(frozen=True)
class Entry:
    """What is compared: its name, what its config changes, how it is sampled, and the paper's figure."""

    name: str
    changes: Mapping[str, Any]
    samplers: Mapping[str, Solver] = field(default_factory=lambda: HEUN)
    paper: float | None = None


METHODS = (
    Entry("CFM", {}, paper=19.67),
    Entry("OT-CFM", {"coupling": "ot"}),
    Entry("EFM-128", {"objective": "efm", "bank_size": 128}, paper=17.72),
    Entry("EFM-256", {"objective": "efm", "bank_size": 256}, paper=17.74),
    Entry("EFM-512", {"objective": "efm", "bank_size": 512}, paper=16.85),
    Entry("Mean Flow", {"objective": "meanflow"}, JUMPS),
)
NETS = (Entry("MLP", {"net": "mlp"}), Entry("UNet", {"net": "unet"}), Entry("DiT", {"net": "dit"}))


def clock(device: torch.device) -> float:
    """Seconds of computation: of the process over its threads on the CPU, of the wall once a GPU has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time() / torch.get_num_threads()


def seconds_an_update(
    configs: Mapping[str, TrainConfig], data: fv.Dataset, accelerator: Accelerator
) -> dict[str, float]:
    """Median time of an update of each; all take turns, so that a busy moment slows all of them alike."""
    states = {name: TrainState(config, data, net_spec(config, data), accelerator) for name, config in configs.items()}
    times: dict[str, list[float]] = {name: [] for name in states}
    for turn in range(6):
        for name, state in states.items():
            start = clock(accelerator.device)
            for _ in range(4):
                state.update()
            if turn:  # the first one warms up
                times[name].append((clock(accelerator.device) - start) / 4)
    return {name: statistics.median(found) for name, found in times.items()}


def make_plan(file: Path, settings: dict[str, Any], measure: Callable[[], dict[str, float]]) -> dict[str, Any]:
    """Updates of each entry for its share of the minutes; made once and then read, so that all starts agree."""
    if file.exists():
        plan: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        for name, value in settings.items():
            if plan["settings"].get(name) != value:
                then = plan["settings"].get(name)
                raise ValueError(f"{file} was made with {name} {then!r}, and now it is {value!r}: give another --out")
        return plan
    seconds = measure()
    share = 60 * settings["minutes"] / len(seconds)
    updates = {name: max(2, round(share / cost)) for name, cost in seconds.items()}
    plan = {"settings": settings, "seconds_an_update": seconds, "updates": updates}
    write_text(file, json.dumps(plan, indent=2) + "\n")
    return plan


class Meter:
    """One bar for everything, in planned seconds, so that it can tell how much time is left."""

    def __init__(self, show: ProgressCallback, seconds: Mapping[str, float]) -> None:
        self._show, self._seconds = show, seconds

    def __call__(self, part: str) -> ProgressCallback:
        """What to report a part's progress to; the parts before it count as done."""
        names = list(self._seconds)
        start = sum(self._seconds[name] for name in names[: names.index(part)])
        total = math.ceil(sum(self._seconds.values()))

        def report(step: Progress) -> None:
            loss = {name: value for name, value in step.values.items() if name == "loss"}
            self._show(Progress("fashion", int(start + self._seconds[part] * step.fraction), total, loss, part=part))

        return report


def train(config: TrainConfig, folder: Path, accelerator: Accelerator, progress: ProgressCallback) -> torch.nn.Module:
    """The averaged net of a run folder, trained from where it is to its end; notes what each checkpoint has cost."""
    file, newest, start = seconds_file(folder), latest_checkpoint(folder), clock(accelerator.device)
    seconds = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    before = seconds.get(newest.name, 0.0) if newest else 0.0

    def note(step: int) -> None:
        seconds[step_folder(step)] = before + clock(accelerator.device) - start
        write_text(file, json.dumps(seconds) + "\n")

    def report(step: Progress) -> None:
        if step.step % config.checkpoint_every == 0 or step.step == config.steps:
            note(step.step)
        progress(step)

    try:
        resume = (folder / "config.toml").exists()
        return Trainer(config, folder, accelerator=accelerator, progress=report).fit(resume).net
    except Interrupted as stop:
        note(stop.step)
        raise


def seconds_file(folder: Path) -> Path:
    """Where the cost of a run's checkpoints is kept."""
    return folder.with_name(f"{folder.name}-seconds.json")


def compare(entries: Sequence[Entry], options: argparse.Namespace, show: ProgressCallback) -> dict[str, Any]:
    """Plan, train, sample and score; what the folder holds already is not done again."""
    data, out = fv.load_dataset(options.data, seed=options.seed), options.out
    accelerator = Accelerator(mixed_precision=options.precision)
    base = TrainConfig(data=options.data, net=options.net, precision=options.precision, seed=options.seed)
    configs = {entry.name: configure(base, entry) for entry in entries}
    settings = {name: getattr(options, name) for name in ("minutes", "samples", "precision", "seed")}
    settings |= {entry.name: dict(entry.changes) for entry in entries}
    settings |= {"net": options.net, "data": data.train.content_hash, "settings": SETTINGS}
    out.mkdir(parents=True, exist_ok=True)
    plan = make_plan(out / "plan.json", settings, lambda: seconds_an_update(configs, data.train, accelerator))
    updates, cost = plan["updates"], plan["seconds_an_update"]
    parts = {}
    for entry in entries:
        parts[f"train {entry.name}"] = updates[entry.name] * cost[entry.name]
        forward = cost[entry.name] / (3 * configs[entry.name].batch_size)  # of one image, about
        for name, solver in entry.samplers.items():
            parts[f"sample {entry.name}{name}"] = forward * options.samples * evaluations(solver)
    meter, sets, rows = Meter(show, parts), {}, []
    for entry in entries:
        folder, config = out / slug(entry.name), dataclasses.replace(configs[entry.name], steps=updates[entry.name])
        files = {entry.name + name: out / f"{slug(entry.name + name)}.npy" for name in entry.samplers}
        if not all(file.exists() for file in files.values()):
            net = train(config, folder, accelerator, meter(f"train {entry.name}"))
            for (name, file), solver in zip(files.items(), entry.samplers.values(), strict=True):
                sample(net, solver, file, data.shape, options, accelerator, meter(f"sample {name}"))
        minutes = json.loads(seconds_file(folder).read_text())[step_folder(config.steps)] / 60
        for (name, file), solver in zip(files.items(), entry.samplers.values(), strict=True):
            sets[name] = from_uint8(torch.from_numpy(np.load(file)))
            row = {"name": name, "evaluations": evaluations(solver), "updates": config.steps, "minutes": minutes}
            rows.append({**row, "paper": entry.paper})
    found = score(sets, data, options)
    rows = [{"name": REAL, **found["scores"].pop(REAL)}, *({**row, **found["scores"][row["name"]]} for row in rows)]
    draw(out / "samples.png", {"test images": data.held_out.x, **sets})
    return {"plan": plan, "accuracy": found["accuracy"], "threads": torch.get_num_threads(), "rows": rows}


def configure(base: TrainConfig, entry: Entry) -> TrainConfig:
    """The config of an entry, with what suits its net."""
    net = entry.changes.get("net", base.net)
    changes: dict[str, Any] = {"checkpoint_every": 200, **SETTINGS.get(net, {}), **entry.changes}
    return dataclasses.replace(base, **changes)


def slug(name: str) -> str:
    """A name as part of a file name."""
    return name.lower().replace(", ", "-").replace(" ", "-")


def evaluations(solver: Solver) -> int:
    """Field evaluations that a sample costs."""
    return (2 if solver.method == "heun" else 1) * (solver.steps or 0)


def sample(
    net: torch.nn.Module,
    solver: Solver,
    file: Path,
    shape: tuple[int, ...],
    options: argparse.Namespace,
    accelerator: Accelerator,
    progress: ProgressCallback,
) -> None:
    """Draw samples from the same noise as every other entry's, and keep them as uint8."""
    how = {"seed": options.seed, "solver": solver, "batch_size": 256, "device": accelerator.device}
    with accelerator.autocast():
        x, _ = draw_samples(net, options.samples, shape, progress=progress, **how)
    with written_aside(file) as aside:
        np.save(aside, to_uint8(x).numpy())


def score(sets: Mapping[str, Tensor], data: fv.Dataset, options: argparse.Namespace) -> dict[str, Any]:
    """Fréchet distance and neighbour ratio of every set, and of as many real training images."""
    train, test = data.train, data.held_out
    features = Classifier.fit(train.x, train.labels, images=True, cache=default_cache())
    chosen = [torch.randperm(len(part), generator=generator(options.seed))[: options.samples] for part in (train, test)]
    real, fresh, target, known = train.x[chosen[0]], test.x[chosen[1]], features(test.x), train.x
    distance = nearest_neighbours(fresh, known).distance.mean()
    scores = {}
    for name, x in {REAL: real, **sets}.items():
        found = frechet_estimate(features(x), target)
        # a training image is its own nearest one, so the others are searched
        searched = known[np.setdiff1d(np.arange(len(known)), chosen[0])] if name == REAL else known
        ratio = float(nearest_neighbours(x, searched).distance.mean() / distance)
        scores[name] = {"frechet": found.value, "error": found.standard_error, "neighbour_ratio": ratio}
    return {"accuracy": features.accuracy(test.x, test.labels), "scores": scores}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown, with ratios to the first entry's Fréchet distance and to its figure in the paper."""
    first = next(row for row in rows if row["name"] != REAL)
    head = ["", "evaluations", "updates", "minutes", "Fréchet distance", "ratio", "neighbour ratio"]
    lines = []
    for row in rows:
        made = row["name"] != REAL
        cells = [
            row["name"],
            *([f"{row['evaluations']}", f"{row['updates']:,}", f"{row['minutes']:.1f}"] if made else "–––"),
        ]
        cells += [f"{row['frechet']:.2f} ± {row['error']:.2f}", f"{row['frechet'] / first['frechet']:.2f}"]
        cells.append(f"{row['neighbour_ratio']:.2f}")
        if first["paper"]:
            paper = row.get("paper")
            cells.append(f"{paper:.2f} ({paper / first['paper']:.2f})" if paper else "–")
        lines.append(cells)
    if first["paper"]:
        head.append("paper (its ratio)")
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *lines))


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
    parser.add_argument("--minutes", type=float, default=30, help="training time of all entries together (default 30)")
    parser.add_argument("--out", type=Path, default=Path("runs/fashion"), help="folder (default runs/fashion)")
    parser.add_argument("--compare", choices=("methods", "nets"), default="methods", help="(default methods)")
    parser.add_argument("--net", choices=tuple(PRESETS), default="unet", help="net of the methods (default unet)")
    parser.add_argument("--data", metavar="SPEC", help="labelled images (default fashion-mnist, from `make data`)")
    parser.add_argument("--samples", type=int, default=2000, help="samples of each entry (default 2000)")
    parser.add_argument("--precision", choices=PRECISIONS, default="no", help="bf16 is quick where the CPU knows it")
    parser.add_argument("--seed", type=int, default=0, help="(default 0)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(arguments)
    if not 0 < options.minutes < math.inf:
        parser.error(f"--minutes must be positive, got {options.minutes}")
    if options.samples < 20:
        parser.error(f"--samples must be at least 20, got {options.samples}")
    return options


def main(arguments: Sequence[str]) -> int:
    """Run the comparison, or without arguments a short one on digits; the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        short = ("--data", "digits", "--minutes", "0.1", "--samples", "100", "--out", folder)
        options = parse(arguments or short)
        try:
            options.data = options.data or find_data()
            with renderer() as progress:
                result = compare(METHODS if options.compare == "methods" else NETS, options, progress)
            write_text(options.out / "table.json", json_text(result) + "\n")
            write_text(options.out / "table.md", table(result["rows"]) + "\n")
        except (Interrupted, KeyboardInterrupt) as stop:
            print(f"fashion.py: {stop or 'interrupted'}; the same command continues", file=sys.stderr)
            return 128 + getattr(stop, "signum", 2)
        except (ValueError, OSError) as error:
            print(f"fashion.py: error: {error}", file=sys.stderr)
            return 2
        print(json_text(result) if options.json else table(result["rows"]))
        if not arguments:
            print("This was a short run on digits. Fashion-MNIST comes by `make data`; then see --help.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
