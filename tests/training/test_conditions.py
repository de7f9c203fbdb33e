"""Where training conditions come from: references of a row's class, vectors of captions; runs that use them."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

import fluvial as fv
from fluvial.conditions import Embedding, Tokens
from fluvial.data import save_images
from fluvial.presets import PRESETS
from fluvial.training import TrainConfig, Trainer, load_run
from fluvial.training.build import build_net, net_spec, read_net_spec
from fluvial.training.conditions import References, caption_vectors, condition_source
from fluvial.training.source import load_source


def labelled(counts: list[int]) -> fv.Dataset:
    """Row i holds the number i; classes are mixed."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    return fv.Dataset(torch.arange(float(len(labels))), labels)


def draw(data: fv.Dataset, size: int, index: torch.Tensor, seed: int = 0) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    found = References(data, size)(index, data.take(index)[1], generator=generator)
    assert isinstance(found, Tokens)
    return found


def test_references_are_others_of_the_class_without_repetition() -> None:
    data = labelled([7, 30, 12])
    index = torch.arange(len(data)).repeat(20)
    found = draw(data, 5, index)
    rows = found.value[..., 0].long()
    assert found.mask.all()
    assert data.labels is not None
    assert torch.equal(data.labels[rows], data.labels[index][:, None].expand(-1, 5))
    assert not (rows == index[:, None]).any()
    assert (rows.sort(1).values.diff(dim=1) > 0).all()


def test_small_classes_give_all_they_have() -> None:
    data = labelled([1, 3, 9])
    found = draw(data, 4, torch.arange(len(data)))
    assert data.labels is not None
    assert torch.equal(found.mask.sum(1), torch.tensor([0, 2, 4])[data.labels])


def test_every_set_of_references_is_as_likely() -> None:
    """One row of a class of five, two references: 12 ordered pairs."""
    data = labelled([5])
    rows = draw(data, 2, torch.full((12_000,), 3)).value[..., 0].long()
    _, counts = torch.unique(5 * rows[:, 0] + rows[:, 1], return_counts=True)
    assert len(counts) == 12
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_near_references_are_among_the_nearest_of_the_class() -> None:
    data = labelled([4, 30, 12])  # row i holds the number i, so that neighbours are those of the nearest number
    assert data.labels is not None
    index = torch.arange(len(data)).repeat(30)
    found = References(data, 3, near=6).rows(index, torch.Generator().manual_seed(0))
    rows, mask = found
    for i in range(len(data)):
        own = torch.nonzero(data.labels == data.labels[i]).flatten()
        nearest = sorted((j for j in own.tolist() if j != i), key=lambda j: abs(j - i))
        met = set(rows[index == i][mask[index == i]].tolist())
        distance = abs(nearest[min(6, len(nearest)) - 1] - i)  # ties may fall either way
        assert all(abs(j - i) <= distance and j in nearest for j in met)
        assert len(met) == min(6, len(nearest))  # in 30 draws each is met
    assert mask.all() and (rows.sort(1).values.diff(dim=1) > 0).all()
    few = References(labelled([2, 9]), 3, near=5).rows(torch.arange(11), torch.Generator().manual_seed(0))[1]
    assert sorted(few.sum(1).tolist()) == [1, 1] + [3] * 9


def test_references_need_labels_and_company() -> None:
    with pytest.raises(ValueError, match="reference_size needs data with labels"):
        References(fv.Dataset(torch.zeros(3, 2)), 2)
    with pytest.raises(ValueError, match="a class with two data or more"):
        References(labelled([1, 1]), 2)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """24 grey pictures of 8x8 in one folder, and their captions: the number of each."""
    folder = tmp_path / "pictures"
    save_images(fv.load_dataset("digits").take(range(24))[0], folder)
    lines = [f"{file.name},number {int(file.stem)}" for file in sorted(folder.glob("*.png"), reverse=True)]
    (folder / "captions.csv").write_text("file,caption\n" + "\n".join(lines) + "\n")
    return folder


def fake_embedding(texts: list[str], encoder: str = "") -> np.ndarray[Any, Any]:
    """The caption's number, and where it stands on a circle."""
    numbers = np.array([float(text.split()[1]) for text in texts], np.float32)
    return np.stack([numbers, np.cos(numbers), np.sin(numbers)], 1)


