"""Ways in which a checkpoint's files are damaged: each changes one of them, or all."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

FILES = ("model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json")


def _cut(file: Path, chance: random.Random) -> None:
    os.truncate(file, chance.randrange(file.stat().st_size))


def _empty(file: Path, _: random.Random) -> None:
    os.truncate(file, 0)


def _flip_a_bit(file: Path, chance: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)


def _remove(file: Path, _: random.Random) -> None:
    file.unlink()


def _remove_all(file: Path, _: random.Random) -> None:
    for other in file.parent.iterdir():
        other.unlink()


def _exchange(file: Path, chance: random.Random) -> None:
    other = file.with_name(chance.choice([name for name in FILES if name != file.name]))
    one, two = file.read_bytes(), other.read_bytes()
    file.write_bytes(two)
    other.write_bytes(one)


def _take_earlier(file: Path, _: random.Random) -> None:
    """The file of the first checkpoint, whose size is the same."""
    shutil.copyfile(file.parent.with_name("step-00000005") / file.name, file)


def _foreign_json(file: Path, chance: random.Random) -> None:
    texts = ["{}", "[]", "null", '{"step": 20, "files": {}}', '{"version": 5, "fluvial": "0"}', '"x"', "[" * 100_000]
    file.write_text(chance.choice(texts))


def _zero_tail(file: Path, chance: random.Random) -> None:
    content = file.read_bytes()
    keep = chance.randrange(len(content))
    file.write_bytes(content[:keep] + bytes(len(content) - keep))


def _folder_for_file(file: Path, _: random.Random) -> None:
    file.unlink()
    file.mkdir()


def _file_for_folder(file: Path, _: random.Random) -> None:
    shutil.rmtree(file.parent)
    file.parent.write_bytes(b"not a folder")


def _append(file: Path, chance: random.Random) -> None:
    with open(file, "ab") as stream:
        stream.write(chance.randbytes(chance.randrange(1, 5000)))


WAYS: tuple[Callable[[Path, random.Random], None], ...] = (
    *(_cut, _empty, _flip_a_bit, _flip_a_bit, _flip_a_bit, _remove, _remove_all, _exchange, _take_earlier),
    *(_foreign_json, _zero_tail, _folder_for_file, _file_for_folder, _append),
)
