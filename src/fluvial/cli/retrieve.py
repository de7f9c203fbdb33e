"""``fluvial retrieve``: finds data that fit a text or an embedding, as samples of the exact field under a prior."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from fluvial import __version__
from fluvial.cli.found import Item, effective_number, items_record, items_table, list_items, names_of, nearest_data
from fluvial.cli.options import check_size
from fluvial.cli.outputs import check_outputs, write_sidecar
from fluvial.cli.render import console, json_text, renderer
from fluvial.cli.samples import Form, check_form, check_memory, form_record, write_samples
from fluvial.data.specs import parse_spec

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from fluvial.data import Dataset


@dataclass(frozen=True)
class Retrieve:
    """Find data that fit a text or an embedding: samples of the exact field, tilted by similarity."""

    EPILOGUE: ClassVar[str] = """\
what fits is said by a text or by embeddings:
  --captions FILE.csv --prompt TEXT   header file,caption; paths relative to the folder of --data folder:PATH; the
                                      sentence encoder comes with the extra 'text' and needs no network
  --embeddings FILE.npz               arrays support (N, e), in the order of the data, and query (e,) or (Q, e)

A datum is drawn with probability proportional to exp(cosine similarity / temperature): at 0 the most similar datum
alone, at 0.05 a few, from 1 on nearly all alike.

