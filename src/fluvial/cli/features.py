"""``fluvial features``: features of a data set or a folder of images, in a file."""

import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from fluvial import __version__
from fluvial.cli.folders import written_aside
from fluvial.cli.options import check_size
from fluvial.cli.outputs import check_outputs, write_sidecar
from fluvial.cli.render import json_text, renderer
from fluvial.data.looks import check_look
from fluvial.data.specs import parse_spec

if TYPE_CHECKING:
    from torch import Tensor

    from fluvial.data import Dataset
    from fluvial.metrics.extractors import Extractor, FeatureCache
    from fluvial.ranks import Ranks

_TAKE_WEIGHTS = ("inception", "dinov2")


@dataclass(frozen=True)
class Features:
    """Take features of a data set or a folder of images, for scores, probes or searches of one's own."""

    EPILOGUE: ClassVar[str] = """\
extractors:
  pixels              the data themselves: pixels of images, raw values of points and tables
  classifier          last hidden layer of a small net that is trained on the data's labels, on the training part alone
  efficientnet-lite0  1,280 features of ImageNet; net and weights come with the extra 'metrics'
  inception           2,048 features of Inception-v3, those of the Frechet Inception Distance; needs its weights
  dinov2              384 features of DINOv2 ViT-S/14, or those of the weights that are given; needs its weights

weights (without --weights they are looked for where torch.hub keeps them; dinov2 also comes from the Hugging Face
hub if huggingface_hub is installed; nothing else is downloaded):
  inception           pt_inception-2015-12-05-6726825d.pth, from the releases of pytorch-fid
  dinov2              dinov2_vits14_pretrain.pth of the official release, or model.safetensors of facebook/dinov2-small

output:
  x.npz   features (n, k), float; labels (n,) and class_names (c,) if there are any; names (n,), the files of a folder
  x.json  what was done: data and its hash, extractor and its hash, resize, uint8 rule, version

examples:
  fluvial features photos --extractor efficientnet-lite0 --size 224 --out photos.npz
  fluvial features digits --extractor classifier --split held-out --out digits.npz
  fluvial features photos --extractor inception --weights pt_inception-2015-12-05-6726825d.pth --out photos.npz

Images are rounded to 256 grey levels first, as picture files hold them. Features that are costly are kept in
~/.cache/fluvial by the content of the data and the hash of the extractor (--no-cache keeps none).
"""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER|SPEC")]
    """A folder of images, or a data set as for fluvial train."""
    extractor: Literal["pixels", "classifier", "efficientnet-lite0", "inception", "dinov2"]
    """What takes the features."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE.npz")]
    """Where to write."""
    split: Literal["all", "train", "held-out"] = "all"
    """Which part: all in their order, or one of the parts that fluvial train splits them into."""
    size: Annotated[int | None, tyro.conf.arg(help_behavior_hint="(default: as they are)")] = None
    """Side in pixels that images of a folder are cropped and resized to, before the extractor resizes them."""
    weights: Annotated[
        Path | None, tyro.conf.arg(help_behavior_hint="(default: where their makers' tools keep them)", metavar="FILE")
    ] = None
    """Weights of inception or dinov2."""
    batch_size: int = 64
    """Data at once: decides the memory used, not the result."""
    seed: int = 0
    """Seed of the split."""
    no_cache: bool = False
    """Neither read nor keep features in the cache."""
    overwrite: bool = False
    """Replace files that exist."""
    json: bool = False
    """Print the record on stdout."""

    def validate(self, given: tuple[str, ...] = ()) -> None:
        """Refuses bad values, data or weights that are absent, an extra that is not installed, and outputs that exist.

        Raises:
            ValueError: As above.
            ImportError: If the extractor's package is not installed.
        """
        if self.batch_size < 1:
            raise ValueError(f"--batch-size must be at least 1, got {self.batch_size}")
        if self.seed < 0:
            raise ValueError(f"--seed must not be negative, got {self.seed}")
        if self.out.suffix.lower() != ".npz":
            raise ValueError(f"--out must end in .npz, got {str(self.out)!r}")
        check_outputs(self.out, self.overwrite)
        check_look(self._spec)
        check_size(self.size, self._spec)
        self._validate_extractor()

    def _validate_extractor(self) -> None:
        if self.weights is not None:
            if self.extractor not in _TAKE_WEIGHTS:
                raise ValueError(f"--weights is for {' and '.join(_TAKE_WEIGHTS)}, got --extractor {self.extractor}")
            if not self.weights.exists():
                raise ValueError(f"--weights {str(self.weights)!r} does not exist")
        if self.extractor == "efficientnet-lite0" and find_spec("efficientnet_lite_pytorch") is None:
            raise ImportError(
                "the extractor efficientnet-lite0 is not installed: pip install 'fluvial[metrics]' "
                "(pixels and classifier need nothing more)"
            )

    @property
    def _spec(self) -> str:
        """The data set's spec; a folder's bare path is one too."""
        return f"folder:{self.data}" if ":" not in self.data and Path(self.data).is_dir() else self.data

    def execute(self) -> int:
        """Takes the features, writes them and their record, and says where they are."""
        from fluvial.data import load_dataset
        from fluvial.metrics.extractors import default_cache
        from fluvial.ranks import Ranks

        ranks = Ranks.joined()
        # split whatever is asked for: the classifier is trained on the training part alone
        split = load_dataset(self._spec, seed=self.seed, size=self.size)
        data = {"all": split, "train": split.train, "held-out": split.held_out}[self.split]
        if len(data) == 0:
            raise ValueError(f"--split {self.split}: {self.data} has no such data")
        if not ranks.alike(len(data)):
            raise ValueError(f"the processes find different numbers of data in {self.data}")
        cache = None if self.no_cache else default_cache()
        extractor = self._load_in_turn(split, cache, ranks)
        started = time.monotonic()
        features = self._take(extractor, data, cache, ranks)
        if not ranks.first:
            return 0
        record = json_text(self._record(extractor, data, features, time.monotonic() - started))
        self._write(features, data)
        write_sidecar(self.out, record)
        summary = f"{self.out}: {features.shape[1]} features of {len(data)} data by {extractor.name}"
        print(record if self.json else summary)
        return 0

    def _load_in_turn(self, split: "Dataset", cache: "FeatureCache | None", ranks: "Ranks") -> "Extractor":
        """The extractor, on the first process before the others: what it trains and keeps, they find in the cache."""
        if not ranks.first:
            ranks.wait()
        extractor = self._load(split, cache)
        if ranks.first:
            ranks.wait()
        if not ranks.alike(int(extractor.hash[:15], 16)):
            raise ValueError(f"the processes have different extractors {self.extractor}: are their weights the same?")
        return extractor

    def _load(self, split: "Dataset", cache: "FeatureCache | None") -> "Extractor":
        from fluvial.metrics.extractors import load_extractor

        train, fresh = split.train, split.held_out
        trained = self.extractor == "classifier"
        if trained and train.labels is None:
            raise ValueError(f"--extractor classifier is trained on labels, and {self.data} has none")
        held_out = (fresh.x, fresh.labels) if trained and len(fresh) and fresh.labels is not None else None
        return load_extractor(
            self.extractor,
            train=train.x if trained else train.take(range(min(len(train), 4096)))[0],
            labels=train.labels if trained else None,
            held_out=held_out,
            weights=self.weights,
            cache=cache,
        )

    def _take(self, extractor: "Extractor", data: "Dataset", cache: "FeatureCache | None", ranks: "Ranks") -> "Tensor":
        """Features in batches read one by one: a large folder is never one tensor. Processes are dealt the batches."""
        import torch

        from fluvial.metrics.extractors import extract_features
        from fluvial.progress import Progress

        parts, portion = [], 16 * self.batch_size
        with renderer() as progress:
            for mine in ranks.batches(len(data), portion):

                def report(inner: Progress, start: int = mine.start) -> None:
                    progress(Progress(inner.task, min(start + ranks.count * inner.step, len(data)), len(data)))

                # A process that has none in the last round takes one datum, to know how many features there are.
                x = data.take(mine or range(1))[0]
                found = extract_features(
                    extractor, x, batch_size=self.batch_size, cache=cache if mine else None, progress=report
                )
                parts.append(ranks.collect(found[: len(mine)], portion))
        return torch.cat(parts)

    def _write(self, features: "Tensor", data: "Dataset") -> None:
        import numpy as np

        arrays: dict[str, Any] = {"features": features.numpy()}
        if data.labels is not None:
            arrays["labels"] = data.labels.numpy()
            arrays["class_names"] = np.array(data.class_names)
        names = self._names(len(data))
        if names:
            arrays["names"] = np.array(names)
        with written_aside(self.out) as aside, aside.open("wb") as file:
            np.savez_compressed(file, **arrays)

    def _names(self, count: int) -> tuple[str, ...]:
        """Files of a folder, where all of it was read."""
        from fluvial.data.pictures import picture_names

        spec = parse_spec(self._spec)
        names = picture_names(spec.path) if spec.kind == "folder" and spec.path is not None else ()
        return names if len(names) == count else ()

    def _record(self, extractor: "Extractor", data: "Dataset", features: "Tensor", seconds: float) -> dict[str, Any]:
        return {
            "fluvial": __version__,
            "file": self.out.name,
            "data": self.data,
            "size": self.size,
            "split": self.split,
            "seed": self.seed,
            "data_hash": data.content_hash,
            "n": len(data),
            "extractor": extractor.name,
            "extractor_hash": extractor.hash,
            **extractor.describe(),
            "number_of_features": features.shape[1],
            "seconds": round(seconds, 2),
        }
