"""What samples of a run are is read from its checkpoint, whatever its data are called and even once they are gone."""

import numpy as np
import pytest

from fluvial.cli.samples import Form, form_of
from fluvial.data import load_dataset
from fluvial.training import TrainConfig, Trainer, load_run


def _run(data, folder):
    Trainer(TrainConfig(data=str(data), width=8, depth=1, steps=1, batch_size=4), folder).fit()
    return load_run(folder)


@pytest.mark.parametrize("name", ["t.csv", "a:b.csv", "images:of.csv"])
def test_tables_keep_their_units_under_any_name_without_the_file(fluvial, name, tmp_path):
    rows = np.random.default_rng(0).normal(size=(40, 2)) * [1, 10] + [0, 1000]
    np.savetxt(tmp_path / name, rows, delimiter=",", header="a,b", comments="")
    table = load_dataset(str(tmp_path / name)).table
    run = _run(tmp_path / name, tmp_path / "run")
    (tmp_path / name).unlink()
    assert form_of(run) == Form(name, "table", (2,), table)
    assert fluvial("sample", tmp_path / "run", "--n", 50, "--steps", 2, "--out", tmp_path / "x.npz").status == 0
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["x"][:, 1].mean() > 900


def test_arrays_of_the_shape_of_images_that_are_none(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(20, 1, 4, 4)) * 50)
    run = _run(tmp_path / "x.npy", tmp_path / "run")
    assert form_of(run) == Form("x.npy", "points", (1, 4, 4))
