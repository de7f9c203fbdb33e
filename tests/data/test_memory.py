"""What cannot fit into memory is refused before the work."""

import numpy as np
import pytest
from PIL import Image

import fluvial as fv
from fluvial.data import memory


def test_more_than_the_machine_has_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(memory, "physical_memory", lambda: 2**30)
    memory.check_fits(2**30, "it", "take less")
    with pytest.raises(ValueError, match=r"it would take 3\.0 GiB of memory, and there are 1\.0 GiB: take less"):
        memory.check_fits(3 * 2**30, "it", "take less")


def test_systems_that_do_not_tell_refuse_nothing(monkeypatch) -> None:
    monkeypatch.delattr("os.sysconf")
    assert memory.physical_memory() is None
    memory.check_fits(2**80, "it", "take less")


def test_pictures_are_counted_before_they_are_read(tmp_path, monkeypatch) -> None:
    for i in range(3):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / f"{i}.png")
    monkeypatch.setattr(memory, "physical_memory", lambda: 3 * 64)
    assert len(fv.load_dataset(f"folder:{tmp_path}", held_out=0)) == 3
    with pytest.raises(ValueError, match=r"3 pictures of shape \(1, 9, 9\) would take .*--size"):
        fv.load_dataset(f"folder:{tmp_path}", size=9, stream=False)
    assert fv.load_dataset(f"folder:{tmp_path}", size=9).streamed
