from pathlib import Path

import pytest

from fluvial.training.config import TrainConfig, write_config
from fluvial.training.folders import check_run_folder, prepare_run_folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder that holds a run, with files and folders in it."""
    run = tmp_path / "run"
    (run / "checkpoints" / "step-00000001").mkdir(parents=True)
    (run / "report.html").write_text("report")
    write_config(TrainConfig(), run)
    return run


@pytest.mark.parametrize("overwrite", [False, True])
def test_new_and_empty_folders_are_taken(overwrite: bool, tmp_path: Path) -> None:
    prepare_run_folder(tmp_path / "a" / "b", overwrite)
    assert list((tmp_path / "a" / "b").iterdir()) == []
    prepare_run_folder(tmp_path / "a" / "b", overwrite)


def test_a_run_is_kept_unless_overwritten(run: Path) -> None:
    with pytest.raises(ValueError, match=r"already holds a run; .*--resume .*--overwrite.* another --out"):
        prepare_run_folder(run)
    assert (run / "report.html").exists()
    prepare_run_folder(run, overwrite=True)
    assert list(run.iterdir()) == []


def test_checking_removes_nothing(run: Path) -> None:
    check_run_folder(run, overwrite=True)
    assert (run / "report.html").exists()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("config", [None, "", "steps = 3\n", "not toml ["])
def test_what_is_no_run_is_never_removed(config: str | None, overwrite: bool, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    if config is not None:
        (tmp_path / "config.toml").write_text(config)
    with pytest.raises(ValueError, match=r"holds files that are not a fluvial run .*another --out"):
        prepare_run_folder(tmp_path, overwrite)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_links_are_removed_and_not_followed(run: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("kept")
    (run / "link").symlink_to(elsewhere)
    prepare_run_folder(run, overwrite=True)
    assert (elsewhere / "kept").read_text() == "kept"


def test_unwritable_places(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(ValueError, match="is a file, not a folder"):
        prepare_run_folder(tmp_path / "file")
    with pytest.raises(ValueError, match=r"file/run cannot be (written|used as a run folder): Not a directory"):
        prepare_run_folder(tmp_path / "file" / "run")
    with pytest.raises(ValueError, match=r"/proc/fluvial cannot be written: No such file or directory"):
        prepare_run_folder(Path("/proc/fluvial"))
