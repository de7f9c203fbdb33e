"""scikit-learn's handwritten digits: 1,797 real images of 8x8 pixels with 17 grey levels.

Source: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI Machine Learning
    Repository.
"""

import numpy as np

from fluvial.data.dataset import Dataset

HELD_OUT = 360
"""How many digits are held out unless asked otherwise: about a fifth, which is 36 of each class."""


def read_digits() -> Dataset:
    """All 1,797 digits, shape (1, 8, 8), 17 levels, classes "0" to "9"; not yet split.

    Example:
        >>> read_digits()
        Dataset('digits', 1797 of shape (1, 8, 8), 10 classes)
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images.astype(np.uint8)
    return Dataset(images, digits.target, name="digits", levels=17, class_names=tuple("0123456789"))
