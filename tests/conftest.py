"""Every annotation of shape and type in fluvial is checked at run time while the tests run."""

import os
import signal
from collections.abc import Callable

# Before torch is imported, and for the commands that tests start: small tensors gain nothing from threads, which
# wait for one another on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell's background job begins with Ctrl-C ignored, and so would the commands that tests interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook("fluvial", "runtime_types.check").__enter__()

# Timings never decide a test's colour.
settings.register_profile("fluvial", deadline=None)
settings.load_profile("fluvial")


@pytest.fixture
def seeded() -> Callable[[int], torch.Generator]:
    """Generator of a given seed."""
    return lambda seed: torch.Generator().manual_seed(seed)
