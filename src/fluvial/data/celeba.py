"""CelebA: 202,599 aligned photographs of faces, 178x218.

Source: Liu et al. 2015, "Deep Learning Face Attributes in the Wild".
"""

from pathlib import Path

from fluvial.data.dataset import Dataset
from fluvial.data.pictures import list_pictures, read_pictures

CROP, SIZE = 178, 64


def read_celeba(folder: Path, size: int | None = None) -> Dataset:
    """Reads the jpg files of a folder, or of its subfolder ``img_align_celeba``: the central 178x178,
    resized.

    Args:
        folder: Folder of CelebA's aligned photographs.
        size: Side in pixels of the result; 64 if None.

    Returns:
        RGB images of shape (3, size, size) without labels, in the order of the file names; not yet split.

    Raises:
        ValueError: If there are no jpg files, or one is damaged or smaller than 178 pixels.
    """
    inner = folder / "img_align_celeba"
    holder = inner if inner.is_dir() else folder
    paths = [path for path in list_pictures(holder) if path.suffix.lower() in (".jpg", ".jpeg")]
    if not paths:
        raise ValueError(
            f"celeba: {str(folder)!r} holds no jpg files: unpack img_align_celeba.zip (from the CelebA page) there"
        )
    return Dataset(read_pictures(paths, size=size or SIZE, crop=CROP, grey=False), name="celeba")
