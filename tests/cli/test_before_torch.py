"""Errors of arguments and paths are told before torch is imported: the same ones come where it cannot be imported."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

CASES = [
    [],
    ["trian"],
    ["train", "--stpes", "3"],
    ["train", "--data", "digit", "--out", "out"],
    ["train", "--data", "absent.npy", "--out", "out"],
    ["train", "--data", "empty.npy", "--out", "out"],
    ["train", "--data", "texts.npy", "--out", "out"],
    ["train", "--data", "objects.npy", "--out", "out"],
    ["train", "--data", "keys.npz", "--out", "out"],
    ["train", "--data", "plain.npz", "--out", "out"],
    ["train", "--data", "cut.npy", "--out", "out"],
    ["train", "--data", "empty.csv", "--out", "out"],
    ["train", "--data", "header.csv", "--out", "out"],
    ["train", "--data", "numbers.csv", "--out", "out"],
    ["train", "--data", "folder:none", "--out", "out"],
    ["train", "--data", "folder:absent", "--out", "out"],
    ["train", "--data", "~nobody-of-that-name/x.npy", "--out", "out"],
    ["train", "--data", "moons", "--out", "taken"],
    ["train", "--data", "moons", "--size", "8", "--out", "out"],
    ["train", "--objective", "efm", "--coupling", "ot", "--out", "out"],
    ["train", "--lr", "nan", "--out", "out"],
    ["train", "--resume", "absent"],
    ["train", "--resume", "foreign"],
    ["sample", "absent", "--out", "x.npz"],
    ["sample", "foreign", "--out", "x.npz"],
    ["sample", "absent", "--out", "x.txt"],
    ["sample", "absent", "--solver", "huen"],
    ["likelihood", "foreign", "--n", "3"],
    ["audit"],
    ["audit", "absent", "--out", "out"],
    ["audit", "--samples", "good.npy", "--train", "empty.npy", "--out", "out"],
    ["audit", "--samples", "good.npy", "--train", "good.npy", "--held-out", "keys.npz", "--out", "out"],
    ["audit", "scaling", "--sizes", "4,2", "--widths", "8", "--data", "good.npy", "--out", "out"],
    ["audit", "scaling", "--sizes", "4", "--widths", "8", "--data", "empty.npy", "--out", "out"],
    ["features", "texts.npy", "--extractor", "pixels", "--out", "f.npz"],
    ["features", "none", "--extractor", "pixels", "--out", "f.npz"],
    ["features", "digits", "--extractor", "pixels", "--out", "f.txt"],
    ["features", "digits", "--extractor", "pixels", "--out", "loop.npz"],
    ["retrieve", "--data", "moons", "--embeddings", ""],
    ["retrieve", "--data", "absent.npz", "--embeddings", "plain.npz"],
    ["support", "train", "--tasks", "shels", "--out", "out"],
    ["support", "train", "--tasks", "shells", "--bank", "2", "--points", "8", "--out", "out"],
    ["support", "sample", "absent", "--support", "plain.npz"],
    ["support", "evaluate", "foreign", "--tasks", "0"],
    ["support", "diagnose", "gm", "--out", "out"],
    ["support", "experiments", "--budget", "-1", "--out", "out"],
    ["info", "absent"],
    ["info", "foreign"],
    ["demo", "--steps", "0", "--out", "out"],
]
WITHOUT_TORCH = """
import contextlib, io, json, sys
class WithoutTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError("torch was imported")
sys.meta_path.insert(0, WithoutTorch())
from fluvial.cli import main
found = []
for arguments in json.loads(sys.argv[1]):
    text = io.StringIO()
    with contextlib.redirect_stderr(text):
        found.append([main(arguments), text.getvalue()])
print(json.dumps(found))
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files and folders that cannot be read as data or as runs."""
    monkeypatch.chdir(tmp_path)
    for name in ("none", "taken", "foreign"):
        Path(name).mkdir()
    Path("taken/file").write_text("")
    Path("foreign/config.toml").write_text("[tool]\nname = 'other'\n")
    Path("loop.npz").symlink_to("again.npz")
    Path("again.npz").symlink_to("loop.npz")
    np.save("good.npy", np.zeros((4, 2)))
    np.save("empty.npy", np.zeros((0, 2)))
    np.save("texts.npy", np.array(["a", "b"]))
    np.save("objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez("keys.npz", z=np.zeros(3))
    Path("cut.npy").write_bytes(Path("good.npy").read_bytes()[:-8])
    Path("plain.npz").write_text("nothing in particular\n")
    Path("empty.csv").write_text("")
    Path("header.csv").write_text("a,b\n")
    Path("numbers.csv").write_text("1,2\n3,4\n")
    return tmp_path


@pytest.mark.usefixtures("world")
def test_errors_are_the_same_where_torch_cannot_be_imported(fluvial):
    command = [sys.executable, "-c", WITHOUT_TORCH, json.dumps(CASES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = {" ".join(arguments): outcome for arguments, outcome in zip(CASES, json.loads(done.stdout), strict=True)}
    expected = {" ".join(arguments): [2, f"fluvial: error: {fluvial(*arguments).error}\n"] for arguments in CASES}
    assert found == expected
