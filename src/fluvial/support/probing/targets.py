"""What a probe can watch: modules, pipelines of diffusers, and which of their layers have an IP-Adapter."""

from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class NamedModules:
    """The modules under watch.

    Args:
        by_id: Full name of each module, by its ``id``.
        adapted: Attention layers of diffusers that an IP-Adapter attends to images with.
    """

    by_id: dict[int, str]
    adapted: frozenset[str]

    def with_role(self, layer: str, maker: str) -> str:
        """Name of a layer's attention, with ``/text`` or ``/image`` where it has both.

        Several adapters at once are ``/image``, ``/image2``, and so on.

        Args:
            layer: The layer.
            maker: Full name of the module that made the keys.
        """
        if layer not in self.adapted:
            return layer
        _, found, which = maker.rpartition(".to_k_ip.")
        if not found:
            return f"{layer}/text"
        number = int(which.split(".")[0]) + 1
        return f"{layer}/image" if number == 1 else f"{layer}/image{number}"


def component_modules(model: Any) -> dict[str, nn.Module]:
    """The modules of a model by name; ``""`` for a single one.

    Args:
        model: A module, or a pipeline of diffusers.

    Raises:
        TypeError: If it is neither.
        ValueError: If a module is compiled.

    Example:
        >>> list(component_modules(torch.nn.Linear(2, 2)))
        ['']
    """
    if isinstance(model, nn.Module):
        found = {"": model}
    else:
        components = getattr(model, "components", None)
        components = components if isinstance(components, dict) else {}
        found = {name: part for name, part in components.items() if isinstance(part, nn.Module)}
    if not found:
        raise TypeError(f"model must be a torch module or a pipeline of diffusers, got {type(model).__name__}")
    for part in found.values():
        for module in part.modules():
            if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
                raise ValueError(
                    "model must not be compiled, since compiled attention cannot be seen: give the module as it was "
                    f"before torch.compile, got a compiled {type(getattr(module, '_orig_mod', module)).__name__}"
                )
    return found


def named_modules(components: dict[str, nn.Module]) -> NamedModules:
    """Full names of all modules.

    Args:
        components: As from :func:`component_modules`.
    """
    by_id: dict[int, str] = {}
    adapted = set()
    for component, root in components.items():
        for name, module in root.named_modules():
            full = ".".join(part for part in (component, name) if part) or type(root).__name__
            by_id.setdefault(id(module), full)
            if hasattr(getattr(module, "processor", None), "to_k_ip"):
                adapted.add(full)
    return NamedModules(by_id, frozenset(adapted))
