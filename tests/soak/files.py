"""Damaged and hostile files of every kind that fluvial reads: each is read whole, or refused in one line.

    .venv/bin/python tests/soak/files.py --count 10000 --seed 0 --json

A case takes an undamaged folder and damages one file of it, by its bytes or by what they mean. What may come of it:

* the value of the undamaged file, where the change does not matter;
* another value, where no checksum protects the file, if it is whole: finite numbers, no empty arrays;
* ``ValueError`` or ``OSError`` with one line that names the file.

Anything else is a failure: another error, a word on stdout or stderr, more than 5 seconds, more than 256 MiB, a file
written, code of a pickle run, the end of the process. Its files are kept, and ``--only CASE`` repeats it.
"""

import argparse
import contextlib
import json
import os
import random
import resource
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from peaks import peak, reset_peak

HERE = Path(__file__).parent
SECONDS = 5.0
"""What one file may take."""
MEMORY = 2**28
"""What reading one of a few kilobytes may take, in bytes."""
_ADDRESSES = 2**32  # beyond what the process has when it begins: threads reserve far more than they use
_WAIT = 60.0  # without a word from the process that reads, it hangs


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the cases in a process of their own and prints the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=10_000, help="number of files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="repeat this case of the seed alone")
    parser.add_argument("--format", help="damage files of this kind alone")
    parser.add_argument("--keep", type=Path, help="folder for the files of failures; a new one by default")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    first, stop = (0, options.count) if options.only is None else (options.only, options.only + 1)
    if options.work is not None:
        return _work(options, first, stop)
    base = Path(tempfile.mkdtemp(prefix="fluvial-files-"))
    options.keep = options.keep or Path(tempfile.gettempdir()) / f"fluvial-files-failures-{os.getpid()}"
    try:
        record = _watch(options, base, first, stop)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    print(json.dumps(record) if options.json else "\n".join(f"{key}: {value}" for key, value in record.items()))
    return 1 if record["failures"] else 0


def _watch(options: argparse.Namespace, base: Path, first: int, stop: int) -> dict[str, Any]:
    """Starts the process that reads, and another where one has died or hangs."""
    counts, kinds, failures, begin, told = Counter[str](), Counter[str](), list[dict[str, Any]](), 0.0, 0.0
    case, ready = first, True
    while case < stop and ready:
        ready = False
        given = ["--count", str(stop), "--seed", str(options.seed), "--keep", str(options.keep), "--work", str(base)]
        given += ["--format", options.format] if options.format else []
        given += ["--only", str(options.only)] if options.only is not None else []
        command = [sys.executable, str(HERE / "files.py"), *given]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "FILES_FIRST": str(case)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
            for line in _lines(process):
                word, number, *rest = json.loads(line)
                begin = begin or time.monotonic()
                case, ready = number, True
                if word == "done":
                    counts[rest[0]] += 1
                    kinds[rest[1]] += 1
                    case = number + 1
                    if rest[2]:
                        failures.append({"case": number, "format": rest[1], "problem": rest[2]})
                        print(f"failed: --seed {options.seed} --only {number}: {failures[-1]}", file=sys.stderr)
                if time.monotonic() - told > SECONDS and case > first:
                    told = time.monotonic()
                    rate = (case - first) / (told - begin)
                    left = (stop - case) / rate
                    print(f"{case - first}/{stop - first} files, {rate:.0f}/s, {left:.0f} s left", file=sys.stderr)
            status = process.wait()
        if case < stop and ready:
            problem = f"the process that read it ended with {status}"
            failures.append({"case": case, "format": "", "problem": problem})
            print(f"failed: --seed {options.seed} --only {case}: {problem}", file=sys.stderr)
            case += 1
    if not ready:
        raise RuntimeError(f"the process that is to read ended with {status} before it began")
    seconds = round(time.monotonic() - begin, 1)
    return {
        "program": "files",
        "files": stop - first,
        "formats": len(kinds),
        **{name: counts[name] for name in ("refused", "unchanged", "other")},
        "failures": len(failures),
        "failed": failures[:20],
        "seed": options.seed,
        "seconds": seconds,
    }


def _lines(process: "subprocess.Popen[bytes]") -> Iterator[bytes]:
    """Lines of its stdout until it ends; it is ended where it hangs."""
    assert process.stdout is not None
    rest, descriptor = b"", process.stdout.fileno()
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            if not selector.select(_WAIT):
                process.kill()
                return
            block = os.read(descriptor, 2**16)
            if not block:
                return
            *whole, rest = (rest + block).split(b"\n")
            yield from whole