@pytest.fixture
def captioned(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    monkeypatch.setattr("fluvial.data.text.embed_sentences", fake_embedding)
    monkeypatch.setattr("fluvial.data.text.require_encoder", lambda encoder: None)
    return TrainConfig(
        data=f"folder:{pictures}",
        captions=str(pictures / "captions.csv"),
        width=8,
        depth=1,
        steps=6,
        batch_size=5,
        checkpoint_every=3,
    )


def test_captions_stay_with_their_pictures_through_the_split(captioned: TrainConfig) -> None:
    train = load_source(captioned).train
    vectors = caption_vectors(captioned, train)
    assert vectors is not None and len(vectors) == len(train) < 24
    digits = fv.load_dataset("digits").take(range(24))[0]
    for image, vector in zip(train.x, vectors, strict=True):
        assert (image - digits[int(vector[0])]).abs().max() < 0.01
    source = condition_source(captioned, train, vectors)
    assert source is not None
    found = source(torch.tensor([2, 0]), None, generator=torch.Generator())
    assert isinstance(found, Embedding) and torch.equal(found.value, vectors[[2, 0]])


def test_a_run_with_captions(captioned: TrainConfig, same_tensors: Callable[..., bool], tmp_path: Path) -> None:
    whole = Trainer(captioned, tmp_path / "whole").fit()
    run = load_run(whole.run)
    assert run.net_spec.embedding == 3
    cond = Embedding.of(torch.ones(2, 3))
    assert run.net(torch.zeros(2, 1, 8, 8), 0.5, cond).shape == (2, 1, 8, 8)
    (whole.run / "checkpoints" / "step-00000006").rename(whole.run / "checkpoints" / ".partial-step-00000006")
    again = Trainer(captioned, whole.run).fit(resume=True)
    other = Trainer(captioned, tmp_path / "other").fit()
    assert same_tensors(again.checkpoint, other.checkpoint)


def test_changed_captions_are_refused(captioned: TrainConfig, tmp_path: Path) -> None:
    Trainer(captioned, tmp_path / "run").fit()
    file = Path(captioned.captions)
    file.write_text(file.read_text().replace("number ", "number 9"))
    with pytest.raises(ValueError, match="the captions have changed"):
        Trainer(captioned, tmp_path / "run").fit(resume=True)


@pytest.mark.parametrize("net", ["unet", "dit"])
def test_a_run_with_references(net: str, same_tensors: Callable[..., bool], tmp_path: Path) -> None:
    config = TrainConfig(
        net=net, width=8, depth=1, steps=4, batch_size=6, reference_size=3, without_classes="8,9", checkpoint_every=2
    )
    result = Trainer(config, tmp_path / "one").fit()
    run = load_run(result.run)
    labels = run.dataset().train.labels
    assert run.net_spec.references and labels is not None and set(labels.tolist()) == set(range(8))
    references = Tokens.of(torch.zeros(2, 3, 1, 8, 8))
    assert run.net(torch.zeros(2, 1, 8, 8), 0.5, references).shape == (2, 1, 8, 8)
    (result.run / "checkpoints" / "step-00000004").rename(result.run / "checkpoints" / ".partial-step-00000004")
    again = Trainer(config, result.run).fit(resume=True)
    assert same_tensors(again.checkpoint, Trainer(config, tmp_path / "two").fit().checkpoint)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": True, "reference_size": 2}, "reference_size cannot be given with labels: a net takes one kind"),
        ({"reference_size": 2, "net": "mlp"}, "reference_size needs net unet or dit, got 'mlp'"),
        ({"reference_size": 2, "net": "unet", "objective": "efm"}, "cannot be given with reference_size: only labels"),
        ({"reference_size": 2, "net": "unet", "coupling": "ot"}, "'ot' cannot be given with reference_size"),
        ({"reference_near": 9}, "reference_near needs reference_size, got 9"),
        ({"reference_near": 10**9, "reference_size": 3}, "reference_near must be at most 1000, got 1000000000"),
        ({"reference_near": 2, "reference_size": 3, "net": "unet"}, "at least reference_size 3, got 2"),
        ({"captions": "x.csv"}, "captions needs data folder:PATH, got 'digits'"),
        ({"net": "unte"}, "did you mean 'unet'"),
        ({"dropout": 0.1}, "dropout needs net unet or dit, got 'mlp'"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"beta2": 1.0}, r"beta2 must be in \[0, 1\), got 1.0"),
        ({"schedule": "cosine"}, "schedule must be one of linear, constant"),
    ],
)
def test_what_does_not_fit_together(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes).check_values()


