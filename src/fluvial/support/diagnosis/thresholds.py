"""The numbers that decide, in one place; docs/failure-regimes.md says why they are what they are."""

COLLAPSED_SIZE = 2.0
"""Examples averaged over, where a quarter of the data's variance is open, below which a support is collapsed."""
GEOMETRY_NATS = 0.05
"""Gain of a metric in held-out log-density, in nats per dimension, above which (lower end of the interval) the geometry
is a mismatch. It counts beyond what the metric gains on Gaussians: round ones for the Mahalanobis metric, ones of the
same covariance for the local one."""
SCARCE_ERROR = 0.05
"""Error of the posterior mean, as a share of the data's variance, below which examples are enough."""
SCARCE_RATE = 0.4
"""Rate at which the error falls with the number of examples, above which more of them are a cure."""
