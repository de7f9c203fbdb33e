"""Quality tells samples of the data's own distribution from copies and from worse ones, in every kind of input."""

import json

import pytest
import torch

from fluvial.audits.drawing import draw_figure
from fluvial.audits.scoring import quality
from fluvial.metrics import frechet_distance
from fluvial.metrics.extractors import load_extractor
from fluvial.metrics.kernel import kernel_distance
from fluvial.metrics.manifolds import prdc
from fluvial.progress import Progress

RAW = load_extractor("pixels", train=torch.zeros(6, 2))


def draw(n: int, d: int = 3, seed: int = 0, spread: float = 1.0) -> torch.Tensor:
    return spread * torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    from fluvial.data import load_dataset

    data = load_dataset("digits")
    assert data.train.labels is not None and data.held_out.labels is not None
    return data.train.x, data.train.labels, data.held_out.x, data.held_out.labels


def test_scores_are_those_of_the_metrics_where_all_rows_are_used() -> None:
    samples, train, held_out = draw(60), draw(60, seed=1), draw(60, seed=2, spread=1.2)
    found = quality(samples, train, held_out, extractors=[RAW]).data["extractors"]["raw values"]
    for key, other in (("held_out", held_out), ("train", train)):
        score = found["scores"][key]
        assert score["frechet"] == pytest.approx(frechet_distance(samples, other), rel=1e-9)
        exact = prdc(samples, other)
        assert (score["precision"], score["recall"]) == (exact.precision, exact.recall)
        assert (score["density"], score["coverage"]) == pytest.approx((exact.density, exact.coverage))
        assert score["frechet_interval"][0] <= score["frechet"] <= score["frechet_interval"][1]
        assert (score["n"], score["m"]) == (60, 60)
    # subsets are random, so that the kernel distance agrees up to its error
    whole = kernel_distance(samples, held_out, subsets=1).value
    score = found["scores"]["held_out"]
    assert abs(score["kernel"] - whole) < 6 * score["kernel_standard_error"]
    assert found["scores"]["reference"]["frechet"] == pytest.approx(frechet_distance(train, held_out), rel=1e-9)
    ratio = frechet_distance(samples, held_out) / frechet_distance(train, held_out)
    assert found["frechet_ratio"] == pytest.approx(ratio, rel=1e-9)


def test_sides_are_compared_at_equal_numbers_of_rows() -> None:
    scores = quality(draw(50), draw(200, seed=1), draw(80, seed=2), extractors=[RAW]).data["extractors"]["raw values"]
    sizes = {key: (score["n"], score["m"]) for key, score in scores["scores"].items()}
    assert sizes == {"held_out": (50, 80), "train": (50, 80), "reference": (50, 80), "train_all": (50, 200)}
    whole = scores["scores"]["train_all"]
    assert whole["frechet"] == pytest.approx(frechet_distance(draw(50), draw(200, seed=1)), rel=1e-9)
    assert whole["precision"] is None and whole["kernel"] is None


def test_fresh_data_are_at_the_reference_and_copies_lean_on_training_data() -> None:
    train, held_out = draw(100, 20, seed=1), draw(100, 20, seed=2)
    fresh = quality(draw(100, 20, seed=3), train, held_out, extractors=[RAW])
    copies = quality(train + 0.01 * draw(100, 20, seed=4), train, held_out, extractors=[RAW])
    assert 0.7 < fresh.data["extractors"]["raw values"]["frechet_ratio"] < 1.4
    assert not any("nearer to the training data" in note for note in fresh.notes)
    assert any("nearer to the training data" in note for note in copies.notes)
    scores = copies.data["extractors"]["raw values"]["scores"]
    assert scores["train"]["frechet"] < 0.01 * scores["held_out"]["frechet"]


def test_extrapolation_puts_real_data_near_zero_where_rows_suffice() -> None:
    train, held_out = draw(2000, 4, seed=1), draw(2000, 4, seed=2)
    scores = quality(draw(2000, 4) + 1, train, held_out, extractors=[RAW]).data["extractors"]["raw values"]["scores"]
    assert scores["held_out"]["frechet_limit"] == pytest.approx(4, abs=0.4)
    assert abs(scores["reference"]["frechet_limit"]) < scores["reference"]["frechet"]
    few = quality(draw(15, 4), draw(15, 4, seed=1), draw(15, 4, seed=2), extractors=[RAW])
    assert few.data["extractors"]["raw values"]["scores"]["held_out"]["frechet_limit"] is None
    assert len(few.drawings) == 2


