"""Where the points lie changes nothing: in memory or in a file, as floats or as pixels; what is wrong is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

import fluvial as fv
from fluvial.smoothing import Support
from fluvial.smoothing.points import FilePoints, as_integers, as_values
from smoothing.direct import data_of, generator


def stored(path: Path, data: torch.Tensor) -> np.memmap:
    """A memory map of an .npy file, behind its header."""
    np.save(path, data.numpy())
    return np.load(path, mmap_mode="r")


def everything(field: fv.ExactField, x: torch.Tensor, t: float) -> list[torch.Tensor]:
    found, time = field.posterior(x, torch.tensor(t, dtype=x.dtype)), torch.tensor(t, dtype=x.dtype)
    return [found.mean, found.log_density, found.entropy, found.top_weight, found.error, field(x, time),
            field.divergence(x, time)]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["random", "flat", "extremes", "constant", "one grey"])
def test_pixels_are_the_numbers_they_stand_for(kind: str, dtype: torch.dtype) -> None:
    data = data_of(f"pixels {kind}", 60, 24)
    values = data.double() / 127.5 - 1
    x = torch.randn(6, 24, dtype=dtype, generator=generator(1))
    torch.testing.assert_close(fv.ExactField(data).support.double(), values, rtol=3e-7, atol=1e-8)
    close = {"rtol": 1e-9, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 2e-4, "atol": 2e-4}
    for t in (0.0, 0.4, 0.9, 0.999):
        z = (t * values[:6] + (1 - t) * x.double()).to(dtype)
        here, there = (everything(fv.ExactField(part), z, t) for part in (data, values))
        for a, b in zip(here[:4] + here[5:], there[:4] + there[5:], strict=True):
            torch.testing.assert_close(a, b, **close)


def test_every_pixel_is_exact_as_an_integer() -> None:
    every = torch.arange(256).to(torch.uint8).reshape(2, 128)
    assert torch.equal(as_integers(every).int(), every.int() - 128)
    room = torch.empty(5, 128, dtype=torch.int8)
    assert torch.equal(as_integers(every, room).int(), every.int() - 128)
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        assert torch.equal(as_values(every, dtype).double(), every.double() - 128)


@pytest.mark.parametrize("slices", [slice(None), slice(7, 53), slice(59, 60)])
@pytest.mark.parametrize("kind", ["float32", "float64", "uint8", "raw"])
def test_a_file_equals_its_contents(kind: str, slices: slice, tmp_path: Path) -> None:
    data = data_of("pixels random" if kind == "uint8" else "offset", 60, 24).reshape(60, 2, 3, 4)
    if kind == "raw":  # no header, an offset that is no multiple of a page, and more than a page of it
        (tmp_path / "raw").write_bytes(b"x" * 5003 + data.numpy().tobytes())
        whole = np.memmap(tmp_path / "raw", dtype=np.float32, mode="r", offset=5003, shape=(60, 2, 3, 4))
    else:
        data = data.double() if kind == "float64" else data
        whole = stored(tmp_path / "data.npy", data)
    inside, outside = fv.ExactField(data[slices]), fv.ExactField(whole[slices])
    assert outside.shape == (2, 3, 4)
    x = torch.randn(5, 2, 3, 4, generator=generator(1))
    for t in (0.2, 0.97):
        for a, b in zip(everything(inside, x, t), everything(outside, x, t), strict=True):
            assert torch.equal(a, b)
    assert torch.equal(inside.take(torch.tensor([0])), outside.take(torch.tensor([0])))
    with pytest.raises(ValueError, match=r"lies in a file: read some of it with field.take"):
        _ = outside.support


def test_a_slice_of_a_slice_is_read_from_where_it_lies(tmp_path: Path) -> None:
    data = data_of("normal", 40, 6)
    part = stored(tmp_path / "data.npy", data)[5:][3:20]
    assert torch.equal(FilePoints(part).read(0, 17), data[8:25])
    assert torch.equal(FilePoints(part).gather(torch.tensor([16, 0])), data[[24, 8]])


def test_tiles_of_a_file_are_those_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fluvial.smoothing.support.TILE_BYTES", 1)
    monkeypatch.setattr("fluvial.smoothing.support.LEAST_TILE", 7)
    for kind in ("normal", "offset", "pixels random", "pixels one grey"):
        data = data_of(kind, 60, 5)
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            tiles = [
                torch.cat([tile.clone() for _, tile in support.tiles(3, 58, dtype)])
                for support in (Support(data), Support(stored(tmp_path / "data.npy", data)))
            ]
            assert torch.equal(*tiles) and tiles[0].dtype == dtype


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (lambda whole: whole[::2], "C order without gaps"),
        (lambda whole: whole[:, 1:], "C order without gaps"),
        (lambda whole: whole[::-1], "C order without gaps"),
        (lambda whole: whole.astype(">f4"), "must be float32, float64 or uint8"),
    ],
)
def test_maps_that_cannot_be_read_row_by_row_are_refused(cut: object, message: str, tmp_path: Path) -> None:
    whole = stored(tmp_path / "data.npy", data_of("normal", 10, 4))
    with pytest.raises(ValueError, match=message):
        fv.ExactField(cut(whole))


def test_a_file_in_column_order_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", np.asfortranarray(np.ones((10, 4), np.float32)))
    with pytest.raises(ValueError, match="C order"):
        fv.ExactField(np.load(tmp_path / "data.npy", mmap_mode="r"))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_in_files_too(bad: float, tmp_path: Path) -> None:
    data = data_of("normal", 50, 4)
    data[[3, 17], 2] = bad
    with pytest.raises(ValueError, match="NaN or infinity in 2 of 50 points"):
        fv.ExactField(stored(tmp_path / "data.npy", data))


def test_a_file_that_is_cut_short_while_in_use_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "data.npy"
    field = fv.ExactField(stored(path, data_of("normal", 3000, 64)))
    x = torch.zeros(2, 64)
    with path.open("r+b") as file:
        file.truncate(128 + 1000 * 64 * 4 + 10)
    for operation in (field, field.posterior, field.divergence):
        with pytest.raises(ValueError, match=r"data.npy ends at point 1000 of 3000: it was cut short while in use"):
            operation(x, torch.tensor(0.5))
    with pytest.raises(ValueError, match="cut short"):
        field.take(torch.tensor([2999]))
    assert field.take(torch.tensor([999])).shape == (1, 64)
