"""Names that every doctest has, and a fixed seed."""

from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _names(doctest_namespace: dict[str, Any]) -> None:
    import numpy as np
    import torch

    import fluvial

    torch.manual_seed(0)
    doctest_namespace.update(torch=torch, np=np, fv=fluvial)
