"""Which tensor a projection was made from, and by which module: what tells self-attention from cross-attention.

Queries and keys of self-attention are projections of one tensor. Storages are told apart by weak references, which
keep a storage's address from being used again but free its memory.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

_SWEEP = 1024


@dataclass(frozen=True)
class Origin:
    """Where a projection comes from.

    Args:
        source: What it was made of: storage, offset and number of values.
        maker: Full name of the module that made it.
        reference: Keeps the source's address from being used for another.
    """

    source: tuple[int, int, int]
    maker: str
    reference: StorageWeakRef


class Origins:
    """The projections made so far that are still in memory.

    Example:
        >>> origins, x = Origins(), torch.zeros(3, 2)
        >>> q, k = 2 * x, 3 * x
        >>> origins.projected(q, x, "to_q"), origins.projected(k, x, "to_k")
        (None, None)
        >>> origins.same_source(q, k)
        True
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[StorageWeakRef, Origin]] = {}
        self._sweep_at = _SWEEP

    def projected(self, out: Tensor, source: Tensor, maker: str) -> None:
        """Note that ``out`` was made of ``source`` by a linear map."""
        made, of = _storage(out), _storage(source)
        if made is not None and of is not None:
            identity = (of.cdata, int(source.storage_offset()), source.numel())
            self._keep(made, Origin(identity, maker, of))

    def inherited(self, out: Tensor, source: Tensor) -> None:
        """Note that ``out`` is ``source``, changed token by token: normalised, turned, cast or copied."""
        made, of = _storage(out), _storage(source)
        if made is None or of is None or made.cdata == of.cdata:
            return
        known = self._known.get(of.cdata)
        if known is not None:
            self._keep(made, known[1])

    def of(self, x: Tensor) -> Origin | None:
        """Where ``x`` comes from, None if that is not known."""
        storage = _storage(x)
        known = None if storage is None else self._known.get(storage.cdata)
        return None if known is None else known[1]

    def same_source(self, q: Tensor, k: Tensor) -> bool:
        """Whether queries and keys are of one set of tokens.

        They are not if there are more of one than of the other. They are if they lie in one storage, as the parts of a
        joint projection do, or were projected from the same tensor. Where that is not known, equal numbers decide.
        """
        if q.shape[-2] != k.shape[-2]:
            return False
        of_q, of_k = _storage(q), _storage(k)
        if of_q is not None and of_k is not None and of_q.cdata == of_k.cdata:
            return True
        q_origin, k_origin = self.of(q), self.of(k)
        return q_origin is None or k_origin is None or q_origin.source == k_origin.source

    def _keep(self, made: StorageWeakRef, origin: Origin) -> None:
        self._known[made.cdata] = (made, origin)
        if len(self._known) > self._sweep_at:
            self._known = {key: value for key, value in self._known.items() if not value[0].expired()}
            self._sweep_at = max(_SWEEP, 2 * len(self._known))


def _storage(x: Tensor) -> StorageWeakRef | None:
    """Weak reference to the storage of ``x``; None for tensors without one, such as sparse ones."""
    try:
        return StorageWeakRef(x.untyped_storage())
    except (NotImplementedError, RuntimeError):
        return None
