from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fluvial as fv


def _picture(path: Path, width: int = 6, height: int = 4, mode: str = "RGB", seed: int = 0) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "LA": (2,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, *channels), dtype=np.uint8)
    Image.fromarray(pixels, mode).save(path)
    return pixels


def _load(path: Path, **options) -> fv.Dataset:
    return fv.load_dataset(f"folder:{path}", held_out=0, **options)


def _pixels(data: fv.Dataset) -> np.ndarray:
    return data.inverse(data.x)


def test_subfolders_are_labels_and_the_order_is_that_of_the_paths(tmp_path) -> None:
    names = ["cat/b.png", "cat/deep/a.PNG", "dog/a.bmp", "dog/c.webp.png"]
    written = {name: _picture(tmp_path / name, seed=i) for i, name in enumerate(reversed(names))}
    _picture(tmp_path / ".hidden" / "x.png")
    (tmp_path / "dog" / "notes.txt").write_text("not an image")
    (tmp_path / "empty").mkdir()
    data = _load(tmp_path)
    assert data.class_names == ("cat", "dog") and data.labels.tolist() == [0, 0, 1, 1]
    assert (data.shape, data.levels, data.name) == ((3, 4, 6), 256, tmp_path.name)
    for row, name in enumerate(names):
        assert np.array_equal(_pixels(data)[row], written[name].transpose(2, 0, 1))


def test_a_flat_folder_has_no_labels(tmp_path) -> None:
    for i in range(10):
        _picture(tmp_path / f"{i}.png", mode="L", seed=i)
    data = fv.load_dataset(f"folder:{tmp_path}")
    assert data.labels is None and data.shape == (1, 4, 6)
    assert (len(data.train), len(data.held_out)) == (8, 2)


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "bmp", "webp"])
def test_every_format_is_read(tmp_path, suffix) -> None:
    Image.new("RGB", (8, 8), (200, 100, 50)).save(tmp_path / f"a.{suffix}")
    pixels = _pixels(_load(tmp_path))
    assert pixels.shape == (1, 3, 8, 8)
    assert np.abs(pixels.mean((0, 2, 3)) - [200, 100, 50]).max() < 4


def test_the_majority_decides_between_grey_and_rgb(tmp_path) -> None:
    grey = _picture(tmp_path / "a.png", mode="L")
    _picture(tmp_path / "b.png", mode="L")
    colour = _picture(tmp_path / "c.png")
    data = _pixels(_load(tmp_path))
    assert data.shape == (3, 1, 4, 6) and np.array_equal(data[0, 0], grey)
    luma = colour @ np.array([0.299, 0.587, 0.114])
    assert np.abs(data[2, 0] - luma).max() <= 1
    _picture(tmp_path / "d.png")  # two against two: colour keeps what both have
    assert np.array_equal(_pixels(_load(tmp_path))[0], np.stack([grey] * 3))


def test_size_takes_the_central_square_and_antialiases(tmp_path) -> None:
    board = np.zeros((64, 96), np.uint8)
    board[::2, ::2] = board[1::2, 1::2] = 254
    board[:, :16] = board[:, 80:] = 255  # outside of the central square
    Image.fromarray(board).save(tmp_path / "a.png")
    Image.fromarray(board.T.copy()).save(tmp_path / "b.png")
    pixels = _pixels(_load(tmp_path, size=8))
    assert pixels.shape == (2, 1, 8, 8)
    assert np.abs(pixels.astype(int) - 127).max() <= 3  # without antialiasing: 0 or 254


def test_a_size_that_all_have_changes_nothing(tmp_path) -> None:
    pixels = _picture(tmp_path / "a.png", 8, 8)
    assert np.array_equal(_pixels(_load(tmp_path, size=8))[0], pixels.transpose(2, 0, 1))


def test_photographs_are_turned_upright(tmp_path) -> None:
    image = Image.new("L", (8, 4))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    assert _load(tmp_path).shape == (1, 8, 4)


def test_mixed_sizes_suggest_size(tmp_path) -> None:
    for name in "abc":
        _picture(tmp_path / f"{name}.png", 6, 4)
    _picture(tmp_path / "big.png", 9, 5)
    with pytest.raises(ValueError, match=r"2 sizes \(most are 6x4, big\.png is 9x5\): give --size S .* such as 4"):
        _load(tmp_path)
    assert _load(tmp_path, size=4).shape == (3, 4, 4)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_refused_by_name(tmp_path, mode) -> None:
    _picture(tmp_path / "fine.png")
    _picture(tmp_path / "ghost.png", mode=mode)
    with pytest.raises(ValueError, match=r"ghost\.png has an alpha channel"):
        _load(tmp_path)


def test_a_transparent_colour_of_a_palette_is_alpha_too(tmp_path) -> None:
    Image.new("P", (4, 4)).save(tmp_path / "a.png", transparency=0)
    with pytest.raises(ValueError, match=r"a\.png has an alpha channel"):
        _load(tmp_path)


def test_sixteen_bits_are_refused(tmp_path) -> None:
    Image.fromarray(np.full((4, 4), 60_000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png has pixels of mode I;16; expected 8-bit"):
        _load(tmp_path)


def test_damaged_images_are_named(tmp_path) -> None:
    _picture(tmp_path / "fine.png", 64, 64)
    whole = (tmp_path / "fine.png").read_bytes()
    for damaged in (b"", b"not an image", whole[:20], whole[: len(whole) // 2]):
        (tmp_path / "broken.png").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"broken\.png is damaged or no image"):
            _load(tmp_path)


def test_folders_without_or_with_half_labelled_images_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"holds no images \(\.png"):
        _load(tmp_path)
    _picture(tmp_path / "cat" / "a.png")
    _picture(tmp_path / "loose.png")
    with pytest.raises(ValueError, match=r"both in subfolders.*such as 'loose\.png'"):
        _load(tmp_path)


@pytest.mark.parametrize("size", [0, -4, 8193, 10**9])
def test_size_must_be_positive(tmp_path, size) -> None:
    _picture(tmp_path / "a.png")
    with pytest.raises(ValueError, match="size must be a number of pixels from 1 to 8192"):
        _load(tmp_path, size=size)
