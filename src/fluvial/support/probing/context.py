"""The probe as a context manager: what it watches, what it keeps, how calls are labelled with times."""

import inspect
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.hooks import RemovableHandle

from fluvial.kinds import checked
from fluvial.randomness import generator
from fluvial.support.probing.calls import AttentionCall
from fluvial.support.probing.records import AttentionRecord, measured
from fluvial.support.probing.reports import ProbeReport
from fluvial.support.probing.settings import Names, ProbeSettings
from fluvial.support.probing.targets import component_modules, named_modules
from fluvial.support.probing.watching import Watch

_TIMES = ("t", "timestep", "timesteps", "time")


@checked
def probe(
    model: Any,
    *,
    names: Names | None = None,
    times: Sequence[float] | None = None,
    self_attention: bool = False,
    batch: slice | None = None,
    queries: int = 64,
    permutations: int = 20,
    keep: bool = False,
    seed: int = 0,
) -> "Probe":
    r"""Records the cross-attention of a running model and compares it with kernel smoothing.

    Attention rows are held against the Nadaraya-Watson weights
    :math:`w_i \propto \exp(-\|q - k_i\|^2 / (2 h^2))` of the same queries and keys at :math:`h^2 = \sqrt{d_k}` (the
    inverse of the attention's scale, where it has another). Both order tokens alike, but for the norms of the keys.
    The model computes what it would without the probe, bit for bit; on leaving, also after an error, nothing of the
    probe remains in it.

    It sees ``torch.nn.MultiheadAttention``, ``torch.nn.functional.scaled_dot_product_attention``, attention written
    out as a product and a softmax, and pipelines and nets of diffusers; an IP-Adapter's attention to image tokens is
    recorded apart from that to the text, as ``".../image"`` and ``".../text"``.

    Args:
        model: A module, or a pipeline of diffusers.
        names: Which layers to record: a pattern such as ``"*/image"``, several of them, or a function that is called
            with the full name; None for all.
        times: Record only calls at these times; None for all.
        self_attention: Also record attention whose queries and keys are projections of one tensor (or, where that
            cannot be seen, are equally many).
        batch: Which rows of the batch to look at, such as ``slice(1, None)``; None for all. With guidance, diffusers
            puts the unconditional rows first.
        queries: Queries of a call to look at, drawn at random over the batch; the same for all heads.
        permutations: Permutations of the keys for the null, at least 2.
        keep: Whether records keep their attention rows.
        seed: Seed of the queries and of the permutations.

    Returns:
        A context manager. ``time`` labels the calls that follow; while it is None, a model that is given one time for
        the whole batch (as ``t``, ``time`` or ``timestep``) labels them itself. ``records`` and ``report()`` hold what
        was found.

    Raises:
        TypeError: If ``model`` is neither a module nor a pipeline.
        ValueError: If the model is compiled or an argument is out of range. ``report()`` raises it when nothing was
            recorded.

    Source: Matsui Smola 2026, "Support-Conditioned Flow Matching Is Kernel Smoothing" (arXiv:2605.13386), for the
        comparison and its null, on an IP-Adapter. Its script was not published; the kernel here is that of queries and
        keys, not that of latents with the path's bandwidth.

    Example:
        >>> attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
        >>> x, tokens = torch.randn(3, 6, 8), torch.randn(3, 5, 8)
        >>> with probe(attention) as record:
        ...     record.time = 0.5
        ...     _ = attention(x, tokens, tokens)
        >>> record.records[0].tokens, record.records[0].time, len(record.records[0].spearman)
        (5, 0.5, 2)
    """
    chosen = None if times is None else tuple(float(time) for time in times)
    settings = ProbeSettings(names, chosen, self_attention, batch, queries, permutations, keep, seed)
    return Probe(component_modules(model), settings)


