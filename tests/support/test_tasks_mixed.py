"""Mixtures of families: who comes from where, and truths that combine."""

import pytest
import torch

import fluvial as fv
from fluvial.randomness import generator
from fluvial.support.tasks import (
    ClassTasks,
    FourierDensities,
    GaussianMixtures,
    Mixed,
    Moons,
    Rings,
    Shells,
    family_by_name,
)


def test_each_family_has_its_share_and_every_task_its_place():
    found = Mixed([Moons(), Rings(), GaussianMixtures(2)]).batch(3000, 1, 1, generator(0))
    rows = [part for part, _ in found.truth.parts]
    assert sorted(torch.cat(rows).tolist()) == list(range(3000))
    assert all(900 < len(part) < 1100 for part in rows)


def test_points_belong_to_the_truth_of_their_place():
    found = Mixed([Moons(), Rings(), Shells(2)]).batch(40, 20, 30, generator(1))
    own = found.truth.log_density(found.targets).mean(1)
    wrong = found.truth.log_density(found.targets.roll(1, 0)).mean(1)
    assert bool((own > -5).all()) and float((own > wrong).double().mean()) > 0.9
    own_support = found.truth.log_density(found.support).mean(1)
    assert bool((own_support > -6).all())
    again = found.truth.sample(30, generator(2))
    assert bool((found.truth.log_density(again).mean(1) > -5).all())


def test_velocity_is_each_family_s_own():
    found = Mixed([GaussianMixtures(2), Rings()]).batch(12, 1, 4, generator(3))
    t = torch.rand(12, 4, generator=generator(4))
    whole = found.truth.velocity(found.targets, t, fv.CondOT())
    for rows, truth in found.truth.parts:
        for place, row in enumerate(rows.tolist()):
            own = truth.velocity(found.targets[rows], t[rows], fv.CondOT())[place]
            assert torch.equal(whole[row], own)


def test_truth_knows_what_all_families_know():
    smooth = Mixed([GaussianMixtures(3), FourierDensities(3)]).batch(16, 1, 1, generator(5)).truth
    assert smooth.has_density and not smooth.has_velocity
    labels = torch.arange(12).repeat_interleave(20)
    real = ClassTasks(torch.randn(240, 5, generator=generator(6)), labels, dim=3, m=4)
    found = Mixed([real, GaussianMixtures(3)]).batch(16, 4, 5, generator(7))
    assert found.truth is None and found.support.shape == (16, 4, 3) and found.targets.shape == (16, 5, 3)


def test_same_seed_same_bits_and_bad_families_are_named():
    a, b = (family_by_name("mixed").batch(9, 4, 5, generator(8)) for _ in range(2))
    assert torch.equal(a.support, b.support) and torch.equal(a.targets, b.targets)
    support, targets = family_by_name("mixed").sample(4, 5, generator(9))
    assert support.shape == (4, 2) and targets.shape == (5, 2)
    with pytest.raises(ValueError, match="families must hold at least one family, got none"):
        Mixed([])
    with pytest.raises(ValueError, match=r"families must have one dimension, got moons \(2\), shells \(8\)"):
        Mixed([Moons(), Shells(8)])
    with pytest.raises(ValueError, match="m must be at least 1, got 0"):
        Mixed([Moons()]).batch(1, 0, 1, generator(0))
