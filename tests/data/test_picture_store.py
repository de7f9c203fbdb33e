"""A folder that is decoded batch by batch gives what the same folder in memory gives, or an error that names a file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fluvial as fv
from fluvial.data.pictures import picture_names


def _folder(path: Path, count: int = 20, labels: bool = True) -> Path:
    random = np.random.default_rng(0)
    for i in range(count):
        place = path / f"class{i % 3}" if labels else path
        place.mkdir(parents=True, exist_ok=True)
        mode = "L" if i == 4 else "RGB"
        pixels = random.integers(0, 256, (6, 8) if mode == "L" else (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels, mode).save(place / f"{i:03}.{'png' if i % 2 else 'bmp'}")
    return path


def _load(path: Path, stream: bool | None, **options) -> fv.Dataset:
    return fv.load_dataset(f"folder:{path}", stream=stream, **options)


@pytest.mark.parametrize(("size", "labels"), [(None, True), (5, True), (None, False)])
def test_it_is_the_same_data_set_as_in_memory(tmp_path, size, labels) -> None:
    _folder(tmp_path, labels=labels)
    kept, streamed = (_load(tmp_path, stream, size=size, seed=1) for stream in (False, True))
    assert streamed.streamed and not kept.streamed and streamed.levels == 256 and streamed.chunks is None
    assert (streamed.shape, streamed.kind, streamed.class_names) == (kept.shape, kept.kind, kept.class_names)
    for ours, theirs in ((streamed.train, kept.train), (streamed.held_out, kept.held_out)):
        assert torch.equal(ours.x, theirs.x)
        assert labels == (ours.labels is not None) and (not labels or torch.equal(ours.labels, theirs.labels))
    flipped = [data.with_mirror_images().train for data in (kept, streamed)]
    assert torch.equal(flipped[0].x, flipped[1].x)
    rows = [3, 3, 0, 11]
    assert torch.equal(streamed.take(rows)[0], kept.take(rows)[0])


def test_the_hash_knows_names_bytes_labels_rows_and_mirror_images(tmp_path) -> None:
    _folder(tmp_path / "a")
    first = _load(tmp_path / "a", True)
    assert first.content_hash == _load(tmp_path / "a", True).content_hash
    others = [
        first.train,
        first.held_out,
        first.subset([1, 0]),
        first.subset([0, 1]),
        first.with_mirror_images().train,
        _load(tmp_path / "a", True, size=5),
    ]
    assert len({first.content_hash, *(other.content_hash for other in others)}) == 7
    both = _load(tmp_path / "a", True, held_out=0).with_mirror_images().train
    assert both.subset(range(20)).content_hash != both.subset(range(20, 40)).content_hash
    (tmp_path / "a" / "class0" / "000.bmp").rename(tmp_path / "a" / "class0" / "000b.bmp")
    renamed = _load(tmp_path / "a", True).content_hash
    Image.new("RGB", (8, 6)).save(tmp_path / "a" / "class0" / "000b.bmp")
    assert len({first.content_hash, renamed, _load(tmp_path / "a", True).content_hash}) == 3


@pytest.mark.parametrize(
    ("harm", "fragment"),
    [
        (lambda path: path.unlink(), "cannot be read: No such file or directory"),
        (lambda path: path.write_bytes(b"no picture"), "has changed: pictures must stay as they are while in use"),
        (lambda path: Image.new("RGB", (9, 9)).save(path), "has changed"),
    ],
)
def test_a_picture_that_is_harmed_in_use_is_one_error_that_names_it(tmp_path, harm, fragment) -> None:
    data = _load(_folder(tmp_path), True, held_out=0)
    where = picture_names(tmp_path).index("class1/007.png")
    harm(tmp_path / "class1" / "007.png")
    with pytest.raises(ValueError, match=fragment) as caught:
        data.take([0, where])
    assert str(tmp_path / "class1" / "007.png") in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"007\.png"):
        _ = data.content_hash
    assert len(data.take([0])[0]) == 1


def test_pixels_that_are_damaged_are_told_when_they_are_read(tmp_path) -> None:
    path = _folder(tmp_path) / "class1" / "007.png"
    path.write_bytes(path.read_bytes()[:70])  # the head is whole
    data = _load(tmp_path, True, held_out=0)
    with pytest.raises(ValueError, match=r"class1/007\.png is damaged or no image"):
        data.take(np.arange(len(data)))


def test_sizes_and_channels_are_checked_before_any_work(tmp_path) -> None:
    _folder(tmp_path)
    Image.new("RGB", (9, 9)).save(tmp_path / "class0" / "big.png")
    with pytest.raises(ValueError, match=r"images of 2 sizes .*big\.png is 9x9"):
        _load(tmp_path, True)
    Image.new("RGBA", (9, 9)).save(tmp_path / "class0" / "big.png")
    with pytest.raises(ValueError, match=r"big\.png has an alpha channel"):
        _load(tmp_path, True, size=4)


def test_links_hidden_files_and_what_is_no_file_are_as_before(tmp_path) -> None:
    _folder(tmp_path / "a", 4, labels=False)
    (tmp_path / "a" / "000.png").mkdir()
    (tmp_path / "a" / "dead.png").symlink_to("nowhere")
    (tmp_path / "a" / "linked.png").symlink_to("001.png")
    (tmp_path / "a" / ".hidden.png").write_bytes(b"")
    (tmp_path / "a" / ".git").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / "a" / ".git" / "x.png")
    data = _load(tmp_path / "a", True, held_out=0)
    assert len(data) == 5 and torch.equal(data.take([4])[0], data.take([1])[0])


def test_an_orientation_behind_the_pixels_of_a_png_is_no_broken_array(tmp_path) -> None:
    _folder(tmp_path, 3, labels=False)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 6)).save(tmp_path / "turned.png", exif=exif)
    whole = (tmp_path / "turned.png").read_bytes()
    start = whole.index(b"eXIf") - 4
    chunk = whole[start : start + 12 + int.from_bytes(whole[start : start + 4], "big")]
    end = whole.index(b"IEND") - 4
    (tmp_path / "turned.png").write_bytes(whole[:start] + whole[start + len(chunk) : end] + chunk + whole[end:])
    for stream in (False, True):
        with pytest.raises(ValueError, match=r"turned\.png must have shape \(3, 6, 8\) .* got \(3, 8, 6\)"):
            _load(tmp_path, stream, held_out=0).take([3])
        assert len(_load(tmp_path, stream, size=4, held_out=0).take([3])[0]) == 1
