"""Peak memory of an exact field beyond its inputs and outputs, measured in a process of its own.

The child imports everything, evaluates a tiny field of the same kind, makes the support and the points, and sets its
peak back. Then it makes the field and evaluates it once at every time: whatever the field keeps beside the support,
as norms or a narrow copy, counts. The outputs' bytes are taken off. On CUDA the same is read from the allocator.
"""

import json
import sys
from dataclasses import asdict, replace

import torch
from torch import Tensor

from exact_field.evaluation import exact_field
from exact_field.resident import forget_peak, in_child, peak
from exact_field.shapes import TIMES, Shape, as_floats, make_support, on_path


def extra_memory(shape: Shape, tol: float, floats: bool, device: str) -> float:
    """Peak extra memory of an evaluation in MB (2**20 bytes), the highest over all times."""
    arguments = {"shape": asdict(shape), "tol": tol, "floats": floats, "device": device}
    return float(in_child("exact_field.memory", arguments)["megabytes"])


def _measured(shape: Shape, tol: float, floats: bool, device: str) -> float:
    def support_of(shape: Shape) -> Tensor:
        support = make_support(shape)
        return (as_floats(support) if floats else support).to(device)

    tiny = replace(shape, points=64, batch=8)
    _evaluate(support_of(tiny), [on_path(support_of(tiny).cpu(), 8, t).to(device) for t in TIMES], tol)
    support = support_of(shape)
    points = [on_path(support.cpu(), shape.batch, t).to(device) for t in TIMES]
    before = _reset(device)
    _evaluate(support, points, tol)
    return (_peak(device) - before - points[0].nbytes) / 2**20


def _evaluate(support: Tensor, points: list[Tensor], tol: float) -> None:
    velocity = exact_field(support, tol)
    for x, t in zip(points, TIMES, strict=True):
        velocity(x, t)


def _reset(device: str) -> int:
    if device == "cpu":
        return forget_peak()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _peak(device: str) -> int:
    return peak() if device == "cpu" else torch.cuda.max_memory_allocated()


if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    with torch.no_grad():
        wanted["shape"] = Shape(**wanted["shape"])
        print(json.dumps({"megabytes": _measured(**wanted)}))
