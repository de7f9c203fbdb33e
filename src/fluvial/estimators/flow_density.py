"""Density estimation by flow matching, as a scikit-learn estimator."""

import math
import os
import warnings
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from fluvial.estimators.base import RowDensity
from fluvial.estimators.fitting import Fit, Recipe, fit_flow, make_net
from fluvial.estimators.saving import column_names, read_file, save_file, set_column_names
from fluvial.estimators.values import draw_seed, require_count, require_device, require_samples
from fluvial.estimators.whitening import Whitening
from fluvial.likelihood import DIVERGENCES, log_prob
from fluvial.progress import ProgressCallback
from fluvial.randomness import generator, noise
from fluvial.solvers import solve

MOST_HELD_OUT = 1000
"""Rows beyond which more of them would not tell better when to stop."""
SOLVER_TOLERANCE = 0.01
"""Mean error of the solver, in nats per column, above which ``fit`` warns."""


class FlowDensity(RowDensity):
    """Density of rows learned by flow matching; it stands where ``KernelDensity`` or ``GaussianMixture`` would.

    Rows are whitened, so that before its first update the flow is the Gaussian of their covariance, and a net learns
    what they have beyond it. Some rows are held out of training: their log-density says when to stop. Densities are
    exact up to the solver's error, which ``fit`` measures.

    Source: Lipman et al. 2023, "Flow Matching for Generative Modeling"; Chen et al. 2018, "Neural Ordinary Differential
    Equations", for the density.

    Args:
        width: Features in a layer of the net, a multiple of 8.
        depth: Residual blocks of the net.
        steps: Most updates.
        batch_size: Rows in an update.
        lr: Peak learning rate of AdamW; it falls linearly to 0.
        weight_decay: Decoupled weight decay.
        ema: Decay of the average of the weights, in [0, 1).
        sigma_min: Standard deviation of the noise left around each row, in white units, in [0, 1); 0 for none.
        reg_covar: Added to the diagonal of the correlations that are whitened.
        validation_fraction: Share of the rows held out, at most half and 1,000 of them; 0 trains on all, to the last
            update.
        patience: Looks at the held-out rows without a gain after which training stops; there are 12.
        solver_steps: Steps of the Runge-Kutta method of order 4 that carries rows to noise, or back.
        divergence: ``"exact"``, or ``"hutchinson"`` for wide tables: random, but the same for a given row number.
        probes: Random directions of ``"hutchinson"``.
        random_state: Seed of everything, an int for the same result each time.
        device: Where torch computes.
        progress: Called at each look with the updates made.

    Attributes:
        field_: The learned velocity field of white rows, in float64.
        whitening_: The map from rows to white rows.
        n_iter_: Updates that the kept net has seen.
        history_: Updates and mean log-density of the held-out white rows at each look.
        validation_score_: Mean log-density of the held-out rows in nats, in the table's units; NaN without any.
        solver_error_: Mean change of the held-out rows' log-density in nats when the solver's steps are halved.
        n_features_in_: Number of columns.
        feature_names_in_: Their names, where the rows had any.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(200, 2))
        >>> flow = fv.FlowDensity(width=16, steps=20, random_state=0).fit(rows)
        >>> flow.score_samples(rows[:3]).shape, flow.sample(5, random_state=0).shape
        ((3,), (5, 2))
    """

    def __init__(
        self,
        *,
        width: int = 128,
        depth: int = 2,
        steps: int = 3000,
        batch_size: int = 256,
        lr: float = 2e-3,
        weight_decay: float = 0.0,
        ema: float = 0.995,
        sigma_min: float = 0.0,
        reg_covar: float = 1e-6,
        validation_fraction: float = 0.15,
        patience: int = 3,
        solver_steps: int = 20,
        divergence: str = "exact",
        probes: int = 8,
        random_state: int | np.random.RandomState | None = None,
        device: str = "cpu",
        progress: ProgressCallback | None = None,
    ) -> None:
        self.width = width
        self.depth = depth
        self.steps = steps
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.ema = ema
        self.sigma_min = sigma_min
        self.reg_covar = reg_covar
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.solver_steps = solver_steps
        self.divergence = divergence
        self.probes = probes
        self.random_state = random_state
        self.device = device
        self.progress = progress

    def fit(self, X: Any, y: Any = None) -> "FlowDensity":
        """Learn the density of rows.

        Args:
            X: Rows, shape ``(n, d)``, at least 2.
            y: Ignored.

        Raises:
            ValueError: If ``X`` or a setting is invalid, or training diverges.
        """
        self._check()
        rows = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        seed = draw_seed(self.random_state)
        order = torch.randperm(len(rows), generator=generator(seed)).numpy()
        count = min(round(self.validation_fraction * len(rows)), MOST_HELD_OUT, len(rows) // 2)
        held_out, train = rows[np.sort(order[:count])], rows[np.sort(order[count:])]
        self.whitening_ = Whitening.fit(train, self.reg_covar)
        white, kept = (torch.from_numpy(self.whitening_.forward(part)).float() for part in (train, held_out))
        found = fit_flow(white.to(self.device), kept.to(self.device), self._recipe, seed, self.progress)
        self._keep(found)
        self._validate(held_out if count else train[:MOST_HELD_OUT], held_out=count > 0)
        return self

    def score_samples(self, X: Any) -> Float64[np.ndarray, " n"]:
        """Log-density of each row, in nats, in the units of the rows.

        Args:
            X: Rows, shape ``(n, d)``.

        Raises:
            ValueError: If ``X`` has another number of columns than the rows that were learned.
        """
        check_is_fitted(self)
        return self._log_prob(validate_data(self, X, dtype=np.float64, reset=False), self.solver_steps)

    def sample(
        self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None
    ) -> Float64[np.ndarray, "n d"]:
        """Draw rows, as ``KernelDensity`` does.

        Args:
            n_samples: How many.
            random_state: Seed of the noise.

        Raises:
            ValueError: If ``n_samples`` is below 1, or so many do not fit into memory.
        """
        check_is_fitted(self)
        count = require_samples(n_samples, self.n_features_in_)
        x0 = noise(draw_seed(random_state), 0, count, (self.n_features_in_,), torch.float64).to(self.device)
        with torch.no_grad():
            white = solve(self.field_, x0, steps=self.solver_steps, method="rk4").x
        return self.whitening_.inverse(white.cpu().numpy())

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to one file, a safetensors file with its settings in the header.

        Args:
            file: Where to write; replaced if it exists. A ``random_state`` that is no int, ``progress`` and ``device``
                are left out.

        Raises:
            OSError: If it cannot be written; a file that was there is as it was.
        """
        check_is_fitted(self)
        seed = int(self.random_state) if isinstance(self.random_state, Integral) else None
        settings = {**self.get_params(), "random_state": seed}
        del settings["progress"], settings["device"]
        values = {
            "settings": settings,
            "columns": self.n_features_in_,
            "names": column_names(self),
            "fitted": {name: getattr(self, name) for name in _SCALARS},
            "log_det": self.whitening_.log_det,
        }
        arrays = {name: torch.from_numpy(getattr(self.whitening_, name)) for name in _WHITENING}
        net = {f"net.{name}": value.float() for name, value in self.field_.net.state_dict().items()}
        save_file(file, type(self).__name__, values, {**arrays, **net})

    @classmethod
    def load(cls, file: str | os.PathLike[str], device: str = "cpu") -> "FlowDensity":
        """Read an estimator that :meth:`save` wrote; it gives the same densities to the bit.

        Args:
            file: The file.
            device: Where torch computes from now on.

        Raises:
            ValueError: If there is no such file, it is damaged, or it holds another estimator.
        """
        values, tensors = read_file(file, cls.__name__)
        require_device(device)
        try:
            found = cls(**values["settings"], device=device)
            found._check()
            found._restore(values, tensors)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise ValueError(f"{file} is damaged: {error}") from error
        return found

    def _restore(self, values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        dim = int(values["columns"])
        shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        # Before a net is built: the header's sizes are those of the arrays in the file.
        blocks = {name.split(".")[2] for name in tensors if name.startswith("net.blocks.")}
        if shapes.get("net.first.weight") != (self.width, dim) or len(blocks) != self.depth:
            raise ValueError("its settings are not those of its net")
        self.n_features_in_ = dim
        set_column_names(self, values["names"])
        arrays = [tensors[name].numpy() for name in _WHITENING]
        if [array.shape for array in arrays] != [(dim,), (dim,), (dim, dim), (dim, dim)]:
            raise ValueError("its whitening is not that of its columns")
        self.whitening_ = Whitening(arrays[0], arrays[1], arrays[2], arrays[3], float(values["log_det"]))
        net = make_net(dim, self._recipe, seed=0)
        own = {name.removeprefix("net."): value for name, value in tensors.items() if name.startswith("net.")}
        net.net.load_state_dict(own)
        self.field_ = net.eval().requires_grad_(False).double().to(self.device)
        for name in _SCALARS:
            setattr(self, name, values["fitted"][name])

    def _keep(self, found: Fit) -> None:
        # In float64 a row's density does not depend on the rows beside it beyond the 15th digit.
        self.field_ = found.net.double()
        self.n_iter_ = found.steps
        self.history_ = [list(look) for look in found.history]

    def _validate(self, rows: Float64[np.ndarray, "n d"], *, held_out: bool) -> None:
        fine = self._log_prob(rows, self.solver_steps)
        self.validation_score_ = float(fine.mean()) if held_out else math.nan
        coarse = self._log_prob(rows, max(1, self.solver_steps // 2))
        self.solver_error_ = float(np.abs(fine - coarse).mean())
        if self.solver_error_ > SOLVER_TOLERANCE * rows.shape[1]:
            warnings.warn(
                f"log-densities change by {self.solver_error_:.2g} nats when solver_steps={self.solver_steps} is "
                "halved: use more",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _log_prob(self, rows: Float64[np.ndarray, "n d"], steps: int) -> Float64[np.ndarray, " n"]:
        white = torch.from_numpy(self.whitening_.forward(rows)).to(self.device)
        found = log_prob(
            self.field_,
            white,
            divergence=self.divergence,
            probes=self.probes if self.divergence == "hutchinson" else 1,
            steps=steps,
            method="rk4",
            generator=generator(0),
        )
        return found.log_prob.cpu().numpy() + self.whitening_.log_det

    @property
    def _recipe(self) -> Recipe:
        return Recipe(
            width=int(self.width),
            depth=int(self.depth),
            steps=int(self.steps),
            batch_size=int(self.batch_size),
            lr=float(self.lr),
            weight_decay=float(self.weight_decay),
            ema=float(self.ema),
            sigma_min=float(self.sigma_min),
            patience=int(self.patience),
        )

    def _check(self) -> None:
        for name in ("width", "depth", "steps", "batch_size", "patience", "solver_steps", "probes"):
            require_count(name, getattr(self, name))
        if self.width % 8:
            raise ValueError(f"width must be a multiple of 8, got {self.width}")
        for name in ("lr", "weight_decay", "reg_covar"):
            value = getattr(self, name)
            if not isinstance(value, Real) or not 0 <= float(value) < math.inf:
                raise ValueError(f"{name} must be finite and not negative, got {value!r}")
        for name in ("ema", "sigma_min", "validation_fraction"):
            value = getattr(self, name)
            if not isinstance(value, Real) or not 0 <= float(value) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {value!r}")
        require_device(self.device)
        if self.progress is not None and not callable(self.progress):
            raise ValueError(f"progress must be a function of a Progress, or None, got {self.progress!r}")
        if self.divergence not in DIVERGENCES[:2]:
            raise ValueError(f"divergence must be one of {', '.join(DIVERGENCES[:2])}, got {self.divergence!r}")


_SCALARS = ("n_iter_", "history_", "validation_score_", "solver_error_")
_WHITENING = ("mean", "std", "root", "inverse_root")