def test_images_in_two_kinds_of_features(digits: tuple[torch.Tensor, ...]) -> None:
    train, labels, held_out, held_labels = digits
    extractors = [
        load_extractor("pixels", train=train),
        load_extractor("classifier", train=train, labels=labels, held_out=(held_out, held_labels)),
    ]
    steps: list[Progress] = []
    noisy = (train[:300] + 0.3 * torch.randn(300, 1, 8, 8, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    found = quality(noisy, train, held_out, extractors=extractors, provenance={"solver": "heun"}, progress=steps.append)
    assert list(found.data["extractors"]) == ["pixels", "classifier"]
    for each in found.data["extractors"].values():
        assert each["frechet_ratio"] > 1.3
        score = each["scores"]["held_out"]
        assert score["made_by"] == {"solver": "heun"} and score["extractor_hash"] == each["hash"]
        assert "127.5" in score["uint8"] and score["resize"] == "none" and "held-out" in score["split"]
    accuracy = float(found.data["extractors"]["classifier"]["protocol"]["accuracy"].split("%")[0])
    assert accuracy > 95
    assert [step.step for step in steps] == sorted(step.step for step in steps) and steps[-1].fraction == 1
    assert "pixels" in found.verdict and "classifier" in found.verdict
    json.dumps(found.to_dict(), allow_nan=False)
    for drawing in found.drawings:
        assert draw_figure(drawing.fill, size=drawing.size)[1:4] == b"PNG"


def test_the_same_seed_gives_the_same_finding() -> None:
    args = draw(50), draw(70, seed=1), draw(60, seed=2)
    one, two, other = (quality(*args, extractors=[RAW], seed=seed).to_dict() for seed in (0, 0, 1))
    assert one == two != other


def test_without_held_out_data_halves_of_the_training_data_stand_in() -> None:
    found = quality(draw(40), draw(100, seed=1), extractors=[RAW])
    scores = found.data["extractors"]["raw values"]["scores"]
    assert list(scores) == ["train", "reference", "train_all"]
    assert (scores["reference"]["n"], scores["reference"]["m"]) == (40, 50)
    assert scores["reference"]["frechet"] > 0
    assert any("no held-out data" in note for note in found.notes)


def test_notes_name_what_a_reader_must_know() -> None:
    few = quality(draw(10, 30), draw(20, 30, seed=1), draw(20, 30, seed=2), extractors=[RAW])
    assert any("10 rows for 30 features" in note for note in few.notes)
    ones = torch.ones(20, 3)
    constant = quality(draw(10).float(), ones, ones[:10], extractors=[RAW])
    assert any("all training data are the same" in note for note in constant.notes)
    assert constant.data["extractors"]["raw values"]["frechet_ratio"] is None
    twins = torch.cat([torch.zeros(30, 3), draw(70).float()])
    equal = quality(draw(50).float(), twins, twins, extractors=[RAW])
    assert any("30% of the held-out data have 5 or more equals" in note for note in equal.notes)


def test_ranges_that_differ_are_named(digits: tuple[torch.Tensor, ...]) -> None:
    train, _, held_out, _ = digits
    pixels = [load_extractor("pixels", train=train)]
    with pytest.raises(ValueError, match="look like grey levels 0 to 255"):
        quality(127.5 * (train + 1), train, held_out, extractors=pixels)
    half = quality((train[:50] + 1) / 2, train, held_out, extractors=pixels)
    assert any("if the samples are held in [0, 1]" in note for note in half.notes)
    wide = quality(1.5 * train[:50], train, held_out, extractors=pixels)
    assert any("outside of [-1, 1]" in note for note in wide.notes)


def test_functions_serve_as_extractors() -> None:
    def halves(x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :2] / 2

    found = quality(draw(30), draw(40, seed=1), draw(40, seed=2), extractors=[halves])
    assert found.data["extractors"]["halves"]["features"] == 2


def test_bad_input() -> None:
    x = draw(20)
    cases = [
        ((x[:5], x, x), {}, "samples must have at least 6 rows, got 5"),
        ((x, x[:11]), {}, "train must have at least 12 rows, got 11"),
        ((x, x, x[:, :2]), {}, r"held_out must have rows of the same shape as train, got \(2,\) and \(3,\)"),
        ((x / 0, x, x), {}, "samples must be finite"),
        ((x, x, x), {"extractors": []}, "extractors must be a list of one or more"),
        ((x, x, x), {"extractors": [RAW, RAW]}, "different names, got 'raw values' twice"),
    ]
    for args, options, message in cases:
        with pytest.raises(ValueError, match=message):
            quality(*args, **{"extractors": [RAW], **options})
    with pytest.raises(TypeError):
        quality(torch.zeros(9, 1, 2, 2, dtype=torch.uint8), x, x, extractors=[RAW])


@pytest.mark.slow
@pytest.mark.data
def test_fashion_mnist_scores_fall_with_noise_and_missing_classes() -> None:
    """In classifier features: fresh images are at the reference, noisy ones further, half of the classes cover less."""
    from fluvial.data import load_dataset

    try:
        data = load_dataset("fashion-mnist")
    except ValueError:
        pytest.skip("Fashion-MNIST is not here: make data")
    train, fresh, labels, known = data.train.x, data.held_out.x, data.train.labels, data.held_out.labels
    assert labels is not None and known is not None
    extractor = load_extractor("classifier", train=train, labels=labels, held_out=(fresh, known))
    assert float(extractor.describe()["accuracy"].split("%")[0]) > 86
    samples = fresh[:2000]
    noise = torch.randn(samples.shape, generator=torch.Generator().manual_seed(0))
    half = fresh[known < 5][:2000]
    ratios, coverages = [], []
    for x in (samples, (samples + 0.3 * noise).clamp(-1, 1), half):
        found = quality(x, train, fresh[5000:], extractors=[extractor]).data["extractors"]["classifier"]
        ratios.append(found["frechet_ratio"])
        coverages.append(found["scores"]["held_out"]["coverage"])
    assert 0.5 < ratios[0] < 1.5 and ratios[1] > 3 and ratios[2] > 3
    assert coverages[0] > 0.8 and coverages[2] < 0.7
