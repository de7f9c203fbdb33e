from pathlib import Path

import pytest

from fluvial.training.config import TrainConfig, write_config
from fluvial.training.folders import check_run_folder, foreign_file, prepare_run_folder


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
    (run / ".lock").touch()
    (run / ".partial-config.toml").write_text("flu")
    check_run_folder(run)


def test_checking_removes_nothing(run: Path) -> None:
    check_run_folder(run, overwrite=True)
    assert (run / "report.html").exists()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("config", [None, "", "steps = 3\n", "not toml [", "fluvial = 3\n", '[fluvial]\nuser = "me"\n'])
def test_what_is_no_run_is_never_removed(config: str | None, overwrite: bool, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    if config is not None:
        (tmp_path / "config.toml").write_text(config)
    with pytest.raises(ValueError, match=r"holds files that are not a fluvial run, .*another --out"):
        prepare_run_folder(tmp_path, overwrite)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


OWN_FILES = [
    "metrics.jsonl",
    "audit.json",
    ".lock",
    ".partial-metrics.jsonl",
    "checkpoints/.partial-step-00000002/model.safetensors",
    "checkpoints/.partial-x",
    "checkpoints/.damaged-step-00000002/model.safetensors",
    "checkpoints/.damaged-step-00000002-2/state.json",
    "checkpoints/step-00000001/state.json",
    "checkpoints/step-00000001/ema.safetensors",
    "samples/a.npz",
    "samples/a.json",
    "samples/many/000000.png",
    "samples/step-00000001.npy",
    "likelihood/step-00000001.npz",
    "likelihood/step-00000001.json",
    "likelihood/step-00000001_histogram.png",
    "audit/report.html",
    "audit/audit.json",
    "tensorboard/events.out.tfevents.1.host",
]


def make_file(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("content")


def test_overwriting_removes_all_that_fluvial_writes_but_the_lock(run: Path) -> None:
    for name in OWN_FILES:
        make_file(run / name)
    assert foreign_file(run) is None
    prepare_run_folder(run, overwrite=True)
    assert [child.name for child in run.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    "name",
    [
        "notes.md",
        "sub/thesis.tex",
        "samples/notes.md",
        "audit/notes.md",
        "likelihood/thesis.tex",
        "checkpoints/step-00000001/notes.md",
        "checkpoints/best/model.safetensors",
        "data.npz",
        "config.toml.bak",
    ],
)
def test_overwriting_removes_nothing_else(name: str, run: Path) -> None:
    make_file(run / name)
    before = sorted(run.rglob("*"))
    named = "sub" if name.startswith("sub") else "checkpoints/best/" if "best" in name else name
    with pytest.raises(ValueError, match=rf"{named}.* was not written by fluvial, and --overwrite removes nothing"):
        prepare_run_folder(run, overwrite=True)
    assert sorted(run.rglob("*")) == before


def test_training_data_in_the_run_folder_are_kept(run: Path, tmp_path: Path) -> None:
    file = run / "samples" / "x.npz"
    make_file(file)
    (tmp_path / "link.npz").symlink_to(file)
    for data in (str(file), str(tmp_path / "link.npz"), f"folder:{run / 'samples'}"):
        with pytest.raises(ValueError, match=r"run holds the training data '.*'; give another --out"):
            prepare_run_folder(run, overwrite=True, data=data)
    assert file.exists()
    check_run_folder(run, overwrite=True, data=f"folder:{tmp_path}")


def test_a_damaged_config_is_no_licence_to_remove(run: Path) -> None:
    (run / "config.toml").write_text((run / "config.toml").read_text() + "colour = 3\n")
    with pytest.raises(ValueError, match="unknown key 'colour'"):
        prepare_run_folder(run, overwrite=True)
    assert (run / "report.html").exists()


@pytest.mark.parametrize("name", ["link", "checkpoints/link", "tensorboard"])
def test_links_are_not_followed(name: str, run: Path, tmp_path: Path) -> None:
    make_file(tmp_path / "elsewhere" / "kept")
    (run / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=rf"{name} was not written by fluvial"):
        prepare_run_folder(run, overwrite=True)
    assert (tmp_path / "elsewhere" / "kept").exists()


def test_a_link_to_no_folder_yet_becomes_one(tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    prepare_run_folder(tmp_path / "run")
    assert (tmp_path / "disk").is_dir()


def test_unwritable_places(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(ValueError, match="is a file, not a folder"):
        prepare_run_folder(tmp_path / "file")
    with pytest.raises(ValueError, match=r"file/run cannot be (written|used as a run folder): Not a directory"):
        prepare_run_folder(tmp_path / "file" / "run")
    with pytest.raises(ValueError, match=r"/proc/fluvial cannot be written: No such file or directory"):
        prepare_run_folder(Path("/proc/fluvial"))
