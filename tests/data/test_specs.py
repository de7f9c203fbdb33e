import subprocess
import sys

import pytest

from fluvial.data import DATASETS, parse_spec, spec_names
from fluvial.data import specs as specs_module


def test_parsing_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from fluvial.data.specs import parse_spec; parse_spec('digits');"
        "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'sklearn', 'PIL')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_form_has_a_line() -> None:
    assert spec_names() == tuple(DATASETS) and all(DATASETS.values())
    for name in ("digits", "moons", "eight-gaussians", "checkerboard", "swiss-roll", "two-spirals"):
        assert name in DATASETS and parse_spec(name).name == name


@pytest.mark.parametrize(
    ("spec", "fragment"),
    [
        ("digit", "unknown data set 'digit': did you mean 'digits'?"),
        ("Moons", "did you mean 'moons'?"),
        ("swissroll", "did you mean 'swiss-roll'?"),
        ("fashon-mnist:/x", "did you mean 'fashion-mnist:/x'?"),
        ("cifar", "did you mean 'cifar10:PATH'?"),
        ("floder:a", "did you mean 'folder:a'?"),
        ("", "expected one of digits, moons"),
        ("qqqq", "expected one of digits, moons"),
        ("absent.npy", "'absent.npy' does not exist"),
        ("absent.csv", "'absent.csv' does not exist"),
        ("folder:absent", "'absent' does not exist: give the folder"),
        ("folder", "needs a path, folder:PATH"),
        ("cifar10", "cifar10:PATH: unpack cifar-10-binary.tar.gz"),
        ("celeba:absent", "unpack img_align_celeba.zip"),
        ("fashion-mnist", "is not in data/fashion-mnist or nowhere: run `make data`"),
        ("fashion-mnist:absent", "run `make data`"),
        ("sub", "did you mean 'folder:sub'?"),
        ("notes.txt", "must end in .npy, .npz, .csv, .parquet"),
        ("folder:notes.txt", "is no folder"),
        ("dir.npy", "is no file"),
    ],
)
def test_wrong_specs_say_what_is_right(tmp_path, monkeypatch, spec: str, fragment: str) -> None:
    monkeypatch.chdir(tmp_path)
    places = (specs_module.Path("data/fashion-mnist"), specs_module.Path("nowhere"))
    monkeypatch.setattr(specs_module, "FASHION_MNIST_FOLDERS", places)
    (tmp_path / "sub").mkdir()
    (tmp_path / "dir.npy").mkdir()
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError) as caught:
        parse_spec(spec)
    assert fragment in str(caught.value) and "\n" not in str(caught.value)
    assert type(caught.value) is ValueError


def test_paths_are_found(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "X.NPY").write_text("")
    (tmp_path / "data" / "fashion-mnist").mkdir(parents=True)
    assert parse_spec("X.NPY").kind == "array"
    assert parse_spec("fashion-mnist").path == specs_module.Path("data/fashion-mnist")
    spec = parse_spec(f"folder:{tmp_path}/data")
    assert (spec.kind, spec.name, spec.path) == ("folder", "data", tmp_path / "data")


@pytest.mark.parametrize("spec", ["3", "None", "Path('digits')"])
def test_only_strings_are_specs(spec: str) -> None:
    # In a process of its own, where annotations are not checked.
    code = f"import fluvial as fv; from pathlib import Path; fv.load_dataset({spec})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "TypeError: spec must be a string, got " in done.stderr