def test_an_image_net_needs_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"net 'unet' needs images, and moons has points of shape \(2,\)"):
        Trainer(TrainConfig(data="moons", net="unet"), tmp_path / "run").fit()


def test_classes_left_out_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without_classes 'ten': 'ten' is no class"):
        load_source(TrainConfig(without_classes="ten"))
    with pytest.raises(ValueError, match="no training data are left"):
        load_source(TrainConfig(without_classes=",".join(map(str, range(10)))))


def test_flips_double_the_training_data_and_spare_the_held_out() -> None:
    plain, flipped = load_source(TrainConfig()), load_source(TrainConfig(flip=True))
    count = len(plain.train)
    assert len(flipped.train) == 2 * count
    assert torch.equal(flipped.train.x[:count], plain.train.x)
    assert torch.equal(flipped.train.x[count:], plain.train.x.flip(-1))
    assert torch.equal(flipped.held_out.x, plain.held_out.x)
    assert flipped.train.content_hash != plain.train.content_hash
    part = flipped.train.subset([count + 3, 3])
    assert torch.equal(part.x[0], part.x[1].flip(-1))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_and_is_read_back(name: str) -> None:
    data = fv.Dataset(torch.zeros(2, 3, 32, 32), [0, 1])
    spec = net_spec(TrainConfig(net=name, labels=True, objective="meanflow"), data)
    as_json = {**dataclasses.asdict(spec), "shape": [3, 32, 32]}
    as_json["options"] = {k: list(v) if isinstance(v, tuple) else v for k, v in as_json["options"].items()}
    assert read_net_spec(as_json, Path("x")) == spec
    with torch.device("meta"):
        net = build_net(spec, 0)
    assert net.gap and tuple(net.shape) == (3, 32, 32)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [0]},
        {"gap": 1},
        {"classes": "ten"},
        {"options": {}},
        {"options": {"kind": "gan", "width": 8, "depth": 1}},
        {"options": {"kind": "mlp", "width": 8, "depth": 1, "dropout": 2.0}},
        {"time_scale": "fast"},
        {"time_scale": -1.0},
        {"colour": "red"},
    ],
)
def test_damaged_descriptions_of_nets_are_refused(change: dict[str, Any]) -> None:
    good = {"shape": [2], "options": {"kind": "mlp", "width": 8, "depth": 1}}
    assert read_net_spec(good, Path("x")).shape == (2,)
    with pytest.raises(ValueError, match="x describes no net"):
        read_net_spec({**good, **change}, Path("x"))


def test_pictures_with_an_alpha_channel_are_no_references(tmp_path: Path) -> None:
    from fluvial.cli.sample_condition import reference_images

    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    Image.new("RGB", (16, 16)).save(tmp_path / "b.png")
    assert reference_images(tmp_path, (1, 8, 8)).shape == (2, 1, 8, 8)
    Image.new("RGBA", (8, 8)).save(tmp_path / "c.png")
    with pytest.raises(ValueError, match=r"--reference .*c.png has an alpha channel"):
        reference_images(tmp_path, (1, 8, 8))


def test_a_folder_of_an_encoder_is_found_from_anywhere(captioned: TrainConfig, tmp_path: Path) -> None:
    trainer = Trainer(dataclasses.replace(captioned, encoder="clip"), tmp_path / "run")
    assert trainer.config.encoder == str(Path("clip").absolute())
    hub = dataclasses.replace(captioned, encoder="hub:openai/clip-vit-base-patch32")
    assert Trainer(hub, tmp_path / "run").config.encoder == "hub:openai/clip-vit-base-patch32"
