"""What ``fluvial sample`` draws samples of: a class, every class, a prompt, or a folder of reference images."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fluvial.cli.classes import class_number
from fluvial.training.config import TrainConfig

if TYPE_CHECKING:
    from torch import Tensor

    from fluvial.conditions import Condition
    from fluvial.nn import Referring
    from fluvial.training.runs import Run

ALL = "all"
"""The label that stands for every class."""


@dataclass(frozen=True)
class Asked:
    """The options that say what to draw samples of.

    Args:
        label: Name or number of a class, or ``"all"``.
        prompt: A text.
        reference: A folder of images.
        guidance: Guidance scale.
    """

    label: str | None = None
    prompt: str | None = None
    reference: Path | None = None
    guidance: float | None = None

    def validate(self, config: TrainConfig, run: Path) -> None:
        """Refuses what the run's net was not trained for; imports no torch.

        Raises:
            ValueError: As above.
            ImportError: If a prompt is given and the sentence encoder is not installed.
        """
        given = {"--label": self.label, "--prompt": self.prompt, "--reference": self.reference}
        options = [option for option, value in given.items() if value is not None]
        if len(options) > 1:
            raise ValueError(f"give {options[0]} or {options[1]}, not both")
        trained = {"--label": config.labels, "--prompt": config.captions, "--reference": config.reference_size}
        names = {"--label": "--labels", "--prompt": "--captions", "--reference": "--reference-size"}
        for option in options:
            if not trained[option]:
                raise ValueError(f"{option} needs a run trained with {names[option]}; {run} was trained without")
        if self.guidance is not None and not options:
            needed = next((option for option, value in trained.items() if value), "--label")
            raise ValueError(f"--guidance needs {needed}: it strengthens the condition")
        if self.guidance is not None and not math.isfinite(self.guidance):
            raise ValueError(f"--guidance must be finite, got {self.guidance}")
        if self.prompt is not None:
            if not self.prompt.strip():
                raise ValueError("--prompt must hold a text, got an empty one")
            from fluvial.data.text import require_encoder

            require_encoder(config.encoder)
        if self.reference is not None and not self.reference.is_dir():
            state = "is no folder" if self.reference.exists() else "does not exist"
            raise ValueError(f"--reference {str(self.reference)!r} {state}: give a folder of images")


@dataclass(frozen=True)
class Conditions:
    """The conditions of the samples that are drawn.

    Args:
        count: Number of samples in all.
        cond: Condition of each sample; None for none.
        labels: Class of each sample, if it has one.
        record: What the sidecar says.
        name: Part of the default file name.
        columns: Images in a row of a picture; None for about square.
    """

    count: int
    cond: "Condition | None" = None
    labels: "Tensor | None" = None
    record: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    columns: int | None = None


def conditions(asked: Asked, run: "Run", n: int) -> Conditions:
    """What the options ask of a run.

    Args:
        asked: The options.
        run: The run.
        n: Number of samples; with the label ``"all"``, of each class.

    Raises:
        ValueError: If there is no such class, or the reference folder holds no images.
    """
    if asked.label is not None:
        return _of_labels(asked.label, run, n)
    if asked.prompt is not None:
        return _of_prompt(asked.prompt, run, n)
    return Conditions(n) if asked.reference is None else _of_reference(asked.reference, run, n)


def _of_labels(label: str, run: "Run", n: int) -> Conditions:
    import torch

    names, classes = run.data_form.class_names, run.net_spec.classes or 0
    every, left_out = label == ALL and ALL not in names, run.left_out_classes
    if every:
        numbers = [number for number in range(classes) if number not in left_out]
    else:
        numbers = [class_number(label, names, classes)]
        if numbers[0] in left_out:
            raise ValueError(f"--label {label}: {run.folder} was trained without this class")
    labels = torch.tensor(numbers).repeat_interleave(n)
    if every:
        return Conditions(len(labels), labels, labels, {"label": ALL}, "label-all", columns=n)
    name = names[numbers[0]] if numbers[0] < len(names) else None
    return Conditions(n, labels, labels, {"label": numbers[0], "label_name": name}, f"label-{numbers[0]}")


def _of_prompt(prompt: str, run: "Run", n: int) -> Conditions:
    import torch

    from fluvial.conditions import Embedding
    from fluvial.data.text import embed_sentences

    vector = torch.from_numpy(embed_sentences([prompt], run.config.encoder))
    size = run.net_spec.embedding
    if vector.shape[1] != size:
        raise ValueError(f"the encoder {run.config.encoder} gives {vector.shape[1]} numbers, the net takes {size}")
    record = {"prompt": prompt, "encoder": run.config.encoder}
    words = "".join(letter if letter.isalnum() else "-" for letter in prompt.lower())[:40].strip("-")
    return Conditions(n, Embedding.of(vector.expand(n, -1)), None, record, f"prompt-{words or 'text'}")


def _of_reference(folder: Path, run: "Run", n: int) -> Conditions:
    from fluvial.conditions import Tokens

    images = reference_images(folder, run.net_spec.shape)
    # They stay the same while samples are drawn, so they are encoded once.
    tokens = cast("Referring", run.net).encode(Tokens.of(images[None]))
    record = {"reference": str(folder), "references": len(images)}
    name = f"reference-{folder.resolve().name}"
    return Conditions(n, tokens.each(lambda part: part.expand(n, *part.shape[1:])), None, record, name)


def reference_images(folder: Path, shape: tuple[int, ...]) -> "Tensor":
    """Images of a folder in the form that a net takes: its channels, and its size where this is square.

    Args:
        folder: The folder.
        shape: Shape ``(C, H, W)`` of the net's images.

    Returns:
        Shape ``(m, C, H, W)``, in [-1, 1].

    Raises:
        ValueError: If there are no images, or their size differs from one that is not square.
    """
    from fluvial.data import Dataset
    from fluvial.data.pictures import list_pictures, look_at, read_pictures

    paths = list_pictures(folder)
    if not paths:
        raise ValueError(f"--reference {str(folder)!r} holds no images")
    channels, height, width = shape
    try:
        for path in paths:
            look_at(path)
        images = Dataset(read_pictures(paths, size=height if height == width else None, crop=None, grey=channels == 1))
    except ValueError as error:
        raise ValueError(f"--reference {str(folder)!r}: {error}") from None
    if images.shape != shape:
        raise ValueError(f"--reference {str(folder)!r} holds images of shape {images.shape}, the net takes {shape}")
    return images.x
