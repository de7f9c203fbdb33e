"""One valid call of every public function and class of fluvial, from which wrong ones are made.

Each entry is a name, what is called, and its arguments by name; what a call may change is made anew for each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import fluvial as fv
from fluvial import conditions, densities, levels, metrics, nn, objectives, randomness, smoothing, support, training
from fluvial.audits.cells import Cell
from fluvial.densities import Trace
from fluvial.fields import breakpoints, singular_at_end
from fluvial.paths import align
from fluvial.solvers.sampling import Solver, draw_samples
from fluvial.support import design, tasks


@dataclass(frozen=True)
class Valid:
    """A valid call.

    Args:
        name: What it is called in reports.
        function: What is called.
        arguments: Its arguments, by name.
        flows: Whether NaN and infinity pass through it, as through arithmetic: a velocity of a NaN is NaN.
        refused: Whether it needs a run, so that it is refused as it stands.
        documented: What says so, where the function is made here.
        hot: Whether it is arithmetic in a solver's loop, whose arguments nobody checks: torch's own errors stand.
        infinite: Whether it says in its documentation that a result may be infinite.
    """

    name: str
    function: Callable[..., Any]
    arguments: Callable[[], dict[str, Any]]
    flows: bool = False
    infinite: bool = False
    refused: bool = False
    documented: Any = None
    hot: bool = False


def _draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _gen() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def _net(**options: Any) -> nn.MLP:
    torch.manual_seed(0)
    return nn.MLP((2,), width=8, depth=1, **options)


def _zero(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
    return -x


X, Y = _draw(12, 2), _draw(9, 2, seed=1)
T = torch.linspace(0.1, 0.9, 12)
LABELS = torch.arange(12) % 3
IMAGES = _draw(4, 1, 8, 8).clamp(-1, 1)
SETS = _draw(3, 6, 2)
QUERIES, TIMES = _draw(3, 5, 2, seed=2), torch.full((3, 5), 0.4)


def calls() -> list[Valid]:
    """Every call."""
    return [
        *_paths(),
        *_fields(),
        *_solving(),
        *_metrics(),
        *_nets(),
        *_support(),
        *_tasks(),
        *_audits(),
        *_objectives(),
        *_data(),
    ]


def _paths() -> list[Valid]:
    path = fv.CondOT(0.1)
    found = [
        Valid("CondOT", fv.CondOT, lambda: {"sigma_min": 0.1}),
        Valid("VP", fv.VP, lambda: {"beta_min": 0.1, "beta_max": 20.0}),
        Valid("Polynomial", fv.Polynomial, lambda: {"n": 2.0}),
        Valid("FromBandwidth", fv.FromBandwidth, lambda: {"h": lambda t: (1 - t) / t, "h_dot": lambda t: -1 / t**2}),
        Valid("path.sample", path.sample, lambda: {"x0": X, "x1": X + 1, "t": T}, flows=True),
        Valid(
            "path.convert",
            path.convert,
            lambda: {"value": X, "x": X + 1, "t": T, "source": "velocity", "target": "score"},
            flows=True,
        ),
        Valid("path.time_at_sigma", path.time_at_sigma, lambda: {"sigma": 0.3}),
        Valid(
            "path.time_at_bandwidth",
            path.time_at_bandwidth,
            lambda: {"bandwidth": torch.tensor([0.5, 2.0])},
            flows=True,
        ),
        Valid("align", align, lambda: {"value": T, "x": X}, flows=True),
    ]
    kinds = (path, fv.VP(), fv.Cosine(), fv.Polynomial(2.0))
    names = ("alpha", "sigma", "alpha_dot", "sigma_dot", "one_minus_alpha", "bandwidth", "wronskian")
    return found + [
        Valid(
            f"{type(kind).__name__}.{name}", getattr(kind, name), lambda: {"t": T}, flows=True, infinite=True, hot=True
        )
        for kind in kinds
        for name in names
    ]


def _fields() -> list[Valid]:
    exact = fv.ExactField(X, labels=LABELS)
    mixture = fv.GaussianMixtureField(_draw(3, 2), 0.2)
    smoothed = fv.SmoothedField(exact, 0.2, perturbations=2)
    at = {"x": X, "t": T}
    return [
        Valid(
            "ExactField",
            fv.ExactField,
            lambda: {
                "support": X,
                "path": fv.VP(),
                "labels": LABELS,
                "log_prior": torch.zeros(12),
                "tol": 0.0,
                "memory": 2**24,
            },
        ),
        Valid("ExactField()", exact, lambda: {**at, "cond": LABELS}, flows=True),
        Valid("ExactField.posterior", exact.posterior, lambda: {**at, "cond": LABELS}, flows=True, infinite=True),
        Valid("ExactField.score", exact.score, lambda: {**at, "cond": LABELS}, flows=True),
        Valid("ExactField.divergence", exact.divergence, lambda: {**at, "cond": LABELS}, flows=True),
        Valid("ExactField.take", exact.take, lambda: {"index": LABELS}),
        Valid(
            "GaussianMixtureField",
            fv.GaussianMixtureField,
            lambda: {
                "means": Y,
                "covariances": torch.eye(2).expand(9, 2, 2),
                "weights": torch.full((9,), 1 / 9),
                "path": fv.VP(),
            },
        ),
        Valid("GaussianMixtureField()", mixture, lambda: {**at, "cond": None}, flows=True),
        Valid("GaussianMixtureField.score", mixture.score, lambda: at, flows=True),
        Valid("GaussianMixtureField.divergence", mixture.divergence, lambda: at, flows=True),
        Valid("GaussianMixtureField.log_prob", mixture.log_prob, lambda: {"x": X, "t": 0.7}, flows=True),
        Valid("GaussianMixtureField.sample", mixture.sample, lambda: {"n": 3, "generator": _gen(), "t": 0.7}),
        Valid(
            "SmoothedField",
            fv.SmoothedField,
            lambda: {"exact": exact, "smoothing": 0.2, "neighbours": 3, "perturbations": 2, "seed": 0},
        ),
        Valid("SmoothedField()", smoothed, lambda: at, flows=True),
        Valid("SmoothedField.denoiser", smoothed.denoiser, lambda: at, flows=True),
        Valid("SmoothedField.divergence", smoothed.divergence, lambda: at, flows=True),
        Valid("SmoothedField.omitted", smoothed.omitted, lambda: at, flows=True),
        Valid("Guided", fv.Guided, lambda: {"field": exact, "scale": 2.0, "interval": (0.1, 0.9)}),
        Valid("Guided()", fv.Guided(exact, 2.0), lambda: {**at, "cond": LABELS}, flows=True),
        Valid("Hybrid", fv.Hybrid, lambda: {"before": exact, "after": _zero, "tau": 0.3}),
        Valid("Hybrid()", fv.Hybrid(exact, _zero, 0.3), lambda: {**at, "cond": LABELS}, flows=True),
        Valid("collapse_time", fv.collapse_time, lambda: {"data": X, "path": fv.VP(), "points": 8, "seed": 0}),
        Valid(
            "similarity_prior",
            fv.similarity_prior,
            lambda: {"query_embeddings": Y, "support_embeddings": X, "temperature": 0.5},
            infinite=True,
        ),
        Valid("breakpoints", breakpoints, lambda: {"field": exact}),
        Valid("singular_at_end", singular_at_end, lambda: {"field": exact}),
        Valid("Support", smoothing.Support, lambda: {"points": X, "labels": LABELS, "log_prior": torch.zeros(12)}),
        Valid("Effort", smoothing.Effort, lambda: {"tol": 0.0, "memory": 2**24}),
        Valid("Embedding", fv.Embedding, lambda: {"value": X, "present": T > 0}, flows=True),
        Valid("Embedding.of", fv.Embedding.of, lambda: {"value": X}, flows=True),
        Valid("Tokens", fv.Tokens, lambda: {"value": SETS, "mask": SETS[..., 0] < 9}, flows=True),
        Valid("Tokens.of", fv.Tokens.of, lambda: {"value": SETS}, flows=True),
        Valid(
            "drop_conditions", conditions.drop_conditions, lambda: {"cond": LABELS, "share": 0.5, "generator": _gen()}
        ),
    ]


def _solving() -> list[Valid]:
    exact = fv.ExactField(X, fv.CondOT(0.2))
    both = {"cond": None, "divergence": "hutchinson", "probes": 2, "generator": None}
    fixed = {"steps": 2, "method": "heun", "levels": 16}

    def likelihood(start: str) -> dict[str, Any]:
        return {"field": exact, start: X, **both, **fixed, "generator": _gen()}

    return [
        Valid(
            "solve",
            fv.solve,
            lambda: {
                "field": exact,
                "x0": X,
                "steps": 2,
                "method": "heun",
                "t0": 0.0,
                "t1": 1.0,
                "save_at": [0.2, 0.5],
            },
        ),
        Valid(
            "solve grid",
            fv.solve,
            lambda: {"field": _zero, "x0": X, "grid": [0.0, 0.3, 1.0], "cond": None, "progress": None},
        ),
        Valid(
            "solve dopri5", fv.solve, lambda: {"field": _zero, "x0": X, "method": "dopri5", "rtol": 1e-2, "atol": 1e-2}
        ),
        Valid("log_prob", fv.log_prob, lambda: {**likelihood("x1"), "batch_size": 5, "differentiable": False}),
        Valid(
            "log_prob dopri5",
            fv.log_prob,
            lambda: {"field": exact, "x1": X, "divergence": "field", "rtol": 1e-2, "atol": 1e-2},
        ),
        Valid("sample_with_log_prob", fv.sample_with_log_prob, lambda: likelihood("x0")),
        Valid("bits_per_dim", levels.bits_per_dim, lambda: {"log_prob": T, "dim": 2, "levels": 16}, flows=True),
        Valid(
            "spread_levels", levels.spread_levels, lambda: {"x": X, "uniform": X.sigmoid(), "levels": 16}, flows=True
        ),
        Valid("Trace.of", Trace.of, lambda: {"dim": 4, "divergence": "hutchinson", "probes": 2}),
        Valid(
            "dequantized",
            densities.dequantized,
            lambda: {"x": X.clamp(-1, 1), "levels": 16, "index": torch.arange(12), "seed": 0},
        ),
        Valid("in_original_units", densities.in_original_units, lambda: {"log_prob": T, "table": None}, flows=True),
        Valid(
            "draw_samples",
            draw_samples,
            lambda: {"field": exact, "n": 3, "shape": (2,), "solver": Solver("euler", 2), "seed": 0, "batch_size": 2},
        ),
        Valid(
            "draw_with_log_prob",
            densities.draw_with_log_prob,
            lambda: {
                "field": exact,
                "n": 3,
                "shape": (2,),
                "trace": Trace(),
                "solver": Solver("euler", 2),
                "seed": 0,
                "batch_size": 2,
            },
        ),
        Valid(
            "generator", lambda seed, counter: randomness.generator(seed, counter), lambda: {"seed": 0, "counter": 1}
        ),
        Valid(
            "noise",
            randomness.noise,
            lambda: {"seed": 0, "start": 1, "count": 2, "shape": (2,), "dtype": torch.float32},
        ),
    ]


def _metrics() -> list[Valid]:
    a, b, c = _draw(40, 3), _draw(36, 3, seed=1), _draw(38, 3, seed=2)
    pair, train = {"a": a, "b": b}, {"samples": a, "train": b}
    statistics = metrics.GaussianStatistics.of(a)
    return [
        Valid("frechet_distance", metrics.frechet_distance, lambda: pair),
        Valid("frechet_estimate", metrics.frechet_estimate, lambda: {**pair, "groups": 3, "seed": 0}),
        Valid("frechet_extrapolation", metrics.frechet_extrapolation, lambda: {**pair, "parts": (1, 2), "seed": 0}),
        Valid("GaussianStatistics.of", metrics.GaussianStatistics.of, lambda: {"x": a}),
        Valid("GaussianStatistics.distance", statistics.distance, lambda: {"other": metrics.GaussianStatistics.of(b)}),
        Valid("kernel_distance", metrics.kernel_distance, lambda: {**pair, "subsets": 2, "subset_size": 15, "seed": 0}),
        Valid("energy_distance", metrics.energy_distance, lambda: pair),
        Valid("batched_energy_distance", metrics.batched_energy_distance, lambda: {"a": SETS, "b": SETS + 1}),
        Valid("mmd2", metrics.mmd2, lambda: {**pair, "bandwidth": 1.0}),
        Valid("batched_mmd2", metrics.batched_mmd2, lambda: {"a": SETS, "b": SETS + 1, "bandwidth": 1.0}),
        Valid("median_distance", metrics.median_distance, lambda: {"x": a}),
        Valid("batched_median_distance", metrics.batched_median_distance, lambda: {"x": SETS}),
        Valid(
            "classifier_two_sample",
            metrics.classifier_two_sample,
            lambda: {**pair, "kind": "linear", "seed": 0, "folds": 2},
        ),
        Valid("ct_test", metrics.ct_test, lambda: {**train, "held_out": c, "cells": 2, "seed": 0}),
        Valid("find_duplicates", metrics.find_duplicates, lambda: {"x": a, "near": 0.1, "name": "x"}),
        Valid("k_nearest", metrics.k_nearest, lambda: {"queries": a, "reference": b, "k": 3, "exclude_self": False}),
        Valid("nearest_neighbours", metrics.nearest_neighbours, lambda: {"queries": a, "reference": b}),
        Valid("nearest_neighbour_ratio", metrics.nearest_neighbour_ratio, lambda: {**train, "held_out": c}),
        Valid("prdc", metrics.prdc, lambda: {"samples": a, "reference": b, "k": 3}),
        Valid("local_ratios", metrics.local_ratios, lambda: train, infinite=True),
        Valid("authenticity", metrics.authenticity, lambda: train),
        Valid(
            "ClassifierFeatures.fit",
            metrics.ClassifierFeatures.fit,
            lambda: {"x": a, "labels": torch.arange(40) % 2, "seed": 0},
        ),
        Valid(
            "load_extractor",
            metrics.load_extractor,
            lambda: {"name": "pixels", "train": IMAGES, "labels": None, "weights": None},
        ),
        Valid(
            "extract_features",
            metrics.extract_features,
            lambda: {"extractor": metrics.load_extractor("pixels", train=IMAGES), "x": IMAGES, "batch_size": 2},
        ),
    ]


def _nets() -> list[Valid]:
    shape = {"shape": (1, 8, 8), "width": 8, "depth": 1}
    extra = {"classes": 3, "gap": False}
    unet, dit = nn.UNet((1, 8, 8), 8, classes=3), nn.DiT((1, 8, 8), 8, 1, heads=2, classes=3)
    mlp, attention = _net(classes=3), nn.SelfAttention(8, 2)
    on = {"x": IMAGES, "t": torch.rand(4), "cond": torch.arange(4) % 3}
    net = nn.SupportNet(2, 8, 1, 2)
    return [
        Valid("MLP", nn.MLP, lambda: {"shape": (2,), "width": 8, "depth": 1, "time_scale": 1.0, **extra}),
        Valid("MLP()", mlp, lambda: {"x": X, "t": T, "cond": LABELS}, flows=True),
        Valid(
            "UNet",
            nn.UNet,
            lambda: {
                **shape,
                **extra,
                "multipliers": (1, 2),
                "attention": (4,),
                "head_width": 4,
                "stem": 1,
                "dropout": 0.1,
            },
        ),
        Valid("UNet()", unet, lambda: on, flows=True),
        Valid("DiT", nn.DiT, lambda: {**shape, **extra, "patch": 2, "heads": 2, "dropout": 0.1}),
        Valid("DiT()", dit, lambda: on, flows=True),
        Valid("Conditioning", nn.Conditioning, lambda: {"width": 8, "classes": 3}),
        Valid("LabelEmbedding", nn.LabelEmbedding, lambda: {"classes": 3, "dim": 8}),
        Valid("LabelEmbedding()", nn.LabelEmbedding(3, 8), lambda: {"labels": LABELS, "rows": 12}),
        Valid("TimeEmbedding", nn.TimeEmbedding, lambda: {"dim": 8, "scale": 10.0}),
        Valid("TimeEmbedding()", nn.TimeEmbedding(8), lambda: {"t": T}, flows=True, infinite=True),
        Valid("Preconditioned", nn.Preconditioned, lambda: {"net": mlp, "path": fv.CondOT()}),
        Valid(
            "ReferenceEncoder", nn.ReferenceEncoder, lambda: {"shape": (1, 8, 8), "tokens": 8, "grid": 2, "width": 8}
        ),
        Valid("SelfAttention", nn.SelfAttention, lambda: {"width": 8, "heads": 2}),
        Valid("SelfAttention()", attention, lambda: {"x": _draw(2, 3, 8)}, flows=True),
        Valid("TokenAttention", nn.TokenAttention, lambda: {"width": 8, "tokens": 4, "heads": 2, "scale": 1.0}),
        Valid("SupportNet", nn.SupportNet, lambda: {"dim": 2, "width": 8, "blocks": 1, "heads": 2}),
        Valid("SupportNet()", net, lambda: {"x": QUERIES, "t": TIMES, "cond": SETS}, flows=True),
        *_wrapped(),
        Valid(
            "preset",
            nn.preset,
            lambda: {"name": "mlp", "shape": (2,), "width": 8, "depth": 1, "dropout": None, "classes": 3},
        ),
    ]


def _wrapped() -> list[Valid]:
    """A model of the library diffusers; nothing where that is absent."""
    try:
        from diffusers import UNet2DModel
    except ImportError:
        return []
    small = {"block_out_channels": (8,), "norm_num_groups": 4, "layers_per_block": 1}
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    model = UNet2DModel(sample_size=8, in_channels=1, out_channels=1, num_class_embeds=3, **small, **blocks)
    settings = {"model": model, "time_scale": 1000.0, "clock": "fluvial", "null_label": 2}
    field = nn.wrap_diffusers(**settings)
    return [
        Valid("wrap_diffusers", nn.wrap_diffusers, lambda: settings),
        Valid(
            "DiffusersField()",
            field,
            lambda: {"x": IMAGES, "t": torch.rand(4), "cond": torch.arange(4) % 3},
            flows=True,
        ),
    ]


def _support() -> list[Valid]:
    kernel = support.KernelAttention(fv.CondOT(0.1))
    shells = tasks.Shells(2)
    curve = design.effective_sizes(shells, 6, [0.1, 0.5, 2.0], tasks=6, queries=4)
    at = {"x": QUERIES, "t": TIMES, "support": SETS, "mask": SETS[..., 0] < 9}
    small = {"m": 4, "seed": 0}
    return [
        Valid(
            "KernelAttention",
            support.KernelAttention,
            lambda: {"path": fv.CondOT(), "dim": 2, "heads": 2, "metric": "learned"},
        ),
        Valid("KernelAttention()", kernel, lambda: at, flows=True),
        Valid("KernelAttention.weights", kernel.weights, lambda: at, flows=True),
        Valid("KernelAttention.posterior_mean", kernel.posterior_mean, lambda: at, flows=True),
        Valid("KernelAttention.effective_sample_size", kernel.effective_sample_size, lambda: at, flows=True),
        Valid(
            "SupportConfig.validate",
            lambda **k: support.SupportConfig(**k).validate(),
            lambda: {
                "tasks": "shells",
                "dim": 2,
                "m": 4,
                "width": 8,
                "lr": 1e-3,
                "sigma_min": 0.1,
                "ema": 0.9,
                "seed": 0,
            },
        ),
        Valid("balanced_bandwidths", support.balanced_bandwidths, lambda: {"scale": 1.0, "steps": 4}),
        Valid("even_bandwidths", design.even_bandwidths, lambda: {"scale": 1.0, "steps": 4, "first": 6.0, "last": 0.1}),
        Valid("geometric_sizes", design.geometric_sizes, lambda: {"m": 6, "floor": 1.1}),
        Valid("balanced_sizes", support.balanced_sizes, lambda: {"curve": curve, "share": 0.8}),
        Valid("bandwidth_grid", support.bandwidth_grid, lambda: {"bandwidths": [2.0, 1.0, 0.5], "path": fv.CondOT()}),
        Valid(
            "design_grid",
            support.design_grid,
            lambda: {"curve": curve, "sizes": design.geometric_sizes(6), "steps": 3, "path": fv.CondOT()},
        ),
        Valid(
            "design_bandwidth",
            support.design_bandwidth,
            lambda: {"curve": curve, "sizes": design.geometric_sizes(3, 1.2)},
        ),
        Valid(
            "effective_sizes",
            support.effective_sizes,
            lambda: {"source": shells, "bandwidths": [0.1, 1.0], "tasks": 4, "queries": 3, **small},
        ),
        Valid(
            "evaluate",
            support.evaluate,
            lambda: {
                "model": kernel,
                "family": shells,
                "tasks": 3,
                "points": 6,
                "steps": 2,
                "tuning_tasks": 2,
                **small,
            },
        ),
        Valid("diagnose", support.diagnose, lambda: {"data": shells, "tasks": 3, **small}),
        Valid(
            "plug_in_samples",
            support.plug_in_samples,
            lambda: {"support": SETS, "n": 3, "bandwidth": 0.1, "generator": _gen()},
        ),
        Valid(
            "probe",
            support.probe,
            lambda: {
                "model": torch.nn.MultiheadAttention(8, 2, batch_first=True),
                "names": "*",
                "times": [0.5],
                "self_attention": True,
                "batch": slice(1, None),
                "queries": 4,
                "permutations": 2,
                "keep": True,
                "seed": 0,
            },
        ),
        Valid("MetaTrainer", support.MetaTrainer, lambda: {"config": support.SupportConfig(), "run": "absent"}),
        Valid("load_support_run", support.load_support_run, lambda: {"folder": "absent"}, refused=True),
        Valid(
            "compare_grids",
            support.compare_grids,
            lambda: {
                "model": kernel,
                "family": shells,
                "grids": {"a": [0.0, 0.5, 1.0], "b": [0.0, 0.7, 1.0]},
                "tasks": 3,
                "points": 6,
                **small,
            },
        ),
    ]


def _tasks() -> list[Valid]:
    features, labels = np.asarray(_draw(120, 4)), np.arange(120) % 6
    size = {"count": 2, "m": 3, "n": 4}
    found = [
        Valid("parse_family", tasks.parse_family, lambda: {"name": "shells", "dim": 2}),
        Valid("family_by_name", tasks.family_by_name, lambda: {"name": "gmm", "dim": 2, "split": "train", "m": 4}),
        Valid(
            "ClassTasks",
            tasks.ClassTasks,
            lambda: {"features": features, "labels": labels, "dim": 2, "split": "train", "m": 4, "seed": 0},
        ),
        Valid("FourierDensities", tasks.FourierDensities, lambda: {"dim": 2, "strength": 0.5}),
        Valid(
            "GaussianMixtures",
            tasks.GaussianMixtures,
            lambda: {"dim": 2, "mean_scale": 5.0, "factor_scale": 1.0, "ridge": 0.1},
        ),
        Valid("Shells", tasks.Shells, lambda: {"dim": 2, "largest_radius": 5.0, "noise": 0.3}),
        Valid("Mixed", tasks.Mixed, lambda: {"families": [tasks.Rings(), tasks.Moons()], "name": "mixed"}),
    ]
    for family in (
        tasks.Shells(2),
        tasks.Rings(),
        tasks.GaussianMixtures(2),
        tasks.Mixed([tasks.Rings(), tasks.Moons()]),
    ):
        name = type(family).__name__
        found.append(Valid(f"{name}.batch", family.batch, lambda: {**size, "generator": _gen()}))
        found.append(Valid(f"{name}.sample", family.sample, lambda: {"m": 3, "n": 4, "generator": _gen()}))
    return found


def _audits() -> list[Valid]:
    train, held_out = _draw(40, 2), _draw(30, 2, seed=4)
    exact = fv.ExactField(train)
    data = {"train": train, "held_out": held_out}
    cells = [
        Cell(n, 8, 0, 2, 100, [0.1], [0.5], 0.5, 0.1, 0.5, 1.0, 0.5, 3, 20, 0.1, {"values": 1.0}, {"values": 1.0}, 1.0)
        for n in (4, 8)
    ]
    budget = fv.Budget(samples=40, solver=Solver("euler", 2), pairs=8, times=3, hybrids=8, taus=3, steps=3)
    return [
        Valid(
            "Budget",
            fv.Budget,
            lambda: {
                "samples": 40,
                "solver": Solver("euler", 2),
                "pairs": 8,
                "times": 3,
                "hybrids": 8,
                "taus": 3,
                "steps": 3,
            },
        ),
        Valid(
            "audit",
            fv.audit,
            lambda: {"field": _zero, **data, "only": ("collapse", "memorization"), "budget": budget, "seed": 0},
        ),
        Valid(
            "audits.collapse", fv.audits.collapse, lambda: {"train": train, "path": fv.CondOT(), "points": 8, "seed": 0}
        ),
        Valid(
            "audits.stochasticity",
            fv.audits.stochasticity,
            lambda: {"train": train, "times": [0.1, 0.5], "pairs": 8, "halvings": 1, "shape_kind": "points", "seed": 0},
        ),
        Valid(
            "audits.approximation",
            fv.audits.approximation,
            lambda: {"field": _zero, "exact": exact, **data, "times": [0.1, 0.5], "draws": 8, "steps": 2, "seed": 0},
        ),
        Valid(
            "audits.hybrid",
            fv.audits.hybrid,
            lambda: {
                "field": _zero,
                "exact": exact,
                **data,
                "taus": [0.0, 0.5, 1.0],
                "n": 8,
                "steps": 2,
                "kind": "points",
                "seed": 0,
            },
        ),
        Valid(
            "audits.memorization",
            fv.audits.memorization,
            lambda: {"samples": _draw(20, 2, seed=7), **data, "alpha": 0.05, "kind": "points", "seed": 0, "show": 2},
        ),
        Valid("audits.scaling", fv.audits.scaling, lambda: {"cells": cells, "compute": "flops"}),
        Valid(
            "audits.quality",
            fv.audits.quality,
            lambda: {"samples": _draw(40, 2, seed=7), **data, "extractors": [lambda x: x.flatten(1)], "seed": 0},
        ),
    ]


def _objectives() -> list[Valid]:
    return [
        Valid("CFM", fv.CFM, lambda: {"path": fv.CondOT(), "coupling": fv.Independent(), "times": fv.Uniform()}),
        Valid(
            "EFM",
            fv.EFM,
            lambda: {"path": fv.CondOT(), "data": X, "bank_size": 4, "labels": LABELS, "times": fv.Uniform()},
        ),
        Valid(
            "MeanFlow",
            fv.MeanFlow,
            lambda: {"share": 0.5, "power": 0.0, "offset": 1e-3, "omega": 1.0, "kappa": 0.0, "interval": (0.0, 1.0)},
        ),
        Valid(
            "MaximumLikelihood",
            fv.MaximumLikelihood,
            lambda: {
                "steps": 2,
                "method": "rk4",
                "divergence": "hutchinson",
                "probes": 1,
                "kinetic": 0.0,
                "jacobian": 0.0,
                "levels": 16,
            },
        ),
        Valid(
            "OptimalTransport",
            fv.OptimalTransport,
            lambda: {"method": "exact", "within_labels": False, "regularization": 0.05},
        ),
        Valid("LogitNormal", fv.LogitNormal, lambda: {"mean": 0.0, "std": 1.0}),
        Valid("LogUniformBandwidth", fv.LogUniformBandwidth, lambda: {"low": 0.01, "high": 10.0}),
        Valid("OrderedPairs", fv.OrderedPairs, lambda: {"times": fv.Uniform()}),
        Valid("SeparatePairs", fv.SeparatePairs, lambda: {"start": fv.Uniform(), "end": fv.Uniform()}),
        *(
            Valid(f"{type(times).__name__}()", times, lambda: {"count": 4, "generator": _gen(), "dtype": torch.float32})
            for times in (fv.Uniform(), fv.LogitNormal(), fv.LogUniformBandwidth(), fv.OrderedPairs())
        ),
        *(
            Valid(
                f"{type(coupling).__name__}()",
                coupling,
                lambda: {"x0": X, "x1": X, "labels": LABELS, "generator": _gen()},
            )
            for coupling in (fv.Independent(), fv.OptimalTransport(within_labels=True))
        ),
        Valid("Batch", fv.Batch, lambda: {"x1": X, "cond": LABELS, "index": LABELS}, flows=True),
        Valid(
            "CFM()",
            lambda net, x1, cond, generator: fv.CFM()(net, fv.Batch(x1, cond), generator=generator),
            lambda: {"net": _net(classes=3), "x1": X, "cond": LABELS, "generator": _gen()},
            flows=True,
            documented=fv.CFM,
        ),
        *(
            Valid(
                f"{type(objective).__name__}()",
                objective,
                lambda: {"net": _net(classes=3, gap=True), "batch": fv.Batch(X, LABELS), "generator": _gen()},
                flows=True,
            )
            for objective in (
                fv.EFM(fv.CondOT(), X, labels=LABELS),
                fv.MeanFlow(),
                fv.MaximumLikelihood(steps=2, method="euler"),
            )
        ),
        Valid(
            "self_consistency",
            objectives.self_consistency,
            lambda: {"net": lambda x, t, cond=None, r=None: x, "x": X, "t": T * 0.1, "s": T * 0.5, "r": T},
            flows=True,
        ),
    ]


def _data() -> list[Valid]:
    data = fv.Dataset(X, LABELS)
    rows = np.asarray(_draw(40, 2), dtype=np.float64)
    flow = fv.FlowDensity(width=8, depth=1, steps=2, batch_size=8, random_state=0).fit(rows)
    exact = fv.ExactDensity(bandwidth=0.5).fit(rows)
    found = [
        Valid(
            "Dataset",
            fv.Dataset,
            lambda: {
                "values": X,
                "labels": LABELS,
                "name": "x",
                "levels": None,
                "kind": "points",
                "class_names": ["a", "b", "c"],
            },
        ),
        Valid("Dataset.take", data.take, lambda: {"indices": [0, 1]}),
        Valid("Dataset.inverse", data.inverse, lambda: {"x": X}, flows=True),
        Valid("Dataset.split", data.split, lambda: {"held_out": 0.25, "seed": 0}),
        Valid("load_dataset", fv.load_dataset, lambda: {"spec": "moons", "seed": 0, "size": None, "held_out": 0.2}),
        *_reading(data),
        Valid(
            "FlowDensity.fit",
            lambda X, **k: fv.FlowDensity(depth=1, batch_size=8, **k).fit(X),
            lambda: {
                "X": rows,
                "width": 8,
                "steps": 2,
                "lr": 1e-3,
                "ema": 0.9,
                "sigma_min": 0.1,
                "validation_fraction": 0.2,
                "patience": 1,
                "random_state": 0,
            },
        ),
        Valid("ExactDensity.fit", lambda X, **k: fv.ExactDensity(**k).fit(X), lambda: {"X": rows, "bandwidth": 0.5}),
    ]
    for name, estimator in (("FlowDensity", flow), ("ExactDensity", exact)):
        found.append(Valid(f"{name}.score_samples", estimator.score_samples, lambda: {"X": rows}))
        found.append(Valid(f"{name}.score", estimator.score, lambda: {"X": rows}))
        found.append(Valid(f"{name}.sample", estimator.sample, lambda: {"n_samples": 2, "random_state": 0}))
    return found


def _reading(data: fv.Dataset) -> list[Valid]:
    """Data sets made of others, and images."""
    pixels = ((IMAGES + 1) * 127.5).to(torch.uint8)
    return [
        Valid("Dataset.subset", data.subset, lambda: {"indices": [0, 1]}),
        Valid("Dataset.with_split", data.with_split, lambda: {"train": [0, 1], "held_out": [2]}),
        Valid("Dataset.without_classes", data.without_classes, lambda: {"classes": [0]}),
        Valid("parse_spec", fv.data.parse_spec, lambda: {"spec": "moons"}),
        Valid("from_uint8", fv.data.from_uint8, lambda: {"values": pixels, "levels": 16}),
        Valid("to_uint8", fv.data.to_uint8, lambda: {"x": IMAGES}),
        Valid("image_grid", fv.data.image_grid, lambda: {"x": IMAGES, "columns": 2, "scale": 1}),
        Valid("load_run", training.load_run, lambda: {"folder": "absent"}, refused=True),
        Valid("EMA", training.EMA, lambda: {"net": _net(), "decay": 0.5}),
        Valid("Trainer", training.Trainer, lambda: {"config": training.TrainConfig(), "run": "absent"}),
    ]
