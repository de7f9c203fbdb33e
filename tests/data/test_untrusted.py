"""Files of strangers run nothing, take no memory that they do not fill, and are read whole or refused in one line."""

import io
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import fluvial as fv
from fluvial.data import memory
from fluvial.data.captions import read_captions
from fluvial.data.csv_text import read_cells
from fluvial.data.json_text import read_json
from fluvial.data.numpy_files import array_heads, load_arrays
from fluvial.data.tables import read_csv


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _with_head(text: str, elements: bytes = b"", version: bytes = b"\x01\0") -> bytes:
    """A ``.npy`` file with this header."""
    size = len(text).to_bytes(2 if version == b"\x01\0" else 4, "little")
    return b"\x93NUMPY" + version + size + text.encode() + elements


def _claiming(shape: str, dtype: str = "'<f4'", elements: bytes = bytes(16)) -> bytes:
    return _with_head(f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}\n", elements)


def _zip(members, way: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", way) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def _refusal(path: Path, read=load_arrays) -> str:
    with pytest.raises(ValueError) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message and message.isprintable() and len(message) < 600
    return message


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_pickles_are_not_run(tmp_path, name):
    marker, file = tmp_path / "marker", tmp_path / name
    array = np.array([Bomb(marker)], dtype=object)
    for content in (pickle.dumps(Bomb(marker)), pickle.dumps(Bomb(marker), 0)):
        file.write_bytes(content)
        assert "damaged or no" in _refusal(file)
    objects = io.BytesIO()
    np.save(objects, array, allow_pickle=True)
    file.write_bytes(objects.getvalue() if name == "x.npy" else _zip([("x.npy", objects.getvalue())]))
    assert "holds Python objects, which are not read" in _refusal(file)
    assert not marker.exists()


_CLAIMS = {
    "far too many": _claiming("(1000000000000,)"),
    "one too many": _claiming("(5,)"),
    "one too few": _claiming("(3,)"),
    "more than a machine counts": _claiming("(18446744073709551616, 0)"),
    "negative": _claiming("(-4,)"),
    "no size": _claiming("(1000000000000,)", "'S0'", b""),
    "records": _claiming("(4,)", "[('a', '<f4')]"),
    "arrays in arrays": _claiming("(4,)", "'(1,)f4'"),
    "long texts": _claiming("(4,)", "'<U999999999'"),
    "a header of 4 GiB": b"\x93NUMPY\x02\0\xff\xff\xff\xff" + bytes(10**6),
    "nested": _with_head("(" * 9000),
    "a literal that Python warns of": _with_head("{'descr': '\\d', 'fortran_order': 1if 1else 0}"),
    "records of the third version": _with_head("{}", version=b"\x03\0"),
    "neither true nor false": _claiming("(16,)", "'|b1'", b"\2" * 16),
    "no character": _claiming("(4,)", "'<U1'", b"\xff" * 16),
    "half a character": _claiming("(4,)", "'<U1'", (0xD800).to_bytes(4, "little") * 4),
}


@pytest.mark.parametrize("case", _CLAIMS)
@pytest.mark.filterwarnings("error")
def test_headers_that_claim_what_is_not_there(tmp_path, case):
    (tmp_path / "x.npy").write_bytes(_CLAIMS[case])
    (tmp_path / "x.npz").write_bytes(_zip([("x.npy", _CLAIMS[case])]))
    for name in ("x.npy", "x.npz"):
        assert "alloc" not in _refusal(tmp_path / name)


def test_an_archive_of_another_packing_or_with_strange_members(tmp_path):
    file, one = tmp_path / "x.npz", _npy(np.ones(3))
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = _zip([("x.npy", one), ("x.npy", one)])
    cases = {
        "is no array": _zip([("x", one)]),
        "two members 'x.npy'": twice,
        "packed in another way": _zip([("x.npy", one)], zipfile.ZIP_LZMA),
        "has no end": _zip([("x.npy", one)]) + b"more",
        "not where its end says": b"PK\3\4" + _zip([("x.npy", one)]),
    }
    for fragment, content in cases.items():
        file.write_bytes(content)
        assert fragment in _refusal(file)
    file.write_bytes(_zip([("../../x.npy", one), ("/etc/y.npy", one)]))
    assert set(load_arrays(file)) == {"../../x", "/etc/y"}  # keys, and never paths


def test_a_member_that_is_left_out_of_the_directory_is_missed(tmp_path):
    """Python's reader takes the part of the directory that the end tells of, and says nothing of the rest."""
    whole = _zip([("y.npy", _npy(np.ones(3))), ("x.npy", _npy(np.ones(3)))])
    end = whole.rindex(b"PK\5\6")
    start = whole.rindex(b"PK\1\2")
    shorter = whole[: end + 12] + (end - start).to_bytes(4, "little") + whole[end + 16 :]
    (tmp_path / "x.npz").write_bytes(shorter)
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        assert archive.namelist() == ["x.npy"]
    assert "not where its end says" in _refusal(tmp_path / "x.npz")


def test_members_that_share_their_bytes_are_no_archive(tmp_path):
    whole = bytearray(_zip([(f"{i}.npy", _npy(np.zeros(10**5))) for i in range(2)]))
    directory = whole.rindex(b"PK\1\2")
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        big = archive.infolist()[0].compress_size
    whole[directory + 20 : directory + 24] = (len(whole) - big // 2).to_bytes(4, "little")
    (tmp_path / "x.npz").write_bytes(whole)
    assert "overlap" in _refusal(tmp_path / "x.npz")


def test_an_archive_that_unpacks_to_more_than_the_memory(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros(2**17), y=np.zeros(2**17))
    assert (tmp_path / "x.npz").stat().st_size < 2**13
    monkeypatch.setattr(memory, "physical_memory", lambda: 2**21 - 1)
    assert "would take" in _refusal(tmp_path / "x.npz")
    monkeypatch.setattr(memory, "physical_memory", lambda: 2**21)
    assert len(load_arrays(tmp_path / "x.npz")["y"]) == 2**17


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i2", "|u1", "|b1", "<c8", "<U3", ">U3", "|S2", "<M8[s]"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 3)])
def test_what_numpy_writes_is_read_as_numpy_reads_it(tmp_path, dtype, shape):
    values = np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)
    for array in (values, np.asfortranarray(values)):
        np.save(tmp_path / "x.npy", array)
        np.savez_compressed(tmp_path / "x.npz", x=array)
        for name in ("x.npy", "x.npz"):
            found = load_arrays(tmp_path / name)["x"]
            assert found.dtype == array.dtype and np.array_equal(found, array)
            assert array_heads(tmp_path / name)["x"].shape == found.shape == array.shape


def test_cuts_and_flipped_bits_of_an_archive_are_noticed(tmp_path):
    file, expected = tmp_path / "x.npz", {"x": np.arange(4.0), "y": np.arange(4)}
    np.savez(file, **expected)
    whole = file.read_bytes()
    damaged = [whole[:cut] for cut in range(0, len(whole), 5)]
    damaged += [whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :] for at in range(0, len(whole), 3)]
    for content in damaged:
        file.write_bytes(content)
        try:
            found = load_arrays(file)
        except ValueError:
            continue
        named = len(found) == 2 and set(found) != {"x", "y"}  # names have no checksum
        assert named or all(np.array_equal(found[key], value) for key, value in expected.items())


