"""Matrix products as fast as the machine has them.

On CPUs torch multiplies float32 matrices with the library it was built against, which on some processors reaches half
of what oneDNN, which torch ships as well, does (measured on an AMD EPYC of 2024: 200 against 450 GFLOP/s). Where
oneDNN's product is there and gives the right numbers it is used; everywhere else this is ``torch.mm``.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

MOST_SUMMANDS = 2**17
"""Products of int8 numbers, of which one has 7 bits, are summed in int32 without overflow up to here."""


@cache
def _onednn() -> Callable[[Tensor, Tensor], Tensor] | None:
    """oneDNN's ``a @ b.T`` for float32 on the CPU, or None where torch does not offer it."""
    operator = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if operator is None or not torch.backends.mkldnn.is_available():
        return None

    def product(a: Tensor, b: Tensor) -> Tensor:
        result: Tensor = operator(a, b, None, "none", [], "")
        return result

    a, b = torch.arange(6.0).reshape(2, 3), torch.arange(12.0).reshape(4, 3)
    try:
        return product if torch.equal(product(a, b), a @ b.T) else None
    except RuntimeError:
        return None


def inner(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b.T`` of ``(m, d)`` and ``(n, d)``, in their common dtype.

    Example:
        >>> inner(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
        tensor([[11.,  2.]])
    """
    # Of other layouts, columns of a larger matrix for one, oneDNN's product is a hundred times slower.
    plain = a.stride(1) == 1 and (b.is_contiguous() or b.T.is_contiguous())
    suits = plain and a.device.type == "cpu" and a.dtype == torch.float32 and a.numel() and b.numel()
    fast = _onednn() if suits else None
    return torch.mm(a, b.T) if fast is None else fast(a, b)


def mix(weights: Tensor, values: Tensor) -> Tensor:
    """``weights @ values`` of ``(m, n)`` and ``(n, d)``, in their common dtype."""
    return inner(weights, values.T)


@cache
def has_fast_bfloat16(device: str) -> bool:
    """Whether products in bfloat16 are several times as fast as in float32 there.

    Args:
        device: Kind of device, ``"cpu"`` or ``"cuda"``.
    """
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device == "cpu" and supported is not None and bool(supported())


def inner_bfloat16(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b.T`` of bfloat16 matrices, accumulated in float32 and rounded to bfloat16; as float32."""
    return torch.mm(a, b.T).float()


@cache
def has_fast_int8(device: str) -> bool:
    """Whether products of int8 matrices are exact and several times as fast as in float32 there; on CPUs alone."""
    multiply, supported = getattr(torch, "_int_mm", None), getattr(torch.cpu, "_is_vnni_supported", None)
    if device != "cpu" or multiply is None or supported is None or not supported():
        return False
    a = torch.arange(-128, 128, dtype=torch.int8).reshape(4, 64)
    try:
        return torch.equal(multiply(a, a.T), a.int() @ a.int().T)
    except RuntimeError:
        return False


def takes_int8(dim: int, device: str) -> bool:
    """Whether int8 matrices of that many columns may be, and had better be, multiplied with ``torch._int_mm``.

    It reads memory that nobody wrote where there is one column (torch 2.13), and overflows with too many.
    """
    return 2 <= dim <= MOST_SUMMANDS and has_fast_int8(device)


class Digits:
    """Rows of numbers as digits of 7 bits each, for exact products with int8.

    Args:
        x: Shape ``(m, d)``; float32 or float64.
        count: How many digits, from 1 to 4; for each row, shape ``(m,)``.

    Attributes:
        rounded: The numbers that the digits stand for, float64 ``(m, d)``.
    """

    def __init__(self, x: Tensor, count: Tensor) -> None:
        largest = x.double().abs().amax(1, keepdim=True)
        scale = largest.clamp_min(torch.finfo(torch.float32).tiny) / (127 * 128.0 ** (count[:, None] - 1))
        rest = torch.round(x.double() / scale)
        self.rounded = rest * scale
        self._scale = scale.float()
        self._rows, digits = [], []
        for place in range(int(count.max())):
            higher = torch.round(rest / 128).where(count[:, None] > place + 1, 0.0)
            rows = torch.nonzero(count > place).flatten()
            digits.append((rest - 128 * higher)[rows])
            self._rows.append(rows)
            rest = higher
        self._digits = torch.cat(digits).to(torch.int8)

    def inner(self, b: Tensor) -> Tensor:
        """``rounded @ b.T`` for ``b`` int8 of shape ``(n, d)``, rounded to float32 digit by digit."""
        products = torch._int_mm(self._digits, b.T).float().split([len(rows) for rows in self._rows])
        total: Tensor = products[0]
        for place, (rows, product) in enumerate(zip(self._rows[1:], products[1:], strict=True), 1):
            total.index_add_(0, rows, product, alpha=128**place)
        return total.mul_(self._scale)
