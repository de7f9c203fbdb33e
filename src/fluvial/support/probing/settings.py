"""What a probe was asked for, checked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from fluvial.support.probing.calls import AttentionCall
from fluvial.support.probing.statistics import FEWEST_TOKENS

Names = str | Sequence[str] | Callable[[str], bool]


@dataclass(frozen=True)
class ProbeSettings:
    """Arguments of ``probe``, which says what they mean.

    Raises:
        TypeError: If ``batch`` is no slice, or ``names`` no pattern, patterns or function.
        ValueError: If a number is out of range, or there is no name or no time.
    """

    names: Names | None = None
    times: tuple[float, ...] | None = None
    self_attention: bool = False
    batch: slice | None = None
    queries: int = 64
    permutations: int = 20
    keep: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("queries", 1), ("permutations", 2), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
        if self.batch is not None and not isinstance(self.batch, slice):
            raise TypeError(f"batch must be a slice of the batch's rows or None, got {type(self.batch).__name__}")
        if self.times is not None and not self.times:
            raise ValueError("times must hold at least one time or be None, got none")
        patterns = self._patterns()
        if patterns is not None and not (patterns and all(isinstance(pattern, str) for pattern in patterns)):
            raise TypeError(f"names must be patterns of layers' names, a function or None, got {self.names!r}")

    def wanted(self, layer: str) -> bool:
        """Whether a layer of this name is recorded.

        Example:
            >>> ProbeSettings(names="*/image").wanted("unet.mid.attn2/image")
            True
        """
        if callable(self.names):
            return bool(self.names(layer))
        patterns = self._patterns()
        return patterns is None or any(fnmatchcase(layer, pattern) for pattern in patterns)

    def at(self, time: float | None) -> bool:
        """Whether calls at this time are recorded."""
        if self.times is None:
            return True
        return time is not None and any(abs(time - wanted) <= 1e-6 * max(1, abs(wanted)) for wanted in self.times)

    def problem(self, call: AttentionCall) -> str | None:
        """Why a call cannot be compared with a kernel, None if it can."""
        if call.k.shape[2] < FEWEST_TOKENS:
            return "attention to one or two tokens, whose ranks say nothing"
        if call.scale <= 0:
            return "a scale that is not positive, which no kernel has"
        if call.q.is_meta:
            return "tensors without values"
        if not call.q.shape[2] or not len(range(call.q.shape[0])[self.rows]):
            return "no queries in the rows of the batch that batch= asks for"
        return None

    @property
    def rows(self) -> slice:
        """Rows of the batch to look at."""
        return slice(None) if self.batch is None else self.batch

    def _patterns(self) -> tuple[str, ...] | None:
        if self.names is None or callable(self.names):
            return None
        return (self.names,) if isinstance(self.names, str) else tuple(self.names)
