"""Names of families: what they stand for, and refusals before torch is imported."""

import subprocess
import sys

import pytest

from fluvial.support.tasks import Family, family_by_name, parse_family
from fluvial.support.tasks.names import SYNTHETIC


@pytest.mark.parametrize("name", [*SYNTHETIC, "mixed", "digits"])
def test_every_name_makes_a_family_of_its_dimension(name):
    family = family_by_name(name)
    assert isinstance(family, Family) and family.name == name and family.dim == parse_family(name).dim


def test_members_of_mixtures():
    assert parse_family("mixed").members == ("gmm", "rings", "moons", "spirals")
    assert parse_family("mixed", 8).members == ("gmm", "shells")
    assert parse_family("gmm+shells", 16).dim == 16
    assert [family.name for family in family_by_name("gmm+rings+moons").families] == ["gmm", "rings", "moons"]


@pytest.mark.parametrize(
    ("name", "dim", "message"),
    [
        ("shels", None, "unknown task family 'shels': did you mean 'shells'?"),
        ("GMM", None, "unknown task family 'GMM': did you mean 'gmm'?"),
        ("fashion", None, "did you mean 'fashion-mnist'?"),
        ("digit:efficientnet-lite0", None, "did you mean 'digits:efficientnet-lite0'?"),
        ("xyz", None, "unknown task family 'xyz': expected one of gmm, rings"),
        ("moons", 3, "moons lie in the plane: dim must be 2, got 3"),
        ("gmm+moons", 3, "moons lie in the plane: dim must be 2, got 3"),
        ("gmm+mons", None, "unknown task family 'mons' in 'gmm+mons': did you mean 'moons'?"),
        ("gmm+gmm", None, "families of a mixture must differ, got 'gmm' twice in 'gmm+gmm'"),
        ("gmm", 0, "dim must be at least 1, got 0"),
        ("absent.npz", None, "feature file 'absent.npz' does not exist"),
        ("digits:efficientnet", None, "did you mean 'digits:efficientnet-lite0'?"),
        ("digits:pixels9", None, "unknown extractor 'pixels9' of digits"),
    ],
)
def test_wrong_names_and_dimensions_are_refused_with_the_nearest(name, dim, message):
    with pytest.raises(ValueError) as refused:
        parse_family(name, dim)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_wrong_types_are_refused():
    with pytest.raises(TypeError):
        parse_family(3)
    with pytest.raises(TypeError):
        parse_family("gmm", 2.5)
    with pytest.raises(TypeError, match="dim must be a whole number, got True"):
        parse_family("gmm", True)


def test_names_are_checked_without_torch():
    code = (
        "import sys\n"
        "from fluvial.support.tasks.names import parse_family\n"
        "parse_family('shells', 8); parse_family('digits', 8); parse_family('gmm+moons')\n"
        "raise SystemExit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
