"""The real digits, split as the demo splits them."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images, held-out images (360, stratified), and their labels; images (n, 1, 8, 8) in [-1, 1]."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    images = (data.images / 8 - 1).astype(np.float32)[:, None]
    labels = data.target
    return tuple(train_test_split(images, labels, test_size=360, stratify=labels, random_state=0))
