"""Every kind of file that fluvial reads: an undamaged one, how it is read, and what may come of a damaged one."""

import dataclasses
import gzip
import io
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import files_mutations as mutations
import numpy as np
import torch
from files_mutations import Files, Mutate
from PIL import Image
from safetensors.torch import save

import fluvial as fv


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Args:
        name: Short name.
        files: An undamaged folder.
        read: Reads the folder; arrays, tensors, numbers and texts in tuples, lists and dicts.
        targets: The files that are damaged, by their names; each with the change of its meaning, if there is one.
        valid: What another value must fulfil; None where a checksum protects the whole file.
    """

    name: str
    files: Files
    read: Callable[[Path], Any]
    targets: Mapping[str, Mutate | None]
    valid: Callable[[Any], bool] | None


def finite(value: Any) -> bool:
    """Whether each number in a value is finite, and no array in it is empty."""
    if isinstance(value, torch.Tensor):
        value = value.detach().float().numpy()
    if isinstance(value, np.ndarray):
        return value.size > 0 and (value.dtype.kind not in "fc" or bool(np.isfinite(value).all()))
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(finite, value))
    return not isinstance(value, float) or bool(np.isfinite(value))


def anything(value: Any) -> bool:
    """Nothing more is asked of a value that was read without an error."""
    return True


def all_formats(scratch: Path) -> list[Format]:
    """Every format; ``scratch`` is an empty folder to make runs in."""
    return [*_arrays(), *_tables(), *_pictures(), *_image_sets(), *_runs(scratch), *_estimators(scratch), *_records()]


def _data(name: str, **options: Any) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        data = fv.load_dataset(name.format(folder), held_out=0, **options)
        return data.x, data.labels, data.class_names

    return read


def _npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _npz(packed: bool = True, **arrays: Any) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(file, **arrays)
    return file.getvalue()


def _arrays() -> list[Format]:
    from fluvial.data.comparable import read_samples
    from fluvial.data.embeddings import read_embeddings
    from fluvial.support.examples import read_examples
    from fluvial.support.tasks.features import read_feature_file

    random = np.random.default_rng(0)
    x, y = random.normal(size=(20, 3)).astype(np.float32), np.array(["a", "b"] * 10)
    train = fv.Dataset(x, name="train")
    npz = mutations.npz_file

    def archive(name: str, content: bytes, read: Callable[[Path], Any]) -> Format:
        return Format(name, {"x.npz": content}, read, {"x.npz": npz}, None)

    def features(folder: Path) -> Any:
        found = read_feature_file(folder / "x.npz")
        return found.features, found.labels

    return [
        Format("npy", {"x.npy": _npy(x)}, _data("{}/x.npy"), {"x.npy": mutations.npy_file}, finite),
        Format(
            "npy streamed", {"x.npy": _npy(x)}, _data("{}/x.npy", stream=True), {"x.npy": mutations.npy_file}, finite
        ),
        Format(
            "npy pixels",
            {"x.npy": _npy(np.arange(240, dtype=np.uint8).reshape(15, 4, 4))},
            _data("{}/x.npy"),
            {"x.npy": mutations.npy_file},
            finite,
        ),
        archive("npz", _npz(x=x, y=y), _data("{}/x.npz")),
        archive("npz stored", _npz(False, x=x, y=np.arange(20) % 3), _data("{}/x.npz")),
        archive("samples npz", _npz(x=x), lambda folder: read_samples(folder / "x.npz", train)),
        archive("features npz", _npz(features=x, labels=np.arange(20) % 4), features),
        archive("embeddings npz", _npz(support=x, query=x[0]), lambda folder: read_embeddings(folder / "x.npz")),
        archive("support npz", _npz(support=x), lambda folder: read_examples(folder / "x.npz")),
    ]


def _tables() -> list[Format]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from fluvial.data.captions import read_captions

    values = np.random.default_rng(1).normal(size=(30, 3))
    text = "a,b,word,c\n" + "".join(f"{a:.4f},{b:.4f},w{b:.1f},{c:.4f}\n" for a, b, c in values)
    parquet = {}
    for kind in ("none", "snappy"):
        file = io.BytesIO()
        table = pa.table({"a": values[:, 0], "id": [str(i) for i in range(30)], "n": np.arange(30)})
        pq.write_table(table, file, compression=kind)
        parquet[kind] = file.getvalue()
    png = _picture("png", np.zeros((2, 2), np.uint8))
    captions = b"file,caption\nb.png,a bee\na.png,an ant\n"
    return [
        Format("csv", {"t.csv": text.encode()}, _data("{}/t.csv"), {"t.csv": mutations.csv_file}, finite),
        *(
            Format(f"parquet {k}", {"t.parquet": v}, _data("{}/t.parquet"), {"t.parquet": None}, finite)
            for k, v in parquet.items()
        ),
        Format(
            "captions",
            {"c.csv": captions, "p/a.png": png, "p/b.png": png},
            lambda folder: read_captions(folder / "c.csv", folder / "p"),
            {"c.csv": mutations.csv_file},
            lambda value: len(value) == 2 and all(value),
        ),
    ]


def _picture(kind: str, pixels: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=kind, **options)
    return file.getvalue()


def _pictures() -> list[Format]:
    random = np.random.default_rng(2)
    made = []
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds: dict[str, dict[str, Any]] = {
        **{"png": {}, "jpg": {"quality": 90}, "bmp": {}, "webp": {"lossless": True}},
        **{"jpeg": {"exif": exif, "progressive": True}},
    }
    for suffix, options in kinds.items():
        kind = "jpeg" if suffix == "jpg" else suffix
        files = {
            f"{i}.{suffix}": _picture(kind, random.integers(0, 256, (12, 10, 3), np.uint8), **options) for i in range(2)
        }
        targets = {f"0.{suffix}": None}
        made.append(Format(f"folder {suffix}", files, _data("folder:{}"), targets, finite))
        made.append(Format(f"folder {suffix} resized", files, _data("folder:{}", size=4), targets, finite))
    palette = {f"{i}.png": _palette(i) for i in range(2)}
    return [*made, Format("folder palette", palette, _data("folder:{}"), {"0.png": None}, finite)]


def _palette(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
    Image.fromarray(pixels).quantize(8).save(file, format="png")
    return file.getvalue()


def _idx(array: Any) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def _image_sets() -> list[Format]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(3)
    zipped, plain, batches, tables = {}, {}, {}, {}
    for part, count in (("train", 12), ("t10k", 6)):
        images, labels = random.integers(0, 256, (count, 4, 4), np.uint8), (np.arange(count) % 10).astype(np.uint8)
        for stem, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            plain[stem], zipped[f"{stem}.gz"] = _idx(array), gzip.compress(_idx(array), mtime=0)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        records = random.integers(0, 256, (2, 3073), np.uint8)
        records[:, 0] %= 10
        batches[f"{name}.bin"] = records.tobytes()
    for name in ("train-0", "test-0"):
        cells = [{"bytes": _picture("png", random.integers(0, 256, (32, 32, 3), np.uint8)), "path": None} for _ in "ab"]
        file = io.BytesIO()
        pq.write_table(pa.table({"img": cells, "label": [3, 4]}), file)
        tables[f"{name}.parquet"] = file.getvalue()

    def read(kind: str) -> Callable[[Path], Any]:
        def whole(folder: Path) -> Any:
            data = fv.load_dataset(f"{kind}:{folder}")
            return data.x, data.labels

        return whole

    images = "train-images-idx3-ubyte"
    return [
        Format("idx gz", zipped, read("fashion-mnist"), {f"{images}.gz": mutations.gz_file}, None),
        Format("idx", plain, read("fashion-mnist"), {images: None, "t10k-labels-idx1-ubyte": None}, finite),
        Format("cifar binary", batches, read("cifar10"), {"data_batch_2.bin": None}, finite),
        Format("cifar parquet", tables, read("cifar10"), {"train-0.parquet": None}, finite),
    ]


def files_of(folder: Path) -> Files:
    """All files below a folder, by their relative names."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def _runs(scratch: Path) -> list[Format]:
    from fluvial.training import TrainConfig, Trainer, load_run
    from fluvial.training.logs import read_metrics

    np.save(scratch / "x.npy", np.random.default_rng(4).normal(size=(20, 3)).astype(np.float32))
    config = TrainConfig(data=str(scratch / "x.npy"), width=8, depth=1, steps=2, batch_size=4, log_every=1)
    Trainer(dataclasses.replace(config, checkpoint_every=2), scratch / "run").fit()
    meta = fv.support.SupportConfig(width=8, heads=2, blocks=1, steps=2, batch_size=2, points=4, bank=4, m=4)
    fv.support.MetaTrainer(meta, scratch / "meta").fit()

    def read(folder: Path) -> Any:
        run = load_run(folder)
        net = {name: value.clone() for name, value in run.net.state_dict().items()}
        return dataclasses.asdict(run.config), run.step, run.data_hash, dataclasses.asdict(run.data_form), net

    def read_meta(folder: Path) -> Any:
        from fluvial.support.runs import load_support_run

        run = load_support_run(folder)
        return dataclasses.asdict(run.config), run.step, {k: v.clone() for k, v in run.net.state_dict().items()}

    formats = []
    for name, loader in (("run", read), ("support run", read_meta)):
        files = files_of(scratch / ("run" if name == "run" else "meta"))
        state = next(key for key in files if key.endswith("state.json"))
        targets: dict[str, Mutate | None] = {"config.toml": mutations.toml_file, state: mutations.checkpoint_file}
        targets |= {state.replace("state.json", "ema.safetensors"): mutations.checkpoint_file}
        formats.append(Format(name, files, loader, targets, finite))
    log = {"metrics.jsonl": files_of(scratch / "run")["metrics.jsonl"]}
    return [*formats, Format("metrics", log, read_metrics, {"metrics.jsonl": mutations.json_lines}, anything)]


