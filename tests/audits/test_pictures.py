import numpy as np
import pytest
import torch

from fluvial.audits.pictures import mosaic
from fluvial.randomness import generator


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_in_its_place_and_the_gaps_are_transparent(channels: int) -> None:
    x = 2 * torch.rand(5, channels, 2, 3, generator=generator(0)) - 1
    picture = mosaic(x, columns=2)
    assert picture.shape == (3 * 3 - 1, 2 * 4 - 1, 4)
    expected = np.zeros_like(picture)
    for number, image in enumerate(x):
        top, left = 3 * (number // 2), 4 * (number % 2)
        pixels = (127.5 * (image + 1)).round().expand(3, -1, -1).permute(1, 2, 0) / 255
        expected[top : top + 2, left : left + 3] = torch.cat([pixels, torch.ones(2, 3, 1)], 2).numpy()
    np.testing.assert_allclose(picture, expected, atol=1e-6)


def test_fewer_images_than_columns_leave_no_room() -> None:
    assert mosaic(torch.zeros(2, 1, 4, 4), columns=8).shape == (4, 9, 4)
    assert mosaic(torch.full((1, 1, 2, 2), 7.0), columns=1).max() == 1


@pytest.mark.parametrize(
    ("shape", "columns", "message"),
    [
        ((0, 1, 2, 2), 2, r"x must hold images of shape .*, got shape \(0, 1, 2, 2\)"),
        ((4, 2, 2, 2), 2, r"x must hold images of shape .*, got shape \(4, 2, 2, 2\)"),
        ((4, 1, 2, 2), 0, "columns must be at least 1, got 0"),
    ],
)
def test_bad_input(shape: tuple[int, ...], columns: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mosaic(torch.zeros(shape), columns)
