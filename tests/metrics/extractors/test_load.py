"""Extractors by name: what each one takes, gives and states, and what is said where something is missing."""

from pathlib import Path

import pytest
import torch

from fluvial.metrics.extractors import EXTRACTORS, Custom, Extractor, FeatureCache, extract_features, load_extractor
from fluvial.metrics.extractors import base as base_module
from fluvial.metrics.extractors.classifier import ClassifierFeatures
from fluvial.progress import Progress

IMAGES = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
LABELS = torch.arange(12) % 3


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """A classifier that is trained for ten updates."""
    monkeypatch.setattr("fluvial.metrics.features.UPDATES", 1)


def test_pixels_of_images_are_their_grey_levels_and_points_are_as_they_are() -> None:
    extractor = load_extractor("pixels", train=IMAGES)
    levels = (127.5 * (IMAGES.double() + 1)).round()
    torch.testing.assert_close(extractor(IMAGES).double(), (levels / 127.5 - 1).flatten(1), atol=1e-6, rtol=0)
    assert extractor(torch.full((1, 1, 4, 4), 9.0)).max() == 1
    assert "127.5" in extractor.describe()["uint8"]
    points = torch.randn(7, 3, dtype=torch.float64) * 100
    raw = load_extractor("pixels", train=points)
    assert raw.name == "raw values" and torch.equal(raw(points), points) and raw.describe()["uint8"] == "none"
    assert raw.hash != extractor.hash == load_extractor("pixels").hash


@pytest.mark.usefixtures("brief")
def test_classifier_is_pinned_by_its_training_and_states_its_accuracy() -> None:
    made = load_extractor("classifier", train=IMAGES, labels=LABELS, held_out=(IMAGES, LABELS))
    again = load_extractor("classifier", train=IMAGES, labels=LABELS)
    other = load_extractor("classifier", train=IMAGES, labels=LABELS.flip(0))
    assert made.hash == again.hash != other.hash
    assert made.describe()["accuracy"].endswith("% of held-out data") and "accuracy" not in again.describe()
    assert torch.equal(made(IMAGES), made(base_module.quantised(IMAGES))) and made(IMAGES).shape == (12, 64)


@pytest.mark.usefixtures("brief")
def test_a_trained_classifier_is_kept_and_a_damaged_one_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FeatureCache(tmp_path)
    first = load_extractor("classifier", train=IMAGES, labels=LABELS, cache=cache)
    (file,) = tmp_path.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(ClassifierFeatures, "fit", lambda *_args, **_options: pytest.fail("trained again"))
        assert load_extractor("classifier", train=IMAGES, labels=LABELS, cache=cache).hash == first.hash
    content = file.read_bytes()
    file.write_bytes(content[:-8])
    assert load_extractor("classifier", train=IMAGES, labels=LABELS, cache=cache).hash == first.hash
    assert file.read_bytes() == content
    load_extractor("classifier", train=IMAGES, labels=LABELS.flip(0), cache=cache)
    assert len(list(tmp_path.iterdir())) == 2


class Counting:
    """The mean of each row, with a count of the rows that were asked for."""

    def __init__(self) -> None:
        self.rows = 0

    name, hash = "counting", "0" * 64

    def describe(self) -> dict[str, str]:
        return {}

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.rows += len(x)
        return x.flatten(1).mean(1, keepdim=True)


def test_costly_features_are_kept_by_content(tmp_path: Path) -> None:
    extractor, cache = Counting(), FeatureCache(tmp_path / "new" / "folder")
    assert isinstance(extractor, Extractor)
    steps: list[Progress] = []
    found = extract_features(extractor, IMAGES, batch_size=5, cache=cache, progress=steps.append)
    assert torch.equal(found, IMAGES.flatten(1).mean(1, keepdim=True))
    assert [step.step for step in steps] == [5, 10, 12] and steps[-1].total == 12
    assert torch.equal(extract_features(extractor, IMAGES, cache=cache), found) and extractor.rows == 12
    extract_features(extractor, IMAGES + 1, cache=cache)
    assert extractor.rows == 24
    file = next(iter(cache.folder.iterdir()))
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    for x in (IMAGES, IMAGES + 1):
        torch.testing.assert_close(extract_features(extractor, x, cache=cache), x.flatten(1).mean(1, keepdim=True))
    assert extractor.rows == 36


def test_cheap_features_are_not_kept(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    extract_features(load_extractor("pixels"), IMAGES, cache=cache)
    extract_features(Custom(lambda x: x.flatten(1), "flat"), IMAGES, cache=cache)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert len(extract_features(Counting(), IMAGES, cache=FeatureCache(tmp_path / "file"))) == 12


def test_default_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fluvial.metrics.extractors import default_cache

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache().folder == tmp_path / "fluvial"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache().folder == tmp_path / ".cache" / "fluvial"


def test_grey_images_become_rgb_of_256_levels() -> None:
    rgb = base_module.as_rgb(torch.tensor([[[[-1.0, 0.0, 1.0, 3.0]]]]), "x")
    assert rgb.shape == (1, 3, 1, 4) and torch.equal(rgb[0, 0, 0], torch.tensor([0, 128 / 255, 1, 1]))
    assert torch.equal(rgb[0, 0], rgb[0, 2])
    with pytest.raises(ValueError, match="extractor x takes images"):
        base_module.as_rgb(torch.zeros(2, 2, 3, 3), "x")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pixel", {}, "unknown extractor 'pixel': did you mean 'pixels'?"),
        ("dino", {}, "did you mean 'dinov2'?"),
        ("x", {}, "expected one of pixels, classifier, efficientnet-lite0, inception, dinov2"),
        ("classifier", {}, "there are no training data and labels"),
        ("classifier", {"train": IMAGES}, "there are no labels"),
        ("inception", {"train": torch.zeros(3, 2)}, "'inception' takes images; for points and tables"),
        ("pixels", {"weights": "w.pth"}, "weights are for inception and dinov2, the extractor is 'pixels'"),
        ("inception", {"weights": "absent.pth"}, "weights 'absent.pth' do not exist"),
        ("dinov2", {"weights": "absent.pth"}, "weights 'absent.pth' do not exist"),
    ],
)
def test_bad_requests(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        load_extractor(name, **options)  # type: ignore[arg-type]


def test_bad_batches() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        extract_features(load_extractor("pixels"), IMAGES, batch_size=0)
    with pytest.raises(ValueError, match="x must have at least one row"):
        extract_features(load_extractor("pixels"), IMAGES[:0])
    with pytest.raises(ValueError, match="features of bad must be finite"):
        extract_features(Custom(lambda x: x.flatten(1) / 0, "bad"), IMAGES)


def test_names_are_five() -> None:
    assert len(set(EXTRACTORS)) == 5
