import gzip
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "fetch_data.sh"
LENGTHS = {
    "train-images-idx3-ubyte.gz": 47040016,
    "train-labels-idx1-ubyte.gz": 60008,
    "t10k-images-idx3-ubyte.gz": 7840016,
    "t10k-labels-idx1-ubyte.gz": 10008,
}
TOOLS = ("bash", "dirname", "gzip", "wc", "mkdir", "mktemp", "rm", "grep", "tail", "mv", "cat")


@pytest.fixture
def repository(tmp_path) -> Path:
    """A copy of the script in a folder of its own, with a bin/ that holds the basic tools and neither apt nor dpkg."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copy(SCRIPT, tmp_path / "scripts")
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


def test_nothing_is_fetched_when_whole_files_are_there(repository) -> None:
    target = repository / "data" / "fashion-mnist"
    target.mkdir(parents=True)
    for name, length in LENGTHS.items():
        (target / name).write_bytes(gzip.compress(bytes(length), compresslevel=1))
    done = _run(repository)  # there is no apt-get to be found
    assert done.returncode == 0 and "Fashion-MNIST is in data/fashion-mnist" in done.stdout
    whole = (target / "t10k-labels-idx1-ubyte.gz").read_bytes()
    (target / "t10k-labels-idx1-ubyte.gz").write_bytes(whole[:-9])
    assert "apt-get is missing" in _run(repository).stderr