outputs (the name decides; without --out the table alone):
  x.png   a grid of images; a scatter plot of points in the plane
  x.npz   keys x (as fluvial sample writes it), index (row of each sample's datum), log_prior (of all data)
  x       a folder of images 000000.png, 000001.png, ...
  A sidecar x.json records the query, the solver, the seed, and each datum drawn with its prior and count.

examples:
  fluvial retrieve --data folder:photos --captions photos/captions.csv --prompt "a red car" --out cars.png
  fluvial retrieve --data folder:photos --captions photos/captions.csv --prompt "a red car" --temperature 0 --n 1
  fluvial retrieve --data x.npz --embeddings e.npz --query-index 3 --n 1000 --json
"""

    data: Annotated[str, tyro.conf.arg(metavar="SPEC")]
    """What is searched, all of it: a data set as for fluvial train."""
    captions: Annotated[Path | None, tyro.conf.arg(help_behavior_hint="(with --prompt)", metavar="FILE.csv")] = None
    """Captions of the images, header file,caption; with --embeddings they only name the items."""
    prompt: Annotated[str | None, tyro.conf.arg(help_behavior_hint="(or --embeddings)", metavar="TEXT")] = None
    """What to look for; compared with the captions."""
    encoder: str = "all-MiniLM-L6-v2"
    """What turns texts into vectors: that of the extra 'text', a folder with a CLIP text model, or hub:OWNER/NAME."""
    embeddings: Annotated[Path | None, tyro.conf.arg(help_behavior_hint="(or --prompt)", metavar="FILE.npz")] = None
    """Embeddings of the data (support) and of what to look for (query), instead of texts."""
    query: Annotated[
        Path | None, tyro.conf.arg(help_behavior_hint="(default: that in --embeddings)", metavar="FILE.npz")
    ] = None
    """A file with the array query, to take instead."""
    query_index: Annotated[int | None, tyro.conf.arg(help_behavior_hint="(needed if there are several)")] = None
    """Which query, from 0."""
    temperature: float = 0.05
    """Units of cosine similarity that make a datum e times likelier; 0 takes the most similar datum alone."""
    size: Annotated[int | None, tyro.conf.arg(help_behavior_hint="(default: as they are)")] = None
    """Side in pixels that images of a folder are cropped and resized to."""
    n: int = 64
    """Number of samples."""
    out: Annotated[Path | None, tyro.conf.arg(help_behavior_hint="(default: none)", metavar="PATH")] = None
    """Where to write the samples: NAME.png, NAME.npz, or a folder (any other name)."""
    solver: Literal["euler", "midpoint", "heun", "rk4"] = "heun"
    """How the field is integrated."""
    steps: int = 50
    """Number of solver steps from noise to data."""
    seed: int = 0
    """Seed of the noise."""
    batch_size: int = 512
    """Samples integrated together: decides the memory used, not the result."""
    overwrite: bool = False
    """Replace files that exist."""
    json: bool = False
    """Print the record on stdout instead of the table."""

    def validate(self, given: tuple[str, ...] = ()) -> None:
        """Refuses bad values, data and captions that are absent or do not match, and outputs that exist.

        Raises:
            ValueError: As above.
            ImportError: If a prompt is given and the sentence encoder is not installed.
        """
        for name in ("n", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"--seed must not be negative, got {self.seed}")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"--temperature must be finite and not negative, got {self.temperature}")
        check_size(self.size, self.data)
        if "--encoder" in given and self.prompt is None:
            raise ValueError("--encoder needs --prompt, which it makes a vector of")
        self._validate_query()
        if self.out is not None:
            check_outputs(self.out, self.overwrite)
        self._files_and_captions()
        if self.embeddings is not None:
            self._own_embeddings()

    def _validate_query(self) -> None:
        from fluvial.data.text import require_encoder

        if (self.prompt is None) == (self.embeddings is None):
            got = "neither" if self.prompt is None else "both"
            raise ValueError(f"say what to look for with either --prompt TEXT or --embeddings FILE.npz, got {got}")
        if self.prompt is None:
            return
        for option, value in {"--query": self.query, "--query-index": self.query_index}.items():
            if value is not None:
                raise ValueError(f"{option} needs --embeddings, got --prompt")
        if not self.prompt.strip():
            raise ValueError("--prompt must hold a text, got an empty one")
        if self.captions is None:
            raise ValueError("--prompt needs --captions FILE.csv, the texts to compare it with")
        require_encoder(self.encoder)

    def execute(self) -> int:
        """Retrieves, writes the output and its sidecar, and prints what was found."""
        import numpy as np
        import torch

        from fluvial.data import load_dataset

        data = load_dataset(self.data, size=self.size, held_out=0)
        form = Form(data.name, data.kind, data.shape, data.table)
        if self.out is not None:
            check_form(form, self.out)
        check_memory(self.n, form)
        files, captions = self._files_and_captions()
        log_prior = self._log_prior(len(data), captions)
        x, index, evaluations = self._draw(data, log_prior)
        counts = torch.bincount(index, minlength=len(data)).tolist()
        items = list_items(counts, log_prior.exp().tolist(), names_of(data, files, captions))
        record = json_text(self._record(data, form, log_prior, items, evaluations))
        if self.out is not None:
            arrays = {"index": index.numpy().astype(np.int64), "log_prior": log_prior.numpy()}
            write_samples(form, x, self.out, arrays)
            write_sidecar(self.out, record)
        if self.json:
            print(record)
        else:
            console().print(items_table(items, self.n))
        return 0

    def _files_and_captions(self) -> tuple[Sequence[str], Sequence[str]]:
        """Names of the pictures of a folder, and their captions, in the order of the data."""
        spec = parse_spec(self.data)
        if spec.kind != "folder" or spec.path is None:
            if self.captions is not None:
                raise ValueError(f"--captions needs --data folder:PATH, got --data {self.data}")
            return (), ()
        from fluvial.data.captions import read_captions
        from fluvial.data.pictures import picture_names

        captions = () if self.captions is None else read_captions(self.captions, spec.path)
        return picture_names(spec.path), captions

    def _own_embeddings(self) -> "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]":
        from fluvial.data.embeddings import read_embeddings

        if self.embeddings is None:
            raise ValueError("--embeddings is required without --prompt")
        for option, path in (("--embeddings", self.embeddings), ("--query", self.query)):
            if path is not None and path.suffix.lower() != ".npz":
                raise ValueError(f"{option} must be in a .npz file, got {str(path)!r}")
        return read_embeddings(self.embeddings, self.query, self.query_index)

    def _log_prior(self, count: int, captions: Sequence[str]) -> "Tensor":
        """Log-prior over the data, shape (N,), float64."""
        import torch

        from fluvial.data.text import embed_sentences
        from fluvial.fields import similarity_prior

        if self.prompt is None:
            support, query = self._own_embeddings()
        else:
            found = embed_sentences([*captions, self.prompt], self.encoder)
            support, query = found[:-1], found[-1]
        if len(support) != count:
            raise ValueError(f"{self.embeddings} embeds {len(support)} data, and {self.data} has {count}")
        return similarity_prior(torch.tensor(query).double(), torch.tensor(support).double(), self.temperature)[0]

    def _draw(self, data: "Dataset", log_prior: "Tensor") -> "tuple[Tensor, Tensor, int]":
        """Samples, the row of each one's datum, and the evaluations spent on each sample."""
        import torch

        from fluvial.fields import ExactField
        from fluvial.solvers.sampling import Solver, draw_samples

        device = "cuda" if torch.cuda.is_available() else "cpu"
        field = ExactField(data.x, log_prior=log_prior).to(device)
        with renderer() as progress:
            x, evaluations = draw_samples(
                field,
                self.n,
                data.shape,
                seed=self.seed,
                solver=Solver(self.solver, self.steps),
                batch_size=self.batch_size,
                device=device,
                task="retrieve",
                progress=progress,
            )
        return x, nearest_data(field, x.to(device), self.batch_size), evaluations

    def _record(
        self, data: "Dataset", form: Form, log_prior: "Tensor", items: Sequence[Item], evaluations: int
    ) -> dict[str, Any]:
        return {
            "fluvial": __version__,
            "file": None if self.out is None else self.out.name,
            "data": self.data,
            "size": self.size,
            "data_hash": data.content_hash,
            "prompt": self.prompt,
            "captions": _text(self.captions),
            "encoder": None if self.prompt is None else self.encoder,
            "embeddings": _text(self.embeddings),
            "query": _text(self.query),
            "query_index": self.query_index,
            "temperature": self.temperature,
            "n": self.n,
            "seed": self.seed,
            "solver": self.solver,
            "steps": self.steps,
            "evaluations": evaluations,
            "data_in_all": len(data),
            "data_in_effect": effective_number(log_prior),
            "retrieved": items_record(items),
            **form_record(form, self.out),
        }


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
