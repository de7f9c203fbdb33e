"""Weights of a net out of a checkpoint, once they are known to be its own."""

from collections.abc import Mapping

from torch import Tensor, nn

from fluvial.training.checkpoints import Checkpoint
from fluvial.training.sharding import divided_like


def load_net(net: nn.Module, checkpoint: Checkpoint, name: str) -> None:
    """Load the weights ``"model"`` or ``"ema"`` of a checkpoint into a net.

    Raises:
        ValueError: If names or shapes differ; the first difference is named.
    """
    expected, given = net.state_dict(), checkpoint.tensors(name)
    difference = _difference(expected, given)
    if difference:
        raise ValueError(f"{checkpoint.folder} holds another net: {difference}")
    net.load_state_dict({key: divided_like(value, expected[key]) for key, value in given.items()})


def _difference(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    for key in sorted(expected.keys() | given.keys()):
        if key not in given:
            return f"{key!r} is missing"
        if key not in expected:
            return f"{key!r} is not in this net"
        if given[key].shape != expected[key].shape or given[key].dtype != expected[key].dtype:
            return f"{key!r} is {_describe(given[key])} there and {_describe(expected[key])} here"
    return ""


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
