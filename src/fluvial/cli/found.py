"""What a retrieval found: each item of the data with its prior probability and how often it was drawn."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor

    from fluvial.data import Dataset
    from fluvial.fields import ExactField

SHOWN = 10


@dataclass(frozen=True)
class Item:
    """One datum.

    Args:
        index: Its row in the data set.
        file: Its picture's path, where there is one.
        caption: Its caption, or the name of its class, where there is one.
        prior: Its prior probability.
        count: How many samples ended on it.
    """

    index: int
    file: str | None
    caption: str | None
    prior: float
    count: int


@dataclass(frozen=True)
class Names:
    """How the items of a data set are called; each sequence is empty or has one entry for each datum."""

    files: Sequence[str]
    captions: Sequence[str]


def names_of(data: "Dataset", files: Sequence[str], captions: Sequence[str]) -> Names:
    """Names by file and caption; the class stands in for a caption."""
    classes = [] if captions or data.labels is None else [data.class_names[label] for label in data.labels.tolist()]
    return Names(files, captions or classes)


def nearest_data(field: "ExactField", x: "Tensor", batch_size: int) -> "Tensor":
    """Row of the datum that each sample ended on, int64 on the CPU; of equal data the one with the largest prior."""
    import torch

    return torch.cat([field.posterior(rows, 1.0).top_index.cpu() for rows in x.split(batch_size)])


def effective_number(log_prior: "Tensor") -> float:
    """Exponential of the entropy of a prior: between how many data it chooses.

    Example:
        >>> effective_number(torch.tensor([0.25, 0.25, 0.25, 0.25]).log())
        4.0
    """
    import torch

    return float(torch.special.entr(log_prior.exp()).sum().exp())


def list_items(counts: Sequence[int], prior: Sequence[float], names: Names) -> list[Item]:
    """The items that were drawn and the likeliest one, the most frequent first, ties by their prior.

    Example:
        >>> items = list_items([0, 2, 1], [0.7, 0.2, 0.1], Names((), ("ant", "bee", "cow")))
        >>> [(item.caption, item.count) for item in items]
        [('bee', 2), ('cow', 1), ('ant', 0)]
    """
    likeliest = max(range(len(prior)), key=prior.__getitem__)
    rows = [i for i, count in enumerate(counts) if count or i == likeliest]
    rows.sort(key=lambda i: (-counts[i], -prior[i], i))
    return [
        Item(
            i,
            names.files[i] if names.files else None,
            names.captions[i] if names.captions else None,
            float(prior[i]),
            int(counts[i]),
        )
        for i in rows
    ]


def items_record(items: Sequence[Item]) -> list[dict[str, Any]]:
    """The items as a sidecar lists them."""
    return [asdict(item) for item in items]


def items_table(items: Sequence[Item], n: int) -> "Table":
    """The most frequent items: what they are, their prior probability, how often they were expected and drawn."""
    from rich.markup import escape
    from rich.table import Table

    more = f"; {len(items) - SHOWN} more in the record (--json)" if len(items) > SHOWN else ""
    table = Table(caption=f"{n} samples{more}", caption_justify="left")
    table.add_column("item", justify="right")
    for name in ("file", "caption"):
        if getattr(items[0], name) is not None:
            table.add_column(name, overflow="fold")
    for name in ("prior", "expected", "drawn"):
        table.add_column(name, justify="right")
    for item in items[:SHOWN]:
        words = [escape(word) for word in (item.file, item.caption) if word is not None]
        table.add_row(str(item.index), *words, f"{item.prior:.4f}", f"{n * item.prior:.1f}", str(item.count))
    return table
