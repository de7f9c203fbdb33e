import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fluvial.training import TrainConfig, Trainer, load_run
from fluvial.training.lock import run_lock

Make = Callable[..., TrainConfig]
HOLD = "import sys, pathlib; from fluvial.training.lock import run_lock\nwith run_lock(pathlib.Path(sys.argv[1])):"
HOLD += " print('held', flush=True); sys.stdin.read()"


def test_a_folder_is_held_by_one_and_given_back(tmp_path: Path) -> None:
    run = tmp_path / "deep" / "run"
    with run_lock(run), pytest.raises(ValueError, match=r"another process is training in .*run; wait for it"):
        run_lock(run).__enter__()
    with pytest.raises(KeyError), run_lock(run):
        raise KeyError
    with run_lock(run):
        pass


def test_nothing_is_held_after_a_kill(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="another process is training"):
            run_lock(tmp_path).__enter__()
    finally:
        process.kill()
        process.communicate()
    with run_lock(tmp_path):
        assert (tmp_path / ".lock").exists()


@pytest.mark.parametrize("how", [{"resume": True}, {"overwrite": True}])
def test_a_run_in_training_is_left_alone(how: dict[str, bool], tiny: Make, tmp_path: Path) -> None:
    run = tmp_path / "run"
    refusals: list[str] = []

    def second(report: object) -> None:
        if not refusals:
            with pytest.raises(ValueError, match="another process is training in") as caught:
                Trainer(tiny(), run).fit(**how)
            refusals.append(str(caught.value))

    assert Trainer(tiny(checkpoint_every=1), run, progress=second).fit().step == 12
    assert len(refusals) == 1
    assert load_run(run).step == 12
    assert Trainer(tiny(), run).fit(**how).step == 12


def test_unwritable_places(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(ValueError, match=r"\.lock cannot be written: Is a directory"):
        run_lock(tmp_path).__enter__()
    with pytest.raises(ValueError, match=r"/proc/fluvial cannot be written"):
        run_lock(Path("/proc/fluvial")).__enter__()
