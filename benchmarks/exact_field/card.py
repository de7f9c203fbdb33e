"""What the machine itself can do, measured in the same run: matrix products and copies."""

import platform

import torch

from exact_field.evaluation import Evaluations
from exact_field.timing import alternating


def describe(device: str) -> str:
    """The device's name."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def rates(device: str, rounds: int = 7) -> dict[str, float]:
    """Operations a second of a large matrix product in float32 and bfloat16, and bytes a second of a copy."""
    size = 8192 if device.startswith("cuda") else 2048
    g = torch.Generator().manual_seed(0)
    square = torch.randn(size, size, generator=g).to(device)
    narrow = square.bfloat16()
    source = torch.zeros(2**30 if device.startswith("cuda") else 2**28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    calls = {
        "float32": lambda: square @ square,
        "bfloat16": lambda: narrow @ narrow,
        "copy": lambda: target.copy_(source),
    }
    alternating(calls, 1, device)
    times = alternating(calls, rounds, device)
    products = {name: 2 * size**3 / times[name] for name in ("float32", "bfloat16")}
    return {**products, "copy": 2 * source.nbytes / times["copy"]}


def shares(found: Evaluations, method: str, measured: dict[str, float]) -> dict[str, list[float]]:
    """Which fraction of the rates a method reached, at each time.

    Operations are those of two dense products, 4 B N d, whatever was really done; bytes are those of one reading of
    the support as it is stored, and of x and v.
    """
    shape = found.shape
    item = 1 if shape.pixels and not method.endswith("float32") else 4
    traffic = shape.dim * (shape.points * item + 2 * shape.batch * 4)
    taken = [ms / 1e3 for ms in found.milliseconds[method]]
    work = {"float32": shape.operations, "bfloat16": shape.operations, "copy": traffic}
    return {name: [amount / s / measured[name] for s in taken] for name, amount in work.items()}
