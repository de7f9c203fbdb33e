import numpy as np
import pytest
import torch

import fluvial as fv
from fluvial.data.specs import TOYS
from fluvial.data.toys import make_toy

CLASSES = {"moons": 2, "eight-gaussians": 8, "two-spirals": 2, "checkerboard": 0, "swiss-roll": 0}


@pytest.mark.parametrize("name", TOYS)
def test_toys_are_points_of_about_unit_size_made_by_the_seed(name: str) -> None:
    data = fv.load_dataset(name, seed=1)
    assert (len(data), len(data.train), data.shape, data.kind) == (10_000, 8_000, (2,), "points")
    assert len(data.class_names) == CLASSES[name]
    assert (data.x.mean(0).abs() < 0.2).all()
    assert data.x.std(0).min() > 0.4 and data.x.std(0).max() < 1.3 and data.x.abs().max() < 3
    assert data.content_hash == fv.load_dataset(name, seed=1).content_hash
    assert data.content_hash != fv.load_dataset(name, seed=2).content_hash


def test_each_gaussian_lies_at_its_angle() -> None:
    data = make_toy("eight-gaussians")
    for label in range(8):
        angle = torch.tensor(label * np.pi / 4)
        centre = 2**0.5 * torch.stack([angle.cos(), angle.sin()])
        cluster = data.x[data.labels == label]
        assert len(cluster) > 1000
        torch.testing.assert_close(cluster.mean(0), centre.float(), atol=0.02, rtol=0)
        torch.testing.assert_close(cluster.std(0), torch.full((2,), 0.1), atol=0.01, rtol=0)


def test_the_checkerboard_fills_the_squares_of_one_colour_evenly() -> None:
    cells = torch.floor(make_toy("checkerboard").x + 2).long()
    assert ((cells.sum(1) % 2) == 0).all()
    counts = torch.bincount(cells[:, 0] * 4 + cells[:, 1], minlength=16)
    assert (counts > 0).sum() == 8 and counts[counts > 0].min() > 1100


def test_one_spiral_is_the_other_turned_by_half() -> None:
    data = make_toy("two-spirals")
    radius = data.x.norm(dim=1) * 4.7
    angle = torch.atan2(data.x[:, 1], data.x[:, 0]) + torch.pi * data.labels
    off = torch.remainder(angle - radius + torch.pi, 2 * torch.pi) - torch.pi
    # Noise of 0.05 * 4.7 along the radius; arms taken for each other would be off by pi.
    off = off[radius > 3]
    assert off.mean().abs() < 0.02 and off.std() < 0.26


def test_the_classes_of_moons_are_split_evenly() -> None:
    assert torch.bincount(fv.load_dataset("moons").held_out.labels).tolist() == [1000, 1000]


def test_wrong_toys_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown toy 'moon'"):
        make_toy("moon")
    with pytest.raises(ValueError, match="count must be at least 1"):
        make_toy("moons", count=0)
    with pytest.raises(ValueError, match="seed must be a non-negative"):
        make_toy("moons", seed=-1)
