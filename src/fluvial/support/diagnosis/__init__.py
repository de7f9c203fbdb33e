"""Which regime a support is in, and what to do: collapse, geometry mismatch, scarcity.

:mod:`~fluvial.support.diagnosis.collapse`, ``geometry`` and ``scarcity`` measure; ``regimes`` judges by the numbers in
``thresholds``; ``recommending`` says what to do; ``pages`` writes the report.
"""

from fluvial.support.diagnosis.diagnosing import diagnose
from fluvial.support.diagnosis.regimes import REGIMES, Diagnosis, Recommendation

__all__ = ["REGIMES", "Diagnosis", "Recommendation", "diagnose"]
