"""Modules in evaluation mode for as long as they are measured."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def evaluation_mode(model: Any) -> Iterator[None]:
    """Evaluation mode for a module, and back to its mode after; nothing for any other model.

    Example:
        >>> net = torch.nn.Linear(1, 1)
        >>> with evaluation_mode(net):
        ...     net.training
        False
        >>> net.training
        True
    """
    if not isinstance(model, nn.Module):
        yield
        return
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
