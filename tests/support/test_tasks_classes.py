"""Tasks from real classes: splits, components, disjoint support and targets, and refusals."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from fluvial.randomness import generator
from fluvial.support.tasks import ClassTasks, Mixed, Moons, Rings, family_by_name
from fluvial.support.tasks.classes import split_classes
from fluvial.support.tasks.features import net_features, pixel_features, read_feature_file

REAL = Path(__file__).parents[2] / "data" / "fashion-mnist"


def made(classes=12, size=30, dim=6, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), size)
    centres = 3 * rng.standard_normal((classes, dim))
    return (centres[labels] + rng.standard_normal((classes * size, dim))).astype(np.float32), labels


@pytest.mark.parametrize("number", [3, 4, 5, 10, 11, 37, 1000])
def test_classes_are_split_in_three_disjoint_parts_of_80_10_10(number):
    parts = split_classes(np.arange(number), 42)
    train, validation, test = (parts[name] for name in ("train", "validation", "test"))
    assert sorted(np.concatenate([train, validation, test])) == list(range(number))
    assert min(len(train), len(validation), len(test)) >= 1
    if number >= 10:
        assert len(train) == int(0.8 * number) and len(validation) == int(0.1 * number)
    expected = np.arange(number)
    np.random.RandomState(42).shuffle(expected)
    assert np.concatenate([train, validation, test]).tolist() == expected.tolist()


def test_components_are_those_of_the_train_classes_alone():
    features, labels = made()
    family = ClassTasks(features, labels, 4, m=5)
    train = np.isin(labels, family.classes)
    assert train.sum() == 9 * 30
    fitted = PCA(4).fit(features[train].astype(np.float64))
    projected = fitted.transform(features)
    expected = (projected - projected[train].mean(0)) / projected[train].std(0)
    every = family.batch(200, 5, 25, generator(0))
    found = torch.cat([every.support, every.targets], 1).reshape(-1, 4).unique(dim=0).double().numpy()
    assert len(found) == 270
    gap = np.abs(found[:, None] - expected[train][None]).max(-1)
    assert gap.min(0).max() < 1e-4 and gap.min(1).max() < 1e-4
    # changing the other classes changes nothing
    features[~train] = 100.0 * np.random.default_rng(1).standard_normal(((~train).sum(), 6))
    again = ClassTasks(features, labels, 4, m=5).batch(200, 5, 25, generator(0))
    assert torch.equal(again.support, every.support) and torch.equal(again.targets, every.targets)


def test_large_offsets_do_not_spoil_the_components():
    features, labels = made()
    moved = ClassTasks(features + 1000.0, labels, 3, m=5).batch(4, 5, 20, generator(0))
    here = ClassTasks(features, labels, 3, m=5).batch(4, 5, 20, generator(0))
    torch.testing.assert_close(moved.support, here.support, rtol=2e-3, atol=2e-3)


def rows_of(points):
    return {row.numpy().tobytes() for row in points}


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("n", [10, 25, 26, 200])
def test_targets_are_of_the_support_s_class_and_never_in_it(split, n):
    features, labels = made()
    family = ClassTasks(features, labels, 4, split=split, m=5)
    classes = {label: rows_of(family._members[label]) for label in family.classes}
    found = family.batch(20, 5, n, generator(1))
    for support, targets in zip(found.support, found.targets, strict=True):
        inside, outside = rows_of(support), rows_of(targets)
        assert len(inside) == 5 and not inside & outside
        assert any(inside <= members and outside <= members for members in classes.values())
        assert len(outside) == n if n <= 25 else len(outside) <= 25  # without replacement while there are enough
    if n == 200:
        assert all(len(rows_of(targets)) > 20 for targets in found.targets)


def test_splits_share_components_and_no_class():
    features, labels = made()
    train = ClassTasks(features, labels, 4, m=5)
    test = train.of_split("test")
    assert not set(train.classes) & set(test.classes) and train.split == "train"
    direct = ClassTasks(features, labels, 4, split="test", m=5).batch(2, 5, 6, generator(2))
    assert torch.equal(test.batch(2, 5, 6, generator(2)).support, direct.support)


def test_repeated_rows_are_left_out_so_that_no_target_copies_a_support_point():
    features, labels = made(size=20)
    doubled = np.concatenate([features, features, -0.0 * features[:1] + features[:1]])
    family = ClassTasks(doubled, np.concatenate([labels, labels, labels[:1]]), 3, m=10)
    assert family.duplicates == len(labels) + 1
    found = family.batch(50, 10, 100, generator(3))
    assert not any(rows_of(s) & rows_of(t) for s, t in zip(found.support, found.targets, strict=True))
    with pytest.raises(ValueError, match=r"label 0 has 20 members, tasks with m = 20 need at least 21 \(241 rows that"):
        ClassTasks(doubled, np.concatenate([labels, labels, labels[:1]]), 3, m=20)


def test_small_classes_are_refused_by_name_or_left_out():
    features, labels = made()
    names = np.array([f"class {label:02d}" for label in labels])
    keep = ~((labels == 7) & (np.arange(len(labels)) % 30 >= 5))
    with pytest.raises(ValueError, match="label 'class 07' has 5 members, tasks with m = 5 need at least 6"):
        ClassTasks(features[keep], names[keep], 3, m=5)
    family = ClassTasks(features[keep], names[keep], 3, m=5, leave_out_small=True)
    shown = [family.of_split(split).classes for split in ("train", "validation", "test")]
    assert sum(map(len, shown)) == 11 and "class 07" not in sum(shown, ())
    with pytest.raises(ValueError, match=r"label 'class \d\d' has 30 members, tasks with m = 30 need at least 31"):
        family.batch(1, 30, 5, generator(0))


def test_same_seed_same_bits():
    family = ClassTasks(*made(), 3, m=5)
    a, b = (family.batch(6, 5, 40, generator(4)) for _ in range(2))
    assert torch.equal(a.support, b.support) and torch.equal(a.targets, b.targets) and a.truth is None
    support, targets = family.sample(5, 7, generator(4))
    assert support.shape == (5, 3) and targets.shape == (7, 3)


def test_bad_data_are_refused_in_one_line():
    features, labels = made()
    damaged = features.copy()
    damaged[[3, 9], 2] = np.nan
    cases = [
        ((damaged, labels, 3), r"features must be finite, got NaN or infinity in 2 of 360 rows, the first is row 3"),
        ((features, labels[:-1], 3), r"labels must have shape \(360,\), one for each row of features, got \(359,\)"),
        ((features[:0], labels[:0], 3), r"features must have shape \(N, D\), neither of them 0, got \(0, 6\)"),
        ((features.ravel(), labels, 3), r"features must have shape \(N, D\), neither of them 0, got \(2160,\)"),
        ((features, labels + 0.5, 3), "labels must be whole numbers or strings, got dtype float64"),
        ((features, labels // 6, 3), "labels must hold at least 3 classes of 6 rows or more, got 2"),
        ((features, labels, 7), "dim must be at most 6 for 270 train features of 6 numbers, got 7"),
        ((features, labels, 0), "dim must be at least 1, got 0"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            ClassTasks(*arguments, m=5)
    flat = np.concatenate([features[:, :2], 0 * features[:, 2:]], 1)
    with pytest.raises(ValueError, match="train features vary in 2 directions alone, dim must be at most that, got 3"):
        ClassTasks(flat, labels, 3, m=5)
    with pytest.raises(ValueError, match="m must be at least 1, got 0"):
        ClassTasks(features, labels, 3, m=0)
    with pytest.raises(TypeError, match="features must be real numbers, got dtype <U1"):
        ClassTasks([["a"]], [0], 3)


def test_feature_files_are_read_and_bad_ones_refused(tmp_path):
    features, labels = made()
    path = tmp_path / "mine.npz"
    np.savez(path, features=features, labels=labels, names=np.array(["x"] * 360))
    family = family_by_name(str(path), 3, m=5)
    assert family.name == str(path) and family.dim == 3
    direct = ClassTasks(features, labels, 3, m=5).batch(2, 5, 6, generator(5))
    assert torch.equal(family.batch(2, 5, 6, generator(5)).targets, direct.targets)
    np.savez(path, x=features, labels=labels)
    with pytest.raises(ValueError, match=r"mine.npz must have the keys 'features' and 'labels', got 'labels', 'x'"):
        read_feature_file(path)
    np.savez(path, features=np.array([object()]), labels=labels)
    with pytest.raises(ValueError, match=r"mine.npz holds Python objects, which are not read"):
        read_feature_file(path)
    np.savez(path, features=features * np.inf, labels=labels)
    with pytest.raises(ValueError, match=r"mine.npz: features must be finite, got NaN or infinity in 360 of 360 rows"):
        read_feature_file(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"mine.npz is damaged or no .npz file"):
        read_feature_file(path)


def test_digits_are_split_into_eight_classes_and_two_held_out():
    family = family_by_name("digits", 8, m=50)
    assert len(family.classes) == 8 and family.dim == 8
    every = torch.cat([family._members[label] for label in family.classes])
    torch.testing.assert_close(every.mean(0), torch.zeros(8), rtol=0, atol=1e-5)
    torch.testing.assert_close(every.std(0, correction=0), torch.ones(8), rtol=0, atol=1e-4)
    assert pixel_features("digits").features.shape == (1797, 64)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not REAL.is_dir(), reason="run `make data` first")
def test_fashion_mnist_makes_tasks():
    family = family_by_name("fashion-mnist", 16, split="test")
    found = family.batch(4, 50, 128, generator(7))
    assert len(family.classes) == 1 and found.targets.shape == (4, 128, 16)
    assert len(family.of_split("train").classes) == 8


@pytest.mark.slow
def test_features_of_a_net_are_taken_of_the_first_images_of_each_class(tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite_pytorch")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    seen = []
    found = net_features("digits", "efficientnet-lite0", per_class=4, progress=seen.append)
    assert found.features.shape == (40, 1280) and np.bincount(found.labels).tolist() == [4] * 10
    assert seen[-1].step == seen[-1].total == 40
    family = ClassTasks(found.features, found.labels, 8, m=2)
    assert family.batch(2, 2, 5, generator(6)).support.shape == (2, 2, 8)


def test_the_hash_is_of_what_is_given_and_not_of_the_machine() -> None:
    """Projected points differ in their last bits with the number of threads."""
    random = np.random.default_rng(0)
    features, labels = random.normal(size=(60, 6)).astype(np.float32), np.repeat(np.arange(5), 12)
    first, again = (ClassTasks(features, labels, 3, m=5) for _ in range(2))
    object.__setattr__(again, "_members", {label: rows + 1e-7 for label, rows in again._members.items()})
    assert first.content_hash == again.content_hash == first.of_split("test").content_hash
    features[7, 2] += 1
    assert ClassTasks(features, labels, 3, m=5).content_hash != first.content_hash
    assert ClassTasks(features, labels, 2, m=5).content_hash != ClassTasks(features, labels, 3, m=5).content_hash


def test_mixtures_of_real_families_know_their_fewest_targets() -> None:
    random = np.random.default_rng(2)
    labels = np.repeat(np.arange(4), 15)
    real = ClassTasks(random.normal(size=(60, 4)).astype(np.float32), labels, 2, m=5)
    assert Mixed([real, Moons()]).most_targets(5) == real.most_targets(5) == 10
    assert not hasattr(Mixed([Moons(), Rings()]), "most_targets")
