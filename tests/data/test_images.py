import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fluvial.data import from_uint8, image_grid, save_grid, save_images, to_uint8
from fluvial.data.images import channels_first


def test_uint8_survives_the_round_trip_exactly_for_all_levels() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    x = from_uint8(values)
    assert x.dtype == torch.float32
    assert torch.equal(to_uint8(x), values)
    assert x[0] == -1 and x[255] == 1


@pytest.mark.parametrize("levels", [2, 17, 100, 256])
def test_levels_map_to_correctly_rounded_values(levels: int) -> None:
    values = torch.arange(levels, dtype=torch.uint8)
    exact = 2 * values.double() / (levels - 1) - 1
    assert torch.equal(from_uint8(values, levels), exact.float())


def test_ties_go_to_the_even_level() -> None:
    levels = torch.arange(255, dtype=torch.float64)
    x = (levels + 0.5) / 127.5 - 1
    on_tie = 127.5 * (x + 1) == levels + 0.5  # where float64 represents the tie exactly
    assert on_tie.sum() > 50
    expected = torch.where(levels % 2 == 0, levels, levels + 1).to(torch.uint8)
    assert torch.equal(to_uint8(x)[on_tie], expected[on_tie])
    assert to_uint8(torch.tensor([0.0])).item() == 128


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=20))
def test_to_uint8_is_the_rule_of_an_independent_implementation(numbers: list[float]) -> None:
    x = torch.tensor(numbers, dtype=torch.float64)
    expected = [min(255, max(0, round(127.5 * (number + 1)))) for number in x.tolist()]
    assert to_uint8(x).tolist() == expected


def test_half_precision_is_converted_before_it_is_rounded() -> None:
    x = torch.linspace(-1, 1, 256).to(torch.bfloat16)
    assert torch.equal(to_uint8(x), to_uint8(x.float()))


def test_to_uint8_refuses_nan() -> None:
    with pytest.raises(ValueError, match="NaN"):
        to_uint8(torch.tensor([0.0, float("nan")]))


def test_channels_first_of_every_order_of_axes() -> None:
    images = np.arange(2 * 5 * 4 * 3, dtype=np.uint8).reshape(2, 5, 4, 3)
    assert np.array_equal(channels_first(images), images.transpose(0, 3, 1, 2))
    assert np.array_equal(channels_first(images.transpose(0, 3, 1, 2)), images.transpose(0, 3, 1, 2))
    assert channels_first(images[..., 0]).shape == (2, 1, 5, 4)
    assert channels_first(np.zeros((2, 3, 3, 3), np.uint8)).shape == (2, 3, 3, 3)
    with pytest.raises(ValueError, match="alpha channel"):
        channels_first(np.zeros((2, 5, 5, 4), np.uint8))
    with pytest.raises(ValueError, match=r"\(2, 784\); convert them to float32"):
        channels_first(np.zeros((2, 784), np.uint8))


def test_a_grid_holds_each_image_at_its_place() -> None:
    images = torch.arange(6, dtype=torch.uint8).mul(40)[:, None, None, None].expand(6, 1, 3, 5)
    grid = image_grid(images, columns=4)
    assert grid.shape == (2 + 2 * 5, 2 + 4 * 7)
    for i in range(6):
        row, column = divmod(i, 4)
        cell = grid[2 + 5 * row : 5 + 5 * row, 2 + 7 * column : 7 + 7 * column]
        assert (cell == 40 * i).all()
    assert (grid[7:, 16:] == 255).all() and (grid[0] == 255).all()


def test_grids_of_colour_scale_and_default_columns() -> None:
    x = torch.zeros(5, 3, 4, 4)
    assert image_grid(x).shape == (2 + 2 * 6, 2 + 3 * 6, 3)
    assert image_grid(x, columns=9, scale=2).shape == (12, 2 + 5 * 10, 3)
    for wrong in ({"columns": 0}, {"scale": 0}):
        with pytest.raises(ValueError, match="positive"):
            image_grid(x, **wrong)
    with pytest.raises(ValueError, match="1 or 3 channels"):
        image_grid(torch.zeros(5, 2, 4, 4))
    with pytest.raises(ValueError, match="one or more images"):
        image_grid(torch.zeros(0, 1, 4, 4))


def test_a_saved_grid_is_the_grid(tmp_path) -> None:
    x = torch.rand(4, 3, 8, 8) * 2 - 1
    save_grid(x, tmp_path / "new" / "a.png", columns=2, scale=1)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / "a.png")), image_grid(x, 2))
    save_grid(x[:, :1], tmp_path / "new" / "a.png", columns=4)  # small images are enlarged, to 48 pixels
    assert Image.open(tmp_path / "new" / "a.png").size == (2 + 4 * 50, 52)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.png"]


def test_a_failing_grid_leaves_the_old_file(tmp_path) -> None:
    (tmp_path / "a.png").write_text("old")
    with pytest.raises(ValueError, match="NaN"):
        save_grid(torch.full((1, 1, 2, 2), float("nan")), tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"must end in \.png"):
        save_grid(torch.zeros(1, 1, 2, 2), tmp_path / "a.jpg")
    assert (tmp_path / "a.png").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_saved_images_are_the_images(tmp_path, channels: int) -> None:
    x = torch.rand(3, channels, 4, 6) * 2 - 1
    files = save_images(x, tmp_path / "out")
    assert [file.name for file in files] == ["000000.png", "000001.png", "000002.png"]
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    assert np.array_equal(channels_first(pixels), to_uint8(x).numpy())
    with pytest.raises(ValueError, match="must be new or empty"):
        save_images(x, tmp_path / "out")
    with pytest.raises(ValueError, match="1 or 3 channels"):
        save_images(torch.zeros(1, 2, 4, 4), tmp_path / "other")
