"""A continuous normalizing flow trained by maximum likelihood, with and without regularisation, and by flow matching.

The same net, from the same weights, learns the same points for the same time. Maximum likelihood must solve the flow's
equation for every batch, and backwards again for the gradient; flow matching regresses on a velocity that is known, one
evaluation of the net at a time. The table says what each has reached, by the log-density of held-out points (nats per
dimension, exact divergence, the adaptive solver) and by the energy distance between its samples and them, and what an
update and a set of samples cost in evaluations of the net, one after the other. Where the NLL by the five steps of the
training solver is lower than the true one, likelihood has learned to deceive that solver. Seconds are those of the
training thread: wall time on a quiet machine, and the same on a busy one.

Run: python examples/cnf_vs_fm.py [--seconds 90] [--data moons] [--out cnf_vs_fm.png]
Each of the four has 4 seconds by default, enough to see which is ahead; it takes about half a minute with the scores.
"""

import argparse
import math
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fluvial as fv
from fluvial.audits.drawing import COLOURS, draw_figure
from fluvial.objectives import MaximumLikelihood, Objective
from fluvial.randomness import generator, noise
from fluvial.training.ema import EMA

WIDTH, DEPTH, BATCH, LR = 64, 3, 256, 2e-3
SAMPLES, SCORED = 1000, 500
STEPS = 5
TOLERANCES = {"rtol": 1e-3, "atol": 1e-3}
METHODS: dict[str, Objective] = {
    "maximum likelihood": MaximumLikelihood(STEPS),
    "likelihood + RNODE": MaximumLikelihood(STEPS, kinetic=0.05, jacobian=0.05),
    "CFM": fv.CFM(),
    "OT-CFM": fv.CFM(coupling=fv.OptimalTransport()),
}
ENTROPY = {"checkerboard": math.log(8) / 2}
"""In nats per dimension, of data whose density is known."""


@dataclass
class Course:
    """What a training was seen to reach.

    Args:
        seconds: Time spent in training before each score.
        nll: Held-out negative log-density, in nats per dimension.
        distance: Energy distance between samples and held-out points.
        samples: The last samples.
        updates: Updates made.
        solving: Evaluations of dopri5 for one set of samples, at the end.
        believed: Held-out NLL at the end as the solver of the training sees it.
    """

    seconds: list[float] = field(default_factory=list)
    nll: list[float] = field(default_factory=list)
    distance: list[float] = field(default_factory=list)
    samples: Tensor | None = None
    updates: int = 0
    solving: int = 0
    believed: float = math.nan