def _estimators(scratch: Path) -> list[Format]:
    from fluvial.estimators import ExactDensity, FlowDensity
    from fluvial.metrics.extractors.cache import FeatureCache
    from fluvial.metrics.extractors.weights import read_weights

    rows = np.random.default_rng(5).normal(size=(40, 2))
    made: list[Format] = []
    ExactDensity().fit(rows).save(scratch / "exact")
    FlowDensity(width=8, depth=1, steps=3, random_state=0).fit(rows).save(scratch / "flow")
    for name, kind in (("exact", ExactDensity), ("flow", FlowDensity)):

        def read(folder: Path, name: str = name, kind: Any = kind) -> Any:
            return torch.as_tensor(kind.load(folder / name).score_samples(rows[:3]))

        files = {name: (scratch / name).read_bytes()}
        made.append(Format(f"estimator {name}", files, read, {name: mutations.safetensors_file}, None))
    tensors = {"a.weight": torch.randn(3, 4), "b": torch.arange(3)}
    old, new = io.BytesIO(), io.BytesIO()
    torch.save(tensors, old, _use_new_zipfile_serialization=False)
    torch.save(tensors, new)
    weights = {"w.safetensors": save(tensors), "old.pth": old.getvalue(), "new.pth": new.getvalue()}
    changes = {"w.safetensors": mutations.safetensors_file, "old.pth": None, "new.pth": mutations.zip_member}
    for name, content in weights.items():

        def tensors_of(folder: Path, name: str = name) -> Any:
            return read_weights(folder / name)

        made.append(Format(f"weights {name}", {name: content}, tensors_of, {name: changes[name]}, anything))
    FeatureCache(scratch / "cache").store("key", tensors)
    cached = files_of(scratch / "cache")

    def read_cache(folder: Path) -> Any:
        found = FeatureCache(folder).load("key")
        if found is None:  # what counts as absent is made again
            raise ValueError("key.safetensors counts as absent")
        return found

    target = {"key.safetensors": mutations.safetensors_file}
    return [*made, Format("feature cache", cached, read_cache, target, None)]


