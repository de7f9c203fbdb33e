import os
import signal
import subprocess
import sys
import time
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


CHILDREN = {
    "forked": "pid = os.fork() or time.sleep(100)",
    "data worker": "w = fork.Process(target=time.sleep, args=(100,)); w.start(); pid = w.pid",
    "program": "pid = subprocess.Popen(['sleep', '100'], close_fds=False).pid",
}


@pytest.mark.parametrize("child", CHILDREN)
def test_nothing_is_held_after_a_kill_while_children_live(child: str, tmp_path: Path) -> None:
    """Data workers outlive a trainer that was killed; a restart must not wait for them."""
    code = "import multiprocessing, os, pathlib, subprocess, sys, time\nfrom fluvial.training.lock import run_lock\n"
    code += "fork = multiprocessing.get_context('fork')\n"
    code += f"with run_lock(pathlib.Path(sys.argv[1])):\n {CHILDREN[child]}\n print(pid, flush=True)\n time.sleep(100)"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    try:
        with pytest.raises(ValueError, match="another process is training"):
            run_lock(tmp_path).__enter__()
        process.kill()
        process.wait()
        os.kill(pid, 0)  # the child lives
        for attempt in range(100):  # it lets go as soon as it has run at all
            try:
                with run_lock(tmp_path):
                    break
            except ValueError:
                assert attempt < 99
                time.sleep(0.1)
    finally:
        process.kill()
        os.kill(pid, signal.SIGKILL)
        process.communicate()


def test_a_child_that_leaves_the_lock_leaves_it_to_its_parent(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        try:
            if pid := os.fork():
                _, status = os.waitpid(pid, 0)
                assert os.waitstatus_to_exitcode(status) == 7
            else:
                raise KeyError
        except KeyError:
            os._exit(7)
        with pytest.raises(ValueError, match="another process is training"):
            run_lock(tmp_path).__enter__()
