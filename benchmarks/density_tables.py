"""Held-out log-density of real tables: a trained `fv.FlowDensity` beside scikit-learn's two density estimators.

Run: python benchmarks/density_tables.py [--sets breast_cancer,digits,zipcodes] [--jobs 2] [--json out.json]

Duplicates are removed first, then rows are shuffled into splits. Within the training rows of each split the bandwidth
of `KernelDensity` and the components, covariance and regularisation of `GaussianMixture` are chosen by
cross-validation over three shuffled parts, and the flow's settings by the rows that it holds out itself
(`validation_score_`). All see columns standardised by the training rows; digits (integers from 0 to 16) get uniform
noise of one level. The zip codes come with `make data`; without them the set is left out.

Printed: nats per column on the split's test rows, mean over splits with a 95 % interval of Student's t; the flow's
difference to the better of the two, split by split; and the seconds of all flows of a set, with `--jobs` splits at once
on one thread each; and the flows' largest mean solver error, in nats per column.
"""

import argparse
import json
import statistics
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from scipy.stats import t as student
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KernelDensity
from sklearn.preprocessing import StandardScaler

import fluvial as fv

ZIPCODES = Path(__file__).parents[1] / "data" / "zipcodes.csv"
BANDWIDTHS = {"zipcodes": np.geomspace(0.01, 0.3, 15)}
COMPONENTS = {
    "breast_cancer": [1, 2, 3, 4, 5, 6, 8],
    "digits": [1, 5, 7, 10, 12, 15, 20, 30],
    "zipcodes": [20, 30, 50, 75, 100, 150],
}
DIAGONAL = {"breast_cancer": [1, 2, 4, 8, 16], "digits": [20, 30, 50, 80, 120, 160]}
REGULARISATIONS = {"zipcodes": [1e-6, 1e-4]}
FLOWS = {
    "breast_cancer": [{"width": 32}, {"width": 64}, {"width": 128}],
    "digits": [{"width": 64}, {"width": 128}, {"width": 128, "weight_decay": 0.1}],
    "zipcodes": [
        {"width": width, "depth": 3, "steps": 8000, "batch_size": 512, "lr": 3e-3, "ema": 0.999} for width in (64, 128)
    ],
}


def table(name: str) -> np.ndarray:
    """Rows of a set without duplicates, in a fixed order."""
    if name == "breast_cancer":
        return np.unique(load_breast_cancer().data, axis=0)
    if name == "zipcodes":
        return np.unique(np.loadtxt(ZIPCODES, delimiter=",", skiprows=1), axis=0)
    x = np.unique(load_digits().data, axis=0)
    return x + np.random.default_rng(0).random(x.shape)


def split_scores(name: str, train: np.ndarray, test: np.ndarray, number: int) -> dict:
    """Nats per column of the three on the test rows of one split, what was chosen, and the flows' seconds."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="sklearn")  # mixtures that have not converged say so
    scaler = StandardScaler().fit(train)
    train, test = scaler.transform(train), scaler.transform(test)
    parts = KFold(3, shuffle=True, random_state=number)
    bandwidths = BANDWIDTHS.get(name, np.geomspace(0.1, 2, 25))
    kernel = GridSearchCV(KernelDensity(rtol=1e-4), {"bandwidth": bandwidths}, cv=parts).fit(train)
    common = {"reg_covar": REGULARISATIONS.get(name, [1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 0.3])}
    full = ["full", "tied"] if name in DIAGONAL else ["full"]
    grid = [{"covariance_type": full, "n_components": COMPONENTS[name], **common}]
    if name in DIAGONAL:
        grid.append({"covariance_type": ["diag"], "n_components": DIAGONAL[name], **common})
    mixture = GridSearchCV(GaussianMixture(max_iter=200, random_state=number), grid, cv=parts).fit(train)
    start = time.perf_counter()
    flows = [fv.FlowDensity(**options, random_state=number).fit(train) for options in FLOWS[name]]
    best = max(range(len(flows)), key=lambda k: flows[k].validation_score_)
    flow = flows[best].score_samples(test).mean()
    seconds = time.perf_counter() - start
    columns = test.shape[1]
    return {
        "kernel": kernel.score_samples(test).mean() / columns,
        "mixture": mixture.score_samples(test).mean() / columns,
        "flow": flow / columns,
        "seconds": seconds,
        "chosen": {
            "kernel": {"bandwidth": float(kernel.best_params_["bandwidth"])},
            "mixture": mixture.best_params_,
            "flow": {**FLOWS[name][best], "n_iter": flows[best].n_iter_, "solver_error": flows[best].solver_error_},
        },
    }


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval over splits."""
    mean = statistics.fmean(values)
    return mean, student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5


def measure(name: str, splits: int, jobs: int) -> dict:
    """All splits of a set."""
    x = table(name)
    folds = list(KFold(splits, shuffle=True, random_state=0).split(x))
    work = (delayed(split_scores)(name, x[train], x[test], number) for number, (train, test) in enumerate(folds))
    scores = Parallel(n_jobs=jobs)(work)
    found = {kind: interval([each[kind] for each in scores]) for kind in ("kernel", "mixture", "flow")}
    gains = [each["flow"] - max(each["kernel"], each["mixture"]) for each in scores]
    seconds = sum(each["seconds"] for each in scores) / jobs
    worst = max(each["chosen"]["flow"]["solver_error"] for each in scores) / x.shape[1]
    sizes = {"rows": len(x), "columns": x.shape[1]}
    return {**sizes, **found, "gain": interval(gains), "seconds": seconds, "solver_error": worst, "splits": scores}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=",".join(FLOWS))
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    names = options.sets.split(",")
    unknown = sorted(set(names) - set(FLOWS))
    if unknown or options.splits < 2:
        parser.error(
            f"--sets must be of {', '.join(FLOWS)} and --splits at least 2, got {options.sets}, {options.splits}"
        )
    results = {}
    print(f"{'set':14} {'rows':>6} {'d':>3} {'KernelDensity':>16} {'GaussianMixture':>16} {'FlowDensity':>16} "
          f"{'flow - better':>17} {'flows take':>11} {'solver error':>13}")  # fmt: skip
    for name in names:
        if name == "zipcodes" and not ZIPCODES.exists():
            print(f"{name:14} left out: `make data` fetches {ZIPCODES.name}")
            continue
        found = results[name] = measure(name, options.splits, options.jobs)
        cells = [f"{found[kind][0]:8.3f} +- {found[kind][1]:.3f}" for kind in ("kernel", "mixture", "flow")]
        gain = f"{found['gain'][0]:+.3f} +- {found['gain'][1]:.3f}"
        print(f"{name:14} {found['rows']:6} {found['columns']:3} {cells[0]:>16} {cells[1]:>16} {cells[2]:>16} "
              f"{gain:>17} {found['seconds']:9.0f} s {found['solver_error']:13.1e}", flush=True)  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(results, indent=1, default=float))


if __name__ == "__main__":
    main()