class Probe:
    """What :func:`probe` returns.

    Args:
        components: The modules to watch by name; ``""`` for a single one.
        settings: What was asked for.
    """

    def __init__(self, components: dict[str, nn.Module], settings: ProbeSettings) -> None:
        self.time: float | None = None
        self._components, self._settings = components, settings
        self._records: list[AttentionRecord] = []
        self._seen_time: float | None = None
        self._modules = named_modules(components)
        self._watch: Watch | None = None
        self._handles: list[RemovableHandle] = []
        self._layers: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        self._unnamed: set[str] = set()

    @property
    def records(self) -> tuple[AttentionRecord, ...]:
        """What was recorded so far, in the order of the calls."""
        return tuple(self._records)

    def at(self, time: float | None) -> "Probe":
        """Label the calls that follow with a time; None goes back to the model's own.

        Args:
            time: Time of the flow or timestep of the diffusion.
        """
        self.time = time
        return self

    def report(self) -> ProbeReport:
        """Summary of the records.

        Raises:
            ValueError: If there are none; the message says what was looked for and what to do.
        """
        if not self._records:
            raise ValueError(self._nothing())
        return ProbeReport(self.records, self._notes())

    def __enter__(self) -> "Probe":
        if self._watch is not None:
            raise RuntimeError("this probe is under way already; make another one")
        self._watch = Watch(self._modules.by_id, self._saw)
        for component in self._components.values():
            if _takes_time(component):
                self._handles.append(component.register_forward_pre_hook(self._read_time, with_kwargs=True))
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _read_time(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        parameters = list(inspect.signature(module.forward).parameters)
        name = next(name for name in _TIMES if name in parameters)
        place = parameters.index(name)
        value = kwargs.get(name, args[place] if place < len(args) else None)
        self._seen_time = _one_time(value)

    def _saw(self, layer: str, call: AttentionCall, same: bool, maker: str) -> None:
        layer = self._modules.with_role(layer, maker)
        time = self._seen_time if self.time is None else float(self.time)
        settings = self._settings
        number, self._layers[layer] = self._layers[layer], self._layers[layer] + 1
        if same and not settings.self_attention:
            self._left_out["self-attention, left out unless self_attention=True"] += 1
        elif not settings.wanted(layer):
            self._unnamed.add(layer)
        elif not settings.at(time):
            self._left_out["at other times than times="] += 1
        elif (problem := settings.problem(call)) is not None:
            self._left_out[problem] += 1
        else:
            self._record(layer, call, number, time)

    def _record(self, layer: str, call: AttentionCall, number: int, time: float | None) -> None:
        settings = self._settings
        draws = generator(settings.seed, len(self._records))
        with torch.no_grad(), forward_ad._set_fwd_grad_enabled(False):
            queries = call.drawn(settings.queries, settings.rows, draws)
            record = measured(
                call,
                layer,
                number,
                time,
                queries=queries,
                permutations=settings.permutations,
                keep=settings.keep,
                generator=draws,
            )
        self._records.append(record)

    def _notes(self) -> tuple[str, ...]:
        notes = [f"{_calls(count)} not recorded: {why}." for why, count in self._left_out.items()]
        adapted = self._modules.adapted & {layer.rpartition("/")[0] for layer in self._layers}
        missing = [name for name in sorted(adapted) if not any(f"{name}/image" in layer for layer in self._layers)]
        if missing:
            notes.append(f"image attention of {len(missing)} layers did not run (is the adapter's scale 0?).")
        if any(record.biased for record in self._records):
            notes.append("some layers add more to the product than a mask; that too sets attention and kernel apart.")
        return tuple(notes)

    def _nothing(self) -> str:
        found = [f"{_calls(count)}: {why}" for why, count in self._left_out.items()]
        if self._unnamed:
            count, examples = len(self._unnamed), ", ".join(sorted(self._unnamed)[:3])
            layers = f"{count} layer{'s' * (count > 1)}"
            found.append(f"{layers} that names={self._settings.names!r} leaves out, such as {examples}")
        looked = (
            "the probe recorded no cross-attention: it looks for torch.nn.MultiheadAttention, "
            "scaled_dot_product_attention and softmax(q k^T) in the modules of the model"
        )
        if found:
            return f"{looked}, and saw only " + "; ".join(found)
        return f"{looked}, and saw none; run the model inside the with block, in its thread, not under torch.func"


def _calls(count: int) -> str:
    return f"{count:,} call{'s' * (count > 1)}"


def _takes_time(module: nn.Module) -> bool:
    # Torch's own transformers take no time, and would leave their fast path for a hook.
    if type(module).__module__.startswith("torch.nn."):
        return False
    parameters = inspect.signature(module.forward).parameters
    return any(name in parameters for name in _TIMES)


def _one_time(value: Any) -> float | None:
    """The time of the whole batch; None if rows differ."""
    if isinstance(value, int | float):
        return float(value)
    if not isinstance(value, Tensor) or not value.numel() or value.is_meta:
        return None
    first = value.detach().flatten()
    return float(first[0]) if bool((first == first[0]).all()) else None
