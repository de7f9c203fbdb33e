"""A run knows where its data are, from any directory, and what they are, without them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluvial.data import Dataset, Standardization, load_dataset
from fluvial.training import TrainConfig, Trainer, load_run, read_config
from fluvial.training.source import DataForm, absolute_data, check_same_data, describe_data, read_data_form

Make = Callable[..., TrainConfig]


def test_paths_become_absolute_and_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blob").write_text("a,b\n1,2\n")
    (tmp_path / "a:b.csv").symlink_to(tmp_path / "blob")
    (tmp_path / "photos").mkdir()
    assert [absolute_data(name) for name in ("digits", "moons")] == ["digits", "moons"]
    assert absolute_data("a:b.csv") == f"{tmp_path}/a:b.csv"
    assert absolute_data("folder:photos") == f"folder:{tmp_path}/photos"
    assert absolute_data("fashion-mnist:photos") == f"fashion-mnist:{tmp_path}/photos"
    (tmp_path / "data" / "fashion-mnist").mkdir(parents=True)
    assert absolute_data("fashion-mnist") == "fashion-mnist"


def test_a_run_works_from_any_directory(
    tiny: Make, data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data_file.parent)
    Trainer(tiny(data=data_file.name), tmp_path / "run").fit()
    monkeypatch.chdir(tmp_path)
    assert read_config(tmp_path / "run").data == str(data_file)
    assert len(load_run("run").dataset().train) == 24
    assert Trainer(read_config(Path("run")), "run").fit(resume=True).step == 12


def test_moved_data_are_known_by_their_hash(tiny: Make, data_file: Path, tmp_path: Path) -> None:
    Trainer(tiny(), tmp_path / "run").fit()
    moved = tmp_path / "tiny.npz"
    shutil.move(data_file, moved)
    with pytest.raises(ValueError, match=rf"run/config.toml says data = '{data_file}': .* does not exist"):
        load_run(tmp_path / "run").dataset()
    assert Trainer(tiny(data=str(moved)), tmp_path / "run").fit(resume=True).step == 12
    assert len(load_run(tmp_path / "run").dataset().train) == 24


def test_units_and_names_are_known_without_the_data(tiny: Make, tmp_path: Path) -> None:
    file = tmp_path / "a:b.csv"
    rows = np.random.default_rng(0).normal(size=(30, 2)) * [1, 1000] + [0, 5000]
    file.write_text("mass,height,name\n" + "".join(f"{a},{b},x\n" for a, b in rows))
    train = load_dataset(str(file)).train
    Trainer(tiny(data=str(file)), tmp_path / "run").fit()
    file.unlink()
    form = load_run(tmp_path / "run").data_form
    assert form == DataForm("a:b.csv", "table", (), train.table)
    assert form.table is not None
    assert (form.table.columns, form.table.dropped) == (("mass", "height"), ("name",))


def test_class_names_are_kept(tmp_path: Path) -> None:
    data = Dataset(np.zeros((3, 2)), ["cat", "dog", "cat"], name="pets")
    described = json.loads(json.dumps(describe_data(data)))
    assert read_data_form(described, tmp_path) == DataForm("pets", "points", ("cat", "dog"), None)


TABLE = Dataset(np.zeros((3, 2)), table=Standardization(("a", "b"), (0.0, 0.0), (1.0, 2.0)))
UNITS = json.loads(json.dumps(describe_data(TABLE)))


@pytest.mark.parametrize(
    "values",
    [
        None,
        3,
        {},
        {**UNITS, "kind": "image"},
        {**UNITS, "table": None},
        {**UNITS, "name": 3},
        {**UNITS, "class_names": [1]},
        *[{**UNITS, "table": {**UNITS["table"], **change}} for change in ({"mean": ["x"]}, {"std": [1.0]})],
        {**UNITS, "table": "abc"},
    ],
)
def test_foreign_descriptions_are_refused(values: Any) -> None:
    assert read_data_form(UNITS, Path("step-00000001")).table == TABLE.table
    with pytest.raises(ValueError, match="step-00000001 does not describe its training data"):
        read_data_form(values, Path("step-00000001"))


def test_a_hash_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match="runs/a records no hash of the training data: data_hash is 3"):
        check_same_data(3, Dataset(np.zeros((3, 2))), Path("runs/a"))
