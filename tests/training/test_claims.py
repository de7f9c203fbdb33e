"""A checkpoint that describes a huge net is refused before the net is made; every preset's own description passes."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fluvial.presets import PRESETS
from fluvial.support import MetaTrainer, SupportConfig, load_support_run
from fluvial.training import TrainConfig, Trainer, load_run
from fluvial.training.build import NetSpec, build_net
from fluvial.training.checkpoints import Checkpoint, load_checkpoint, save_checkpoint, sealed
from fluvial.training.claims import check_claims

Make = Callable[..., TrainConfig]


TENSORS: dict[str, dict[str, torch.Tensor]] = {name: {} for name in ("model", "ema", "optimizer")}


def saved(folder: Path, tensors: Mapping[str, torch.Tensor]) -> Checkpoint:
    return load_checkpoint(save_checkpoint(folder, 1, {**TENSORS, "ema": tensors}, {}, keep=1))


def made(spec: NetSpec, depth: int) -> nn.Module:
    return build_net(dataclasses.replace(spec, options=dataclasses.replace(spec.options, depth=depth)), 0)


@pytest.mark.parametrize("preset", PRESETS)
def test_no_preset_needs_more_than_its_own_weights(preset: str, tmp_path: Path) -> None:
    shape, references = (2,) if preset == "mlp" else (3, 32, 32), preset in ("unet", "dit")
    options = dataclasses.replace(PRESETS[preset], width=16, depth=3)
    spec = NetSpec(shape, options, classes=None if references else 3, references=references)
    weights = made(spec, 3).state_dict()
    checkpoint = saved(tmp_path / "whole", weights)
    check_claims(partial(made, spec), 3, [*shape, 16], checkpoint, "ema")
    size = sum(value.numel() * value.element_size() for value in weights.values())
    state = {"files": {"ema.safetensors": {"bytes": size - 1}}}
    with pytest.raises(ValueError, match=f"it takes {size} bytes, its weights have {size - 1}"):
        check_claims(partial(made, spec), 3, [*shape, 16], dataclasses.replace(checkpoint, state=state), "ema")
    fewer = saved(tmp_path / "fewer", dict(list(weights.items())[1:]))
    with pytest.raises(ValueError, match=f"it has {len(weights)} tensors, its weights {len(weights) - 1}"):
        check_claims(partial(made, spec), 3, [*shape, 16], fewer, "ema")


def test_a_deep_net_of_which_the_file_has_no_tensors_is_not_made(tmp_path: Path) -> None:
    """Modules take memory on the device meta too: a file of one tensor and a megabyte must not claim 10^6 of them."""
    spec = NetSpec((2,), dataclasses.replace(PRESETS["mlp"], width=8))
    checkpoint = saved(tmp_path, {"a": torch.zeros(2**18)})
    depths = []

    def make(depth: int) -> nn.Module:
        depths.append(depth)
        return made(spec, depth)

    with pytest.raises(ValueError, match=r"step-00000001 holds another net: it has 1200010 tensors, its weights 1$"):
        check_claims(make, 200_000, [2, 8], checkpoint, "ema")
    assert depths == [1, 2]


def test_positions_that_stand_in_no_file_are_bounded(tmp_path: Path) -> None:
    options = dataclasses.replace(PRESETS["dit"], width=8, depth=1, patch=1)
    small, huge = NetSpec((1, 8, 8), options), NetSpec((1, 10_000, 10_000), options)
    checkpoint = saved(tmp_path, {**made(small, 1).state_dict(), "more": torch.zeros(5000)})
    with pytest.raises(ValueError, match=r"holds another net: it takes 3200\d+ bytes beside its weights"):
        check_claims(partial(made, huge), 1, [1, 10_000, 8], checkpoint, "ema")


def claim(run: Path, **changes: Any) -> None:
    """Writes another net into the newest checkpoint's description, whose seal is made anew."""
    file = load_run(run).checkpoint.folder / "state.json"
    state = json.loads(file.read_text())
    state["net"]["options"] |= changes
    file.write_bytes(sealed(state))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"width": 10**9}, "describes no net: width must be at most 65536, got 1000000000"),
        ({"depth": 10**9}, "describes no net: depth must be at most 1000, got 1000000000"),
        ({"depth": 1001}, "describes no net: depth must be at most 1000, got 1001"),
        ({"depth": 1000}, "holds another net: it has 6010 tensors, its weights 16"),
        ({"width": 4000}, "holds another net: it takes"),
        ({"width": 65_536}, "holds another net: 65536 is a size of it"),
        ({"multipliers": [10**9]}, "holds another net: 8000000000 is a size of it"),
        ({"attention": [8] * 1000}, "describes no net"),
        ({"multipliers": [1] * 100_000}, "describes no net: {"),
    ],
)
def test_a_description_of_a_huge_net_is_refused(
    tiny: Make, tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    Trainer(tiny(steps=1), tmp_path / "run").fit()
    run = load_run(tmp_path / "run")
    before = {name: np.asarray(value) for name, value in run.net.state_dict().items()}
    claim(tmp_path / "run", **changes)
    with pytest.raises(ValueError, match=rf"step-00000001 {expected}"):
        _ = load_run(tmp_path / "run").net
    assert all(np.array_equal(value, run.net.state_dict()[name]) for name, value in before.items())


def test_a_meta_trained_net_of_too_many_blocks_is_refused(tmp_path: Path) -> None:
    config = SupportConfig(width=8, heads=2, steps=1, batch_size=2, points=8, bank=8)
    folder = MetaTrainer(config, tmp_path).fit().checkpoint
    run = load_support_run(tmp_path)
    held = len(run.net.state_dict())
    deep = dataclasses.replace(run, config=dataclasses.replace(config, blocks=1000))
    with pytest.raises(ValueError, match=rf"{folder.name} holds another net: it has \d{{5}} tensors, .* {held}$"):
        _ = deep.net