def train(objective: Objective, data: fv.Dataset, seconds: float, seed: int) -> Course:
    """Train for some seconds, scores not counted, and look at the averaged net ever more rarely on the way."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Smooth in time: with features of 1000 t, likelihood deceives a solver of few steps all the sooner.
        net = fv.nn.MLP(data.shape, WIDTH, DEPTH, time_scale=1.0)
    average = EMA(net, 0.995)
    optimizer = torch.optim.AdamW(net.parameters(), LR, betas=(0.9, 0.95))
    course, spent = Course(), 0.0
    looks = [seconds / 2.0**halvings for halvings in reversed(range(max(3, round(math.log2(seconds)) + 1)))]
    while looks:
        start = time.thread_time()
        draws = generator(seed, course.updates)
        batch = fv.Batch(data.train.take(torch.randint(len(data.train), (BATCH,), generator=draws))[0])
        optimizer.param_groups[0]["lr"] = LR * min(1.0, 4 * (1 - spent / seconds) + 0.02)  # falls in the last quarter
        loss = objective(net, batch, generator=draws).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        average.update(net, course.updates)
        course.updates += 1
        spent += time.thread_time() - start
        if spent >= looks[0]:
            while looks and spent >= looks[0]:
                looks.pop(0)
            look(average.net, data, spent, course, seed)
    return course


def look(net: torch.nn.Module, data: fv.Dataset, spent: float, course: Course, seed: int) -> None:
    """Score a net on held-out points."""
    held_out = data.held_out.x[:SAMPLES]
    with torch.no_grad():
        made = fv.solve(net, noise(seed, 0, SAMPLES, data.shape), method="dopri5", **TOLERANCES)
        nll = -fv.log_prob(net, held_out[:SCORED], **TOLERANCES).log_prob.mean() / held_out[0].numel()
    course.seconds.append(spent)
    course.nll.append(float(nll))
    course.distance.append(fv.metrics.energy_distance(made.x, held_out))
    course.samples, course.solving = made.x, made.evaluations
    with torch.no_grad():
        own = MaximumLikelihood(STEPS, divergence="exact")(net, fv.Batch(held_out[:SCORED]), generator=generator(seed))
    course.believed = float(own.loss)


def draw(courses: dict[str, Course], data: fv.Dataset, figure: Any) -> None:
    """Held-out scores against time, and below them the samples of each beside held-out points."""
    above, below = figure.subfigures(2, 1, height_ratios=(1.35, 1))
    left, right = above.subplots(1, 2)
    for number, (name, course) in enumerate(courses.items()):
        left.plot(course.seconds, course.nll, "o-", color=COLOURS[number], label=name)
        right.plot(course.seconds, [max(value, 1e-5) for value in course.distance], "o-", color=COLOURS[number])
    if data.name in ENTROPY:
        left.axhline(ENTROPY[data.name], color="0.5", linewidth=0.9, linestyle="--", label="entropy of the data")
    for panel, title in ((left, "held-out NLL (nats per dimension)"), (right, "energy distance of samples")):
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter("{x:g}")
        panel.set_xlabel("seconds of training")
        panel.set_title(title, fontsize=10)
        panel.grid(True)
    right.set_yscale("log")
    left.legend(fontsize=8)
    shown = {"held-out data": data.held_out.x[:SAMPLES], **{name: course.samples for name, course in courses.items()}}
    reach = 1.2 * float(shown["held-out data"].abs().max())
    for number, (panel, (name, points)) in enumerate(zip(below.subplots(1, len(shown)), shown.items(), strict=True)):
        panel.scatter(*points.T, s=1.5, alpha=0.6, linewidths=0, color=COLOURS[number - 1] if number else "0.4")
        panel.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[], aspect="equal")
        panel.set_title(name, fontsize=9)


def main() -> None:
    """Train each, print the table and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="checkerboard", help="points in the plane (default checkerboard)")
    parser.add_argument("--seconds", type=float, default=4.0, help="training time of each (default 4)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, batches and samples (default 0)")
    parser.add_argument("--out", type=Path, default=Path("cnf_vs_fm.png"), help="picture (default cnf_vs_fm.png)")
    options = parser.parse_args()

    torch.set_num_threads(1)  # so small a net gains nothing from more
    data = fv.load_dataset(options.data)
    print("|trained by|updates|evaluations an update|held-out NLL|by 5 steps|energy distance|evaluations to sample|")
    print("|---|---:|---:|---:|---:|---:|---:|")
    courses = {}
    for number, (name, objective) in enumerate(METHODS.items()):
        if sys.stderr.isatty():
            print(f"{number + 1} of {len(METHODS)}: {name}, {options.seconds:g} s", end="\r", file=sys.stderr)
        course = courses[name] = train(objective, data, options.seconds, options.seed)
        cost = getattr(objective, "evaluations", 1)
        scores = f"{course.nll[-1]:.3f}|{course.believed:.3f}|{course.distance[-1]:.5f}|{course.solving}"
        print(f"|{name}|{course.updates:,}|{cost}|{scores}|", flush=True)
    options.out.write_bytes(draw_figure(lambda figure: draw(courses, data, figure), size=(8.6, 5.4)))
    print(f"\n{options.out}: scores against time, and the samples at the end")


if __name__ == "__main__":
    main()
