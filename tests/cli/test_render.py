"""Progress off a terminal: a line now and then, with rate and time left; nothing on other ranks."""

import sys

import pytest

from fluvial.cli.render import Bars, Lines, Renderer, format_seconds, renderer
from fluvial.progress import Progress


class Clock:
    """A clock that the test turns."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def _lines(total, seconds, capsys, values=None):
    clock = Clock()
    lines = Lines(clock)
    for step in range(total + 1):
        clock.now = seconds * step / total
        lines(Progress("train", step, total, values or {}))
    return capsys.readouterr().err.splitlines()


def test_one_line_per_tenth(capsys):
    lines = _lines(1000, 50, capsys, {"loss": 0.25})
    assert len(lines) == 10
    assert lines[4] == "train  500/1000  loss 0.25  20/s  0:25 left"
    assert lines[-1] == "train  1000/1000  loss 0.25  20/s  took 0:50"


def test_quick_tasks_print_their_end_alone(capsys):
    assert len(_lines(1000, 0.5, capsys)) == 1


def test_slow_tasks_speak_every_ten_seconds(capsys):
    lines = _lines(1000, 1000, capsys)
    assert 95 <= len(lines) <= 115


def test_rate_that_the_task_reports_is_used(capsys):
    (line,) = _lines(10, 0.5, capsys, {"loss": 1.0, "rate": 5.0})
    assert line == "train  10/10  loss 1  5/s  took 0:00"


def test_choice_of_renderer(monkeypatch):
    assert type(renderer()) is Lines
    monkeypatch.setenv("RANK", "1")
    assert type(renderer()) is Renderer
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert type(renderer()) is Bars


def test_bars_show_step_loss_rate_and_time(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    with Bars() as bars:
        for step in range(4):
            bars(Progress("train cfm", step, 3, {"loss": 0.125, "rate": 7.0}))
    shown = capsys.readouterr().err
    assert all(text in shown for text in ("train cfm", "3/3", "loss 0.125", "7/s"))


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3600, "1:00:00")])
def test_seconds(seconds, text):
    assert format_seconds(seconds) == text


def test_a_reader_that_goes_away_stops_no_work(monkeypatch):
    class Closed:
        def write(self, text):
            raise BrokenPipeError

        def flush(self):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Closed())
    lines = Lines()
    for step in range(3):
        lines(Progress("train", step, 2, {}))
