"""A disk that refuses a write, whichever it is, ends the training with one line and costs nothing that was saved."""

import builtins
import errno
import io
import os
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluvial.cli.errors import one_line
from fluvial.support import MetaTrainer, SupportConfig
from fluvial.training import TrainConfig, Trainer, load_run
from fluvial.training.checkpoints import CheckpointLeft
from fluvial.training.logs import METRICS_FILE, MetricsLog, read_metrics
from fluvial.training.recovery import newest_intact

Make = Callable[..., TrainConfig]
ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.ESTALE, errno.EDQUOT, errno.EACCES)


class Faults:
    """Counts what changes a folder; from the ``first`` such call on, all are refused."""

    def __init__(self, run: Path, number: int, first: int) -> None:
        self.run, self.number, self.first, self.calls = str(run), number, first, 0

    def count(self, path: Any) -> None:
        """One call more, on a path or a descriptor."""
        name = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.fspath(path)
        if str(name).startswith(self.run):
            self.calls += 1
            if self.calls >= self.first:
                raise OSError(self.number, os.strerror(self.number), str(name))

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, which is refused where it is one call too many."""

        def counted(path: Any, *rest: Any, **named: Any) -> Any:
            self.count(path)
            return function(path, *rest, **named)

        return counted

    def opening(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``open``, whose streams count what is written to them."""

        def counted(path: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
            if not set(mode) & set("wax+"):
                return function(path, mode, *rest, **named)
            self.count(path)
            return Stream(function(path, mode, *rest, **named), lambda: self.count(path))

        return counted


class Stream:
    """A stream whose writes are counted."""

    def __init__(self, stream: Any, count: Callable[[], None]) -> None:
        self._stream, self._count = stream, count

    def write(self, content: Any) -> Any:
        """Writes, unless it is refused."""
        self._count()
        return self._stream.write(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()


@contextmanager
def faults(run: Path, number: int, first: int) -> Iterator[Faults]:
    """Inside, the disk refuses all that changes ``run`` from the ``first`` call on."""
    found = Faults(run, number, first)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("mkdir", "rename", "replace", "fsync", "open"):
            patch.setattr(os, name, found.before(getattr(os, name)))
        opening = found.opening(builtins.open)
        patch.setattr(builtins, "open", opening)
        patch.setattr(io, "open", opening)
        yield found


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def losses(run: Path) -> list[tuple[float, float]]:
    return [(row["step"], row["loss"]) for row in read_metrics(run)]


def told_of(fit: Callable[..., Any], run: Path, number: int, first: int) -> str:
    """What the user is told: the error that ends training, or that an old checkpoint is left where all else is done."""
    with faults(run, number, first), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            end = fit(run)
        except (OSError, ValueError) as error:
            return one_line(error)
    assert end.step == 8 and [entry.category for entry in warned] == [CheckpointLeft]
    return str(warned[0].message)


def check_every_fault(fit: Callable[..., Any], whole: Path, run: Path, calls: range) -> None:
    """For each call: training ends in one line that names it, what was saved is intact, and the rest is the same."""
    for first in calls:
        shutil.rmtree(run, ignore_errors=True)
        number = ERRORS[first % len(ERRORS)]
        line = told_of(fit, run, number, first)
        assert str(run) in line and os.strerror(number) in line, f"call {first}: {line}"
        intact, damaged = newest_intact(run)
        assert not damaged, f"call {first}: {damaged}"
        began = (run / "config.toml").exists()
        assert began or intact is None
        end = fit(run, resume=True) if began else fit(run)
        assert end.step == 8
        assert files(end.checkpoint) == files(whole / "checkpoints" / end.checkpoint.name), f"call {first}"
        assert losses(run) == losses(whole), f"call {first}"
        if (whole / "samples").is_dir():
            assert files(run / "samples") == files(whole / "samples"), f"call {first}"


def count_calls(fit: Callable[..., Any], run: Path) -> int:
    with faults(run, errno.ENOSPC, first=2**31) as found:
        fit(run)
    return found.calls


def trainings(tiny: Make, **changes: Any) -> Callable[..., Any]:
    config = tiny(steps=8, checkpoint_every=4, log_every=4, keep=1, **changes)
    return lambda run, **how: Trainer(config, run).fit(**how)


def test_some_writes_refused(tiny: Make, tmp_path: Path) -> None:
    fit, whole = trainings(tiny), tmp_path / "whole"
    calls = count_calls(fit, whole)
    assert calls > 40
    check_every_fault(fit, whole, tmp_path / "run", range(3, calls + 1, 13))


@pytest.mark.slow
def test_every_write_refused(tiny: Make, tmp_path: Path) -> None:
    fit, whole = trainings(tiny, sample_every=4), tmp_path / "whole"
    check_every_fault(fit, whole, tmp_path / "run", range(1, count_calls(fit, whole) + 1))


@pytest.mark.slow
def test_writes_of_a_meta_training_refused(tmp_path: Path) -> None:
    config = SupportConfig(
        width=8, heads=2, steps=8, batch_size=2, points=8, bank=8, checkpoint_every=4, log_every=4, keep=1
    )

    def fit(run: Path, **how: Any) -> Any:
        return MetaTrainer(config, run).fit(**how)

    whole = tmp_path / "whole"
    check_every_fault(fit, whole, tmp_path / "run", range(1, count_calls(fit, whole) + 1, 3))


def test_a_line_that_fits_in_part_is_taken_back(tmp_path: Path) -> None:
    """Else the next line would follow the half one, and the file would be damaged in the middle."""
    with MetricsLog(tmp_path, 0, False) as log:
        log.write(1, {"loss": 2.0})
        whole, stream = (tmp_path / METRICS_FILE).read_bytes(), log._stream

        class Full:
            name = stream.name
            room = 7

            def fileno(self) -> int:
                return stream.fileno()

            def write(self, content: Any) -> int:
                if not self.room:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                written, self.room = stream.write(bytes(content)[: self.room]) or 0, 0
                return written

        log._stream = Full()  # type: ignore[assignment]
        with pytest.raises(OSError, match=r"not written \(No space left on device\)") as caught:
            log.write(2, {"loss": 1.0})
        assert caught.value.filename == str(tmp_path / METRICS_FILE)
        assert (tmp_path / METRICS_FILE).read_bytes() == whole
        log._stream = stream
        log.write(3, {"loss": 0.5})
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 3]


@pytest.mark.parametrize("lost", ["removed", "moved", "replaced"])
def test_a_run_folder_that_goes_away_while_training(lost: str, tiny: Make, tmp_path: Path) -> None:
    run, away = tmp_path / "run", tmp_path / "away"

    def lose(report: Any) -> None:
        if report.step == 6:
            run.rename(away)
            if lost == "removed":
                shutil.rmtree(away)
            if lost == "replaced":  # a mount point is a folder still
                run.mkdir()

    whole = Trainer(tiny(log_every=3, checkpoint_every=5), tmp_path / "whole").fit()
    with pytest.raises(OSError, match=r"not written \((No such file or directory|Stale file handle)\)") as caught:
        Trainer(tiny(log_every=3, checkpoint_every=5), run, progress=lose).fit()
    assert caught.value.filename is not None and caught.value.filename.startswith(str(run))
    assert not list(run.glob("checkpoints/step-*"))
    if lost == "removed":
        return
    shutil.rmtree(run, ignore_errors=True)
    away.rename(run)
    assert load_run(run).step == 5
    end = Trainer(tiny(log_every=3, checkpoint_every=5), run).fit(resume=True)
    assert files(end.checkpoint) == files(whole.checkpoint)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "fluvial-test", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if done.returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_really_full(small_disk: Path, tiny: Make, tmp_path: Path) -> None:
    whole, run = Trainer(tiny(), tmp_path / "whole").fit(), small_disk / "run"
    filler = small_disk / "filler"

    def fill(report: Any) -> None:
        if report.step == 6:
            room = shutil.disk_usage(small_disk).free
            filler.write_bytes(np.zeros(room - 2 * 4096, np.uint8))

    with pytest.raises(OSError, match=r"not written \(No space left on device\); earlier ones are intact"):
        Trainer(tiny(), run, progress=fill).fit()
    assert load_run(run).step == 5
    filler.unlink()
    end = Trainer(tiny(), run).fit(resume=True)
    assert files(end.checkpoint) == files(whole.checkpoint)
    assert losses(run) == losses(tmp_path / "whole")


def test_a_disk_that_is_taken_away(small_disk: Path, tiny: Make) -> None:
    run = small_disk / "run"

    def unmount(report: Any) -> None:
        if report.step == 6:
            subprocess.run(["umount", "-l", str(small_disk)], check=True)

    try:
        with pytest.raises(OSError, match="No such file or directory"):
            Trainer(tiny(), run, progress=unmount).fit()
        assert list(small_disk.iterdir()) == []  # nothing was written to where the disk had been
    finally:
        subprocess.run(["mount", "-t", "tmpfs", "fluvial-test", str(small_disk)], check=True)


def test_a_disk_that_becomes_read_only(small_disk: Path, tiny: Make, tmp_path: Path) -> None:
    whole, run = Trainer(tiny(), tmp_path / "whole").fit(), small_disk / "run"

    def protect(report: Any) -> None:
        if report.step == 6:
            # The metrics are open for writing, so that a remount is refused: a second mount covers the first.
            subprocess.run(["mount", "--bind", str(small_disk), str(small_disk)], check=True)
            subprocess.run(["mount", "-o", "remount,ro,bind", str(small_disk)], check=True)

    try:
        with pytest.raises(OSError, match=r"checkpoint not written \(Read-only file system\); earlier ones are intact"):
            Trainer(tiny(), run, progress=protect).fit()
        with pytest.raises((OSError, ValueError)) as caught:
            Trainer(tiny(), run).fit(resume=True)
        assert "Read-only file system" in one_line(caught.value) and str(run) in one_line(caught.value)
    finally:
        subprocess.run(["umount", str(small_disk)], check=False)
    assert files(Trainer(tiny(), run).fit(resume=True).checkpoint) == files(whole.checkpoint)
