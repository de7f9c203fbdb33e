from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fluvial as fv


def _write(folder: Path, count: int = 5) -> None:
    folder.mkdir(exist_ok=True)
    for i in range(count):
        # Grey inside the central 178 pixels, white outside, so that a wrong crop shows.
        pixels = np.full((218, 178, 3), 255, np.uint8)
        pixels[20:198] = [40 * i, 100, 50]
        Image.fromarray(pixels).save(folder / f"{i:06d}.jpg", quality=95)


@pytest.mark.parametrize(("below", "size"), [(".", None), ("img_align_celeba", None), (".", 32)])
def test_faces_are_cropped_and_resized(tmp_path, below, size) -> None:
    _write(tmp_path / below)
    data = fv.load_dataset(f"celeba:{tmp_path}", size=size)
    side = size or 64
    assert data.shape == (3, side, side) and data.labels is None and data.name == "celeba"
    assert (len(data.train), len(data.held_out)) == (4, 1)
    pixels = data.inverse(data.x)[:, :, 2:-2].astype(int)
    expected = np.array([[40 * i, 100, 50] for i in range(5)])
    assert np.abs(pixels - expected[:, :, None, None]).max() <= 4


def test_what_is_no_celeba_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"holds no jpg files: unpack img_align_celeba\.zip"):
        fv.load_dataset(f"celeba:{tmp_path}")
    _write(tmp_path)
    whole = (tmp_path / "000003.jpg").read_bytes()
    (tmp_path / "000003.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"000003\.jpg is damaged"):
        fv.load_dataset(f"celeba:{tmp_path}")
    Image.new("RGB", (178, 100)).save(tmp_path / "000003.jpg")
    with pytest.raises(ValueError, match=r"000003\.jpg is 178x100, smaller than the 178 pixels"):
        fv.load_dataset(f"celeba:{tmp_path}")
