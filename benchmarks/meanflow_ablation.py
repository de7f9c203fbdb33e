"""What each choice in Mean Flows does to digits of one and two evaluations: one choice varied at a time.

Run: python benchmarks/meanflow_ablation.py [--steps 3000 | --seconds 150] [--seeds 0] [--only NAME,...] [--json FILE]

The protocol is that of `fluvial demo`: Fréchet distances between 2,000 samples and the 360 held-out digits, in the 64
features of a small classifier, over that of the training digits (the reference); means of three draws of samples, and
medians over the seeds, which decide the split as well. The net is the default one, trained update for update as
`fluvial train --data digits --objective meanflow --lr 2e-3` trains it. `cfm` is Conditional Flow Matching, sampled with
25 Heun steps; with --steps it is trained for as many updates as cost what the updates of `base` cost, with --seconds
every configuration is trained for that long. Results go to the JSON file, and what is in it is not done again.
"""

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

import fluvial as fv
from fluvial.audits.memorizing import memorization
from fluvial.solvers.sampling import Solver, draw_samples
from fluvial.training import EMA, TrainConfig
from fluvial.training.build import build_net, net_spec
from fluvial.training.draws import DataOrder, step_generator
from fluvial.training.schedule import learning_rate
from fluvial.training.step import TrainStep
from fluvial.training.timing import seconds_in_turns

SAMPLES, DRAWS, DRAW_SEED = 2000, 3, 1000
COLUMNS = ("configuration", "updates", "one step", "two steps", "neighbour ratio", "copies", "CPU ms an update")


@dataclass(frozen=True)
class Cell:
    """One configuration: what it is called, what is regressed on, and how."""

    label: str
    objective: fv.CFM | fv.MeanFlow
    config: TrainConfig

    @property
    def solvers(self) -> tuple[Solver, ...]:
        if isinstance(self.objective, fv.CFM):
            return (Solver("heun", 25),)
        return Solver("meanflow", 1), Solver("meanflow", 2)


BASE = TrainConfig(objective="meanflow", lr=2e-3)


def _cell(label: str, objective: fv.MeanFlow | None = None, **config: Any) -> Cell:
    return Cell(label, objective or fv.MeanFlow(), dataclasses.replace(BASE, **config))


CELLS = {
    "base": _cell("base: separate pairs, share .5, power 0, improved tangent, lr 2e-3"),
    "ordered": _cell(
        "ordered pairs, logit-normal(.4, 1)", fv.MeanFlow(pairs=fv.OrderedPairs(fv.LogitNormal(0.4, 1.0)))
    ),
    "uniform": _cell("ordered pairs, uniform", fv.MeanFlow(pairs=fv.OrderedPairs())),
    "uniform-.25": _cell("ordered pairs, uniform; share .25", fv.MeanFlow(pairs=fv.OrderedPairs(), share=0.25)),
    "share-.25": _cell("share .25", fv.MeanFlow(share=0.25)),
    "share-.75": _cell("share .75", fv.MeanFlow(share=0.75)),
    "power-.5": _cell("power .5", fv.MeanFlow(power=0.5)),
    "power-1": _cell("power 1", fv.MeanFlow(power=1.0)),
    "tangent": _cell("published tangent (conditional velocity)", fv.MeanFlow(improved=False)),
    "published": _cell("`MeanFlow.published()`", fv.MeanFlow.published()),
    "lr-1e-3": _cell("lr 1e-3", lr=1e-3),
    "lr-4e-3": _cell("lr 4e-3", lr=4e-3),
    "bf16": _cell("bf16", precision="bf16"),
    "cfm": Cell("CFM, 25 Heun steps", fv.CFM(), dataclasses.replace(BASE, objective="cfm")),
}


def updates(cell: Cell, data: Any, steps: int, seed: int) -> Iterator[torch.nn.Module]:
    """Train, and give the averaged net after every update."""
    config = dataclasses.replace(cell.config, steps=steps, seed=seed)
    net = build_net(net_spec(config, data), seed)
    ema, order = EMA(net, config.ema), DataOrder(len(data), config.batch_size, seed)
    optimizer = torch.optim.AdamW(net.parameters(), config.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    autocast: partial[AbstractContextManager[Any]] = partial(nullcontext)
    if config.precision == "bf16":
        autocast = partial(torch.autocast, "cpu", torch.bfloat16)
    step = TrainStep(net, cell.objective, autocast)
    for number in range(steps):
        index = order.batch(number)
        step(fv.Batch(data.take(index)[0], None, index), step_generator(seed, number)).loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), config.clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(number, steps=steps, warmup=config.warmup, peak=config.lr)
        optimizer.step()
        optimizer.zero_grad()
        ema.update(net, number)
        yield ema.net


def seconds_an_update(cells: Mapping[str, Cell], data: Any, *, cpu: bool, rounds: int = 9) -> dict[str, float]:
    """Median time of an update of each configuration, taken in turns."""
    clock = time.process_time if cpu else time.perf_counter
    runs = {name: updates(cell, data, 5 + 5 * rounds, 0) for name, cell in cells.items()}
    times = seconds_in_turns({name: partial(next, run) for name, run in runs.items()}, clock, rounds=rounds, updates=5)
    return {name: statistics.median(values) for name, values in times.items()}


