"""The states that a caller wants to keep on the way."""

from bisect import bisect_right
from collections.abc import Sequence

from torch import Tensor

TOLERANCE = 1e-12  # times closer than this are the same time: 0.3 and 3 * 0.1 are


class Saves:
    """Requested times, in any order and with repetitions, and the states that were met there.

    Args:
        times: Requested times, all between ``t0`` and ``t1``.
        t0: Start time of the integration.
        t1: End time; before ``t0`` when integrating backwards.
    """

    def __init__(self, times: Sequence[float], t0: float, t1: float) -> None:
        self.times = tuple(times)
        self._sign = 1 if t1 > t0 else -1
        self._ordered = sorted(set(times), key=self._key)
        self._states: dict[float, Tensor] = {}

    def between(self, start: float, stop: float) -> list[float]:
        """Requested times after ``start`` and before ``stop``, in the order in which they are met."""
        return [t for t in self._upto(start, stop) if abs(t - stop) > TOLERANCE]

    def keep(self, times: Sequence[float], states: Sequence[Tensor]) -> None:
        """Keep the states met at requested times."""
        self._states.update(zip(times, states, strict=True))

    def arrive(self, stop: float, x: Tensor) -> None:
        """Keep ``x`` if its time is among the requested ones."""
        for t in self._upto(stop - 2 * self._sign * TOLERANCE, stop):
            self._states[t] = x

    def states(self) -> list[Tensor]:
        """The states in the order of the request, each ``(B, *D)``."""
        return [self._states[t] for t in self.times]

    def _key(self, t: float) -> float:
        return self._sign * t

    def _upto(self, start: float, stop: float) -> list[float]:
        """Requested times from just after ``start`` up to and including ``stop``."""
        if not self._ordered:
            return []
        first = bisect_right(self._ordered, self._key(start) + TOLERANCE, key=self._key)
        return self._ordered[first : bisect_right(self._ordered, self._key(stop) + TOLERANCE, key=self._key)]
