import numpy as np
import pytest
import torch

from fluvial.audits.ranges import check_same_range

TRAIN = 2 * torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0)) - 1
UNIT = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_accepts_what_is_on_the_same_scale() -> None:
    for samples in (TRAIN, 3 * torch.randn(20, 1, 8, 8), UNIT[:4], TRAIN.numpy(), torch.zeros(0, 1, 8, 8)):
        check_same_range(samples, TRAIN, "image")
    check_same_range(255 * UNIT, 255 * UNIT, "image")  # the same grey levels on both sides
    check_same_range(UNIT, UNIT, "image")
    check_same_range(255 * UNIT.flatten(1), TRAIN.flatten(1), "points")


@pytest.mark.parametrize("samples", [255 * UNIT, (255 * UNIT).round(), (255 * UNIT).numpy()])
def test_names_grey_levels(samples: torch.Tensor | np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"samples look like grey levels from 0 to 255.*convert by x / 127.5 - 1"):
        check_same_range(samples, TRAIN, "image")


def test_names_the_unit_interval_and_types() -> None:
    with pytest.raises(ValueError, match=r"held_out lie in \[0, 1\].*convert by 2 x - 1"):
        check_same_range(UNIT, TRAIN, "image", name="held_out")
    for kind in ("image", "points"):
        with pytest.raises(
            TypeError, match=r"samples must hold floating point numbers, got uint8: convert by x / 127.5"
        ):
            check_same_range(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), TRAIN, kind)
    with pytest.raises(TypeError, match=r"train must hold floating point numbers, got torch\.int64"):
        check_same_range(TRAIN, torch.zeros(3, 1, 8, 8, dtype=torch.int64), "table")
