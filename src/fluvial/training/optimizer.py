"""AdamW's state as named tensors and back, so that it can be kept without pickling."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fluvial.training.sharding import divided_like

ENTRIES = {"step", "exp_avg", "exp_avg_sq"}


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Sequence[str]) -> dict[str, Tensor]:
    """State of an optimiser as tensors ``"<parameter>.<entry>"``, such as ``"out.weight.exp_avg"``.

    Args:
        optimizer: An optimiser whose state is made of tensors.
        names: Names of its parameters, in its order.
    """
    state = optimizer.state_dict()["state"]
    return {f"{names[index]}.{key}": value for index, entries in state.items() for key, value in entries.items()}


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, names: Sequence[str], tensors: Mapping[str, Tensor]
) -> None:
    """Put the state made by :func:`optimizer_tensors` back; no tensors at all stand for no update yet.

    Raises:
        ValueError: If a tensor belongs to no parameter or has another shape than its parameter, or one is missing.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    # In an order that all processes have, in which they will gather them: files of tensors are read in any.
    for full_name, value in sorted(tensors.items()):
        name, _, entry = full_name.rpartition(".")
        if name not in names:
            raise ValueError(f"optimizer state {full_name!r} belongs to no parameter of the net")
        index = names.index(name)
        if value.ndim and value.shape != parameters[index].shape:
            expected = tuple(parameters[index].shape)
            raise ValueError(f"optimizer state {full_name!r} has shape {tuple(value.shape)}, expected {expected}")
        state.setdefault(index, {})[entry] = divided_like(value, parameters[index])
    for index, name in enumerate(names):
        if tensors and state.get(index, {}).keys() != ENTRIES:
            raise ValueError(f"optimizer state of {name!r} must have {', '.join(sorted(ENTRIES))}")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
