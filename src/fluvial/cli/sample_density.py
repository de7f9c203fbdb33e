"""The log-densities of samples, as ``fluvial sample --with-log-prob`` writes them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluvial.cli.outputs import output_format
from fluvial.cli.samples import Form

if TYPE_CHECKING:
    from fluvial.densities import Trace
    from fluvial.likelihood import LogProb


@dataclass(frozen=True)
class SampleDensity:
    """Log-densities of samples in the units in which they are written.

    Args:
        form: What the samples are.
        density: Log-densities of the samples as the model makes them.
        trace: How the divergence was taken.
    """

    form: Form
    density: "LogProb"
    trace: "Trace"

    def arrays(self) -> dict[str, Any]:
        """What an ``.npz`` holds beside the samples."""
        import math

        from fluvial.densities import in_original_units
        from fluvial.levels import bits_per_dim

        log_prob = in_original_units(self.density.log_prob, self.form.table)
        bits, error = bits_per_dim(log_prob, math.prod(self.form.shape)), self.density.standard_error
        known = {} if error is None else {"log_prob_standard_error": error.numpy()}
        return {"log_prob": log_prob.numpy(), "bits_per_dim": bits.numpy(), **known}

    def record(self, out: Path) -> dict[str, Any]:
        """What the sidecar says: how, the mean, and beside pictures, which hold no numbers, every log-density."""
        arrays = self.arrays()
        random = self.trace.divergence == "hutchinson"
        listed = {} if output_format(out) == "npz" else {name: values.tolist() for name, values in arrays.items()}
        return {
            "divergence": self.trace.divergence,
            "probes": self.trace.probes if random else None,
            "mean_log_prob": float(arrays["log_prob"].mean()),
            "mean_bits_per_dim": float(arrays["bits_per_dim"].mean()),
            **listed,
        }
