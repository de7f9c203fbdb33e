"""Networks of the library diffusers as fields."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fluvial.checks import as_times, require_dense, require_input, require_shape
from fluvial.conditions import labels_of
from fluvial.kinds import checked

CLOCKS = ("fluvial", "reversed")


@checked
def wrap_diffusers(
    model: Any, *, time_scale: float = 1000.0, clock: str = "fluvial", null_label: int | None = None
) -> "DiffusersField":
    """Makes a ``UNet2DModel`` or a ``DiTTransformer2DModel`` of diffusers a field, to train or to sample.

    Args:
        model: The model; it is kept, not copied, so that training the field trains it. Where it drops labels of its
            own in training, as DiT does, that is turned off: fluvial's trainer drops them.
        time_scale: Timestep of time 1; models of diffusers expect timesteps up to 1000.
        clock: ``"fluvial"`` calls the model with the timestep ``time_scale t`` and takes its output as the velocity
            towards the data: for models trained here. ``"reversed"`` is for models trained in diffusers by flow
            matching, whose clock runs from data to noise and whose output is noise - data: the timestep is
            ``time_scale (1 - t)`` and the field is minus the output.
        null_label: Class that stands for no label. By default the one that a DiT keeps for it; a ``UNet2DModel`` has
            none, unless one of its ``num_class_embeds`` was trained as such and is named here.

    Returns:
        A module ``field(x, t, cond=None)``, with ``shape`` and ``gap = False``; ``cond`` are labels ``(B,)`` with -1
        for none.

    Raises:
        TypeError: If ``model`` is neither.
        ValueError: If the model's configuration does not make a field (images of no fixed size, timesteps that cannot
            be fractions, fewer outputs than inputs, classes that are no labels), or an argument is out of range.

    Source:
        Peebles & Xie 2023, "Scalable Diffusion Models with Transformers", for the null class and for the second half
        of a DiT's output channels, which holds a learned variance and is left out.

    Example:
        >>> from diffusers import DiTTransformer2DModel
        >>> field = fv.nn.wrap_diffusers(
        ...     DiTTransformer2DModel(2, 8, in_channels=1, num_layers=1, sample_size=8, num_embeds_ada_norm=10)
        ... )
        >>> field(torch.zeros(2, 1, 8, 8), torch.rand(2), torch.tensor([3, -1])).shape
        torch.Size([2, 1, 8, 8])
    """
    kinds: dict[str, Callable[[Any, int | None], tuple[int | None, int | None]]] = {
        "UNet2DModel": _unet_labels,
        "DiTTransformer2DModel": _dit_labels,
    }
    kind = next((base.__name__ for base in type(model).__mro__ if _from_diffusers(base, kinds)), None)
    if kind is None:
        names = " or ".join(kinds)
        raise TypeError(f"model must be a {names} of diffusers, got {type(model).__module__}.{type(model).__name__}")
    if not 0 < time_scale < float("inf"):
        raise ValueError(f"time_scale must be positive and finite, got {time_scale}")
    if clock not in CLOCKS:
        raise ValueError(f"clock must be {' or '.join(map(repr, CLOCKS))}, got {clock!r}")
    shape = _shape(model)
    classes, null = kinds[kind](model, null_label)
    return DiffusersField(model, shape, classes, null, time_scale, clock == "reversed")


class DiffusersField(nn.Module):
    """What :func:`wrap_diffusers` makes of a model.

    Args:
        model: The model of diffusers.
        shape: Shape ``(C, H, W)`` of an image.
        classes: Number of classes that it takes, None for a model without.
        null: Class that stands for no label, None for a model without.
        time_scale: Timestep of time 1.
        reverse: Whether the model's clock runs from data to noise.
    """

    gap = False

    def __init__(
        self,
        model: nn.Module,
        shape: tuple[int, int, int],
        classes: int | None,
        null: int | None,
        time_scale: float,
        reverse: bool,
    ) -> None:
        super().__init__()
        self.model, self.shape = model, shape
        self.classes, self.null = classes, null
        self.time_scale, self.reverse = time_scale, reverse

    def forward(
        self, x: Float[Tensor, "B *D"], t: Tensor | float, cond: Any = None, r: Tensor | float | None = None
    ) -> Float[Tensor, "B *D"]:
        """Velocity at ``(x, t)``.

        Args:
            x: Images, shape ``(B, C, H, W)``.
            t: Times, a scalar or ``(B,)``.
            cond: Labels ``(B,)`` with -1 for none; None for none in all rows.
            r: None; models of diffusers know no second time.

        Raises:
            ValueError: If ``x`` has another shape, the condition is not what the model takes, or ``r`` is given.
        """
        require_shape(x, self.shape)
        weight = next(self.model.parameters(), None)
        if weight is not None:
            require_input(x, weight)
        if r is not None:
            raise ValueError("a model of diffusers takes no second time r")
        t = as_times(t, x).to(x.dtype).expand(len(x))
        timestep = self.time_scale * (1 - t if self.reverse else t)
        labels = self._labels(cond, x)
        known = {} if labels is None else {"class_labels": labels}
        out: Tensor = self.model(x, timestep, **known).sample[:, : self.shape[0]]
        return -out if self.reverse else out

    def _labels(self, cond: Any, x: Tensor) -> Tensor | None:
        """The class of each row as the model names it."""
        if cond is not None and labels_of(cond) is None:
            described = tuple(cond.shape) if isinstance(cond, Tensor) else type(cond).__name__
            raise ValueError(f"cond must be whole labels (B,), got {described}")
        if isinstance(cond, Tensor):
            require_dense("cond", cond)
        if cond is not None and len(cond) != len(x):
            raise ValueError(f"cond must have {len(x)} rows, one for each point, got {len(cond)}")
        if self.classes is None:
            if cond is not None:
                raise ValueError("this model of diffusers takes no labels")
            return None
        labels = torch.full((len(x),), -1, device=x.device) if cond is None else cond
        self._check(labels)
        return labels if self.null is None else torch.where(labels < 0, self.null, labels)

    def _check(self, labels: Tensor) -> None:
        if labels.device.type != "cpu" or torch.compiler.is_compiling() or not len(labels):
            return
        if self.null is None and int(labels.min()) < 0:
            raise ValueError("this model of diffusers has no class for none: give every row a label, or null_label=")
        if self.classes is not None and int(labels.max()) >= self.classes:
            raise ValueError(f"labels must be below {self.classes}, got {int(labels.max())}")


def _from_diffusers(base: type, kinds: Any) -> bool:
    return base.__name__ in kinds and base.__module__.partition(".")[0] == "diffusers"


def _shape(model: Any) -> tuple[int, int, int]:
    config = model.config
    if config.sample_size is None:
        raise ValueError("the model must have a sample_size in its configuration, got None")
    sides = config.sample_size
    height, width = (sides, sides) if isinstance(sides, int) else sides
    out = config.in_channels if config.out_channels is None else config.out_channels
    if out not in (config.in_channels, 2 * config.in_channels):
        raise ValueError(f"the model must have {config.in_channels} output channels or twice as many, got {out}")
    return config.in_channels, height, width


def _unet_labels(model: Any, null: int | None) -> tuple[int | None, int | None]:
    """Number of classes of a ``UNet2DModel`` and its null class."""
    config = model.config
    if config.time_embedding_type != "positional":
        raise ValueError(f"the model's time_embedding_type must be 'positional', got {config.time_embedding_type!r}")
    if config.out_channels != config.in_channels:
        raise ValueError(f"the model must have {config.in_channels} output channels, got {config.out_channels}")
    if config.class_embed_type is not None:
        raise ValueError(f"the model's class_embed_type must be None, got {config.class_embed_type!r}")
    _check_null(null, config.num_class_embeds)
    return config.num_class_embeds, null


def _dit_labels(model: Any, null: int | None) -> tuple[int | None, int | None]:
    """Number of classes of a ``DiTTransformer2DModel`` and its null class; its own dropping of labels is turned off."""
    classes = model.config.num_embeds_ada_norm
    _check_null(null, classes + 1)
    for block in model.transformer_blocks:
        block.norm1.emb.class_embedder.dropout_prob = 0.0
    return classes, classes if null is None else null


def _check_null(null: int | None, count: int | None) -> None:
    if null is not None and not (count is not None and 0 <= null < count):
        raise ValueError(f"null_label must be one of the model's {count or 0} classes, got {null}")
