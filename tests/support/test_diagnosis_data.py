"""What a diagnosis makes of real data: classes stay apart, units are kept, and commands can be run as they are told."""

import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fluvial.paths import CondOT
from fluvial.randomness import generator
from fluvial.support.diagnosis import Diagnosis, diagnose
from fluvial.support.diagnosis.diagnosing import _as_family, _training
from fluvial.support.diagnosis.draws import Draws, draw_tasks, spread
from fluvial.support.diagnosis.geometry import measure_geometry
from fluvial.support.diagnosis.reading import read_tasks
from fluvial.support.diagnosis.rows import ClassRows
from fluvial.support.diagnosis.scarcity import _Measurement
from fluvial.support.tasks import ClassTasks, Shells, family_by_name
from fluvial.support.tasks.base import SyntheticFamily

PATH = CondOT(sigma_min=0.01)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def classes(*spreads: tuple[float, ...], rows: int = 240) -> tuple[Tensor, Tensor]:
    """Gaussian classes with these standard deviations."""
    parts = [normal(rows, len(s), seed=k) * torch.tensor(s) for k, s in enumerate(spreads)]
    return torch.cat(parts), torch.arange(len(spreads)).repeat_interleave(rows)


def draws_of(features: Tensor, labels: Tensor, m: int, tasks: int) -> Draws:
    family = ClassRows(features, labels, m=m)
    return draw_tasks(family, m, tasks, m + family.most_targets(m), generator(0))


def test_covariances_are_of_one_class() -> None:
    """A mixture of (10, .1) and (.1, 10) would be round."""
    draws = draws_of(*classes((10.0, 0.1), (0.1, 10.0)), m=20, tasks=8)
    for support, points in zip(draws.support, draws.everything(), strict=True):
        low, high = torch.linalg.eigvalsh(torch.cov(points.T)).tolist()
        assert low < 0.02 and high > 60
        assert int(points.var(0).argmax()) == int(support.var(0).argmax())


def test_variances_of_errors_are_of_the_class_whose_errors_they_are() -> None:
    draws = draws_of(*classes((10.0, 10.0), (0.1, 0.1)), m=20, tasks=8)
    measure = _Measurement(draws, PATH, draws.fresh, torch.zeros_like(draws.fresh), False)
    torch.testing.assert_close(measure._variance, spread(draws.fresh), rtol=0.5, atol=0)
    assert spread(draws.support).tolist() != pytest.approx(measure._variance.tolist(), rel=0.5)  # other classes


def test_gaussian_classes_of_different_shapes_have_no_local_geometry() -> None:
    """What a local metric gains on them, it gains on Gaussian doubles of the same class."""
    draws = draws_of(*classes((4.0, 4.0, 0.2, 0.2), (0.2, 0.2, 4.0, 4.0)), m=20, tasks=12)
    found = measure_geometry(draws, PATH, generator(1)).data
    assert found["excess"]["low"] < 0 < found["excess"]["high"] and abs(found["excess"]["value"]) < 0.3
    assert found["null"]["value"] > 0.3


def test_files_are_taken_as_they_are(tmp_path: Path) -> None:
    features = normal(300, 4) * torch.tensor([10.0, 1.0, 0.1, 0.1])
    path = tmp_path / "x.npz"
    np.savez(path, features=features.numpy())
    found, expected = (diagnose(data, 20, tasks=2) for data in (read_tasks(str(path), m=20), features))
    assert found.geometry.data["whole_excess"] == expected.geometry.data["whole_excess"]
    assert found.regimes == ("geometry mismatch",)
    assert not any("principal components" in note for note in found.notes)


def test_a_projection_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, features=(normal(120, 4) * torch.tensor([10.0, 1.0, 0.1, 0.1])).numpy())
    rows = read_tasks(str(path), 3, m=20)
    assert (rows.dim, rows.features) == (3, 4)
    notes = diagnose(rows, 20, tasks=2).notes
    assert notes[0].startswith("Points are the 3 leading principal components of 4 features, each scaled to")