_LYING = """
import resource, sys, time
from pathlib import Path
from {module} import {function} as read
{limit}
for name in sys.argv[1:]:
    try:
        read(Path(name){more})
    except ValueError as error:
        print(error)
"""
_LIMIT = """
now = int(open("/proc/self/statm").read().split()[0]) * 4096 + 2**27
resource.setrlimit(resource.RLIMIT_AS, (now, now))
"""


def _limited(module: str, function: str, *files: Path, more: str = "") -> list[str]:
    """What reading files says in a process that may take 128 MiB."""
    code = _LYING.format(module=module, function=function, limit=_LIMIT, more=more)
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_lying_arrays_take_no_memory(tmp_path):
    (tmp_path / "x.npy").write_bytes(_CLAIMS["far too many"])
    (tmp_path / "x.npz").write_bytes(_zip([("x.npy", _claiming("(1000000000000,)"))]))
    (tmp_path / "head.npz").write_bytes(_zip([("x.npy", b"\x93NUMPY\x02\0\xff\xff\xff\x7f" + bytes(2**28))]))
    said = _limited("fluvial.data.numpy_files", "load_arrays", *sorted(tmp_path.iterdir()))
    assert (
        len(said) == 3
        and sum("its header promises 4,000,000,000,000 bytes, there are 16" in line for line in said) == 2
    )
    assert "head.npz is damaged" in said[0] and "alloc" not in said[0]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_lying_images_take_no_memory(tmp_path):
    import gzip

    head = bytes([0, 0, 8, 3]) + b"\0\1\0\0" * 3
    (tmp_path / "a").write_bytes(head + bytes(10))
    (tmp_path / "b.gz").write_bytes(gzip.compress(head + bytes(10)))
    huge = (
        bytes([0, 0, 8, 3]) + b"\0\0\x01\0\0\0\x04\0\0\0\x04\0"
    )  # 2^28 bytes, which the 1 MiB after it could stand for
    (tmp_path / "c.gz").write_bytes(gzip.compress(huge + os.urandom(2**20)))
    said = _limited("fluvial.data.fashion_mnist", "read_idx", *sorted(tmp_path.iterdir()), more=", 3")
    assert len(said) == 3 and all("there are fewer" in line for line in said)