def _work(options: argparse.Namespace, first: int, stop: int) -> int:
    """Reads the files of the cases, one after the other, and tells of each before and after it."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    from files_formats import all_formats

    scratch = Path(tempfile.mkdtemp(dir=options.work))
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        formats = [item for item in all_formats(scratch) if options.format in (None, item.name)]
    reader = Reader(formats, Path(tempfile.mkdtemp(dir=options.work)), options.keep)
    _limit_memory()
    warnings.simplefilter("always")
    for case in range(max(first, int(os.environ.get("FILES_FIRST", first))), stop):
        out.write(json.dumps(["begin", case]) + "\n")
        outcome, name, problem = reader.run(f"{options.seed}-{case}")
        out.write(json.dumps(["done", case, outcome, name, problem]) + "\n")
    out.close()
    return 0


def _limit_memory() -> None:
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + _ADDRESSES, now + _ADDRESSES))


class Reader:
    """Damages files and reads them.

    Args:
        formats: The kinds of files.
        base: An empty folder to put them into.
        keep: Folder for the files of failures.
    """

    def __init__(self, formats: Sequence[Any], base: Path, keep: Path) -> None:
        self.formats, self.base, self.keep = formats, base, keep
        self.marker, self.words = base / "marker", base / "words"
        self.values = []
        for number, item in enumerate(formats):
            for name, content in item.files.items():
                file = base / str(number) / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            self.values.append(plain(item.read(base / str(number))))
        self.names = _names(base)

    def run(self, seed: str) -> tuple[str, str, str]:
        """Outcome (refused, unchanged, other), kind of file, and what is wrong, if anything is."""
        draw = random.Random(seed)
        number = draw.randrange(len(self.formats))
        item, folder = self.formats[number], self.base / str(number)
        target = draw.choice(list(item.targets))
        changed, meant = self._damaged(item, target, draw)
        for name, content in changed.items():
            (folder / name).write_bytes(content)
        # From here, not from the largest so far: one case of much memory would hide those after it.
        reset_peak()
        before, start = peak(), time.monotonic()
        with _heard(self.words):
            outcome, problem = self._read(number, item, folder, meant)
        seconds = time.monotonic() - start
        grown = peak() - before
        words = self.words.read_bytes()
        if words:
            problem = problem or f"wrote {words[:300]!r}"
        if seconds > SECONDS:
            problem = problem or f"took {seconds:.1f} s"
        if grown > MEMORY:
            problem = problem or f"took {grown / 2**20:.0f} MiB"
        if self.marker.exists():
            problem = "the code of a pickle was run"
            self.marker.unlink()
        if _names(self.base) - {"words"} != self.names - {"words"}:
            problem = problem or f"made or removed {sorted(_names(self.base) ^ self.names)[:3]}"
        if problem:
            self._save(seed, changed, item.name, problem)
        for name in changed:
            (folder / name).write_bytes(item.files[name])
        return outcome, item.name, problem

    def _damaged(self, item: Any, target: str, draw: random.Random) -> tuple[dict[str, bytes], bool]:
        """Files to replace, and whether they may be whole again because checksums were made anew."""
        from files_mutations import damage, pickle_bomb

        change = item.targets[target]
        if draw.random() < 0.01:
            return {target: pickle_bomb(self.marker, draw.choice((0, 2, 4)))}, False
        if change is not None and draw.random() < 0.5:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return change(item.files, target, draw), True
        other = draw.choice(self.formats)
        return {target: damage(item.files[target], draw.choice(list(other.files.values())), draw)}, False

    def _read(self, number: int, item: Any, folder: Path, meant: bool) -> tuple[str, str]:
        try:
            value = plain(item.read(folder))
        except (ValueError, OSError) as error:
            return "refused", _fault(str(error), folder, item)
        except BaseException:
            return "refused", traceback.format_exc(limit=-4)
        if value == self.values[number]:
            return "unchanged", ""
        if item.valid is None and not meant:
            return "other", "another value in spite of a checksum"
        whole = item.valid is None or item.valid(item.read(folder))
        return "other", "" if whole else f"a value that is not whole: {str(value)[:200]}"

    def _save(self, seed: str, changed: dict[str, bytes], name: str, problem: str) -> None:
        folder = self.keep / seed
        for file, content in changed.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)
        (folder / "problem.txt").write_text(f"{name}\n{problem}\n", errors="replace")


def _fault(message: str, folder: Path, item: Any) -> str:
    """What is wrong with the message of an error."""
    names = {part for name in item.files for part in name.split("/")}
    if not any(name in message for name in (*names, str(folder))):
        return f"names no file: {message[:200]!r}"
    if not message.isprintable():
        return f"is no line of printable characters: {message[:300]!r}"
    if len(message) > 1000:
        return f"has {len(message)} characters: {message[:200]!r}"
    return f"took memory first: {message[:300]!r}" if "alloc" in message.lower() or "MemoryError" in message else ""


def plain(value: Any) -> Any:
    """A value that can be compared with ``==``: of arrays and tensors their type, shape and bytes."""
    import torch

    if hasattr(value, "detach"):
        value = value.detach().contiguous()
        value = torch.view_as_real(value) if value.is_complex() else value
        return str(value.dtype), tuple(value.shape), value.float().numpy().tobytes()
    if hasattr(value, "dtype"):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, (list, tuple)) else repr(value)


def _names(base: Path) -> set[str]:
    return {os.path.relpath(os.path.join(place, name), base) for place, _, names in os.walk(base) for name in names}


@contextlib.contextmanager
def _heard(words: Path) -> Iterator[None]:
    """Inside, stdout and stderr of the whole process go to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    file = os.open(words, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in enumerate(kept, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.close(file)


if __name__ == "__main__":
    sys.exit(main())
