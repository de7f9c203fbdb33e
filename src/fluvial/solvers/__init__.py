"""Solvers move points along a velocity field: :func:`solve` is the one entry, :class:`Trajectory` what it
returns.

Fixed-step methods are Butcher tableaus under one step function (``fixed``); the adaptive method is
torchdiffeq's (``adaptive``). Both walk the same legs of time between a field's breakpoints (``grid``), ask
the field through the same counter (``velocity``) and keep the states that were asked for (``saves``).
"""

from fluvial.solvers.adaptive import ADAPTIVE_METHODS
from fluvial.solvers.fixed import FIXED_METHODS
from fluvial.solvers.trajectory import Trajectory, solve

__all__ = ["ADAPTIVE_METHODS", "FIXED_METHODS", "Trajectory", "solve"]
