import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fluvial.training.config import TrainConfig, read_config, write_config

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
HEAD = 'fluvial = "0.1.0"\ndata = "digits"\nobjective = "cfm"\n'
CONFIGS = st.builds(
    TrainConfig,
    data=TEXT,
    size=st.none() | st.integers(1, 8192),
    held_out=st.none() | st.integers(0, 10**6) | st.floats(0, 1, exclude_max=True),
    labels=st.booleans(),
    lr=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    clip=st.floats(min_value=0, allow_infinity=False),
    steps=st.integers(1, 10**12),
    seed=st.integers(0, 2**62),
)


@given(config=CONFIGS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_config_survives_toml(config: TrainConfig, tmp_path: Path) -> None:
    write_config(config, tmp_path, data_hash="ab")
    assert read_config(tmp_path) == config


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("objective", "cfn", r"must be one of cfm, efm, meanflow, likelihood, got 'cfn'; did you mean 'cfm'\?"),
        ("path", "condott", r"did you mean 'condot'\?"),
        ("coupling", "indep", r"did you mean 'independent'\?"),
        ("coupling", "zzz", r"coupling must be one of independent, ot, ot-rank, got 'zzz'$"),
        ("precision", "bf32", r"precision must be one of no, bf16, fp16, got 'bf32'; did you mean 'bf16'\?"),
        ("data", "digit", "did you mean 'digits'"),
        ("data", "absent.npy", "absent.npy"),
        ("data", "\udc80.npy", "valid Unicode"),
        ("width", 12, "width must be a multiple of 8, got 12"),
        ("size", 0, "size must be at least 1, got 0"),
        ("held_out", 1.0, r"held_out must be a count or a share in \[0, 1\), got 1.0"),
        ("held_out", -3, "held_out must not be negative, got -3"),
        ("held_out", float("nan"), "held_out must be a count or a share"),
        ("lr", 0.0, "lr must be positive and finite, got 0.0"),
        ("lr", float("inf"), "lr must be positive and finite, got inf"),
        ("lr", float("nan"), "lr must be positive and finite, got nan"),
        ("ema", 1.0, r"ema must be in \[0, 1\), got 1.0"),
        ("ema", -0.1, r"ema must be in \[0, 1\)"),
        ("drop_cond", 1.0, r"drop_cond must be in \[0, 1\), got 1.0"),
        ("warmup", -1, "warmup must be at least 0, got -1"),
        ("weight_decay", -0.1, "weight_decay must be finite and not negative"),
        ("clip", float("nan"), "clip must be finite and not negative, got nan"),
        ("seed", -1, "seed must be at least 0, got -1"),
        ("sample_every", -1, "sample_every must be at least 0, got -1"),
        ("batch_size", 10**11, "batch_size must be at most 1000000, got 100000000000"),
        ("size", 100_000, "size must be at most 8192, got 100000"),
        ("width", 2**40, "width must be at most 65536"),
        ("depth", 10**9, "depth must be at most 1000, got 1000000000"),
        *[
            (name, bad, f"{name} must be at least 1, got {bad}")
            for name in ("steps", "batch_size", "width", "depth", "bank_size", "log_every", "checkpoint_every", "keep")
            for bad in (0, -5)
        ],
    ],
)
def test_bad_value_is_named(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TrainConfig(), **{field: value}).validate()


def test_efm_refuses_optimal_transport() -> None:
    with pytest.raises(ValueError, match="objective 'efm' needs coupling 'independent', got 'ot'"):
        TrainConfig(objective="efm", coupling="ot").validate()


@pytest.mark.parametrize("value", ["5", 5.0, True, None])
def test_wrong_type_is_named(value: object) -> None:
    config = TrainConfig()
    object.__setattr__(config, "steps", value)
    with pytest.raises(TypeError, match="steps must be int, got "):
        config.validate()


def test_whole_numbers_are_accepted_as_floats() -> None:
    config = TrainConfig()
    object.__setattr__(config, "lr", 1)
    config.validate()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps = 5\n", "not written by fluvial"),
        ('fluvial = 3\ndata = "digits"\nobjective = "cfm"\n', "not written by fluvial"),
        ('[fluvial]\nuser = "me"\n', "not written by fluvial"),
        ('fluvial = "0.1.0"\n', "not written by fluvial"),
        (HEAD + "step = 5\n", "unknown key 'step'; did you mean 'steps'?"),
        (HEAD + 'steps = "5"\n', "steps must be int, got '5'"),
        (HEAD + "lr = -1.0\n", "lr must be positive and finite, got -1.0"),
        (HEAD + "steps = \n", "cannot be read"),
    ],
)
def test_foreign_or_damaged_config(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ValueError) as caught:
        read_config(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_not_a_run_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is not a run folder: it has no config.toml"):
        read_config(tmp_path)
    with pytest.raises(ValueError, match="is not a run folder: there is no such folder"):
        read_config(tmp_path / "absent")


def test_absent_data_can_still_be_read(tmp_path: Path) -> None:
    write_config(TrainConfig(data="gone.npy"), tmp_path)
    assert read_config(tmp_path).data == "gone.npy"


def test_config_imports_no_torch() -> None:
    code = (
        "import sys; from fluvial.training import TrainConfig, Interrupted, prepare_run_folder;"
        "TrainConfig().validate(); sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