def test_json_that_is_deep_long_large_or_a_pipe(tmp_path):
    file = tmp_path / "a.json"
    for content, fragment in (
        (b"[" * 10**5, "nested too deeply"),
        (b"9" * 5000, "too many digits"),
        (b"{", "no JSON"),
        (b"\xff", "no text in UTF-8"),
        (b" " * (10**6 + 1), "has 1,000,001 bytes, expected at most 1,000,000"),
    ):
        file.write_bytes(content)
        assert fragment in _refusal(file, lambda path: read_json(path, 10**6))
    os.mkfifo(tmp_path / "pipe")
    assert "is no file" in _refusal(tmp_path / "pipe", read_json)
    assert "is no file" in _refusal(tmp_path / "pipe", read_cells)


def test_tables_with_many_strange_columns_are_refused_soon_and_in_one_line(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text(",".join(f"c{i % 50_000}" for i in range(100_000)) + "\n1\n")
    assert "columns of the same name: 'c0', 'c1'" in _refusal(file, read_csv)
    file.write_text(",".join(f'"a\n\x1b[31m{i}"' for i in range(1000)) + "\n" + ",".join("x" * 1000) + "\n")
    assert "and 988 more" in _refusal(file, read_csv)
    file.write_text("a\n1\n" + "x" * 100_000 + "\n")
    assert "mixes numbers and text" in _refusal(file, read_csv)


def test_captions_with_strange_names_are_refused_in_one_line(tmp_path):
    Image.new("L", (2, 2)).save(tmp_path / "a.png")
    file = tmp_path / "c.csv"
    for text in (
        '"fi\nle",caption\n',
        'file,caption\n"../\x1b[2Ja\n.png",x\n',
        "file,caption\n" + "a" * 10**5 + ",x\n",
    ):
        file.write_text(text)
        _refusal(file, lambda path: read_captions(path, tmp_path))


def test_parquet_whose_rows_do_not_fit(tmp_path, monkeypatch):
    """A run of equal values takes next to nothing in the file."""
    pq.write_table(pa.table({"a": np.zeros(10**6)}), tmp_path / "t.parquet")
    assert (tmp_path / "t.parquet").stat().st_size < 10**5
    monkeypatch.setattr(memory, "physical_memory", lambda: 2**20)
    with pytest.raises(ValueError, match="would take"):
        fv.load_dataset(str(tmp_path / "t.parquet"), held_out=0, stream=False)


def _batches(folder: Path, label: int = 0) -> None:
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        (folder / f"{name}.bin").write_bytes(bytes([label]) + bytes(3072))


def test_cifar10_with_wrong_labels_names_the_file(tmp_path):
    _batches(tmp_path)
    assert len(fv.load_dataset(f"cifar10:{tmp_path}")) == 6
    (tmp_path / "data_batch_3.bin").write_bytes(bytes([10]) + bytes(3072))
    with pytest.raises(ValueError, match=r"data_batch_3\.bin is damaged: labels must be in 0\.\.9, row 1 has 10"):
        fv.load_dataset(f"cifar10:{tmp_path}")


def test_cifar10_pictures_are_measured_before_they_are_decoded(tmp_path, monkeypatch):
    bomb, label = io.BytesIO(), pa.array([1])
    Image.new("RGB", (4000, 4000)).save(bomb, format="png")
    assert len(bomb.getvalue()) < 2**20  # 46 MiB of pixels
    for name in ("train-0", "test-0"):
        cells = [{"bytes": bomb.getvalue(), "path": None}]
        pq.write_table(pa.table({"img": cells, "label": label}), tmp_path / f"{name}.parquet")
    monkeypatch.setattr("fluvial.data.cifar10.decode_picture", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match=r"test-0\.parquet|train-0\.parquet, row 1 holds images that are not 32x32"):
        fv.load_dataset(f"cifar10:{tmp_path}")


@pytest.mark.parametrize("labels", [pa.array([None], pa.int64()), pa.array(["3"]), pa.array([-1]), pa.array([2.0])])
def test_cifar10_labels_of_parquet_are_whole_numbers(tmp_path, labels):
    png = io.BytesIO()
    Image.new("RGB", (32, 32)).save(png, format="png")
    for name in ("train-0", "test-0"):
        cells = [{"bytes": png.getvalue(), "path": None}]
        pq.write_table(pa.table({"img": cells, "label": labels}), tmp_path / f"{name}.parquet")
    with pytest.raises(ValueError, match=r"train-0\.parquet"):
        fv.load_dataset(f"cifar10:{tmp_path}")


def test_a_picture_that_is_a_program_is_not_given_to_its_interpreter(tmp_path, monkeypatch):
    """Pillow would open PostScript under any name, and Ghostscript would run it."""
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("it was run"))
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n"
    (tmp_path / "a.png").write_bytes(program)
    with pytest.raises(ValueError, match=r"a\.png is damaged or no image"):
        fv.load_dataset(f"folder:{tmp_path}")


@pytest.mark.filterwarnings("error")
def test_damaged_remarks_in_a_picture_are_passed_over(tmp_path):
    remarks, file, random = Image.Exif(), io.BytesIO(), np.random.default_rng(0)
    remarks[0x0112] = 6
    Image.fromarray(random.integers(0, 256, (4, 6), np.uint8)).save(file, format="jpeg", exif=remarks)
    whole = file.getvalue()
    at = whole.index(b"Exif\0\0")
    for place in range(at + 6, at + 32, 4):
        (tmp_path / "a.jpg").write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
        assert fv.load_dataset(f"folder:{tmp_path}", held_out=0).shape in ((1, 4, 6), (1, 6, 4))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_lying_picture_takes_no_memory(tmp_path):
    """The last part of the picture claims 2 GiB."""
    file = io.BytesIO()
    Image.new("L", (4, 4)).save(file, format="png")
    whole = file.getvalue()
    at = whole.index(b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(whole[:at] + b"\x7f\xff\xff\xff" + whole[at + 4 :])
    more = ", name, size=None, crop=None, grey=True"
    said = _limited("fluvial.data.pictures", "read_picture", tmp_path / "a.png", more=more)
    assert len(said) <= 1 and "memory" not in "".join(said)
