import builtins
from pathlib import Path
from typing import Any

import pytest

from fluvial.training.logs import MetricsLog, check_tensorboard, read_metrics

LINE = '{"step": 1, "loss": 2.0}'


def test_lines_beyond_the_step_are_cut(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, 0, False) as log:
        for step in (10, 20, 30):
            log.write(step, {"loss": step / 7})
    with MetricsLog(tmp_path, 20, False) as log:
        log.write(25, {"loss": 0.1})
    assert read_metrics(tmp_path) == [
        {"step": 10, "loss": 10 / 7},
        {"step": 20, "loss": 20 / 7},
        {"step": 25, "loss": 0.1},
    ]


def test_a_line_cut_short_by_a_crash_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 2.0}]
    with MetricsLog(tmp_path, 5, False) as log:
        log.write(6, {"loss": 1.0})
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 6]


def test_damage_in_the_middle_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(f"{LINE}\nxx\n{LINE}\n")
    with pytest.raises(ValueError, match=r"metrics.jsonl is damaged at line 2: 'xx'"):
        read_metrics(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 2}',
        '{"step": 2, "loss": "abc"}',
        '{"step": 2, "loss": null}',
        '{"step": 2, "loss": true}',
        '{"step": 2, "loss": 1.0, "lr": []}',
        '{"step": true, "loss": 1.0}',
        '{"step": 2.5, "loss": 1.0}',
        '{"step": 2, "loss": 1%s}' % ("0" * 400),
    ],
)
def test_lines_without_numbers_are_damage(line: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(f"{LINE}\n{line}\n{LINE}\n")
    with pytest.raises(ValueError, match=r"metrics.jsonl is damaged at line 2"):
        read_metrics(tmp_path)


def test_norms_that_overflowed_are_numbers(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, 0, False) as log:
        log.write(1, {"loss": 2.0, "grad_norm": float("inf")})
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 2.0, "grad_norm": float("inf")}]


def test_lines_can_be_read_while_training_goes_on(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, 0, False) as log:
        log.write(1, {"loss": 2.0})
        assert read_metrics(tmp_path) == [{"step": 1, "loss": 2.0}]


def test_missing_tensorboard_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"pip install 'fluvial\[track\]'"):
        check_tensorboard()


def test_lines_for_a_file_that_is_no_longer_there_are_refused(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, 0, False) as log:
        log.write(1, {"loss": 2.0})
        (tmp_path / "metrics.jsonl").rename(tmp_path / "away")
        with pytest.raises(OSError, match=r"not written \(No such file or directory\)"):
            log.write(2, {"loss": 2.0})
        (tmp_path / "metrics.jsonl").write_text("of another disk")
        with pytest.raises(OSError, match=r"not written \(Stale file handle\)"):
            log.write(2, {"loss": 2.0})
    assert (tmp_path / "away").read_text() == '{"step": 1, "loss": 2.0}\n'