class Scorer:
    """Scores nets by the foundation's protocol."""

    def __init__(self, data: Any) -> None:
        self.train, self.fresh = data.train, data.held_out.x
        self.features = fv.metrics.ClassifierFeatures.fit(self.train.x, self.train.labels)
        self.reference = self._distance(self.train.x)

    def _distance(self, x: torch.Tensor) -> float:
        return fv.metrics.frechet_distance(self.features(x), self.features(self.fresh))

    def __call__(self, net: torch.nn.Module, solvers: tuple[Solver, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {"frechet": []}
        for solver in solvers:
            draws = [
                draw_samples(net, SAMPLES, self.train.shape, seed=DRAW_SEED + draw, solver=solver)[0]
                for draw in range(DRAWS)
            ]
            found["frechet"].append([self._distance(x) / self.reference for x in draws])
            if "copies" not in found:
                near = memorization(draws[0].clamp(-1, 1), self.train.x, self.fresh, kind="image", show=0).data
                found |= {"ratio": near["ratio"], "copies": near["copies"]}
        return found


def updates_of_each(names: list[str], steps: int, seconds: float | None) -> dict[str, int]:
    """How many updates each configuration gets."""
    if seconds is None and "cfm" not in names:
        return dict.fromkeys(names, steps)
    train = fv.load_dataset("digits").train
    cost = seconds_an_update({name: CELLS[name] for name in ["base", *names]}, train, cpu=seconds is None)
    if seconds is not None:
        return {name: max(1, round(seconds / cost[name])) for name in names}
    return {**dict.fromkeys(names, steps), "cfm": round(steps * cost["base"] / cost["cfm"])}


def run(cell: Cell, steps: int, seed: int, scorer: Scorer) -> dict[str, Any]:
    """Train one net and score it."""
    cpu, wall = time.process_time(), time.perf_counter()
    *_, net = updates(cell, scorer.train, steps, seed)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"steps": steps, "wall": round(wall, 1), "cpu": round(1e3 * cpu / steps, 2), **scorer(net, cell.solvers)}


def table(results: Mapping[str, Mapping[str, Any]], amount: str) -> str:
    """The results of one amount of training in Markdown; over several seeds the median, the least and the largest."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    for name, cell in CELLS.items():
        rows = [row for row in results.values() if row["name"] == name and row["amount"] == amount]
        if not rows:
            continue
        scores = [_spread([statistics.mean(row["frechet"][k]) for row in rows]) for k in range(len(cell.solvers))]
        others = [_spread([float(row["ratio"]) for row in rows]), _spread([row["copies"] for row in rows], ".0f")]
        counts, cost = _spread([row["steps"] for row in rows], ".0f"), statistics.median(row["cpu"] for row in rows)
        scores += [""] * (2 - len(scores))
        lines.append(f"| {' | '.join([cell.label, counts, *scores, *others, f'{cost:.0f}'])} |")
    return "\n".join(lines)


def against_cfm(results: Mapping[str, Mapping[str, Any]], amount: str) -> str:
    """One step of ``base`` beside Conditional Flow Matching at equal cost, seed by seed."""
    scores = {
        (row["name"], row["seed"]): statistics.mean(row["frechet"][0])
        for row in results.values()
        if row["amount"] == amount
    }
    ratios = [
        scores["base", s] / value for (name, s), value in scores.items() if name == "cfm" and ("base", s) in scores
    ]
    if not ratios:
        return ""
    each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    return f"\nOne step of base over CFM with 25 Heun steps: median {statistics.median(ratios):.2f} (seeds: {each})"


def _spread(values: list[float], form: str = ".2f") -> str:
    median = format(statistics.median(values), form)
    if len(values) == 1:
        return median
    return f"{median} ({min(values):{form}} to {max(values):{form}})"


def main() -> None:
    """Train and score what is missing, one line each, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--steps", type=int, default=3000, help="updates (default 3000)")
    amount.add_argument("--seconds", type=float, help="train every configuration for about this long")
    parser.add_argument("--seeds", default="0", help="seeds of training, with commas between them (default 0)")
    parser.add_argument("--only", default=",".join(CELLS), help=f"configurations (default: all): {', '.join(CELLS)}")
    parser.add_argument("--json", type=Path, default=Path("meanflow_ablation.json"), help="the results' file")
    options = parser.parse_args()
    names, seeds = options.only.split(","), [int(seed) for seed in options.seeds.split(",")]
    if unknown := sorted(set(names) - set(CELLS)):
        parser.error(f"--only must name some of {', '.join(CELLS)}, got {', '.join(unknown)}")

    results: dict[str, dict[str, Any]] = json.loads(options.json.read_text()) if options.json.exists() else {}
    amount_name = f"{options.steps} updates" if options.seconds is None else f"{options.seconds:g} s"
    keys = {(seed, name): f"{name}, {amount_name}, seed {seed}" for seed in seeds for name in names}
    missing = {place: key for place, key in keys.items() if key not in results}
    steps = updates_of_each([name for _, name in missing], options.steps, options.seconds) if missing else {}
    scorers: dict[int, Scorer] = {}
    for (seed, name), key in missing.items():
        if seed not in scorers:
            scorers[seed] = Scorer(fv.load_dataset("digits", seed=seed))
        results[key] = {
            "name": name,
            "amount": amount_name,
            "seed": seed,
            **run(CELLS[name], steps[name], seed, scorers[seed]),
        }
        part = options.json.with_suffix(".part")
        part.write_text(json.dumps(results, indent=1))
        part.replace(options.json)
        scores = ", ".join(f"{statistics.mean(draws):.3f}" for draws in results[key]["frechet"])
        print(f"{key}: {steps[name]} updates in {results[key]['wall']:.0f} s, Fréchet / reference {scores}", flush=True)
    print(f"\n{table(results, amount_name)}\n{against_cfm(results, amount_name)}")


if __name__ == "__main__":
    main()
