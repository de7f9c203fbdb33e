"""Parquet files of pictures and of numbers, streamed by row group and in memory."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fluvial as fv
from data.parquet_examples import CLASSES, picture, write
from fluvial.data.order import POOL, ChunkedOrder
from fluvial.data.parquet_data import read_parquet_data
from fluvial.data.parquet_files import ParquetSource

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "d" / "a.parquet", 0, 30)
    write(tmp_path / "d" / "b.parquet", 30, 20)
    return tmp_path / "d"


def test_streamed_pictures_are_those_in_memory_with_their_classes(folder) -> None:
    kept, streamed = (fv.load_dataset(f"parquet:{folder}", seed=2, stream=stream) for stream in (False, True))
    assert streamed.streamed and not kept.streamed and (len(kept), kept.shape, kept.name) == (50, (3, 4, 6), "d")
    assert kept.class_names == streamed.class_names == tuple(CLASSES)
    assert kept.labels.tolist() == streamed.labels.tolist() == [i % 3 for i in range(50)]
    assert torch.equal(kept.x, streamed.x)
    for ours, theirs in ((streamed.train, kept.train), (streamed.held_out, kept.held_out)):
        assert torch.equal(ours.x, theirs.x) and torch.equal(ours.labels, theirs.labels)
    rows = [49, 0, 49, 8, 31]
    assert torch.equal(streamed.take(rows)[0], kept.x[rows])


def test_chunks_are_the_row_groups_and_those_of_a_split_its_part_of_them(folder) -> None:
    data = fv.load_dataset(f"parquet:{folder}", stream=True)
    assert data.chunks == (7, 7, 7, 7, 2, 7, 7, 6)
    inside = np.isin(np.arange(50), data.train.rows)
    expected = [int(part.sum()) for part in np.split(inside, np.cumsum(data.chunks)[:-1])]
    assert data.train.chunks == tuple(expected) and sum(expected) == 40
    assert data.train.with_mirror_images().chunks == (*expected, *expected)
    assert data.train.subset(np.random.default_rng(0).permutation(40)).chunks is None
    order = ChunkedOrder(data.train.chunks, 8, seed=0)
    seen = torch.cat([order.batch(step) for step in range(5)])
    assert torch.equal(data.train.take(seen.sort().values)[0], data.train.x)


def test_no_more_than_a_pool_of_row_groups_is_kept_and_one_is_read_once_a_pool(tmp_path, monkeypatch) -> None:
    write(tmp_path / "a.parquet", count=60, group=2)
    reads = []
    read = pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda *a, **k: reads.append(a[1]) or read(*a, **k))
    data = fv.load_dataset(str(tmp_path / "a.parquet"), stream=True, held_out=0)
    reads.clear()
    order = ChunkedOrder(data.chunks, 4, seed=0)
    for step in range(15):
        data.take(order.batch(step))
    assert sorted(reads) == list(range(30))
    assert len(data._store._files._kept) == POOL


def test_bytes_without_a_note_grey_and_labels_of_text(tmp_path) -> None:
    pictures = [picture(i, mode="L") for i in range(10)]
    labels = ["b", "a"] * 5
    write(tmp_path / "a.parquet", count=10, noted=False, image=None, label=None, picture=pictures, labels=labels)
    data = fv.load_dataset(str(tmp_path / "a.parquet"), stream=True, held_out=0)
    assert data.shape == (1, 4, 6) and data.class_names == ("a", "b") and data.labels.tolist() == [1, 0] * 5
    write(tmp_path / "b.parquet", count=10, noted=False, label=None)
    assert fv.load_dataset(str(tmp_path / "b.parquet"), stream=True).labels is None


def test_pictures_of_other_sizes_need_size(tmp_path) -> None:
    odd = [{"bytes": picture(i, (6, 4) if i < 20 else (9, 9)), "path": None} for i in range(30)]
    write(tmp_path / "a.parquet", image=odd)
    with pytest.raises(ValueError, match=r"a\.parquet, row 21 has shape \(3, 9, 9\) and the first .* --size S"):
        fv.load_dataset(str(tmp_path / "a.parquet"), stream=True, held_out=0).take([20])
    assert fv.load_dataset(str(tmp_path / "a.parquet"), stream=True, size=3).x.shape == (30, 3, 3, 3)


@pytest.mark.parametrize(
    ("cell", "fragment"),
    [
        ({"bytes": b"no", "path": None}, "row 9 is damaged or no image"),
        ({"bytes": None, "path": "/etc/passwd"}, "row 9 holds no picture: its bytes are missing"),
        (None, "row 9 holds no picture"),
    ],
)
def test_a_picture_that_cannot_be_read_is_named(tmp_path, cell, fragment) -> None:
    cells = [{"bytes": picture(i), "path": None} for i in range(30)]
    cells[8] = cell
    write(tmp_path / "a.parquet", image=cells)
    data = fv.load_dataset(str(tmp_path / "a.parquet"), stream=True, held_out=0)
    with pytest.raises(ValueError, match=rf"a\.parquet, {fragment}"):
        data.take([7, 8])
    with pytest.raises(ValueError, match=rf"a\.parquet, {fragment}"):
        fv.load_dataset(str(tmp_path / "a.parquet"), stream=False)


def test_an_alpha_channel_is_refused_wherever_it_occurs(tmp_path) -> None:
    file = BytesIO()
    Image.new("RGBA", (6, 4)).save(file, "PNG")
    cells = [{"bytes": picture(i), "path": None} for i in range(99)] + [{"bytes": file.getvalue(), "path": None}]
    write(tmp_path / "a.parquet", count=100, image=cells)
    with pytest.raises(ValueError, match=r"a\.parquet, row 100 has an alpha channel"):
        fv.load_dataset(str(tmp_path / "a.parquet"), stream=True, held_out=0).take([99])


def test_the_hash_knows_pictures_labels_rows_and_size(tmp_path) -> None:
    def hashed(count: int = 30, size: int | None = None, **columns: list) -> str:
        write(tmp_path / "a.parquet", count=count, **columns)
        return fv.load_dataset(str(tmp_path / "a.parquet"), stream=True, size=size).train.content_hash

    others = [picture(i + 1) for i in range(30)]
    different = [hashed(), hashed(29), hashed(size=3), hashed(image=others), hashed(label=[0] * 30)]
    assert len(set(different)) == 5 and hashed() == different[0] == hashed(group=30)


class _Remote(BytesIO):
    """A file that is far away: what is read of it is counted."""

    def __init__(self, content: bytes, reads: list[int]) -> None:
        super().__init__(content)
        self._reads = reads

    def read(self, size: int | None = -1) -> bytes:
        part = super().read(size)
        self._reads.append(len(part))
        return part


def _remote(paths: list[Path], reads: list[int], tag: str = "v1", stream: bool = True, **more: int) -> fv.Dataset:
    def source(path: Path) -> ParquetSource:
        content = path.read_bytes()
        return ParquetSource(
            f"hf://{path.name}", lambda: _Remote(content, reads), identity=lambda: f"{path.name} {tag}"
        )

    return read_parquet_data([source(path) for path in paths], name="far", held_out=0.2, seed=0, stream=stream, **more)


@pytest.mark.parametrize("numbers", [False, True])
def test_the_hash_of_remote_files_reads_nothing(tmp_path, numbers) -> None:
    pictures = [{"bytes": picture(i, (60, 40)), "path": None} for i in range(200)]
    path = tmp_path / "a.parquet"
    _ = _numbers(path, 5000) if numbers else write(path, 0, 200, 5, image=pictures)
    reads: list[int] = []
    data = _remote([path], reads)
    opened = sum(reads)
    assert numbers or opened < 0.2 * path.stat().st_size  # the first row group, the labels and the footer
    found = data.train.content_hash, data.held_out.content_hash
    assert sum(reads) == opened and len(set(found)) == 2
    data.take([177])
    assert opened < sum(reads) and (numbers or sum(reads) - opened < 0.05 * path.stat().st_size)  # no footer again


def test_the_hash_of_remote_files_knows_place_rows_row_groups_labels_and_size(tmp_path) -> None:
    path = write(tmp_path / "a.parquet")
    usual = _remote([path], []).train.content_hash
    assert usual == _remote([path], []).train.content_hash
    different = {usual, _remote([path], [], "v2").train.content_hash, _remote([path], [], size=3).train.content_hash}
    different |= {_remote([path], []).held_out.content_hash, _remote([path, path], []).train.content_hash}
    different |= {_remote([path], []).with_mirror_images().train.content_hash}
    for columns in ({"group": 9}, {"label": [0] * 30}, {"image": [{"bytes": picture(9), "path": None}] * 30}):
        different.add(_remote([write(path, **columns)], []).train.content_hash)
    assert len(different) == 9
    write(path)
    # Small ones are read into memory, where the hash is that of the values as everywhere.
    assert _remote([path], [], stream=False).train.content_hash == _loaded_hash(path)


def _loaded_hash(path: Path) -> str:
    return fv.load_dataset(str(path), stream=False).train.content_hash


def test_a_remote_file_that_cannot_be_reached_for_its_hash_is_one_error(tmp_path) -> None:
    content = write(tmp_path / "a.parquet").read_bytes()

    def identity() -> str:
        raise OSError("no route\nat all")

    source = ParquetSource("hf://a", lambda: BytesIO(content), identity=identity)
    data = read_parquet_data([source], name="far", held_out=0, seed=0, stream=True)
    with pytest.raises(OSError, match=r"^hf://a cannot be reached: no route$"):
        _ = data.content_hash


def test_files_that_change_or_go_in_use_are_one_error(folder) -> None:
    data = fv.load_dataset(f"parquet:{folder}", stream=True, held_out=0)
    (folder / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"b\.parquet has changed since it was opened"):
        data.take([45])
    (folder / "b.parquet").unlink()
    with pytest.raises(ValueError, match=r"b\.parquet cannot be read: No such file"):
        data.take([45])
    assert len(data.take([0])[0]) == 1


def test_damaged_and_unlike_files_are_refused(tmp_path) -> None:
    whole = write(tmp_path / "a.parquet").read_bytes()
    for damaged in (b"", b"PAR1", whole[:-100], whole[: len(whole) // 2] + whole[-8:], b"x" * 5000):
        (tmp_path / "a.parquet").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.parquet cannot be read as Parquet") as caught:
            fv.load_dataset(str(tmp_path / "a.parquet"), stream=True)
        assert "\n" not in str(caught.value)
    write(tmp_path / "a.parquet")
    write(tmp_path / "b.parquet", label=["x"] * 30)
    with pytest.raises(ValueError, match=r"b\.parquet has other columns or types than .*a\.parquet"):
        fv.load_dataset(f"parquet:{tmp_path}", stream=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no files that end in"):
        fv.load_dataset(f"parquet:{tmp_path / 'empty'}")


def test_damage_inside_of_a_row_group_is_one_error(tmp_path) -> None:
    path = write(tmp_path / "a.parquet", count=200, group=20)
    whole = bytearray(path.read_bytes())
    random = np.random.default_rng(0)
    told = 0
    for _ in range(30):
        harmed = whole.copy()
        for place in random.integers(4, len(whole) - 8, 5):
            harmed[place] ^= 1 << int(random.integers(8))
        path.write_bytes(bytes(harmed))
        try:
            fv.load_dataset(str(path), stream=True, held_out=0).take(range(200))
        except ValueError as error:
            told += "a.parquet" in str(error) and "\n" not in str(error)
        except OSError as error:
            told += "a.parquet" in str(error)
    assert told > 20


def test_more_than_one_column_of_pictures_and_missing_labels_are_named(tmp_path) -> None:
    two = [{"bytes": picture(i), "path": None} for i in range(30)]
    write(tmp_path / "a.parquet", noted=False, mask=two)
    with pytest.raises(ValueError, match=r"has 2 columns of pictures \('image', 'mask'\)"):
        fv.load_dataset(str(tmp_path / "a.parquet"))
    write(tmp_path / "a.parquet", label=[0, None] * 15)
    with pytest.raises(ValueError, match="row 2 has no label in column 'label'"):
        fv.load_dataset(str(tmp_path / "a.parquet"))


def test_row_groups_that_do_not_fit_are_refused(tmp_path, monkeypatch) -> None:
    write(tmp_path / "a.parquet")
    monkeypatch.setattr("fluvial.data.memory.physical_memory", lambda: 2000)
    with pytest.raises(ValueError, match=r"5 row groups of .*a\.parquet would take .*row_group_size"):
        fv.load_dataset(str(tmp_path / "a.parquet"))


def _numbers(path: Path, count: int = 500, **columns) -> Path:
    random = np.random.default_rng(0)
    values = {"a": random.normal(5, 2, count), "b": random.integers(0, 9, count), "name": ["x"] * count, **columns}
    pq.write_table(pa.table(values), path, row_group_size=64)
    return path


def test_streamed_numbers_are_standardised_as_those_in_memory(tmp_path) -> None:
    _numbers(tmp_path / "t.parquet")
    kept, streamed = (fv.load_dataset(str(tmp_path / "t.parquet"), seed=1, stream=stream) for stream in (False, True))
    assert streamed.kind == "table" and streamed.table.columns == ("a", "b") and streamed.table.dropped == ("name",)
    assert np.array_equal(streamed.train.rows, kept.train.rows)
    assert np.allclose(streamed.table.mean, kept.table.mean, rtol=1e-12)
    assert np.allclose(streamed.table.std, kept.table.std, rtol=1e-12)
    assert torch.allclose(streamed.train.x, kept.train.x, atol=1e-6)
    assert np.allclose(
        streamed.inverse(streamed.x)[:, 1], pq.read_table(tmp_path / "t.parquet")["b"].to_numpy(), atol=1e-5
    )
    together = fv.load_dataset(f"parquet:{tmp_path}", seed=1)
    assert not together.streamed and torch.allclose(together.train.x, kept.train.x, atol=1e-6)


@pytest.mark.parametrize(
    ("column", "fragment"),
    [
        ([1.0] * 500, "constant in the training data: 'c'"),
        ([1.0, 2.0] * 249 + [None, None], r"t\.parquet, row 499 has a missing, NaN or infinite value in column 'c'"),
        ([1e300, -1e300] * 250, "deviation is not a float64 number"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_streamed_numbers_that_cannot_be_standardised_are_named(tmp_path, column, fragment) -> None:
    _numbers(tmp_path / "t.parquet", c=column)
    with pytest.raises(ValueError, match=fragment):
        fv.load_dataset(str(tmp_path / "t.parquet"), stream=True)
    with pytest.raises(ValueError, match="size=8 is for pictures"):
        fv.load_dataset(str(tmp_path / "t.parquet"), stream=True, size=8)


def test_a_footer_that_tells_of_endless_rows_is_refused(tmp_path, monkeypatch) -> None:
    path = write(tmp_path / "a.parquet")
    monkeypatch.setattr("fluvial.data.memory.physical_memory", lambda: 900)
    with pytest.raises(ValueError, match=r"the 30 rows that .* tells of would take"):
        fv.load_dataset(str(path))