def _records() -> list[Format]:
    from fluvial.audits.cells import Cell, read_cell
    from fluvial.cli.demo import _own_runs
    from fluvial.cli.outputs import check_sidecar
    from fluvial.training.sweep import read_sweep

    cell = Cell(
        *(4, 8, 0, 10, 99, [0.1, 0.9], [1.0, 2.0], 1.5, 0.1, 1.7, 3.0, 0.9, 1, 10, 0.05),
        *({"values": 1.0}, {"values": 2.0}, 1.0),
    )
    sidecar = {"fluvial": "0", "file": "../../../etc/passwd", "seed": 0, "n": 3}
    demo = {"fluvial": "0", "command": "demo", "runs": {"a": {}}}
    sweep = {"fluvial": "0", "command": "audit scaling", "settings": {"sizes": [4]}, "hashes": {}}
    readers: dict[str, tuple[Any, Callable[[Path], Any], Callable[[Any], bool]]] = {
        "cell.json": (
            dataclasses.asdict(cell),
            lambda f: dataclasses.asdict(read_cell(f / "cell.json") or cell),
            finite,
        ),
        "s.json": (sidecar, lambda f: check_sidecar(f / "s.json", True), anything),
        "metrics.json": (demo, _own_runs, anything),
        "sweep.json": (sweep, read_sweep, anything),
    }
    return [
        Format(name, {name: json.dumps(value).encode()}, read, {name: mutations.json_file}, valid)
        for name, (value, read, valid) in readers.items()
    ]
