"""From the name of a family to the family."""

from fluvial.data.homes import expanded
from fluvial.kinds import checked
from fluvial.progress import ProgressCallback
from fluvial.support.tasks.base import Family
from fluvial.support.tasks.classes import ClassTasks, Split
from fluvial.support.tasks.features import net_features, pixel_features, read_feature_file
from fluvial.support.tasks.fourier import FourierDensities
from fluvial.support.tasks.gaussians import GaussianMixtures
from fluvial.support.tasks.mixed import Mixed
from fluvial.support.tasks.names import parse_family
from fluvial.support.tasks.planar import Moons, Rings, Spirals
from fluvial.support.tasks.shells import Shells


@checked
def family_by_name(
    name: str,
    dim: int | None = None,
    *,
    split: Split = "train",
    m: int = 50,
    leave_out_small: bool = False,
    progress: ProgressCallback | None = None,
) -> Family:
    """The family of a name.

    Args:
        name: ``gmm``, ``rings``, ``moons``, ``spirals``, ``shells``, ``fourier``, ``mixed`` (or some of them joined by
            ``+``), ``digits``, ``fashion-mnist`` (these two also as ``digits:efficientnet-lite0``), or a ``.npz`` file.
        dim: Dimension of the points; by default 2, 8 for shells, 16 for real data.
        split: Classes of real data: ``train``, ``validation`` or ``test``; synthetic families have no splits.
        m: Most support points that tasks will ask for, which decides how large a class of real data must be.
        leave_out_small: Leave smaller classes out, instead of refusing them.
        progress: Called while a net takes features.

    Raises:
        ValueError: If the name is unknown (with the nearest valid one), ``dim`` does not fit, or data are not as they
            must be.
        TypeError: If an argument is of another type.
        ImportError: If an extractor's package is not installed.

    Example:
        >>> family_by_name("shells", 32).dim, family_by_name("gmm+moons").name
        (32, 'gmm+moons')
        >>> family_by_name("digits", split="test").classes
        (6,)
    """
    found = parse_family(name, dim)
    if found.kind == "synthetic":
        return _synthetic(name, found.dim)
    if found.kind == "mixed":
        return Mixed([_synthetic(member, found.dim) for member in found.members], name=name)
    source = found.members[0]
    if found.kind == "file":
        data = read_feature_file(expanded(source))
    elif found.extractor is None:
        data = pixel_features(source)
    else:
        data = net_features(source, found.extractor, progress=progress)
    return ClassTasks(
        data.features, data.labels, found.dim, split=split, m=m, leave_out_small=leave_out_small, name=name
    )


def _synthetic(name: str, dim: int) -> Family:
    match name:
        case "rings":
            return Rings()
        case "moons":
            return Moons()
        case "spirals":
            return Spirals()
        case "shells":
            return Shells(dim)
        case "fourier":
            return FourierDensities(dim)
        case _:
            return GaussianMixtures(dim)
