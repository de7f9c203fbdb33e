"""The report in a real browser: at desk and phone width, light and dark, without network."""

import itertools
from typing import Any

import pytest
import torch

import fluvial as fv
from fluvial.audits.page import write_audit
from fluvial.solvers.sampling import Solver

from .browser import chromium, look_at

WIDTHS = {"desk": 1280, "phone": 390}


@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool], dict[str, Any]]:
    """A whole audit of digits as the browser shows it, by the kind of screen and whether it is dark."""
    chromium()
    folder = tmp_path_factory.mktemp("page")
    digits = fv.load_dataset("digits")
    train, held_out = digits.train.subset(range(200)), digits.held_out
    budget = fv.Budget(samples=100, solver=Solver("euler", 10), pairs=16, times=5, hybrids=16, taus=4, steps=10)
    write_audit(fv.audit(fv.ExactField(train.x), train, held_out, budget=budget), folder, "{}", title="Audit of digits")
    cases = itertools.product(WIDTHS, (False, True))
    return {
        (screen, dark): look_at(folder / "report.html", folder / f"{screen}-{dark}", width=WIDTHS[screen], dark=dark)
        for screen, dark in cases
    }


def test_it_fits_the_screen(looks: dict[tuple[str, bool], dict[str, Any]]) -> None:
    for (screen, dark), look in looks.items():
        assert look["width"] == WIDTHS[screen] and look["scroll"] <= look["width"], (screen, dark)
        assert look["wide"] == [], (screen, dark)


def test_every_picture_is_shown_and_described(looks: dict[tuple[str, bool], dict[str, Any]]) -> None:
    for look in looks.values():
        assert look["images"] >= 8 and look["broken"] == 0 and look["unnamed"] == 0


def test_dark_pages_have_pictures_of_their_own(looks: dict[tuple[str, bool], dict[str, Any]]) -> None:
    light, dark = looks["desk", False], looks["desk", True]
    assert (light["dark"], dark["dark"]) == (False, True)
    assert light["shown"] != dark["shown"] and light["page"] != dark["page"]
    for look in looks.values():
        assert _contrast(look["ink"], look["page"]) > 7


def test_nothing_is_fetched(looks: dict[tuple[str, bool], dict[str, Any]]) -> None:
    assert all(look["requests"] == [] for look in looks.values())


def _contrast(ink: str, page: str) -> float:
    """WCAG's contrast ratio of two colours as the browser writes them, ``rgb(r, g, b)``."""

    def luminance(colour: str) -> float:
        rgb = torch.tensor([float(v) for v in colour[4:-1].split(",")]) / 255
        linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return float(linear @ torch.tensor([0.2126, 0.7152, 0.0722]))

    low, high = sorted((luminance(ink), luminance(page)))
    return (high + 0.05) / (low + 0.05)
