"""Solvers move points along a velocity field: :func:`solve` is the one entry, :class:`Trajectory` what it
returns.

Fixed-step methods are Butcher tableaus under one step function (``fixed``); the adaptive method is
torchdiffeq's (``adaptive``); fields that know average velocities are jumped along (``jumps``). All walk the
same legs of time between a field's breakpoints (``grid``) and keep the states that were asked for (``saves``);
the first two ask the field through the same counter (``velocity``).
"""

from fluvial.solvers.adaptive import ADAPTIVE_METHODS
from fluvial.solvers.fixed import FIXED_METHODS
from fluvial.solvers.jumps import JUMP_METHODS
from fluvial.solvers.trajectory import Trajectory, solve

__all__ = ["ADAPTIVE_METHODS", "FIXED_METHODS", "JUMP_METHODS", "Trajectory", "solve"]