def test_few_rows_of_many_features(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, features=normal(14, 20).numpy())
    assert read_tasks(str(path), m=4).dim == 20
    assert read_tasks(str(path), 13, m=4).dim == 13
    with pytest.raises(ValueError, match=r"x\.npz: dim must be at most 13"):
        read_tasks(str(path), 14, m=4)


class Unnamed(Shells):
    name = "shells of my own"


def arrays(count: int, dim: int = 3) -> ClassRows:
    return ClassRows(*classes(*[(1.0,) * dim] * count, rows=20), m=10)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        (lambda: Shells(5), "fluvial support train --tasks shells --dim 5 --m 10 --out RUN"),
        (lambda: read_tasks("digits", 4, m=10), "fluvial support train --tasks digits --dim 4 --m 10 --out RUN"),
        (lambda: arrays(1), None),
        (lambda: arrays(2), None),
        (
            lambda: arrays(3),
            "fluvial support train --tasks FILE.npz --dim 3 --m 10 --out RUN, where FILE.npz holds these features and "
            "labels",
        ),
        (lambda: Unnamed(2), "fluvial.nn.SupportNet, on batches of this family"),
        (lambda: ClassRows.of_tasks(family_by_name("digits", 4, split="test"), 10), "... --tasks digits --dim 4"),
    ],
)
def test_trainings_that_are_recommended_can_be_run(
    family: Callable[[], SyntheticFamily | ClassRows], expected: str | None
) -> None:
    found = _training(family(), 10)
    if expected is not None and expected.startswith("... "):
        assert found is not None and expected[4:] in found
    else:
        assert found == expected


def test_names_of_files_are_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    features, labels = classes(*[(1.0,) * 20] * 3, rows=20)
    np.savez("my features; v2.npz", features=features.numpy(), labels=labels.numpy())
    command = _training(read_tasks("my features; v2.npz", m=10), 10)
    assert command is not None
    words = shlex.split(command)
    assert words[words.index("--tasks") + 1] == "my features; v2.npz"
    assert words[words.index("--dim") + 1] == "16"  # training takes principal components


def test_tasks_of_a_data_set_are_looked_at_as_rows_of_its_classes() -> None:
    features, labels = classes(*[(1.0, 1.0, 1.0)] * 5, rows=40)
    features += 20 * labels[:, None]
    tasks = ClassTasks(torch.cat([features, features[:9]]), torch.cat([labels, labels[:9]]), dim=2, m=10)
    rows = _as_family(tasks, None, 10)
    assert isinstance(rows, ClassRows)
    assert (rows.classes, rows.all_classes, rows.dim, rows.duplicates, rows.rows) == (3, 5, 2, 9, 209)
    drawn = rows.batch(6, 10, 30, generator(0))
    together = torch.cat([drawn.support, drawn.targets], 1)
    for points in together:
        assert len(torch.unique(points, dim=0)) == 40  # none is drawn twice
    assert float(together[..., 0].var(1).max()) < 0.01  # each of one class: all of them together have 1
    centres = together.mean(1)[:, 0]
    assert len({round(float(x), 3) for x in centres}) == 3  # each class twice


def test_a_family_of_the_library_is_diagnosed_as_the_command_does() -> None:
    found: Diagnosis = diagnose(family_by_name("digits", 3, m=10), 10, tasks=9)
    assert (found.name, found.dim) == ("digits", 3)
    assert found.notes[0].startswith("Points are the 3 leading principal components of 64 features")
    assert found.notes[1].startswith("The 9 tasks are draws from 8 classes")
    with pytest.raises(ValueError, match=r"has 17\d members, a diagnosis with m = 170 needs at least 178"):
        diagnose(family_by_name("digits", 3, m=170), 170, tasks=2)
    with pytest.raises(ValueError, match="labels cannot be given"):
        diagnose(family_by_name("digits", 3), 10, labels=[0])
