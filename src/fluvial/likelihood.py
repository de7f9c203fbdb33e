r"""Log-density of what a field makes of noise, by the instantaneous change of variables.

Along a trajectory of :math:`dx/dt = v(x, t)` the log-density changes by :math:`d \log p_t(x_t) / dt = -\nabla \cdot
v`: a trace where a change of variables in one step would need the determinant of its Jacobian. So a datum is carried
back to the noise that it comes from, and

.. math:: \log p_1(x_1) = \log N(x_0; 0, I) - \int_0^1 \nabla \cdot v(x_t, t)\, dt.

States and the integral are carried in float64 whatever the field computes in.

Source: Chen et al. 2018, "Neural Ordinary Differential Equations", theorem 1; Grathwohl et al. 2019, "FFJORD".
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fluvial.checks import require_tensor
from fluvial.fields.base import Field, singular_at_end
from fluvial.fields.carried import Carried, log_normal, rademacher
from fluvial.fields.divergences import Divergence, exact_divergence, own_divergence, random_divergence
from fluvial.kinds import checked
from fluvial.levels import bits_per_dim
from fluvial.progress import ProgressCallback, batch_progress
from fluvial.solvers import solve
from fluvial.solvers.grid import Grid
from fluvial.solvers.velocity import share_of_rows

DIVERGENCES = ("exact", "hutchinson", "field")
"""Ways to take the divergence."""


@dataclass(frozen=True)
class LogProb:
    """Log-densities of data under a field.

    Args:
        log_prob: In nats, shape ``(B,)``, float64.
        bits_per_dim: Negative log-densities in bits per number of a datum, shape ``(B,)``; with ``levels``, of
            dequantised data, their mean is an upper bound of that of the data's own grey levels.
        standard_error: Of ``log_prob`` over the random directions, shape ``(B,)``; None for an exact divergence and for
            one direction, which tells nothing of its error.
        evaluations: How many times the field was evaluated on each datum (the most, with dopri5).
    """

    log_prob: Float[Tensor, " B"]
    bits_per_dim: Float[Tensor, " B"]
    standard_error: Float[Tensor, " B"] | None
    evaluations: int


@dataclass(frozen=True)
class Sampled:
    """Samples with their log-densities.

    Args:
        x: Shape ``(B, *D)``.
        density: Their log-densities.
    """

    x: Float[Tensor, "B *D"]
    density: LogProb


@checked
def log_prob(
    field: Field,
    x1: Tensor,
    cond: Any = None,
    *,
    divergence: str = "exact",
    probes: int = 1,
    steps: int | None = None,
    method: str = "dopri5",
    grid: Grid | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    levels: int | None = None,
    batch_size: int = 512,
    differentiable: bool = False,
    generator: torch.Generator | None = None,
    progress: ProgressCallback | None = None,
) -> LogProb:
    """Log-density of data under the distribution that a field makes of standard normal noise.

    Args:
        field: The velocity, ``field(x, t, cond) -> v``; a plain function will do.
        x1: Data, shape ``(B, *D)``; float64 data are given to the field as such.
        cond: Condition of each datum, ``B`` rows; None for none.
        divergence: ``"exact"``: as many backward passes as a datum has numbers; ``"hutchinson"``: one for each of
            ``probes`` random directions, unbiased; ``"field"``: the field's own formula, as of ``fv.ExactField``.
        probes: Random directions of each datum, the same at all times; for ``"hutchinson"``.
        steps: Steps of a fixed-step method.
        method: Method of the solver, see ``fv.solve``.
        grid: Nodes of time of a fixed-step method, from 1 to 0, instead of equal steps.
        rtol: Relative tolerance of dopri5.
        atol: Absolute tolerance of dopri5; errors are root mean squares over a datum's numbers and its log-density.
        levels: Grey levels of data in [-1, 1], such as 256, to which ``bits_per_dim`` then refers; the data must have
            been dequantised (``fluvial.densities.dequantized``).
        batch_size: Data taken together: decides the memory used, not the result (with dopri5 up to its tolerances).
        differentiable: Keep what gradients in the data and in the field's parameters need.
        generator: Where the random directions come from; needed for ``"hutchinson"``.
        progress: Called after each step of the solver with the number of data that are done.

    Returns:
        Log-densities, bits per dimension, their standard error if it is known, and the cost.

    Raises:
        ValueError: If an argument is invalid, the field has no density at t = 1 (sigma = 0), or the integration fails;
            the message names the time and the share of rows.

    Example:
        >>> field = fv.ExactField(torch.zeros(1, 2), fv.CondOT(sigma_min=0.5))    # makes N(0, 0.25 I) of noise
        >>> found = fv.log_prob(field, torch.zeros(1, 2), divergence="field", rtol=1e-6, atol=1e-6)
        >>> round(float(found.log_prob), 4), round(-math.log(2 * math.pi * 0.25), 4)
        (-0.4516, -0.4516)
    """
    _check(field, "x1", x1, cond, divergence, probes, levels, batch_size, generator)
    parts, errors, evaluations = [], [], 0
    for start in range(0, len(x1), batch_size):
        rows = slice(start, start + batch_size)
        x, own = x1[rows], None if cond is None else cond[rows]
        trace = _trace(divergence, x, probes, generator)
        report = batch_progress(progress, "likelihood", start, len(x), len(x1))
        options = {"steps": steps, "method": method, "grid": grid, "rtol": rtol, "atol": atol, "progress": report}
        with torch.set_grad_enabled(differentiable), _naming(rows, len(x1)):
            end, integral, count = _carry(field, x, own, trace, 1.0, 0.0, options)
        each = log_normal(end)[:, None] + integral
        parts.append(each.mean(1))
        if each.shape[1] > 1:
            errors.append(each.std(1) / each.shape[1] ** 0.5)
        evaluations = max(evaluations, count)
    found = torch.cat(parts)
    dim = math.prod(x1.shape[1:])
    return LogProb(found, bits_per_dim(found, dim, levels), torch.cat(errors) if errors else None, evaluations)


@checked
def sample_with_log_prob(
    field: Field,
    x0: Tensor,
    cond: Any = None,
    *,
    divergence: str = "exact",
    probes: int = 1,
    steps: int | None = None,
    method: str = "dopri5",
    grid: Grid | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    levels: int | None = None,
    generator: torch.Generator | None = None,
    progress: ProgressCallback | None = None,
) -> Sampled:
    """Samples and their log-densities in one integration; the arguments are those of :func:`log_prob`.

    Args:
        field: The velocity.
        x0: Noise, shape ``(B, *D)``.
        cond: Condition of each sample.
        divergence: How the divergence is taken.
        probes: Random directions.
        steps: Steps of a fixed-step method.
        method: Method of the solver.
        grid: Nodes of time of a fixed-step method, from 0 to 1.
        rtol: Relative tolerance of dopri5.
        atol: Absolute tolerance of dopri5.
        levels: Grey levels of the data that the field was trained on.
        generator: Where the random directions come from.
        progress: Called after each step of the solver.

    Raises:
        ValueError: As for :func:`log_prob`.

    Example:
        >>> field = fv.ExactField(torch.zeros(1, 2), fv.CondOT(sigma_min=0.5))
        >>> found = fv.sample_with_log_prob(field, torch.ones(1, 2), divergence="field", steps=200, method="rk4")
        >>> found.x, round(float(found.density.log_prob), 4)
        (tensor([[0.5000, 0.5000]]), -1.4516)

        The integral of the trace is the logarithm of the flow map's determinant (Jacobi's formula):

        >>> field = fv.GaussianMixtureField(torch.tensor([[-1.0, 0.0], [1.0, 0.5]]).double(), 0.1)
        >>> x0 = torch.tensor([[0.3, -0.5]]).double()
        >>> jacobian = torch.autograd.functional.jacobian(lambda x: fv.solve(field, x, steps=200, method="rk4").x, x0)
        >>> determinant = torch.linalg.slogdet(jacobian[0, :, 0]).logabsdet
        >>> density = fv.sample_with_log_prob(field, x0, steps=200, method="rk4").density.log_prob
        >>> log_normal = -0.5 * x0.square().sum() - math.log(2 * math.pi)
        >>> bool((density - (log_normal - determinant)).abs() < 1e-6), round(float(determinant), 3)
        (True, -1.015)
    """
    _check(field, "x0", x0, cond, divergence, probes, levels, 1, generator)
    trace = _trace(divergence, x0, probes, generator)
    report = batch_progress(progress, "likelihood", 0, len(x0), len(x0))
    options = {"steps": steps, "method": method, "grid": grid, "rtol": rtol, "atol": atol, "progress": report}
    with torch.no_grad():
        end, integral, evaluations = _carry(field, x0, cond, trace, 0.0, 1.0, options)
    each = log_normal(x0)[:, None] - integral
    error = each.std(1) / each.shape[1] ** 0.5 if each.shape[1] > 1 else None
    found = each.mean(1)
    bits = bits_per_dim(found, math.prod(x0.shape[1:]), levels)
    return Sampled(end.to(x0.dtype), LogProb(found, bits, error, evaluations))


def _carry(
    field: Field, x: Tensor, cond: Any, trace: tuple[Divergence, int], t0: float, t1: float, options: dict[str, Any]
) -> tuple[Tensor, Tensor, int]:
    """End points, integrals of the divergence from t0 to t1 (B, P), and evaluations."""
    estimate, channels = trace
    carried = Carried(field, x, estimate)
    end = solve(carried, carried.start(x, channels), t0=t0, t1=t1, cond=cond, **options)
    points, integral = carried.split(end.x)
    return points, integral, end.evaluations


@contextmanager
def _naming(rows: slice, count: int) -> Iterator[None]:
    """Errors about rows of a batch say which data those are."""
    try:
        yield
    except ValueError as error:
        if rows.start == 0 and rows.stop >= count:
            raise
        raise ValueError(f"{error} (rows of data {rows.start} to {min(rows.stop, count) - 1})") from error


def _trace(divergence: str, x: Tensor, probes: int, generator: torch.Generator | None) -> tuple[Divergence, int]:
    """How the divergence is taken, and how many estimates it gives."""
    if divergence != "hutchinson":
        return (exact_divergence if divergence == "exact" else own_divergence), 1
    return random_divergence(rademacher(x, probes, generator).unbind(1)), probes


def _rows_of(cond: Any) -> int | None:
    """Number of rows; None for what has none."""
    try:
        return len(cond)
    except TypeError:
        return None


def _check(
    field: Field,
    name: str,
    x: Any,
    cond: Any,
    divergence: str,
    probes: int,
    levels: int | None,
    batch_size: int,
    generator: torch.Generator | None,
) -> None:
    require_tensor(name, x)
    if not x.is_floating_point() or x.ndim < 2 or x.numel() == 0:
        given = f"{x.dtype} of shape {tuple(x.shape)}"
        raise ValueError(f"{name} must be floating, of shape (B, *D) with at least one value, got {given}")
    bad = ~x.detach().isfinite().flatten(1).all(1)
    if bool(bad.any()):
        raise ValueError(f"{name} must be finite, got NaN or infinite values in {share_of_rows(bad)}")
    if divergence not in DIVERGENCES:
        raise ValueError(f"divergence must be one of {', '.join(DIVERGENCES)}, got {divergence!r}")
    for option, value, least in (("probes", probes, 1), ("batch_size", batch_size, 1), ("levels", levels, 2)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, Integral) or value < least):
            raise ValueError(f"{option} must be an integer of at least {least}, got {value!r}")
    if divergence == "hutchinson" and generator is None:
        raise ValueError("generator is needed for divergence 'hutchinson': its directions are random")
    count = _rows_of(cond)
    if cond is not None and count != len(x):
        rows = repr(cond) if count is None else count
        raise ValueError(f"cond must have {len(x)} rows, one for each datum, got {rows}")
    own = next(iter(field.parameters()), x) if isinstance(field, torch.nn.Module) else x
    if own.dtype != x.dtype:
        raise ValueError(f"{name} must have the type of the net, {own.dtype}, got {x.dtype}: convert either")
    if singular_at_end(field):
        raise ValueError("the field makes single points of noise (sigma = 0 at t = 1), which have no density")
