"""Captions meet their pictures by path, whatever their order; anything else is named."""

from pathlib import Path

import pytest
from PIL import Image

import fluvial as fv
from fluvial.data.captions import read_captions

NAMES = ("cat/b.png", "cat/deep/a.PNG", "dog/a.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for shade, name in enumerate(NAMES):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2), 10 * shade).save(path)
    return tmp_path / "pictures"


def _write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder.parent / "captions.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_the_order_is_that_of_the_data_set(folder):
    path = _write(folder, 'file,caption\ndog/a.png,a dog\n./cat/deep/a.PNG,"a cat, deep"\ncat/b.png, größte 猫 \n')
    assert read_captions(path, folder) == ("größte 猫", "a cat, deep", "a dog")
    shades = fv.load_dataset(f"folder:{folder}", held_out=0)
    assert shades.inverse(shades.x)[:, 0, 0, 0].tolist() == [0, 10, 20]


@pytest.mark.parametrize("header", ["caption,file", "\ufeffcaption, file"])
def test_columns_in_either_order_and_a_byte_order_mark(folder, header):
    rows = "".join(f"about {name},{name}\r\n" for name in NAMES)
    assert read_captions(_write(folder, f"{header}\r\n{rows}"), folder) == tuple(f"about {name}" for name in NAMES)


ALL = "cat/b.png,x\ncat/deep/a.PNG,y\ndog/a.png,z\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; expected a header and rows"),
        (
            f"file,captoin\n{ALL}",
            r"unknown column 'captoin' \(did you mean 'caption'\?\); expected the header file,cap",
        ),
        (f"file,caption,author\n{ALL}", "unknown column 'author'; expected"),
        (ALL, r"unknown column 'cat/b\.png'"),
        (f"file\n{ALL}", "has the header file; expected the header file,caption"),
        ("file,caption\ncat/b.png,a cat, asleep\n", "row 1 has 3 cells, expected 2; put commas in quotes"),
        ("file,caption\ncat/b.png,x\n", r"2 of 3 images have no caption, the first is 'cat/deep/a\.PNG'"),
        ("file,caption\n", "3 of 3 images have no caption"),
        (
            f"file,caption\n{ALL}dog/b.png,w\n",
            r"1 of 4 files are no images .* 'dog/b\.png' \(did you mean 'dog/a\.png'",
        ),
        (f"file,caption\n{ALL}dog/a.png,w\n", r"1 files have more than one caption, the first is 'dog/a\.png'"),
        (f"file,caption\n{ALL}".replace("y", " "), "1 of 3 captions are empty, the first is in row 2"),
    ],
)
def test_what_does_not_match_is_named(folder, text, message):
    with pytest.raises(ValueError, match=message):
        read_captions(_write(folder, text), folder)


def test_files_that_are_no_text(folder):
    with pytest.raises(ValueError, match=r"no comma-separated text in UTF-8"):
        read_captions(_write(folder, "file,caption\ncat/b.png,größte\n", "latin-1"), folder)
    with pytest.raises(ValueError, match=r"captions '.*absent\.csv' does not exist"):
        read_captions(folder / "absent.csv", folder)
    with pytest.raises(ValueError, match="is no file"):
        read_captions(folder, folder)
